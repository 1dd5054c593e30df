"""Understanding Hessian Alignment for Domain Generalization (2023, arXiv:2308.11778).

Two alignments of the head against plain training and six rivals, under correlation, label and
diversity shift, each with as many trials to find its settings; and what the distance between the
domains' Hessians says about transfer. The criteria were fixed before the first run that counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gradworks.bench.experiment import Arm, Experiment, Knob, Workload
from gradworks.papers._deciding import decidable
from gradworks.papers.hessian_alignment.claims import CARD, CLAIMS, LABELS
from gradworks.papers.hessian_alignment.figures import figures
from gradworks.papers.hessian_alignment.presets import ALIGNED, PENALISED, PRESETS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

_TRIAL = "gradworks.papers.hessian_alignment.trial"
_HERE = "gradworks.curvature.alignment"
_METHODS = {
    "erm": "torch.optim.Adam",
    "fish": f"{_HERE}.FishOuter",
    "hgp": f"{_HERE}.HGPAlignment",
    "hutchinson": f"{_HERE}.HutchinsonAlignment",
    **{name: f"{_HERE}.{name}_penalty" for name in ("irm", "vrex", "coral", "fishr", "iga")},
}
_ANNEAL = 190 / 501  # share of the steps before the penalty sets in, in the authors' scripts
# Relative to the workload's published weight and learning rate.
_PENALTY = (
    Knob(name="strength", low=1e-2, high=1e2, default=1.0),
    Knob(name="anneal", low=0.0, high=0.75, default=_ANNEAL, scale="linear"),
)
_RATE = Knob(name="rate", low=1 / 30, high=30.0, default=1.0)
_SPACES = {
    "erm": (_RATE,),
    "fish": (_RATE, Knob(name="meta_lr", low=0.05, high=1.0, default=0.5, scale="linear")),
    **dict.fromkeys(PENALISED, _PENALTY),
}


def _tuned(name: str) -> Arm:
    """A method with its space."""
    return Arm(
        name=name,
        label=LABELS[name],
        method=_METHODS[name],
        space=_SPACES[name],
        fixed={"method": name},
        is_baseline=name not in ALIGNED,
    )


def _published(name: str) -> Arm:
    """A method as the authors' scripts run it."""
    return Arm(
        name=f"published-{name}",
        label=f"{LABELS[name]}, published settings",
        method=_METHODS[name],
        fixed={"method": name, "strength": 1.0, "anneal": _ANNEAL},
        is_baseline=name not in ALIGNED,
    )


# Figures that every workload gives; those of variants depend on the preset.
_ALWAYS = {"accuracy", "spearman_spectral", "transfer", "bounded"}
ARMS = (*map(_tuned, LABELS), *map(_published, LABELS))


def _workload(name: str, entry: Mapping[str, Any], preset: str) -> Workload:
    """One workload of a preset."""
    spec = entry["spec"]
    return Workload(
        name=name,
        label=entry["label"],
        trial=f"{_TRIAL}:{'published' if preset == 'paper' else 'trial'}",
        spec=spec,
        steps=spec["steps"] if preset == "paper" else len({**spec["cells"], **spec["variants"]}),
        batch_size=spec["train"].get("batch", 0),
        arms=entry["arms"],
        data=entry["data"],
        select_on="accuracy",
        select_direction="higher",
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
    workloads = tuple(_workload(name, entry, preset) for name, entry in chosen["workloads"].items())
    present = {arm for workload in workloads for arm in workload.arms}
    variants = {f"accuracy_{v}" for w in workloads for v in w.spec.get("variants", ())}
    return Experiment(
        paper=CARD.slug,
        preset=preset,
        workloads=workloads,
        arms=tuple(arm for arm in ARMS if arm.name in present),
        claims=tuple(
            dataclasses.replace(claim, criteria=asked)
            for claim in decidable(CLAIMS, workloads)
            if (asked := tuple(c for c in claim.criteria if c.metric in variants | _ALWAYS))
        ),
        tune_trials=chosen["tune_trials"],
        final_seeds=chosen["final_seeds"],
        trial_seconds=chosen["trial_seconds"],
        notes=tuple(chosen["notes"]),
    )
