"""Time to a target, with runs that miss it.

A run that has not reached the target by the end of its budget is right-censored: it is None here,
and never dropped. Every run of a comparison has the same budget in steps, so that the restricted
mean is the plain mean of the times with a miss counted as the budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradworks.bench.claims import Direction
from gradworks.bench.statistics.paired import bootstrap_interval

__all__ = [
    "Profile",
    "TimeRatio",
    "censored_median",
    "median_interval",
    "performance_profile",
    "rmst",
    "running_median",
    "steps_to_target",
    "time_ratio",
]


def running_median(values: Sequence[float | None], direction: Direction = "lower") -> list[float]:
    """Return the centred running median of three evaluations.

    At the two ends, where there are only two, the worse of them is taken; a value that is missing
    or not finite counts as the worst. So no single lucky evaluation gets through.

    Args:
        values: A curve, in order.
        direction: Which way is better.

    Returns:
        As many smoothed values.

    Example:
        >>> running_median([5.0, 1.0, 4.0, 3.0, 2.0])  # the spike at 1.0 is gone
        [5.0, 4.0, 3.0, 3.0, 3.0]
    """
    worst = math.inf if direction == "lower" else -math.inf
    known = [worst if v is None or math.isnan(v) else float(v) for v in values]
    worse = max if direction == "lower" else min
    if len(known) < 3:
        return [worse(known)] * len(known) if known else []
    middle = [sorted(known[i - 1 : i + 2])[1] for i in range(1, len(known) - 1)]
    return [worse(known[:2]), *middle, worse(known[-2:])]


def steps_to_target(
    steps: Sequence[float],
    values: Sequence[float | None],
    target: float,
    direction: Direction = "lower",
) -> float | None:
    """Return where a curve first reaches the target for good measure.

    Args:
        steps: Position of each evaluation: steps, gradient evaluations or seconds.
        values: The metric there.
        target: The value to be reached.
        direction: Which way is better.

    Returns:
        The position of the first running median of three that reaches the target; None for a
        miss, to be treated as censored at the budget.

    Raises:
        ValueError: If the two lists differ in length, or the target is not finite.

    Example:
        >>> steps_to_target([0, 10, 20, 30, 40], [5.0, 1.0, 4.0, 3.0, 1.0], target=2.0) is None
        True
        >>> steps_to_target([0, 10, 20, 30, 40], [5.0, 3.0, 2.0, 1.5, 1.0], target=2.0)
        20
    """
    if len(steps) != len(values):
        raise ValueError(f"steps and values must pair up, got {len(steps)} and {len(values)}")
    if not math.isfinite(target):
        raise ValueError(f"target must be finite, got {target}")
    for at, value in zip(steps, running_median(values, direction)):
        if value <= target if direction == "lower" else value >= target:
            return at
    return None


def _times(
    times: Sequence[float | None], budget: float | Sequence[float], what: str
) -> list[float]:
    budgets = [budget] * len(times) if isinstance(budget, int | float) else list(budget)
    for one in budgets:
        if not (math.isfinite(one) and one > 0):
            raise ValueError(f"budget must be finite and above 0, got {one}")
    if not times:
        raise ValueError(f"{what} must hold at least one run")
    if len(budgets) != len(times):
        raise ValueError(f"{what} has {len(times)} runs, but budgets for {len(budgets)}")
    for time in times:
        if time is not None and (math.isnan(time) or time < 0):
            raise ValueError(f"{what} must be times of at least 0 or None, got {time}")
    return [
        one if time is None else min(float(time), one)
        for time, one in zip(times, budgets, strict=True)
    ]


def rmst(times: Sequence[float | None], budget: float) -> float:
    """Return the restricted mean time to the target: a miss counts as the whole budget.

    Args:
        times: One time a run, None for a miss.
        budget: Where all runs were stopped, above 0.

    Returns:
        The area under the curve of runs that are still on their way.

    Raises:
        ValueError: If there is no run, a time is negative, or the budget is not above 0.

    Example:
        >>> rmst([10.0, None, 30.0], budget=50.0)
        30.0
    """  # noqa: DOC502
    return float(np.mean(_times(times, budget, "times")))


def censored_median(times: Sequence[float | None]) -> float | None:
    """Return the median time with misses above every time, None where the median run misses.

    Args:
        times: One time a run, None for a miss.

    Returns:
        The median, or None where half of the runs or more miss.

    Raises:
        ValueError: If there is no run.

    Example:
        >>> censored_median([10.0, None, 30.0]), censored_median([10.0, None])
        (30.0, None)
    """
    if not times:
        raise ValueError("times must hold at least one run")
    found = float(np.median([math.inf if t is None else float(t) for t in times]))
    return found if math.isfinite(found) else None


def median_interval(
    times: Sequence[float | None], level: float = 0.95
) -> tuple[float, float | None, float | None]:
    """Return the distribution-free interval of the median: two of the times themselves.

    Args:
        times: One time a run, None for a miss.
        level: Confidence, in (0, 1).

    Returns:
        Lower end (infinite if every run missed), upper end (None where it is a miss), and the
        confidence that the two order statistics have, at least ``level``; None where even the
        smallest and the largest have less, which is so below six runs at 95 %.

    Raises:
        ValueError: If there is no run, or ``level`` is outside (0, 1).

    Example:
        >>> median_interval([10.0, 20.0, 30.0, 40.0, 50.0, None])
        (10.0, None, 0.96875)
        >>> median_interval([3.0, 1.0])
        (1.0, 3.0, None)
    """
    if not times:
        raise ValueError("times must hold at least one run")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    ordered = sorted(math.inf if t is None else float(t) for t in times)
    n, cut, known = len(ordered), 0, None
    below = 0.0  # of n fair coins, the probability of at most ``cut`` heads
    for k in range((n + 1) // 2):
        below += math.comb(n, k) / 2**n
        if 1 - 2 * below < level:
            break
        cut, known = k, 1 - 2 * below
    lo, hi = ordered[cut], ordered[n - 1 - cut]
    return lo, hi if math.isfinite(hi) else None, known


@dataclass(frozen=True)
class TimeRatio:
    """Time of an arm over time of its baseline, below 1 where the arm is faster.

    Attributes:
        ratio: The estimate.
        lo: Lower end of the interval, or of the range of the seeds below six of them.
        hi: Upper end.
        level: Confidence of the interval; None for a range.
        method: ``"geometric mean"`` of the paired ratios, or ``"restricted mean"`` where a run
            missed the target.
        missed: Runs of the arm and of the baseline that missed.
    """

    ratio: float
    lo: float
    hi: float
    level: float | None
    method: str
    missed: tuple[int, int]


def time_ratio(
    arm: Sequence[float | None],
    baseline: Sequence[float | None],
    budget: float | Sequence[float],
    *,
    arm_budget: float | Sequence[float] | None = None,
    level: float = 0.95,
    rng: np.random.Generator | None = None,
) -> TimeRatio:
    """Return how many times as long the arm needs to the target, paired by seed.

    Args:
        arm: One time a seed, None for a miss.
        baseline: One time a seed, in the same order.
        budget: Where all runs were stopped; one a seed where they differ, as seconds do.
        arm_budget: Where the arm's runs were stopped; None: where the baseline's were.
        level: Confidence, in (0, 1).
        rng: Source of resamples; None takes a fixed one.

    Returns:
        The geometric mean of the ratios with its BCa interval where every run reached the target
        after a time above 0; else the ratio of restricted means with a percentile interval over
        resampled seeds.

    Raises:
        ValueError: If the two differ in length, or a time or a budget is not valid.

    Example:
        >>> found = time_ratio([10, 20], [20, 40], budget=100)
        >>> round(found.ratio, 9), found.method
        (0.5, 'geometric mean')
    """
    if len(arm) != len(baseline):
        raise ValueError(f"arm and baseline must be paired, got {len(arm)} and {len(baseline)}")
    ours, theirs = (
        np.array(_times(arm, budget if arm_budget is None else arm_budget, "arm")),
        np.array(_times(baseline, budget, "baseline")),
    )
    missed = (sum(t is None for t in arm), sum(t is None for t in baseline))
    if not any(missed) and ours.min() > 0 and theirs.min() > 0:
        logs = np.log(ours / theirs)
        lo, hi, known = bootstrap_interval(logs, level=level, rng=rng)
        centre = math.exp(logs.mean())
        return TimeRatio(centre, math.exp(lo), math.exp(hi), known, "geometric mean", missed)
    if theirs.mean() == 0:
        raise ValueError("baseline reaches the target at once in every run: a ratio has no meaning")
    ratio = float(ours.mean() / theirs.mean())
    if len(ours) < 6:
        each = ours / np.where(theirs > 0, theirs, np.nan)
        return TimeRatio(
            ratio, float(np.nanmin(each)), float(np.nanmax(each)), None, "restricted mean", missed
        )
    rng = np.random.default_rng(0) if rng is None else rng
    rows = rng.integers(len(ours), size=(9999, len(ours)))
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = ours[rows].mean(axis=1) / theirs[rows].mean(axis=1)
    lo, hi = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return TimeRatio(ratio, float(lo), float(hi), level, "restricted mean", missed)


@dataclass(frozen=True)
class Profile:
    """A performance profile: who is within a factor of the fastest, on how many workloads.

    Attributes:
        ratios: Positions where a curve jumps, from 1 to the largest ratio.
        fractions: For each arm, the fraction of workloads within each ratio.
        scores: Area under each curve, 1 for an arm that is fastest everywhere.
    """

    ratios: tuple[float, ...]
    fractions: Mapping[str, tuple[float, ...]]
    scores: Mapping[str, float]


def performance_profile(
    times: Mapping[str, Sequence[float | None]], *, max_ratio: float = 4.0
) -> Profile:
    """Return the performance profile of several arms over the same workloads.

    Args:
        times: For each arm one time a workload, None for a miss, in the same order of workloads.
        max_ratio: Where the profile ends, above 1.

    Returns:
        The step functions, exact at their jumps.

    Raises:
        ValueError: If arms have different numbers of workloads, there is none, a time is not
            above 0, or ``max_ratio`` is not above 1.

    Example:
        >>> found = performance_profile({"a": [1.0, 4.0], "b": [2.0, None]})
        >>> found.ratios, found.fractions["b"], round(found.scores["b"], 4)
        ((1.0, 2.0, 4.0), (0.0, 0.5, 0.5), 0.3333)
    """
    if not max_ratio > 1:
        raise ValueError(f"max_ratio must be above 1, got {max_ratio}")
    counts = {len(row) for row in times.values()}
    if len(counts) != 1 or counts == {0}:
        raise ValueError("every arm needs a time (or None) on the same workloads, at least one")
    rows = [[math.inf if t is None else float(t) for t in row] for row in times.values()]
    table = np.array(rows)
    if not (table > 0).all():
        raise ValueError("times must be above 0, or None for a miss")
    best = table.min(axis=0)
    with np.errstate(invalid="ignore"):
        ratios = np.where(np.isfinite(table), table / best, math.inf)
    jumps = sorted({1.0, max_ratio, *ratios[ratios <= max_ratio].tolist()})
    fractions = {
        name: tuple(float((row <= at).mean()) for at in jumps) for name, row in zip(times, ratios)
    }
    widths = np.diff(jumps)
    scores = {
        name: float(np.dot(curve[:-1], widths) / (max_ratio - 1))
        for name, curve in fractions.items()
    }
    return Profile(tuple(jumps), fractions, scores)
