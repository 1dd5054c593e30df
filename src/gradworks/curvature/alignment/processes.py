"""Sums over processes that gradients go through."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

__all__ = ["summed"]


class _Summed(torch.autograd.Function):
    """All-reduce; so is its derivative, as every process goes on with the same sum.

    ``DistributedDataParallel`` divides by the number of processes afterwards, which leaves the
    gradient that one process with all rows would have.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        """Sum over the group."""
        ctx.group = group
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Sum the gradients over the group."""
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None


def summed(x: Tensor, group: ProcessGroup | None) -> Tensor:
    """The sum of ``x`` over the processes of a group; ``x`` itself without one."""
    if group is None:
        return x
    total: Tensor = _Summed.apply(x, group)  # type: ignore[no-untyped-call]
    return total
