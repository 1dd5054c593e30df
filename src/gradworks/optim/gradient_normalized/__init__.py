"""Newton's method, regularised by the gradient's norm over a radius that it finds by itself.

"Gradient-Normalized Smoothness for Optimization with Approximate Hessians", 2025,
arXiv:2506.13710.

What differs from the authors' code: a search that fails 41 times stops at the last accepted point
(theirs takes the last trial); a matrix without a Cholesky factor is a failed trial; near rounding a
smaller gradient is enough unless ``strict=True``.
"""

from __future__ import annotations

from gradworks.optim.gradient_normalized.approximations import (
    ggn,
    power_residual,
    weighted_gauss_newton,
)
from gradworks.optim.gradient_normalized.minimizing import GNSResult, minimize
from gradworks.optim.gradient_normalized.optimizer import GradientNormalizedNewton
from gradworks.optim.gradient_normalized.problems import (
    Problem,
    chebyshev,
    linear_power,
    log_sum_exp,
    rosenbrock,
)
from gradworks.optim.gradient_normalized.solves import LowRank

__all__ = [
    "GNSResult",
    "GradientNormalizedNewton",
    "LowRank",
    "Problem",
    "chebyshev",
    "ggn",
    "linear_power",
    "log_sum_exp",
    "minimize",
    "power_residual",
    "rosenbrock",
    "weighted_gauss_newton",
]
