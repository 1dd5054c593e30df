"""Rows summed over micro-batches until they are aggregated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from gradworks.multitask.collect.rows import Own

__all__ = ["Pending"]


class Pending:
    """The sums so far.

    Args:
        tasks: Names, in the order of the rows.
        room: Gives memory for the rows of a number of tasks.

    Attributes:
        rows: ``(tasks, params)``.
        losses: Sums of the losses, ``(tasks,)``.

    Raises:
        TypeError: If ``tasks`` is one string.
        ValueError: If a name occurs twice.
    """

    def __init__(self, tasks: Sequence[str], room: Callable[[int], Tensor]) -> None:
        if isinstance(tasks, str):
            raise TypeError(f"tasks must be a list of names, got {tasks!r}")
        self.tasks = tuple(str(task) for task in tasks)
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks holds a name twice: {self.tasks}")
        self.rows = room(len(self.tasks)).zero_()
        self.losses = torch.zeros(len(self.tasks), device=self.rows.device)
        self._own: dict[int, tuple[Parameter, Tensor]] = {}

    def places(self, named: Mapping[str, Tensor]) -> list[int]:
        """Rows of some losses.

        Args:
            named: Losses by name.

        Returns:
            Their numbers.

        Raises:
            ValueError: If a loss is none of the tasks.
        """
        known = {task: i for i, task in enumerate(self.tasks)}
        strange = sorted(set(named) - set(known))
        if strange:
            raise ValueError(
                f"losses {strange} are none of the tasks {list(self.tasks)}; name all tasks with "
                "tasks= at the first micro-batch"
            )
        return [known[name] for name in named]

    def add(self, places: list[int], named: Mapping[str, Tensor], own: Own, scale: float) -> None:
        """Add losses and the gradients of heads; the rows are added to directly.

        Args:
            places: Rows of the losses.
            named: The losses.
            own: Gradients of the heads.
            scale: What both are multiplied by.
        """
        for i, loss in zip(places, named.values()):
            self.losses[i] += scale * loss.detach().reshape(()).to(self.losses)
        for param, grad in own:
            if id(param) in self._own:
                self._own[id(param)][1].add_(grad, alpha=scale)
            else:
                self._own[id(param)] = (param, grad * scale)

    @property
    def own(self) -> Own:
        """Parameters of heads with the sums of their gradients."""
        return list(self._own.values())
