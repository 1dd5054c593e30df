"""Paired differences: intervals, exact tests, equivalence, effect size and power.

``d`` is always one number a unit (a seed, or a data set): the difference of two arms, or the
difference of their logarithms where a ratio is asked for.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradworks.bench.claims import Direction

__all__ = [
    "bootstrap_interval",
    "effect_size",
    "equivalence",
    "n_needed",
    "power",
    "sign_flip",
    "wilcoxon",
]

RESAMPLES = 9999
MIN_FOR_INTERVAL = 6  # below it the ends of the data are shown, without a level
EXACT_UNITS = 13  # 2**13 sign patterns; above it RESAMPLES random ones
SAME = 1e-12  # relative spread below which all units count as equal: rounding, not variance
MOST_UNITS = 1_000_000  # a need beyond it is told as this number


def finite(d: Sequence[float] | NDArray[np.float64], what: str) -> NDArray[np.float64]:
    """Return ``d`` as a float64 vector after checking that it has finite values."""
    values = np.asarray(d, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"{what} must be a non-empty list of numbers, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{what} must be finite, got {values[~np.isfinite(values)][0]}")
    return values


def _all_equal(values: NDArray[np.float64]) -> bool:
    return bool(np.ptp(values) <= SAME * np.abs(values).max())


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.float64],
    *,
    level: float = 0.95,
    rng: np.random.Generator | None = None,
) -> tuple[float, float, float | None]:
    """Return the BCa bootstrap interval of the mean.

    Fewer than six units carry no interval: the smallest and the largest value are returned, and
    None for the level. Units that are all equal give the point.

    Args:
        values: One finite number a unit.
        level: Confidence, in (0, 1).
        rng: Source of the resamples; None takes a fixed one, so that equal data give equal
            intervals.

    Returns:
        Lower end, upper end, and the level (None for the range of the data).

    Raises:
        ValueError: If there is no value, one is not finite, or ``level`` is outside (0, 1).

    Example:
        >>> bootstrap_interval([1.0, 3.0, 2.0])
        (1.0, 3.0, None)
        >>> lo, hi, level = bootstrap_interval([0.9, 1.1, 1.0, 1.2, 0.8, 1.0])
        >>> 0.8 < lo < 1.0 < hi < 1.2, level
        (True, 0.95)
    """
    found = finite(values, "values")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    if len(found) < MIN_FOR_INTERVAL:
        return float(found.min()), float(found.max()), None
    if _all_equal(found):
        point = float(np.median(found))
        return point, point, level
    from scipy import stats

    rng = np.random.default_rng(0) if rng is None else rng
    # Centred, scaled and rounded: whether a resample ties with the estimate must not depend on the
    # last bit, because BCa's correction counts those ties.
    centre, spread = float(found.mean()), float(np.ptp(found))
    ends = (math.nan, math.nan)
    for method in ("BCa", "percentile"):  # BCa has no answer for some nearly equal data
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = stats.bootstrap(
                ((found - centre) / spread,),
                _rounded_mean,
                method=method,
                n_resamples=RESAMPLES,
                confidence_level=level,
                rng=rng,
            )
        ends = (float(result.confidence_interval.low), float(result.confidence_interval.high))
        if all(math.isfinite(end) for end in ends):
            break
    return centre + spread * ends[0], centre + spread * ends[1], level


def _rounded_mean(values: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.round(values.mean(axis=axis), 12)
    return found


def sign_flip(
    d: Sequence[float] | NDArray[np.float64],
    direction: Direction = "higher",
    *,
    rng: np.random.Generator | None = None,
) -> float:
    """Return the one-sided p-value of the paired sign-flip test of the mean.

    Under the null hypothesis each difference is as likely with the other sign. Exact up to 13
    units (all sign patterns); above that 9,999 random patterns, counted with the one observed.

    Args:
        d: Paired differences.
        direction: The side of the alternative, fixed before the run.
        rng: Source of the random patterns above 13 units; None takes a fixed one.

    Returns:
        p in (0, 1]; at least ``2**-n``.

    Raises:
        ValueError: If there is no value or one is not finite.

    Example:
        >>> sign_flip([0.3, 0.1, 0.2, 0.5])  # 1 of 16 patterns is as large
        0.0625
    """  # noqa: DOC502
    found = finite(d, "d")
    # Scaled and rounded: a pattern that ties with the observed one counts, whatever the last bit
    # says (scipy's own tolerance is relative to the observed mean and fails where that is near 0).
    largest = np.abs(found).max()
    if largest == 0:
        return 1.0
    if len(found) == 1:
        return 0.5 if (found[0] > 0) == (direction == "higher") else 1.0
    from scipy import stats

    result = stats.permutation_test(
        (found / largest,),
        _rounded_mean,
        permutation_type="samples",
        alternative="greater" if direction == "higher" else "less",
        n_resamples=np.inf if len(found) <= EXACT_UNITS else RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(0) if rng is None else rng,
    )
    return float(result.pvalue)


def wilcoxon(d: Sequence[float] | NDArray[np.float64], direction: Direction = "higher") -> float:
    """Return the exact one-sided p-value of Wilcoxon's signed-rank test with Pratt's zeros.

    For units that are data sets, whose differences have no common scale. Zeros take part in the
    ranking and are then dropped (Pratt); ties share their mean rank. The distribution is counted
    exactly over all sign patterns of the ranks at hand, so that ties need no correction (scipy's
    ``exact`` ignores them).

    Args:
        d: Paired differences, one a data set.
        direction: The side of the alternative, fixed before the run.

    Returns:
        p in (0, 1].

    Raises:
        ValueError: If there is no value or one is not finite.

    Example:
        >>> wilcoxon([1.0, 2.0, -0.5, 3.0, 0.0])  # patterns with rank sum >= 12 of 14: 2 of 16
        0.125
    """  # noqa: DOC502
    found = finite(d, "d")
    from scipy import stats

    found = found if direction == "higher" else -found
    # Twice the mean ranks are whole numbers, so that sums can be counted.
    ranks = np.rint(2 * stats.rankdata(np.abs(found))).astype(int)
    ranks, signs = ranks[found != 0], found[found != 0] > 0
    if not len(ranks):
        return 1.0
    ways = np.zeros(int(ranks.sum()) + 1)
    ways[0] = 1.0
    for rank in ranks:
        taken = np.zeros_like(ways)
        taken[rank:] = ways[: len(ways) - rank]
        ways = 0.5 * (ways + taken)
    return float(min(1.0, ways[int(ranks[signs].sum()) :].sum()))


def equivalence(
    d: Sequence[float] | NDArray[np.float64],
    margin: float,
    *,
    rng: np.random.Generator | None = None,
) -> tuple[float, float, float, float | None]:
    """Return the two one-sided tests of ``|mean| < margin``, and the 90 % interval.

    Args:
        d: Paired differences.
        margin: Half-width inside which two arms count as equal, above 0.
        rng: Source of resamples; None takes a fixed one.

    Returns:
        The larger of the two p-values, then lower end, upper end and level of the 90 % interval
        (ends of the data and None below six units).

    Raises:
        ValueError: If there is no value, one is not finite, or the margin is not above 0.

    Example:
        >>> p, lo, hi, level = equivalence([0.01, -0.02, 0.0, 0.01, -0.01, 0.02], margin=0.1)
        >>> p, -0.1 < lo < hi < 0.1
        (0.015625, True)
    """
    found = finite(d, "d")
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin must be finite and above 0, got {margin}")
    rng = np.random.default_rng(0) if rng is None else rng
    p = max(
        sign_flip(found + margin, "higher", rng=rng), sign_flip(found - margin, "lower", rng=rng)
    )
    return p, *bootstrap_interval(found, level=0.90, rng=rng)


def effect_size(
    arm: Sequence[float] | NDArray[np.float64], baseline: Sequence[float] | NDArray[np.float64]
) -> float | None:
    """Return the mean paired difference in pooled standard deviations of the units.

    Args:
        arm: One value a unit.
        baseline: One value a unit, in the same order.

    Returns:
        The effect size; None where there is one unit or no variance at all.

    Raises:
        ValueError: If the two have different lengths, or a value is not finite.

    Example:
        >>> effect_size([2.0, 4.0], [1.0, 3.0])
        0.7071067811865475
    """
    ours, theirs = finite(arm, "arm"), finite(baseline, "baseline")
    if len(ours) != len(theirs):
        raise ValueError(f"arm and baseline must be paired, got {len(ours)} and {len(theirs)}")
    if len(ours) < 2:
        return None
    pooled = math.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / 2)
    return None if pooled == 0 else float((ours - theirs).mean()) / pooled


def power(n: int, sd: float, effect: float, *, alpha: float = 0.05) -> float:
    """Return the power of a one-sided paired test at ``n`` units, by the noncentral t.

    Args:
        n: Units, at least 2.
        sd: Standard deviation of the paired differences.
        effect: True mean difference on the claimed side, above 0.
        alpha: Level of the test, after any correction for many tests.

    Returns:
        The probability that the test sees the effect.

    Raises:
        ValueError: If ``n < 2``, ``sd < 0``, ``effect <= 0`` or ``alpha`` is outside (0, 1).
    """
    for name, value, good, allowed in (
        ("n", n, n >= 2, "at least 2"),
        ("sd", sd, math.isfinite(sd) and sd >= 0, "finite and at least 0"),
        ("effect", effect, math.isfinite(effect) and effect > 0, "finite and above 0"),
        ("alpha", alpha, 0 < alpha < 1, "in (0, 1)"),
    ):
        if not good:
            raise ValueError(f"{name} must be {allowed}, got {value}")
    if sd == 0 or effect / sd > 1e6:
        return 1.0
    from scipy import stats

    bar = stats.t.isf(alpha, n - 1)
    found = float(stats.nct.sf(bar, n - 1, math.sqrt(n) * effect / sd))
    return found if math.isfinite(found) else 1.0  # far above the bar the tail underflows


def n_needed(sd: float, effect: float, *, alpha: float = 0.05, target: float = 0.80) -> int:
    """Return the number of units that see ``effect`` with power ``target``.

    No fewer than the sign-flip test needs to be able to pass at all: its smallest p is ``2**-n``.

    Args:
        sd: Standard deviation of the paired differences, by the seeds at hand.
        effect: Smallest effect worth having, above 0.
        alpha: Level of the one-sided test, after any correction for many tests.
        target: Power asked for.

    Returns:
        Units, at least 2; 1,000,000 stands for "that many or more".

    Raises:
        ValueError: As in :func:`power`.

    Example:
        >>> n_needed(sd=1.0, effect=1.0)
        8
    """  # noqa: DOC502
    fewest = max(2, math.ceil(math.log2(1 / alpha) - 1e-9))
    if power(fewest, sd, effect, alpha=alpha) >= target:
        return fewest
    low, high = fewest, 2 * fewest
    while power(high, sd, effect, alpha=alpha) < target:
        low, high = high, 2 * high
        if high >= MOST_UNITS:
            return MOST_UNITS
    while high - low > 1:
        middle = (low + high) // 2
        if power(middle, sd, effect, alpha=alpha) >= target:
            high = middle
        else:
            low = middle
    return high
