"""The methods that are compared with, the schedule and Fish's outer step."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.alignment_cases import CLOSE, domains, f64
from torch import Tensor, nn

from gradworks.curvature.alignment import (
    FishOuter,
    HGPAlignment,
    HutchinsonAlignment,
    MovingAverage,
    PenaltySchedule,
    coral_penalty,
    domain_losses,
    fishr_penalty,
    head_hessian_diagonal,
    iga_penalty,
    irm_penalty,
    vrex_penalty,
)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], y.to(logits.dtype))
    return F.cross_entropy(logits, y)


def derivative_in_scale(logits: Tensor, y: Tensor) -> Tensor:
    scale = torch.ones((), dtype=logits.dtype, requires_grad=True)
    return torch.autograd.grad(cross_entropy(scale * logits, y), scale, create_graph=True)[0]


@pytest.mark.parametrize("classes", [1, 3])
def test_irm_in_both_forms(classes: int) -> None:
    (_, a, y), _ = domains((5, 4), classes)
    want = torch.stack([derivative_in_scale(u, v) ** 2 for u, v in zip(a, y)]).mean()
    torch.testing.assert_close(irm_penalty(a, y), want, **CLOSE)
    parts = [
        derivative_in_scale(u[::2], v[::2]) * derivative_in_scale(u[1::2], v[1::2])
        for u, v in zip(a, y)
    ]
    torch.testing.assert_close(irm_penalty(a, y, halves=True), torch.stack(parts).mean(), **CLOSE)


def test_vrex_and_losses() -> None:
    (_, a, y), _ = domains((5, 4, 3))
    losses = domain_losses(a, y)
    torch.testing.assert_close(losses, torch.stack([F.cross_entropy(*d) for d in zip(a, y)]))
    want = losses.var(correction=0)
    torch.testing.assert_close(vrex_penalty(losses), want, **CLOSE)
    torch.testing.assert_close(vrex_penalty(list(losses)), want, **CLOSE)


def test_coral() -> None:
    (z, _, _), _ = domains((5, 4, 3))
    parts = []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        mean = (z[i].mean(0) - z[j].mean(0)).square().mean()
        parts.append(mean + (z[i].T.cov() - z[j].T.cov()).square().mean())
    torch.testing.assert_close(coral_penalty(z), torch.stack(parts).mean(), **CLOSE)


def single_gradients(head: nn.Module, z: Tensor, y: Tensor) -> Tensor:
    rows = []
    for v, t in zip(z, y):
        loss = cross_entropy(head(v[None]), t[None])
        found = torch.autograd.grad(loss, list(head.parameters()), create_graph=True)
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_fishr_is_the_variance_of_single_gradients(classes: int, bias: bool) -> None:
    (z, a, y), head = domains((5, 4), classes, bias=bias)
    v = torch.stack([single_gradients(head, *d).var(0, correction=0) for d in zip(z, y)])
    want = (v - v.mean(0)).square().sum(1).mean()
    torch.testing.assert_close(fishr_penalty(z, a, y, bias=bias), want, **CLOSE)


def test_fishr_with_a_moving_average() -> None:
    (z, a, y), _ = domains((5, 4))
    (w, b, t), _ = domains((5, 4), seed=1)
    average = MovingAverage(0.95)
    first = fishr_penalty(z, a, y, ema=average)
    torch.testing.assert_close(first, fishr_penalty(z, a, y), **CLOSE)
    v = [torch.stack([_variance(*d) for d in zip(*lists)]) for lists in ((z, a, y), (w, b, t))]
    mixed = 0.95 * v[0] + v[1]
    want = (mixed - mixed.mean(0)).square().sum(1).mean()
    torch.testing.assert_close(fishr_penalty(w, b, t, ema=average), want, **CLOSE)


def _variance(z: Tensor, a: Tensor, y: Tensor) -> Tensor:
    r = torch.softmax(a, 1) - F.one_hot(y, a.shape[1])
    rows = torch.cat([(r[:, :, None] * z[:, None]).flatten(1), r], 1)
    return rows.var(0, correction=0)


def test_backpack_gives_the_same_variances_and_diagonals() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backpack = pytest.importorskip("backpack", reason="backpack or its unfoldNd is missing")
        from backpack.extensions import BatchGrad, DiagHessian

        (z, a, y), head = domains((5, 4))
        extended = backpack.extend(copy.deepcopy(head))
        variances = []
        for v, b, t in zip(z, a, y):
            extended.zero_grad()
            loss = backpack.extend(nn.CrossEntropyLoss())(extended(v), t)
            with backpack.backpack(BatchGrad(), DiagHessian()):
                loss.backward()
            params = list(extended.parameters())
            diagonal = torch.cat([p.diag_h.flatten() for p in params])
            torch.testing.assert_close(head_hessian_diagonal(v, b, t), diagonal, **CLOSE)
            single = torch.cat([p.grad_batch.flatten(1) for p in params], 1) * len(v)
            variances.append(single.var(0, correction=0))
    v = torch.stack(variances)
    want = (v - v.mean(0)).square().sum(1).mean()
    torch.testing.assert_close(fishr_penalty(z, a, y).detach(), want, **CLOSE)


def test_iga_value_and_gradient() -> None:
    (z, _, y), head = domains((5, 4, 3))
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).double()
    unused = nn.Parameter(torch.zeros(2))
    params = [*net.parameters(), *head.parameters(), unused]

    def losses() -> Tensor:
        return domain_losses([head(net(v)) for v in z], y)

    penalty = iga_penalty(losses(), params)
    each = [
        torch.cat([g.flatten() for g in torch.autograd.grad(v, params[:-1], retain_graph=True)])
        for v in losses()
    ]
    g = torch.stack(each)
    torch.testing.assert_close(penalty.detach(), (g - g.mean(0)).square().sum(), **CLOSE)
    penalty.backward()
    eps, p = 1e-5, net[0].weight
    with torch.no_grad():
        p[0, 0] += eps
    up = iga_penalty(losses(), params).detach()
    with torch.no_grad():
        p[0, 0] -= 2 * eps
    down = iga_penalty(losses(), params).detach()
    torch.testing.assert_close(p.grad[0, 0], (up - down) / (2 * eps), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "function",
    [
        lambda z, a, y: irm_penalty(a, y),
        lambda z, a, y: irm_penalty(a, y, halves=True),
        lambda z, a, y: vrex_penalty(domain_losses(a, y)),
        lambda z, a, y: coral_penalty(z),
        fishr_penalty,
    ],
    ids=["irm", "irm halves", "vrex", "coral", "fishr"],
)
def test_gradcheck_of_the_others(function: Callable[..., Tensor]) -> None:
    (z, a, y), _ = domains((2, 3), 2, 2)
    leaves = [t.detach().requires_grad_(True) for t in (*z, *a)]
    assert torch.autograd.gradcheck(lambda *t: function(list(t[:2]), list(t[2:]), y), leaves)


def test_schedule_of_the_scripts() -> None:
    schedule = PenaltySchedule(50.0, 2)
    assert schedule.reset_optimizer_at == 2
    nll, penalty = f64(3.0), f64(0.5)
    found = [float(schedule(nll, penalty)) for _ in range(4)]
    assert found == pytest.approx([3.5, 3.5, 28 / 50, 28 / 50])
    assert schedule.step == 4
    plain = PenaltySchedule(50.0, 1, before=0.0, rescale=False)
    assert [float(plain(nll, penalty)) for _ in range(2)] == [3.0, 28.0]
    resumed = PenaltySchedule(50.0, 2)
    resumed.load_state_dict({"step": 1})
    assert [float(resumed(nll, penalty)) for _ in range(2)] == pytest.approx([3.5, 0.56])
    light = PenaltySchedule(0.5, 0)
    assert light.reset_optimizer_at is None
    assert float(light(nll, penalty)) == 3.25


def test_fish_is_inner_adam_then_half_the_way() -> None:
    (x, _, y), _ = domains((5, 4))
    torch.manual_seed(0)
    # no bias before the normalisation: its gradient would be rounding, which Adam blows up
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Linear(6, 3)).double()
    reference = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    state = None
    fish = FishOuter(model, 0.3)
    for _ in range(3):
        with fish:
            for v, t in zip(x, y):
                optimizer.zero_grad()
                F.cross_entropy(model(v), t).backward()
                optimizer.step()
        # DomainBed's way: a clone, an optimizer of its own whose state is handed on
        inner = copy.deepcopy(reference)
        adam = torch.optim.Adam(inner.parameters(), lr=0.1)
        if state is not None:
            adam.load_state_dict(state)
        for v, t in zip(x, y):
            adam.zero_grad()
            F.cross_entropy(inner(v), t).backward()
            adam.step()
        state = adam.state_dict()
        old, new = reference.state_dict(), inner.state_dict()
        mixed = {
            k: old[k] + 0.3 * (new[k] - old[k]) if old[k].is_floating_point() else new[k]
            for k in old
        }
        reference.load_state_dict(mixed)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, reference.state_dict()[name], rtol=1e-10, atol=1e-12)
    assert int(model[1].num_batches_tracked) == 6


def test_fish_goes_back_after_an_exception_and_does_not_nest() -> None:
    model = nn.Linear(2, 2)
    before = copy.deepcopy(model.state_dict())
    fish = FishOuter(model)

    def interrupted() -> None:
        with fish:
            nn.init.ones_(model.weight)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(model.weight, before["weight"])
    with fish, pytest.raises(RuntimeError, match="under way"), fish:
        pass
    with fish:
        nn.init.zeros_(model.bias)
    torch.testing.assert_close(model.bias.detach(), before["bias"] / 2)


def test_alignment_rescues_a_model_from_a_spurious_feature() -> None:
    """One feature is right 75 % of the time everywhere, one 90 / 70 % in training, 10 % later."""
    g = torch.Generator().manual_seed(0)

    def domain(agree: float, n: int = 1000) -> tuple[Tensor, Tensor]:
        y = torch.randint(2, (n,), generator=g)
        sign = 2.0 * y - 1
        flips = torch.rand(2, n, generator=g) < torch.tensor([[0.75], [agree]])
        return torch.where(flips, sign, -sign).T.contiguous(), y

    train, (x, y) = [domain(0.9), domain(0.7)], domain(0.1)
    labels = [t for _, t in train]

    def accuracy(penalty: HGPAlignment | HutchinsonAlignment | None) -> float:
        torch.manual_seed(0)
        body, head = nn.Sequential(nn.Linear(2, 16), nn.ReLU()), nn.Linear(16, 2)
        optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=0.01)
        schedule = PenaltySchedule(1e4, 50)
        for _ in range(150):
            features = [body(v) for v, _ in train]
            logits = [head(z) for z in features]
            nll = domain_losses(logits, labels).mean()
            cost = penalty(features, logits, labels).total if penalty is not None else 0 * nll
            optimizer.zero_grad()
            schedule(nll, cost).backward()
            optimizer.step()
        return float((head(body(x)).argmax(1) == y).double().mean())

    assert accuracy(None) < 0.2
    assert accuracy(HGPAlignment(1.0, 1.0)) > 0.6
    assert accuracy(HutchinsonAlignment(1.0, 1.0)) > 0.6


W = torch.ones((), requires_grad=True)


@pytest.mark.parametrize(
    ("act", "error", "fragment"),
    [
        (lambda: PenaltySchedule(-1.0, 3), ValueError, "weight must be at least 0"),
        (lambda: PenaltySchedule(1.0, -3), ValueError, "anneal_steps must be at least 0"),
        (lambda: PenaltySchedule(1.0, 3.0), TypeError, "anneal_steps must be an integer"),
        (lambda: PenaltySchedule(1.0, 3, before=-1), ValueError, "before must be at least 0"),
        (lambda: FishOuter(nn.Linear(1, 1), 0.0), ValueError, "meta_lr must be in (0, 1]"),
        (lambda: FishOuter(print), TypeError, "model must be a torch.nn.Module"),
        (lambda: vrex_penalty([W]), ValueError, "at least two domains"),
        (lambda: vrex_penalty(torch.ones(())), ValueError, "list of scalars"),
        (lambda: vrex_penalty([torch.ones(2)] * 2), ValueError, "losses[0] must be a scalar"),
        (lambda: iga_penalty([W, W], []), ValueError, "params has no tensor"),
        (lambda: iga_penalty([torch.ones(())] * 2, [W]), ValueError, "losses need a graph"),
        (lambda: coral_penalty([torch.ones(1, 2)] * 2), ValueError, "at least two rows"),
        (lambda: coral_penalty([torch.ones(2, 2)]), ValueError, "at least two domains"),
        (lambda: coral_penalty([[1.0, 2.0]] * 2), TypeError, "features[0] must be a torch.Tensor"),
        (lambda: coral_penalty([None] * 2), TypeError, "features[0] must be a torch.Tensor"),
        (lambda: coral_penalty([torch.ones(())] * 2), ValueError, "features[0] must have shape"),
        (lambda: coral_penalty([torch.ones(2, 0)] * 2), ValueError, "features[0] must have shape"),
        (
            lambda: irm_penalty([torch.ones(1, 2)] * 2, [torch.tensor([0])] * 2, halves=True),
            ValueError,
            "at least two rows",
        ),
        (lambda: irm_penalty(torch.ones(2, 2), []), TypeError, "logits must be a list"),
        (lambda: domain_losses([], []), ValueError, "at least two domains"),
    ],
)
def test_bad_input(act: Callable[[], object], error: type, fragment: str) -> None:
    with pytest.raises(error) as found:
        act()
    assert fragment in str(found.value)
