"""ARO on sharded weights (``DTensor``): each is whole on one process while its direction is found.

Momentum stays sharded like the weight. In turns of as many weights as processes, momenta are
gathered, each process finds the direction of one, and sends it and the rotation to all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradworks.optim.aro.directions import directions
from gradworks.optim.aro.layout import Layout, unorient
from gradworks.optim.aro.paths import Matrix, Rule, Together, advance, sound_gradient

__all__ = ["sharded_aro", "sharded_zeros"]


class _Placed(NamedTuple):
    """Placements under which a parameter's shape can be oriented piece by piece, and of M."""

    given: list[Any]
    oriented: list[Any]


def _placed(param: Any, layout: Layout) -> _Placed:
    """Shards of flattened dimensions become shards of rows; what is no plain shard is whole."""
    from torch.distributed.tensor import Replicate, Shard

    first = len(layout.lead)
    given: list[Any] = []
    oriented: list[Any] = []
    for placement in param.placements:
        if type(placement) is not Shard:
            given.append(Replicate())
            oriented.append(Replicate())
            continue
        dim = placement.dim % param.ndim
        if dim > first and param.ndim > first + 2:
            dim = first
        given.append(Shard(dim))
        turned = layout.turned and dim >= first
        oriented.append(Shard(2 * first + 1 - dim if turned else dim))
    return _Placed(given, oriented)


def sharded_zeros(param: Any, layout: Layout) -> Tensor:
    """Momentum of a sharded weight."""
    from torch.distributed.tensor import zeros

    found: Tensor = zeros(
        *layout.lead,
        layout.m,
        layout.n,
        dtype=param.dtype,
        device_mesh=param.device_mesh,
        placements=_placed(param, layout).oriented,
    )
    return found


def _own_piece(matrix: Matrix) -> Matrix:
    """The piece of a gradient and momentum that lies here; its weight is not needed."""
    param: Any = matrix.param
    grad: Any = matrix.grad
    momentum: Any = matrix.momentum
    placed = _placed(param, matrix.layout)
    piece = grad.redistribute(placements=placed.given).to_local()
    lead = tuple(piece.shape[: len(matrix.layout.lead)])
    rest = tuple(piece.shape[len(lead) :])
    rows, columns = rest[0], math.prod(rest[1:])
    m, n = (columns, rows) if matrix.layout.turned else (rows, columns)
    return Matrix(piece, piece, momentum.to_local(), Layout(lead, m, n, matrix.layout.turned))


def _sound(mesh: Any, pieces: list[Matrix]) -> list[Tensor]:
    """Of each weight whether its gradient is finite everywhere: one small reduction for all."""
    flags = [sound_gradient(piece).to(torch.uint8) for piece in pieces]
    flat = torch.cat([flag.reshape(-1) for flag in flags])
    for dim in range(mesh.ndim):
        group = mesh.get_group(dim)
        torch.distributed.all_reduce(flat, torch.distributed.ReduceOp.MIN, group=group)
    parts = torch.split(flat.bool(), [flag.numel() for flag in flags])
    return [part.view(flag.shape) for part, flag in zip(parts, flags)]


def _gathered(matrix: Matrix, piece: Matrix, sound: Tensor, rule: Rule) -> Tensor:
    """The gradient into the own piece of the momentum; what is rotated, whole."""
    from torch.distributed.tensor import DTensor

    param: Any = matrix.param
    found: Tensor = DTensor.from_local(
        advance(piece, rule, sound).contiguous(),
        param.device_mesh,
        _placed(param, matrix.layout).oriented,
        run_check=False,
        shape=matrix.momentum.shape,
        stride=matrix.momentum.stride(),
    ).full_tensor()
    return found


def sharded_aro(items: Sequence[Together], rule: Rule) -> None:
    """A step of weights that lie on meshes; the same on all processes, in the same order."""
    meshes: dict[Any, list[Together]] = {}
    for item in items:
        first: Any = item.matrices[0].param
        meshes.setdefault(first.device_mesh, []).append(item)
    for mesh, members in meshes.items():
        matrices = [matrix for item in members for matrix in item.matrices]
        pieces = [_own_piece(matrix) for matrix in matrices]
        ready = iter(zip(pieces, _sound(mesh, pieces)))
        size = mesh.size()
        for start in range(0, len(members), size):
            items = members[start : start + size]
            whole = [[_gathered(m, *next(ready), rule) for m in item.matrices] for item in items]
            _turn(mesh, items, whole, rule)


def _turn(mesh: Any, items: list[Together], whole: list[list[Tensor]], rule: Rule) -> None:
    """One item a process, whose momenta are whole."""
    own = _index(mesh)
    sent: list[tuple[Tensor, list[int]]] = []
    for i, (item, momenta) in enumerate(zip(items, whole)):
        sizes = [one.numel() for one in momenta] + [item.rotation.numel()]
        if item.second is not None:
            sizes.append(item.second.numel())
        if i == own:
            found = directions(momenta, item.rotation, item.second, rule.settings, item.due)
            parts = [*found.along, found.rotation]
            if found.second is not None:
                parts.append(found.second)
            sent.append((torch.cat([part.reshape(-1) for part in parts]), sizes))
        else:
            sent.append((momenta[0].new_empty(sum(sizes)), sizes))
    for i, (item, momenta, (flat, sizes)) in enumerate(zip(items, whole, sent)):
        _broadcast(mesh, flat, i)
        parts = list(torch.split(flat, sizes))
        count = len(momenta)
        item.rotation.copy_(parts[count].view_as(item.rotation))
        if item.second is not None:
            item.second.copy_(parts[count + 1].view_as(item.second))
        for matrix, M, along in zip(item.matrices, momenta, parts):
            _settle(matrix, M, along.view_as(M), rule)


def _index(mesh: Any) -> int:
    """The place of this process in the flattened mesh."""
    index = 0
    for size, at in zip(mesh.shape, mesh.get_coordinate()):
        index = index * size + at
    return index


def _broadcast(mesh: Any, values: Tensor, index: int) -> None:
    """Send from one place of the mesh to all, a mesh dimension after the other."""
    coordinates: list[int] = []
    for size in reversed(mesh.shape):
        index, at = divmod(index, size)
        coordinates.insert(0, at)
    for dim, at in enumerate(coordinates):
        group = mesh.get_group(dim)
        source = torch.distributed.get_global_rank(group, at)
        torch.distributed.broadcast(values, source, group=group)


def _settle(matrix: Matrix, M: Tensor, along: Tensor, rule: Rule) -> None:
    """Step the own piece of a weight."""
    param: Any = matrix.param
    own = param.to_local()
    step = _piece(param, unorient(along, matrix.layout, param.shape))
    moves = unorient(
        (M != 0).any(-1).any(-1)[..., None, None].expand_as(M), matrix.layout, param.shape
    )
    p = own.to(step.dtype)
    if rule.weight_decay != 0:
        p.mul_(1 - rule.lr * rule.weight_decay * _piece(param, moves).to(step.dtype))
    p.sub_(step * rule.lr)
    if p is not own:
        own.copy_(p)


def _piece(param: Any, whole: Tensor) -> Tensor:
    """What of a whole tensor lies here."""
    from torch.distributed.tensor import DTensor, Replicate

    mesh = param.device_mesh
    spread = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    found: Tensor = spread.redistribute(placements=param.placements).to_local()
    return found
