"""Errors of a task, each lower is better, and how far an arm is from single-task training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["delta_m", "log_error", "mean_rank", "poisson_deviance", "ranking_error"]

# A figure of 0 has no logarithm; a thousandth is less than one wrong example in any test split.
FLOOR = 1e-3


def ranking_error(output: Tensor, target: Tensor) -> Tensor:
    """Return the share of pairs of a positive and a negative in the wrong order: 1 - AUC.

    Unlike the share of wrong answers it does not reward calling a rare class never.

    Args:
        output: Scores, one an example.
        target: 0 or 1.

    Returns:
        In [0, 1]; ties count half; 0.5 where a class is missing.

    Example:
        >>> import torch
        >>> ranking_error(torch.tensor([0.1, 0.9, 0.4]), torch.tensor([0.0, 1.0, 1.0]))
        tensor(0.)
    """
    scores, wanted = output.flatten(), target.flatten() > 0.5
    apart = scores[~wanted][None, :] - scores[wanted][:, None]
    if apart.numel() == 0:
        return scores.new_tensor(0.5)
    return ((apart > 0).to(scores.dtype) + 0.5 * (apart == 0)).mean()


def poisson_deviance(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean deviance of counts from predicted logarithms of rates.

    Args:
        output: Logarithms of rates.
        target: Counts, of the same shape.

    Example:
        >>> import torch
        >>> poisson_deviance(torch.tensor([0.0]), torch.tensor([1.0]))
        tensor(0.)
    """
    return 2 * (F.poisson_nll_loss(output, target) - target + torch.xlogy(target, target)).mean()


def log_error(errors: Mapping[str, float]) -> float:
    """Return the mean logarithm of the errors of all tasks.

    The difference of two arms is the logarithm of the geometric mean of their ratios, whatever the
    scale of each task's error; against single-task training it is Delta-m in geometric form.

    Args:
        errors: By task; below a thousandth they count as that.

    Example:
        >>> round(log_error({"a": 0.1, "b": 10.0}), 6)
        0.0
    """
    return math.fsum(math.log(max(e, FLOOR)) for e in errors.values()) / len(errors)


def delta_m(errors: Mapping[str, float], single: Mapping[str, float]) -> float:
    """Return the mean relative change of the errors against single-task training, in percent.

    Args:
        errors: By task, lower is better.
        single: Of networks trained for one task each.

    Returns:
        Negative where sharing a trunk helped.

    Raises:
        ValueError: If the tasks differ or an error of ``single`` is not positive.

    Example:
        >>> delta_m({"a": 3.0, "b": 0.75}, {"a": 2.0, "b": 1.0})  # 50 % worse, 25 % better
        12.5
    """
    if set(errors) != set(single) or not errors:
        raise ValueError(f"tasks must be the same, got {sorted(errors)} and {sorted(single)}")
    if min(single.values()) <= 0:
        raise ValueError(f"errors of single-task training must be above 0, got {dict(single)}")
    changes = [(errors[task] - single[task]) / single[task] for task in errors]
    return round(100 * math.fsum(changes) / len(changes), 9)


def mean_rank(errors: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean rank over tasks of each arm; 1 is best, ties share their ranks.

    Args:
        errors: By arm, then by task.

    Example:
        >>> mean_rank({"x": {"a": 0.1, "b": 0.3}, "y": {"a": 0.2, "b": 0.1}})
        {'x': 1.5, 'y': 1.5}
    """
    ranks: dict[str, list[float]] = {arm: [] for arm in errors}
    for task in next(iter(errors.values()), {}):
        values = {arm: errors[arm][task] for arm in errors}
        for arm, value in values.items():
            below = sum(v < value for v in values.values())
            ties = sum(v == value for v in values.values())
            ranks[arm].append(below + (ties + 1) / 2)
    return {arm: math.fsum(r) / len(r) for arm, r in ranks.items()}
