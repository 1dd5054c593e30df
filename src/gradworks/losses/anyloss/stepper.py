"""Gradient descent and Adam for many models at once, one learning rate a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Stepper"]

# Adam (arXiv:1412.6980), its published constants.
_BETA1, _BETA2, _ADAM_EPS = 0.9, 0.999, 1e-8


@dataclass
class Stepper:
    """Gradient descent or Adam.

    Args:
        solver: "gd" or "adam".
        lr: Learning rates, broadcastable to every parameter: (folds, variants, 1, 1).
        count: Steps taken.
        moments: Adam's averages of gradients and of their squares, one pair a parameter.
    """

    solver: str
    lr: Tensor
    count: int = 0
    moments: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def step(self, params: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
        """Update in place.

        Args:
            params: Parameters, the same list at every step.
            grads: Their gradients.
        """
        self.count += 1
        if self.solver == "gd":
            for p, g in zip(params, grads):
                p.addcmul_(g, self.lr, value=-1.0)
            return
        if not self.moments:
            self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in params]
        correction2 = math.sqrt(1.0 - _BETA2**self.count)
        rate = self.lr / (1.0 - _BETA1**self.count)
        for p, g, (exp_avg, exp_avg_sq) in zip(params, grads, self.moments):
            exp_avg.lerp_(g, 1.0 - _BETA1)
            exp_avg_sq.mul_(_BETA2).addcmul_(g, g, value=1.0 - _BETA2)
            denominator = (exp_avg_sq.sqrt() / correction2).add_(_ADAM_EPS)
            p.sub_(rate * exp_avg / denominator)
