"""Sizes of the runs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS"]

_NOTES = (
    "Methods for matrices act on the hidden matrices; embeddings, the last layer and vectors are "
    "AdamW's at 0.003. Learning rates alone are searched, three decades for every optimizer.",
    "Muon is torch.optim.Muon with its updates of AdamW's size and without Nesterov's momentum, as "
    "ARO is; with it, as released, it is an arm of its own. SOAP, the eigen-rotation and the map "
    "without a rotation are re-expressed for this comparison alone.",
    "Steps are those until the validation cross-entropy is first at the target, linear between "
    "evaluations. The target is near where AdamW ended in one pilot run. A run that does not reach "
    "it counts twice its budget.",
    "Step times are medians of blocks in turns, two trials at a time on the machine.",
)

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "text": {"steps": 25, "evals": 5, "target": 3.2, "arms": "few"},
        "descent": {"steps": 25, "evals": 5},
        "cost": {"width": 64, "blocks": 3},
        "tune_trials": 4,
        "final_seeds": 5,
        "trial_seconds": 1.3,
        "notes": ("25 steps; AdamW, Muon and ARO alone; no verdict on many steps.", *_NOTES),
    },
    "full": {
        "text": {"steps": 150, "evals": 30, "target": 2.55, "arms": "all"},
        "descent": {"steps": 150, "evals": 30},
        "cost": {"width": 256, "blocks": 6},
        "tune_trials": 6,
        "final_seeds": 8,
        "trial_seconds": 7.0,
        "notes": ("150 steps of batch 16.", *_NOTES),
    },
    "paper": {
        "pretraining": {
            "gpt2-124m": {
                "model": "GPT-2 of 124M parameters",
                "tokens": "2.5 billion tokens",
                "hardware": "8 GPUs of 80 GB for a day a method",
            },
            "qwen3-8b": {
                "model": "a model like Qwen3 of 8B parameters, and a mixture of experts",
                "tokens": "up to 8 times the compute-optimal number of tokens",
                "hardware": "hundreds of GPUs of 80 GB",
            },
        },
        "steps": 10_000,
        "cost": {"width": 1024, "blocks": 6},
        "tune_trials": 0,
        "final_seeds": 3,
        "trial_seconds": 86_400.0,
        "notes": ("Language model pre-training at the published scale; configuration only.",),
    },
}
