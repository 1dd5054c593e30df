"""The loss on a plane through a model's weights, and what its spectrum says of generalisation.

"Investigating generalization capabilities of neural networks by means of loss landscapes and
Hessian analysis" (Gabdullin, 2024, arXiv:2412.10146). The authors' code shifts every other row of
its grid, rescales tensors in turn under its model rule, sums signed entries as norms of order 1,
and lets batch-norm buffers move while it measures; here grids are exact, and each of these is
mended. :func:`legacy_grid` gives its coordinates for comparison.
"""

from __future__ import annotations

from gradworks.curvature.landscape.batch_norm import bn_report
from gradworks.curvature.landscape.criteria import HessianCriteria, esd_curve, hessian_criteria
from gradworks.curvature.landscape.directions import (
    EigenDirections,
    adam_directions,
    hessian_directions,
    random_directions,
    trajectory_directions,
)
from gradworks.curvature.landscape.grids import centered_grid, legacy_grid
from gradworks.curvature.landscape.normalization import NormalizedDirection, normalize_direction
from gradworks.curvature.landscape.planes import loss_line, loss_plane
from gradworks.curvature.landscape.report import LandscapeReport, analyze
from gradworks.curvature.landscape.surfaces import LossLine, LossPlane

__all__ = [
    "EigenDirections",
    "HessianCriteria",
    "LandscapeReport",
    "LossLine",
    "LossPlane",
    "NormalizedDirection",
    "adam_directions",
    "analyze",
    "bn_report",
    "centered_grid",
    "esd_curve",
    "hessian_criteria",
    "hessian_directions",
    "legacy_grid",
    "loss_line",
    "loss_plane",
    "normalize_direction",
    "random_directions",
    "trajectory_directions",
]
