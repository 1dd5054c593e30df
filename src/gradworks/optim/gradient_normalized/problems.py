"""The problems of the authors' notebook: value, exact Hessian, approximations, a start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradworks.optim.gradient_normalized.approximations import (
    check_affine,
    fisher_weight,
    power,
    power_residual,
    weighted_gauss_newton,
)
from gradworks.optim.gradient_normalized.solves import LowRank

__all__ = ["Problem", "chebyshev", "linear_power", "log_sum_exp", "rosenbrock"]

Hessian = Callable[[Tensor], Tensor | LowRank]


@dataclass(frozen=True)
class Problem:
    """A function to minimise.

    Attributes:
        fun: ``(n,) -> scalar``, differentiable.
        hessian: Its exact Hessian, ``(n,) -> (n, n)``.
        approximations: Approximate Hessians by name.
        f_star: Least value; None where it is not known.
    """

    fun: Callable[[Tensor], Tensor]
    hessian: Callable[[Tensor], Tensor]
    approximations: Mapping[str, Hessian]
    f_star: float | None = None


def log_sum_exp(A: Tensor, b: Tensor, mu: float, recentre: bool = False) -> Problem:
    r""":math:`\mu \log \sum_i \exp((a_i^\top x - b_i)/\mu)`.

    Args:
        A: ``(m, n)``.
        b: ``(m,)``.
        mu: Smoothing, above 0.
        recentre: Subtract the gradient at 0 from every row, so that 0 is the minimiser.

    Raises:
        ValueError: If shapes do not fit or ``mu`` is not above 0.
    """  # noqa: DOC502
    check_affine(A, b, mu)
    if recentre:
        A = A - torch.softmax(-b / mu, dim=0) @ A
    approximate = weighted_gauss_newton(A, b, mu)

    def fun(x: Tensor) -> Tensor:
        return mu * torch.logsumexp((A @ x - b) / mu, dim=0)

    def hessian(x: Tensor) -> Tensor:
        g = torch.softmax((A @ x - b) / mu, dim=0) @ A
        return approximate(x) - torch.outer(g, g) / mu

    f_star = float(mu * torch.logsumexp(-b / mu, dim=0)) if recentre else None
    return Problem(fun, hessian, {"weighted_gauss_newton": approximate}, f_star)


def _power_problem(
    residual: Callable[[Tensor], Tensor],
    p: float,
    jacobian: Callable[[Tensor], Tensor],
    second: Callable[[Tensor], Tensor] | None,
) -> Problem:
    """``||u(x)||^p / p``; ``second(x)`` is the sum of u_i times the Hessian of u_i."""

    def fun(x: Tensor) -> Tensor:
        u = residual(x)
        return (u @ u) ** (p / 2) / p

    def hessian(x: Tensor) -> Tensor:
        u, J = residual(x), jacobian(x)
        q = J.T @ u
        inner = J.T @ J if second is None else J.T @ J + second(x)
        return power(u, p - 2) * inner + fisher_weight(u, p) * torch.outer(q, q)

    approximations: dict[str, Hessian] = {
        "gauss_newton_fisher": power_residual(residual, p),
        "fisher": power_residual(residual, p, "fisher"),
    }
    return Problem(fun, hessian, approximations, 0.0)


def rosenbrock(a: float = 1.0, b: float = 100.0, p: float | None = None) -> Problem:
    r""":math:`(a - x_1)^2 + b (x_2 - x_1^2)^2`, or :math:`\tfrac1p \|u\|^p` of its residuals.

    Args:
        a: Place of the minimum, (a, a^2).
        b: Steepness of the valley, above 0.
        p: Power of the norm of :math:`u = (a - x_1, \sqrt b (x_2 - x_1^2))`, at least 2; None for
            the classical function, which is ``2 / 2 ||u||^2``.

    Raises:
        ValueError: If ``b`` or ``p`` is out of range.
    """
    if not b > 0:
        raise ValueError(f"b must be above 0, got {b}")
    root = b**0.5

    def residual(x: Tensor) -> Tensor:
        return torch.stack([a - x[0], root * (x[1] - x[0] ** 2)])

    def jacobian(x: Tensor) -> Tensor:
        rows = [torch.stack([-torch.ones_like(x[0]), torch.zeros_like(x[0])])]
        rows.append(torch.stack([-2 * root * x[0], root * torch.ones_like(x[0])]))
        return torch.stack(rows)

    def second(x: Tensor) -> Tensor:
        corner = -2 * b * (x[1] - x[0] ** 2)
        return torch.diag(torch.stack([corner, torch.zeros_like(corner)]))

    if p is not None:
        return _power_problem(residual, p, jacobian, second)

    def fun(x: Tensor) -> Tensor:
        return (a - x[0]) ** 2 + b * (x[1] - x[0] ** 2) ** 2

    def hessian(x: Tensor) -> Tensor:
        return 2 * (jacobian(x).T @ jacobian(x) + second(x))

    def gauss_newton(x: Tensor) -> Tensor:
        return 2 * jacobian(x).T @ jacobian(x)

    return Problem(fun, hessian, {"gauss_newton": gauss_newton}, 0.0)


def chebyshev(n: int, p: float) -> Problem:
    r""":math:`\tfrac1p \|u\|^p`, :math:`u_1 = (1 - x_1)/2`, :math:`u_i = x_i - (2x_{i-1}^2 - 1)`.

    Args:
        n: Variables, at least 2. The minimiser is the vector of ones.
        p: Power, at least 2.

    Raises:
        ValueError: If ``n`` or ``p`` is out of range.
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, got {n}")

    def residual(x: Tensor) -> Tensor:
        return torch.cat([(1 - x[:1]) / 2, x[1:] - (2 * x[:-1] ** 2 - 1)])

    def jacobian(x: Tensor) -> Tensor:
        diagonal = torch.ones_like(x)
        diagonal[0] = -0.5
        return torch.diag(diagonal) + torch.diag(-4 * x[:-1], -1)

    def second(x: Tensor) -> Tensor:
        return torch.diag(torch.cat([-4 * residual(x)[1:], torch.zeros_like(x[:1])]))

    return _power_problem(residual, p, jacobian, second)


def linear_power(A: Tensor, b: Tensor, p: float) -> Problem:
    r""":math:`\tfrac1p \|Ax - b\|^p`.

    Args:
        A: ``(m, n)``.
        b: ``(m,)``.
        p: Power, at least 2.

    Raises:
        ValueError: If shapes do not fit or ``p`` is below 2.
    """  # noqa: DOC502
    check_affine(A, b, 1.0)
    return _power_problem(lambda x: A @ x - b, p, lambda _: A, None)
