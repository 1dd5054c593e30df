"""What was measured of a batch's noise, and the rates that follow from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gradworks.curvature.learning_rate.laws import (
    batch_extreme_eigenvalue,
    check_number,
    check_positive,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["NoiseModel", "NoiseRow"]

_CURVE = 120  # points of a drawn curve


@dataclass(frozen=True)
class NoiseRow:
    """What was measured at one batch size.

    Attributes:
        batch_size: B.
        tops: Largest Ritz value of each batch.
        bottoms: Smallest Ritz value of each batch.
        direct: The direct estimate of the noise at this size; ``None`` where two disjoint batches
            do not fit into the data.
    """

    batch_size: int
    tops: tuple[float, ...]
    bottoms: tuple[float, ...]
    direct: float | None = None

    @property
    def top(self) -> float:
        """Mean largest eigenvalue."""
        return float(np.mean(self.tops)) if self.tops else math.nan

    @property
    def bottom(self) -> float:
        """Mean smallest eigenvalue."""
        return float(np.mean(self.bottoms)) if self.bottoms else math.nan

    @property
    def top_stderr(self) -> float:
        """Standard error of :attr:`top`; NaN for one batch."""
        return _stderr(self.tops)

    @property
    def bottom_stderr(self) -> float:
        """Standard error of :attr:`bottom`; NaN for one batch."""
        return _stderr(self.bottoms)


def _stderr(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


@dataclass(frozen=True)
class NoiseModel:
    r"""Two measured numbers, :math:`\lambda_1` and :math:`\nu`, and the rates they support.

    Made by :func:`measure_noise`.

    Attributes:
        lambda_max: Largest eigenvalue over all data.
        lambda_min: Smallest eigenvalue over all data.
        noise: :math:`\nu`, by the method that was asked for.
        table: What was measured at each batch size.
        dataset_size: N; ``None`` for data without end.
        noise_stderr: Standard error of ``noise`` by the jackknife over batches; NaN where it
            cannot be had.
        noise_fit: The fitted noise, or ``None``.
        noise_direct: The direct estimate, or ``None``.

    Example:
        >>> from gradworks.curvature.learning_rate import NoiseModel
        >>> model = NoiseModel(4.0, -0.1, 200.0, table=(), dataset_size=None)
        >>> model.max_learning_rate(8), model.max_learning_rate(12.5), model.saturation_batch()
        (0.1, 0.125, 12.5)
    """

    lambda_max: float
    lambda_min: float
    noise: float
    table: Sequence[NoiseRow] = ()
    dataset_size: int | None = None
    noise_stderr: float = math.nan
    noise_fit: float | None = field(default=None, kw_only=True)
    noise_direct: float | None = field(default=None, kw_only=True)

    def _lam(self) -> float:
        if not self.lambda_max > 0:
            raise ValueError(
                f"lambda_max must be above 0 for a rate, got {self.lambda_max}; "
                "measure where the loss is curved upwards"
            )
        return self.lambda_max

    def batch_extreme_eigenvalue(self, batch_size: float) -> float:
        """The largest eigenvalue expected of a batch.

        Args:
            batch_size: B, 1..N.

        Returns:
            Law 1 with the measured numbers.

        Raises:
            ValueError: A batch size outside 1..N, or ``lambda_max`` not above 0.
        """  # noqa: DOC502
        return batch_extreme_eigenvalue(self._lam(), self.noise, batch_size, self.dataset_size)

    def max_learning_rate(
        self, batch_size: float, *, momentum: float = 0.0, safety: float = 0.5
    ) -> float:
        r"""The largest rate that the measured curvature supports at a batch size.

        .. math:: \mathrm{safety}\cdot\frac{2\,(1 + \mu)}{\lambda_1'(B)}

        Args:
            batch_size: B, 1..N.
            momentum: :math:`\mu`, in [0, 1).
            safety: Share of the stability bound, above 0. Default 0.5 (our choice).

        Returns:
            The rate, for gradient descent.

        Raises:
            ValueError: An argument out of range, or ``lambda_max`` not above 0.
        """
        mu = check_number("momentum", momentum)
        if not 0 <= mu < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        share = check_positive("safety", safety)
        return share * 2 * (1 + mu) / self.batch_extreme_eigenvalue(batch_size)

    def learning_rate_interval(
        self, batch_size: float, *, momentum: float = 0.0, safety: float = 0.5
    ) -> tuple[float, float]:
        """The rates at two standard errors of the noise to either side.

        Args:
            batch_size: B, 1..N.
            momentum: As for :meth:`max_learning_rate`.
            safety: As for :meth:`max_learning_rate`.

        Returns:
            Lower and upper rate; NaN without a standard error.

        Raises:
            ValueError: As for :meth:`max_learning_rate`.
        """  # noqa: DOC502
        if math.isnan(self.noise_stderr):
            self.max_learning_rate(batch_size, momentum=momentum, safety=safety)
            return math.nan, math.nan
        ends = (self.noise + 2 * self.noise_stderr, max(self.noise - 2 * self.noise_stderr, 0.0))
        low, high = (
            NoiseModel(
                self.lambda_max, self.lambda_min, nu, dataset_size=self.dataset_size
            ).max_learning_rate(batch_size, momentum=momentum, safety=safety)
            for nu in ends
        )
        return low, high

    def saturation_batch(self, excess: float = 1.0) -> float:
        r"""Where larger batches stop buying larger rates: :math:`B^* = \nu / \lambda_1^2`.

        Args:
            excess: How far above :math:`\lambda_1` the batch's eigenvalue may still be, over
                :math:`\lambda_1`, in (0, 1]. At the default of 1 the rate has reached half of its
                ceiling; at 0.1 it is within a tenth: :math:`\nu / (\mathrm{excess}\,\lambda_1^2)`.

        Returns:
            The effective batch size; it may be above the number of examples.

        Raises:
            ValueError: ``excess`` out of range, or ``lambda_max`` not above 0.
        """
        share = check_positive("excess", excess)
        if share > 1:
            raise ValueError(f"excess must be in (0, 1], got {excess}")
        return self.noise / (share * self._lam() ** 2)

    def critical_batch(self) -> float:
        r"""The batch size of the transition: below it a batch cannot see :math:`\lambda_1` at all.

        There :math:`\lambda_1 = \sqrt{\nu/b}`, the overlap of the eigenvectors falls to 0, and
        the rate goes with the square root of b. As a number of examples:
        :math:`1/B = \lambda_1^2/\nu + 1/N`, so never above N.

        Returns:
            B; 0 without noise.

        Raises:
            ValueError: ``lambda_max`` not above 0.
        """  # noqa: DOC502
        lam = self._lam()
        if self.noise == 0:
            return 0.0
        rest = 0.0 if self.dataset_size is None else 1 / self.dataset_size
        return 1 / (lam**2 / self.noise + rest)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON.

        Returns:
            The fields, with means and standard errors at each batch size and what Law 1 says.
        """
        return {
            "lambda_max": self.lambda_max,
            "lambda_min": self.lambda_min,
            "noise": self.noise,
            "noise_stderr": None if math.isnan(self.noise_stderr) else self.noise_stderr,
            "noise_fit": self.noise_fit,
            "noise_direct": self.noise_direct,
            "dataset_size": self.dataset_size,
            "table": [
                {
                    "batch_size": row.batch_size,
                    "tops": list(row.tops),
                    "bottoms": list(row.bottoms),
                    "direct": row.direct,
                    "law": self.batch_extreme_eigenvalue(row.batch_size)
                    if self.lambda_max > 0
                    else None,
                }
                for row in self.table
            ],
        }

    def plot(self, ax: Axes | None = None, *, momentum: float = 0.0, safety: float = 0.5) -> Axes:
        """Draw the largest rate against the batch size, with its band and what was measured.

        Args:
            ax: Where; default new axes (``axes.figure.savefig(...)`` writes them).
            momentum: As for :meth:`max_learning_rate`.
            safety: As for :meth:`max_learning_rate`.

        Returns:
            The axes.

        Raises:
            ImportError: matplotlib is absent.
            ValueError: ``lambda_max`` not above 0.
        """  # noqa: DOC502
        from gradworks.curvature.learning_rate.plots import plot_rates

        return plot_rates(self, ax, momentum=momentum, safety=safety)

    def curve_sizes(self, points: int = _CURVE) -> list[float]:
        """Batch sizes that show the whole curve, evenly spread over their logarithm.

        Args:
            points: How many, at least 2.

        Returns:
            From 1 (or an eighth of the smallest that was measured) to N, or to where the curve is
            flat.

        Raises:
            ValueError: ``points`` below 2 or ``lambda_max`` not above 0.
        """
        if points < 2:
            raise ValueError(f"points must be at least 2, got {points}")
        measured = [row.batch_size for row in self.table]
        low = max(1.0, min(measured) / 8) if measured else 1.0
        high = max([4 * low, 4 * self.saturation_batch(0.1), *map(float, measured)])
        if self.dataset_size is not None:
            high = float(self.dataset_size)
        return [min(float(B), high) for B in np.geomspace(low, high, points)]
