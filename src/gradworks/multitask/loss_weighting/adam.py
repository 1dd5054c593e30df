"""Adam on the handful of numbers that a weighting learns by itself."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Moments"]

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


class Moments:
    """The moments of Adam as one tensor, so that a buffer holds them.

    Args:
        buffer: ``(2, tasks)``; first and second moments.
        step: Number of steps, this one included.
    """

    def __init__(self, buffer: Tensor, step: Tensor) -> None:
        self.exp_avg, self.exp_avg_sq = buffer
        self.step = step

    @staticmethod
    def zeros_for(values: Tensor) -> Tensor:
        """Return an empty buffer.

        Args:
            values: What is learnt, ``(tasks,)``.
        """
        return torch.zeros(2, len(values), dtype=values.dtype, device=values.device)

    def move(self, values: Tensor, grad: Tensor, lr: float, weight_decay: float = 0.0) -> None:
        """Take one step in place, as ``torch.optim.Adam`` does.

        Args:
            values: What is learnt.
            grad: Its gradient.
            lr: Learning rate.
            weight_decay: Added to the gradient, times the values.
        """
        grad = grad + weight_decay * values
        self.exp_avg.lerp_(grad, 1 - BETA1)
        self.exp_avg_sq.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
        t = self.step.to(values.dtype)
        denominator = (self.exp_avg_sq / (1 - BETA2**t)).sqrt() + EPS
        values.sub_(lr * self.exp_avg / (1 - BETA1**t) / denominator)
