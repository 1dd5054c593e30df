"""Run an experiment from wherever it stands to its verdicts; plan one; read what was run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from gradworks.bench.database import StoreError
from gradworks.bench.document import result_of
from gradworks.bench.engines import ENGINES
from gradworks.bench.events import Listener, ignore
from gradworks.bench.experiment import Experiment
from gradworks.bench.planning import Plan, cores, plan_of
from gradworks.bench.result import Result
from gradworks.bench.rulings import judge_and_keep
from gradworks.bench.store import Store

__all__ = ["RunFailed", "RunInterrupted", "StoreError", "plan", "results", "run"]

PRESET_ORDER = ("full", "paper", "quick", "custom")


class RunFailed(RuntimeError):
    """A trial was given up; the text says which and why."""


class RunInterrupted(KeyboardInterrupt):
    """The run was stopped; the text says what is kept and how to go on."""


def run(
    experiment: Experiment,
    *,
    store: Path | str,
    jobs: int | None = None,
    engine: Literal["processes", "serial", "ray"] = "processes",
    fresh: bool = False,
    seeds: int | None = None,
    max_time: float | None = None,
    progress: Listener | None = None,
) -> Result:
    """Run an experiment, or what is left of it, and return its result.

    Everything is kept in ``store`` as it happens: called again with the same experiment, after
    a kill too, it goes on where it was, and does nothing where everything is done.

    Args:
        experiment: What to run.
        store: The run store, an SQLite file; created if missing.
        jobs: Trials at a time; None: one for each core.
        engine: ``"processes"``, ``"serial"`` (in this process) or ``"ray"``.
        fresh: True begins anew, beside what the store holds already.
        seeds: Final seeds instead of the experiment's own; this makes another experiment.
        max_time: Seconds after which no trial is begun. What is unfinished then leaves the
            verdicts ``"undecided"``; a later call goes on.
        progress: Listens to the events of the run.

    Returns:
        The result; its figures are drawn by the paper.

    Raises:
        RunFailed: If a trial failed three times.
        RunInterrupted: If SIGINT or SIGTERM came; running trials wrote a checkpoint.

    Note:
        A store that cannot be read or written is a :class:`StoreError`, an argument out of range
        a ``ValueError``, a data set that is not installed an ``ImportError`` with the line that
        installs it; each of these before anything runs.
    """
    from gradworks.bench.scheduler import Scheduler

    experiment = _checked(experiment, jobs, engine, seeds, max_time)
    data = _data_of(experiment)
    listen = progress or ignore
    with Store(store) as opened:
        experiment_id = opened.open_experiment(experiment, fresh=fresh, data=data)
        if opened.state_of(experiment_id) == "done":
            return result_of(opened, experiment_id, experiment=experiment)
        scheduler = Scheduler(
            opened,
            experiment_id,
            experiment,
            engine=engine,
            jobs=jobs or default_jobs(experiment),
            max_time=max_time,
            progress=listen,
        )
        try:
            outcome = scheduler.run()
        except KeyboardInterrupt:
            outcome = "interrupted"
        if outcome == "interrupted":
            raise RunInterrupted(_how_to_go_on(opened, experiment_id))
        failure = scheduler.failure
        if failure is not None:
            first, _, trace = failure.error.partition("\n\n")
            raise RunFailed(
                f"{failure.name} failed {failure.attempts} times: {first} "
                f"(finished trials are kept in {opened.path}; mend the cause and run again)"
            ) from (_WorkerTraceback(trace) if trace else None)
        if outcome == "time":
            reason = f"stopped by the time limit after {_done(opened, experiment_id)} trials"
            return result_of(opened, experiment_id, experiment=experiment, reason=reason)
        judge_and_keep(opened, experiment_id, experiment)
        return result_of(opened, experiment_id, experiment=experiment)


class _WorkerTraceback(Exception):
    """Carries a worker's traceback as the cause, for ``--debug``."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


def _checked(
    experiment: Experiment,
    jobs: int | None,
    engine: str,
    seeds: int | None,
    max_time: float | None,
) -> Experiment:
    for name, value in (("jobs", jobs), ("seeds", seeds)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    if max_time is not None and not max_time >= 0:
        raise ValueError(f"max_time must be at least 0 seconds, got {max_time!r}")
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES}, got {engine!r}")
    return experiment if seeds is None else dataclasses.replace(experiment, final_seeds=seeds)


def default_jobs(experiment: Experiment) -> int:
    """Return how many trials of an experiment run at a time without fighting for cores."""
    return max(1, cores() // experiment.threads)


def _data_of(experiment: Experiment) -> dict[str, list[dict[str, Any]]]:
    """Return name, hash, source and licence of every data set, by workload."""
    if not any(w.data for w in experiment.workloads):
        return {}
    from gradworks.bench import data

    known = {name: dict(data.source(name)) for w in experiment.workloads for name in w.data}
    return {w.name: [known[name] for name in w.data] for w in experiment.workloads}


def _done(store: Store, experiment_id: str) -> str:
    counts = store.counts(experiment_id)
    over = sum(n for (_, status), n in counts.items() if status in ("done", "diverged"))
    return f"{over} of {sum(counts.values())}"


def _how_to_go_on(store: Store, experiment_id: str) -> str:
    return (
        f"interrupted: {_done(store, experiment_id)} trials are done and kept in {store.path}, "
        "running ones go on from their last checkpoint; run the same command again"
    )


def plan(experiment: Experiment, *, jobs: int | None = None, seeds: int | None = None) -> Plan:
    """Return what :func:`run` would do and what it should cost.

    Args:
        experiment: What would run.
        jobs: Trials at a time; None: one for each core.
        seeds: Final seeds instead of the experiment's own.
    """
    experiment = _checked(experiment, jobs, "processes", seeds, None)
    return plan_of(experiment, jobs or default_jobs(experiment))


def results(store: Path | str) -> list[Result]:
    """Return the newest finished result of every paper and preset, ``full`` before ``quick``.

    Args:
        store: The run store; it must exist.
    """
    with Store(store, create=False) as opened:
        newest = {
            (row["paper"], row["preset"]): row["id"]
            for row in opened.read(
                "SELECT id, paper, preset FROM experiment WHERE state = 'done' ORDER BY created"
            )
        }
        found = [result_of(opened, experiment_id) for experiment_id in newest.values()]
    order = {preset: position for position, preset in enumerate(PRESET_ORDER)}
    return sorted(found, key=lambda r: (order.get(r.preset, len(order)), r.paper))
