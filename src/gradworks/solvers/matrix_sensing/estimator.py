"""``MatrixSensing``: a scikit-learn regressor whose coefficients form a low-rank matrix.

After arXiv:2310.01769; the scaling of the measurements, the step size and its halving are ours.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:  # pragma: no cover - needs an environment without scikit-learn
    raise ImportError(
        "MatrixSensing needs scikit-learn 1.6 or later; install it with: "
        'pip install "gradworks[tables]"'
    ) from error

from gradworks.solvers.matrix_sensing.arguments import count, one_of, positive, positive_int
from gradworks.solvers.matrix_sensing.descent import accelerated_gd, asymmetric_gd, symmetric_gd
from gradworks.solvers.matrix_sensing.operator import MeasurementOperator
from gradworks.solvers.matrix_sensing.result import SensingResult

__all__ = ["MatrixSensing"]

RISE = 1.001  # of the residual from one step to the next that is no rounding
ROUNDING = 1e-20  # relative squared residuals below this are
HALVINGS = 20  # of a step size that was chosen here and turned out too large


def _settled(residuals: torch.Tensor) -> bool:
    """Whether a run has come down: too large a step may leave it bouncing without an explosion."""
    tail = residuals[len(residuals) // 2 :]
    rises = tail[1:] > tail[:-1] * RISE
    return not bool((rises & (tail[1:] > ROUNDING)).any())


class MatrixSensing(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    r"""Linear regression on matrices whose coefficient matrix has a low rank.

    .. math:: \hat y_i = \langle X_i, M \rangle, \qquad M = F G^\top \text{ or } X X^\top

    For samples that are matrices (images, covariances, measurement settings) where a full matrix of
    coefficients has more entries than there are samples. There is no intercept: centre ``y`` or add
    none. Not for samples that are plain vectors: take ridge regression there.

    Args:
        rank: Columns of the factors; more than the unknown rank is fine. None: the smaller side.
        shape: ``(n1, n2)`` of a row of ``X``, one of them -1 to be worked out. None: that of a
            three-dimensional ``X``, or a square where a row has a square number of entries.
        method: ``"accelerated"``, ``"asymmetric"`` or ``"symmetric"`` (positive semi-definite
            coefficients).
        lr: Step for measurements scaled to ``A* A`` near the identity and ``sigma_1(A*(y)) = 1``.
            None: 0.1, or less for ill-conditioned samples, halved while it diverges or bounces.
        alpha: Scale of the start in units of ``sqrt(sigma_1)``, above 0; 0.1.
        imbalance: How much smaller ``G`` starts than ``F``; 3.
        beta: Singular values of ``F`` after the reset, in the same units; 0.5.
        max_iter: Most iterations.
        tol: Stop at this relative squared residual; with noise it is never reached.
        random_state: Seed of the start.
        device: Where to compute; None is CPU. float64, except on "mps", which has none.

    Attributes:
        coef_: The matrix, ``(n1, n2)``.
        factors_: ``(F, G)`` or ``(X,)``, as arrays; their product is ``coef_``.
        n_iter_: Iterations run.
        residuals_: Relative squared residual before each, and at the end.
        lr_: Step that was taken, in the units of ``lr``.
        n_features_in_: Entries of a row.
        feature_names_in_: Their names, if ``X`` had text names.

    Raises:
        TypeError: In ``fit``, if a setting has a wrong type.
        ValueError: In ``fit``, if a setting is out of range or ``shape`` does not fit.
        FloatingPointError: In ``fit``, if a given ``lr`` is too large.

    Note:
        With more samples than entries, the samples are first compressed by a QR factorisation.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> M = np.outer(rng.normal(size=6), rng.normal(size=5))
        >>> X = rng.normal(size=(60, 6, 5))
        >>> model = MatrixSensing(rank=2, random_state=0).fit(X, np.einsum("mij,ij->m", X, M))
        >>> bool(np.abs(model.coef_ - M).max() < 1e-3)
        True

    References:
        "How Over-Parameterization Slows Down Gradient Descent in Matrix Sensing: The Curses of
        Symmetry and Initialization", 2023, arXiv:2310.01769.
    """

    def __init__(
        self,
        rank: int | None = None,
        *,
        shape: tuple[int, int] | None = None,
        method: Literal["symmetric", "asymmetric", "accelerated"] = "accelerated",
        lr: float | None = None,
        alpha: float = 0.1,
        imbalance: float = 3.0,
        beta: float = 0.5,
        max_iter: int = 2000,
        tol: float = 1e-10,
        random_state: Any = None,
        device: Any = None,
    ) -> None:
        self.rank = rank
        self.shape = shape
        self.method = method
        self.lr = lr
        self.alpha = alpha
        self.imbalance = imbalance
        self.beta = beta
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> MatrixSensing:
        """Find the matrix.

        Args:
            X: Samples, ``(m, n1 * n2)`` or ``(m, n1, n2)``.
            y: Targets, ``(m,)``.

        Returns:
            The fitted estimator.
        """
        X, given = self._flat(X)
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        n1, n2 = self._sides(given, X.shape[1])
        rank = min(n1, n2) if self.rank is None else positive_int("rank", self.rank)
        self._check_settings(n1, n2, rank)
        device = torch.device("cpu" if self.device is None else self.device)
        dtype = torch.float32 if device.type == "mps" else torch.float64
        rows = torch.from_numpy(np.array(X)).to(device, dtype)
        values = torch.from_numpy(np.array(y, dtype=np.float64)).to(device, dtype)
        # A* A near the identity, its mean eigenvalue 1; the values with it, so that M stays
        size = float(rows.norm()) / math.sqrt(n1 * n2) or 1.0
        rows, values = (rows / size).view(-1, n1, n2), values / size
        if self.method == "symmetric":
            rows = (rows + rows.mT) / 2
        op, values = MeasurementOperator(rows).compressed(values)
        unit = float(torch.linalg.matrix_norm(op.adjoint(values), 2))
        if unit == 0:  # nothing to explain, or nothing that could
            factor = np.zeros((n1, rank))
            pair = (factor, np.zeros((n2, rank)))
            self.factors_: tuple[np.ndarray, ...] = pair[: 1 if self.method == "symmetric" else 2]
            self.coef_ = np.zeros((n1, n2))
            self.n_iter_, self.residuals_, self.lr_ = 0, np.ones(1), self._first_step(op)
            return self
        self._solve(op, values / unit, rank, unit)
        return self

    @staticmethod
    def _flat(X: Any) -> tuple[Any, tuple[int, int] | None]:
        """Samples as rows, and their shape where they had one."""
        if getattr(X, "ndim", 2) == 3:
            return np.asarray(X).reshape(len(X), -1), (int(X.shape[1]), int(X.shape[2]))
        return X, None

    def _sides(self, given: tuple[int, int] | None, features: int) -> tuple[int, int]:
        """Shape of a sample."""
        if self.shape is None:
            side = math.isqrt(features)
            if given is None and side * side != features:
                raise ValueError(
                    f"shape must be given where a row has {features} entries: that is no square"
                )
            return given or (side, side)
        if not isinstance(self.shape, tuple | list) or len(self.shape) != 2:
            raise TypeError(f"shape must be a pair (n1, n2) or None, got {self.shape!r}")
        n1, n2 = (int(side) for side in self.shape)
        if n1 == -1 and n2 > 0:
            n1 = features // n2
        elif n2 == -1 and n1 > 0:
            n2 = features // n1
        if min(n1, n2) < 1 or n1 * n2 != features or (given not in (None, (n1, n2))):
            found = f"{features} entries" if given is None else f"shape {given}"
            raise ValueError(f"shape {self.shape} does not fit samples with {found}")
        return n1, n2

    def _check_settings(self, n1: int, n2: int, rank: int) -> None:
        """Refuse settings out of range before any work is done."""
        one_of("method", self.method, ("symmetric", "asymmetric", "accelerated"))
        if self.method == "symmetric" and n1 != n2:
            raise ValueError(f"method='symmetric' needs square samples, got {n1} x {n2}")
        if rank > min(n1, n2):
            raise ValueError(f"rank must be at most min(n1, n2) = {min(n1, n2)}, got {rank}")
        if self.lr is not None:
            positive("lr", self.lr)
        for name in ("alpha", "imbalance", "beta"):
            positive(name, getattr(self, name))
        count("max_iter", self.max_iter)
        positive("tol", self.tol, zero=True)

    def _first_step(self, op: MeasurementOperator) -> float:
        """The step that was asked for, or one for the largest eigenvalue of ``A* A``."""
        if self.lr is not None:
            return float(self.lr)
        largest = float(torch.linalg.matrix_norm(op.matrices.flatten(1), 2)) ** 2
        return min(0.1, 0.4 / largest) if largest > 0 else 0.1

    def _solve(self, op: MeasurementOperator, y: torch.Tensor, rank: int, unit: float) -> None:
        """Run in units of ``sigma_1``, with smaller steps where it diverges."""
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        lr = self._first_step(op)
        for attempt in range(HALVINGS + 1):
            final = self.lr is not None or attempt == HALVINGS
            try:
                result = self._run(op, y, rank, lr, seed)
            except FloatingPointError:
                if final:
                    raise
            else:
                if final or _settled(result.residuals):
                    break
            lr /= 2
        factors = [X.cpu().double().numpy() * math.sqrt(unit) for X in result.factors]
        self.factors_ = tuple(factors)
        self.coef_ = factors[0] @ factors[-1].T
        self.n_iter_ = result.n_iter
        self.residuals_ = result.residuals.cpu().numpy()
        self.lr_ = lr

    def _run(
        self, op: MeasurementOperator, y: torch.Tensor, rank: int, lr: float, seed: int
    ) -> SensingResult:
        settings: dict[str, Any] = {
            "lr": lr,
            "alpha": self.alpha,
            "max_iter": self.max_iter,
            "tol": self.tol,
            "generator": torch.Generator().manual_seed(seed),
        }
        if self.method == "symmetric":
            return symmetric_gd(op, y, rank, **settings)
        settings["imbalance"] = self.imbalance
        if self.method == "asymmetric":
            return asymmetric_gd(op, y, rank, **settings)
        return accelerated_gd(op, y, rank, beta=self.beta, **settings)

    def predict(self, X: Any) -> np.ndarray:
        """Measure the matrix with new samples.

        Args:
            X: Samples, ``(m, n1 * n2)`` or ``(m, n1, n2)``.

        Returns:
            Predictions, ``(m,)``.

        Raises:
            ValueError: If the samples have another shape than those of ``fit``.
        """
        check_is_fitted(self)
        X, given = self._flat(X)
        if given not in (None, self.coef_.shape):
            raise ValueError(f"X must hold samples of shape {self.coef_.shape}, got {given}")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(X @ self.coef_.ravel())
