"""Sizes of the runs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS"]

_PICTURES = {
    "train": ["chelsea", "china", "hubble_deep_field", "motorcycle_left", "motorcycle_right"],
    "valid": ["rocket"],
    "test": ["astronaut", "coffee", "flower"],
}
_IMAGES = ("photographs", "sample_images")
_WINDOWS = {"kernel": 7, "scales": 3}
_PIXELS = ("l1", "l2", "ms-ssim")
_WITH_SSIM = ("l1", "l2", "ssim", "ms-ssim")


def _autoencoder(
    label: str,
    kind: str,
    width: int,
    steps: int,
    lr: float,
    arms: tuple[str, ...] = _PIXELS,
    **more: Any,
) -> dict[str, Any]:
    """Reconstruction of patches."""
    return {
        "label": label,
        "trial": "reconstruct",
        "steps": steps,
        "batch_size": 16,
        "arms": arms,
        "data": _IMAGES,
        "spec": {
            "network": {"kind": kind, "width": width, "code": 64},
            "side": 48,
            "pictures": _PICTURES,
            "counts": {"train": 4000, "valid": 120, "test": 120},
            "windows": _WINDOWS,
            "lr": lr,
            **more,
        },
    }


def _enlarge(factor: int, steps: int) -> dict[str, Any]:
    """Super-resolution."""
    return {
        "label": f"super-resolution x{factor}",
        "trial": "enlarge",
        "steps": steps,
        "batch_size": 8,
        "arms": (*_PIXELS, "bicubic"),
        "data": _IMAGES,
        "spec": {
            "factor": factor,
            "width": 16,
            "side": 48,
            "pictures": _PICTURES,
            "counts": {"train": 2000, "valid": 100},
            "windows": _WINDOWS,
            "lr": 1e-3,
        },
    }


def _codes(steps: int) -> dict[str, Any]:
    """Digits."""
    return {
        "label": "codes of digits",
        "trial": "codes",
        "steps": steps,
        "batch_size": 32,
        "arms": _WITH_SSIM,
        "data": ("mnist5k",),
        "spec": {
            "network": {"kind": "mlp", "width": 128, "code": 32},
            "windows": {"kernel": 5, "scales": 3},
            "labels": [50, 100, 200, 500, 1000],
            "lr": 1e-3,
        },
    }


_NOTES = (
    "What people prefer cannot be asked here. Four measures that nobody trained on judge in their "
    "place: GMSD, HaarPSI, VIF and FSIM, chosen before the first run. SSIM with another window is "
    "reported and counts for nothing.",
    "Grey patches of 48x48 from nine photographs: five to train on, one to choose by, three to "
    "test on. Every other patch is from the photograph at half its size.",
    "Fully connected autoencoders start at the principal components of the training patches, the "
    "best linear code for squared error: there L1 and L2 lack no steps. Convolutional ones start "
    "at random and are not at their plateau at this budget.",
    "Variational codes cost the same 96 nats under every loss: each run finds the weight of its "
    "loss for that. Images are judged from a drawn code.",
    "MS-SSIM with a window of 7 (digits: 5) and three scales, weights renormalised; SSIM with the "
    "same window. Convolutional images end in a sigmoid: without it a network was seen to start "
    "where the published clamp at zero leaves no gradient, and stay there.",
    "Codes of 64 numbers only, digits 32; no mixture of losses.",
)
_TUNING = (
    "Every loss has eight trials for its learning rate, three decades, chosen by its own value on "
    "patches of the photograph that is kept for that."
)

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "workloads": {
            "mlp": _autoencoder("fully connected autoencoder", "mlp", 64, 300, 3e-4),
            "conv": _autoencoder("convolutional autoencoder", "conv", 8, 400, 3e-3),
        },
        "tune_trials": 0,
        "final_seeds": 2,
        "trial_seconds": 4.0,
        "notes": ("Two seeds, nothing tuned: an indication.", *_NOTES),
    },
    "full": {
        "workloads": {
            "mlp": _autoencoder("fully connected autoencoder", "mlp", 64, 300, 3e-4),
            "conv": _autoencoder("convolutional autoencoder", "conv", 8, 400, 3e-3, _WITH_SSIM),
            "vae": _autoencoder(
                "expected-loss variational autoencoder", "mlp", 64, 300, 3e-4, nats=96.0
            ),
            "sr-x2": _enlarge(2, 250),
            "sr-x3": _enlarge(3, 250),
            "codes": _codes(400),
        },
        "tune_trials": 8,
        "final_seeds": 10,
        "trial_seconds": 2.5,
        "notes": (_TUNING, *_NOTES),
    },
    "paper": {
        "workloads": {
            "conv": {
                "label": "natural images, all networks of the paper",
                "trial": "published",
                "steps": 500_000,
                "batch_size": 64,
                "arms": _PIXELS,
                "data": (),
                "spec": {
                    "networks": "fully connected and convolutional autoencoders, EL-VAE and SRCNN",
                    "data": "STL-10, ImageNet patches and Extended Yale B (image folders)",
                    "lr": 1e-3,
                    "hardware": "a GPU of 12 GB for several days",
                },
            },
        },
        "tune_trials": 0,
        "final_seeds": 3,
        "trial_seconds": 86_400.0,
        "notes": ("The published scale: configuration only, not run here.",),
    },
}
