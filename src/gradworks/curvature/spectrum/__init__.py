"""The eigenvalues of a loss surface: bulk, outliers, and the lines between solutions.

"Empirical Analysis of the Hessian of Over-Parametrized Neural Networks" (Sagun, Evci, Guney,
Dauphin, Bottou, 2017, arXiv:1706.04454). The paper counts outliers by eye; the rules here, the
Gram route, the summary of the bulk and the refreshed batch norms along a line are ours.
"""

from __future__ import annotations

from gradworks.curvature.spectrum.gauss_newton import (
    GaussNewtonSplit,
    gauss_newton_split,
    gram_spectrum,
)
from gradworks.curvature.spectrum.measure import (
    Spectrum,
    SpectrumReport,
    exact_spectrum,
    spectrum,
)
from gradworks.curvature.spectrum.path import PathLoss, line_loss
from gradworks.curvature.spectrum.plots import plot_path, plot_spectrum
from gradworks.curvature.spectrum.split import (
    BulkSplit,
    bulk_statistics,
    marchenko_pastur_edge,
    split_bulk_outliers,
)

__all__ = [
    "BulkSplit",
    "GaussNewtonSplit",
    "PathLoss",
    "Spectrum",
    "SpectrumReport",
    "bulk_statistics",
    "exact_spectrum",
    "gauss_newton_split",
    "gram_spectrum",
    "line_loss",
    "marchenko_pastur_edge",
    "plot_path",
    "plot_spectrum",
    "spectrum",
    "split_bulk_outliers",
]
