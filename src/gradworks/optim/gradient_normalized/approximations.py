r"""Approximate Hessians: weighted Gauss-Newton, Fisher term, and a network's GGN (Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gradworks.curvature.operators import GGNOperator
from gradworks.optim.gradient_normalized.solves import LowRank

__all__ = ["ggn", "power_residual", "weighted_gauss_newton"]

Kind = Literal["gauss_newton_fisher", "fisher"]


def weighted_gauss_newton(A: Tensor, b: Tensor, mu: float) -> Callable[[Tensor], Tensor]:
    r"""Curvature of :math:`\mu \log \sum_i \exp((a_i^\top x - b_i) / \mu)` without its rank-one term.

    .. math:: H(x) = \tfrac1\mu A^\top \operatorname{diag}(\pi) A, \qquad
        \pi = \operatorname{softmax}((Ax - b) / \mu)

    which is the exact Hessian plus :math:`g g^\top / \mu`.

    Args:
        A: ``(m, n)``.
        b: ``(m,)``.
        mu: Smoothing, above 0.

    Returns:
        A function of x that returns ``(n, n)``.

    Raises:
        ValueError: If shapes do not fit or ``mu`` is not above 0.

    Example:
        >>> import torch
        >>> from gradworks.optim.gradient_normalized import weighted_gauss_newton
        >>> H = weighted_gauss_newton(torch.eye(2), torch.zeros(2), 0.5)
        >>> H(torch.zeros(2))
        tensor([[1., 0.],
                [0., 1.]])
    """  # noqa: DOC502, E501
    check_affine(A, b, mu)

    def hessian(x: Tensor) -> Tensor:
        weights = torch.softmax((A @ x - b) / mu, dim=0)
        return A.T @ (weights.unsqueeze(1) * A) / mu

    return hessian


def check_affine(A: Tensor, b: Tensor, mu: float) -> None:
    """Shapes of a matrix and a vector, and a smoothing above zero.

    Raises:
        ValueError: If they do not fit.
    """
    if A.ndim != 2 or b.shape != A.shape[:1]:
        raise ValueError(f"A must be (m, n) and b (m,), got {tuple(A.shape)} and {tuple(b.shape)}")
    if not mu > 0:
        raise ValueError(f"mu must be above 0, got {mu}")


def power_residual(
    residual_fn: Callable[[Tensor], Tensor], p: float, kind: Kind = "gauss_newton_fisher"
) -> Callable[[Tensor], Tensor | LowRank]:
    r"""Curvature of :math:`\tfrac1p \|u(x)\|^p` without the second derivatives of u.

    .. math:: \|u\|^{p-2} J^\top J + (p - 2) \|u\|^{p-4} (J^\top u)(J^\top u)^\top

    or its second, rank-one term alone (``"fisher"``).

    Args:
        residual_fn: u, ``(n,) -> (m,)``, differentiable.
        p: Power, at least 2.
        kind: ``"gauss_newton_fisher"`` (a matrix) or ``"fisher"`` (:class:`LowRank`).

    Returns:
        A function of x.

    Raises:
        ValueError: If ``p`` is below 2 or ``kind`` is unknown.

    Example:
        >>> import torch
        >>> from gradworks.optim.gradient_normalized import power_residual
        >>> H = power_residual(lambda x: x, p=4)
        >>> H(torch.tensor([1.0, 0.0]))
        tensor([[3., 0.],
                [0., 1.]])
    """
    if not p >= 2:
        raise ValueError(f"p must be at least 2, got {p}")
    if kind not in ("gauss_newton_fisher", "fisher"):
        raise ValueError(f"kind must be 'gauss_newton_fisher' or 'fisher', got {kind!r}")

    def fisher(x: Tensor) -> LowRank:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            u = residual_fn(leaf)
            (q,) = torch.autograd.grad(u, leaf, u.detach())  # J^T u
        return LowRank(q.detach().unsqueeze(1), fisher_weight(u, p).reshape(1))

    def both(x: Tensor) -> Tensor:
        u = residual_fn(x).detach()
        J = torch.func.jacrev(residual_fn)(x).detach()
        q = J.T @ u
        curvature: Tensor = power(u, p - 2) * (J.T @ J)
        return curvature + fisher_weight(u, p) * torch.outer(q, q)

    return fisher if kind == "fisher" else both


def power(u: Tensor, exponent: float) -> Tensor:
    """``||u||^exponent``; at u = 0 zero, but for exponent 0, which is one."""
    if exponent == 0:
        return u.new_ones(())
    norm = torch.linalg.vector_norm(u.detach())
    raised: Tensor = torch.where(norm > 0, norm**exponent, norm.new_zeros(()))
    return raised


def fisher_weight(u: Tensor, p: float) -> Tensor:
    """``(p - 2) ||u||^(p - 4)``; zero for p = 2, also where the power overflows."""
    return u.new_zeros(()) if p == 2 else (p - 2) * power(u, p - 4)


def ggn(
    model: nn.Module, loss_fn: Callable[[Any, Any], Tensor], data: Any, **options: Any
) -> GGNOperator:
    """The generalized Gauss-Newton matrix of a model, as an operator for ``hessian=``.

    It follows the model's parameters; make it once and pass it at each step.

    Args:
        model: The model whose parameters the optimizer has, in the same order.
        loss_fn: ``(output, target) -> scalar``, convex in the output.
        data: One pair or a re-iterable of pairs; the data of the closure.
        **options: As for :class:`gradworks.curvature.operators.GGNOperator`.

    Returns:
        The operator.

    Example:
        >>> import torch
        >>> from gradworks.optim.gradient_normalized import GradientNormalizedNewton, ggn
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(20, 3), torch.randint(2, (20,))
        >>> model, loss_fn = torch.nn.Linear(3, 2), torch.nn.CrossEntropyLoss()
        >>> opt = GradientNormalizedNewton(model.parameters())
        >>> H = ggn(model, loss_fn, (x, y))
        >>> first = opt.step(lambda: loss_fn(model(x), y), hessian=H)
        >>> bool(loss_fn(model(x), y) < first)
        True
    """
    return GGNOperator(model, loss_fn, data, **options)
