"""What is not finite, and what is zero: one look at two numbers a task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradworks.multitask.aggregator import NonFiniteGradientError

__all__ = ["Seen", "look"]


@dataclass(frozen=True)
class Seen:
    """Numbers of tasks.

    Attributes:
        gradients: Whose gradient is not finite.
        losses: Whose loss is not finite.
        zero: Whose gradient is zero.
    """

    gradients: tuple[int, ...]
    losses: tuple[int, ...]
    zero: tuple[int, ...]

    @property
    def bad(self) -> tuple[int, ...]:
        """Tasks with anything that is not finite."""
        return tuple(sorted({*self.gradients, *self.losses}))

    def refuse(self, names: Sequence[str]) -> None:
        """Raise if anything is not finite.

        Args:
            names: Of all tasks.

        Raises:
            NonFiniteGradientError: For the losses first: they are the cause.
        """
        for what, tasks in (("loss", self.losses), ("gradient", self.gradients)):
            if tasks:
                raise NonFiniteGradientError(tasks, [names[i] for i in tasks], what=what)


def look(
    norms: Tensor,
    losses: Tensor,
    rows: Tensor | None,
    reduce: Callable[[Tensor], Tensor] | None,
) -> Seen:
    """Look at norms and losses with one host synchronisation.

    Args:
        norms: Norms of the rows over all shards, ``(tasks,)``.
        losses: The same on every process, ``(tasks,)``.
        rows: To tell an overflow of a norm from an entry that is not finite; None: no difference
            is made.
        reduce: Sums over the shards of the rows.

    Returns:
        Numbers of tasks.
    """
    tasks = len(norms)
    found = torch.cat([norms, losses.to(norms)]).tolist()
    bad = [i for i in range(tasks) if not math.isfinite(found[i])]
    if bad and rows is not None:
        count = (~torch.isfinite(rows[bad])).sum(1).to(norms.dtype)
        counts = (count if reduce is None else reduce(count)).tolist()
        bad = [i for i, n in zip(bad, counts) if n > 0]
    return Seen(
        gradients=tuple(bad),
        losses=tuple(i for i in range(tasks) if not math.isfinite(found[tasks + i])),
        zero=tuple(i for i in range(tasks) if found[i] == 0),
    )
