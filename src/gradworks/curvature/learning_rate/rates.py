"""From curvature to step sizes: scaling with the batch, heavy ball, exact line search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gradworks.curvature.learning_rate.laws import check_batch, check_number, check_positive
from gradworks.curvature.operators.algebra import SymmetricOperator
from gradworks.curvature.probes import check_operator

__all__ = ["StepSizes", "cauchy", "heavy_ball", "scale_learning_rate"]


@dataclass(frozen=True)
class StepSizes:
    """What a rule proposes.

    Attributes:
        lr: Learning rate.
        momentum: Momentum; ``None`` where the rule says nothing of it.
        lambda_max: The largest curvature the rule reckoned with; ``None`` where it needs none.
        lambda_min: The smallest one that matters; ``None`` where it needs none.
        rule: ``"heavy_ball"``, ``"rmt"`` or ``"cauchy"``.
    """

    lr: float
    momentum: float | None
    lambda_max: float | None
    lambda_min: float | None
    rule: str


def scale_learning_rate(
    lr: float, from_batch: float, to_batch: float, rule: Literal["linear", "sqrt"] = "linear"
) -> float:
    r"""Carry a learning rate over to another batch size.

    .. math:: \mathrm{lr}\cdot\frac{B'}{B} \;\text{(linear, SGD)}, \qquad
        \mathrm{lr}\cdot\sqrt{\frac{B'}{B}} \;\text{(square root, adaptive methods)}

    The linear rule ends where the rate meets the curvature of all data; see
    :meth:`NoiseModel.max_learning_rate`.

    Args:
        lr: The rate that works at ``from_batch``, above 0.
        from_batch: B, at least 1.
        to_batch: B', at least 1.
        rule: ``"linear"`` for SGD, ``"sqrt"`` for Adam and its kin.

    Returns:
        The rate at ``to_batch``.

    Raises:
        ValueError: A rate or batch size out of range, or an unknown rule.

    Example:
        >>> from gradworks.curvature.learning_rate import scale_learning_rate
        >>> scale_learning_rate(0.1, 128, 512), scale_learning_rate(0.001, 128, 512, rule="sqrt")
        (0.4, 0.002)

    References:
        Granziol, Zohren, Roberts, 2022, arXiv:2006.09092.
    """
    lr = check_positive("lr", lr)
    before, _ = check_batch(from_batch, name="from_batch")
    after, _ = check_batch(to_batch, name="to_batch")
    if rule not in ("linear", "sqrt"):
        raise ValueError(f"rule must be one of linear, sqrt, got {rule!r}")
    ratio = after / before
    return lr * (ratio if rule == "linear" else math.sqrt(ratio))


def heavy_ball(lambda_max: float, lambda_min: float) -> StepSizes:
    r"""The best rate and momentum for curvatures between two bounds (Polyak).

    .. math::
        \mathrm{lr} = \frac{4}{(\sqrt{\lambda_{\max}} + \sqrt{\lambda_{\min}})^2}, \qquad
        \mu = \Bigl(\frac{\sqrt{\lambda_{\max}} - \sqrt{\lambda_{\min}}}
            {\sqrt{\lambda_{\max}} + \sqrt{\lambda_{\min}}}\Bigr)^2

    On a quadratic, gradient descent with them contracts by :math:`\sqrt\mu` a step.

    Args:
        lambda_max: Largest curvature, above 0.
        lambda_min: Smallest curvature, 0..``lambda_max``.

    Returns:
        Rate and momentum.

    Raises:
        ValueError: ``lambda_max`` not above 0, or ``lambda_min`` outside its range.

    Example:
        >>> from gradworks.curvature.learning_rate import heavy_ball
        >>> found = heavy_ball(9.0, 1.0)
        >>> found.lr, found.momentum
        (0.25, 0.25)

    References:
        Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    """
    a, c = check_positive("lambda_max", lambda_max), check_number("lambda_min", lambda_min)
    if not 0 <= c <= a:
        raise ValueError(f"lambda_min must be in 0..lambda_max ({lambda_max}), got {lambda_min}")
    total, difference = math.sqrt(a) + math.sqrt(c), math.sqrt(a) - math.sqrt(c)
    return StepSizes(4 / total**2, (difference / total) ** 2, a, c, "heavy_ball")


def cauchy(op: SymmetricOperator, gradient: Tensor) -> float:
    r"""The rate of exact line search along the gradient: :math:`g^\top g / g^\top H g`.

    Exact on a quadratic. Elsewhere a rate for one step of gradient descent, not for a hundred.

    Args:
        op: The curvature H.
        gradient: g, ``(P,)``, not zero.

    Returns:
        The rate.

    Raises:
        FloatingPointError: The product is not finite.
        TypeError: ``op`` is not an operator or ``gradient`` not a tensor.
        ValueError: A gradient of wrong shape or zero, or curvature along it that is not positive:
            no finite step is best then.

    Example:
        >>> import torch
        >>> from gradworks.curvature.learning_rate import cauchy
        >>> from gradworks.curvature.operators import DenseOperator
        >>> cauchy(DenseOperator(torch.diag(torch.tensor([4.0, 1.0]))), torch.tensor([1.0, 0.0]))
        0.25
    """  # noqa: DOC502
    op = check_operator(op)
    product = op.matvec(gradient)
    g = gradient.detach().to(op.accumulate_dtype)
    along = op.reduce(torch.stack([torch.dot(g, g), torch.dot(g, product.to(g.dtype))]))
    squared, curvature = along.tolist()
    if not squared > 0 or not math.isfinite(squared):
        raise ValueError(f"gradient must be finite and not zero, its squared norm is {squared}")
    if not curvature > 0:
        raise ValueError(
            f"curvature along the gradient must be positive, got {curvature / squared:.3g}; "
            "no finite step minimises the quadratic model"
        )
    return float(squared / curvature)
