"""Several workloads, few seeds: interquartile mean and probability of improvement.

The formulas are those of "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(2021, arXiv:2108.13264). Scores are a table of runs (rows, seeds) by tasks (columns, workloads).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["iqm", "iqm_interval", "probability_of_improvement", "stratified_bootstrap"]

Scores = Sequence[Sequence[float]] | NDArray[np.float64]


def _table(scores: Scores, what: str = "scores") -> NDArray[np.float64]:
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise ValueError(f"{what} must be a table (runs, tasks), got shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError(f"{what} must be finite")
    return table


def iqm(scores: Scores) -> float:
    """Return the interquartile mean of all runs of all tasks.

    Args:
        scores: ``(runs, tasks)``; higher and lower are treated alike.

    Returns:
        The mean of the middle half.

    Raises:
        ValueError: If the table is empty, not two-dimensional or not finite.

    Example:
        >>> iqm([[1.0, 2.0], [3.0, 100.0]])
        2.5
    """  # noqa: DOC502
    from scipy import stats

    return float(stats.trim_mean(_table(scores), 0.25, axis=None))


def stratified_bootstrap(
    statistic: Callable[..., float],
    *tables: Scores,
    level: float = 0.95,
    resamples: int = 2000,
    rng: np.random.Generator | None = None,
) -> tuple[float, float]:
    """Return the percentile interval of a statistic, with runs drawn anew inside each task.

    Args:
        statistic: Function of as many tables as are given.
        *tables: ``(runs, tasks)`` each; drawn independently of each other.
        level: Confidence, in (0, 1).
        resamples: Number of draws.
        rng: Source of the draws; None takes a fixed one.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: If ``level`` is outside (0, 1), or a table is empty or not finite.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    rng = np.random.default_rng(0) if rng is None else rng
    found = [_table(table) for table in tables]
    draws = np.empty(resamples)
    for k in range(resamples):
        draws[k] = statistic(
            *(np.take_along_axis(t, rng.integers(len(t), size=t.shape), axis=0) for t in found)
        )
    lo, hi = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(lo), float(hi)


def iqm_interval(
    scores: Scores, *, level: float = 0.95, rng: np.random.Generator | None = None
) -> tuple[float, float, float]:
    """Return the interquartile mean with its stratified bootstrap interval.

    Args:
        scores: ``(runs, tasks)``.
        level: Confidence, in (0, 1).
        rng: Source of the draws; None takes a fixed one.

    Returns:
        Estimate, lower end, upper end.

    Raises:
        ValueError: If the table is empty, not two-dimensional or not finite.
    """  # noqa: DOC502
    return iqm(scores), *stratified_bootstrap(iqm, scores, level=level, rng=rng)


def probability_of_improvement(x: Scores, y: Scores) -> float:
    """Return how likely a run of ``x`` beats a run of ``y`` on a task drawn at random.

    A tie counts one half. The mean over tasks of the Mann-Whitney statistic over the number of
    pairs.

    Args:
        x: ``(runs, tasks)``, higher is better.
        y: ``(runs, tasks)``; the number of runs may differ, the tasks may not.

    Returns:
        A probability; one half where neither is better.

    Raises:
        ValueError: If a table is empty or not finite, or the tasks differ in number.

    Example:
        >>> probability_of_improvement([[1.0], [3.0]], [[0.0], [2.0]])
        0.75
    """
    ours, theirs = _table(x, "x"), _table(y, "y")
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(
            f"x and y must have the same tasks, got {ours.shape[1]} and {theirs.shape[1]}"
        )
    gap = ours[:, None, :] - theirs[None, :, :]
    return float(((gap > 0) + 0.5 * (gap == 0)).mean(axis=(0, 1)).mean())
