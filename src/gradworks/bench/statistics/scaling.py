"""Scaling rates: the slope of log on log over sizes, with the seeds as units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradworks.bench.statistics.paired import bootstrap_interval

__all__ = ["MIN_SIZES", "fit_slope", "slope_interval"]

MIN_SIZES = 6  # fewer sizes tell a line from nothing


def fit_slope(sizes: Sequence[float], values: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the least-squares slope of ``log(values)`` on ``log(sizes)``.

    A trial that claims a rate logs this number for its own seed; the verdict then asks whether
    the interval over seeds holds the claimed slope and leaves the rival out.

    Args:
        sizes: At least six different positive sizes.
        values: One positive value a size.

    Returns:
        The exponent.

    Raises:
        ValueError: If lengths differ, fewer than six sizes are different, or one number is not
            finite and above 0.

    Example:
        >>> sizes = [1, 2, 4, 8, 16, 32]
        >>> round(fit_slope(sizes, [3.0 * n**-2 for n in sizes]), 9)
        -2.0
    """
    x, y = np.asarray(sizes, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"sizes and values must pair up, got shapes {x.shape} and {y.shape}")
    for name, found in (("sizes", x), ("values", y)):
        bad = found[~(np.isfinite(found) & (found > 0))]
        if bad.size:
            raise ValueError(f"{name} must be finite and above 0 to have logarithms, got {bad[0]}")
    if len(np.unique(x)) < MIN_SIZES:
        raise ValueError(
            f"a scaling rate needs at least {MIN_SIZES} different sizes, got {len(np.unique(x))}"
        )
    centred = np.log(x) - np.log(x).mean()
    return float(centred @ np.log(y) / (centred @ centred))


def slope_interval(
    sizes: Sequence[float],
    values: Sequence[Sequence[float]] | NDArray[np.float64],
    *,
    level: float = 0.95,
    rng: np.random.Generator | None = None,
) -> tuple[float, float, float, float | None]:
    """Return the mean slope over seeds and its bootstrap interval.

    Args:
        sizes: At least six different positive sizes.
        values: ``(seeds, sizes)``, positive.
        level: Confidence, in (0, 1).
        rng: Source of resamples; None takes a fixed one.

    Returns:
        Slope, lower end, upper end, and the level (None below six seeds: ends of the data).

    Raises:
        ValueError: As in :func:`fit_slope`.
    """  # noqa: DOC502
    slopes = [fit_slope(sizes, row) for row in np.asarray(values, dtype=np.float64)]
    return float(np.mean(slopes)), *bootstrap_interval(slopes, level=level, rng=rng)
