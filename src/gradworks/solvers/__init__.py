"""Solvers of whole problems: factorised matrices from linear measurements.

- :mod:`gradworks.solvers.matrix_sensing`: gradient descent on the factors of a low-rank matrix
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["matrix_sensing"]


def __getattr__(name: str) -> Any:
    """Import a family when it is first asked for."""
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
