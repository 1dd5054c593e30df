"""How fast an error curve falls: a line through its logarithm."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

__all__ = ["ObservedRate", "fit_rate"]


class ObservedRate(NamedTuple):
    """A line through the logarithm of an error curve.

    Attributes:
        rate: Fall of the log error per iteration.
        r_squared: Share of the variance that the line explains.
        points: Records on it.
    """

    rate: float
    r_squared: float
    points: int


def fit_rate(
    iterations: Tensor, errors: Tensor, *, low: float = 1e-24, high: float = 1e-4
) -> ObservedRate:
    """Fit a line to ``log(errors)`` over the iterations, where errors lie between two bounds.

    Args:
        iterations: Iteration of each record, shape ``(n,)``.
        errors: Squared errors, shape ``(n,)``.
        low: Errors below this are rounding.
        high: Errors above this are the way there.

    Returns:
        Rate, R^2 and number of records; NaN where fewer than three lie between.

    Raises:
        ValueError: If the lengths differ or ``low`` is not above 0 and below ``high``.

    Example:
        >>> import torch
        >>> t = torch.arange(100)
        >>> fitted = fit_rate(t, torch.exp(-0.3 * t.double()), high=1.0)
        >>> round(fitted.rate, 6), round(fitted.r_squared, 6)
        (0.3, 1.0)
    """
    if iterations.shape != errors.shape or errors.ndim != 1:
        raise ValueError(
            "iterations and errors must be vectors of one length, got shapes "
            f"{tuple(iterations.shape)} and {tuple(errors.shape)}"
        )
    if not 0 < low < high:
        raise ValueError(f"low must be above 0 and below high, got low={low} and high={high}")
    kept = (errors >= low) & (errors <= high)
    x, y = iterations[kept].double(), errors[kept].double().log()
    if len(x) < 3:
        return ObservedRate(math.nan, math.nan, len(x))
    x, y = x - x.mean(), y - y.mean()
    slope = x.dot(y) / x.dot(x)
    explained = slope * x.dot(y) / y.dot(y)
    return ObservedRate(-float(slope), float(explained), len(x))
