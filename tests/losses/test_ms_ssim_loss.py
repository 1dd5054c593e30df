"""SSIMLoss, MSSSIMLoss, masks, cached targets, ExpectedLossVAE; warnings and errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from gradworks.losses import ExpectedLossVAE, MSSSIMLoss, SSIMLoss
from gradworks.losses.ms_ssim import ms_ssim, plan, ssim, ssim_map
from gradworks.losses.ms_ssim import tile as tile_module

F64 = torch.float64


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def pair(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = 0.7 * rand(*shape, seed=seed)
    return x, x + 0.3 * rand(*shape, seed=seed + 1)


# ---------------------------------------------------------------- modules


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("alpha", [0.0, 0.16])
def test_modules_are_one_minus_the_functions(reduction: str, alpha: float) -> None:
    x, y = pair(3, 2, 24, 24)
    x, y = 255 * x, 255 * y
    keywords = {"data_range": 255.0, "kernel_size": 5, "sigma": 1.0}
    mean_error = (x - y).abs().mean((1, 2, 3)) / 255
    cases = [
        (SSIMLoss, {"nonneg": "relu"}, ssim),
        (MSSSIMLoss, {"scales": 2, "odd": "crop", "nonneg": "shift"}, ms_ssim),
    ]
    for module, extra, function in cases:
        loss = module(reduction=reduction, alpha=alpha, **keywords, **extra)(x, y)
        per_image = function(x, y, reduction="none", **keywords, **extra)
        want = (1 - alpha) * (1 - per_image) + alpha * mean_error
        want = {"mean": want.mean(), "sum": want.sum(), "none": want}[reduction]
        torch.testing.assert_close(loss, want)


def test_modules_show_settings_and_hold_no_parameters() -> None:
    criterion = MSSSIMLoss(scales="auto", alpha=0.16, cache_target=True)
    assert "alpha=0.16" in repr(criterion)
    assert "scales='auto'" in repr(criterion)
    assert criterion.state_dict() == {}
    assert list(criterion.parameters()) == []


def test_training_on_the_loss_restores_a_picture() -> None:
    y = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    x = torch.full_like(y, 0.5).requires_grad_()
    criterion = MSSSIMLoss(kernel_size=5, scales=2, nonneg="shift")
    optimizer = torch.optim.Adam([x], lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        criterion(x, y).backward()
        optimizer.step()
    assert ssim(x.detach(), y) > 0.97


# ---------------------------------------------------------------- masks


def test_mask_weighs_positions_by_the_windows_centre() -> None:
    x, y = pair(2, 2, 20, 22)
    mask = rand(2, 1, 20, 22, seed=7)
    centre = mask[..., 5:-5, 5:-5]
    want = (ssim_map(x, y) * centre).sum((2, 3)) / centre.sum((2, 3))
    torch.testing.assert_close(ssim(x, y, mask=mask, reduction="none"), want.mean(1))
    for value in (1.0, 3.0):
        even = torch.full((1, 1, 20, 22), value)
        torch.testing.assert_close(ssim(x, y, mask=even), ssim(x, y))


def test_what_the_mask_leaves_out_has_no_gradient_beyond_the_window() -> None:
    x, y = pair(1, 1, 40, 40)
    x.requires_grad_()
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., :15] = 1
    SSIMLoss(alpha=0.2)(x, y, mask).backward()
    assert x.grad[..., 20:].abs().max() == 0
    assert x.grad[..., 15:20].abs().max() > 0


def test_an_image_without_weight_counts_as_equal() -> None:
    x, y = pair(2, 1, 24, 24)
    x.requires_grad_()
    mask = torch.ones(2, 1, 24, 24, dtype=torch.bool)
    mask[1] = False
    values = ms_ssim(x, y, kernel_size=5, scales=2, mask=mask, reduction="none")
    values.sum().backward()
    assert values[1] == 1
    assert x.grad[1].abs().max() == 0
    alone = ms_ssim(x[:1], y[:1], kernel_size=5, scales=2)
    torch.testing.assert_close(values[0], alone)


def test_mask_under_vmap() -> None:
    x, y = pair(3, 2, 2, 12, 12)
    mask = rand(3, 2, 1, 12, 12, seed=4)

    def one(a: Tensor, b: Tensor, m: Tensor) -> Tensor:
        return ssim(a, b, kernel_size=3, mask=m, reduction="none")

    by_one = torch.stack([one(*parts) for parts in zip(x, y, mask)])
    torch.testing.assert_close(torch.func.vmap(one)(x, y, mask), by_one)
    for shared in (mask[0], mask[0, :1]):
        by_one = torch.stack([one(a, b, shared) for a, b in zip(x, y)])
        got = torch.func.vmap(one, in_dims=(0, 0, None))(x, y, shared)
        torch.testing.assert_close(got, by_one)


# ---------------------------------------------------------------- cached targets


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every tile of a target that is filtered."""
    found: list[int] = []
    take = tile_module.TargetMoments.take

    def counted(self: tile_module.TargetMoments, make: Callable[[], object]) -> object:
        def noted() -> object:
            found.append(1)
            return make()

        return take(self, noted)

    monkeypatch.setattr(tile_module.TargetMoments, "take", counted)
    return found


def gradient(criterion: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    loss = criterion(leaf, y)
    loss.backward()
    return loss.detach(), leaf.grad


CACHED = [
    (SSIMLoss, {"kernel_size": 5}),
    (MSSSIMLoss, {"kernel_size": 3, "scales": 3, "odd": "replicate"}),
]


@pytest.mark.parametrize(("module", "keywords"), CACHED)
def test_a_cached_target_changes_nothing(module: type, keywords: dict, made: list[int]) -> None:
    criterion, plain = module(cache_target=True, **keywords), module(**keywords)
    _, y = pair(3, 2, 24, 21)
    for step in range(3):
        x = rand(3, 2, 24, 21, seed=20 + step)
        torch.testing.assert_close(gradient(criterion, x, y), gradient(plain, x, y))
    first = len(made)
    assert first == keywords.get("scales", 1)  # filtered in the first step, one tile a scale
    with torch.no_grad():
        y.mul_(0.5)
    torch.testing.assert_close(gradient(criterion, x, y), gradient(plain, x, y))
    assert len(made) == 2 * first


def test_cache_holds_so_many_targets_and_survives_copies(made: list[int]) -> None:
    criterion = SSIMLoss(kernel_size=5, cache_target=2)
    targets = [rand(1, 1, 12, 12, seed=i) for i in range(3)]
    x = rand(1, 1, 12, 12, seed=9)
    for i in (0, 1, 0, 1):
        criterion(x, targets[i])
    assert len(made) == 2
    for i in (2, 1, 0):
        criterion(x, targets[i])
    assert len(made) == 4
    for twin in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        torch.testing.assert_close(twin(x, targets[0]), criterion(x, targets[0]))
    y = targets[0].clone().requires_grad_()
    criterion(x, y).backward()
    assert y.grad is not None
    assert len(made) == 6


def test_a_target_inside_a_transform_is_not_kept(made: list[int]) -> None:
    x, y = pair(3, 1, 12, 12)
    criterion, plain = (SSIMLoss(kernel_size=3, cache_target=flag) for flag in (True, False))
    got = torch.func.vmap(lambda a, b: criterion(a[None], b[None]))(x, y)
    want = [plain(x[i : i + 1], y[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(got, torch.stack(want))
    assert made == []


def test_an_interrupted_first_pass_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    criterion = MSSSIMLoss(kernel_size=3, scales=3, cache_target=True)
    x, y = pair(1, 1, 24, 24)
    real, calls = tile_module._filtered, []

    def broken(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(tile_module, "_filtered", broken)
        with pytest.raises(KeyboardInterrupt):
            criterion(x, y)
    for _ in range(2):
        plain = MSSSIMLoss(kernel_size=3, scales=3)(x, y)
        torch.testing.assert_close(criterion(x, y), plain)


# ---------------------------------------------------------------- the autoencoder


def autoencoder(loss: Callable[[Tensor, Tensor], Tensor], **keywords: object) -> ExpectedLossVAE:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    decoder = nn.Sequential(nn.Linear(3, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    return ExpectedLossVAE(encoder, decoder, loss, **keywords)


def test_vae_objective_is_divergence_plus_weighted_loss() -> None:
    model = autoencoder(nn.MSELoss(), loss_weight=7.0, samples=3)
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    out = model(x, generator=torch.Generator().manual_seed(2))
    posterior = torch.distributions.Normal(out.mean, torch.exp(0.5 * out.log_variance))
    prior = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
    kl = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()
    torch.testing.assert_close(out.kl, kl)
    torch.testing.assert_close(out.loss, out.kl + 7.0 * out.reconstruction_loss)
    samples = out.reconstruction.view(3, 5, 1, 8, 8)
    torch.testing.assert_close(out.reconstruction_loss, (samples - x).square().mean())
    noise = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(samples[2], model.decode(posterior.loc + posterior.scale * noise[2]))
    assert not torch.equal(samples[0], samples[1])
    again = model(x, generator=torch.Generator().manual_seed(2))
    assert torch.equal(again.loss, out.loss)
    out.loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_vae_takes_pairs_and_another_target_and_samples() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            code = x.flatten(1)[:, :3]
            return code, torch.full_like(code, -60.0)  # no noise to speak of

    model = autoencoder(MSSSIMLoss(kernel_size=3, scales=2))
    model.encoder = Pair()
    x, y = (v.float() for v in pair(4, 1, 8, 8))
    out = model(x, y)
    decoded = model.decode(x.flatten(1)[:, :3])
    torch.testing.assert_close(out.reconstruction, decoded)
    torch.testing.assert_close(
        out.reconstruction_loss, 1 - ms_ssim(decoded, y, kernel_size=3, scales=2)
    )
    drawn = [model.sample((2, 3), generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert drawn[0].shape == (2, 1, 8, 8)
    assert torch.equal(*drawn)
    assert "loss_weight=100, samples=1" in repr(model)


# ---------------------------------------------------------------- warnings and errors


@pytest.fixture
def unsaid() -> Iterator[None]:
    plan._SAID.clear()
    yield
    plan._SAID.clear()


def test_auto_takes_the_scales_that_fit_and_says_so_once(unsaid: None) -> None:
    x, y = pair(1, 1, 64, 64)
    with pytest.warns(UserWarning, match=r"hold 3 of 5 scales .*Pass scales=3"):
        value = ms_ssim(x, y, scales="auto")
    torch.testing.assert_close(value, ms_ssim(x, y, scales=3))
    ms_ssim(x, y, scales="auto")  # a second warning would be an error here
    MSSSIMLoss(scales="auto")(x, y)
    x, y = pair(1, 1, 161, 161)
    torch.testing.assert_close(ms_ssim(x, y, scales="auto"), ms_ssim(x, y))


@pytest.mark.parametrize("odd", ["pad", "replicate", "crop"])
def test_the_smallest_side_is_the_smallest(odd: str) -> None:
    side = 176 if odd == "crop" else 161
    assert ms_ssim(rand(1, 1, side, side), rand(1, 1, side, side), odd=odd) >= 0
    with pytest.raises(ValueError, match=rf"sides of at least \({side}, {side}\)"):
        ms_ssim(rand(1, 1, 200, side - 1), rand(1, 1, 200, side - 1), odd=odd)


def test_a_batch_without_gradient_is_told_on_request() -> None:
    x = rand(2, 1, 24, 24)
    keywords = {"kernel_size": 5, "scales": 2, "validate": True}
    with pytest.warns(UserWarning, match="nonneg='shift'"):
        ms_ssim(x, 1 - x, **keywords)
    with pytest.warns(UserWarning, match="mix in L1"):
        MSSSIMLoss(**keywords)(x, 1 - x)
    ms_ssim(x, 1 - x, nonneg="shift", **keywords)
    one_alive = torch.cat([1 - x[:1], x[1:]])
    ms_ssim(x, one_alive, **keywords)
    leaf = x.clone().requires_grad_()
    MSSSIMLoss(alpha=0.16, **keywords)(leaf, 1 - x).backward()  # alive by L1: nothing to say
    assert leaf.grad.abs().min() > 0


X = rand(1, 1, 32, 32)
LINEAR = nn.Linear(2, 2)
BAD: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: ssim(X, X[..., :-1]), ValueError, "(1, 1, 32, 32) and (1, 1, 32, 31)"),
    (lambda: ssim(X[0], X[0][0]), ValueError, "one shape"),
    (lambda: ssim(X[0, 0], X[0, 0]), ValueError, "image[None, None]"),
    (lambda: ssim(X[None, None], X[None, None]), ValueError, "1 to 3 spatial sides"),
    (lambda: ssim(X[:0], X[:0]), ValueError, "must not be empty"),
    (lambda: ssim(X.byte(), X.byte()), TypeError, "`.float()`"),
    (lambda: ssim(X, X.long()), TypeError, "target must be floating point, got torch.int64"),
    (lambda: ssim(X, X.numpy()), TypeError, "target must be a tensor, got ndarray"),
    (lambda: ssim(X, X.to("meta")), TypeError, "got cpu and meta"),
    (lambda: ssim(X, X, kernel_size=4), ValueError, "kernel_size must be a positive odd int"),
    (lambda: ssim(X, X, kernel_size=2.5), ValueError, "got 2.5"),
    (lambda: ssim(X, X, kernel_size=33), ValueError, "kernel_size=31 is the largest"),
    (lambda: ssim(X, X, kernel_size=(3, 3, 3)), ValueError, "each of the 2 spatial sides"),
    (lambda: ssim(X, X, sigma=0.0), ValueError, "sigma must be a positive"),
    (lambda: ssim(X, X, k=(0.01,)), ValueError, "two positive numbers"),
    (lambda: ssim(X, X, data_range=0.0), ValueError, "data_range must be a positive number"),
    (lambda: ssim(X, X, data_range=-1), ValueError, "got -1"),
    (lambda: ssim(X, X, data_range=float("nan")), ValueError, "got nan"),
    (lambda: ssim(X, X, reduction="max"), ValueError, "'mean', 'none', 'sum', got 'max'"),
    (lambda: ssim(X, X, nonneg="abs"), ValueError, "'relu', 'shift', 'leaky', got 'abs'"),
    (lambda: ssim(255 * X, X, validate=True), ValueError, "input must be within [0, data_range]"),
    (lambda: ssim(X, X - 1, validate=True), ValueError, "target must be within"),
    (lambda: ssim(X, X * torch.nan, validate=True), ValueError, "to nan"),
    (lambda: ssim_map(X, -X, validate=True), ValueError, "target must be within"),
    (lambda: ssim(X, X, mask=X[0]), ValueError, "mask must be (N or 1, C or 1, *spatial)"),
    (lambda: ssim(X, X, mask=X.expand(2, -1, -1, -1)), ValueError, "got (2, 1, 32, 32)"),
    (lambda: ssim(X, X, mask=[1]), TypeError, "mask must be a tensor, got list"),
    (lambda: ssim(X, X, mask=X.to("meta")), TypeError, "mask must be on the images' cpu"),
    (lambda: ssim(X, X, mask=-X, validate=True), ValueError, "finite weights >= 0"),
    (lambda: ms_ssim(X, X), ValueError, "Pass scales=2, the most that fit"),
    (lambda: ms_ssim(X, X, scales=4), ValueError, "4 scales need kernel_size <= 3"),
    (lambda: ms_ssim(X, X, scales=3), ValueError, "3 scales need kernel_size <= 7"),
    (lambda: ms_ssim(X, X, scales=6), ValueError, "an int from 1 to the 5 weights, got 6"),
    (lambda: ms_ssim(X, X, scales="all"), ValueError, "got 'all'"),
    (lambda: ms_ssim(X, X, weights=(0.5, 0.6)), ValueError, "with sum 1.1"),
    (lambda: ms_ssim(X, X, weights=(1.5, -0.5)), ValueError, "weights must be positive"),
    (lambda: ms_ssim(X, X, weights=()), ValueError, "weights must be positive"),
    (lambda: ms_ssim(X, X, nonneg=None), ValueError, "'relu', 'shift', 'leaky', got None"),
    (lambda: ms_ssim(X, X, odd="drop"), ValueError, "'pad', 'crop', 'replicate', got 'drop'"),
    (lambda: SSIMLoss(kernel_size=10), ValueError, "odd int"),
    (lambda: SSIMLoss(alpha=1.5), ValueError, "alpha must be in [0, 1]"),
    (lambda: SSIMLoss(cache_target=-1), ValueError, "cache_target must be at least 0"),
    (lambda: SSIMLoss(cache_target="yes"), TypeError, "cache_target must be a bool or an int"),
    (lambda: SSIMLoss(nonneg="abs"), ValueError, "nonneg must be one of None"),
    (lambda: MSSSIMLoss(nonneg=None), ValueError, "got None"),
    (lambda: MSSSIMLoss(data_range=0), ValueError, "data_range must be a positive"),
    (lambda: MSSSIMLoss(scales=0), ValueError, "got 0"),
    (lambda: MSSSIMLoss(odd="none"), ValueError, "odd must be"),
    (lambda: MSSSIMLoss(reduction="avg"), ValueError, "reduction must be"),
    (lambda: ExpectedLossVAE(LINEAR, None), TypeError, "decoder must be a torch.nn.Module"),
    (lambda: ExpectedLossVAE(LINEAR, LINEAR, "mse"), TypeError, "loss must be callable"),
    (lambda: ExpectedLossVAE(LINEAR, LINEAR, loss_weight=0.0), ValueError, "loss_weight must be"),
    (lambda: ExpectedLossVAE(LINEAR, LINEAR, samples=0), ValueError, "samples must be"),
    (
        lambda: ExpectedLossVAE(nn.Linear(2, 3), LINEAR)(torch.zeros(4, 2)),
        ValueError,
        "got shape (4, 3)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[row[2] for row in BAD])
def test_bad_input(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
