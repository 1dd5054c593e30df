r"""Solve :math:`(H + \lambda B) h = -g` for the trials of one outer iteration.

What does not depend on :math:`\lambda` is done once, in the constructor. A solve returns None where
the regularised matrix is not positive definite: that trial has failed and :math:`\lambda` grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gradworks.curvature.operators import SymmetricOperator
from gradworks.optim.gradient_normalized.metric import Metric

__all__ = ["Curvature", "LowRank", "RegularizedSolve", "prepare"]


@dataclass(frozen=True)
class LowRank:
    r"""A symmetric matrix :math:`U \operatorname{diag}(w) U^\top` of low rank.

    Args:
        factors: U, ``(n, r)``.
        weights: w, ``(r,)``; negative ones are allowed.

    Raises:
        TypeError: If one is not a tensor.
        ValueError: If the shapes do not fit.

    Example:
        >>> import torch
        >>> from gradworks.optim.gradient_normalized import LowRank
        >>> q = torch.tensor([3.0, 4.0])
        >>> LowRank(q.unsqueeze(1), torch.tensor([2.0])).to_dense()
        tensor([[18., 24.],
                [24., 32.]])
    """

    factors: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        """Check the shapes."""
        for name in ("factors", "weights"):
            if not isinstance(getattr(self, name), Tensor):
                raise TypeError(
                    f"{name} must be a tensor, got {type(getattr(self, name)).__name__}"
                )
        if self.factors.ndim != 2 or self.weights.shape != self.factors.shape[1:]:
            raise ValueError(
                "factors must be (n, r) and weights (r,), got "
                f"{tuple(self.factors.shape)} and {tuple(self.weights.shape)}"
            )

    def to_dense(self) -> Tensor:
        """The matrix, ``(n, n)``."""
        return (self.factors * self.weights) @ self.factors.T


# None is the zero matrix.
Curvature = Tensor | LowRank | SymmetricOperator | None


class RegularizedSolve(Protocol):
    """One H and g, any number of regularisers."""

    def step(self, lam: float) -> Tensor | None:
        """The step for this regulariser, or None."""


class _Zero:
    """H = 0: a gradient step of length gamma in the metric."""

    def __init__(self, g: Tensor, metric: Metric) -> None:
        self._direction = -metric.solve(g)

    def step(self, lam: float) -> Tensor | None:
        return self._direction / lam


class _Dense:
    """Cholesky of a matrix that is written down, n^3 / 3 a trial."""

    def __init__(self, H: Tensor, g: Tensor, metric: Metric) -> None:
        self._H, self._g, self._metric = H, g, metric

    def step(self, lam: float) -> Tensor | None:
        factor, info = torch.linalg.cholesky_ex(self._metric.add_to(self._H, lam))
        if int(info) != 0:
            return None
        h: Tensor = torch.cholesky_solve(self._g.unsqueeze(1), factor).squeeze(1)
        return -h


class _Woodbury:
    r"""Low rank, O(n r) a trial.

    With :math:`B = CC^\top` and the eigenvectors Y, t of the whitened matrix
    :math:`C^{-1} U W U^\top C^{-\top}`, the step is
    :math:`-C^{-\top}[(I - YY^\top)/\lambda + Y (t + \lambda)^{-1} Y^\top] C^{-1} g`.
    """

    def __init__(self, H: LowRank, g: Tensor, metric: Metric) -> None:
        Q, R = torch.linalg.qr(metric.whiten(H.factors))
        inner = (R * H.weights) @ R.T
        self._t, rotation = torch.linalg.eigh((inner + inner.T) / 2)
        Y = Q @ rotation
        whitened = metric.whiten(g.unsqueeze(1))
        self._along = Y.T @ whitened  # (r, 1)
        # subtracted twice: what is left of g is divided by a small lambda
        rest = whitened - Y @ self._along
        rest -= Y @ (Y.T @ rest)
        self._rest = metric.unwhiten(rest).squeeze(1)
        self._basis = metric.unwhiten(Y)
        self._least = min(float(self._t.min()), 0.0) if self._t.numel() else 0.0

    def step(self, lam: float) -> Tensor | None:
        if not lam + self._least > 0:
            return None
        inside: Tensor = self._basis @ (self._along.squeeze(1) / (self._t + lam))
        return -(inside + self._rest / lam)


class _ConjugateGradients:
    """Products only, preconditioned by B; the residual is measured in the dual norm.

    A later trial starts from the step of the one before it.
    """

    def __init__(
        self, H: SymmetricOperator, g: Tensor, metric: Metric, tol: float, max_iter: int | None
    ) -> None:
        self._H, self._g, self._metric = H, g, metric
        norm = float(metric.dual_norm(g))
        self._target = min(tol, math.sqrt(norm)) * norm
        self._max_iter = max_iter if max_iter is not None else max(10 * g.numel(), 100)
        self._start: Tensor | None = None

    def _multiply(self, h: Tensor, lam: float) -> Tensor:
        return self._H.apply(h.to(self._H.dtype)).to(h.dtype) + lam * self._metric.apply(h)

    def step(self, lam: float) -> Tensor | None:
        h = torch.zeros_like(self._g) if self._start is None else self._start
        residual = -self._g if self._start is None else -self._g - self._multiply(h, lam)
        z = self._metric.solve(residual)
        direction = z.clone()
        rho = float(residual @ z)
        for _ in range(self._max_iter):
            if math.sqrt(max(rho, 0.0)) <= self._target:
                break
            product = self._multiply(direction, lam)
            curvature = float(direction @ product)
            if not curvature > 0:  # not positive definite, or not finite
                return None
            size = rho / curvature
            h = h + size * direction
            residual = residual - size * product
            z = self._metric.solve(residual)
            rho, before = float(residual @ z), rho
            direction = z + (rho / before) * direction
        self._start = h
        return h


def prepare(
    H: Curvature, g: Tensor, metric: Metric, *, cg_tol: float, cg_max_iter: int | None
) -> RegularizedSolve:
    """The solver that fits a curvature.

    Args:
        H: ``(n, n)``, low rank, an operator, or None for zero.
        g: Gradient, ``(n,)``.
        metric: B.
        cg_tol: Relative residual of conjugate gradients, at most; near the solution it is the root
            of the gradient norm where that is smaller.
        cg_max_iter: Products a trial; None allows ``10 n``.
    """
    if H is None:
        return _Zero(g, metric)
    if isinstance(H, LowRank):
        return _Woodbury(H, g, metric)
    if isinstance(H, Tensor):
        return _Dense(H, g, metric)
    return _ConjugateGradients(H, g, metric, cg_tol, cg_max_iter)
