"""What a run of the solvers writes down, and when it stops."""

from __future__ import annotations

import torch
from torch import Tensor

from gradworks.solvers.matrix_sensing import arguments as check
from gradworks.solvers.matrix_sensing.operator import MeasurementOperator
from gradworks.solvers.matrix_sensing.result import SensingResult

__all__ = ["Record"]

DIVERGED = 1e6  # times the first error
LOOK = 100  # records between two looks for divergence, where nothing else is read


class Record:
    """Residuals and errors of a run: kept on its device, and read as seldom as it can be.

    Args:
        op: The measurements.
        y: Their values, those of this process.
        lr: Step size.
        max_iter: Most updates.
        tol: Residual over ``||y||^2`` at which to stop; 0 never.
        target: The matrix itself, or None.
        every: Iterations from one record to the next.
        watch: Residual over ``||y||^2`` that asks for a reset; None never.

    Attributes:
        converged: Whether the last record is down to ``tol``.
        wanted: Whether it is down to ``watch``.

    Raises:
        ValueError: If a number is out of range, or the target's shape does not fit or it is not
            finite.
        TypeError: If an argument has a wrong type.
    """

    def __init__(
        self,
        op: MeasurementOperator,
        y: Tensor,
        lr: float,
        max_iter: int,
        tol: float,
        target: Tensor | None,
        every: int,
        watch: float | None = None,
    ) -> None:
        self._op, self._lr = op, lr
        self._last = check.count("max_iter", max_iter)
        self._every = check.positive_int("record_every", every)
        self._tol = check.positive("tol", tol, zero=True)
        self._watch = watch
        self.converged = False
        self.wanted = False
        if target is not None:
            target = check.shaped("target", target, op.shape[1:], op.dtype, op.device)
            check.finite("target", target)
        self._target = target
        size = -(-self._last // self._every) + 1
        self._residuals = torch.empty(size, dtype=op.dtype, device=op.device)
        self._errors = None if target is None else torch.empty_like(self._residuals)
        self._iterations: list[int] = []
        whole = op._reduce(y.dot(y))
        self._whole = torch.where(whole > 0, whole, 1)
        self._looked = 0
        self._limit: float | None = None

    def due(self, t: int) -> bool:
        """Whether an iteration is recorded: every so many, and the last.

        Args:
            t: The iteration.
        """
        return t % self._every == 0 or t == self._last

    def write(self, t: int, off: Tensor, F: Tensor, G: Tensor) -> None:
        """Write an iterate down.

        Args:
            t: Updates made so far.
            off: ``A(F G^T) - y`` of this process.
            F: Left factor.
            G: Right factor.

        Raises:
            FloatingPointError: If the error is not finite, or a million times the first.
        """  # noqa: DOC502
        j = len(self._iterations)
        self._iterations.append(t)
        torch.div(self._op._reduce(off.dot(off)), self._whole, out=self._residuals[j])
        if self._target is not None and self._errors is not None:
            apart = torch.addmm(self._target, F, G.mT, beta=-1).view(-1)
            torch.dot(apart, apart, out=self._errors[j])
        read = self._tol > 0 or self._watch is not None
        if read or j == 0 or t == self._last or j - self._looked >= LOOK:
            self.look()
        if read:
            value = float(self._residuals[j])
            self.converged = self._tol > 0 and value <= self._tol
            self.wanted = self._watch is not None and value <= self._watch

    def unwatch(self) -> None:
        """Ask for no further reset."""
        self._watch, self.wanted = None, False

    def look(self) -> None:
        """Refuse to go on after an explosion.

        Raises:
            FloatingPointError: If a record since the last look shows one.
        """  # noqa: DOC502
        curve = self._residuals if self._errors is None else self._errors
        values = curve[self._looked : len(self._iterations)]
        if self._limit is None:
            # a start at the solution itself may well grow from one rounding error to the next
            whole = 1.0 if self._target is None else float(self._target.square().sum())
            floor = torch.finfo(values.dtype).eps ** 2 * max(whole, 1.0)
            self._limit = DIVERGED * max(float(values[0]), floor)
        bad = ~(values <= self._limit)
        if self._errors is not None:  # noise moves a start at the target while the residual falls
            fallen = self._residuals[self._looked : len(self._iterations)] <= self._residuals[0]
            bad &= ~fallen
        bad |= ~values.isfinite()
        if bool(bad.any()):
            at = int(bad.nonzero()[0])
            self._refuse(float(values[at]), self._iterations[self._looked + at])
        self._looked = len(self._iterations)

    def guard(self, t: int, off: Tensor) -> None:
        """Refuse to rescale factors that have left the finite numbers since the last record.

        Args:
            t: Updates made so far.
            off: ``A(F G^T) - y`` of this process.

        Raises:
            FloatingPointError: If they have.
        """  # noqa: DOC502
        self.look()
        size = self._op._reduce(off.dot(off))
        if not bool(size.isfinite()):
            self._refuse(float(size), t)

    def _refuse(self, value: float, t: int) -> None:
        raise FloatingPointError(
            f"gradient descent diverged: squared error {value:.3g} at iteration {t} with "
            f"lr={self._lr:g}; take a smaller lr"
        )

    def result(self, factors: tuple[Tensor, ...], reset: int | None) -> SensingResult:
        """Return the outcome.

        Args:
            factors: The last ones.
            reset: When they were rescaled.
        """
        size = len(self._iterations)
        return SensingResult(
            factors=factors,
            residuals=self._residuals[:size],
            errors=None if self._errors is None else self._errors[:size],
            n_iter=self._iterations[-1],
            reset_iter=reset,
            converged=self.converged,
            iterations=torch.tensor(self._iterations, device=self._residuals.device),
            lr=self._lr,
        )
