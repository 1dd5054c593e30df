"""What a solver of this package returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gradworks.solvers.matrix_sensing.rates import ObservedRate, fit_rate

__all__ = ["SensingResult"]


@dataclass(frozen=True)
class SensingResult:
    """Factors that were found, and how the error fell.

    Attributes:
        factors: ``(X,)`` of the symmetric model, ``(F, G)`` of the asymmetric one.
        residuals: ``||A(.) - y||^2 / ||y||^2`` of each record, taken before the update of its
            iteration: the first is the start, the last the final iterate. Not divided where ``y``
            is zero.
        errors: Squared Frobenius distance to ``target``, likewise; None without a target.
        n_iter: Updates that were made.
        reset_iter: Iteration before whose update the factors were rescaled; None if they were not.
        converged: Whether the residual came down to ``tol``; never where that is 0.
        iterations: Iteration of each record: updates made before it.
        lr: Step size, as given or chosen.
    """

    factors: tuple[Tensor, ...]
    residuals: Tensor
    errors: Tensor | None
    n_iter: int
    reset_iter: int | None
    converged: bool
    iterations: Tensor
    lr: float

    @property
    def estimate(self) -> Tensor:
        """The matrix, ``X X^T`` or ``F G^T``."""
        return self.factors[0] @ self.factors[-1].mT

    def observed_rate(self, *, low: float = 1e-24, high: float = 1e-4) -> ObservedRate:
        """Fit a line to the log error, or to the log residual where no target was given.

        After a reset, only the records behind it count. Beside it belongs
        :func:`~gradworks.solvers.matrix_sensing.predicted_rate`.

        Args:
            low: Values below this are rounding.
            high: Values above this are the way there.

        Returns:
            Rate per iteration, R^2 and number of records.
        """
        curve = self.residuals if self.errors is None else self.errors
        kept = self.iterations > (-1 if self.reset_iter is None else self.reset_iter)
        return fit_rate(self.iterations[kept], curve[kept], low=low, high=high)
