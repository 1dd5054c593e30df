"""Weights spread over processes (``DTensor``: FSDP2, tensor parallel): their sums in one reduction.

Everything but the two decisions of the projection is local. With whole rows on each process
(``Shard`` of the channel dimension) five numbers a tensor, stacked for all tensors, are summed
once; rows that are split themselves (``Shard`` of another dimension) have their row sums added
before.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["Sharding", "is_sharded", "local", "refuse_partial", "sharding_of", "sum_over_mesh"]


class Sharding(NamedTuple):
    """How a weight lies on a mesh: the mesh dimensions that split its rows, and their channels."""

    mesh: DeviceMesh
    row_dims: tuple[int, ...]
    channel_dims: tuple[int, ...]


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a ``DTensor``; never imports ``torch.distributed`` to find out."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """This process's part, laid out as ``like``; a plain tensor is its own part."""
    if not is_sharded(tensor):
        return tensor
    if like is not None and tensor.placements != like.placements:  # type: ignore[attr-defined]
        tensor = tensor.redistribute(placements=like.placements)  # type: ignore[attr-defined]
    part: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return part


def refuse_partial(param: Tensor) -> None:
    """No step of a sum is the sum of its parts' steps."""
    if is_sharded(param) and any(p.is_partial() for p in param.placements):  # type: ignore[attr-defined]
        raise RuntimeError(
            f"a parameter of shape {tuple(param.shape)} has a Partial placement; redistribute "
            "it to Shard or Replicate first"
        )


def sharding_of(param: Tensor, channel_dim: int) -> Sharding | None:
    """Which mesh dimensions split rows and channels; None for a plain or replicated weight."""
    if not is_sharded(param):
        return None
    refuse_partial(param)
    rows: list[int] = []
    channels: list[int] = []
    for mesh_dim, placement in enumerate(param.placements):  # type: ignore[attr-defined]
        if placement.is_replicate():
            continue
        (channels if placement.dim % param.ndim == channel_dim else rows).append(mesh_dim)
    if not rows and not channels:
        return None
    return Sharding(param.device_mesh, tuple(rows), tuple(channels))  # type: ignore[attr-defined]


def sum_over_mesh(
    parts: Sequence[Tensor], where: Sequence[tuple[DeviceMesh, tuple[int, ...]] | None]
) -> list[Tensor]:
    """Sum each part over its mesh dimensions: one all-reduce for all that share them."""
    summed = list(parts)
    together: dict[tuple[DeviceMesh, tuple[int, ...]], list[int]] = {}
    for i, place in enumerate(where):
        if place is not None and place[1]:
            together.setdefault(place, []).append(i)
    for (mesh, dims), members in together.items():
        flat = torch.cat([parts[i].reshape(-1) for i in members])
        for dim in dims:
            torch.distributed.all_reduce(flat, group=mesh.get_group(dim))
        pieces = torch.split(flat, [parts[i].numel() for i in members])
        for i, piece in zip(members, pieces):
            summed[i] = piece.view_as(parts[i])
    return summed
