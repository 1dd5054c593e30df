"""Who wins a conflict and how far each side gives way: numbers of a few tasks, on the host.

"GCond: Gradient Conflict Resolution via Accumulation-based Stabilization for Large-Scale
Multi-Task Learning", 2025, arXiv:2509.07252, and the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

__all__ = ["Rules", "effective_angle"]


@dataclass(frozen=True)
class Rules:
    """The settings that decide conflicts; :class:`GCond` says what each means."""

    thresholds: tuple[float, float, float]
    remap_power: float
    smooth: bool
    max_iters: int | None
    dominance_window: int
    dominance: Literal["yield", "keep"]
    tie_weights: tuple[float, float]
    conflict_tol: float
    eps: float
    zero_tol: float | None

    @property
    def smallest(self) -> float:
        """What is added to denominators of vectors; with a relative tolerance nothing is."""
        return self.eps if self.zero_tol is None else 0.0

    def counts(self, square: np.ndarray, raw: np.ndarray) -> np.ndarray:
        """Which gradients are large enough to be in a conflict.

        Args:
            square: Squared norms now.
            raw: Squared norms before the first round.
        """
        if self.zero_tol is None:
            found: np.ndarray = (square > 0) & (square >= self.eps)
        else:
            found = square > self.zero_tol**2 * raw
        return found

    def angle(self, cosine: float) -> float:
        """The effective angle of one cosine: :func:`effective_angle` without a tensor.

        Args:
            cosine: Of two gradients.
        """
        critical, main, weak = self.thresholds
        c, half = max(-1.0, min(1.0, cosine)), math.pi / 2
        if c >= main:
            return half * (1 - max(0.0, min(1.0, (c - main) / (weak - main + self.eps))))
        if c <= critical:
            return math.pi
        share = (c - main) / (critical - main + self.eps)
        return half + half * float(share**self.remap_power)

    def dominant(self, task: int, history: Sequence[int]) -> bool:
        """Whether a task has won every round of a full window.

        Args:
            task: Its number.
            history: Winners of the last rounds.
        """
        return len(history) == self.dominance_window > 0 and all(w == task for w in history)

    def first_wins(
        self,
        pair: tuple[int, int],
        history: Sequence[int],
        stability: tuple[float, float],
        strength: tuple[float, float],
    ) -> bool:
        """The arbitrator: whether the first task of a pair wins.

        Args:
            pair: Numbers of the tasks.
            history: Winners of the last rounds.
            stability: Cosine of each with its own gradient of the step before.
            strength: Norm of each over its running average.
        """
        first, second = (self.dominant(task, history) for task in pair)
        if first != second:
            # the README lets the dominant task win; the code gives the win away
            return first == (self.dominance == "keep")
        total = sum(strength) + self.eps
        stable, strong = self.tie_weights
        scores = [
            stable * max(0.0, s) + strong * z / total
            for s, z in zip(stability, strength, strict=True)
        ]
        return scores[0] >= scores[1]  # a tie goes to the earlier name


def effective_angle(
    cosine: Tensor | float,
    thresholds: tuple[float, float, float] = (-0.8, -0.5, 0.0),
    power: float = 2.0,
    eps: float = 1e-8,
) -> Tensor:
    r"""The angle by which GCond measures a conflict: 0 where it begins, :math:`\pi` at its worst.

    .. math::
        \alpha(c) = \begin{cases}
            \frac{\pi}{2} (1 - \frac{c - m}{w - m + \epsilon}) & c \ge m \\
            \frac{\pi}{2} (1 + (\frac{c - m}{k - m + \epsilon})^p) & k < c < m \\
            \pi & c \le k
        \end{cases}

    with the thresholds critical :math:`k`, main :math:`m` and weak :math:`w`; the first fraction is
    kept in [0, 1]. The sines of :math:`\alpha` and of :math:`\min(\alpha, \pi/2)` are the shares of
    the winner's and the loser's projection.

    Args:
        cosine: Of two gradients; clamped to [-1, 1].
        thresholds: Critical, main and weak; (-0.8, -0.5, 0), of the authors' code.
        power: :math:`p`, above 0; 2.
        eps: Added to the denominators; 1e-8.

    Returns:
        Radians, of the shape of ``cosine``.

    Example:
        >>> from gradworks.multitask.gcond import effective_angle
        >>> [round(effective_angle(c).item() / 3.14159265, 3) for c in (0.0, -0.25, -0.5, -0.8)]
        [0.0, 0.25, 0.5, 1.0]

    References:
        Authors' code of arXiv:2509.07252.
    """
    critical, main, weak = thresholds
    c = torch.as_tensor(cosine)
    c = (c if c.is_floating_point() else c.to(torch.get_default_dtype())).clamp(-1.0, 1.0)
    half = math.pi / 2
    weaker = half * (1 - ((c - main) / (weak - main + eps)).clamp(0.0, 1.0))
    # of the wrong sign above the main threshold, where a power may be NaN: not chosen there
    beyond = ((main - c) / max(main - critical - eps, 1e-300)).clamp_min(0.0)
    stronger = half + half * beyond**power
    worst = torch.full_like(c, math.pi)
    return torch.where(c >= main, weaker, torch.where(c > critical, stronger, worst))
