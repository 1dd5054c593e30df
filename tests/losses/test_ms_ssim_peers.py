"""SSIM and MS-SSIM against piq, pytorch-msssim, scikit-image and torchmetrics, where installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from gradworks.losses.ms_ssim import ms_ssim, ssim, ssim_map

GOLDEN = Path(__file__).parents[1] / "golden" / "ms-ssim" / "golden.npz"
F64 = torch.float64


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def pair(*shape: int, seed: int = 0, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    x = rand(*shape, seed=seed)
    return x, x + noise * rand(*shape, seed=seed + 1)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as stored:
        return {name: torch.from_numpy(stored[name]).to(F64) for name in stored.files}


@pytest.fixture(scope="module")
def piq() -> ModuleType:
    """piq imports torchvision for metrics that are not used here; a stand-in takes its place."""
    if importlib.util.find_spec("piq") is None:
        pytest.skip("piq is not installed")
    models = ModuleType("torchvision.models")
    models.vgg16 = models.vgg19 = None
    models.inception = SimpleNamespace(
        **{f"Inception{x}": torch.nn.Module for x in "ABCDE"}, Inception3=torch.nn.Module
    )
    stand_in = ModuleType("torchvision")
    stand_in.models = models
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", stand_in)
        patch.setitem(sys.modules, "torchvision.models", models)
        return importlib.import_module("piq")


def test_piq_is_the_exact_oracle(golden: dict[str, Tensor], piq: ModuleType) -> None:
    x, y = golden["colour.x"], golden["colour.y"]
    theirs = piq.ssim(x, y, downsample=False, reduction="none")
    torch.testing.assert_close(ssim(x, y, reduction="none"), theirs, rtol=0, atol=1e-12)
    x, y = golden["ms.colour.x"], golden["ms.colour.y"]
    theirs = piq.multi_scale_ssim(x, y, reduction="none")
    torch.testing.assert_close(ms_ssim(x, y, reduction="none"), theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 171, 171), (1, 1, 176, 180), (1, 1, 161, 170)])
def test_odd_replicate_is_piqs_rule(shape: tuple[int, ...], piq: ModuleType) -> None:
    x, y = pair(*shape)
    x, y = x / 2, y / 2  # piq refuses values above the range
    ours = ms_ssim(x, y, odd="replicate", reduction="none")
    theirs = piq.multi_scale_ssim(x, y, reduction="none")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_pytorch_msssim_up_to_its_float32_window() -> None:
    peer = pytest.importorskip("pytorch_msssim")
    x, y = pair(2, 2, 161, 180)
    theirs = peer.ms_ssim(x, y, data_range=1.0, size_average=False)
    torch.testing.assert_close(ms_ssim(x, y, reduction="none"), theirs, rtol=0, atol=2e-6)
    theirs = peer.ssim(x, y, data_range=1.0, size_average=False)
    torch.testing.assert_close(ssim(x, y, reduction="none"), theirs, rtol=0, atol=2e-6)


@pytest.mark.slow  # its import
def test_torchmetrics_to_three_digits() -> None:
    image = pytest.importorskip("torchmetrics.functional.image")
    x, y = pair(1, 1, 192, 192)
    theirs = image.structural_similarity_index_measure(x, y, data_range=1.0)
    assert ssim(x, y).item() == pytest.approx(theirs.item(), abs=1e-3)


def test_scikit_image_on_the_interior() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    x, y = pair(1, 1, 40, 37)
    _, full = metrics.structural_similarity(
        x[0, 0].numpy(),
        y[0, 0].numpy(),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    np.testing.assert_allclose(ssim_map(x, y)[0, 0].numpy(), full[5:-5, 5:-5], atol=1e-12)
