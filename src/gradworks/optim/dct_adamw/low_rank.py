"""A step of DCT-AdamW on matrices, two ways: line by line, and equal shapes together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from gradworks.optim.dct_adamw.basis import Basis
from gradworks.optim.dct_adamw.dense import on_device
from gradworks.optim.dct_adamw.feedback import dequantize, quantize
from gradworks.optim.dct_adamw.layout import Layout
from gradworks.optim.dct_adamw.selection import norms_of, pick, top
from gradworks.optim.precision import in_work_dtype, work_dtype
from gradworks.optim.sharded import sum_over_mesh
from gradworks.optim.steps import bias_corrections

__all__ = ["LowRank", "multi_tensor_low_rank", "single_tensor_low_rank"]

# Entries stacked at a time: a gradient and its transform, 256 MB each in float32
STACKED = 1 << 26


class LowRank(NamedTuple):
    """A matrix and what belongs to it: local, sharing the user's memory.

    ``errors`` is empty without error feedback; one tensor, or bytes with smallest and largest value
    a row. Trion has no second moment, and its first is of the matrix's shape.
    """

    param: Tensor
    grad: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor
    indices: Tensor
    age: Tensor | None
    errors: tuple[Tensor, ...]
    layout: Layout
    basis: Basis


def single_tensor_low_rank(
    items: Sequence[LowRank],
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    update_gap: int,
    rotate: bool,
    norm: int,
    ef_dtype: str | None,
    maximize: bool,
    traced: bool,
) -> None:
    """The method line by line: the oracle of the other path."""
    for item in items:
        layout, dim = item.layout, item.layout.dim
        work = work_dtype(item.param.dtype)
        p, m, v, g = (x.to(work) for x in (item.param, item.exp_avg, item.exp_avg_sq, item.grad))
        if maximize:
            g = -g

        item.step.add_(1)
        if weight_decay != 0:
            p.mul_(1 - lr * weight_decay)
        A = g + _error(item, ef_dtype, work) if item.errors else g  # what earlier steps left out
        refresh = _refreshes(item.step, update_gap, traced)
        if refresh is False:
            picked = item.basis.rows.index_select(0, item.indices)
            a = _onto(A, picked, dim)
        else:
            S = item.basis.project(A) if dim == -1 else item.basis.project_columns(A)
            indices = top(norms_of(S, norm, dim), layout.rank)
            if isinstance(refresh, Tensor):
                indices = torch.where(refresh.to(indices.device), indices, item.indices)
            a = pick(S, indices, dim)
            if rotate:
                source, stays = _moves(item.indices, indices)
                for moments in (m, v):
                    moved = moments.index_select(dim, source)
                    moments.copy_(torch.where(_beside(stays, dim), moved, 0.0))
                if item.age is not None:
                    item.age.copy_(item.age[source].masked_fill_(~stays, 0))
            item.indices.copy_(indices)
            picked = item.basis.rows.index_select(0, indices)
        if item.errors:  # before the moments: what the subspace lost, not what Adam made of it
            _keep_error(item, _back(A, a, picked, dim), ef_dtype)

        m.lerp_(a, 1 - beta1)
        v.mul_(beta2).addcmul_(a, a, value=1 - beta2)
        correction1, correction2 = _corrections(item, beta1, beta2, traced)
        u = m / v.sqrt().div_(correction2).add_(eps)
        size = lr / correction1
        if isinstance(size, Tensor):
            _back_(p, u.mul_(size), picked, dim)
        else:
            _back_(p, u, picked, dim, size)

        for stored, computed in ((item.param, p), (item.exp_avg, m), (item.exp_avg_sq, v)):
            if computed is not stored:
                stored.copy_(computed)


class _Batch(NamedTuple):
    """Equal matrices on their way through a step."""

    items: list[LowRank]
    A: Tensor
    S: Tensor | None  # None: the subspace stays
    norms: Tensor | None


def multi_tensor_low_rank(
    items: Sequence[LowRank], *, update_gap: int, norm: int, **settings: Any
) -> None:
    """The same with one product for all matrices of a shape, and one all-reduce for all shards."""
    ef_dtype, traced = settings["ef_dtype"], settings["traced"]
    waiting: list[_Batch] = []
    for members in _together(items):
        torch._foreach_add_([item.step for item in members], 1)
        refreshing: dict[bool, list[LowRank]] = {}
        for item in members:
            refresh = _refreshes(item.step, update_gap, traced)
            refreshing.setdefault(refresh is not False, []).append(item)
        for refresh, batch in refreshing.items():
            A = _stacked(batch, ef_dtype, settings["maximize"])
            S = norms = None
            if refresh:
                basis, dim = batch[0].basis, batch[0].layout.dim
                S = basis.project(A) if dim == -1 else basis.project_columns(A)
                norms = norms_of(S, norm, dim)
            ready = _Batch(batch, A, S, norms)
            if batch[0].layout.pieces is None or norms is None:
                _finish(ready, update_gap, **settings)
            else:
                waiting.append(ready)
    for ready, norms in zip(waiting, _over_shards(items, waiting)):
        _finish(ready._replace(norms=norms), update_gap, **settings)


def _over_shards(items: Sequence[LowRank], waiting: Sequence[_Batch]) -> list[Tensor]:
    """Norms of whole matrices.

    In the order of the parameters: shards of equal matrices may differ in size between processes,
    and so may what was stacked.
    """
    found = {
        id(item): own
        for batch in waiting
        for item, own in zip(batch.items, cast(Tensor, batch.norms).unbind())
    }
    members = [item for item in items if id(item) in found]
    summed = sum_over_mesh(
        [found[id(item)] for item in members], [item.layout.pieces for item in members]
    )
    whole = {id(item): norms for item, norms in zip(members, summed)}
    return [torch.stack([whole[id(item)] for item in batch.items]) for batch in waiting]


def _finish(
    batch: _Batch,
    update_gap: int,
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    rotate: bool,
    ef_dtype: str | None,
    maximize: bool,
    traced: bool,
) -> None:
    """From the transformed gradients of equal matrices to their steps."""
    items, A, S, norms = batch
    layout, rows = items[0].layout, items[0].basis.rows
    dim, rank = layout.dim, layout.rank
    old = torch.stack([item.indices for item in items])
    p, m, v = (
        in_work_dtype(list(x))
        for x in zip(*((item.param, item.exp_avg, item.exp_avg_sq) for item in items))
    )
    ages = [item.age for item in items if item.age is not None]
    if S is None or norms is None:
        picked = rows[old]
        a = _onto(A, picked, dim)
    else:
        indices = top(norms, rank)
        if update_gap > 1 and traced:
            steps = torch.stack([item.step.to(old.device) for item in items])
            refresh = (steps == 1) | (steps % update_gap == 0)
            indices = torch.where(refresh.unsqueeze(1), indices, old)
        a = S.gather(dim, _beside(indices, dim).expand(_small(S, dim, rank)))
        if rotate:
            source, stays = _moves(old, indices)
            m, v = (_moved(x, source, stays, dim) for x in (m, v))
            if ages:
                moved = torch.stack(ages).gather(1, source).masked_fill_(~stays, 0)
                torch._foreach_copy_(ages, list(moved.unbind()))
        torch._foreach_copy_([item.indices for item in items], list(indices.unbind()))
        picked = rows[indices]
    if items[0].errors:
        for item, error in zip(items, _back(A, a, picked, dim).unbind()):
            _keep_error(item, error, ef_dtype)
    del A, S

    torch._foreach_lerp_(m, list(a.unbind()), 1 - beta1)
    torch._foreach_mul_(v, beta2)
    torch._foreach_addcmul_(v, list(a.unbind()), list(a.unbind()), 1 - beta2)
    corrections = [_corrections(item, beta1, beta2, traced) for item in items]
    denom = list(torch._foreach_sqrt(v))
    torch._foreach_div_(denom, cast(list[Tensor], [c for _, c in corrections]))
    torch._foreach_add_(denom, eps)
    u = list(torch._foreach_div(m, denom))
    lr = on_device(lr, p[0])
    torch._foreach_mul_(u, cast(list[Tensor], [lr / c for c, _ in corrections]))

    if weight_decay != 0:
        torch._foreach_mul_(p, 1 - lr * weight_decay)
    for own, update, vectors in zip(p, u, picked.unbind()):
        _back_(own, update, vectors, dim)  # into the weight: no matrix between
    for name, computed in (("param", p), ("exp_avg", m), ("exp_avg_sq", v)):
        stored = [getattr(item, name) for item in items]
        if any(x is not y for x, y in zip(stored, computed)):
            torch._foreach_copy_(stored, computed)


def _together(items: Sequence[LowRank]) -> list[list[LowRank]]:
    """Items alike in all that a stacked tensor needs, a limited number of entries at a time."""
    alike: dict[Any, list[LowRank]] = {}
    for item in items:
        param, layout = item.param, item.layout
        kind = (param.shape, layout, param.dtype, item.grad.dtype, param.device)
        alike.setdefault((*kind, id(item.basis.rows)), []).append(item)
    found = []
    for members in alike.values():
        count = max(1, STACKED // max(1, members[0].param.numel()))
        found += [members[i : i + count] for i in range(0, len(members), count)]
    return found


def _stacked(items: list[LowRank], ef_dtype: str | None, maximize: bool) -> Tensor:
    """Gradients of equal matrices with what earlier steps left out."""
    work = work_dtype(items[0].param.dtype)
    A = torch.stack([item.grad for item in items]).to(work)
    if maximize:
        A.neg_()
    if items[0].errors:
        A += torch.stack([_error(item, ef_dtype, work) for item in items])
    return A


def _moved(tensors: list[Tensor], source: Tensor, stays: Tensor, dim: int) -> list[Tensor]:
    """Moments after a change of subspace."""
    stack = torch.stack(tensors)
    moved = stack.gather(dim, _beside(source, dim).expand(stack.shape))
    return list(torch.where(_beside(stays, dim), moved, 0.0).unbind())


def _moves(old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Where each new basis vector stood, and whether it stood there at all.

    Both sets are columns of one orthogonal Q: the rotation between the subspaces has entries 0 and
    1, and is a gather.
    """
    source = torch.searchsorted(old, new).clamp_(max=old.shape[-1] - 1)
    return source, old.gather(-1, source) == new


def _refreshes(step: Tensor, gap: int, traced: bool) -> bool | Tensor:
    """Whether this step picks a subspace: the first, and each ``gap``-th; a tensor if unread."""
    if gap == 1:
        return True
    if traced:
        return (step == 1) | (step % gap == 0)
    count = int(step.item())
    return count == 1 or count % gap == 0


def _corrections(
    item: LowRank, beta1: float, beta2: float, traced: bool
) -> tuple[float | Tensor, float | Tensor]:
    """Bias corrections of the run, or of each column since it entered."""
    if item.age is None:
        return bias_corrections(item.step, beta1, beta2, traced)
    item.age.add_(1)
    found = bias_corrections(item.age, beta1, beta2, traced=True)
    work = work_dtype(item.param.dtype)
    dim = item.layout.dim
    first, second = (_beside(cast(Tensor, x).to(work), dim) for x in found)
    return first, second


def _error(item: LowRank, ef_dtype: str | None, work: torch.dtype) -> Tensor:
    """What earlier steps left out."""
    if len(item.errors) == 1:
        return item.errors[0].to(work)
    q, low, high = item.errors
    return dequantize(q, low, high, cast(str, ef_dtype), item.layout.n, item.layout.dim)


def _keep_error(item: LowRank, error: Tensor, ef_dtype: str | None) -> None:
    """Store what this step left out."""
    if ef_dtype is None:
        item.errors[0].copy_(error)
        return
    for stored, found in zip(item.errors, quantize(error, ef_dtype, item.layout.dim)):
        stored.copy_(found)


def _beside(x: Tensor, dim: int) -> Tensor:
    """One number a basis vector, broadcast along the other dimension."""
    return x.unsqueeze(-2 if dim == -1 else -1)


def _small(S: Tensor, dim: int, rank: int) -> tuple[int, ...]:
    """Shape of the picked part."""
    shape = list(S.shape)
    shape[dim] = rank
    return tuple(shape)


def _onto(A: Tensor, picked: Tensor, dim: int) -> Tensor:
    """Coordinates along basis vectors given as rows."""
    return A @ picked.mT if dim == -1 else picked @ A


def _back(A: Tensor, a: Tensor, picked: Tensor, dim: int) -> Tensor:
    """What of A its coordinates leave out."""
    return A - (a @ picked if dim == -1 else picked.mT @ a)


def _back_(p: Tensor, u: Tensor, picked: Tensor, dim: int, size: float = 1.0) -> None:
    """Subtract coordinates from a matrix in place."""
    left, right = (u, picked) if dim == -1 else (picked.mT, u)
    p.addmm_(left, right, alpha=-size)
