"""Which basis vectors: those along which a gradient is largest."""

from __future__ import annotations

import torch
from torch import Tensor

from gradworks.optim.precision import work_dtype

__all__ = ["BLOCK", "captured_energy", "in_blocks", "norms_of", "pick", "select_columns", "top"]

BLOCK = 1 << 17  # entries worked on at a time on a CPU: half a megabyte in float32


def norms_of(S: Tensor, norm: int, dim: int) -> Tensor:
    """Norms of all columns (``dim=-1``) or rows (``dim=-2``); squared ones for ``norm=2``.

    Both add up over pieces of the columns, and the squares rank as the norms do.
    """
    across = -2 if dim == -1 else -1
    if S.ndim == 2 and S.stride(0) < S.stride(1):  # as it lies in memory
        S, across = S.mT, -3 - across
    if not in_blocks(S):
        return _powers(S, norm).sum(across)
    blocks = [
        _powers(block, norm).sum(across) for block in torch.split(S, max(1, BLOCK // S.shape[-1]))
    ]
    return torch.stack(blocks).sum(0) if across == -2 else torch.cat(blocks)


def in_blocks(x: Tensor) -> bool:
    """Whether a matrix is better read a few rows at a time: what is derived stays in the cache."""
    large = x.ndim == 2 and x.is_cpu and x.numel() > BLOCK
    return large and not x.requires_grad and not torch.compiler.is_compiling()


def _powers(S: Tensor, norm: int) -> Tensor:
    """What adds up to a norm; faster than ``torch.linalg.vector_norm`` down the columns."""
    return S.abs() if norm == 1 else S.square()


def top(norms: Tensor, rank: int) -> Tensor:
    """Places of the ``rank`` largest, ascending; of equals the first. NaN counts as largest."""
    order = torch.sort(norms, dim=-1, descending=True, stable=True).indices[..., :rank]
    return order.sort(dim=-1).values


def pick(S: Tensor, indices: Tensor, dim: int) -> Tensor:
    """Selected columns or rows of a matrix, contiguous."""
    if dim == -2 and S.stride(0) < S.stride(1):
        return S.mT.index_select(-1, indices).mT.contiguous()
    return S.index_select(dim, indices)


def select_columns(S: Tensor, rank: int, *, norm: int = 1, dim: int = -1) -> Tensor:
    """The columns that carry most of a projected gradient.

    Args:
        S: A matrix, or a batch of them (..., rows, columns).
        rank: How many, from 1 to the number of columns.
        norm: 1 (the released code's) or 2: the best choice in the Frobenius norm, whose error is at
            most 1 - rank/n of the squared norm of S.
        dim: -1 selects columns; -2 selects rows. Of a single matrix 1 and 0 too.

    Returns:
        Indices, int64, (..., rank), ascending. Ties fall to the lower index.

    Raises:
        ValueError: If S is no matrix, or rank, norm or dim is not as above.

    Example:
        >>> import torch
        >>> from gradworks.optim.dct_adamw import select_columns
        >>> select_columns(torch.tensor([[0.0, -3.0, 1.0], [0.0, 1.0, 2.0]]), 2)
        tensor([1, 2])
    """
    if S.ndim < 2:
        raise ValueError(f"S must be a matrix or a batch of them, got shape {tuple(S.shape)}")
    if norm not in {1, 2}:
        raise ValueError(f"norm must be 1 or 2, got {norm!r}")
    place = dim - S.ndim if dim >= 0 else dim
    if place not in {-1, -2}:
        raise ValueError(f"dim must be one of the last two of shape {tuple(S.shape)}, got {dim}")
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= S.shape[place]:
        raise ValueError(f"rank must be an integer in [1, {S.shape[place]}], got {rank!r}")
    return top(norms_of(S.to(work_dtype(S.dtype)), norm, place), rank)


def captured_energy(G: Tensor, Q: Tensor, rank: int) -> float:
    """Share of a gradient's squared norm that its best ``rank`` columns of a basis capture.

    Args:
        G: A gradient (rows, n).
        Q: An orthogonal basis (n, n), vectors in columns; of ``G.T`` it captures rows.
        rank: How many columns.

    Returns:
        A number in [0, 1]; 1 for a zero gradient, NaN for one with NaN or infinity. Reads the
        device.

    Raises:
        ValueError: If the shapes do not fit, or rank is not in [1, n].

    Example:
        >>> import torch
        >>> from gradworks.optim.dct_adamw import captured_energy
        >>> captured_energy(torch.tensor([[3.0, 4.0]]), torch.eye(2), 1)
        0.64
    """
    if G.ndim != 2 or Q.ndim != 2 or Q.shape[0] != Q.shape[1] or Q.shape[0] != G.shape[1]:
        raise ValueError(
            f"G must be (rows, n) and Q (n, n), got {tuple(G.shape)} and {tuple(Q.shape)}"
        )
    S = G.detach().double() @ Q.detach().double()
    indices = select_columns(S, rank, norm=2)
    whole = float(S.square().sum())
    if whole == 0:
        return 1.0
    return min(float(S[:, indices].square().sum()) / whole, 1.0)  # in this order NaN stays NaN
