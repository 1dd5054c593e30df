"""Learning rates from curvature: what a batch size supports, and a schedule that measures.

"Learning Rates as a Function of Batch Size: A Random Matrix Theory Approach to Neural Network
Training" (Granziol, Zohren, Roberts, 2020, arXiv:2006.09092). The Hessian of a batch is noisier
than that of all data, its extreme eigenvalues are larger, and its largest one bounds the step. The
fit of the noise, its error bar, the heavy-ball learner's cuts and averages, and the two-scale
estimate are ours; the author's script is the rule ``"cauchy"``.
"""

from __future__ import annotations

from gradworks.curvature.learning_rate.fit import fit_noise, two_scale_noise
from gradworks.curvature.learning_rate.laws import (
    batch_extreme_eigenvalue,
    batch_ggn_extreme_eigenvalue,
    damping,
    effective_batch,
    eigenvector_overlap,
    full_eigenvalue,
    noise_edge,
)
from gradworks.curvature.learning_rate.learner import NonPositiveCurvatureError, learn_step_sizes
from gradworks.curvature.learning_rate.measuring import measure_noise
from gradworks.curvature.learning_rate.noise import NoiseModel, NoiseRow
from gradworks.curvature.learning_rate.rates import (
    StepSizes,
    cauchy,
    heavy_ball,
    scale_learning_rate,
)
from gradworks.curvature.learning_rate.schedule import CurvatureSchedule

__all__ = [
    "CurvatureSchedule",
    "NoiseModel",
    "NoiseRow",
    "NonPositiveCurvatureError",
    "StepSizes",
    "batch_extreme_eigenvalue",
    "batch_ggn_extreme_eigenvalue",
    "cauchy",
    "damping",
    "effective_batch",
    "eigenvector_overlap",
    "fit_noise",
    "full_eigenvalue",
    "heavy_ball",
    "learn_step_sizes",
    "measure_noise",
    "noise_edge",
    "scale_learning_rate",
    "two_scale_noise",
]
