"""Checks of what the solvers take: argument, what was found, what is allowed."""

from __future__ import annotations

import math
from numbers import Integral, Real

import torch
from torch import Tensor

__all__ = ["count", "finite", "one_of", "positive", "positive_int", "shaped"]


def count(name: str, value: object) -> int:
    """Require an integer that is not negative.

    Args:
        name: How the argument is called in the message.
        value: What was given.

    Returns:
        The value.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is negative.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an int, got {type(value).__name__} {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return int(value)


def positive_int(name: str, value: object) -> int:
    """Require an integer of at least 1.

    Args:
        name: How the argument is called in the message.
        value: What was given.

    Returns:
        The value.

    Raises:
        ValueError: If it is below 1.
    """
    if (number := count(name, value)) < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def positive(name: str, value: object, *, zero: bool = False) -> float:
    """Require a finite number above 0.

    Args:
        name: How the argument is called in the message.
        value: What was given.
        zero: Allow 0 too.

    Returns:
        The value as a float.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__} {value!r}")
    number = float(value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        allowed = "at least 0" if zero else "above 0"
        raise ValueError(f"{name} must be finite and {allowed}, got {value!r}")
    return number


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Require one of some words.

    Args:
        name: How the argument is called in the message.
        value: What was given.
        allowed: The words.

    Raises:
        ValueError: If it is none of them.
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def shaped(
    name: str, value: object, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Require a tensor of a shape, dtype and device.

    Args:
        name: How the argument is called in the message.
        value: What was given.
        shape: Its shape.
        dtype: Its dtype.
        device: Where it lies.

    Returns:
        The tensor, without its graph.

    Raises:
        TypeError: If it is no tensor.
        ValueError: If shape, dtype or device differ.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
    if value.dtype != dtype:
        raise ValueError(f"{name} must have the measurements' dtype {dtype}, got {value.dtype}")
    if value.device != device:
        raise ValueError(f"{name} must lie on the measurements' {device}, got {value.device}")
    return value.detach()


def finite(name: str, value: Tensor) -> None:
    """Require that every entry is finite.

    Args:
        name: How the argument is called in the message.
        value: What was given.

    Raises:
        ValueError: If NaN or infinity is among them.
    """
    good = value.isfinite()
    if not bool(good.all()):
        bad = int((~good).flatten().nonzero()[0])
        raise ValueError(
            f"{name} must be finite, got {value.flatten()[bad].item()} at position {bad}"
        )
