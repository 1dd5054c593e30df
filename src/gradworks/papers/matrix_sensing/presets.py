"""Sizes of the runs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["LR", "PRESETS", "RANK"]

RANK = 3
LR = 0.1  # over the largest singular value that is looked for

_PLAIN = [0.6, 0.46, 0.35, 0.26, 0.2, 0.15]  # a rate needs six sizes
_RESET = [0.6, 0.3, 0.15, 0.05, 0.01]

_NOTES = (
    "The step is 0.1 over the largest singular value, which is kappa; matrix, start and "
    "measurements are drawn anew for each seed.",
    "Starts of the symmetric form have alpha = 0.5: from there its slow phase has begun long "
    "before the window of the fit. Slopes are least-squares lines through 100 points, evenly "
    "spaced in log T.",
    "Rates over the scale of the start come from six scales from 0.15 to 0.6.",
    "Rates are lines through log err between 1e-24 and 1e-4; after a reset, behind it.",
    "The trigger of the modified step is ours: a squared residual of 0.01 of that of zero.",
    "The comparison of methods tunes one step size for each, 0.025 to 0.4, with equal budgets; all "
    "start from the same F.",
)


def _symmetric(label: str, n: int, cells: dict[str, tuple[int, float, int | None]]) -> Any:
    """Slow symmetric descent: columns, condition number and measurements over n k of each cell."""
    return {
        "label": label,
        "kind": "symmetric",
        "n": n,
        "cells": {
            name: {"k": k, "kappa": kappa, "factor": factor}
            for name, (k, kappa, factor) in cells.items()
        },
        "alpha": 0.5,
        "steps": 40_000,
        "window": [4_000, 40_000],
    }


def _exact(label: str, n: int, factor: int | None) -> dict[str, Any]:
    """As many columns as the rank."""
    return {"label": label, "kind": "exact", "n": n, "factor": factor, "alpha": 0.5, "steps": 1500}


def _asymmetric(label: str, n: int, factor: int | None) -> dict[str, Any]:
    """Rates of the plain asymmetric form against the scale of its start."""
    return {
        "label": label,
        "kind": "asymmetric",
        "n": n,
        "factor": factor,
        "ks": [4, 5],
        "alphas": _PLAIN,
        "relaxations": 400.0,  # steps times alpha^2
    }


def _one_step(label: str, n: int, factor: int | None) -> dict[str, Any]:
    """Rates after the modified step."""
    return {
        "label": label,
        "kind": "one-step",
        "n": n,
        "factor": factor,
        "k": 5,
        "alphas": _RESET,
        "beta": 0.5,
        "steps": 2500,
    }


_FULL_OBSERVATION: dict[str, Any] = {
    "symmetric": _symmetric(
        "symmetric, full observation", 50, {f"k{k}": (k, 1.0, None) for k in (4, 5, 8)}
    ),
    "exact": _exact("exact rank, full observation", 50, None),
    "asymmetric": _asymmetric("asymmetric, full observation", 50, None),
    "one-step": _one_step("one modified step, full observation", 50, None),
}

_COMPARED: dict[str, Any] = {
    "label": "methods compared, full observation, k = 5",
    "kind": "compared",
    "n": 50,
    "k": 5,
    "alpha": 0.1,
    "steps": 2000,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "workloads": {**_FULL_OBSERVATION, "compared": _COMPARED},
        "tune_trials": 4,
        "final_seeds": 5,
        "trial_seconds": 0.5,
        "notes": ("Full observation of 50 x 50 matrices of rank 3, five seeds.", *_NOTES),
    },
    "full": {
        "workloads": {
            **_FULL_OBSERVATION,
            "symmetric-gaussian": _symmetric(
                "symmetric, Gaussian, m = 10 n k", 30, {f"k{k}": (k, 1.0, 10) for k in (4, 6, 8)}
            ),
            "kappa-gaussian": _symmetric(
                "symmetric, Gaussian, ill-conditioned, k = 5",
                30,
                {f"kappa{kappa}": (5, float(kappa), 10) for kappa in (3, 10)},
            ),
            "measurements": _symmetric(
                "symmetric, Gaussian, fewer and more measurements, k = 6",
                30,
                {f"m{factor}": (6, 1.0, factor) for factor in (2, 5, 20)},
            ),
            "exact-gaussian": _exact("exact rank, Gaussian, m = 10 n k", 20, 10),
            "asymmetric-gaussian": _asymmetric("asymmetric, Gaussian, m = 10 n k", 20, 10),
            "one-step-gaussian": _one_step("one modified step, Gaussian, m = 10 n k", 20, 10),
            "digits": {
                "label": "second moments of the digits, rank 5",
                "kind": "digits",
                "rank": 5,
                "k": 8,
                "alpha": 0.5,
                "steps": 40_000,
                "window": [4_000, 40_000],
            },
            "questions": {
                "label": "questions of the reviewers: imbalance of the start, noise",
                "kind": "questions",
                "n": 20,
                "k": 5,
                "factor": 10,
                "alpha": 0.3,
                "beta": 0.5,
                "steps": 6000,
                "imbalances": [1.0, 1.5, 3.0, 10.0, 30.0],
                "noises": [1e-3, 1e-2, 1e-1],
            },
            "compared": _COMPARED,
        },
        "tune_trials": 8,
        "final_seeds": 10,
        "trial_seconds": 3.5,
        "notes": (
            "Full observation of 50 x 50 matrices; Gaussian measurements of 30 x 30 ones "
            "(symmetric) and 20 x 20 ones (asymmetric), compressed to as many as the matrix has "
            "free entries; the digits as a real target.",
            *_NOTES,
        ),
    },
    # n = 50 and rank 3 are published; k to 20, rank 5 and starts down to 1e-3 are our reading.
    "paper": {
        "workloads": {
            name: {
                "label": f"50 x 50, rank {rank}, k up to 20, Gaussian, {form}",
                "kind": "huge",
                "n": 50,
                "rank": rank,
                "ks": [4, 6, 8, 12, 20],
                "factor": 10,
                "alphas": [0.5, 0.15, 0.05, 0.015, 0.005, 0.001],
                "steps": 1_000_000,
                "hardware": "a GPU of 16 GB with float64 units for a day, or 64 CPU cores",
            }
            for name, rank, form in (
                ("symmetric-gaussian", 3, "symmetric"),
                ("asymmetric-gaussian", 3, "asymmetric"),
                ("symmetric-rank-5", 5, "symmetric"),
                ("asymmetric-rank-5", 5, "asymmetric"),
            )
        },
        "tune_trials": 0,
        "final_seeds": 10,
        "trial_seconds": 8_640.0,
        "notes": ("The published size; 1,000,000 steps a run: configuration only.", *_NOTES),
    },
}
