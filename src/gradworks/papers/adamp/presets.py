"""Sizes of the runs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS"]

# No learning rate or start is published for the toy: these give the published norms within 1 %.
_TOY: dict[str, Any] = {"lr": 0.02, "start": [0.90, 0.95], "steps": 2000, "every": 10}

_NOTES = (
    "The toy's learning rate (0.02) and start (0.90 to 0.95 pi from the optimum) are inferred: the "
    "page does not give them.",
    "Norms are compared without weight decay at the learning rates that the authors' README names "
    "(SGD 0.1, Adam 0.001), the same for both of a pair: a mechanism, so nothing is tuned there.",
    "Both arms of a pair search the same space, three decades a knob. SGD: around 0.1, decay "
    "around 0.0001 and 0.00001 (the README's). Adam: decay around 0.01; the rate's space reaches "
    "from 0.0001 to 0.1, half a decade above its default, as the runs are short.",
    "Weight decay acts on weights of two and more dimensions, for every arm.",
)

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "toy": _TOY,
        "norms": {"problem": "digits-cnn", "steps": 100},
        "tuned": {"cnn": {"problem": "digits-cnn", "steps": 100}},
        "tune_trials": 4,
        "final_seeds": 5,
        "trial_seconds": 1.0,
        "notes": ("One network of three convolutions, 6 epochs on 1,078 digits.", *_NOTES),
    },
    "full": {
        "toy": _TOY,
        "norms": {"problem": "digits-cnn", "steps": 320},
        "tuned": {
            "cnn": {"problem": "digits-cnn", "steps": 320},
            "mlp": {"problem": "digits-layernorm", "steps": 320},
            "resnet": {"problem": "digits-resnet", "steps": 160},
        },
        "tune_trials": 16,
        "final_seeds": 10,
        "trial_seconds": 2.0,
        "notes": (
            "Three convolutions and a perceptron with layer normalization for 20 epochs, a "
            "residual network of eight convolutions for 10, all on 1,078 digits of 8x8 pixels.",
            *_NOTES,
        ),
    },
    # Batch and schedule as the authors train ImageNet; 100 epochs of 5,005 steps.
    "paper": {
        "toy": _TOY,
        "imagenet": {
            "resnet18": {"model": "ResNet-18", "hardware": "8 GPUs of 32 GB for half a day a run"},
            "resnet50": {"model": "ResNet-50", "hardware": "8 GPUs of 32 GB for a day a run"},
            "mobilenetv2": {"model": "MobileNetV2", "hardware": "8 GPUs of 32 GB for a day a run"},
        },
        "epochs": 100,
        "steps": 500_500,
        "batch_size": 256,
        "tune_trials": 20,
        "final_seeds": 3,
        "trial_seconds": 8 * 43_200.0,
        "notes": (
            "Needs ImageNet (1,281,167 images) and 8 GPUs of 32 GB; configuration only.",
            "100 epochs at batch 256 are our reading; the paper's tables were not readable.",
            *_NOTES,
        ),
    },
}
