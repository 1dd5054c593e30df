"""Over-parameterised matrix sensing (2023, arXiv:2310.01769): claims and runs.

Each trial draws matrices, measurements and starts for one seed, runs gradient descent and fits
lines to its errors. One more workload tunes a step size for each method and compares them from one
start. The criteria were fixed before the first run that counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradworks.bench.experiment import Arm, Experiment, Knob, Workload
from gradworks.papers._deciding import decidable
from gradworks.papers.matrix_sensing.claims import ARM, CARD, CLAIMS
from gradworks.papers.matrix_sensing.figures import figures
from gradworks.papers.matrix_sensing.presets import LR, PRESETS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

_TRIAL = "gradworks.papers.matrix_sensing.trial"
_RATE = (Knob(name="lr", low=LR / 4, high=LR * 4, default=LR),)


def _method(name: str, label: str, method: str, *, baseline: bool = True) -> Arm:
    """An arm of the comparison; all search the same space."""
    return Arm(
        name=name,
        label=label,
        method=method,
        space=_RATE,
        fixed={"form": name},
        is_baseline=baseline,
    )


_LIBRARY = "gradworks.solvers.matrix_sensing"
ARMS = (
    Arm(name=ARM, label="gradient descent", method=_LIBRARY),
    _method("accelerated", "one modified step", f"{_LIBRARY}.accelerated_gd", baseline=False),
    _method("asymmetric", "asymmetric", f"{_LIBRARY}.asymmetric_gd", baseline=False),
    _method("symmetric", "symmetric", f"{_LIBRARY}.symmetric_gd"),
    _method("balanced", "asymmetric, balanced start", f"{_LIBRARY}.asymmetric_gd"),
    _method("preconditioned", "preconditioned symmetric", "preconditioned gradient descent"),
)
_COMPARED = tuple(arm.name for arm in ARMS if arm.space)


def _workload(name: str, spec: Mapping[str, Any]) -> Workload:
    """One workload of a preset."""
    kind = spec["kind"]
    return Workload(
        name=name,
        label=spec["label"],
        trial=f"{_TRIAL}:{'huge' if kind == 'huge' else 'trial'}",
        spec={key: value for key, value in spec.items() if key != "label"},
        steps=int(spec.get("steps", 0)) if kind == "compared" else 0,
        arms=_COMPARED if kind == "compared" else (ARM,),
        data=("digits",) if kind == "digits" else (),
        select_on="mean_log_error",
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
    workloads = tuple(_workload(name, spec) for name, spec in chosen["workloads"].items())
    present = {arm for workload in workloads for arm in workload.arms}
    return Experiment(
        paper=CARD.slug,
        preset=preset,
        workloads=workloads,
        arms=tuple(arm for arm in ARMS if arm.name in present),
        claims=decidable(CLAIMS, workloads, whole=True),
        tune_trials=chosen["tune_trials"],
        final_seeds=chosen["final_seeds"],
        trial_seconds=chosen["trial_seconds"],
        notes=tuple(chosen["notes"]),
    )
