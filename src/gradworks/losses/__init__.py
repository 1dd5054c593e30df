"""What is minimised: losses as functions of ``(input, target)`` with thin modules over them.

One package a method; the functional form lives there (``gradworks.losses.anyloss.anyloss``,
``gradworks.losses.ms_ssim.ssim``), the module is exported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradworks.losses.anyloss import AnyLoss
from gradworks.losses.ms_ssim import ExpectedLossVAE, MSSSIMLoss, SSIMLoss

if TYPE_CHECKING:
    from gradworks.losses.anyloss import AnyLossClassifier

__all__ = ["AnyLoss", "AnyLossClassifier", "ExpectedLossVAE", "MSSSIMLoss", "SSIMLoss"]


def __getattr__(name: str) -> Any:
    """Import the estimator, and scikit-learn with it, when it is first asked for (PEP 562)."""
    if name == "AnyLossClassifier":
        from gradworks.losses import anyloss

        return anyloss.AnyLossClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
