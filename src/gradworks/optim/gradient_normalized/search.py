r"""One outer iteration of Algorithm 1: trials of a regulariser until one decreases the function.

.. math:: (H_k + \lambda B)\, h = -g_k, \quad \lambda = \|g_k\|_* / (\gamma + \epsilon), \qquad
    \text{accept if } f_k - f_+ \ge \|g_+\|_*^2 / (8 \lambda)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradworks.optim.gradient_normalized.metric import Metric

__all__ = ["Point", "Search", "Trials"]

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Point:
    """Where the method stands: x, f, its gradient and the gradient's dual norm."""

    x: Tensor
    fun: float
    grad: Tensor
    grad_norm: float


@dataclass(frozen=True)
class Trials:
    """What an outer iteration came to.

    Attributes:
        point: The accepted point; None if every trial failed.
        gamma: The radius for the next iteration.
        n_evaluations: Values and gradients computed.
        n_solves: Systems solved.
    """

    point: Point | None
    gamma: float
    n_evaluations: int
    n_solves: int


@dataclass(frozen=True)
class Search:
    """The settings of the search."""

    metric: Metric
    gamma_min: float
    eps: float
    max_trials: int
    adaptive: bool
    strict: bool

    def point(self, x: Tensor, evaluate: Evaluate) -> Point:
        """Value, gradient and its norm at x."""
        fun, grad = evaluate(x)
        return Point(x, float(fun), grad, float(self.metric.dual_norm(grad)))

    def iterate(
        self,
        start: Point,
        solve: Callable[[float], Tensor | None],
        gamma: float,
        evaluate: Evaluate,
    ) -> Trials:
        """Halve gamma until a trial is accepted, then double it."""
        evaluations = solves = 0
        for _ in range(self.max_trials if self.adaptive else 1):
            lam = start.grad_norm / (gamma + self.eps)
            h = solve(lam)
            solves += 1
            if h is not None and bool(torch.isfinite(h).all()):
                trial = self.point(start.x + h, evaluate)
                evaluations += 1
                if self._accepts(start, trial, lam):
                    if self.adaptive:
                        gamma = max(2 * gamma, self.gamma_min)
                    return Trials(trial, gamma, evaluations, solves)
            if self.adaptive:
                gamma = gamma / 2
        return Trials(None, gamma, evaluations, solves)

    def _accepts(self, start: Point, trial: Point, lam: float) -> bool:
        """Whether a trial may be taken; never one that is not finite."""
        if not (math.isfinite(trial.fun) and math.isfinite(trial.grad_norm)):
            return False
        if not self.adaptive:
            return True
        decrease = start.fun - trial.fun
        # the gradient at the new point, the regulariser of this trial, which may have underflowed
        square = trial.grad_norm * trial.grad_norm  # inf where ** 2 raises
        if decrease >= (square / (8 * lam) if lam > 0 else math.inf):
            return True
        rounding = 4 * torch.finfo(trial.x.dtype).eps * max(1.0, abs(start.fun))
        return not self.strict and abs(decrease) <= rounding and trial.grad_norm < start.grad_norm
