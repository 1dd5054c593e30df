"""A step of ARO on matrices, three ways: one by one, equal shapes together, and sharded ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradworks.optim.aro.directions import Settings, directions
from gradworks.optim.aro.layout import Layout, orient, unorient
from gradworks.optim.precision import work_dtype

__all__ = [
    "Matrix",
    "Rule",
    "Together",
    "advance",
    "multi_tensor_aro",
    "settle",
    "single_tensor_aro",
    "sound_gradient",
]

STACKED = 1 << 26  # entries stacked at a time


class Matrix(NamedTuple):
    """A weight and what belongs to it, sharing the user's memory."""

    param: Tensor
    grad: Tensor
    momentum: Tensor
    layout: Layout


class Together(NamedTuple):
    """Weights that share a rotation, mostly one; and whether it is turned in this step."""

    matrices: list[Matrix]
    rotation: Tensor
    second: Tensor | None
    due: bool | Tensor


class Rule(NamedTuple):
    """What of a group a step depends on, beside the direction."""

    lr: float | Tensor
    momentum: float
    nesterov: bool
    weight_decay: float
    maximize: bool
    settings: Settings


def sound_gradient(matrix: Matrix) -> Tensor:
    """Of each weight whether all of its gradient is finite."""
    return torch.isfinite(matrix.grad).flatten(len(matrix.layout.lead)).all(-1)


def advance(matrix: Matrix, rule: Rule, sound: Tensor) -> Tensor:
    """The gradient into the momentum; what is rotated, in the dtype of the arithmetic."""
    work = work_dtype(matrix.param.dtype)
    g = orient(matrix.grad.to(work), matrix.layout)
    if rule.maximize:
        g = -g
    M = matrix.momentum.to(work)
    g = torch.where(sound[..., None, None], g, M)  # leaves the momentum as it is
    M.lerp_(g, 1 - rule.momentum)
    if M is not matrix.momentum:
        matrix.momentum.copy_(M)
    return torch.lerp(M, g, 1 - rule.momentum) if rule.nesterov else M


def settle(matrix: Matrix, along: Tensor, moves: Tensor, rule: Rule) -> None:
    """Decay and step a weight; one that has never had a gradient rests."""
    param = matrix.param
    p = param.to(along.dtype)
    if rule.weight_decay != 0:
        factor = 1 - rule.lr * rule.weight_decay * moves.to(along.dtype)
        p.mul_(factor.reshape(*matrix.layout.lead, *(1,) * (p.dim() - len(matrix.layout.lead))))
    step = unorient(along, matrix.layout, param.shape)
    if isinstance(rule.lr, Tensor):
        p.sub_(step * rule.lr)
    else:
        p.sub_(step, alpha=rule.lr)
    if p is not param:
        param.copy_(p)


def single_tensor_aro(items: Sequence[Together], rule: Rule) -> None:
    """One rotation after the other: the oracle of the other path."""
    for item in items:
        momenta = [advance(matrix, rule, sound_gradient(matrix)) for matrix in item.matrices]
        found = directions(momenta, item.rotation, item.second, rule.settings, item.due)
        item.rotation.copy_(found.rotation)
        if item.second is not None and found.second is not None:
            item.second.copy_(found.second)
        for matrix, along, moves in zip(item.matrices, found.along, found.moves):
            settle(matrix, along, moves, rule)


def multi_tensor_aro(items: Sequence[Together], rule: Rule) -> None:
    """The same with one product and one factorization for all weights of a shape."""
    for members in _alike(items):
        if len(members) == 1:
            single_tensor_aro(members, rule)
            continue
        matrices = [item.matrices[0] for item in members]
        M = torch.stack([advance(matrix, rule, sound_gradient(matrix)) for matrix in matrices])
        R = torch.stack([item.rotation for item in members])
        seconds = [item.second for item in members if item.second is not None]
        V = torch.stack(seconds) if seconds else None
        due = members[0].due
        if isinstance(due, Tensor):
            dues = torch.stack([torch.as_tensor(item.due) for item in members])
            due = dues.reshape(-1, *(1,) * (M.dim() - 1))
        found = directions([M], R, V, rule.settings, due)
        torch._foreach_copy_([item.rotation for item in members], list(found.rotation.unbind()))
        if found.second is not None:
            torch._foreach_copy_(seconds, list(found.second.unbind()))
        for matrix, along, moves in zip(matrices, found.along[0].unbind(), found.moves[0].unbind()):
            settle(matrix, along, moves, rule)


def _alike(items: Sequence[Together]) -> list[list[Together]]:
    """Items that can be stacked, a limited number of entries at a time."""
    alike: dict[Any, list[Together]] = {}
    for i, item in enumerate(items):
        first = item.matrices[0]
        due = "later" if isinstance(item.due, Tensor) else item.due
        kind: Any = (first.layout[:3], first.param.dtype, first.param.device, due)
        alike.setdefault(kind if len(item.matrices) == 1 else i, []).append(item)
    found = []
    for members in alike.values():
        count = max(1, STACKED // max(1, members[0].matrices[0].param.numel()))
        found += [members[i : i + count] for i in range(0, len(members), count)]
    return found
