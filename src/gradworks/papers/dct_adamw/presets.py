"""Sizes of the runs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS"]

_NOTES = (
    "Methods for matrices act on the hidden matrices; embeddings, the last layer and vectors are "
    "AdamW's. Learning rates alone are searched, three decades for every optimizer; of Trion, Dion "
    "and Muon the rate of the matrices (AdamW's part keeps 0.003).",
    "GaLore's factor of the update is 1, so that its rates are AdamW's. LDAdam keeps its published "
    "betas, 0.908 and 0.99. GaLore, LDAdam and Dion are re-expressed for this comparison alone.",
    "The random basis is one for all seeds. Ranks are compared at one rate each, untuned.",
    "Step times are medians of blocks in turns, two trials at a time on the machine.",
)
# Width, rank and blocks of the step times: one block of a transformer.
_COST = {"blocks": 6, "width": 384, "layers": 1, "rank": 48}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "text": {"steps": 25, "rank": 24, "arms": "few", "evals": 5},
        "energy": {"steps": 25, "evals": 3},
        "cost": {**_COST, "blocks": 3, "width": 96, "rank": 12},
        "tune_trials": 4,
        "final_seeds": 5,
        "trial_seconds": 1.2,
        "notes": ("25 steps; a few of the optimizers; step times of width 96.", *_NOTES),
    },
    "full": {
        "text": {"steps": 120, "rank": 24, "arms": "all", "evals": 12},
        "ranks": {"steps": 60, "evals": 4, "dct": [8, 24, 48, 96], "trion": [8, 24, 48, 96]},
        "energy": {"steps": 120, "evals": 12},
        "cost": _COST,
        "tune_trials": 8,
        "final_seeds": 10,
        "trial_seconds": 4.0,
        "notes": ("120 steps of batch 16, rank 24 of 96; ranks: 60 steps.", *_NOTES),
    },
    "paper": {
        "llama": {
            "llama-350m": {"model": "Llama-350M", "hardware": "8 GPUs of 80 GB for 2 hours a run"},
            "llama-800m": {"model": "Llama-800M", "hardware": "8 GPUs of 80 GB for 2 days a run"},
            "llama-1300m": {"model": "Llama-1.3B", "hardware": "8 GPUs of 80 GB for 1 day a run"},
        },
        "context": 512,
        "batch_size": 512,
        "rank": 256,
        "steps": 30_000,
        "cost": _COST,
        "tune_trials": 0,
        "final_seeds": 3,
        "trial_seconds": 7200.0,
        "notes": (
            "Llama models on C4, context 512, global batch 512, rank 256, 20 tokens a parameter; "
            "configuration only.",
        ),
    },
}
