"""Sizes of the runs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS"]

# As in the authors' notebooks, with more starts and rates: theirs are -1 and 0.1.
_CURVES: dict[str, Any] = {
    "steps": 299,
    "rates": [0.02, 0.05, 0.1, 0.2],
    "starts": 41,
    "within": [-1.5, 1.5],
    "every": 5,
}

_NOTES = (
    "Starts lie on a grid of 41 cells over [-1.5, 1.5]; the seed moves each within its cell.",
    "Learning rates alone are searched, in three decades for every optimizer: 0.0001 to 0.1 for "
    "diffGrad, Adam, AMSGrad, AdamW and RMSProp (half a decade above their default, as the runs "
    "are short); around torch's default for AdaGrad and AdaDelta, around 0.1 for SGD. Weight decay "
    "is zero but for AdamW, which keeps its 0.01.",
    "The loss is multiplied by 0.001, 1 and 1000 at one learning rate, 0.001, untuned: a "
    "mechanism, so nothing is decided there.",
)

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "curves": _CURVES,
        "tuned": {
            "digits": {"problem": "digits-cnn", "steps": 100, "arms": "few"},
        },
        "scaled": {"steps": 60, "factors": [1, 1000]},
        "tune_trials": 4,
        "final_seeds": 5,
        "trial_seconds": 0.7,
        "notes": (
            "One network of three convolutions, 6 epochs on 1,078 digits, against Adam, AdamW and "
            "SGD only.",
            *_NOTES,
        ),
    },
    "full": {
        "curves": _CURVES,
        "tuned": {
            "digits": {"problem": "digits-cnn", "steps": 200, "arms": "all"},
            "mnist": {"problem": "mnist5k-cnn", "steps": 188, "arms": "all"},
            "digits-elu": {"activation": "elu", "steps": 200, "arms": "pair"},
            "digits-selu": {"activation": "selu", "steps": 200, "arms": "pair"},
            "digits-gelu": {"activation": "gelu", "steps": 200, "arms": "pair"},
            "text": {"problem": "text-transformer", "steps": 220, "arms": "pair"},
        },
        "scaled": {"steps": 100, "factors": [0.001, 1, 1000]},
        "tune_trials": 8,
        "final_seeds": 10,
        "trial_seconds": 1.5,
        "notes": (
            "Three convolutions: 12 epochs on 1,078 digits of 8x8 pixels, 4 on 3,000 of 28x28. "
            "Beside the claims: a transformer of two layers on the characters of Python's manual.",
            *_NOTES,
        ),
    },
    # Batch sizes, epochs and the drop of the rate are recalled, not read.
    "paper": {
        "curves": _CURVES,
        "cifar": {
            f"cifar{classes}-batch{batch}": {
                "classes": classes,
                "batch_size": batch,
                "hardware": "a GPU of 16 GB for a day a run",
            }
            for classes in (10, 100)
            for batch in (32, 64, 128)
        },
        "epochs": 100,
        "drop": {"epoch": 80, "by": 10},
        "tune_trials": 8,
        "final_seeds": 3,
        "trial_seconds": 86_400.0,
        "notes": (
            "Needs CIFAR-10 and CIFAR-100 and a GPU of 16 GB; configuration only.",
            "ResNet-50, 100 epochs at batch 32, 64 and 128, rate divided by 10 at epoch 80: our "
            "recollection, as the paper's text was not readable.",
            *_NOTES,
        ),
    },
}
