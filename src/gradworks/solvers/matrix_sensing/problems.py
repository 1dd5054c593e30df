"""Random low-rank matrices to look for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["random_low_rank"]


def random_low_rank(
    n1: int,
    n2: int | None = None,
    *,
    rank: int,
    kappa: float = 1.0,
    symmetric: bool = False,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return a matrix of a rank with random singular vectors.

    Its singular values run evenly from ``kappa`` down to 1; the vectors are the Q factors of
    Gaussian matrices. On the device of ``generator``, else on torch's default one.

    Args:
        n1: Rows.
        n2: Columns; as many as rows by default.
        rank: Number of singular values that are not zero.
        kappa: Condition number, at least 1 and finite.
        symmetric: Positive semi-definite, with one set of vectors.
        generator: Draws the vectors; torch's default one otherwise.
        dtype: Of the result.

    Returns:
        Shape ``(n1, n2)``.

    Raises:
        ValueError: If ``rank`` is not between 1 and the smaller side, ``kappa`` is below 1 or
            infinite, or a
            symmetric matrix is not square.

    Example:
        >>> torch.linalg.matrix_rank(random_low_rank(6, 5, rank=2)).item()
        2
    """
    n2 = n1 if n2 is None else n2
    if not 1 <= rank <= min(n1, n2):
        raise ValueError(f"rank must be between 1 and min(n1, n2) = {min(n1, n2)}, got {rank}")
    if not 1.0 <= kappa < math.inf:
        raise ValueError(f"kappa must be at least 1 and finite, got {kappa}")
    if symmetric and n1 != n2:
        raise ValueError(f"a symmetric matrix must be square, got n1={n1} and n2={n2}")
    device = None if generator is None else generator.device

    def vectors(n: int) -> Tensor:
        drawn = torch.randn(n, rank, generator=generator, dtype=dtype, device=device)
        orthonormal: Tensor = torch.linalg.qr(drawn).Q
        return orthonormal

    values = torch.linspace(kappa, 1.0, rank, dtype=dtype, device=device)
    left = vectors(n1)
    right = left if symmetric else vectors(n2)
    return (left * values) @ right.mT
