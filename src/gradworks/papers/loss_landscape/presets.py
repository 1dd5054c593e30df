"""Sizes of the runs, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["MODELS", "NORMED", "PRESETS", "cells"]

AXES = ("random", "hessian", "top_bottom", "trajectory", "adam")
RULES = (None, "weight", "filter", "layer", "model")


def _model(
    label: str,
    kind: str,
    widths: Sequence[int],
    *,
    norm: bool = False,
    optimizer: str = "sgd",
    wrong_labels: float = 0.0,
) -> dict[str, Any]:
    """A network and how it is trained."""
    return {
        "label": label,
        "network": {"kind": kind, "widths": list(widths), "norm": norm},
        "optimizer": optimizer,
        "lr": 0.05 if optimizer == "sgd" else 0.003,
        "wrong_labels": wrong_labels,
    }


MODELS: Mapping[str, Mapping[str, Any]] = {
    "mlp": _model("MLP 64-40-40-10", "mlp", [40, 40]),
    "mlp-wide": _model("wide MLP", "mlp", [128, 128]),
    "mlp-deep": _model("deep MLP", "mlp", [40, 40, 40, 40]),
    "mlp-adam": _model("MLP, Adam", "mlp", [40, 40], optimizer="adam"),
    "mlp-noise": _model("MLP, 20 % wrong labels", "mlp", [40, 40], wrong_labels=0.2),
    "mlp-bn": _model("MLP, batch norm", "mlp", [40, 40], norm=True),
    "mlp-bn-deep": _model("deep MLP, batch norm", "mlp", [40, 40, 40, 40], norm=True),
    "conv-bn": _model("conv, batch norm", "conv", [8, 16], norm=True),
    "conv-bn-wide": _model("wide conv, batch norm", "conv", [12, 24], norm=True),
    "conv-bn-deep": _model("deep conv, batch norm", "conv", [8, 16, 16], norm=True),
    "conv-bn-adam": _model("conv, batch norm, Adam", "conv", [8, 16], norm=True, optimizer="adam"),
    "conv-bn-noise": _model(
        "conv, batch norm, 20 % wrong labels", "conv", [8, 16], norm=True, wrong_labels=0.2
    ),
}
# The two that are looked at more closely, and make up the quick preset.
CLOSER = ("mlp", "conv-bn")
NORMED = tuple(name for name, model in MODELS.items() if model["network"]["norm"])

_LADDER = [["noise", level] for level in (0.0, 0.1, 0.2, 0.3, 0.4, 0.6)]
_SHIFTS = [
    ["noise", 0.0],
    ["noise", 0.3],
    ["noise", 0.6],
    ["rotation", 20.0],
    ["rotation", 40.0],
    ["contrast", 0.4],
    ["translation", 1.0],
    ["mnist", 0.0],
]

_COMMON: Mapping[str, Any] = {
    "train_steps": 600,
    "batch_size": 50,
    "snapshots": 8,  # of the weights, for the axes of the trajectory
    "ladder": [],  # levels of noise that are correlated by themselves
    "spectrum_batch": 256,
    "lanczos_steps": 60,
    "probes": 2,
    "kh_steps": [],  # Lanczos steps with which Kh is measured again
    "plane_batch": 128,
    "calibration_batch": 256,
    "points": 21,
    "distance": 1.0,
    "table_points": 0,
}

_NOTES = (
    "scikit-learn's 8x8 digits (1,000 to train on, 797 to test) in place of ImageNet; the second "
    "data set is the MNIST sample without its margins at 8x8.",
    "A model's criteria are those of one labelled batch of 256 shifted test images: 60 Lanczos "
    "steps, 2 probes, full reorthogonalisation, eval mode, the same probes for every shift. Kh "
    "with n below 1 depends on the number of steps: compare like with like only.",
    "Accuracy is that of all shifted test images; the loss is that of the same batch.",
    "Correlations are one a trained network over the shifts, then averaged over seeds; the "
    "networks are the units. The paper's direction counts: smaller re and Kh, better accuracy.",
    "Planes have 21x21 points from -1 to 1 on a batch of 128 training images; statistics are "
    "re-estimated on 256 others. Hessian axes are unit eigenvectors as in the authors' code, and "
    "in a second comparison as long as the weights, which random filter-normalised axes are too.",
    "SGD has rate 0.05 and momentum 0.9, Adam 0.003; 600 steps of 50; nothing is tuned, no two "
    "networks are compared.",
)


def cells(spec: Mapping[str, Any]) -> list[str]:
    """Return the names of what is measured after training, in order.

    Args:
        spec: The workload's.
    """
    kinds = [tuple(shift) for shift in (*spec["shifts"], *spec["ladder"])]
    found = [f"{kind}{level:g}" for kind, level in dict.fromkeys(kinds)]
    found += [f"kh_{steps}" for steps in spec["kh_steps"]]
    found += ["random", "hessian", "hessian_long"]
    if spec["network"]["norm"]:
        found += ["random_short", "hessian_batch", "scaling"]
    if spec["table_points"]:
        axes = [a for a in AXES if a != "adam" or spec["optimizer"] == "adam"]
        found += [f"table_{a}" for a in axes]
    return found


def _workload(name: str, shifts: Sequence[Sequence[Any]], **changes: Any) -> dict[str, Any]:
    """One network as a workload."""
    closer: dict[str, Any] = {"kh_steps": [20, 100]} if name in CLOSER else {}
    if closer and shifts is not _LADDER:
        closer["ladder"] = _LADDER
    spec = {**_COMMON, **MODELS[name], **closer, "shifts": [list(s) for s in shifts], **changes}
    label = spec.pop("label")
    return {
        "label": label,
        "data": ["digits", "mnist5k"] if ["mnist", 0.0] in spec["shifts"] else ["digits"],
        "steps": spec["train_steps"] + len(cells(spec)),
        "spec": spec,
    }


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "seeds": 1,
        "trial_seconds": 15.0,
        "notes": ("Two networks, six levels of noise, one seed.", *_NOTES),
        "workloads": {name: _workload(name, _LADDER) for name in CLOSER},
    },
    "full": {
        "seeds": 5,
        "trial_seconds": 12.0,
        "notes": ("Twelve networks, eight shifts, five seeds.", *_NOTES),
        "workloads": {name: _workload(name, _SHIFTS, table_points=7) for name in MODELS},
    },
    "paper": {
        "seeds": 3,
        "trial_seconds": 7200.0,
        "notes": (
            "The published scale: torchvision's ImageNet-1K models on ImageNet-v2; configuration "
            "only.",
            *_NOTES[2:4],
        ),
        "workloads": {
            name: {
                "label": f"{name}, ImageNet-1K to ImageNet-v2",
                "data": [],
                "steps": 0,
                "spec": {
                    "torchvision": name,
                    "norm": norm,
                    "images": 10_000,
                    "shifts": ["imagenet-val", "imagenet-v2"],
                    "points": 41,
                    "lanczos_steps": 100,
                    "probes": 2,
                    "hardware": "a GPU of 24 GB, ImageNet's validation images and ImageNet-v2",
                },
            }
            for name, norm in (
                ("vgg16", False),
                ("vgg16_bn", True),
                ("resnet18", True),
                ("resnet50", True),
                ("densenet121", True),
                ("mobilenet_v2", True),
                ("efficientnet_b0", True),
                ("vit_b_16", False),
            )
        },
    },
}
