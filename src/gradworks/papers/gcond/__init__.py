"""GCond: gradient conflicts resolved after accumulation (2025, arXiv:2509.07252).

Masked reconstruction with L1 and SSIM by GCond in both modes against the sum, its rivals, and the
sum with the same momentum and the same stochastic accumulation; what a step costs is counted and
timed. The criteria were fixed before the first run that counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradworks.bench.experiment import Arm, Experiment, Knob, Workload
from gradworks.papers._deciding import decidable
from gradworks.papers.gcond.claims import CARD, CLAIMS, LABELS
from gradworks.papers.gcond.figures import figures
from gradworks.papers.gcond.presets import PRESETS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

_HERE = "gradworks.papers.gcond"
# Three decades around the rates of small networks; of the sign step around its own scale.
_RATE = Knob(name="lr", low=1e-4, high=1e-1, default=3e-3)
_SIGN_RATE = Knob(name="lr", low=0.03, high=30.0, default=1.0)
_GCOND = {"method": "gcond", "beta1": 0.0}
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "sum": {"method": "sum"},
    "pcgrad": {"method": "torchjd:PCGrad"},
    "cagrad": {"method": "torchjd:CAGrad", "options": {"c": 0.5}},
    "gradnorm": {"method": "gradnorm"},
    "imtlg": {"method": "torchjd:IMTLG"},
    "sum-momentum": {"method": "sum", "beta1": 0.0, "smoothing": 0.85},
    "sum-stochastic": {"method": "sum", "beta1": 0.0, "smoothing": 0.85, "mode": "stochastic"},
    "gcond-stochastic": {**_GCOND, "mode": "stochastic"},
    "gcond-sequential": {**_GCOND, "mode": "sequential"},
    "gcond-zones": {**_GCOND, "mode": "stochastic", "options": {"smooth": False}},
    "gcond-still": {**_GCOND, "mode": "stochastic", "options": {"momentum": 0.0}},
    "gcond-lion": {
        **_GCOND, "mode": "stochastic", "options": {"lion": True}, "optimizer": "sgd"
    },
}  # fmt: skip
_METHODS = {
    "pcgrad": "torchjd.aggregation.PCGrad",
    "cagrad": "torchjd.aggregation.CAGrad",
    "imtlg": "torchjd.aggregation.IMTLG",
    "gradnorm": "gradworks.multitask.loss_weighting.GradNorm",
}


def _arm(name: str) -> Arm:
    """A method with its space."""
    plain = "gradworks.multitask.Aggregator"
    ours = name.startswith("gcond")
    return Arm(
        name=name,
        label=LABELS[name],
        method="gradworks.multitask.gcond.GCond" if ours else _METHODS.get(name, plain),
        space=(_SIGN_RATE if name == "gcond-lion" else _RATE,),
        fixed=_SETTINGS[name],
        is_baseline=not ours,
    )


_COST = Arm(name="cost", label="cost of a step", method="gradworks.multitask.gcond.Conductor")
ARMS = (*map(_arm, LABELS), _COST)


def _workload(name: str, entry: Mapping[str, Any]) -> Workload:
    """One workload of a preset."""
    spec = entry["spec"]
    return Workload(
        name=name,
        label=entry["label"],
        trial=f"{_HERE}.{entry['trial']}",
        spec=spec,
        steps=entry["steps"],
        batch_size=spec["accumulation"] * spec["micro"],
        arms=entry["arms"],
        data=entry["data"],
        select_on="loss",
        select_direction="lower",
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
