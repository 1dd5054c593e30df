"""The problems of the paper with their data, and two regressions on real data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gradworks.optim.gradient_normalized import (
    LowRank,
    chebyshev,
    linear_power,
    log_sum_exp,
    minimize,
    rosenbrock,
)

if TYPE_CHECKING:
    from gradworks.bench.trial import Trial

__all__ = ["Posed", "pose"]


@dataclass(frozen=True)
class Posed:
    """A problem that is ready to solve.

    Attributes:
        fun: Value.
        x0: Start.
        exact: Its Hessian.
        approximate: The paper's approximation.
        f_star: Least value.
        metric: B; None for the identity.
    """

    fun: Callable[[Tensor], Tensor]
    x0: Tensor
    exact: Callable[[Tensor], Tensor]
    approximate: Callable[[Tensor], Tensor | LowRank]
    f_star: float
    metric: Tensor | None = None


def pose(spec: dict[str, Any], trial: Trial) -> Posed:
    """Return a problem with the data of a trial's seed.

    Args:
        spec: What kind, which sizes.
        trial: Whose random numbers.
    """
    rng = trial.rng("problem")
    kind = spec["kind"]
    if kind == "logsumexp":
        return _logsumexp(spec, rng)
    if kind == "linear":
        return _linear(spec, rng)
    if kind == "rosenbrock":
        made = rosenbrock(p=spec["p"])
        name = "gauss_newton" if spec["p"] is None else "gauss_newton_fisher"
        start = np.array([-2.0, 2.0]) + 0.1 * rng.standard_normal(2)
        return Posed(made.fun, torch.tensor(start), made.hessian, made.approximations[name], 0.0)
    if kind == "chebyshev":
        made = chebyshev(spec["n"], spec["p"])
        start = rng.random(spec["n"])
        approximate = made.approximations["gauss_newton_fisher"]
        return Posed(made.fun, torch.tensor(start), made.hessian, approximate, 0.0)
    return _regression(spec, rng)


def _uniform(rng: np.random.Generator, *shape: int) -> Tensor:
    """Entries in [-1, 1], as the notebook draws them."""
    return torch.tensor(rng.random(shape) * 2 - 1)


def _logsumexp(spec: dict[str, Any], rng: np.random.Generator) -> Posed:
    A, b = _uniform(rng, spec["m"], spec["n"]), _uniform(rng, spec["m"])
    made = log_sum_exp(A, b, spec["mu"], recentre=True)
    x0 = torch.ones(spec["n"], dtype=torch.float64)
    f_star = made.f_star if made.f_star is not None else 0.0
    approximate = made.approximations["weighted_gauss_newton"]
    return Posed(made.fun, x0, made.hessian, approximate, f_star, A.T @ A)


def _linear(spec: dict[str, Any], rng: np.random.Generator) -> Posed:
    A, b = _uniform(rng, spec["m"], spec["n"]), _uniform(rng, spec["m"])
    made = linear_power(A, b, spec["p"])
    x0 = torch.ones(spec["n"], dtype=torch.float64)
    metric = A.T @ A + 1e-8 * torch.eye(spec["n"], dtype=torch.float64)
    return Posed(made.fun, x0, made.hessian, made.approximations["fisher"], 0.0, metric)


def _regression(spec: dict[str, Any], rng: np.random.Generator) -> Posed:
    """Softmax regression with a penalty, nine tenths of the rows.

    The approximation keeps each class's own block and drops those between classes. Dropping every
    row's rank-one term instead, as for log-sum-exp, is far above the Hessian once most rows are
    classified with certainty.
    """
    from gradworks.bench import data

    X, y, _ = data.breast_cancer() if spec["kind"] == "breast-cancer" else data.digits()
    kept = rng.permutation(len(y))[: len(y) * 9 // 10]
    X = X[kept].reshape(len(kept), -1).astype(np.float64)
    deviation = X.std(axis=0)
    X = (X - X.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    rows = torch.tensor(np.hstack([X, np.ones((len(X), 1))]))
    target = torch.tensor(y[kept]).long()
    classes, size = int(target.max()) + 1, rows.shape[1]
    penalty = spec["penalty"]

    def fun(w: Tensor) -> Tensor:
        logits = rows @ w.view(classes, size).T
        shrunk: Tensor = penalty / 2 * (w @ w)
        return shrunk + torch.nn.functional.cross_entropy(logits, target)

    def blocks(w: Tensor, between: bool) -> Tensor:
        """Penalty and mean of x x^T times diag(P) - P P^T, of all pairs of classes or of one."""
        P = torch.softmax(rows @ w.view(classes, size).T, dim=1)
        H = torch.zeros(classes, size, classes, size, dtype=torch.float64)
        for a in range(classes):
            for b in range(a, classes if between else a + 1):
                weights = P[:, a] * (float(a == b) - P[:, b]) / len(rows)
                block = rows.T @ (weights.unsqueeze(1) * rows)
                H[a, :, b, :] = block
                H[b, :, a, :] = block
        flat = H.view(classes * size, classes * size)
        flat.diagonal().add_(penalty)
        return flat

    x0 = torch.zeros(classes * size, dtype=torch.float64)
    best = minimize(fun, x0, hessian=lambda w: blocks(w, True), grad_tol=1e-11, max_iter=200)
    return Posed(fun, x0, lambda w: blocks(w, True), lambda w: blocks(w, False), best.fun)
