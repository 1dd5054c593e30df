"""An experiment as data: workloads, arms, search spaces, seeds and the claims they decide.

Nothing here runs anything or imports torch. An :class:`Experiment` is hashed before its first
final run (``protocol_hash``), so that claims, spaces, budgets and seeds cannot change afterwards
without a new experiment id.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gradworks.bench.claims import Claim, Direction

__all__ = ["Arm", "Experiment", "Knob", "Workload"]

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One searched hyper-parameter.

    Args:
        name: Key of the hyper-parameter in ``Trial.params``.
        low: Lower end of the space, inclusive.
        high: Upper end.
        default: The published default: trial 0 of every study takes it.
        scale: ``"log"`` for learning rates and decays, ``"linear"``, or ``"one_minus_log"`` for
            momenta, where ``1 - value`` is searched on a log scale.
    """

    name: str
    low: float
    high: float
    default: float
    scale: Literal["log", "linear", "one_minus_log"] = "log"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"knob {self.name!r}: low {self.low} must be below high {self.high}")
        if not self.low <= self.default <= self.high:
            raise ValueError(
                f"knob {self.name!r}: default {self.default} is outside [{self.low}, {self.high}]"
            )
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"knob {self.name!r}: a log scale needs low > 0, got {self.low}")
        if self.scale == "one_minus_log" and self.high >= 1:
            raise ValueError(f"knob {self.name!r}: one_minus_log needs high < 1, got {self.high}")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A method with its search space and fixed settings.

    Args:
        name: Short unique name, used in stores and claims.
        label: What tables and plots print.
        method: Dotted path of what is compared (``"torch.optim.AdamW"``), or a word.
        space: Searched knobs; empty means that the arm is not tuned.
        fixed: Settings that are not searched.
        is_baseline: True for what the paper's method is compared with.
    """

    name: str
    label: str
    method: str
    space: tuple[Knob, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    is_baseline: bool = False


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Data, model, loss, batch size and budget, frozen before any arm runs.

    Args:
        name: Short unique name.
        label: What tables and plots print.
        trial: ``"module:function"`` that runs one trial: ``function(trial: Trial) -> None``.
        spec: Everything the trial function needs to know, JSON only.
        steps: Budget in steps; 0 where a trial has no steps.
        batch_size: Examples a step; 0 where that has no meaning.
        arms: Names of the arms that run on it; empty means all.
        data: Names of the data sets used (``gradworks data``): hashed into the store.
        select_on: Final metric that tuning selects on (split ``"valid"``).
        select_direction: Which way is better.
    """

    name: str
    label: str
    trial: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    batch_size: int = 0
    arms: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    select_on: str = "loss"
    select_direction: Direction = "lower"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A whole comparison: what ``gradworks run`` executes.

    Args:
        paper: Slug of the paper, or a name for a user's comparison.
        preset: ``"quick"``, ``"full"``, ``"paper"`` or ``"custom"``.
        workloads: At least one.
        arms: At least one.
        claims: What the final runs decide; may be empty (``gradworks compare``).
        tune_trials: Trials a study, the same for every arm that has a space; 0 without tuning.
            A power of two keeps the Sobol points balanced.
        final_seeds: Seeds of the final runs, paired over arms.
        trial_seconds: Expected seconds of one trial on one core, for ``--plan``.
        threads: ``torch.set_num_threads`` of a worker.
        notes: Differences from the paper's setting, shown beside every badge.
    """

    paper: str
    preset: str
    workloads: tuple[Workload, ...]
    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...] = ()
    tune_trials: int = 0
    final_seeds: int = 5
    trial_seconds: float = 1.0
    threads: int = 1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.workloads:
            raise ValueError(f"experiment {self.paper!r} has no workload")
        if not self.arms:
            raise ValueError(f"experiment {self.paper!r} has no arm")
        for what, names in (
            ("workload", [w.name for w in self.workloads]),
            ("arm", [a.name for a in self.arms]),
            ("claim", [c.id for c in self.claims]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{what} names must be unique, got {twice} more than once")
        known = {a.name for a in self.arms}
        for workload in self.workloads:
            unknown = sorted(set(workload.arms) - known)
            if unknown:
                raise ValueError(f"workload {workload.name!r} names unknown arms {unknown}")
        if self.final_seeds < 1:
            raise ValueError(f"final_seeds must be at least 1, got {self.final_seeds}")
        if self.tune_trials < 0:
            raise ValueError(f"tune_trials must be at least 0, got {self.tune_trials}")

    def arms_of(self, workload: Workload) -> tuple[Arm, ...]:
        """Return the arms that run on ``workload``, in the experiment's order."""
        if not workload.arms:
            return self.arms
        return tuple(a for a in self.arms if a.name in workload.arms)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole specification as JSON-ready data."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), sort_keys=True))
        return plain

    @property
    def protocol_hash(self) -> str:
        """SHA-256 of claims, spaces, budgets and seeds, first 16 hex digits.

        Labels, notes and expected seconds are left out: they decide nothing.
        """
        spec = self.to_dict()
        for key in ("notes", "trial_seconds"):
            spec.pop(key)
        for part in (*spec["workloads"], *spec["arms"]):
            part.pop("label")
        for claim in spec["claims"]:
            for key in ("statement", "published", "holds_when", "setting", "scaled_down"):
                claim.pop(key)
        text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
