"""Which weights have low-rank state, on which side, and how large that state is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from gradworks.optim.dct_adamw.feedback import error_dtype, packed_length
from gradworks.optim.precision import work_dtype
from gradworks.optim.sharded import is_sharded, sharding_of

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["SIDES", "Layout", "assembled", "check_rank", "layout_of", "state_bytes"]

SIDES = ("auto", "left", "right")


class Layout(NamedTuple):
    """How a matrix is projected.

    Attributes:
        side: "right": its rows are, onto ``rank`` columns of a basis; "left": its columns are.
        n: Size of the basis.
        rank: Basis vectors kept.
        pieces: Where the other dimension is sharded: mesh and mesh dimensions to sum norms over.
    """

    side: str
    n: int
    rank: int
    pieces: tuple[DeviceMesh, tuple[int, ...]] | None = None

    @property
    def dim(self) -> int:
        """The dimension that is projected: the last, or the last but one."""
        return -1 if self.side == "right" else -2

    def small(self, shape: Sequence[int]) -> tuple[int, int]:
        """Shape of the moments of a matrix of a shape."""
        return (shape[0], self.rank) if self.side == "right" else (self.rank, shape[1])

    def along(self, shape: Sequence[int], length: int) -> tuple[int, int]:
        """A shape with another length of the projected dimension."""
        return (shape[0], length) if self.side == "right" else (length, shape[1])


def check_rank(rank: object) -> None:
    """An integer of at least 1, or a share of the smaller dimension.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.
    """
    if isinstance(rank, bool) or not isinstance(rank, (int, float)):
        raise TypeError(f"rank must be an integer or a fraction, got {rank!r}")
    if isinstance(rank, int) and rank < 1:
        raise ValueError(f"rank must be at least 1, or a fraction in (0, 1), got {rank}")
    if isinstance(rank, float) and not 0.0 < rank < 1.0:
        raise ValueError(f"rank as a fraction must be in (0, 1), got {rank}; 4, not 4.0, is a rank")


def layout_of(param: Tensor, *, rank: float, side: str, max_dim: int) -> Layout | None:
    """None for a parameter that AdamW steps.

    Raises:
        RuntimeError: If a sharded weight would have to be projected along a split dimension.
    """
    if param.is_complex():
        return None
    plain = _layout(param.shape, rank, side, max_dim)
    if plain is None or not is_sharded(param):
        return plain
    split = [sharding_of(param, dim) for dim in (0, 1)]
    rows, columns = (() if found is None else found.channel_dims for found in split)
    if side == "auto" and bool(rows) != bool(columns):
        side = "right" if rows else "left"
        plain = Layout(side, param.shape[1 if rows else 0], plain.rank)
    across, kept = (columns, rows) if plain.side == "right" else (rows, columns)
    if across:
        raise RuntimeError(
            f"a weight of shape {tuple(param.shape)} is sharded along the dimension that "
            f"side={plain.side!r} projects; shard one dimension only, with side='auto'"
        )
    pieces = (param.device_mesh, kept) if kept else None  # type: ignore[attr-defined]
    return plain._replace(pieces=pieces)


def _layout(shape: Sequence[int], rank: float, side: str, max_dim: int) -> Layout | None:
    """The rule for a whole matrix."""
    if len(shape) != 2 or min(shape) < 1 or max(shape) >= max_dim:
        return None
    size = rank if isinstance(rank, int) else max(1, round(rank * min(shape)))
    if min(shape) < size:
        return None
    if side == "auto":
        side = "right" if shape[0] >= shape[1] else "left"
    return Layout(side, shape[1] if side == "right" else shape[0], size)


def assembled(part: Tensor, param: Tensor, shape: tuple[int, int]) -> Tensor:
    """State as the parameter is laid out: this process's part of a tensor of a shape."""
    if not is_sharded(param):
        return part
    from torch.distributed.tensor import DTensor

    placements = param.placements  # type: ignore[attr-defined]
    return DTensor.from_local(
        part,
        param.device_mesh,  # type: ignore[attr-defined]
        placements,
        run_check=False,
        shape=torch.Size(shape),
        stride=(shape[1], 1),
    )


def state_bytes(
    shape: Sequence[int],
    rank: float,
    *,
    dtype: torch.dtype = torch.float32,
    side: str = "auto",
    error_feedback: bool = False,
    ef_dtype: str | None = None,
    column_age: bool = False,
    max_dim: int = 32_000,
) -> int:
    r"""Bytes of state that :class:`~gradworks.optim.DCTAdamW` keeps for a parameter.

    A matrix (R, C) projected on the right keeps two moments of R r numbers, r indices of 8 bytes
    and a step count of 4; ages add 4 r, error feedback R C numbers, or R C (int8) or R ceil(C/2)
    (int4) bytes with two numbers a row. The left side is the transpose. Other parameters: two
    numbers an entry and the step count.

    Args:
        shape: Shape of the parameter.
        rank: As in the optimizer, and so are the others.
        dtype: The parameter's.
        side: Side of the projection.
        error_feedback: Whether what a step left out is kept.
        ef_dtype: How it is compressed.
        column_age: Whether ages are kept.
        max_dim: Weights with a dimension this large are AdamW's.

    Returns:
        Bytes, step count included.

    Example:
        >>> from gradworks.optim.dct_adamw import state_bytes
        >>> state_bytes((512, 512), 64), state_bytes((512,), 64)
        (262660, 4100)
    """
    check_rank(rank)
    size = dtype.itemsize
    layout = None if dtype.is_complex else _layout(shape, rank, side, max_dim)
    if layout is None:
        return 2 * math.prod(shape) * size + 4
    kept = shape[0] if layout.side == "right" else shape[1]
    total = 2 * kept * layout.rank * size + 8 * layout.rank + 4
    if column_age:
        total += 4 * layout.rank
    if error_feedback and ef_dtype is None:
        total += kept * layout.n * error_dtype(dtype).itemsize
    elif error_feedback:
        total += kept * packed_length(layout.n, str(ef_dtype))
        total += 2 * kept * work_dtype(dtype).itemsize
    return total


def error_state(param: Tensor, layout: Layout, ef_dtype: str | None) -> dict[str, Any]:
    """Zero error, as the parameter is laid out."""
    part = param.to_local() if is_sharded(param) else param  # type: ignore[attr-defined]
    whole = (param.shape[0], param.shape[1])
    if ef_dtype is None:
        error = torch.zeros_like(
            param, dtype=error_dtype(param.dtype), memory_format=torch.preserve_format
        )
        return {"error": error}
    packed = packed_length(layout.n, ef_dtype)
    found: dict[str, Any] = {}
    for name, length, dtype in (
        ("error_q", packed, torch.uint8),
        ("error_min", 1, work_dtype(param.dtype)),
        ("error_max", 1, work_dtype(param.dtype)),
    ):
        zero = part.new_zeros(layout.along(part.shape, length), dtype=dtype)
        found[name] = assembled(zero, param, layout.along(whole, length))
    return found
