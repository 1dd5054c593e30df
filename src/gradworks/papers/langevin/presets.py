"""Sizes of the runs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS"]

_NOTES = (
    "Our step: Euler's on the sphere with a retraction, lr = cs / (temperature d), cs = 0.2, "
    "temperature c / sqrt(n d); the paper analyses continuous time.",
    "Our normalization of tensor PCA: noise averaged over all permutations of the indices, divided "
    "by sqrt(n).",
    "The direction is read off the mean (odd order) or off the second moment (order 4), whose use "
    "is our derivation.",
    "A step of the chains uses all samples; problems of one size run side by side, one chain each.",
    "The asymptotic exponents are out of reach at these sizes; n at which half of the problems are "
    "solved is from a logistic fit at c = 2.",
)


def _tensors(
    label: str,
    sizes: list[int],
    factors: list[float],
    *,
    problems: int,
    c: float,
    steps: int,
    order: int = 3,
    **spec: Any,
) -> dict[str, Any]:
    """A study on tensors."""
    return {
        "label": label,
        "arms": ["langevin", *spec.pop("arms", [])],
        "spec": {
            "model": "tensor",
            "order": order,
            "sizes": sizes,
            "factors": factors,
            "problems": problems,
            "c": c,
            "cs": 0.2,
            "steps": steps,
            **spec,
        },
    }


def _single_index(
    sizes: list[int], *, problems: int, steps: int, sgd_steps: int, arms: list[str]
) -> dict[str, Any]:
    """A study on single-index models, with SGD beside."""
    return {
        "label": "single-index models, exponent 3, n = d^1.5",
        "arms": ["langevin", *arms],
        "spec": {
            "model": "single-index",
            "order": 3,
            "sizes": sizes,
            "factors": [1.0],
            "problems": problems,
            "c": 8.0,
            "cs": 0.2,
            "steps": steps,
            "sgd_steps": sgd_steps,
        },
    }


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "tune_trials": 4,
        "final_seeds": 5,
        "trial_seconds": 1.6,
        "workloads": {
            "half": _tensors(
                "order 3, n = d^1.5 / 2, c = 4", [10, 16, 25], [0.5], problems=5, c=4.0, steps=16000
            ),
            "sizes": _tensors(
                "order 3, n = d^1.5, c = 4",
                [8, 10, 12, 14, 18, 22],
                [1.0],
                problems=5,
                c=4.0,
                steps=6000,
                arms=["smoothing", "power"],
                draws=64,
                smoothing_steps=60,
            ),
            "order-4": _tensors(
                "order 4, n = d^2 / 4, c = 4",
                [8, 14],
                [0.25],
                problems=5,
                c=4.0,
                steps=8000,
                order=4,
            ),
            "single-index": _single_index(
                [10, 16], problems=5, steps=16000, sgd_steps=3000, arms=["sgd-4", "online"]
            ),
        },
        "notes": ("5 problems of each size and seed, 25 in all; d up to 25; c = 4.", *_NOTES),
    },
    "full": {
        "tune_trials": 8,
        "final_seeds": 10,
        "trial_seconds": 6.5,
        "workloads": {
            "half": _tensors(
                "order 3, n = d^1.5 / 2, c = 8",
                [16, 25, 36],
                [0.5],
                problems=10,
                c=8.0,
                steps=64000,
            ),
            "sizes": _tensors(
                "order 3, n = d^1.5, c = 4",
                [10, 13, 16, 25, 36, 48],
                [1.0],
                problems=10,
                c=4.0,
                steps=16000,
                arms=["smoothing", "power"],
                draws=64,
                smoothing_steps=200,
            ),
            "samples": _tensors(
                "order 3, n from d^1.5 / 8 to d^1.5, c = 2",
                [10, 13, 16, 25, 36, 48],
                [0.125, 0.18, 0.25, 0.35, 0.5, 0.71, 1.0],
                problems=4,
                c=2.0,
                steps=4000,
            ),
            "order-4": _tensors(
                "order 4, n = d^2 / 4, c = 4",
                [8, 14],
                [0.25],
                problems=10,
                c=4.0,
                steps=12000,
                order=4,
            ),
            "single-index": _single_index(
                [10, 16, 25],
                problems=10,
                steps=64000,
                sgd_steps=8000,
                arms=["sgd-1", "sgd-4", "sgd-32", "online"],
            ),
        },
        "notes": (
            "10 problems of each size and seed (4 for each number of samples of the fit), 100 in "
            "all.",
            *_NOTES,
        ),
    },
    # The sizes at which exponents begin to tell; orders 3 to 5.
    "paper": {
        "tune_trials": 8,
        "final_seeds": 10,
        "trial_seconds": 3600.0,
        "workloads": {
            name: {
                "label": f"order {order}, d up to {sizes[-1]}",
                "arms": ["langevin"],
                "spec": {
                    "model": "tensor",
                    "order": order,
                    "sizes": sizes,
                    "factors": [0.25, 0.5, 1.0],
                    "problems": 10,
                    "c": 8.0,
                    "cs": 0.05,
                    "steps": 1_000_000,
                    "memory": memory,
                    "hardware": "one GPU of 80 GB for about a day",
                },
            }
            for name, order, sizes, memory in (
                ("half", 3, [50, 100, 150, 200], "32 MB"),
                ("order-4", 4, [30, 60, 100], "400 MB"),
                ("order-5", 5, [20, 30, 50], "1.25 GB"),
            )
        },
        "notes": ("Needs one GPU of 80 GB for about a day; configuration only.", *_NOTES),
    },
}
