"""The counts of several processes as those of one joint batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradworks.losses.anyloss.confusion import Confusion

__all__ = ["synchronized"]


class _AllReduce(torch.autograd.Function):
    """Sum over processes; the derivative of the sum of all processes' losses is summed likewise."""

    @staticmethod
    def forward(ctx: Any, counts: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = counts.clone()
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _AllReduce.apply(grads[0].contiguous(), ctx.group), None  # type: ignore[no-untyped-call]


def synchronized(confusion: Confusion, group: Any) -> Confusion:
    """Counts of the joint batch of all processes; of this one where there is no process group.

    Args:
        confusion: Counts of this process's batch.
        group: Process group, or None for the default one.

    Returns:
        The sums, the same in every process.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return confusion
    total = _AllReduce.apply(torch.stack(list(confusion)), group)  # type: ignore[no-untyped-call]
    return Confusion(*total.unbind(0))
