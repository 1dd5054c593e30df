"""How a step is taken: optimizers with the interface of ``torch.optim``.

One package a method; its functions live there (``gradworks.optim.adamp.project_radial``), the
optimizers are exported here.
"""

from __future__ import annotations

from gradworks.optim.adamp import SGDP, AdamP

__all__ = ["SGDP", "AdamP"]
