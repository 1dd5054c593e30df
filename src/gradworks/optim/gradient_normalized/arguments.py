"""Checks of the settings that the function and the optimizer share."""

from __future__ import annotations

import math

from gradworks.curvature.operators import SymmetricOperator
from gradworks.optim.arguments import at_least_zero, flags, in_interval
from gradworks.optim.gradient_normalized.curvature import SOLVERS

__all__ = ["check_hessian", "check_settings"]


def _above_zero(name: str, value: object) -> None:
    if not 0 < at_least_zero(name, value) < math.inf:
        raise ValueError(f"{name} must be above 0 and finite, got {value!r}")


def _count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_settings(
    *,
    gamma0: object,
    gamma_min: object,
    eps: object,
    max_trials: object,
    adaptive: object,
    strict: object,
    solver: object,
    cg_tol: object,
    cg_max_iter: object,
) -> None:
    """Refuse what is out of range, by name.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a number is out of range or the solver is unknown.
    """  # noqa: DOC502
    _above_zero("gamma0", gamma0)
    at_least_zero("gamma_min", gamma_min)
    _above_zero("eps", eps)
    _count("max_trials", max_trials, 1)
    flags({"adaptive": adaptive, "strict": strict}, "adaptive", "strict")
    _above_zero("cg_tol", cg_tol)
    in_interval("cg_tol", cg_tol, closed=False)
    if cg_max_iter is not None:
        _count("cg_max_iter", cg_max_iter, 1)
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}")


def check_hessian(hessian: object) -> None:
    """Refuse what is no Hessian.

    Raises:
        TypeError: If it is neither a name, an operator nor a function.
        ValueError: If there is no such name.
    """
    if isinstance(hessian, str):
        if hessian not in ("exact", "zero"):
            raise ValueError(
                f"hessian must be 'exact', 'zero', an operator or a function, got {hessian!r}"
            )
    elif not callable(hessian) and not isinstance(hessian, SymmetricOperator):
        raise TypeError(
            "hessian must be 'exact', 'zero', an operator or a function of x, got "
            f"{type(hessian).__name__}"
        )
