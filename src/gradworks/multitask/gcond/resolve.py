"""All rounds of conflict resolution on inner products alone.

A round adds multiples of two gradients to each other, so every inner product after it follows from
those before it. The vectors are read once for the products and once for the result, whatever the
number of rounds (derived; the authors' code reads all vectors again for every pair and round).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gradworks.multitask.gcond.rules import Rules

__all__ = ["Products", "Resolution", "resolve"]

# A row that lost this share of its squared length was mostly cancelled: its inner products have
# lost digits and are computed anew from the vectors.
CANCELLED = 1e-3
# Relative rounding of inner products summed in float32.
ROUNDING = 1e-6

Table = np.ndarray  # float64


@dataclass
class Products:
    """Inner products of the gradients.

    Attributes:
        among: Of the rows, ``(tasks, tasks)``.
        before: Asks for those of each row with each task's gradient of the step before, ``(tasks,
            tasks)``; called at most once, and only where an arbitrator looks at them.
        lengths: Norms of the gradients of the step before, ``(tasks,)``.
    """

    among: Table
    before: Callable[[], Table]
    lengths: Sequence[float]


@dataclass
class Resolution:
    """What the rounds came to.

    Attributes:
        combination: ``(tasks, tasks)``: row i says which multiples of the rows make up task i's
            gradient after the rounds.
        lengths: Norms of those gradients.
        min_cosine: The smallest cosine before the first round; 1 without a conflict.
        rounds: How many there were.
        winners: Of each round that had one.
        history: The last winners, over steps.
    """

    combination: Table
    lengths: tuple[float, ...]
    min_cosine: float = 1.0
    rounds: int = 0
    winners: tuple[int, ...] = ()
    history: tuple[int, ...] = ()


def resolve(
    products: Products,
    scales: Sequence[float],
    averages: Sequence[float],
    history: Sequence[int],
    rules: Rules,
    renew: Callable[[Table], Products],
) -> Resolution:
    """Resolve the worst conflict, again and again until none is left.

    Args:
        products: Of the gradients as they came.
        scales: What each gradient is multiplied by first.
        averages: Running averages of the norms.
        history: The last winners.
        rules: The settings.
        renew: Takes the combination so far, builds those gradients and returns their products; from
            then on combinations are of them. Called where cancellation ate the digits.

    Returns:
        The combination of the gradients that ``renew`` made last, or of those given.
    """
    state = _Rows(products, np.asarray(scales, dtype=np.float64), rules, renew)
    won: deque[int] = deque(history, maxlen=rules.dominance_window)
    winners: list[int] = []
    least, rounds = 1.0, 0
    for _ in range(rules.max_iters or 2 * len(scales)):
        found = state.worst()
        if found is None:
            break
        i, j, cosine = found
        if rounds == 0:
            least = cosine
        rounds += 1
        critical, main, _ = rules.thresholds
        if not rules.smooth and cosine >= main:
            # of the cosine, as in the authors' code: its eps is thereby in the projection
            inner = cosine * math.sqrt(state.square(i) * state.square(j))
            state.add(i, j, -state.ratio(inner, j), -state.ratio(inner, i))
            continue
        stability = (state.stability(i), state.stability(j))
        strength = tuple(math.sqrt(state.square(k)) / (averages[k] + rules.eps) for k in (i, j))
        first = rules.first_wins((i, j), won, stability, (strength[0], strength[1]))
        winner, loser = (i, j) if first else (j, i)
        inner = state.inner(i, j)
        if not rules.smooth:
            if cosine < critical:
                state.drop(loser)
            else:
                state.add(winner, loser, 0.0, -state.ratio(inner, winner))
        else:
            angle = rules.angle(cosine)
            share_w, share_l = math.sin(angle), math.sin(min(angle, math.pi / 2))
            by_w, by_l = state.ratio(inner, loser), state.ratio(inner, winner)
            state.add(winner, loser, -share_w * by_w, -share_l * by_l)
        won.append(winner)
        winners.append(winner)
    lengths = tuple(math.sqrt(state.square(k)) for k in range(len(scales)))
    return Resolution(state.combination, lengths, least, rounds, tuple(winners), tuple(won))


class _Rows:
    """The gradients of the tasks, known by their inner products."""

    def __init__(
        self, products: Products, scales: Table, rules: Rules, renew: Callable[[Table], Products]
    ) -> None:
        self.rules, self.renew = rules, renew
        self.raw = products.among.diagonal() * scales**2
        self._begin(products, scales)

    def _begin(self, products: Products, scales: Table) -> None:
        """Start from rows, each times a number."""
        self.products = products
        self._before: Table | None = None
        self.combination = np.diag(scales)
        self.among = scales[:, None] * products.among * scales
        self.bases = products.among.diagonal().copy()
        self.cosines = np.full_like(self.among, np.inf)
        for task in range(len(scales)):
            self._compare(task)

    def square(self, task: int) -> float:
        """Squared norm."""
        return max(0.0, float(self.among[task, task]))

    def inner(self, i: int, j: int) -> float:
        """Inner product of two."""
        return float(self.among[i, j])

    def ratio(self, inner: float, task: int) -> float:
        """An inner product over a squared norm."""
        return inner / (self.square(task) + self.rules.smallest)

    def stability(self, task: int) -> float:
        """Cosine with the gradient of the step before."""
        length = math.sqrt(self.square(task)) * self.products.lengths[task] + self.rules.eps
        if length == self.rules.eps or self.rules.tie_weights[0] == 0:
            return 0.0
        if self._before is None:
            self._before = self.products.before()
        return float(self.combination[task] @ self._before[:, task]) / length

    def worst(self) -> tuple[int, int, float] | None:
        """The conflict of the smallest cosine, the earliest where several are alike."""
        i, j = divmod(int(self.cosines.argmin()), len(self.cosines))
        cosine = float(self.cosines[i, j])
        limit = self.rules.thresholds[2] - self.rules.conflict_tol
        return (i, j, cosine) if cosine < limit else None

    def drop(self, task: int) -> None:
        """Make a gradient zero."""
        self.combination[task] = 0.0
        self.among[task] = 0.0
        self.among[:, task] = 0.0
        self._compare(task)

    def add(self, i: int, j: int, to_i: float, to_j: float) -> None:
        """Add multiples of each other to two gradients, both from the values before."""
        for table in (self.combination, self.among):
            table[i], table[j] = table[i] + to_i * table[j], table[j] + to_j * table[i]
        columns = self.among.T
        columns[i], columns[j] = columns[i] + to_i * columns[j], columns[j] + to_j * columns[i]
        if self._cancelled(i) or self._cancelled(j):
            self._begin(self.renew(self.combination), np.ones(len(self.bases)))
        else:
            self._compare(i)
            self._compare(j)

    def _compare(self, task: int) -> None:
        """Cosines of a gradient with all others, above the diagonal; infinite where one is zero."""
        squares = self.among.diagonal().clip(min=0.0)
        counts = self.rules.counts(squares, self.raw)
        joint = np.sqrt(squares * squares[task]) + self.rules.smallest
        found = np.full_like(joint, np.inf)
        if counts[task]:
            np.divide(self.among[task], joint, out=found, where=counts)
        self.cosines[task, task + 1 :] = found[task + 1 :]
        self.cosines[:task, task] = found[:task]

    def _cancelled(self, task: int) -> bool:
        """Whether a gradient is small against what it was made of, and may still matter."""
        parts = float(self.combination[task] ** 2 @ self.bases)
        square = self.square(task)
        if square >= CANCELLED * parts:
            return False
        return bool(self.rules.counts(np.array(square + ROUNDING * parts), self.raw[task]))
