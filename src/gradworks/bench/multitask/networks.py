"""A trunk that several tasks share, and a head for each of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import cast

from torch import Generator, Tensor, nn

from gradworks.bench.models import initialised

__all__ = ["SharedTrunk", "builder"]


class SharedTrunk(nn.Module):
    """A trunk and the heads that read its features.

    Args:
        trunk: From the inputs to the features.
        tasks: Names of the tasks, in order.
        heads: From the features to the output of a task, by name; a task without one reads the
            features themselves.

    Raises:
        ValueError: If there is no task, or a head belongs to none.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from gradworks.bench.multitask import SharedTrunk
        >>> model = SharedTrunk(nn.Linear(3, 4), ("a", "b"), {"a": nn.Linear(4, 2)})
        >>> {name: tuple(output.shape) for name, output in model(torch.zeros(5, 3)).items()}
        {'a': (5, 2), 'b': (5, 4)}
    """

    def __init__(
        self, trunk: nn.Module, tasks: tuple[str, ...], heads: Mapping[str, nn.Module]
    ) -> None:
        super().__init__()
        stray = sorted(set(heads) - set(tasks))
        if not tasks or stray:
            raise ValueError(f"heads {stray} belong to no task; tasks are {tasks}")
        self.tasks = tasks
        self.trunk = trunk
        self.heads = nn.ModuleDict(heads)

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        """Return the output of each task.

        Args:
            input: ``(batch, ...)``.
        """
        features = self.trunk(input)
        return {
            name: self.heads[name](features) if name in self.heads else features
            for name in self.tasks
        }

    def only(self, task: str) -> SharedTrunk:
        """Return a copy with one task: the same weights, nothing shared with this one.

        Args:
            task: Its name.

        Raises:
            ValueError: If there is no such task.
        """
        if task not in self.tasks:
            raise ValueError(f"task must be one of {self.tasks}, got {task!r}")
        heads = {task: self.heads[task]} if task in self.heads else {}
        return copy.deepcopy(SharedTrunk(self.trunk, (task,), heads))


def builder(
    trunk: Callable[[], nn.Module],
    tasks: tuple[str, ...],
    heads: Callable[[], Mapping[str, nn.Module]],
) -> Callable[[Generator], SharedTrunk]:
    """Return what makes a network whose weights come from a generator.

    Args:
        trunk: Makes the trunk.
        tasks: Names of the tasks.
        heads: Makes the heads.
    """

    def made(generator: Generator) -> SharedTrunk:
        found = initialised(lambda: SharedTrunk(trunk(), tasks, heads()), generator)
        return cast("SharedTrunk", found)

    return made
