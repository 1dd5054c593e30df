"""``minimize``: gradient-regularised Newton for a function of one vector (Algorithm 1)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from gradworks.optim.gradient_normalized.arguments import check_hessian, check_settings
from gradworks.optim.gradient_normalized.curvature import HessianSpec, Solver, exact, given
from gradworks.optim.gradient_normalized.metric import Metric
from gradworks.optim.gradient_normalized.search import Point, Search
from gradworks.optim.gradient_normalized.solves import Curvature, prepare

__all__ = ["GNSResult", "minimize"]

Status = Literal["running", "success", "max_iter", "search_failed", "stopped"]
Fun = Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]

_REASONS = {
    "running": "not finished",
    "success": "the gradient or the function value is as small as asked for",
    "max_iter": "the iterations were used up",
    "search_failed": (
        "no trial decreased the function: rounding, a gradient that is wrong, or a function that "
        "is not smooth"
    ),
    "stopped": "the callback stopped it",
}


@dataclass
class GNSResult:
    """What :func:`minimize` found.

    Attributes:
        x: The last accepted point, ``(n,)``.
        fun: Value there.
        grad_norm: Dual norm of the gradient there.
        status: ``"success"``, ``"max_iter"``, ``"search_failed"``, ``"stopped"`` (by the callback);
            ``"running"`` while the callback sees it.
        n_iter: Accepted outer iterations.
        n_trials: Systems solved.
        history: ``fun, grad_norm, gamma, n_grad, n_solve, time`` and, with ``store_x``, ``x``: one
            entry an outer iteration, before its step; entry 0 is the start.
    """

    x: Tensor
    fun: float
    grad_norm: float
    status: Status
    n_iter: int
    n_trials: int
    history: dict[str, list[Any]] = field(repr=False)

    @property
    def success(self) -> bool:
        """Whether a tolerance was met."""
        return self.status == "success"

    @property
    def message(self) -> str:
        """The status in words."""
        return _REASONS[self.status]


class _Objective:
    """Value and gradient of ``fun``, counted. The exact Hessian evaluates once more, uncounted."""

    def __init__(self, fun: Fun, hessian: HessianSpec, solver: Solver) -> None:
        self._fun, self._hessian, self._solver = fun, hessian, solver
        self.n_evaluations = 0
        self.gives_gradient = False

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Value and gradient, detached."""
        self.n_evaluations += 1
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            value = self._fun(leaf)
            if isinstance(value, tuple):
                self.gives_gradient = True
                return _given(value, x)
            _require_scalar(value)
            if not value.requires_grad:
                return value.detach(), torch.zeros_like(x)
            (grad,) = torch.autograd.grad(value, leaf)
        return value.detach(), grad.detach()

    def curvature(self, x: Tensor) -> Curvature:
        """H at an accepted point."""
        if self._hessian == "zero":
            return None
        if self._hessian != "exact":
            return given(self._hessian, x, self._solver)
        if self.gives_gradient:
            raise ValueError(
                "hessian='exact' needs a fun that returns a scalar alone; it returned (value, "
                "grad): give the Hessian as a function, or hessian='zero'"
            )
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            value = self._fun(leaf)
            (grad,) = torch.autograd.grad(value, leaf, create_graph=True)
            return exact([grad], [leaf], n=x.numel(), solver=self._solver)


def _require_scalar(value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"fun must return a tensor or (value, grad), got {type(value).__name__}")
    if value.numel() != 1 or value.ndim != 0:
        raise ValueError(f"fun must return a scalar, got shape {tuple(value.shape)}")


def _given(pair: tuple[Any, ...], x: Tensor) -> tuple[Tensor, Tensor]:
    if len(pair) != 2 or not isinstance(pair[1], Tensor):
        raise TypeError("fun must return a scalar tensor or the pair (value, grad)")
    _require_scalar(pair[0])
    if pair[1].shape != x.shape:
        raise ValueError(
            f"fun returned a gradient of shape {tuple(pair[1].shape)}, expected {tuple(x.shape)}"
        )
    # a copy: the function may write the next gradient into the same buffer
    return pair[0].detach(), pair[1].detach().to(x, copy=True)


def _start(x0: object) -> Tensor:
    if not isinstance(x0, Tensor):
        raise TypeError(f"x0 must be a tensor, got {type(x0).__name__}")
    if not x0.is_floating_point():
        raise TypeError(f"x0 must be real floating point, got {x0.dtype}")
    if x0.ndim != 1 or x0.numel() == 0:
        raise ValueError(f"x0 must be a vector with entries, got shape {tuple(x0.shape)}")
    return x0.detach().clone()


def minimize(
    fun: Fun,
    x0: Tensor,
    *,
    hessian: HessianSpec = "exact",
    metric: Tensor | None = None,
    gamma0: float = 1.0,
    gamma_min: float = 1e-9,
    eps: float = 1e-8,
    max_iter: int = 1000,
    max_trials: int = 41,
    grad_tol: float | None = None,
    f_star: float | None = None,
    adaptive: bool = True,
    strict: bool = False,
    solver: Solver = "auto",
    cg_tol: float = 1e-6,
    cg_max_iter: int | None = None,
    store_x: bool = False,
    callback: Callable[[GNSResult], object] | None = None,
) -> GNSResult:
    r"""Minimise a function with a Newton step whose regulariser finds itself.

    .. math:: x_{k+1} = x_k - (H_k + \tfrac{\|g_k\|_*}{\gamma_k} B)^{-1} g_k

    with any :math:`H_k` that is near the Hessian or below it, and :math:`\gamma_k` doubled after a
    step and halved after a trial that decreases the function too little. No Lipschitz constant, no
    line search. For deterministic functions, in float64: near the minimum the test compares
    differences of values.

    Args:
        fun: ``fun(x)``: a scalar that autograd can differentiate, or ``(value, grad)``.
        x0: Start, ``(n,)``, real floating point.
        hessian: ``"exact"`` (by autograd; written down up to 1,000 variables, multiplied beyond),
            ``"zero"`` (normalised gradient descent with the same search), an operator, or a
            function of x that returns ``(n, n)``, :class:`LowRank` or an operator of
            :mod:`gradworks.curvature.operators`.
        metric: B, ``(n,)`` or ``(n, n)``, positive definite; None for the identity.
        gamma0: First radius, above 0; 1 (authors' code).
        gamma_min: Least radius after a step, at least 0; 1e-9.
        eps: Added to the radius, and the tolerance on ``f - f_star``; above 0; 1e-8.
        max_iter: Outer iterations, at least 0; 1000.
        max_trials: Trials an iteration, at least 1; 41.
        grad_tol: Stop below this dual norm of the gradient; None does not.
        f_star: The least value where it is known: stop within ``eps`` of it.
        adaptive: False takes every step with ``gamma0``.
        strict: True is the authors' test to the letter; else a trial whose decrease is below
            rounding is accepted if its gradient is smaller.
        solver: ``"cholesky"``, ``"woodbury"`` (LowRank), ``"cg"``, or ``"auto"`` by type.
        cg_tol: Relative residual of conjugate gradients, in (0, 1); 1e-6, or the root of the
            gradient's norm where that is less.
        cg_max_iter: Products a trial, at least 1; None: ten times n.
        store_x: Keep every point in ``history["x"]``.
        callback: Called with the result so far after each iteration; stops it by returning True
            or raising ``StopIteration``.

    Returns:
        Point, value, reason to stop, history.

    Raises:
        TypeError: If an argument is of the wrong type; integer or complex ``x0``.
        ValueError: If a number is out of range, a shape does not fit, or the metric is not positive
            definite.
        FloatingPointError: If value or gradient at ``x0`` is not finite.

    Note:
        A trial whose value is not finite, or whose matrix has no Cholesky factor, has failed; after
        ``max_trials`` of them the last accepted point is returned with ``"search_failed"`` (the
        authors' code takes the last trial instead).

    Example:
        >>> import torch
        >>> from gradworks.optim.gradient_normalized import minimize
        >>> def rosenbrock(x):
        ...     return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
        >>> x0 = torch.tensor([-1.2, 1.0], dtype=torch.float64)
        >>> result = minimize(rosenbrock, x0, grad_tol=1e-8)
        >>> result.status, [round(v, 6) for v in result.x.tolist()]
        ('success', [1.0, 1.0])

    References:
        "Gradient-Normalized Smoothness for Optimization with Approximate Hessians", 2025,
        arXiv:2506.13710, Algorithm 1.
    """
    check_settings(
        gamma0=gamma0,
        gamma_min=gamma_min,
        eps=eps,
        max_trials=max_trials,
        adaptive=adaptive,
        strict=strict,
        solver=solver,
        cg_tol=cg_tol,
        cg_max_iter=cg_max_iter,
    )
    if isinstance(max_iter, bool) or not isinstance(max_iter, int):
        raise TypeError(f"max_iter must be an integer, got {max_iter!r}")
    if max_iter < 0:
        raise ValueError(f"max_iter must be at least 0, got {max_iter}")
    for name, called in (("fun", fun), ("callback", callback)):
        if not callable(called) and not (name == "callback" and called is None):
            raise TypeError(f"{name} must be callable, got {type(called).__name__}")
    check_hessian(hessian)
    x = _start(x0)
    search = Search(Metric(metric, x), gamma_min, eps, max_trials, adaptive, strict)
    evaluate = _Objective(fun, hessian, solver)
    here = search.point(x, evaluate)
    if not (math.isfinite(here.fun) and math.isfinite(here.grad_norm)):
        raise FloatingPointError(
            f"fun must be finite at x0: its value is {here.fun} and its gradient's norm "
            f"{here.grad_norm}"
        )

    gamma, trials, begun = gamma0, 0, time.perf_counter()
    history: dict[str, list[Any]] = {
        name: [] for name in ("fun", "grad_norm", "gamma", "n_grad", "n_solve", "time")
    }
    if store_x:
        history["x"] = []

    def result(k: int, status: Status) -> GNSResult:
        return GNSResult(here.x, here.fun, here.grad_norm, status, k, trials, history)

    for k in range(max_iter + 1):
        row = (here.fun, here.grad_norm, gamma, evaluate.n_evaluations, trials)
        for values, value in zip(history.values(), (*row, time.perf_counter() - begun, here.x)):
            values.append(value)
        if k > 0 and callback is not None and _stops(callback, result(k, "running")):
            return result(k, "stopped")
        if _reached(here, grad_tol, f_star, eps):
            return result(k, "success")
        if k == max_iter:
            break
        H = evaluate.curvature(here.x)  # once an outer iteration
        solve = prepare(H, here.grad, search.metric, cg_tol=cg_tol, cg_max_iter=cg_max_iter)
        found = search.iterate(here, solve.step, gamma, evaluate)
        gamma, trials = found.gamma, trials + found.n_solves
        if found.point is None:
            return result(k, "search_failed")
        here = found.point
    return result(max_iter, "max_iter")


def _reached(here: Point, grad_tol: float | None, f_star: float | None, eps: float) -> bool:
    if here.grad_norm == 0:
        return True
    if f_star is not None and here.fun - f_star < eps:
        return True
    return grad_tol is not None and here.grad_norm < grad_tol


def _stops(callback: Callable[[GNSResult], object], so_far: GNSResult) -> bool:
    try:
        return callback(so_far) is True
    except StopIteration:
        return True
