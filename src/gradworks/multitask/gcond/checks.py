"""Settings of GCond, checked before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from gradworks.multitask.gcond.rules import Rules

__all__ = ["checked_rules", "checked_settings"]


def checked_rules(**settings: Any) -> Rules:
    """Return the settings that decide conflicts.

    Args:
        **settings: As for ``GCond``.

    Raises:
        TypeError: If a number of rounds is no integer.
        ValueError: If a number is out of range or a word unknown.
    """  # noqa: DOC502
    thresholds = _numbers("thresholds", settings["thresholds"], 3, "(critical, main, weak)")
    if not -1 <= thresholds[0] <= thresholds[1] <= thresholds[2] <= 1:
        raise ValueError(
            "thresholds must be cosines in [-1, 1] with critical <= main <= weak, got "
            f"{thresholds}; the default is (-0.8, -0.5, 0.0)"
        )
    _above("remap_power", settings["remap_power"])
    _count("max_iters", settings["max_iters"], 1, optional=True)
    _count("dominance_window", settings["dominance_window"], 0)
    _word("dominance", settings["dominance"], ("yield", "keep"))
    ties = _numbers("tie_weights", settings["tie_weights"], 2, "(stability, strength)")
    if min(ties) < 0 or sum(ties) <= 0:
        raise ValueError(
            f"tie_weights must be two numbers of at least 0 with a positive sum, got {ties}"
        )
    for name in ("conflict_tol", "eps"):
        if not 0 <= settings[name] < math.inf:
            raise ValueError(f"{name} must be finite and at least 0, got {settings[name]}")
    zero_tol = settings["zero_tol"]
    if zero_tol is not None and not 0 <= zero_tol < 1:
        raise ValueError(f"zero_tol must be in [0, 1) or None, got {zero_tol}")
    return Rules(
        **{
            **settings,
            "thresholds": (thresholds[0], thresholds[1], thresholds[2]),
            "tie_weights": (ties[0], ties[1]),
            "smooth": bool(settings["smooth"]),
        }
    )


def checked_settings(
    *,
    momentum: float,
    norm_beta: float,
    norm_cap: float | None,
    trust_coef: float,
    trust_clip: float,
    remember: str,
    state_dtype: torch.dtype | None,
) -> None:
    """Refuse other settings of GCond that mean nothing.

    Args:
        momentum: In [0, 1).
        norm_beta: In [0, 1).
        norm_cap: Above 0, or None.
        trust_coef: Above 0.
        trust_clip: Above 0.
        remember: ``"projected"`` or ``"raw"``.
        state_dtype: Floating, or None.

    Raises:
        TypeError: If ``state_dtype`` is no dtype.
        ValueError: If a number is out of range or a word unknown.
    """
    for name, value in (("momentum", momentum), ("norm_beta", norm_beta)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), got {value}")
    if norm_cap is not None:
        _above("norm_cap", norm_cap)
    _above("trust_coef", trust_coef)
    _above("trust_clip", trust_clip)
    _word("remember", remember, ("projected", "raw"))
    if state_dtype is None:
        return
    if not isinstance(state_dtype, torch.dtype):
        raise TypeError(f"state_dtype must be a torch.dtype, got {type(state_dtype).__name__}")
    if not state_dtype.is_floating_point:
        raise ValueError(f"state_dtype must be floating, got {state_dtype}")


def _numbers(name: str, values: Sequence[float], count: int, what: str) -> tuple[float, ...]:
    """As many finite numbers as asked for."""
    try:
        found = tuple(float(value) for value in values)
    except TypeError:
        raise TypeError(f"{name} must be {count} numbers {what}, got {values!r}") from None
    if len(found) != count or not all(map(math.isfinite, found)):
        raise ValueError(f"{name} must be {count} numbers {what}, got {values}")
    return found


def _above(name: str, value: float) -> None:
    """Refuse what is not above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be finite and above 0, got {value}")


def _count(name: str, value: int | None, least: int, optional: bool = False) -> None:
    """Refuse what is no count."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _word(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse an unknown word."""
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}")
