"""Sizes of the runs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS"]

_COUNTING = (
    "The paper counts outliers by eye; here the largest gap between neighbouring leading "
    "eigenvalues decides (ratio at least 1.3 among the 40 largest)."
)
_OPTIMIZER = "Plain gradient descent without momentum, schedule or weight decay throughout."


def _basin(
    label: str,
    data: str,
    network: Mapping[str, Any],
    *,
    steps: int,
    examples: int = 1000,
    small: int = 10,
    lr: float = 0.1,
) -> dict[str, Any]:
    """Five runs of ``steps`` each: A, B, B with a larger rate, C, D."""
    return {
        "label": label,
        "steps": 5 * steps,
        "data": [data],
        "spec": {
            "study": "basin",
            "data": data,
            "network": dict(network),
            "examples": examples,
            "pool": 2 if data == "mnist5k" else 1,
            "steps": steps,
            "lr": lr,
            "fast": 3.0,
            "small_batch": small,
            "num_points": 25,
        },
    }


_BLOBS = {"data": "blobs", "features": 10, "separation": 3.0, "examples": 1000, "lr": 0.2}
_MNIST = {"data": "mnist5k", "pool": 2, "examples": 1000, "lr": 0.1}
_CONV = {"kind": "conv", "channels": [4, 8]}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "seeds": 5,
        "trial_seconds": 3.0,
        "batch_sizes": [10, 100, 1000],
        "notes": [
            "Gaussian blobs in 10 dimensions and scikit-learn's digits in place of MNIST and "
            "CIFAR-10; two hidden layers of 10 to 30 units.",
            "Spectra are exact up to 1,000 parameters; above, quadrature gives the shares and "
            "Lanczos the leading and lowest eigenvalues.",
            _COUNTING,
            _OPTIMIZER,
        ],
        "workloads": {
            "widths": {
                "label": "5 blobs, hidden 10/20/30",
                "steps": 3 * 2000,
                "data": [],
                "spec": {
                    **_BLOBS,
                    "study": "widths",
                    "classes": 5,
                    "hidden": [10, 20, 30],
                    "steps": 2000,
                    "batch_size": 100,
                    "exact_up_to": 1000,
                    "lanczos_steps": 60,
                },
            },
            "classes": {
                "label": "2, 5 or 10 blobs, hidden 20",
                "steps": 3 * 2000,
                "data": [],
                "spec": {
                    **_BLOBS,
                    "study": "classes",
                    "classes": [2, 5, 10],
                    "hidden": 20,
                    "steps": 2000,
                    "batch_size": 100,
                },
            },
            "separations": {
                "label": "5 blobs at distances 1, 3, 5, hidden 10",
                "steps": 3 * 2000,
                "data": [],
                "spec": {
                    **_BLOBS,
                    "study": "separations",
                    "classes": 5,
                    "separation": [1.0, 3.0, 5.0],
                    "hidden": 10,
                    "steps": 2000,
                    "batch_size": 100,
                },
            },
            "batches": {
                "label": "5 blobs, hidden 10, batch 10/100/1000",
                "steps": 1500,
                "data": [],
                "spec": {**_BLOBS, "study": "batches", "classes": 5, "hidden": 10, "steps": 1500},
            },
            "basin-digits": _basin(
                "digits, 64-40-40-10", "digits", {"kind": "mlp", "hidden": 40}, steps=800
            ),
        },
    },
    "full": {
        "seeds": 10,
        "trial_seconds": 13.0,
        "batch_sizes": [10, 100, 1000],
        "notes": [
            "MNIST is a sample of 5,000 images (1,000 are drawn a seed), averaged to 14x14 pixels; "
            "two hidden layers.",
            "The paths are those of scikit-learn's digits and of small convolutional networks on "
            "the MNIST sample, not of CIFAR-10.",
            "Spectra are exact up to 1,500 parameters; above, quadrature gives the shares and "
            "Lanczos the leading and lowest eigenvalues.",
            _COUNTING,
            _OPTIMIZER,
        ],
        "workloads": {
            "widths": {
                "label": "MNIST sample 14x14, hidden 10/30/50/70",
                "steps": 4 * 5000,
                "data": ["mnist5k"],
                "spec": {
                    **_MNIST,
                    "study": "widths",
                    "classes": 10,
                    "hidden": [10, 30, 50, 70],
                    "steps": 5000,
                    "batch_size": 100,
                },
            },
            "classes": {
                "label": "2 to 10 digits of the MNIST sample, hidden 30",
                "steps": 9 * 2000,
                "data": ["mnist5k"],
                "spec": {
                    **_MNIST,
                    "study": "classes",
                    "classes": [2, 3, 4, 5, 6, 7, 8, 9, 10],
                    "hidden": 30,
                    "steps": 2000,
                    "batch_size": 100,
                },
            },
            "separations": {
                "label": "5 blobs at distances 1 to 5, hidden 20",
                "steps": 5 * 2000,
                "data": [],
                "spec": {
                    **_BLOBS,
                    "study": "separations",
                    "classes": 5,
                    "separation": [1.0, 2.0, 3.0, 4.0, 5.0],
                    "hidden": 20,
                    "steps": 2000,
                    "batch_size": 100,
                },
            },
            "batches": {
                "label": "MNIST sample 14x14, hidden 30, batch 10/100/1000",
                "steps": 3000,
                "data": ["mnist5k"],
                "spec": {**_MNIST, "study": "batches", "classes": 10, "hidden": 30, "steps": 3000},
            },
            "basin-digits": _basin(
                "digits, 64-40-40-10", "digits", {"kind": "mlp", "hidden": 40}, steps=1500
            ),
            "basin-conv": _basin(
                "MNIST sample, convolutional",
                "mnist5k",
                {**_CONV, "norm": False},
                steps=600,
                examples=500,
                small=25,
            ),
            "basin-conv-norm": _basin(
                "MNIST sample, convolutional with batch norm",
                "mnist5k",
                {**_CONV, "norm": True},
                steps=600,
                examples=500,
                small=25,
            ),
        },
    },
    "paper": {
        "seeds": 3,
        "trial_seconds": 3600.0,
        "batch_sizes": [10, 100, 1000],
        "notes": [
            "For a machine with one GPU or 16 cores and 64 GB of memory: exact spectra of up to "
            "62,000 parameters take 30 GB each.",
            "CIFAR-10 is no packaged data set: name an .npz file with X (50000, 3, 32, 32) and y "
            "in GRADWORKS_CIFAR10. MNIST is the packaged sample at 28x28.",
            _COUNTING,
            _OPTIMIZER,
        ],
        "workloads": {
            "widths": {
                "label": "MNIST sample 28x28, hidden 10/30/50/70",
                "steps": 4 * 20_000,
                "data": ["mnist5k"],
                "spec": {
                    **_MNIST,
                    "pool": 1,
                    "study": "widths",
                    "classes": 10,
                    "hidden": [10, 30, 50, 70],
                    "steps": 20_000,
                    "batch_size": 1000,
                    "exact_up_to": 62_000,
                },
            },
            "classes": {
                "label": "2 to 10 digits of the MNIST sample, hidden 30",
                "steps": 9 * 20_000,
                "data": ["mnist5k"],
                "spec": {
                    **_MNIST,
                    "pool": 1,
                    "study": "classes",
                    "classes": [2, 3, 4, 5, 6, 7, 8, 9, 10],
                    "hidden": 30,
                    "steps": 20_000,
                    "batch_size": 1000,
                    "exact_up_to": 30_000,
                },
            },
            "batches": {
                "label": "MNIST sample 28x28, hidden 30, batch 10/100/1000",
                "steps": 20_000,
                "data": ["mnist5k"],
                "spec": {
                    **_MNIST,
                    "pool": 1,
                    "study": "batches",
                    "classes": 10,
                    "hidden": 30,
                    "steps": 20_000,
                },
            },
            "basin-conv": {
                **_basin(
                    "CIFAR-10, convolutional",
                    "cifar10",
                    {"kind": "conv", "channels": [32, 64], "norm": False},
                    steps=20_000,
                    examples=40_000,
                    small=100,
                ),
                "data": [],
            },
        },
    },
}
