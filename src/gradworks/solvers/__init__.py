"""Whole problems solved: low-rank matrices from linear measurements.

One package a problem (:mod:`gradworks.solvers.matrix_sensing`), imported when it is first asked
for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradworks.solvers import matrix_sensing as matrix_sensing

__all__ = ["matrix_sensing"]


def __getattr__(name: str) -> Any:
    """Import a package when it is first asked for (PEP 562)."""
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
