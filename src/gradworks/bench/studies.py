"""Tuning: every arm gets the same trials; the best point wins; a border is moved, twice at most.

A study's state (round, space, choice) is a row of the store, moved on by compare-and-set, so a
kill loses nothing and two runs that share a store move it once. When all studies are complete
the experiment is frozen and its final runs are queued, in one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gradworks.bench.experiment import Arm, Experiment, Knob, Workload
from gradworks.bench.search import border, params_at, unit_points, widen
from gradworks.bench.store import Store, TrialRow

__all__ = [
    "MAX_WIDENINGS",
    "SMALLEST_STUDY",
    "TUNING_SEED",
    "IncompleteStudy",
    "Study",
    "Tried",
    "advance",
    "begin",
    "best_of",
    "final_rows",
    "freeze",
    "studies",
    "summary",
    "tuned",
]

MAX_WIDENINGS = 2
SMALLEST_STUDY = 8  # below it (quick presets) borders are recorded, not moved: an indication only
TUNING_SEED = 1_000_000  # final seeds count from 0


class IncompleteStudy(RuntimeError):
    """Final runs of an arm were asked for before its study is complete."""


@dataclass(frozen=True)
class Tried:
    """One finished trial of a study; ``value`` is None where it diverged."""

    number: int
    params: Mapping[str, float]
    value: float | None
    status: str


@dataclass(frozen=True)
class Study:
    """The tuning of one arm on one workload.

    Args:
        id: Row in the store.
        workload: Name of the workload.
        arm: Name of the arm.
        round: How often the space was widened.
        space: The space of this round.
        chosen: The chosen hyper-parameters, None while trials are open.
        on_edge: Knobs at whose border the best point lies.
        trials: All trials so far, of all rounds.
    """

    id: int
    workload: str
    arm: str
    round: int
    space: tuple[Knob, ...]
    chosen: Mapping[str, float] | None
    on_edge: tuple[str, ...] = ()
    trials: tuple[Tried, ...] = field(default=(), repr=False)

    def of_round(self, round_: int, budget: int) -> list[Tried]:
        """Return the trials of one round."""
        return [t for t in self.trials if t.number // budget == round_]


def _pairs(experiment: Experiment) -> list[tuple[Workload, Arm]]:
    return [(w, a) for w in experiment.workloads for a in experiment.arms_of(w)]


def tuned(experiment: Experiment) -> list[tuple[Workload, Arm]]:
    """Return the workloads and arms that have a study."""
    if not experiment.tune_trials:
        return []
    return [(w, a) for w, a in _pairs(experiment) if a.space]


def _trials_of_round(
    experiment: Experiment, workload: Workload, arm: str, space: Sequence[Knob], round_: int
) -> list[TrialRow]:
    """Return the trials of a round; the points are those of every other round and arm."""
    points = unit_points(experiment, workload)
    rows = []
    for trial in range(experiment.tune_trials):
        params, position = params_at(space, points, trial)
        number = round_ * experiment.tune_trials + trial
        rows.append(TrialRow(workload.name, arm, "tune", number, TUNING_SEED, params, position))
    return rows


def _space(knobs: Sequence[Knob]) -> str:
    return json.dumps([asdict(knob) for knob in knobs])


def begin(store: Store, experiment_id: str, experiment: Experiment) -> None:
    """Create the studies that are not there yet and queue their first trials.

    Args:
        store: The run store.
        experiment_id: The experiment's row.
        experiment: What is run.
    """
    have = {(s.workload, s.arm) for s in studies(store, experiment_id)}
    missing = [(w, a) for w, a in tuned(experiment) if (w.name, a.name) not in have]
    if not missing:
        return
    rows = {
        (w.name, a.name): _trials_of_round(experiment, w, a.name, a.space, 0) for w, a in missing
    }
    with store.transaction() as connection:
        for workload, arm in missing:
            connection.execute(
                "INSERT OR IGNORE INTO study (workload_id, arm_id, space) "
                "SELECT w.id, a.id, ? FROM workload w, arm a WHERE w.experiment_id = ? "
                "AND w.name = ? AND a.experiment_id = ? AND a.name = ?",
                (_space(arm.space), experiment_id, workload.name, experiment_id, arm.name),
            )
        # Trial by trial over the arms: a run that is cut short has looked at all of them.
        ordered = [row for trial in zip(*rows.values(), strict=True) for row in trial]
        store.queue_in(connection, experiment_id, ordered)


def studies(store: Store, experiment_id: str) -> list[Study]:
    """Return all studies with their finished trials, in the experiment's order.

    Args:
        store: The run store.
        experiment_id: The experiment's row.
    """
    metrics = store.final_metrics(experiment_id, "tune", "valid")
    select = {
        row["name"]: json.loads(row["spec"])["select_on"]
        for row in store.read(
            "SELECT name, spec FROM workload WHERE experiment_id = ?", experiment_id
        )
    }
    tried: dict[tuple[str, str], list[Tried]] = {}
    for row in store.trials(experiment_id, "tune"):
        value = metrics.get(row["id"], {}).get("valid", {}).get(select[row["workload"]])
        value = value if row["status"] == "done" else None
        tried.setdefault((row["workload"], row["arm"]), []).append(
            Tried(row["number"], row["params"], value, row["status"])
        )
    return [
        Study(
            id=row["id"],
            workload=row["workload"],
            arm=row["arm"],
            round=row["round"],
            space=tuple(Knob(**knob) for knob in json.loads(row["space"])),
            chosen=None if row["chosen"] is None else json.loads(row["chosen"]),
            on_edge=tuple(json.loads(row["on_edge"])),
            trials=tuple(tried.get((row["workload"], row["arm"]), ())),
        )
        for row in store.read(
            "SELECT s.*, w.name AS workload, a.name AS arm FROM study s "
            "JOIN workload w ON w.id = s.workload_id JOIN arm a ON a.id = s.arm_id "
            "WHERE w.experiment_id = ? ORDER BY w.id, a.id",
            experiment_id,
        )
    ]


def best_of(trials: Sequence[Tried], direction: str) -> Tried:
    """Return the best trial: ties go to the lower learning rate, then to the earlier trial.

    Args:
        trials: At least one. If all diverged, the first (the published default) is returned.
        direction: ``"higher"`` or ``"lower"``.
    """
    sign = -1.0 if direction == "higher" else 1.0

    def rank(trial: Tried) -> tuple[bool, float, float, int]:
        value = 0.0 if trial.value is None else sign * trial.value
        lr = trial.params.get("lr", 0.0) if trial.value is not None else 0.0
        return trial.value is None, value, lr, trial.number

    return min(trials, key=rank)


def advance(store: Store, experiment_id: str, experiment: Experiment) -> list[str]:
    """Decide every study whose round is over: choose its point or widen its space.

    Args:
        store: The run store.
        experiment_id: The experiment's row.
        experiment: What is run.

    Returns:
        A sentence for every space that was widened.
    """
    budget = experiment.tune_trials
    workloads = {w.name: w for w in experiment.workloads}
    notes = []
    for study in studies(store, experiment_id):
        trials = study.of_round(study.round, budget)
        over = [t for t in trials if t.status in ("done", "diverged")]
        if study.chosen is not None or len(over) < budget:
            continue
        workload = workloads[study.workload]
        best = best_of(over, workload.select_direction)
        edges = border(study.space, [t.params for t in over], best.params)
        if best.value is None:
            edges = {}  # everything diverged: no border to speak of
        if edges and study.round < MAX_WIDENINGS and budget >= SMALLEST_STUDY:
            space = tuple(widen(k, edges[k.name]) if k.name in edges else k for k in study.space)
            rows = _trials_of_round(experiment, workload, study.arm, space, study.round + 1)
            if _widen(store, experiment_id, study, space, rows):
                where = ", ".join(f"{name} ({side})" for name, side in edges.items())
                notes.append(f"{study.arm} on {study.workload}: best at the border, wider {where}")
            continue
        with store.transaction() as connection:
            connection.execute(
                "UPDATE study SET chosen = ?, on_edge = ? "
                "WHERE id = ? AND round = ? AND chosen IS NULL",
                (json.dumps(dict(best.params)), json.dumps(sorted(edges)), study.id, study.round),
            )
    return notes


def _widen(
    store: Store, experiment_id: str, study: Study, space: Sequence[Knob], rows: list[TrialRow]
) -> bool:
    """Begin the next round, unless another run did."""
    with store.transaction() as connection:
        moved = connection.execute(
            "UPDATE study SET round = round + 1, space = ? WHERE id = ? AND round = ?",
            (_space(space), study.id, study.round),
        ).rowcount
        if moved:
            store.queue_in(connection, experiment_id, rows)
    return bool(moved)


def final_rows(
    experiment: Experiment, chosen: Mapping[tuple[str, str], Mapping[str, float]]
) -> list[TrialRow]:
    """Return the final runs, seed by seed, so that what is there at any time is paired.

    Args:
        experiment: What is run.
        chosen: Hyper-parameters by workload and arm, from complete studies.

    Raises:
        IncompleteStudy: If a tuned arm has none yet.
    """
    have_study = {(w.name, a.name) for w, a in tuned(experiment)}
    rows = []
    for seed in range(experiment.final_seeds):
        for workload, arm in _pairs(experiment):
            key = (workload.name, arm.name)
            if key in have_study and key not in chosen:
                raise IncompleteStudy(
                    f"final runs of {arm.name!r} on {workload.name!r} are refused: "
                    "its study is not complete"
                )
            params = chosen.get(key, {knob.name: knob.default for knob in arm.space})
            rows.append(TrialRow(workload.name, arm.name, "final", seed, seed, params))
    return rows


def freeze(store: Store, experiment_id: str, experiment: Experiment) -> bool:
    """Freeze the experiment and queue its final runs, if every study is complete.

    Args:
        store: The run store.
        experiment_id: The experiment's row.
        experiment: What is run.

    Returns:
        True if it is frozen now, by this call or an earlier one.
    """
    chosen: dict[tuple[str, str], Mapping[str, float]] = {}
    for study in studies(store, experiment_id):
        if study.chosen is None:
            return False
        chosen[study.workload, study.arm] = study.chosen
    rows = final_rows(experiment, chosen)
    with store.transaction() as connection:
        moved = connection.execute(
            "UPDATE experiment SET state = 'frozen' "
            "WHERE id = ? AND state = 'open' AND protocol_hash = ?",
            (experiment_id, experiment.protocol_hash),
        ).rowcount
        if moved:
            store.queue_in(connection, experiment_id, rows)
    return True


def summary(study: Study, experiment: Experiment) -> dict[str, Any]:
    """Return a study as the result document shows it.

    Args:
        study: The study.
        experiment: What is run.
    """
    from gradworks.bench.statistics import expected_best

    budget = experiment.tune_trials
    workload = next(w for w in experiment.workloads if w.name == study.workload)
    last = study.of_round(study.round, budget)
    values = [t.value for t in last if t.status in ("done", "diverged")]
    return {
        "workload": study.workload,
        "arm": study.arm,
        "round": study.round,
        "space": [asdict(knob) for knob in study.space],
        "on_edge": list(study.on_edge),
        "chosen": dict(study.chosen or {}),
        "trials": [asdict(t) for t in last],
        "earlier": [asdict(t) for t in study.trials if t.number // budget < study.round],
        "expected_best": expected_best(values, workload.select_direction),
    }
