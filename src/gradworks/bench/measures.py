"""Metrics of a whole split, lower is better, each ``(output, target) -> scalar tensor``."""

from __future__ import annotations

from torch import Tensor

__all__ = ["balanced_error", "binary_error", "class_error", "unexplained"]


def class_error(output: Tensor, target: Tensor) -> Tensor:
    """Return the fraction of rows whose largest logit is another class.

    Args:
        output: Logits (batch, classes).
        target: Class numbers (batch,).
    """
    return (output.argmax(dim=1) != target).double().mean()


def binary_error(output: Tensor, target: Tensor) -> Tensor:
    """Return the fraction of rows on the wrong side of logit zero.

    Args:
        output: Logits (batch, 1).
        target: 0 or 1 (batch, 1).
    """
    return ((output > 0) != (target > 0.5)).double().mean()


def balanced_error(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean of the two classes' error rates.

    Args:
        output: Logits (batch, 1).
        target: 0 or 1 (batch, 1), both present.
    """
    positive = target > 0.5
    wrong = ((output > 0) != positive).double()
    return (wrong[positive].mean() + wrong[~positive].mean()) / 2


def unexplained(output: Tensor, target: Tensor) -> Tensor:
    """Return the fraction of variance unexplained, ``1 - R^2``.

    Args:
        output: Predictions (batch, 1).
        target: Values (batch, 1).
    """
    output, target = output.double(), target.double()
    return (output - target).square().sum() / (target - target.mean()).square().sum()
