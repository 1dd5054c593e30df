"""AdamP and SGDP: Adam and SGD that do not lengthen scale-invariant weights.

"AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights", 2020,
arXiv:2006.08217.

What differs from the authors' code: SGDP projects a copy of its momentum buffer (theirs projects
the buffer itself when ``nesterov=False``); channels-last and complex weights, sharded weights
(``DTensor``), another channel dimension per group; no host synchronization on accelerators; an
error instead of a division by zero at ``momentum=1``.
"""

from __future__ import annotations

from gradworks.optim.adamp.adamp import AdamP, adamp
from gradworks.optim.adamp.optimizer import LayerReport
from gradworks.optim.adamp.projection import effective_step, project_radial, scale_invariance
from gradworks.optim.adamp.sgdp import SGDP, sgdp

__all__ = [
    "SGDP",
    "AdamP",
    "LayerReport",
    "adamp",
    "effective_step",
    "project_radial",
    "scale_invariance",
    "sgdp",
]
