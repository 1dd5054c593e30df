"""What a run would do, before it does anything."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from gradworks.bench.experiment import Experiment
from gradworks.bench.studies import tuned

__all__ = ["Plan", "cores", "plan_of"]


@dataclass(frozen=True)
class Plan:
    """The trials of an experiment and what they should cost.

    Args:
        paper: Slug of the paper.
        preset: Name of the preset.
        tune_trials: Tuning trials in all; a space that must be widened adds to them.
        final_trials: Final runs in all.
        workloads: Names of the workloads.
        arms: Names of the arms.
        seconds: Expected wall time.
        cores: Cores it was expected for.
    """

    paper: str
    preset: str
    tune_trials: int
    final_trials: int
    workloads: tuple[str, ...]
    arms: tuple[str, ...]
    seconds: float
    cores: int

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data."""
        plain = asdict(self)
        return plain | {"workloads": list(self.workloads), "arms": list(self.arms)}


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def plan_of(experiment: Experiment, jobs: int) -> Plan:
    """Return the plan of an experiment.

    Args:
        experiment: What would run.
        jobs: Trials at a time.
    """
    tune = len(tuned(experiment)) * experiment.tune_trials
    pairs = sum(len(experiment.arms_of(w)) for w in experiment.workloads)
    final = pairs * experiment.final_seeds
    # Trials of one stage run side by side; a stage takes at least one trial's time.
    rounds = -(-tune // jobs) + -(-final // jobs)
    return Plan(
        paper=experiment.paper,
        preset=experiment.preset,
        tune_trials=tune,
        final_trials=final,
        workloads=tuple(w.name for w in experiment.workloads),
        arms=tuple(a.name for a in experiment.arms),
        seconds=rounds * experiment.trial_seconds,
        cores=jobs * experiment.threads,
    )
