"""Shared by the tests of matrix sensing: golden arrays, operators of every kind, small problems."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gradworks.solvers.matrix_sensing import MeasurementOperator

GOLDEN = Path(__file__).parents[1] / "golden" / "matrix-sensing" / "golden.npz"
N1, N2, M = 5, 4, 9


def golden() -> dict[str, Tensor]:
    """Every array of the golden file."""
    with np.load(GOLDEN) as stored:
        return {name: torch.as_tensor(stored[name]) for name in stored.files}


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Gaussian entries in float64."""
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def upper() -> MeasurementOperator:
    """Symmetric measurements by their triangles."""
    op = MeasurementOperator.gaussian(20, N1, symmetric=True, generator=seeded())
    return op.compressed(torch.zeros(20, dtype=torch.float64))[0]


KINDS = {
    "stored": lambda: MeasurementOperator.gaussian(M, N1, N2, generator=seeded()),
    "square": lambda: MeasurementOperator.gaussian(M, N1, generator=seeded()),
    "symmetric": lambda: MeasurementOperator.gaussian(M, N1, symmetric=True, generator=seeded()),
    "identity": lambda: MeasurementOperator.identity(N1, N2),
    "identity, square": lambda: MeasurementOperator.identity(N1),
    "entries": lambda: MeasurementOperator.entries(
        torch.tensor([0, 4, 2, 2]), torch.tensor([3, 0, 1, 1]), N1, N2
    ),
    "entries, square": lambda: MeasurementOperator.entries(
        torch.tensor([0, 4, 2, 2]), torch.tensor([3, 0, 1, 1]), N1, N1
    ),
    "rank one": lambda: MeasurementOperator.rank_one(normal(M, N1), normal(M, N2, seed=1)),
    "rank one, square": lambda: MeasurementOperator.rank_one(normal(M, N1), normal(M, N1, seed=1)),
    "rank one, symmetric": lambda: MeasurementOperator.rank_one(normal(M, N1), normal(M, N1)),
    "triangles": upper,
}
SQUARE = [name for name, make in KINDS.items() if make().shape[1] == make().shape[2]]
