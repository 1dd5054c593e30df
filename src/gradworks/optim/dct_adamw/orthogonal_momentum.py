"""A step of Trion on matrices, two ways: line by line, and equal shapes together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradworks.optim.dct_adamw.basis import Basis
from gradworks.optim.dct_adamw.layout import Layout
from gradworks.optim.dct_adamw.selection import norms_of, pick, top
from gradworks.optim.precision import work_dtype
from gradworks.optim.sharded import sum_over_mesh

__all__ = ["SCALES", "Matrix", "multi_tensor_trion", "newton_schulz", "single_tensor_trion"]

# Coefficients of the quintic iteration, Muon's (K. Jordan, 2024): steep at 0, never beyond 1.2
QUINTIC = (3.4445, -4.7750, 2.0315)
NORM_EPS = 1e-7  # added to the norm, as released
STACKED = 1 << 26  # entries stacked at a time
SCALES = {
    "kj": lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
    "none": lambda rows, columns: 1.0,
    "kimi": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
    "dion": lambda rows, columns: math.sqrt(rows / columns),
}


class Matrix(NamedTuple):
    """A matrix and what belongs to it: local, sharing the user's memory; and its whole shape."""

    param: Tensor
    grad: Tensor
    momentum_buffer: Tensor
    layout: Layout
    basis: Basis
    shape: tuple[int, int]


def newton_schulz(b: Tensor, steps: int, dtype: torch.dtype | None = None) -> Tensor:
    """Near the closest matrix with orthonormal rows or columns: singular values of 0.7 to 1.2.

    Takes a batch too. Iterates in ``dtype``, into which only what has norm 1 is cast: squares of
    the momentum need not fit into 16 bits.
    """
    X: Tensor = (b / (torch.linalg.matrix_norm(b, keepdim=True) + NORM_EPS)).to(dtype or b.dtype)
    tall = X.shape[-2] > X.shape[-1]
    if tall:
        X = X.mT
    for _ in range(steps):
        X = _quintic(X, X @ X.mT)
    return X.mT if tall else X


def _quintic(X: Tensor, gram: Tensor) -> Tensor:
    """One iteration, with X X^T given."""
    c1, c3, c5 = QUINTIC
    return c1 * X + (c3 * gram + c5 * (gram @ gram)) @ X


def single_tensor_trion(
    items: Sequence[Matrix],
    *,
    lr: float | Tensor,
    momentum: float,
    weight_decay: float,
    scale: str,
    ns_steps: int,
    ns_dtype: torch.dtype | None,
    norm: int,
    maximize: bool,
) -> None:
    """The method line by line: the oracle of the other path."""
    for item in items:
        dim = item.layout.dim
        work = work_dtype(item.param.dtype)
        p, B = item.param.to(work), item.momentum_buffer.to(work)
        g = item.grad.to(work)

        B.sub_(g) if maximize else B.add_(g)
        S = item.basis.project(B) if dim == -1 else item.basis.project_columns(B)
        indices = top(norms_of(S, norm, dim), item.layout.rank)
        b = pick(S, indices, dim)
        picked = item.basis.rows.index_select(0, indices)
        _subtract(B, b, picked, dim, 1 - momentum)  # what is stepped decays; the rest stays
        turned = newton_schulz(b, ns_steps, ns_dtype).to(work)

        if weight_decay != 0:
            p.mul_(1 - lr * weight_decay)
        size = lr * SCALES[scale](*item.shape)
        if isinstance(size, Tensor):
            turned, size = turned * size, 1.0
        _subtract(p, turned, picked, dim, size)

        for stored, computed in ((item.param, p), (item.momentum_buffer, B)):
            if computed is not stored:
                stored.copy_(computed)


class _Batch(NamedTuple):
    """Equal matrices on their way through a step."""

    items: list[Matrix]
    sums: list[Tensor]  # B of each, in the dtype of the arithmetic
    S: Tensor
    norms: Tensor


def multi_tensor_trion(
    items: Sequence[Matrix],
    *,
    lr: float | Tensor,
    momentum: float,
    weight_decay: float,
    scale: str,
    ns_steps: int,
    ns_dtype: torch.dtype | None,
    norm: int,
    maximize: bool,
) -> None:
    """The same with one product for all matrices of a shape, and shards reduced together."""
    whole = [item for item in items if item.layout.pieces is None]
    shards = [item for item in items if item.layout.pieces is not None]
    settings: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "scale": scale}
    for members in _alike(whole):
        batch = _transformed(members, norm, maximize)
        b, picked = _picked(batch, batch.norms, momentum)
        turned = newton_schulz(b, ns_steps, ns_dtype).to(b.dtype)
        _step(batch, turned, picked, **settings)
    if not shards:
        return
    # one at a time, in the order that all processes share: shards of equal matrices may differ
    batches = [_transformed([item], norm, maximize) for item in shards]
    where = [item.layout.pieces for item in shards]
    norms = sum_over_mesh([batch.norms for batch in batches], where)
    found = [_picked(batch, own, momentum) for batch, own in zip(batches, norms)]
    dims = [item.layout.dim for item in shards]
    parts = [b for b, _ in found]
    for batch, (b, picked), turned in zip(
        batches, found, _newton_schulz_of_shards(parts, dims, where, ns_steps, ns_dtype)
    ):
        _step(batch, turned.to(b.dtype), picked, **settings)


def _newton_schulz_of_shards(
    parts: Sequence[Tensor],
    dims: Sequence[int],
    where: Sequence[Any],
    steps: int,
    dtype: torch.dtype | None,
) -> list[Tensor]:
    """:func:`newton_schulz` of matrices whose pieces lie on several processes.

    Sums go over the sharded dimension: only the small square of the other travels, once an
    iteration for all matrices.
    """
    X = [b.mT if dim == -1 else b for b, dim in zip(parts, dims)]  # (1, rank, piece)
    squares = sum_over_mesh([x.square().sum() for x in X], where)
    X = [(x / (square.sqrt() + NORM_EPS)).to(dtype or x.dtype) for x, square in zip(X, squares)]
    for _ in range(steps):
        grams = sum_over_mesh([x @ x.mT for x in X], where)
        X = [_quintic(x, gram) for x, gram in zip(X, grams)]
    return [x.mT if dim == -1 else x for x, dim in zip(X, dims)]


def _alike(items: Sequence[Matrix]) -> list[list[Matrix]]:
    """Items that can be stacked, a limited number of entries at a time."""
    alike: dict[Any, list[Matrix]] = {}
    for item in items:
        param = item.param
        kind = (param.shape, item.layout, param.dtype, item.grad.dtype, param.device)
        alike.setdefault((*kind, id(item.basis.rows)), []).append(item)
    found = []
    for members in alike.values():
        count = max(1, STACKED // max(1, members[0].param.numel()))
        found += [members[i : i + count] for i in range(0, len(members), count)]
    return found


def _transformed(items: list[Matrix], norm: int, maximize: bool) -> _Batch:
    """Gradients into the momentum, and its transform."""
    work, dim, basis = work_dtype(items[0].param.dtype), items[0].layout.dim, items[0].basis
    sums = [item.momentum_buffer.to(work) for item in items]
    torch._foreach_add_(sums, [item.grad.to(work) for item in items], alpha=-1 if maximize else 1)
    B = torch.stack(sums)
    S = basis.project(B) if dim == -1 else basis.project_columns(B)
    return _Batch(items, sums, S, norms_of(S, norm, dim))


def _picked(batch: _Batch, norms: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    """The picked part of each momentum, taken off it, and the basis vectors."""
    layout, rows = batch.items[0].layout, batch.items[0].basis.rows
    dim = layout.dim
    indices = top(norms, layout.rank)
    beside = indices.unsqueeze(-2 if dim == -1 else -1)
    shape = list(batch.S.shape)
    shape[dim] = layout.rank
    b = batch.S.gather(dim, beside.expand(shape))
    picked = rows[indices]
    for B, own, vectors in zip(batch.sums, b.unbind(), picked.unbind()):
        _subtract(B, own, vectors, dim, 1 - momentum)
    return b, picked


def _step(
    batch: _Batch,
    turned: Tensor,
    picked: Tensor,
    *,
    lr: float | Tensor,
    weight_decay: float,
    scale: str,
) -> None:
    """Step equal matrices along orthogonal directions of their subspaces."""
    items, dim = batch.items, batch.items[0].layout.dim
    work = batch.S.dtype
    params = [item.param.to(work) for item in items]
    if isinstance(lr, Tensor):
        lr = lr.to(work, copy=False).to(params[0].device, non_blocking=True)
    size = lr * SCALES[scale](*items[0].shape)
    if isinstance(size, Tensor):
        turned, size = turned * size, 1.0
    if weight_decay != 0:
        torch._foreach_mul_(params, 1 - lr * weight_decay)
    for p, own, vectors in zip(params, turned.unbind(), picked.unbind()):
        _subtract(p, own, vectors, dim, size)
    for item, p, B in zip(items, params, batch.sums):
        for stored, computed in ((item.param, p), (item.momentum_buffer, B)):
            if computed is not stored:
                stored.copy_(computed)


def _subtract(matrix: Tensor, small: Tensor, picked: Tensor, dim: int, size: float) -> None:
    """Take coordinates along basis vectors off a matrix, in place."""
    left, right = (small, picked) if dim == -1 else (picked.mT, small)
    matrix.addmm_(left, right, alpha=-size)
