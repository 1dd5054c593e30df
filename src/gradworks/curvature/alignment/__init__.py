"""Do your domains agree in curvature? Penalties that make them, and measures that tell.

"Understanding Hessian Alignment for Domain Generalization" (Hemati, Zhang, Estiri, Chen, 2023,
arXiv:2308.11778). What differs from the authors' code: for a linear head gradients, products and
diagonals come in closed form, exact and through one ordinary backward pass; nothing is divided by a
gradient's norm; values are those of their DomainBed classes by default and of their Colored MNIST
scripts with ``reduction="sum", detach_mean=False``.
"""

from __future__ import annotations

from gradworks.curvature.alignment.aligning import AlignmentPenalty
from gradworks.curvature.alignment.attributes import (
    AlignmentReport,
    Attribute,
    alignment_report,
)
from gradworks.curvature.alignment.averages import MovingAverage
from gradworks.curvature.alignment.distances import hessian_distance
from gradworks.curvature.alignment.domains import domain_losses
from gradworks.curvature.alignment.head import (
    head_gradient,
    head_hessian,
    head_hessian_diagonal,
    head_hessian_vector,
)
from gradworks.curvature.alignment.peers import (
    coral_penalty,
    fishr_penalty,
    iga_penalty,
    irm_penalty,
    vrex_penalty,
)
from gradworks.curvature.alignment.penalties import HGPAlignment, HutchinsonAlignment
from gradworks.curvature.alignment.training import FishOuter, PenaltySchedule
from gradworks.curvature.alignment.transfer import TransferMeasure, transfer_measure

__all__ = [
    "AlignmentPenalty",
    "AlignmentReport",
    "Attribute",
    "FishOuter",
    "HGPAlignment",
    "HutchinsonAlignment",
    "MovingAverage",
    "PenaltySchedule",
    "TransferMeasure",
    "alignment_report",
    "coral_penalty",
    "domain_losses",
    "fishr_penalty",
    "head_gradient",
    "head_hessian",
    "head_hessian_diagonal",
    "head_hessian_vector",
    "hessian_distance",
    "iga_penalty",
    "irm_penalty",
    "transfer_measure",
    "vrex_penalty",
]
