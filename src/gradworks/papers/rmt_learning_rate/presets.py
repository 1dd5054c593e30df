"""Sizes of the runs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS"]

_REFERENCE = {"steps": 150, "lr": 0.1, "batch_size": 64}
_MNIST = {"data": "mnist5k", "pool": 2, "reference": _REFERENCE}
_DIGITS = {"data": "digits", "pool": 1, "reference": _REFERENCE}
_FIT, _HELD_OUT = [8, 32, 128], [16, 64, 256, 512]

_NOTES = (
    "No code of the final learner was found; its rule and the constants of the laws are those of "
    "the library's page.",
    "Networks of 2,000 to 8,000 parameters on 5,000 images averaged to 14x14 pixels and on "
    "scikit-learn's digits.",
    "Plain SGD and Adam with torch's defaults, constant rates a factor of sqrt 2 apart, all rates "
    "on the same batches; the second threshold, log 10, is reported beside the first. An end of a "
    "grid that trains is no measurement.",
    "The noise model is measured after 150 steps of SGD at rate 0.1 and batch size 64; the largest "
    "rates start from the same initial weights.",
    "Law 1 itself never lets the rate grow faster than the square root of the batch size: a slope "
    "of 1 for SGD contradicts it below saturation. Its own slope is reported beside the measured.",
    "The learner starts at the rate and momentum of the first tuning run of the others (0.1 and "
    "0.9); they are tuned over the rate only.",
)


def _law(
    label: str,
    network: str,
    *,
    steps: int,
    inputs: str = "pixels",
    repeats: int = 8,
    ggn_repeats: int = 4,
) -> dict[str, Any]:
    """Spectra of batches and of all data after some steps of training."""
    return {
        "label": label,
        "study": "eigenvalues",
        **_MNIST,
        "reference": {**_REFERENCE, "steps": steps},
        "inputs": inputs,
        "network": network,
        "fit": _FIT,
        "held_out": _HELD_OUT,
        "repeats": repeats,
        "ggn_repeats": ggn_repeats,
        "lanczos_steps": 25,
    }


def _rates(label: str, data: Mapping[str, Any], sizes: list[int]) -> dict[str, Any]:
    """The largest rates of SGD and Adam."""
    return {
        "label": label,
        "study": "rates",
        **data,
        "inputs": "standard",
        "network": "deep",
        "steps": 150,
        "sizes": sizes,
        "rates": {"sgd": [2**-5, 2**6], "adam": [2**-8, 2**2]},
    }


def _learner(
    label: str,
    data: Mapping[str, Any],
    parts: list[int],
    *,
    network: str,
    epochs: int,
    batch_size: int,
) -> dict[str, Any]:
    """Train to the end of a budget: tuned schedules and learners."""
    return {
        "label": label,
        "study": "learner",
        **data,
        "inputs": "standard",
        "network": network,
        "parts": parts,
        "batch_size": batch_size,
        "steps": epochs * (parts[0] // batch_size),
        "allowance": 0.01,
    }


_DAMPING = {
    "label": "digits averaged to 4x4, 16-6-10, damped Gauss-Newton steps",
    "study": "dampings",
    "data": "digits",
    "pool": 2,
    "inputs": "standard",
    "network": "shallow",
    "hidden": 6,
    "steps": 40,
    "dampings": [-16, 0],
    "lr": 0.25,
    "sizes": [4, 6, 9, 14, 21, 32],
    "batch_size": 16,
    "rates": [0.0625, 0.125, 0.25, 0.333, 0.5, 1.0],
}

_EARLY = _law("196-32-32-10 after 150 steps", "deep", steps=150)
_RATES_DIGITS = _rates("digits", _DIGITS, [3, 4, 6, 8, 11, 16, 23, 32, 64, 256])

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "workloads": {
            "law-early": {**_EARLY, "repeats": 6, "ggn_repeats": 2, "lanczos_steps": 20},
            "rates-digits": {**_RATES_DIGITS, "sizes": [3, 4, 6, 8, 11, 16, 23, 32, 64]},
            "damping": _DAMPING,
            "learner-digits": _learner(
                "digits, 64-32-10",
                _DIGITS,
                [1000, 300],
                network="shallow",
                epochs=10,
                batch_size=32,
            ),
        },
        "tune_trials": 8,
        "final_seeds": 5,
        "trial_seconds": 1.2,
        "notes": ("One network and stage for the law, digits for the rest.", *_NOTES),
    },
    "full": {
        "workloads": {
            "law-early": _EARLY,
            "law-late": _law("196-32-32-10 after 1,000 steps", "deep", steps=1000),
            "law-shallow": _law("196-32-10 after 500 steps", "shallow", steps=500),
            "law-standard": _law(
                "196-32-32-10, standardised inputs, 500 steps", "deep", steps=500, inputs="standard"
            ),
            "law-conv": _law(
                "convolutional with batch norm, 500 steps",
                "conv",
                steps=500,
                repeats=3,
                ggn_repeats=2,
            ),
            "rates-mnist": _rates(
                "MNIST sample", _MNIST, [4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 256, 512]
            ),
            "rates-digits": _RATES_DIGITS,
            "damping": _DAMPING,
            "learner-digits": _learner(
                "digits, 64-32-10",
                _DIGITS,
                [1000, 300],
                network="shallow",
                epochs=20,
                batch_size=32,
            ),
            "learner-mnist": _learner(
                "MNIST sample, 196-32-32-10",
                _MNIST,
                [3000, 1000],
                network="deep",
                epochs=20,
                batch_size=64,
            ),
            "learner-conv": _learner(
                "MNIST sample, convolutional with batch norm",
                _MNIST,
                [3000, 1000],
                network="conv",
                epochs=8,
                batch_size=64,
            ),
        },
        "tune_trials": 8,
        "final_seeds": 10,
        "trial_seconds": 3.1,
        "notes": _NOTES,
    },
    "paper": {
        "workloads": {
            name: {
                "label": f"{network}, {data}",
                "study": "huge",
                "network": network,
                "parameters": parameters,
                "data": data,
                "epochs": epochs,
                "batch_sizes": [32, 64, 128, 256, 512, 1024],
                "hardware": hardware,
            }
            for name, network, parameters, data, epochs, hardware in (
                ("law-vgg", "VGG-16", 15_300_000, "CIFAR-100", 300, "a GPU of 16 GB"),
                ("rates-vgg", "VGG-16", 15_300_000, "CIFAR-100", 300, "a GPU of 16 GB"),
                ("rates-wrn", "WRN-28-10", 36_500_000, "CIFAR-100", 200, "8 GPUs"),
                ("rates-imagenet", "WideResNet", 36_500_000, "ImageNet", 90, "8 GPUs"),
                (
                    "learner-preresnet",
                    "Pre-ResNet-110",
                    1_730_000,
                    "CIFAR-100",
                    200,
                    "a GPU of 16 GB",
                ),
            )
        },
        "tune_trials": 8,
        "final_seeds": 3,
        "trial_seconds": 36_000.0,
        "notes": (
            "The published scale: configuration only. Epochs and batch sizes are ours: the body of "
            "the paper was not read.",
            *_NOTES,
        ),
    },
}
