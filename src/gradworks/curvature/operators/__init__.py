"""Multiply by the curvature of a loss without writing it down.

:class:`HessianOperator`, :class:`GGNOperator` and :class:`FisherOperator` take ``(model, loss_fn,
data)``; :class:`DenseOperator` and :class:`FunctionOperator` wrap what is there already. All are
:class:`SymmetricOperator`: ``op @ v``, ``op.to_dense()``, ``op.to_scipy()``, ``2 * op + other``.
"""

from __future__ import annotations

from gradworks.curvature.operators.algebra import SymmetricOperator
from gradworks.curvature.operators.fisher import FisherOperator
from gradworks.curvature.operators.ggn import GGNOperator
from gradworks.curvature.operators.given import DenseOperator, FunctionOperator
from gradworks.curvature.operators.hessian import HessianOperator
from gradworks.curvature.operators.model import ModelOperator
from gradworks.curvature.operators.twice import SecondDerivativeError

__all__ = [
    "DenseOperator",
    "FisherOperator",
    "FunctionOperator",
    "GGNOperator",
    "HessianOperator",
    "ModelOperator",
    "SecondDerivativeError",
    "SymmetricOperator",
]
