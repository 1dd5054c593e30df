"""The shape of a loss surface: curvature operators, their spectra, traces and diagonals.

Start with :class:`~gradworks.curvature.operators.HessianOperator` on ``(model, loss_fn, data)``,
then :func:`~gradworks.curvature.spectrum.spectrum`, :func:`~gradworks.curvature.hutchinson.trace`
or :func:`~gradworks.curvature.lanczos.eigsh`. Model, mode, buffers, random state and ``.grad`` are
left as they were found.
"""

from __future__ import annotations

from gradworks.curvature.hutchinson import diagonal, frobenius_norm, trace
from gradworks.curvature.lanczos import eigsh, slq, tridiagonalize
from gradworks.curvature.operators import (
    DenseOperator,
    FisherOperator,
    FunctionOperator,
    GGNOperator,
    HessianOperator,
    SymmetricOperator,
)

__all__ = [
    "DenseOperator",
    "FisherOperator",
    "FunctionOperator",
    "GGNOperator",
    "HessianOperator",
    "SymmetricOperator",
    "diagonal",
    "eigsh",
    "frobenius_norm",
    "slq",
    "trace",
    "tridiagonalize",
]
