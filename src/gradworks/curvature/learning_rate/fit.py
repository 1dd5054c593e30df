"""The noise of a batch's Hessian, from extreme eigenvalues that were measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from gradworks.curvature.learning_rate.laws import (
    check_batch,
    check_number,
    check_positive,
    effective_batch,
    noise_of_extreme,
)

__all__ = ["fit_noise", "two_scale_noise"]

# The fit looks at this many starts, spread over three decades beyond what single points say.
_STARTS = 64
_MARGIN = 1e3


def fit_noise(
    batch_sizes: Sequence[float],
    extremes: Sequence[float],
    lam: float,
    dataset_size: float | None = None,
) -> float:
    r"""The noise that explains the extreme eigenvalues of batches best.

    .. math:: \nu = \arg\min_\nu \sum_i \bigl(\log \lambda'(B_i; \nu) - \log \lambda'_i\bigr)^2

    with Law 1 of :func:`batch_extreme_eigenvalue`; one dimension, bounded Brent from a grid.

    Args:
        batch_sizes: B of each measurement; at least two different ones.
        extremes: The extreme eigenvalue at each, of the sign of ``lam``; means over batches.
        lam: The extreme eigenvalue over all data: the largest, or with a negative sign the
            smallest.
        dataset_size: N; ``None`` for data without end.

    Returns:
        The noise; 0 where no extreme exceeds ``lam``.

    Raises:
        ValueError: Fewer than two batch sizes, lists of different lengths, a batch size outside
            1..N, or an extreme of the other sign.

    Example:
        >>> from gradworks.curvature.learning_rate import batch_extreme_eigenvalue, fit_noise
        >>> seen = [batch_extreme_eigenvalue(4.0, 200.0, B) for B in (8, 32, 128)]
        >>> round(fit_noise([8, 32, 128], seen, 4.0), 4)
        200.0
    """
    sizes = [check_batch(B, dataset_size, name="batch_sizes")[0] for B in batch_sizes]
    if len(set(sizes)) < 2:
        raise ValueError(f"batch_sizes must hold at least two different sizes, got {sizes}")
    if len(extremes) != len(sizes):
        raise ValueError(
            f"extremes must be as many as batch_sizes ({len(sizes)}), got {len(extremes)}"
        )
    lam = check_number("lam", lam)
    sign = -1.0 if lam < 0 else 1.0
    seen = [sign * check_number("extremes", e) for e in extremes]
    if min(seen) <= 0:
        raise ValueError(
            f"extremes must have the sign of lam {lam}, got {sign * min(seen)}; "
            "leave such batches out or take larger ones"
        )
    inverses = [1 / effective_batch(B, dataset_size) for B in sizes]
    single = [noise_of_extreme(abs(lam), e, q) for e, q in zip(seen, inverses)]
    said = [nu for nu in single if nu > 0]
    if not said:
        return 0.0
    told = np.array(inverses) > 0  # a batch of everything says nothing of noise
    logs, inverse = np.log(seen)[told], np.array(inverses)[told]
    scale = abs(lam)

    def cost(log_noise: float) -> float:
        s = math.exp(log_noise) * inverse
        edge = np.sqrt(s)
        above = scale > edge
        law = np.where(above, scale + s / np.where(above, scale, 1.0), 2 * edge)
        return float(np.square(np.log(law) - logs).sum())

    return _least(cost, math.log(min(said) / _MARGIN), math.log(max(said) * _MARGIN))


def _least(cost: Callable[[float], float], low: float, high: float) -> float:
    """The noise of least cost: Brent's method around every local minimum of a grid."""
    grid = np.linspace(low, high, _STARTS)
    costs = [cost(u) for u in grid]
    best = (math.inf, low)
    for i in range(1, _STARTS - 1):
        if costs[i] <= costs[i - 1] and costs[i] <= costs[i + 1]:
            found = minimize_scalar(
                cost,
                bounds=(grid[i - 1], grid[i + 1]),
                method="bounded",
                options={"xatol": 1e-10},
            )
            best = min(best, (float(found.fun), float(found.x)))
    ends = min((costs[0], grid[0]), (costs[-1], grid[-1]))
    if ends[0] < best[0]:
        return 0.0 if ends[1] == grid[0] else math.exp(grid[-1])
    return math.exp(best[1])


def two_scale_noise(
    small_batch: float,
    small_extreme: float,
    large_batch: float,
    large_extreme: float,
    dataset_size: float | None = None,
) -> tuple[float, float]:
    r"""Eigenvalue and noise from measurements at two batch sizes: Law 1 solved for both.

    For training on several processes, where each one's batch and the sum of all are measured
    anyway, and for :class:`CurvatureSchedule`.

    Args:
        small_batch: The smaller size.
        small_extreme: The largest eigenvalue there, a mean over batches, above 0.
        large_batch: The larger size.
        large_extreme: The largest eigenvalue there, above 0.
        dataset_size: N; ``None`` for data without end.

    Returns:
        :math:`\lambda_1` and the noise. No excess at the smaller size gives noise 0; below the
        transition, where :math:`\lambda_1` cannot be seen, its upper bound of half the larger
        batch's extreme is given.

    Raises:
        ValueError: Sizes out of range or order, or an extreme that is not positive.

    Example:
        >>> from gradworks.curvature.learning_rate import batch_extreme_eigenvalue, two_scale_noise
        >>> tops = [batch_extreme_eigenvalue(4.0, 200.0, B) for B in (32, 128)]
        >>> [round(x, 6) for x in two_scale_noise(32, tops[0], 128, tops[1])]
        [4.0, 200.0]
    """
    small, _ = check_batch(small_batch, dataset_size, name="small_batch")
    large, _ = check_batch(large_batch, dataset_size, name="large_batch")
    if not small < large:
        raise ValueError(f"small_batch must be below large_batch {large_batch}, got {small_batch}")
    t1 = check_positive("small_extreme", small_extreme)
    t2 = check_positive("large_extreme", large_extreme)
    q1, q2 = (1 / effective_batch(B, dataset_size) for B in (small, large))
    if t1 <= t2:
        return t2, 0.0
    # Both above the transition: t = lam + nu q / lam is linear in nu / lam.
    ratio = (t1 - t2) / (q1 - q2)
    lam = t2 - ratio * q2
    if lam > 0 and lam * lam > ratio * lam * q1:
        return lam, ratio * lam
    # The smaller one below it: its edge gives the noise alone.
    noise = t1**2 / (4 * q1)
    s2 = noise * q2
    if t2 > 2 * math.sqrt(s2):
        return (t2 + math.sqrt(t2**2 - 4 * s2)) / 2, noise
    # Both below: the larger batch is nearer to the transition, its eigenvalue bounds lam.
    return t2 / 2, t2**2 / (4 * q2)
