"""Gradient Similarity Surgery in Multi-Task Deep Learning (2025, arXiv:2506.06130).

The two synthetic problems with and without the clip, and two real problems on which SAM-GS meets
aggregators of torchjd, a loss weighting, equalisation alone and a sum with a tuned weight, each
with as many trials to find its settings. The criteria were fixed before the first run that counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradworks.bench.experiment import Arm, Experiment, Knob, Workload
from gradworks.papers._deciding import decidable
from gradworks.papers.sam_gs.claims import CARD, CLAIMS
from gradworks.papers.sam_gs.figures import figures
from gradworks.papers.sam_gs.presets import LABELS, METHODS, PRESETS, TOYS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

_OURS = ("samgs", "samgs-norm", "toy-samgs", "toy-samgs-free", "toy-samgs-norm")
_KNOBS = {
    "lr": Knob(name="lr", low=1e-4, high=1e-1, default=1e-3),
    "gamma": Knob(name="gamma", low=0.0, high=1.0, default=0.7, scale="linear"),
    "c": Knob(name="c", low=0.0, high=1.0, default=0.5, scale="linear"),
    "weight": Knob(name="weight", low=1e-2, high=1e2, default=1.0),
}


def _real(name: str) -> Arm:
    """A method on the real problems, with its space."""
    method, fixed, knobs = METHODS[name]
    return Arm(
        name=name,
        label=LABELS[name],
        method=method,
        space=tuple(_KNOBS[knob] for knob in ("lr", *knobs)),
        fixed=fixed,
        is_baseline=name not in _OURS,
    )


def _toy(name: str) -> Arm:
    """A method on the synthetic problems, as the authors set it."""
    fixed = TOYS[name]
    return Arm(
        name=name,
        label=LABELS[name],
        method=f"gradworks.papers.sam_gs.toys:Direction({fixed['toy']})",
        fixed=fixed,
        is_baseline=name not in _OURS,
    )


_COST = Arm(name="cost", label=LABELS["cost"], method="gradworks.multitask:SAMGS")
ARMS = (*map(_real, METHODS), *map(_toy, TOYS), _COST)


def _workload(name: str, entry: Mapping[str, Any]) -> Workload:
    """One workload of a preset."""
    return Workload(
        name=name,
        label=entry["label"],
        trial=entry["trial"],
        spec=entry["spec"],
        steps=entry["steps"],
        arms=entry["arms"],
        data=entry["data"],
        select_on="log_error",
    )


def build(preset: str) -> Experiment:
    """Return the experiment of a preset.

    Args:
        preset: ``"quick"``, ``"full"`` or ``"paper"``; the last is a configuration that only
            hardware of the size it names can run.

    Returns:
        Workloads, arms and the claims they decide.

    Raises:
        ValueError: If there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    chosen = PRESETS[preset]
    workloads = tuple(_workload(name, entry) for name, entry in chosen["workloads"].items())
    present = {arm for workload in workloads for arm in workload.arms}
    return Experiment(
        paper=CARD.slug,
        preset=preset,
        workloads=workloads,
        arms=tuple(arm for arm in ARMS if arm.name in present),
        claims=decidable(CLAIMS, workloads),
        tune_trials=chosen["tune_trials"],
        final_seeds=chosen["final_seeds"],
        trial_seconds=chosen["trial_seconds"],
        notes=tuple(chosen["notes"]),
    )
