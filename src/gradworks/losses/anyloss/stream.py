"""What ``AnyLossClassifier.partial_fit`` keeps between batches, besides the parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from gradworks.losses.anyloss.stepper import Stepper

__all__ = ["Stream"]


@dataclass
class Stream:
    """Running mean and variance of the features, the optimizer, the random numbers.

    Args:
        random: Source of batch orders.
        weight: Weight of all rows seen.
        mean: Their weighted mean, (features,).
        squares: Their weighted sum of squared deviations, (features,).
        steps: Steps taken, by ``fit`` as well; what an amplification schedule is asked for.
        stepper: Optimizer of the last call, or None.
    """

    random: np.random.RandomState
    weight: float = 0.0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(1))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(1))
    steps: int = 0
    stepper: Stepper | None = None

    def copy(self) -> Stream:
        """A stream of its own, so that a call that fails leaves the old one as it was.

        Returns:
            The copy.
        """
        return copy.deepcopy(self)

    def seed(self) -> int:
        """A number for the generator of hidden layers and batch orders.

        Returns:
            Another one at each call.
        """
        return int(self.random.randint(np.iinfo(np.int32).max))

    def see(self, X: np.ndarray, weight: np.ndarray) -> None:
        """Add rows to the running mean and variance (Chan, Golub and LeVeque, 1983).

        Args:
            X: Features (rows, features).
            weight: Weights of the rows, not all 0.
        """
        total = float(weight.sum())
        mean = weight @ X / total
        squares = weight @ (X - mean) ** 2
        both = self.weight + total
        shift = mean - self.mean
        self.squares = self.squares + squares + shift**2 * (self.weight * total / both)
        self.mean = self.mean + shift * (total / both)
        self.weight = both

    def standard(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the rows seen; constant features are left at their scale.

        Returns:
            Two arrays (1, 1, features).
        """
        deviation = np.sqrt(self.squares / self.weight)
        noise = np.finfo(np.float64).eps * np.abs(self.mean) * 10.0
        scale = np.where(deviation > noise, deviation, 1.0)
        return self.mean[None, None], scale[None, None]

    def later(
        self, amplification: float | Callable[[int], float]
    ) -> float | Callable[[int], float]:
        """An amplification schedule that goes on where the last call ended.

        Args:
            amplification: A number, or a function of the step.

        Returns:
            The number, or the function of the step of this call.
        """
        if not callable(amplification):
            return amplification
        schedule, done = amplification, self.steps
        return lambda step: schedule(done + step)
