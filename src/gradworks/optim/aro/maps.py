"""Base maps: what ARO applies in rotated coordinates. None of them keeps state.

All take a batch of matrices, rows are the dimension that is rotated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gradworks.optim.precision import work_dtype

__all__ = ["BASES", "SINKHORN", "BaseMap", "base_map", "floor_of", "rows_of", "sinkhorn", "to_rms"]

BaseMap = Callable[[Tensor], Tensor]
SINKHORN = ("simultaneous", "alternating")
BASES = ("sinkhorn", "sign", "row", "adam")


def floor_of(dtype: torch.dtype) -> float:
    """What no norm is below where it divides: its square is still a normal number."""
    return float(torch.finfo(dtype).tiny ** 0.5)


def to_rms(X: Tensor, rms: float) -> Tensor:
    """Matrices of a given root mean square; zeros stay zero."""
    norm = torch.linalg.matrix_norm(X, keepdim=True).clamp_min(floor_of(X.dtype))
    found: Tensor = X * (rms * (X.shape[-2] * X.shape[-1]) ** 0.5 / norm)
    return found


def sinkhorn(X: Tensor, steps: int = 5, mode: str = "simultaneous") -> Tensor:
    r"""Divide rows and columns by their norms, again and again, and bring the RMS to 1.

    .. math::
        X_{ij} \leftarrow \frac{X_{ij}}{\lVert X_{i \cdot} \rVert_2 \lVert X_{\cdot j} \rVert_2}

    Only the factors of rows and columns are computed: two products with the squared matrix a round,
    and one scaling at the end.

    Args:
        X: Matrices (..., m, n). Those of 16 bits are worked on in float32.
        steps: Rounds, at least 1.
        mode: "simultaneous" takes both norms from the same matrix, as ARO does; "alternating" takes
            those of columns after the rows were divided (SinkGD).

    Returns:
        Of the shape and dtype of ``X``. Rows and columns of zeros stay zero. Simultaneous rounds
        need not converge: diag(d) becomes diag(1 / d) and diag(d) in turn, up to a factor.

    Raises:
        ValueError: If ``steps`` is below 1, ``mode`` is unknown, or ``X`` is no matrix.

    Example:
        >>> import torch
        >>> from gradworks.optim.aro import sinkhorn
        >>> sinkhorn(torch.tensor([[3.0, 3.0], [1.0, -1.0]]), mode="alternating").tolist()
        [[1.0, 1.0], [1.0, -1.0]]
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be an integer of at least 1, got {steps!r}")
    if mode not in SINKHORN:
        raise ValueError(f"mode must be one of {', '.join(SINKHORN)}, got {mode!r}")
    if X.dim() < 2:
        raise ValueError(f"X must be a matrix or a batch of them, got shape {tuple(X.shape)}")
    Y = to_rms(X.to(work_dtype(X.dtype)), 1.0)
    square = Y * Y
    s, t = _factors(square, steps, mode == "alternating")
    s = s * (Y.shape[-2] * Y.shape[-1] * _inverse(s.mT @ square @ t.mT, 0.0))
    return (Y * s.sqrt()).mul_(t.sqrt()).to(X.dtype)


def _factors(square: Tensor, steps: int, alternating: bool) -> tuple[Tensor, Tensor]:
    """Squared factors of rows (..., m, 1) and columns (..., 1, n), from the squared entries.

    With X = s Y t, a row's norm is s_i sqrt(sum_j Y_ij^2 t_j^2): divided by it, the new factor is
    the inverse of the root alone.
    """
    floor = torch.finfo(square.dtype).tiny
    s, t = square.new_ones(()), square.new_ones(())
    for i in range(steps):
        old = s
        s = _inverse(square.sum(-1, keepdim=True) if i == 0 else square @ t.mT, floor)
        if alternating:
            t = _inverse(s.mT @ square, floor)
        else:
            t = _inverse(square.sum(-2, keepdim=True) if i == 0 else old.mT @ square, floor)
    return s, t


def _inverse(sums: Tensor, floor: float) -> Tensor:
    """1 / sums, 0 where there is nothing."""
    return torch.where(sums <= floor, 0.0, 1.0 / sums)


def rows_of(X: Tensor) -> Tensor:
    """Rows of norm sqrt(n); zeros stay zero."""
    norms = torch.linalg.vector_norm(X, dim=-1, keepdim=True).clamp_min(floor_of(X.dtype))
    found: Tensor = X * (X.shape[-1] ** 0.5 / norms)
    return found


def base_map(base: str | BaseMap, steps: int, mode: str) -> BaseMap:
    """The map of a name; "adam" has state and is none.

    Args:
        base: "sinkhorn", "sign", "row", or a function of a batch of matrices.
        steps: Rounds of Sinkhorn.
        mode: Their order.

    Returns:
        The function.

    Raises:
        ValueError: If the name is unknown.
    """
    if not isinstance(base, str):
        return base
    if base == "sinkhorn":
        return partial(sinkhorn, steps=steps, mode=mode)
    if base in {"sign", "row"}:
        return torch.sign if base == "sign" else rows_of
    raise ValueError(f"base must be sinkhorn, sign, row or a function, got {base!r}")
