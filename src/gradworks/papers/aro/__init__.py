"""ARO: A New Lens On Matrix Optimization For Large Models (2026, arXiv:2602.09006).

A language model with learning rates tuned alike, steps to AdamW's loss; how well each frame aligns
with the momentum; bytes and step times. The criteria were fixed before the first run that counts;
the loss to be reached is where AdamW ended in a pilot run of one seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradworks.bench.experiment import Arm, Experiment, Knob, Workload
from gradworks.papers._deciding import decidable
from gradworks.papers.aro.claims import CARD, CLAIMS
from gradworks.papers.aro.figures import figures
from gradworks.papers.aro.presets import PRESETS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

_HERE = "gradworks.papers.aro.trial"
_BASELINES = "gradworks.papers.aro.baselines"
_ARO = f"{_BASELINES}.RotatedARO"
_FRAME = f"{_BASELINES}.FixedFrame"
_MUON = "gradworks.bench.muon.MuonWithAdamW"
_AS_ADAM = (Knob(name="lr", low=1e-4, high=1e-1, default=3e-3),)
# updates of matrices have AdamW's size in all of them
_AS_ARO = (Knob(name="lr", low=3e-4, high=3e-1, default=1e-2),)
_REST = {"adamw_lr": 3e-3, "weight_decay": 0.0}  # of what is no hidden matrix
_SIZED = {**_REST, "adjust_lr_fn": "match_rms_adamw"}
_METHODS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "aro": ("ARO, Sinkhorn", _ARO, {"weight_decay": 0.0}),
    "aro-sign": ("ARO, sign", _ARO, {"weight_decay": 0.0, "base": "sign"}),
    "muon": ("Muon", _MUON, {**_SIZED, "nesterov": False}),
    "muon-nesterov": ("Muon, Nesterov", _MUON, _SIZED),
    "soap": ("SOAP", f"{_BASELINES}.SOAP", {**_REST, "gap": 1}),
    "eigen": ("Sinkhorn, eigenbasis", _FRAME, {**_REST, "base": "sinkhorn", "frame": "eigen"}),
    "eigen-sign": ("sign, eigenbasis", _FRAME, {**_REST, "base": "sign", "frame": "eigen"}),
    "plain": ("Sinkhorn, no rotation", _FRAME, {**_REST, "base": "sinkhorn", "frame": "none"}),
}
_CHOSEN = {"all": ("adamw", *_METHODS), "few": ("adamw", "muon", "aro")}
_OURS = ("aro", "aro-sign")


def _arms() -> tuple[Arm, ...]:
    """All optimizers, and what is looked at or measured at one rate."""
    made = [
        Arm(
            name="adamw",
            label="AdamW",
            method="torch.optim.AdamW",
            space=_AS_ADAM,
            fixed={"weight_decay": 0.0},
            is_baseline=True,
        )
    ]
    made += [
        Arm(
            name=name,
            label=label,
            method=method,
            space=_AS_ARO,
            fixed=settings,
            is_baseline=name not in _OURS,
        )
        for name, (label, method, settings) in _METHODS.items()
    ]
    made += [
        Arm(
            name=name,
            label=f"{_METHODS[of][0]}, watched",
            method=_ARO,
            fixed={**_METHODS[of][2], "lr": 0.02},
        )
        for name, of in (("watched", "aro"), ("watched-sign", "aro-sign"))
    ]
    made.append(Arm(name="cost", label="ARO", method="gradworks.optim.ARO"))
    return tuple(made)


def _text(
    name: str, label: str, trial: str, steps: int, arms: tuple[str, ...], **spec: Any
) -> Workload:
    """The language model that all optimizers share."""
    return Workload(
        name=name,
        label=label,
        trial=trial,
        spec={"problem": "text-transformer", **spec},
        steps=steps,
        batch_size=16,
        arms=arms,
        data=("topics_text",),
        select_on="nats",
    )


def _workloads(chosen: Mapping[str, Any]) -> tuple[Workload, ...]:
    """The workloads of a preset."""
    made = []
    if "text" in chosen:
        size = chosen["text"]
        made.append(
            _text(
                "text",
                "transformer on Python's manual",
                f"{_HERE}:race",
                size["steps"],
                _CHOSEN[size["arms"]],
                evals=size["evals"],
                target=size["target"],
            )
        )
    if "descent" in chosen:
        size = chosen["descent"]
        made.append(
            _text(
                "descent",
                "which frame aligns more",
                "gradworks.bench.training:train",
                size["steps"],
                ("watched", "watched-sign"),
                evals=size["evals"],
                observer=f"{_HERE}:Alignment",
            )
        )
    made += [
        Workload(
            name=name,
            label=size["model"],
            trial=f"{_HERE}:pretraining",
            spec=dict(size),
            steps=chosen["steps"],
            arms=_CHOSEN["few"],
            select_on="nats",
        )
        for name, size in chosen.get("pretraining", {}).items()
    ]
    made.append(
        Workload(
            name="cost",
            label="bytes and time of a step",
            trial=f"{_HERE}:cost",
            spec=dict(chosen["cost"]),
            arms=("cost",),
            select_on="over_adamw",
        )
    )
    return tuple(made)


def build(preset: str) -> Experiment:
    """Return the experiment of a preset.

    Args:
        preset: ``"quick"``, ``"full"`` or ``"paper"``; the last is a configuration that only
            hardware and data of the published size can run.

    Returns:
        Workloads, arms and the claims they decide.

    Raises:
        ValueError: If there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    chosen = PRESETS[preset]
    workloads = _workloads(chosen)
    large = [w.name for w in workloads if w.trial.endswith(":pretraining")]
    used = {name for workload in workloads for name in workload.arms}
    return Experiment(
        paper=CARD.slug,
        preset=preset,
        workloads=workloads,
        arms=tuple(arm for arm in _arms() if arm.name in used),
        claims=decidable(CLAIMS, workloads, instead={"steps_to_target": large} if large else None),
        tune_trials=chosen["tune_trials"],
        final_seeds=chosen["final_seeds"],
        trial_seconds=chosen["trial_seconds"],
        notes=tuple(chosen["notes"]),
    )
