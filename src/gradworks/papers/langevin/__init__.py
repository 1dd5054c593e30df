"""Langevin dynamics and weight averaging (2026, arXiv:2603.06028): claims and runs.

Each trial is one arm on the problems of one seed: hidden directions in tensors and in single-index
models. Chain, average and last iterate come from one run; partial trace, power iteration and
explicit smoothing see the same tensors. SGD's rate is tuned, the same number of trials for each
batch size. The criteria were fixed before the first run that counts.
"""

from __future__ import annotations

from gradworks.bench.experiment import Arm, Experiment, Knob, Workload
from gradworks.papers._deciding import decidable
from gradworks.papers.langevin.claims import CARD, CLAIMS
from gradworks.papers.langevin.figures import figures
from gradworks.papers.langevin.presets import PRESETS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

_TRIAL = "gradworks.papers.langevin.trial"

# Three decades around the step at which batches of 1 to 32 move as the chains do.
_RATE = (Knob(name="lr", low=0.1 / 10**1.5, high=0.1 * 10**1.5, default=0.1),)

ARMS = (
    Arm(name="langevin", label="Langevin, averaged", method="gradworks.optim.langevin"),
    Arm(name="smoothing", label="smoothing", method="smoothing", is_baseline=True),
    Arm(name="power", label="power iteration", method="power iteration", is_baseline=True),
    *(
        Arm(
            name=f"sgd-{size}",
            label=f"SGD, batch {size}, averaged",
            method="minibatch SGD",
            space=_RATE,
            fixed={"batch_size": size},
        )
        for size in (1, 4, 32)
    ),
    Arm(
        name="online",
        label="online SGD",
        method="online SGD",
        space=_RATE,
        is_baseline=True,
    ),
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
    workloads = tuple(
        Workload(
            name=name,
            label=entry["label"],
            trial=f"{_TRIAL}:{'huge' if preset == 'paper' else 'trial'}",
            spec=entry["spec"],
            steps=len(entry["spec"]["sizes"]) * entry["spec"]["steps"],
            arms=tuple(entry["arms"]),
            select_on="overlap",
            select_direction="higher",
        )
        for name, entry in chosen["workloads"].items()
    )
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
