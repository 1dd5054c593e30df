"""What a run hands to a worker, and what comes back. No torch here: the run itself needs none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gradworks.bench.experiment import Arm, Workload

if TYPE_CHECKING:
    from gradworks.bench.trial import Row

__all__ = ["Ending", "Facts", "Lost", "Message", "Progress", "Rows", "Saved", "Task"]


@dataclass(frozen=True)
class Task:
    """One trial to run.

    Args:
        trial_id: Row of the trial in the store.
        workload: Data, model and budget.
        arm: The method.
        kind: ``"tune"`` or ``"final"``.
        number: Position in the study, or index of the final seed.
        seed: Seed.
        params: Searched knobs.
        threads: Threads of torch.
        strict: True raises where torch has no deterministic algorithm, False warns.
        saved: The last good checkpoint, None at the start.
    """

    trial_id: int
    workload: Workload
    arm: Arm
    kind: Literal["tune", "final"]
    number: int
    seed: int
    params: Mapping[str, float]
    threads: int = 1
    strict: bool = True
    saved: bytes | None = None


@dataclass(frozen=True)
class Progress:
    """A trial is at ``step``."""

    trial_id: int
    step: int


@dataclass(frozen=True)
class Rows:
    """Points of curves."""

    trial_id: int
    rows: Sequence[Row]


@dataclass(frozen=True)
class Saved:
    """A checkpoint, and the points of curves that came before it."""

    trial_id: int
    step: int
    data: bytes
    rows: Sequence[Row]


@dataclass(frozen=True)
class Ending:
    """How a trial ended.

    Args:
        trial_id: Row of the trial.
        status: ``"killed"`` goes on later from its checkpoint, ``"error"`` counts as an attempt.
        rows: Points of curves not yet told, and the final figures.
        steps_done: Steps done.
        seconds: Seconds of training.
        peak_rss: Largest resident size of the process so far, bytes.
        state_bytes: Bytes of optimizer state, where the trial told.
        error: What went wrong.
    """

    trial_id: int
    status: Literal["done", "diverged", "killed", "error"]
    rows: Sequence[Row] = ()
    steps_done: int = 0
    seconds: float = 0.0
    peak_rss: int | None = None
    state_bytes: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Facts:
    """What only a process with torch knows about the machine."""

    values: Mapping[str, Any]


@dataclass(frozen=True)
class Lost:
    """The worker of a trial died; ``error`` says how."""

    trial_id: int
    error: str


Message = Progress | Rows | Saved | Ending | Lost
