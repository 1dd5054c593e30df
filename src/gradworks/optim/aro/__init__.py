"""ARO: steps of a base map in a frame that turns towards what the map does to the momentum.

"ARO: A New Lens On Matrix Optimization For Large Models", 2026, arXiv:2602.09006. No code was
released; the update follows write-ups of the paper, and what is our own choice is said where it is.
"""

from __future__ import annotations

from gradworks.optim.aro.groups import transformer_groups
from gradworks.optim.aro.maps import sinkhorn
from gradworks.optim.aro.optimizer import ARO
from gradworks.optim.aro.rotations import descent_rate, rotation_update, shifted_cholesky_qr

__all__ = [
    "ARO",
    "descent_rate",
    "rotation_update",
    "shifted_cholesky_qr",
    "sinkhorn",
    "transformer_groups",
]
