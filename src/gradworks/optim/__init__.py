"""How a step is taken: optimizers with the interface of ``torch.optim``.

One package a method; its functions live there (``gradworks.optim.adamp.project_radial``), the
optimizers are exported here.
"""

from __future__ import annotations

from gradworks.optim.adahessian import AdaHessian
from gradworks.optim.adamp import SGDP, AdamP
from gradworks.optim.aro import ARO
from gradworks.optim.dct_adamw import DCTAdamW, Trion
from gradworks.optim.diffgrad import DiffGrad
from gradworks.optim.langevin import IterateAverage, Langevin

__all__ = [
    "ARO",
    "SGDP",
    "AdaHessian",
    "AdamP",
    "DCTAdamW",
    "DiffGrad",
    "IterateAverage",
    "Langevin",
    "Trion",
]
