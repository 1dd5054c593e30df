"""AnyLoss (arXiv:2405.14745): any metric of the confusion matrix as a loss.

The loss needs torch alone. ``AnyLossClassifier`` needs scikit-learn (extra ``tables``), which is
imported when the class is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradworks.losses.anyloss.baselines import (
    BatchedMetricLoss,
    batched_bce,
    batched_focal,
    batched_squared_error,
    batched_weighted_bce,
    best_threshold,
    focal_loss,
    hard_confusion,
)
from gradworks.losses.anyloss.batched import BatchedFit, fit_batched
from gradworks.losses.anyloss.confusion import Confusion, Rule, batched_confusion, soft_confusion
from gradworks.losses.anyloss.folds import FoldStack, join_stacks, stack_folds
from gradworks.losses.anyloss.inputs import SURROGATES, amplification_bound
from gradworks.losses.anyloss.loss import AnyLoss, anyloss
from gradworks.losses.anyloss.metrics import (
    METRICS,
    cost_metric,
    fbeta,
    get_metric,
    register_metric,
    tversky,
)
from gradworks.losses.anyloss.network import BatchedNet

if TYPE_CHECKING:
    from gradworks.losses.anyloss.estimator import AnyLossClassifier

__all__ = [
    "METRICS",
    "SURROGATES",
    "AnyLoss",
    "AnyLossClassifier",
    "BatchedFit",
    "BatchedMetricLoss",
    "BatchedNet",
    "Confusion",
    "FoldStack",
    "Rule",
    "amplification_bound",
    "anyloss",
    "batched_bce",
    "batched_confusion",
    "batched_focal",
    "batched_squared_error",
    "batched_weighted_bce",
    "best_threshold",
    "cost_metric",
    "fbeta",
    "fit_batched",
    "focal_loss",
    "get_metric",
    "hard_confusion",
    "join_stacks",
    "register_metric",
    "soft_confusion",
    "stack_folds",
    "tversky",
]


def __getattr__(name: str) -> Any:
    """Import the estimator, and scikit-learn with it, when it is first asked for (PEP 562)."""
    if name == "AnyLossClassifier":
        return import_module("gradworks.losses.anyloss.estimator").AnyLossClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
