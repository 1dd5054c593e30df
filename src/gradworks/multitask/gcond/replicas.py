"""Replicas that each resolve their own conflicts: the results are averaged, not the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gradworks.multitask.aggregator import row_norms

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from gradworks.multitask.collect import TaskGradients

__all__ = ["agree", "average_grads"]


def agree(driver: TaskGradients, group: ProcessGroup) -> None:
    """Let every replica refuse a step that one of them must refuse, so that none waits for it.

    Args:
        driver: Holds the rows of this replica; those that are not finite anywhere become NaN here.
        group: The replicas.
    """
    rows = driver.pending
    if rows is None:
        return
    bad = (~torch.isfinite(row_norms(rows))).to(torch.float32)
    torch.distributed.all_reduce(bad, group=group)
    rows.masked_fill_((bad > 0)[:, None], float("nan"))


def average_grads(parameters: Sequence[Tensor], group: ProcessGroup) -> None:
    """Average ``.grad`` over the replicas.

    Args:
        parameters: With the same entries everywhere.
        group: The replicas.
    """
    size = torch.distributed.get_world_size(group)
    grads = [p.grad for p in parameters if p.grad is not None]
    works = []
    for grad in grads:
        grad.div_(size)
        works.append(torch.distributed.all_reduce(grad, group=group, async_op=True))
    for work in works:
        if work is not None:
            work.wait()
