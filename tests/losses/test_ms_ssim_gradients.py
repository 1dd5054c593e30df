"""SSIM and MS-SSIM: derivatives of every kind, half types, NaN, and losses without a gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from gradworks.losses.ms_ssim import ms_ssim, ssim
from gradworks.losses.ms_ssim.plain import bases

FORWARD_MODE = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
F64 = torch.float64
Metric = Callable[[Tensor, Tensor], Tensor]


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def pair(*shape: int, seed: int = 0, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    x = rand(*shape, seed=seed)
    return x, x + noise * rand(*shape, seed=seed + 1)


def by_scales(x: Tensor, y: Tensor) -> Tensor:
    return ms_ssim(x, y, kernel_size=3, scales=3, reduction="none")


def small_ssim(x: Tensor, y: Tensor) -> Tensor:
    return ssim(x, y, kernel_size=5, reduction="none")


BOTH = pytest.mark.parametrize("metric", [by_scales, small_ssim])


# ---------------------------------------------------------------- derivatives


@FORWARD_MODE
@BOTH
@pytest.mark.parametrize("sides", [(14,), (9, 10), (9, 10, 9)])
def test_gradcheck(metric: Metric, sides: tuple[int, ...]) -> None:
    x, y = pair(1, 1, *sides)
    x.requires_grad_(), y.requires_grad_()
    assert gradcheck(metric, (x, y), fast_mode=len(sides) == 3)
    assert gradgradcheck(metric, (x, y), fast_mode=True)
    assert gradcheck(metric, (x, y), check_forward_ad=True, fast_mode=True)


@FORWARD_MODE
@BOTH
def test_every_transform(metric: Metric) -> None:
    x, y = pair(3, 2, 14, 13)
    leaf = x.clone().requires_grad_()
    want = torch.autograd.grad(metric(leaf, y).sum(), leaf)[0]

    def total(a: Tensor, b: Tensor) -> Tensor:
        return metric(a[None], b[None]).sum()

    torch.testing.assert_close(torch.func.grad(lambda a: metric(a, y).sum())(x), want)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(total))(x, y), want)
    values = torch.func.vmap(total, in_dims=(0, None))(x, y[0])
    torch.testing.assert_close(values, metric(x, y[:1].expand_as(y)))
    rows = torch.eye(3, dtype=F64)
    batched = torch.autograd.grad(metric(leaf, y), leaf, rows, is_grads_batched=True)[0]
    torch.testing.assert_close(batched.sum(0), want)
    along = rand(*x.shape, seed=4)
    change = torch.func.jvp(lambda a: metric(a, y).sum(), (x,), (along,))[1]
    torch.testing.assert_close(change, (want * along).sum())
    forward_over_reverse = torch.func.jvp(
        torch.func.grad(lambda a: metric(a, y).sum()), (x,), (along,)
    )[1]
    grad = torch.autograd.grad(metric(leaf, y).sum(), leaf, create_graph=True)[0]
    twice = torch.autograd.grad(grad, leaf, along)[0]
    torch.testing.assert_close(forward_over_reverse, twice)


@pytest.mark.slow
def test_compiles_whole() -> None:
    x, y = pair(2, 1, 14, 13)
    fast = torch.compile(by_scales, fullgraph=True, backend="aot_eager")
    leaf, twin = x.clone().requires_grad_(), x.clone().requires_grad_()
    fast(leaf, y).sum().backward()
    by_scales(twin, y).sum().backward()
    torch.testing.assert_close(leaf.grad, twin.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    x, y = (v.to(dtype) for v in pair(2, 1, 32, 32))
    x.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = ms_ssim(x, y.float(), scales=2)
    value.backward()
    assert value.dtype == torch.float32
    assert x.grad.dtype == dtype
    exact = ms_ssim(x.detach().double(), y.double(), scales=2)
    assert value.item() == pytest.approx(exact.item(), abs=1e-6)


# ---------------------------------------------------------------- NaN and dead losses


def adversarial(kind: str, seed: int, images: int = 100) -> tuple[Tensor, Tensor]:
    x = rand(images, 1, 14, 12, seed=seed).float()
    if kind == "constant":
        return torch.zeros_like(x) + x[..., :1, :1], torch.zeros_like(x) + x[..., -1:, -1:]
    if kind == "black and white":
        return (x > 0.5).float(), (x <= 0.5).float()
    if kind == "saturated":
        return (4 * x - 2).clamp(0, 1), torch.ones_like(x)
    if kind == "tiny contrast":
        return 0.5 + 1e-7 * x, 0.5 - 1e-7 * x
    if kind == "out of range":
        return 255 * x, 255 * (1 - x)
    if kind == "huge":
        return 1e4 * (x - 0.5), -1e4 * (x - 0.5)
    return x, 1 - x


KINDS = ["constant", "black and white", "saturated", "tiny contrast", "out of range", "negative"]


@given(
    kind=st.sampled_from([*KINDS, "huge"]),
    seed=st.integers(0, 2**31),
    nonneg=st.sampled_from(["relu", "shift", "leaky"]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
@settings(max_examples=100, deadline=None)
def test_no_nan_in_ten_thousand_adversarial_pairs(
    kind: str, seed: int, nonneg: str, dtype: torch.dtype
) -> None:
    x, y = (v.to(dtype) for v in adversarial(kind, seed))
    x.requires_grad_()
    values = ms_ssim(x, y, kernel_size=3, scales=3, nonneg=nonneg, reduction="none")
    values.sum().backward()
    assert values.isfinite().all()
    assert x.grad.isfinite().all()


def test_nan_is_not_hidden() -> None:
    x, y = pair(1, 1, 16, 16)
    x[0, 0, 3, 3] = torch.nan
    assert ms_ssim(x, y, kernel_size=3, scales=2).isnan()
    assert ssim(x, y).isnan()


def test_modes_of_a_negative_value_by_hand() -> None:
    x = rand(1, 1, 24, 24)
    plain = ssim(x, 1 - x).item()
    for mode, want in (("relu", 0.0), ("shift", 0.5 * (1 + plain)), ("leaky", 1e-4)):
        value, cs = ssim(x, 1 - x, nonneg=mode, return_cs=True)
        assert value.item() == pytest.approx(want, abs=1e-15)
        assert cs.item() < -0.9  # never changed


def test_a_factor_of_zero_is_clamped_not_divided_by() -> None:
    base, alive = bases(torch.tensor([-0.5, 0.0, 1e-39, 0.5]), "relu")
    assert base.tolist() == [1.0, 1.0, 1.0, 0.5]
    assert alive.tolist() == [0.0, 0.0, 0.0, 1.0]


def test_published_clamp_kills_the_gradient_and_ours_do_not() -> None:
    x, y = rand(40, 1, 176, 176).float(), rand(40, 1, 176, 176, seed=1).float()
    dead = {}
    for nonneg in ("relu", "shift", "leaky"):
        leaf = x.clone().requires_grad_()
        ms_ssim(leaf, y, nonneg=nonneg).backward()
        dead[nonneg] = int((leaf.grad.flatten(1).abs().amax(1) == 0).sum())
    # The spec saw 7 of 40 pairs of independent noise with no gradient at all.
    assert 1 <= dead["relu"] <= 20
    assert dead["shift"] == dead["leaky"] == 0


@pytest.mark.parametrize("metric", [ssim, lambda *a: ms_ssim(*a, kernel_size=3, scales=3)])
def test_variances_lost_in_rounding_do_not_divide_by_zero(metric: Metric) -> None:
    """Flat halves 10^4 times out of range: what is left of a variance is rounding, or exactly 0."""
    x = torch.zeros(8, 1, 32, 32)
    x[..., 16:] = torch.linspace(0.5e4, 2e4, 8).view(-1, 1, 1, 1)
    leaf = x.clone().requires_grad_()
    for y in (x, x.flip(-1), x + 1):
        value = metric(leaf, y)
        assert value.isfinite()
        assert torch.autograd.grad(value, leaf)[0].isfinite().all()
