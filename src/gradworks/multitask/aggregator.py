"""What an aggregator is: a module from the Jacobian of several losses to one direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

__all__ = ["Aggregator", "NonFiniteGradientError"]


class NonFiniteGradientError(RuntimeError):
    """A task's gradient holds NaN or infinity; nothing was updated.

    Attributes:
        tasks: Numbers of the tasks, counted from 0.
    """

    def __init__(self, tasks: Sequence[int]) -> None:
        self.tasks = tuple(tasks)
        which = ", ".join(str(t) for t in tasks[:3]) + (", ..." if len(tasks) > 3 else "")
        super().__init__(
            f"the gradient of task {which} is not finite; the state was left as it was. Skip the "
            "step or look at that task's loss"
        )


class Aggregator(nn.Module):
    """Turns a Jacobian ``(tasks, params)`` into one direction ``(params,)``.

    Row i is the gradient of loss i in the shared parameters. Nothing is differentiated through.
    A stateless aggregator is a pure function; a stateful one keeps its state in buffers, is saved
    by ``state_dict`` and forgets by :meth:`reset`.

    Subclasses override :meth:`forward` and call :meth:`check` first.
    """

    needs: ClassVar[Literal["jacobian", "gramian"]] = "jacobian"

    def __init__(self) -> None:
        super().__init__()
        self.block_sizes: tuple[int, ...] | None = None

    def bind(self, block_sizes: Sequence[int]) -> None:
        """Learn how the columns are cut into parameter tensors (the driver calls this once).

        Args:
            block_sizes: Entries of each tensor, in the order of the columns.

        Raises:
            ValueError: If a size is negative.
        """
        sizes = tuple(int(size) for size in block_sizes)
        if any(size < 0 for size in sizes):
            raise ValueError(f"block_sizes must be at least 0, got {sizes}")
        self.block_sizes = sizes

    def reset(self) -> None:
        """Forget the state; nothing to do where there is none."""

    def forward(self, jacobian: Tensor) -> Tensor:
        """Return the direction of ``jacobian``; the plain sum unless a subclass says otherwise."""
        self.check(jacobian)
        return jacobian.detach().sum(0)

    @staticmethod
    def check(jacobian: Tensor) -> None:
        """Refuse what no aggregator can use.

        Args:
            jacobian: Floating, ``(tasks, params)``, at least one task.

        Raises:
            TypeError: If it is no tensor, or not of a floating dtype.
            ValueError: If it is not 2-D or has no row.
        """
        if not isinstance(jacobian, Tensor):
            raise TypeError(f"jacobian must be a tensor, got {type(jacobian).__name__}")
        if not jacobian.is_floating_point():
            raise TypeError(f"jacobian must be of a floating dtype, got {jacobian.dtype}")
        if jacobian.dim() != 2:
            raise ValueError(
                f"jacobian must be 2-D (tasks, params), got shape {tuple(jacobian.shape)}"
            )
        if jacobian.shape[0] == 0:
            raise ValueError(f"jacobian has no task, got shape {tuple(jacobian.shape)}")


def row_norms(jacobian: Tensor) -> Tensor:
    """Norms of the rows; half precision is summed in float32."""
    wide = torch.promote_types(jacobian.dtype, torch.float32)
    norms: Tensor = torch.linalg.vector_norm(jacobian, dim=1, dtype=wide)
    return norms
