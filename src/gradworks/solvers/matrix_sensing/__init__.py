"""Low-rank matrices from linear measurements, by gradient descent on factors (arXiv:2310.01769).

``MatrixSensing`` needs scikit-learn (extra ``tables``), which is imported when the class is first
asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradworks.solvers.matrix_sensing.balance import predicted_rate, rebalance
from gradworks.solvers.matrix_sensing.descent import accelerated_gd, asymmetric_gd, symmetric_gd
from gradworks.solvers.matrix_sensing.operator import MeasurementOperator
from gradworks.solvers.matrix_sensing.problems import random_low_rank
from gradworks.solvers.matrix_sensing.rates import ObservedRate, fit_rate
from gradworks.solvers.matrix_sensing.result import SensingResult

if TYPE_CHECKING:
    from gradworks.solvers.matrix_sensing.estimator import MatrixSensing

__all__ = [
    "MatrixSensing",
    "MeasurementOperator",
    "ObservedRate",
    "SensingResult",
    "accelerated_gd",
    "asymmetric_gd",
    "fit_rate",
    "predicted_rate",
    "random_low_rank",
    "rebalance",
    "symmetric_gd",
]


def __getattr__(name: str) -> Any:
    """Import the estimator, and scikit-learn with it, when it is first asked for (PEP 562)."""
    if name == "MatrixSensing":
        return import_module("gradworks.solvers.matrix_sensing.estimator").MatrixSensing
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
