"""SSIM and MS-SSIM: golden values, the fast path against the plain formulas, closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradworks.losses.ms_ssim import MS_SSIM_WEIGHTS, gaussian_window, ms_ssim, ssim, ssim_map
from gradworks.losses.ms_ssim import fused as fused_module
from gradworks.losses.ms_ssim.function import _plain, similarity
from gradworks.losses.ms_ssim.plan import plan_ms_ssim, plan_ssim
from gradworks.losses.ms_ssim.window import Bands, Convolutions

GOLDEN = Path(__file__).parents[1] / "golden" / "ms-ssim" / "golden.npz"
F64 = torch.float64


@pytest.fixture(scope="session")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as stored:
        return {name: torch.from_numpy(stored[name]).to(F64) for name in stored.files}


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def pair(*shape: int, seed: int = 0, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    x = rand(*shape, seed=seed)
    return x, x + noise * rand(*shape, seed=seed + 1)


# ---------------------------------------------------------------- golden


@pytest.mark.parametrize("name", ["grey", "colour", "range255", "volume"])
def test_golden_ssim(golden: dict[str, Tensor], name: str) -> None:
    data_range = 255.0 if name == "range255" else 1.0
    value, cs = ssim(
        golden[f"{name}.x"],
        golden[f"{name}.y"],
        data_range=data_range,
        reduction="none",
        return_cs=True,
    )
    torch.testing.assert_close(value, golden[f"{name}.ssim"].mean(1), rtol=0, atol=1e-9)
    torch.testing.assert_close(cs, golden[f"{name}.cs"].mean(1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["ms.grey", "ms.colour"])
def test_golden_ms_ssim(golden: dict[str, Tensor], name: str) -> None:
    value = ms_ssim(golden[f"{name}.x"], golden[f"{name}.y"], reduction="none")
    torch.testing.assert_close(value, golden[f"{name}.msssim"].mean(1), rtol=0, atol=1e-9)


def test_golden_small_images(golden: dict[str, Tensor]) -> None:
    x, y, want = (golden[f"small.{name}"] for name in ("x", "y", "w3_win5"))
    renormalised = golden["small.weights"].tolist()
    for keywords in ({"scales": 3}, {"weights": renormalised}):
        value = ms_ssim(x, y, kernel_size=5, reduction="none", **keywords)
        torch.testing.assert_close(value, want.mean(1), rtol=0, atol=1e-9)


def test_golden_gradient(golden: dict[str, Tensor]) -> None:
    x = golden["grey.x"].requires_grad_()
    (1 - ssim(x, golden["grey.y"])).backward()
    want = golden["grey.grad_1_minus_mean_ssim"]
    torch.testing.assert_close(x.grad, want, rtol=0, atol=1e-5 * float(want.abs().max()))


def test_float32_keeps_six_digits(golden: dict[str, Tensor]) -> None:
    for name in ("ms.grey", "ms.colour"):
        value = ms_ssim(golden[f"{name}.x"].float(), golden[f"{name}.y"].float(), reduction="none")
        want = golden[f"{name}.msssim"].mean(1).float()
        torch.testing.assert_close(value, want, rtol=0, atol=2e-6)


# ---------------------------------------------------------------- the fast path is the formulas

SHAPES = [((2, 3, 47), 5), ((2, 2, 33, 40), 5), ((1, 2, 18, 17, 19), 3), ((3, 1, 150, 34), 5)]


@pytest.mark.parametrize(("shape", "kernel"), SHAPES, ids=str)
@pytest.mark.parametrize("pixels", [2**16, 1000, 100], ids=["whole", "pieces", "tiles"])
@pytest.mark.parametrize("odd", ["pad", "crop", "replicate"])
def test_fast_path_equals_automatic_differentiation(
    shape: tuple[int, ...], kernel: int, pixels: int, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_module, "_CPU_PIXELS", pixels)
    x, y = pair(*shape)
    x.requires_grad_(), y.requires_grad_()
    slope = rand(*shape[:2], seed=9)
    masks = [None, rand(*shape, seed=5), rand(1, 1, *shape[2:], seed=6)]
    spatial, rest = shape[2:], (1.0, kernel, 1.2, (0.01, 0.03))
    plans = [plan_ms_ssim(spatial, *rest, m, (0.3, 0.3, 0.4), 3, odd) for m in ("relu", "shift")]
    plans += [plan_ms_ssim(spatial, *rest, "leaky", (0.3, 0.3, 0.4), 3, odd)]
    plans += [plan_ssim(spatial, *rest, m) for m in (None, "relu", "shift")]
    plans += [plan_ssim(spatial, *rest, None).contrast()]
    for plan in plans:
        for mask in masks:
            got, want = similarity(x, y, mask, plan), _plain(x, y, mask, plan)
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
            ours = torch.autograd.grad(got, (x, y), slope)
            torch.testing.assert_close(
                ours, torch.autograd.grad(want, (x, y), slope), rtol=0, atol=1e-12
            )


@given(
    sides=st.lists(st.integers(11, 70), min_size=1, max_size=3),
    kernel=st.sampled_from([1, 3, 7, 11]),
    maps=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None)
def test_bands_are_the_convolution_and_its_adjoint(
    sides: list[int], kernel: int, maps: int
) -> None:
    sides = [min(s, 20) for s in sides] if len(sides) == 3 else sides
    kernels, sigmas = (kernel,) * len(sides), (1.5,) * len(sides)
    like = torch.empty((), dtype=F64)
    found = []
    for kind in (Bands, Convolutions):
        filt = kind(kernels, sigmas)
        buffer = filt.buffer(maps, 2, sides, like)
        for i, view in enumerate(filt.unstack(buffer)):
            view.copy_(rand(2, *sides, seed=i))
        valid = filt.valid(buffer)
        found.append([*filt.unstack(valid), *filt.unstack(filt.transposed(valid.contiguous()))])
    for banded, convolved in zip(*found):
        torch.testing.assert_close(banded, convolved, rtol=0, atol=1e-13)


@pytest.fixture
def reduced_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def test_reduced_matrix_precision_does_not_touch_it(
    golden: dict[str, Tensor], reduced_precision: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("a matrix product was used")

    monkeypatch.setattr(Bands, "valid", refuse)
    x = golden["grey.x"].float().requires_grad_()
    value = ssim(x, golden["grey.y"].float(), reduction="none")
    value.sum().backward()
    torch.testing.assert_close(value, golden["grey.ssim"].mean(1).float(), rtol=0, atol=2e-6)


# ---------------------------------------------------------------- closed forms


def by_scales(x: Tensor, y: Tensor) -> Tensor:
    return ms_ssim(x, y, kernel_size=3, scales=3, reduction="none")


def small_ssim(x: Tensor, y: Tensor) -> Tensor:
    return ssim(x, y, kernel_size=5, reduction="none")


BOTH = pytest.mark.parametrize("metric", [by_scales, small_ssim])
Metric = Callable[[Tensor, Tensor], Tensor]


@BOTH
@pytest.mark.parametrize("sides", [(21,), (21, 24), (13, 14, 15)])
def test_equal_images(metric: Metric, sides: tuple[int, ...]) -> None:
    x = rand(2, 2, *sides).requires_grad_()
    value = metric(x, x.detach().clone())
    torch.testing.assert_close(value, torch.ones(2, dtype=F64), rtol=0, atol=1e-14)
    value.sum().backward()
    assert x.grad.abs().max() < 1e-12


def test_two_scales_by_hand() -> None:
    """Taps 1/4, 1/2, 1/4: mean cs 3/5 at the first scale, SSIM 8/11 * 13/14 after a padded one."""
    x, y = (torch.tensor([[[v, 1.0, 1.0, 0.0, 0.0]]], dtype=F64) for v in (0.0, 2.0))
    settings = {"kernel_size": 3, "sigma": (2 * math.log(2)) ** -0.5, "k": (1 / 4, 1 / 2)}
    assert ssim(x, y, return_cs=True, **settings)[1].item() == pytest.approx(3 / 5, abs=1e-14)
    value = ms_ssim(x, y, weights=(0.5, 0.5), **settings)
    assert value.item() == pytest.approx(math.sqrt(3 / 5 * 52 / 77), abs=1e-14)


def test_constant_images_differ_in_luminance_alone() -> None:
    a, b, c1 = 0.2, 0.7, 0.01**2
    x, y = (torch.full((1, 1, 16, 16), v, dtype=F64) for v in (a, b))
    value, cs = ssim(x, y, return_cs=True)
    assert float(value) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-14)
    assert float(cs) == pytest.approx(1.0, abs=1e-14)


def test_a_constant_added_leaves_contrast() -> None:
    x = 0.5 * rand(2, 1, 20, 20)
    assert float(ssim(x, x + 0.3, return_cs=True)[1]) == pytest.approx(1.0, abs=1e-12)


def test_the_negative_image_is_anti_correlated() -> None:
    x = rand(1, 1, 24, 24) - 0.5
    assert float(ssim(x, -x, return_cs=True)[1]) < -0.9


@BOTH
def test_symmetric_bounded_and_free_of_order(metric: Metric) -> None:
    x, y = pair(3, 4, 24, 20)
    value = metric(x, y)
    torch.testing.assert_close(value, metric(y, x), rtol=0, atol=1e-14)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(value, metric(x[:, order], y[:, order]), rtol=0, atol=1e-14)
    one_by_one = torch.cat([metric(x[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(value, one_by_one, rtol=0, atol=1e-14)
    assert (value < 1).all()
    by_channel = torch.stack([metric(x[:, c : c + 1], y[:, c : c + 1]) for c in range(4)])
    torch.testing.assert_close(value, by_channel.mean(0), rtol=0, atol=1e-14)


def test_scaling_with_the_range_changes_nothing() -> None:
    x, y = pair(1, 1, 32, 32)
    small = ms_ssim(x, y, scales=2)
    large = ms_ssim(255 * x, 255 * y, data_range=255.0, scales=2)
    torch.testing.assert_close(small, large, rtol=0, atol=1e-12)


def test_means_away_from_the_contrast_cost_no_digits() -> None:
    x, y = pair(1, 1, 32, 32, noise=0.5)
    x, y = 250.0 + 0.1 * x, 250.0 + 0.1 * y
    exact = ssim(x, y, data_range=1.0)
    rounded = ssim(x.float(), y.float(), data_range=1.0)
    # What is left is the rounding of the images themselves: 8e-6 in a contrast of 0.03.
    assert float(rounded) == pytest.approx(float(exact), abs=2e-3)
    unshifted = ssim(x.float().double(), y.float().double(), data_range=1.0)
    assert float(rounded) == pytest.approx(float(unshifted), abs=1e-6)


def test_one_kernel_a_side_and_reductions() -> None:
    x, y = pair(3, 2, 20, 30)
    values = ssim(x, y, kernel_size=(5, 9), sigma=(1.0, 2.0), reduction="none")
    flipped = ssim(x.mT, y.mT, kernel_size=(9, 5), sigma=(2.0, 1.0), reduction="none")
    torch.testing.assert_close(values, flipped, rtol=0, atol=1e-14)
    keywords = {"kernel_size": (5, 9), "sigma": (1.0, 2.0)}
    assert float(ssim(x, y, reduction="sum", **keywords)) == pytest.approx(float(values.sum()))
    assert float(ssim(x, y, **keywords)) == pytest.approx(float(values.mean()))


def test_the_map_averages_to_the_value() -> None:
    x, y = pair(2, 3, 20, 24)
    field = ssim_map(x, y)
    assert field.shape == (2, 3, 10, 14)
    torch.testing.assert_close(field.mean((1, 2, 3)), ssim(x, y, reduction="none"))


def test_channels_last_and_slices_are_the_same_images() -> None:
    x, y = pair(2, 3, 40, 40)
    value = ssim(x, y)
    torch.testing.assert_close(ssim(x.contiguous(memory_format=torch.channels_last), y), value)
    wide = torch.zeros(2, 3, 40, 80, dtype=F64)
    wide[..., ::2] = x
    torch.testing.assert_close(ssim(wide[..., ::2], y), value)


def test_the_window_is_normalised_in_float64() -> None:
    assert float(gaussian_window(11, 1.5, dtype=F64).sum()) == pytest.approx(1.0, abs=1e-15)
    assert sum(MS_SSIM_WEIGHTS) == pytest.approx(1.0001)
