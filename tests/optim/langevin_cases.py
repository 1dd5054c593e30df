"""What the tests of Langevin share: golden runs, parameters, gradients, a transcription."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradworks.optim.langevin import Langevin

GOLDEN = Path(__file__).parents[1] / "golden" / "langevin" / "golden.npz"
CASES = {"t3": "sphere", "t4": "sphere", "rad2": "sphere", "euc": "euclidean"}
PATHS = {"single": {"foreach": False}, "foreach": {"foreach": True}}
paths = pytest.mark.parametrize("path", PATHS)
manifolds = pytest.mark.parametrize("manifold", ["sphere", "euclidean"])
SHAPES = ((6, 4), (3, 2, 3, 3), (7,), (1, 5), (2, 300))


def golden(case: str) -> dict[str, Tensor]:
    """One group of the golden file."""
    with np.load(GOLDEN) as stored:
        names = [key for key in stored.files if key.startswith(f"{case}.")]
        return {key.partition(".")[2]: torch.tensor(stored[key]) for key in names}


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(
    shapes: tuple[tuple[int, ...], ...] = SHAPES, dtype: torch.dtype = torch.float64
) -> list[nn.Parameter]:
    g = gen(5)
    return [
        nn.Parameter(torch.randn(s, generator=g, dtype=torch.float64).to(dtype)) for s in shapes
    ]


def give(params: list[nn.Parameter], step: int) -> None:
    """Gradients that depend on the step only."""
    g = gen(1000 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=g, dtype=torch.float64).to(p.dtype)


def walk(optimizer: Langevin, params: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        give(params, step)
        optimizer.step()


def values(params: list[nn.Parameter]) -> list[Tensor]:
    return [p.detach().clone() for p in params]


def assert_same(got: list[Tensor], want: list[Tensor]) -> None:
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


def naive(
    theta: Tensor, g: Tensor, xi: Tensor, lr: float, temperature: float, sphere: bool
) -> Tensor:
    """The specification's lines, one row at a time."""
    out = theta.clone()
    for index in np.ndindex(*theta.shape[:-1]):
        row = theta[index]
        v = -lr * g[index] + math.sqrt(2 * lr * temperature) * xi[index]
        if not sphere:
            out[index] = row + v
            continue
        rho = row.norm()
        u = row / rho
        v = v - (v @ u) * u
        out[index] = rho * (row + v) / (row + v).norm()
    return out
