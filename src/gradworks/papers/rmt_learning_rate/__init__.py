"""Learning rates and batch size (2020, arXiv:2006.09092): claims and runs.

Extreme eigenvalues of batches against the laws of random matrix theory, the largest learning rate
that trains against the batch size, the smallest damping, and a learner of rate and momentum against
tuned schedules. The criteria were fixed before the first run that counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradworks.bench.experiment import Arm, Experiment, Knob, Workload
from gradworks.papers._deciding import decidable
from gradworks.papers.rmt_learning_rate.claims import CARD, CLAIMS
from gradworks.papers.rmt_learning_rate.figures import figures
from gradworks.papers.rmt_learning_rate.presets import PRESETS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

_TRIAL = "gradworks.papers.rmt_learning_rate.trial"
_SGD, _ADAM = "torch.optim.SGD", "torch.optim.Adam"
_LEARNER = "gradworks.curvature.learning_rate.CurvatureSchedule"
_RATE = (Knob(name="lr", low=0.003, high=3.0, default=0.1),)


def _tuned(name: str, label: str, schedule: str) -> Arm:
    """SGD with a schedule; all search the same space."""
    return Arm(
        name=name,
        label=label,
        method=_SGD,
        space=_RATE,
        fixed={"schedule": schedule},
        is_baseline=True,
    )


def _learning(name: str, label: str, rule: str) -> Arm:
    """A learner at its defaults, from where the others' first tuning run is."""
    return Arm(name=name, label=label, method=_LEARNER, fixed={"schedule": rule, "lr": 0.1})


ARMS = (
    Arm(name="network", label="measured network", method=_SGD),
    Arm(name="sgd", label="SGD", method=_SGD, fixed={"optimizer": "sgd"}),
    Arm(name="adam", label="Adam", method=_ADAM, fixed={"optimizer": "adam"}),
    Arm(name="damped", label="damped Gauss-Newton", method="damped Gauss-Newton steps"),
    _tuned("constant", "SGD, constant rate", "constant"),
    _tuned("cosine", "SGD, cosine", "cosine"),
    _tuned("one-cycle", "SGD, one cycle", "one_cycle"),
    _learning("heavy-ball", "learner, heavy ball", "heavy_ball"),
    _learning("rmt", "learner, random matrix theory", "rmt"),
)
_ARMS_OF = {
    "law": ("network",),
    "rates": ("sgd", "adam"),
    "damping": ("damped",),
    "learner": ("constant", "cosine", "one-cycle", "heavy-ball", "rmt"),
}
_INSTEAD = {
    "slope": ("rates-vgg", "rates-wrn", "rates-imagenet"),
    "error_allowed": ("learner-preresnet",),
    **dict.fromkeys(
        ("excess_top", "excess_bottom", "excess_ggn", "law_error", "gain_constant", "gain_power"),
        ("law-vgg",),
    ),
}


def _workload(name: str, spec: Mapping[str, Any]) -> Workload:
    """One workload of a preset."""
    huge = spec["study"] == "huge"
    learner = spec["study"] == "learner"
    return Workload(
        name=name,
        label=spec["label"],
        trial=f"{_TRIAL}:{'huge' if huge else 'trial'}",
        spec={key: value for key, value in spec.items() if key != "label"},
        steps=int(spec["steps"]) if learner else 0,
        batch_size=int(spec["batch_size"]) if learner else 0,
        arms=_ARMS_OF[name.partition("-")[0]],
        data=() if huge else (spec["data"],),
        select_on="error",
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
        claims=decidable(CLAIMS, workloads, instead=_INSTEAD if preset == "paper" else None),
        tune_trials=chosen["tune_trials"],
        final_seeds=chosen["final_seeds"],
        trial_seconds=chosen["trial_seconds"],
        notes=tuple(chosen["notes"]),
    )
