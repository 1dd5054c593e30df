"""Checks of the numbers that every optimizer takes: name, value found, values allowed.

A value of the wrong type is a ``TypeError`` in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from torch import Tensor

__all__ = [
    "ConflictingPathsError",
    "at_least_zero",
    "betas_of",
    "flags",
    "in_interval",
    "integer_at_least",
    "learning_rate",
    "path_flags",
]


class ConflictingPathsError(ValueError, RuntimeError):
    """Two ways to step were asked for at once; torch's own optimizers raise a RuntimeError."""


def _number(name: str, value: object) -> float:
    """A real number, of NumPy too, that is not a bool."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    return float(value)


def at_least_zero(name: str, value: object) -> float:
    """Require a number that is not negative; infinity is one.

    Args:
        name: How the argument is called in the message.
        value: What was given.

    Returns:
        The value as a float.

    Raises:
        ValueError: If it is negative or NaN.
    """
    number = _number(name, value)
    if not number >= 0.0:
        raise ValueError(f"{name} must be at least 0, got {value!r}")
    return number


def in_interval(name: str, value: object, *, closed: bool) -> float:
    """Require a number in [0, 1] (``closed``) or [0, 1).

    Args:
        name: How the argument is called in the message.
        value: What was given.
        closed: Whether 1 is allowed.

    Returns:
        The value as a float.

    Raises:
        ValueError: If it lies outside.
    """
    number = _number(name, value)
    if not (0.0 <= number <= 1.0 if closed else 0.0 <= number < 1.0):
        raise ValueError(f"{name} must be in [0, 1{']' if closed else ')'}, got {value!r}")
    return number


def integer_at_least(name: str, value: object, least: int) -> None:
    """Require an integer of at least ``least``.

    Args:
        name: How the argument is called in the message.
        value: What was given.
        least: The smallest that is allowed.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is smaller.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def learning_rate(value: object) -> None:
    """Require a learning rate: a finite number or a tensor of one element, not negative.

    Args:
        value: What was given as ``lr``.

    Raises:
        ValueError: If it is negative or not finite, or a tensor of several elements.
    """
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(
                f"lr as a tensor must have one element, got shape {tuple(value.shape)}"
            )
        value = value.item()
    number = _number("lr", value)
    if not 0.0 <= number < math.inf:
        raise ValueError(f"lr must be at least 0 and finite, got {value!r}")


def betas_of(value: object) -> tuple[float, float]:
    """Require a pair of decay rates in [0, 1).

    Args:
        value: What was given as ``betas``.

    Returns:
        The pair as floats.

    Raises:
        TypeError: If it is no pair.
    """
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"betas must be a pair of numbers, got {value!r}")
    first, second = (in_interval(f"betas[{i}]", b, closed=False) for i, b in enumerate(value))
    return first, second


def flags(group: Mapping[str, Any], *names: str) -> None:
    """Require true or false.

    Args:
        group: Settings of a parameter group.
        *names: Keys to check.

    Raises:
        TypeError: If one is no bool.
    """
    for name in names:
        if not isinstance(group[name], bool):
            raise TypeError(f"{name} must be True or False, got {group[name]!r}")


def path_flags(group: Mapping[str, Any]) -> None:
    """Check that ``foreach``, ``fused`` and ``differentiable`` do not contradict each other.

    Args:
        group: Settings of a parameter group.

    Raises:
        TypeError: If one of the first two is neither a bool nor None.
        ConflictingPathsError: If two of them are asked for at once.
    """
    for name in ("foreach", "fused"):
        value = group.get(name)  # not every method has every path
        if value is not None and not isinstance(value, bool):
            raise TypeError(f"{name} must be True, False or None, got {value!r}")
    asked = [name for name in ("foreach", "fused", "differentiable") if group.get(name)]
    if len(asked) > 1:
        raise ConflictingPathsError(
            f"{asked[0]}=True and {asked[1]}=True exclude each other; leave one of them out"
        )
