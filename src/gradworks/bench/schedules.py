"""The steps of a budget: learning rates, and when to evaluate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from torch.optim import Optimizer

__all__ = ["FINAL_RATE", "Schedule", "evaluation_grid"]

FINAL_RATE = 0.1  # the cosine ends at a tenth (the protocol's section 2)


def evaluation_grid(steps: int, evals: int) -> list[int]:
    """Return the steps after which to evaluate: 0, the last, and ``evals - 1`` between.

    Args:
        steps: Budget.
        evals: Evaluations after step 0; all steps where there are fewer.

    Example:
        >>> evaluation_grid(100, 4)
        [0, 25, 50, 75, 100]
    """
    return sorted({round(i * steps / evals) for i in range(evals + 1)})


class Schedule:
    """Learning rates as a function of the step: nothing to save, nothing to get out of step.

    Args:
        optimizer: Whose groups are set; a group without ``lr`` is left alone.
        steps: Budget, the horizon of the cosine.
        shape: ``"cosine"`` or ``"constant"``.
        warmup: Part of the budget in which the rate rises linearly.
    """

    def __init__(self, optimizer: Optimizer, steps: int, shape: str, warmup: float) -> None:
        self._optimizer = optimizer
        self._steps = steps
        self._shape = shape
        self._warm = math.ceil(warmup * steps)
        self._rates = [float(g["lr"]) if "lr" in g else None for g in optimizer.param_groups]

    def factor(self, step: int) -> float:
        """Return the factor of the step after ``step`` steps are done."""
        if step < self._warm:
            return (step + 1) / self._warm
        if self._shape == "constant":
            return 1.0
        done = (step - self._warm) / max(1, self._steps - self._warm)
        return FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * done)) / 2

    def set(self, step: int) -> None:
        """Set the rates for the step after ``step`` steps are done."""
        factor = self.factor(step)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            if rate is None:
                continue
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * factor)
            else:
                group["lr"] = rate * factor
