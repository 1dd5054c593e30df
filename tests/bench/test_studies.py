"""Tuning: equal effort, selection, the edge rule, and the freeze before any final run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tests.bench import toy

from gradworks.bench import Experiment, Knob
from gradworks.bench.identity import Identity
from gradworks.bench.leases import Leases
from gradworks.bench.store import Store
from gradworks.bench.studies import (
    MAX_WIDENINGS,
    TUNING_SEED,
    IncompleteStudy,
    Tried,
    advance,
    begin,
    best_of,
    final_rows,
    freeze,
    studies,
    summary,
)
from gradworks.bench.task import Ending

EIGHT = toy.experiment(tune_trials=8, a_space=(toy.LR,))


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "run.db") as opened:
        yield opened


def started(store: Store, experiment: Experiment) -> str:
    experiment_id = store.open_experiment(experiment)
    begin(store, experiment_id, experiment)
    return experiment_id


def work(store: Store, experiment_id: str, loss, *, only: str | None = None) -> list[dict]:
    """Run all open tuning trials: ``loss(arm, params)`` is what comes out, None diverges."""
    held = Leases(store, experiment_id, Identity())
    seen, left = [], []
    while (task := held.claim("tune", None)) is not None:
        if only not in (None, task.arm.name):
            left.append(task.trial_id)
            continue
        value = loss(task.arm.name, task.params)
        rows = [] if value is None else [(-1, None, None, "valid", "loss", value)]
        status = "diverged" if value is None else "done"
        held.finish(task.trial_id, Ending(task.trial_id, status, rows=rows))
        seen.append({"arm": task.arm.name, "seed": task.seed, **task.params})
    for trial_id in left:
        held.release(trial_id, None)
    return seen


def inside(arm: str, params: dict) -> float:
    """The best learning rate is in the middle of the space."""
    return abs(params["lr"] - 0.03)


def outside(arm: str, params: dict) -> float:
    """For ours the larger the better, without end."""
    return -params["lr"] if arm == "ours" else inside(arm, params)


# -- selection -------------------------------------------------------------------------------


def tried(number: int, value: float | None, lr: float) -> Tried:
    return Tried(number, {"lr": lr}, value, "diverged" if value is None else "done")


@pytest.mark.parametrize(
    ("trials", "direction", "number"),
    [
        ([tried(0, 0.5, 0.1), tried(1, 0.4, 0.2), tried(2, 0.6, 0.3)], "lower", 1),
        ([tried(0, 0.5, 0.1), tried(1, 0.4, 0.2), tried(2, 0.6, 0.3)], "higher", 2),
        ([tried(0, 0.4, 0.3), tried(1, 0.4, 0.1), tried(2, 0.4, 0.2)], "lower", 1),
        ([tried(0, None, 0.1), tried(1, 9.0, 0.2)], "lower", 1),
        ([tried(0, None, 0.1), tried(1, -9.0, 0.2)], "higher", 1),
        ([tried(0, None, 0.3), tried(1, None, 0.1)], "lower", 0),
    ],
)
def test_the_best_trial(trials: list[Tried], direction: str, number: int) -> None:
    assert best_of(trials, direction).number == number
    assert best_of(trials[::-1], direction).number == number


# -- effort ----------------------------------------------------------------------------------


def test_every_arm_gets_the_same_effort(store: Store) -> None:
    seen = work(store, started(store, toy.experiment(tune_trials=4)), inside)
    ours, theirs = ([s for s in seen if s["arm"] == arm] for arm in ("ours", "theirs"))
    assert [s["lr"] for s in ours] == [s["lr"] for s in theirs]  # the same points, too
    assert len(ours) == 4
    assert {s["seed"] for s in seen} == {TUNING_SEED}


def test_tuning_seeds_are_no_final_seeds() -> None:
    rows = final_rows(dataclasses.replace(EIGHT, tune_trials=0, final_seeds=50), {})
    assert {row.seed for row in rows} == set(range(50))
    assert TUNING_SEED not in range(50)


def test_final_runs_are_paired_seed_by_seed() -> None:
    rows = final_rows(dataclasses.replace(EIGHT, tune_trials=0), {})
    assert [(r.seed, r.arm) for r in rows[:4]] == [
        (0, "ours"),
        (0, "theirs"),
        (1, "ours"),
        (1, "theirs"),
    ]
    assert rows[0].params == {"lr": 0.03}  # untuned: the published default


# -- the edge rule ---------------------------------------------------------------------------


def test_a_study_inside_its_space_is_decided_at_once(store: Store) -> None:
    experiment_id = started(store, EIGHT)
    assert advance(store, experiment_id, EIGHT) == []  # nothing is over yet
    assert not freeze(store, experiment_id, EIGHT)
    work(store, experiment_id, inside)
    assert advance(store, experiment_id, EIGHT) == []
    for study in studies(store, experiment_id):
        assert (study.round, study.on_edge) == (0, ())
        assert study.chosen == {"lr": 0.03}
    assert freeze(store, experiment_id, EIGHT)


def test_a_border_is_moved_twice_at_most_and_for_that_arm_alone(store: Store) -> None:
    experiment_id = started(store, EIGHT)
    for round_ in range(MAX_WIDENINGS):
        seen = work(store, experiment_id, outside)
        assert len(seen) == (16 if round_ == 0 else 8)
        notes = advance(store, experiment_id, EIGHT)
        assert notes == ["ours on bowl: best at the border, wider lr (high)"]
        assert not freeze(store, experiment_id, EIGHT)
        ours, theirs = studies(store, experiment_id)
        assert ours.space[0].high == pytest.approx(10.0 ** (round_ + 1))
        assert (ours.round, theirs.round) == (round_ + 1, 0)
    seen = work(store, experiment_id, outside)
    assert {s["arm"] for s in seen} == {"ours"}
    assert max(s["lr"] for s in seen) > 10.0
    assert advance(store, experiment_id, EIGHT) == []
    ours, _ = studies(store, experiment_id)
    assert (ours.round, ours.on_edge) == (2, ("lr",))
    # The choice is the best of the last round: as many trials as every other arm had.
    assert ours.chosen == {"lr": max(s["lr"] for s in seen)}
    shown = summary(ours, EIGHT)
    assert [t["number"] for t in shown["trials"]] == list(range(16, 24))
    assert [t["number"] for t in shown["earlier"]] == list(range(16))
    assert (shown["round"], shown["on_edge"]) == (2, ["lr"])
    assert len(shown["expected_best"]) == 8
    assert freeze(store, experiment_id, EIGHT)


def test_a_small_study_records_the_border_only(store: Store) -> None:
    def largest(arm: str, params: dict) -> float:
        return -params["lr"]

    narrow = dataclasses.replace(toy.LR, high=0.1)  # its outermost point is near the border
    quick = toy.experiment(tune_trials=4, a_space=(narrow,))
    experiment_id = started(store, quick)
    work(store, experiment_id, largest)
    assert advance(store, experiment_id, quick) == []
    assert all(s.round == 0 and s.chosen for s in studies(store, experiment_id))


def test_all_diverged_takes_the_published_default(store: Store) -> None:
    experiment_id = started(store, EIGHT)
    work(store, experiment_id, lambda arm, params: None)
    assert advance(store, experiment_id, EIGHT) == []
    for study in studies(store, experiment_id):
        assert (study.chosen, study.on_edge) == ({"lr": 0.03}, ())


def test_two_runs_that_decide_at_once_widen_once(store: Store) -> None:
    experiment_id = started(store, EIGHT)
    work(store, experiment_id, outside)
    with Store(store.path) as other:
        stale = studies(other, experiment_id)
        assert len(advance(store, experiment_id, EIGHT)) == 1
        import gradworks.bench.studies as module

        before = module.studies
        module.studies = lambda *_: stale  # the other looked before we moved on
        try:
            assert advance(other, experiment_id, EIGHT) == []
        finally:
            module.studies = before
    assert store.counts(experiment_id)["tune", "queued"] == 8
    assert studies(store, experiment_id)[0].round == 1


# -- the freeze ------------------------------------------------------------------------------


def test_final_runs_of_an_incomplete_study_are_refused() -> None:
    with pytest.raises(IncompleteStudy, match="'theirs' on 'bowl' are refused"):
        final_rows(EIGHT, {("bowl", "ours"): {"lr": 0.1}})


def test_one_open_study_holds_all_final_runs_back(store: Store) -> None:
    experiment_id = started(store, EIGHT)
    work(store, experiment_id, inside, only="ours")
    advance(store, experiment_id, EIGHT)
    ours, theirs = studies(store, experiment_id)
    assert ours.chosen is not None
    assert theirs.chosen is None
    assert not freeze(store, experiment_id, EIGHT)
    assert store.state_of(experiment_id) == "open"
    assert store.trials(experiment_id, "final") == []


def test_the_freeze_happens_once_and_with_the_hash(store: Store) -> None:
    experiment_id = started(store, EIGHT)
    work(store, experiment_id, inside)
    advance(store, experiment_id, EIGHT)
    changed = dataclasses.replace(EIGHT, final_seeds=7)
    freeze(store, experiment_id, changed)
    assert store.state_of(experiment_id) == "open"
    assert store.trials(experiment_id, "final") == []
    assert freeze(store, experiment_id, EIGHT)
    assert freeze(store, experiment_id, EIGHT)
    assert store.state_of(experiment_id) == "frozen"
    assert store.counts(experiment_id)["final", "queued"] == 6
    [row] = store.read("SELECT protocol_hash FROM experiment")
    assert row[0] == EIGHT.protocol_hash


@pytest.mark.parametrize(
    "change",
    [
        {"tune_trials": 16},
        {"final_seeds": 11},
        {"a_space": (Knob(name="lr", low=1e-3, high=2.0, default=0.03),)},
        {"a_fixed": {"momentum": 0.5}},
        {"w_steps": 21},
        {"threads": 2},
        {"claims": (dataclasses.replace(toy.CLAIM, primary=False),)},
    ],
)
def test_what_decides_is_in_the_hash(change: dict) -> None:
    fields = {"tune_trials": 8, "a_space": (toy.LR,), **change}
    assert toy.experiment(**fields).protocol_hash != EIGHT.protocol_hash


def test_what_decides_nothing_is_not() -> None:
    said = dataclasses.replace(EIGHT, notes=("x",), trial_seconds=9.0)
    assert said.protocol_hash == EIGHT.protocol_hash
