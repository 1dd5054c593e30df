"""What the settings of ``AnyLossClassifier`` may be."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from gradworks.losses.anyloss.inputs import check_beta, check_rule
from gradworks.losses.anyloss.metrics import get_metric

__all__ = ["check_settings"]

_SOLVERS = ("gd", "adam", "lbfgs")


def _check_count(name: str, value: object) -> int:
    """A positive integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an int, got {type(value).__name__} {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def check_settings(model: Any) -> None:
    """Refuse settings out of range before any work is done.

    Args:
        model: An ``AnyLossClassifier``.

    Raises:
        ValueError: If a setting is out of range or contradicts another.
        TypeError: If a setting has a wrong type.
    """
    get_metric(model.metric, check_beta(model.beta))
    if not callable(model.amplification):
        check_rule("anyloss", model.amplification, 0.5)
    elif model.solver == "lbfgs":
        raise ValueError("amplification must be a number with solver='lbfgs', got a schedule")
    if model.solver not in _SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(_SOLVERS)}, got {model.solver!r}")
    _check_count("max_iter", model.max_iter)
    _check_count("n_iter_no_change", model.n_iter_no_change)
    if not isinstance(model.hidden_layer_sizes, list | tuple):
        raise TypeError(
            "hidden_layer_sizes must be a tuple of widths, () for a linear model, "
            f"got {model.hidden_layer_sizes!r}"
        )
    for width in model.hidden_layer_sizes:
        _check_count("hidden_layer_sizes", width)
    if model.batch_size is not None:
        _check_count("batch_size", model.batch_size)
        if model.solver == "lbfgs":
            raise ValueError("batch_size must be None with solver='lbfgs', which is full batch")
    for name in ("lr", "validation_fraction"):
        value = getattr(model, name)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, got {type(value).__name__} {value!r}")
    if not 0.0 < model.lr < float("inf"):
        raise ValueError(f"lr must be positive and finite, got {model.lr}")
    if not 0.0 < model.validation_fraction < 1.0:
        raise ValueError(
            f"validation_fraction must lie inside (0, 1), got {model.validation_fraction}"
        )
