"""Sizes of the runs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS"]

_NOTES = (
    "Methods for matrices act on the hidden matrices; embeddings, the last layer and vectors are "
    "AdamW's. Learning rates alone are searched, three decades for every optimizer; of Trion, Dion "
    "and Muon the rate of the matrices (AdamW's part keeps 0.003).",
    "GaLore's factor of the update is 1, so that its rates are AdamW's. GaLore, LDAdam and Dion "
    "are re-expressed from their published updates, for this comparison alone.",
    "Published sizes (Llama models on C4) are not decided at this scale.",
)

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "text": {"steps": 60, "rank": 24, "arms": "few"},
        "energy": {"steps": 40},
        "cost": {"blocks": 5, "width": 128, "layers": 1, "rank": 16},
        "tune_trials": 2,
        "final_seeds": 3,
        "trial_seconds": 1.6,
        "notes": ("60 steps; two tuning trials an optimizer.", *_NOTES),
    },
    "full": {
        "text": {"steps": 220, "rank": 24, "arms": "all"},
        "ranks": {"steps": 220, "ranks": [8, 48]},
        "energy": {"steps": 220},
        "cost": {"blocks": 15, "width": 384, "layers": 2, "rank": 48},
        "tune_trials": 4,
        "final_seeds": 6,
        "trial_seconds": 8.0,
        "notes": (
            "220 steps of batch 16, rank 24 of 96 on all hidden matrices; six seeds.",
            *_NOTES,
        ),
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
        "cost": {"blocks": 15, "width": 384, "layers": 2, "rank": 48},
        "tune_trials": 0,
        "final_seeds": 3,
        "trial_seconds": 7200.0,
        "notes": ("Llama models on C4, context 512, global batch 512, rank 256.",),
    },
}
