"""Gradworks: 28 papers about gradients, curvature and structure, as software that works.

Subpackages load on first use, so ``import gradworks`` costs next to nothing:

- ``gradworks.losses``: what is minimised
- ``gradworks.optim``: how a step is taken
- ``gradworks.multitask``: gradients that conflict
- ``gradworks.curvature``: the shape of a loss surface
- ``gradworks.layers``: structure in a model
- ``gradworks.solvers``: whole problems solved
- ``gradworks.papers``: the catalogue, one module a paper
- ``gradworks.bench``: fair comparison, run store, statistics
- ``gradworks.report``: terminal tables and the static site
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_SUBPACKAGES = (
    "bench",
    "curvature",
    "layers",
    "losses",
    "multitask",
    "optim",
    "papers",
    "report",
    "solvers",
)

__all__ = ["__version__", *_SUBPACKAGES]


def __getattr__(name: str) -> Any:
    """Import a subpackage when it is first asked for (PEP 562)."""
    if name in _SUBPACKAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
