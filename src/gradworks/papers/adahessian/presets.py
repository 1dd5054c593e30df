"""Sizes of the runs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS"]

_NOTES = (
    "Learning rates alone are searched, three decades for every optimizer: around AdaHessian's "
    "0.15 and SGD's 0.1; for Adam and AdamW from 0.0001 to 0.1, half a decade above their default, "
    "as the runs are short. No decay, but for AdamW's own 0.01.",
    "Published settings: AdaHessian lr 0.15 and decoupled decay 0.0005 / 0.15; Adam lr 0.001 and "
    "coupled decay 0.0005, the baseline of the published differences.",
    "CIFAR, ImageNet, translation, GLUE and Criteo figures of the paper are not decided at this "
    "scale: no package ships their data.",
)
_GALLERY = {"steps": 300, "every": 3}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "gallery": _GALLERY,
        "tuned": {"digits": {"problem": "digits-cnn", "steps": 80, "arms": "images"}},
        "cost": {"blocks": 10},
        "tune_trials": 4,
        "final_seeds": 3,
        "trial_seconds": 1.2,
        "notes": ("One network of three convolutions, 5 epochs on 1,078 digits.", *_NOTES),
    },
    "full": {
        "gallery": _GALLERY,
        "tuned": {
            "digits": {"problem": "digits-cnn", "steps": 200, "arms": "images"},
            "resnet": {"problem": "digits-resnet", "steps": 150, "arms": "images"},
            "text": {"problem": "text-transformer", "steps": 220, "arms": "language"},
        },
        "ablations": {"problem": "digits-cnn", "steps": 200},
        "cost": {"blocks": 30},
        "tune_trials": 8,
        "final_seeds": 10,
        "trial_seconds": 3.5,
        "notes": (
            "Three convolutions for 12 epochs, a residual network of eight for 9, on 1,078 digits "
            "of 8x8 pixels; a transformer of two layers for 220 steps.",
            *_NOTES,
        ),
    },
    # Batch, epochs and drops as the authors' configuration.
    "paper": {
        "cifar": {
            "resnet20": {"model": "ResNet-20", "hardware": "a GPU of 8 GB for two hours a run"},
            "resnet32": {"model": "ResNet-32", "hardware": "a GPU of 8 GB for three hours a run"},
        },
        "batch_size": 256,
        "epochs": 160,
        "drop": [80, 120],
        "cost": {"blocks": 30},
        "tune_trials": 0,
        "final_seeds": 5,
        "trial_seconds": 7200.0,
        "notes": (
            "ResNets on CIFAR-10, batch 256, 160 epochs, rates divided by 10 at epochs 80 and 120, "
            "weight decay 0.0005 (divided by the rate where it is decoupled).",
        ),
    },
}
