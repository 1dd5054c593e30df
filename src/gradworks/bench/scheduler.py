"""The loop of a run: claim, submit, write down, move studies on, until nothing is left.

Everything that happened is in the store before the next thing is decided, so the loop may be
killed between any two lines; several loops may work on one experiment at a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Literal

from gradworks.bench import provenance
from gradworks.bench.database import StoreError
from gradworks.bench.engines import Engine, create
from gradworks.bench.events import Event, Listener
from gradworks.bench.experiment import Experiment
from gradworks.bench.identity import Identity
from gradworks.bench.interruption import Interruption
from gradworks.bench.leases import Failure, Heartbeat, LeaseLost, Leases
from gradworks.bench.recording import restore, save_checkpoint, write_rows
from gradworks.bench.store import Store
from gradworks.bench.studies import advance, begin, freeze
from gradworks.bench.task import Ending, Lost, Message, Progress, Rows, Saved, Task

__all__ = ["Scheduler"]

POLL_SECONDS = 0.2
LOOK_AROUND_SECONDS = 2.0  # for trials of other runs that died or finished
GRACE_SECONDS = 20.0  # a trial that is asked to stop has this long to reach its next step

Stage = Literal["tune", "final"]
Outcome = Literal["done", "time", "interrupted", "failed"]


class Scheduler:
    """Runs all open trials of one experiment.

    Args:
        store: The run store.
        experiment_id: The experiment's row.
        experiment: What is run.
        engine: Name of the engine.
        jobs: Trials at a time.
        max_time: Seconds after which no trial is begun; None: no limit.
        progress: Listens.
    """

    def __init__(
        self,
        store: Store,
        experiment_id: str,
        experiment: Experiment,
        *,
        engine: str,
        jobs: int,
        max_time: float | None,
        progress: Listener,
    ) -> None:
        self._store = store
        self._id = experiment_id
        self._experiment = experiment
        self._jobs = jobs
        self._deadline = None if max_time is None else time.monotonic() + max_time
        self._progress = progress
        self._interruption = Interruption()
        self._identity = Identity()
        self._leases = Leases(store, experiment_id, self._identity)
        self._running: dict[int, Task] = {}
        self._fractions: dict[int, float] = {}
        self._provenance: int | None = None
        self._stage: Stage = "tune"
        self._failed = False
        self._changed = True
        self._looked = 0.0
        self._engine: Engine = create(engine, jobs, experiment.threads, self._deliver)

    @property
    def failure(self) -> Failure | None:
        """The first trial that was given up."""
        return self._leases.failure()

    def run(self) -> Outcome:
        """Work until everything is done, time is up, a trial is given up, or we are interrupted.

        A second signal while running trials write their checkpoints raises KeyboardInterrupt.
        """
        self._leases.reclaim()
        self._leases.retry_failed()
        self._store.sweep()
        begin(self._store, self._id, self._experiment)
        try:
            with Heartbeat(self._store.path, self._identity.worker), self._interruption:
                return self._loop()
        finally:
            self._engine.close()
            self._give_back()

    def _loop(self) -> Outcome:
        while True:
            left = self._survey()
            if self._interruption.requested:
                self._wind_down()
                return "interrupted"
            if self._failed:
                self._wind_down()
                return "failed"
            if not left:
                return "done"
            late = self._deadline is not None and time.monotonic() >= self._deadline
            if late and not self._running:
                return "time"
            if not late:
                self._fill(left)
            self._engine.poll(POLL_SECONDS)

    def _survey(self) -> int:
        """Move studies and the experiment on; return how many trials are not over."""
        now = time.monotonic()
        if now - self._looked >= LOOK_AROUND_SECONDS:
            self._looked = now
            self._changed |= bool(self._leases.reclaim()) or not self._running
        if self._changed:
            self._changed = False
            for note in advance(self._store, self._id, self._experiment):
                self._tell(note)
            if freeze(self._store, self._id, self._experiment):
                self._stage = "final"
        return self._tell()

    def _tell(self, text: str = "") -> int:
        """Tell how far the stage is; return how many of its trials are not over."""
        counts = self._store.counts(self._id)
        mine = {status: n for (kind, status), n in counts.items() if kind == self._stage}
        total = sum(mine.values())
        self._failed = any(status == "failed" for _, status in counts)
        over = mine.get("done", 0) + mine.get("diverged", 0)
        done = over + sum(self._fractions.get(trial, 0.0) for trial in self._running)
        self._progress(Event(self._stage, done, total, text))
        # While a study's last trial is over but not judged, the stage itself is not.
        return total - over if self._stage == "final" else max(1, total - over)

    def _fill(self, left: int) -> None:
        """Give every idle worker a trial."""
        self._engine.grow(min(self._jobs, left))
        while self._engine.idle():
            if self._provenance is None:
                row = provenance.collect(self._experiment.threads, self._engine.facts)
                self._provenance = self._store.add_provenance(row)
            task = self._leases.claim(self._stage, self._provenance)
            if task is None:
                return
            self._running[task.trial_id] = task
            saved, note = restore(self._store, task.trial_id)
            if note:
                self._tell(f"{task.arm.name} on {task.workload.name}: {note}")
            self._engine.submit(dataclasses.replace(task, saved=saved))

    def _deliver(self, message: Message) -> None:
        """Write down what a worker says."""
        if self._interruption.requested:
            self._engine.stop()  # the serial engine comes back here only, until its trial ends
        trial = message.trial_id
        worker = self._identity.worker
        task = self._running.get(trial)
        if task is None:
            return
        match message:
            case Progress(step=step):
                steps = task.workload.steps
                self._fractions[trial] = min(1.0, step / steps) if steps else 0.0
                self._tell()
            case Rows(rows=rows):
                write_rows(self._store, trial, worker, rows)
            case Saved(step=step, data=data, rows=rows):
                save_checkpoint(self._store, trial, worker, step, data, rows)
            case Ending():
                self._over(trial)
                with contextlib.suppress(LeaseLost):
                    self._leases.finish(trial, message)
            case Lost(error=error):
                self._over(trial)
                with contextlib.suppress(LeaseLost):
                    self._leases.release(trial, error)

    def _over(self, trial: int) -> None:
        self._running.pop(trial, None)
        self._fractions.pop(trial, None)
        self._changed = True

    def _wind_down(self) -> None:
        """Let running trials write a checkpoint, those that cannot in time go without."""
        self._engine.stop()
        deadline = time.monotonic() + GRACE_SECONDS
        while self._running and time.monotonic() < deadline:
            self._engine.poll(POLL_SECONDS)

    def _give_back(self) -> None:
        """Leave no lease behind."""
        for trial in list(self._running):
            self._over(trial)
            with contextlib.suppress(LeaseLost, StoreError):
                self._leases.release(trial, None)
