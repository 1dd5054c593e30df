"""Weights on losses instead of surgery on gradients: the baselines that need one backward pass.

Each formula was checked against public code: uncertainty weighting and dynamic weight average
against the authors' code of MTAN (``lorenmt/mtan``), FAMO against its authors'
(``Cranial-XIX/FAMO``), GradNorm, which has no official code, against LibMTL's and two more.
"""

from __future__ import annotations

from gradworks.multitask.loss_weighting.descent import DynamicWeightAverage
from gradworks.multitask.loss_weighting.famo import FAMO
from gradworks.multitask.loss_weighting.grad_norm import GradNorm
from gradworks.multitask.loss_weighting.uncertainty import UncertaintyWeighting
from gradworks.multitask.loss_weighting.weighting import LossWeighting

__all__ = [
    "FAMO",
    "DynamicWeightAverage",
    "GradNorm",
    "LossWeighting",
    "UncertaintyWeighting",
]
