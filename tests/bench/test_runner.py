"""Whole runs in this process: resume, failure, interruption, time limit, plan, results."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
from tests.bench import toy

from gradworks import bench
from gradworks.bench import Experiment, RunFailed, RunInterrupted, StoreError, runner
from gradworks.bench.events import Event
from gradworks.bench.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def run(experiment: Experiment, store: Path, **options) -> bench.Result:
    return bench.run(experiment, store=store, engine="serial", **options)


def statuses(store: Path) -> dict[tuple[str, str], int]:
    with Store(store) as opened:
        [newest] = opened.read("SELECT id FROM experiment ORDER BY created DESC LIMIT 1")
        return opened.counts(newest["id"])


def stable(result: bench.Result) -> dict:
    """The document without times, memory and ids."""
    document = json.loads(json.dumps(result.document))
    for key in ("created", "finished", "seconds", "experiment", "provenance", "notes"):
        document.pop(key)
    for final in document["finals"]:
        final.pop("seconds"), final.pop("peak_rss")
    for curve in document["curves"]:
        curve.pop("seconds", None)
    return document


# -- a run -----------------------------------------------------------------------------------


def test_a_run_does_each_trial_once_and_then_nothing(store: Path) -> None:
    events: list[Event] = []
    first = run(toy.experiment(), store, progress=events.append)
    assert statuses(store) == {("tune", "done"): 8, ("final", "done"): 6}
    assert first.document["counts"] == {"tune": 8, "final": 6, "diverged": 0, "failed": 0}
    assert [e.stage for e in events if e.stage == "final"]
    for stage, total in (("tune", 8), ("final", 6)):
        done = [e.done for e in events if e.stage == stage]
        assert done == sorted(done), "progress went backwards"
        assert {e.total for e in events if e.stage == stage} == {total}
    assert [e for e in events if e.stage == "final"][-1].done == 6
    with Store(store) as opened:
        assert opened.read("SELECT count(*) FROM lease")[0][0] == 0
        before = opened.read("SELECT id, started, ended FROM trial")
    again = run(toy.experiment(), store, progress=lambda e: pytest.fail("something ran"))
    assert again.document == first.document
    with Store(store) as opened:
        assert opened.read("SELECT id, started, ended FROM trial") == before


def test_two_runs_elsewhere_give_the_same_figures(store: Path, tmp_path: Path) -> None:
    first = run(toy.experiment(), store)
    second = run(toy.experiment(), tmp_path / "other.db")
    assert stable(first) == stable(second)


def test_labels_and_notes_may_change_afterwards(store: Path) -> None:
    run(toy.experiment(), store)
    said = toy.experiment(notes=("seen twice",))
    arms = tuple(dataclasses.replace(a, label=a.label.upper()) for a in said.arms)
    result = run(dataclasses.replace(said, arms=arms), store)
    assert result.document["notes"] == ["seen twice"]
    assert [a["label"] for a in result.document["arms"]] == ["OURS", "THEIRS"]


def test_fresh_runs_again_beside_the_old(store: Path) -> None:
    first = run(toy.experiment(tune_trials=0), store)
    second = run(toy.experiment(tune_trials=0), store, fresh=True)
    assert second.document["experiment"] == first.document["experiment"] + "-2"
    assert stable(first) == stable(second)
    with Store(store) as opened:
        assert opened.read("SELECT count(*) FROM trial")[0][0] == 12


def test_other_seeds_are_another_experiment(store: Path) -> None:
    experiment = toy.experiment(tune_trials=0)
    first = run(experiment, store)
    fewer = run(experiment, store, seeds=2)
    assert [len(first.document["finals"]), len(fewer.document["finals"])] == [6, 4]
    assert fewer.document["experiment"] != first.document["experiment"]
    assert fewer.values("loss", "ours") == {
        s: v for s, v in first.values("loss", "ours").items() if s < 2
    }


def test_torch_is_left_as_it_was(store: Path) -> None:
    import torch

    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    run(toy.experiment(tune_trials=0, threads=before[0] + 1), store)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_a_border_that_moves_is_told_and_kept(store: Path) -> None:
    narrow = dataclasses.replace(toy.LR, low=1e-4, high=2e-3, default=1e-3)  # far too small
    experiment = toy.experiment(tune_trials=8, a_space=(narrow,), final_seeds=1)
    notes: list[str] = []
    result = run(experiment, store, progress=lambda e: notes.append(e.text) if e.text else None)
    assert "ours on bowl: best at the border, wider lr (high)" in notes
    ours = result.document["studies"][0]
    assert ours["round"] >= 1
    assert ours["space"][0]["high"] == pytest.approx(2e-3 * 10 ** ours["round"])
    assert len(ours["earlier"]) == 8 * ours["round"]
    assert result.document["arms"][0]["space"][0]["high"] == 2e-3  # as it was frozen


# -- what goes wrong -------------------------------------------------------------------------


def test_a_trial_that_fails_is_tried_three_times_and_can_be_mended(
    store: Path, tmp_path: Path
) -> None:
    flag = tmp_path / "mended"
    wrong = {"wrong": "raise", "only": "final", "once": str(flag)}
    flag.unlink(missing_ok=True)
    experiment = toy.experiment(tune_trials=0, a_fixed=wrong)
    healthy = stable(run(toy.experiment(tune_trials=0, a_fixed=wrong), tmp_path / "healthy.db"))
    assert flag.exists()  # one failure, then it went well: an attempt was counted, no more

    flag.unlink()
    always = toy.experiment(tune_trials=0, a_fixed={"wrong": "raise"})
    with pytest.raises(RunFailed) as caught:
        run(always, store)
    text = str(caught.value)
    assert "ours on bowl, final seed 0 failed 3 times: ValueError: no such luck" in text
    assert "mend the cause and run again" in text
    assert "\n" not in text
    assert "toy.py" in str(caught.value.__cause__)  # the worker's traceback, for --debug
    assert statuses(store)["final", "failed"] == 1

    flag.touch()
    mended = stable(run(experiment, store))
    assert mended["finals"] == healthy["finals"]


def test_running_again_tries_failed_trials_again(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = toy.experiment(tune_trials=0)
    monkeypatch.setattr(toy, "descend", toy.silent)
    with pytest.raises(RunFailed, match=r"returned without calling trial.result"):
        run(experiment, store)
    monkeypatch.undo()
    run(experiment, store)
    assert statuses(store) == {("final", "done"): 6}


@pytest.mark.parametrize(
    ("target", "fragment"),
    [
        ("tests.bench.toy:elsewhere", "must give 'loss' with trial.result('valid', ...)"),
        ("tests.bench.toy:peeking", "must not look at the test split"),
        ("tests.bench.toy:missing", "module 'tests.bench.toy' has no trial function 'missing'"),
        ("tests.bench.nowhere:f", "No module named 'tests.bench.nowhere'"),
        ("no colon", "trial must be 'module:function', got 'no colon'"),
        ("tests.bench.toy:unsaveable", "must hold only tensors"),
    ],
)
def test_trial_functions_that_break_the_rules(store: Path, target: str, fragment: str) -> None:
    with pytest.raises(RunFailed) as caught:
        run(toy.experiment(w_trial=target), store)
    assert fragment in str(caught.value)


def test_a_diverged_trial_counts_and_is_the_worst(store: Path) -> None:
    result = run(toy.experiment(a_fixed={"wrong": "diverge", "only": "final"}), store)
    assert result.document["counts"]["diverged"] == 6
    assert {f["status"] for f in result.document["finals"]} == {"diverged"}
    assert all(v != v for v in result.values("loss", "ours").values())
    with Store(store) as opened:
        assert opened.read("SELECT DISTINCT error FROM trial WHERE kind = 'final'")[0][0] == (
            "on purpose"
        )


def test_data_that_is_not_here_is_said_before_anything_runs(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradworks.bench import data

    def missing(name: str) -> dict:
        raise ImportError(f"the data set {name!r} needs x; run: gradworks data install x")

    monkeypatch.setattr(data, "source", missing)
    with pytest.raises(ImportError, match="gradworks data install x"):
        run(toy.experiment(w_data=("digits",)), store)
    assert not store.exists()


def test_data_is_kept_with_its_hash(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradworks.bench import data

    row = {"name": "digits", "sha256": "aa", "source": "here", "licence": "free"}
    monkeypatch.setattr(data, "source", lambda name: dict(row))
    experiment = toy.experiment(w_data=("digits",), tune_trials=0)
    assert run(experiment, store).document["workloads"][0]["data"] == [row]
    monkeypatch.setattr(data, "source", lambda name: row | {"sha256": "bb"})
    with pytest.raises(StoreError, match="changed since"):
        run(experiment, store)


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"jobs": 0}, "jobs must be an integer of at least 1, got 0"),
        ({"jobs": 1.5}, "jobs must be an integer of at least 1, got 1.5"),
        ({"seeds": 0}, "seeds must be an integer of at least 1, got 0"),
        ({"max_time": -1}, "max_time must be at least 0 seconds, got -1"),
        ({"max_time": float("nan")}, "max_time must be at least 0"),
        ({"engine": "threads"}, "engine must be one of"),
    ],
)
def test_wrong_arguments(store: Path, options: dict, fragment: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        bench.run(toy.experiment(), store=store, **options)
    assert fragment in str(caught.value)
    assert not store.exists()


def test_a_store_that_is_none(store: Path) -> None:
    store.write_text("a diary " * 100)
    with pytest.raises(StoreError, match="is damaged or no SQLite file"):
        run(toy.experiment(), store)


# -- interrupted -----------------------------------------------------------------------------


def interrupt_at(monkeypatch: pytest.MonkeyPatch, seed: int, step: int, signum: int) -> None:
    """Send a signal to this process in the middle of a final run."""
    real = toy.misbehave

    def misbehave(trial, now: int) -> None:
        if (trial.kind, trial.seed, now) == ("final", seed, step):
            os.kill(os.getpid(), signum)
        real(trial, now)

    monkeypatch.setattr(toy, "misbehave", misbehave)
    monkeypatch.setattr("gradworks.bench.trial.WORD_SECONDS", 0.0)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on_and_does(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    expected = stable(run(toy.experiment(), tmp_path / "whole.db"))
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupt_at(monkeypatch, seed=1, step=7, signum=signum)
    with pytest.raises(RunInterrupted) as caught:
        run(toy.experiment(), store)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert str(caught.value) == (
        f"interrupted: 10 of 14 trials are done and kept in {store}, running ones go on from "
        "their last checkpoint; run the same command again"
    )
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert statuses(store)["final", "killed"] == 1
    with Store(store) as opened:
        assert opened.read("SELECT max(step) FROM checkpoint")[0][0] in (7, 8)
    monkeypatch.undo()
    assert stable(run(toy.experiment(), store)) == expected


def test_a_second_signal_does_not_wait(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stubborn(trial) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")

    monkeypatch.setattr(toy, "descend", stubborn)
    with pytest.raises(RunInterrupted, match="0 of 6 trials"):
        run(toy.experiment(tune_trials=0), store)
    assert statuses(store) == {("final", "killed"): 1, ("final", "queued"): 5}


def test_a_damaged_checkpoint_costs_steps_not_the_run(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = stable(run(toy.experiment(), tmp_path / "whole.db"))
    interrupt_at(monkeypatch, seed=0, step=11, signum=signal.SIGINT)
    with pytest.raises(RunInterrupted):
        run(toy.experiment(), store)
    monkeypatch.undo()
    newest = max(store.with_name("run.db.checkpoints").rglob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:100])
    notes: list[str] = []
    result = run(toy.experiment(), store, progress=lambda e: notes.append(e.text))
    assert stable(result) == expected
    [note] = [note for note in notes if "damaged" in note]
    assert note.startswith("ours on bowl: the checkpoint after step 1")
    assert "going on from step 10" in note


# -- time limit ------------------------------------------------------------------------------


def test_no_time_at_all_leaves_everything_open(store: Path) -> None:
    result = run(toy.experiment(), store, max_time=0.0)
    assert result.status == "undecided"
    assert result.claims[0]["status"] == "undecided"
    assert result.claims[0]["text"] == "stopped by the time limit after 0 of 8 trials"
    assert result.document["notes"] == ["stopped by the time limit after 0 of 8 trials"]
    assert result.document["finals"] == []
    assert runner.results(store) == []


def test_a_time_limit_stops_between_trials_and_a_later_run_goes_on(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("gradworks.bench.scheduler.time.monotonic", lambda: now[0])
    real = toy.descend

    def slow(trial) -> None:
        now[0] += 10.0
        real(trial)

    monkeypatch.setattr(toy, "descend", slow)
    result = run(toy.experiment(), store, max_time=95.0)
    assert statuses(store) == {
        ("tune", "done"): 8,
        ("final", "done"): 2,
        ("final", "queued"): 4,
    }
    assert result.status == "undecided"
    assert "after 10 of 14 trials" in result.claims[0]["text"]
    assert len(result.document["finals"]) == 2
    monkeypatch.undo()
    whole = run(toy.experiment(), tmp_path / "whole.db")
    assert stable(run(toy.experiment(), store)) == stable(whole)


# -- plan and results ------------------------------------------------------------------------


def test_plan() -> None:
    experiment = toy.experiment(tune_trials=4, final_seeds=3, trial_seconds=2.0)
    assert bench.plan(experiment, jobs=2).to_dict() == {
        "paper": "toy",
        "preset": "custom",
        "tune_trials": 8,
        "final_trials": 6,
        "workloads": ["bowl"],
        "arms": ["ours", "theirs"],
        "seconds": (4 + 3) * 2.0,
        "cores": 2,
    }
    assert bench.plan(experiment, jobs=4, seeds=5).seconds == (2 + 3) * 2.0
    assert bench.plan(experiment, jobs=1, seeds=5).final_trials == 10
    untuned = dataclasses.replace(experiment, tune_trials=0)
    assert bench.plan(untuned, jobs=1).tune_trials == 0
    with pytest.raises(ValueError, match="seeds must be an integer"):
        bench.plan(experiment, seeds=0)


def test_jobs_times_threads_do_not_exceed_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "cores", lambda: 8)
    assert runner.default_jobs(toy.experiment(threads=1)) == 8
    assert runner.default_jobs(toy.experiment(threads=3)) == 2
    assert runner.default_jobs(toy.experiment(threads=16)) == 1


def test_results_are_the_newest_of_each_paper_and_preset(store: Path) -> None:
    small = {"tune_trials": 0, "final_seeds": 1}
    quick = toy.experiment(preset="quick", **small)
    run(quick, store)
    run(toy.experiment(preset="full", **small), store)
    run(toy.experiment(preset="full", paper="another", **small), store)
    again = run(quick, store, fresh=True)
    run(toy.experiment(**small), store, max_time=0.0)  # not finished: not shown
    found = runner.results(store)
    assert [(r.paper, r.preset) for r in found] == [
        ("another", "full"),
        ("toy", "full"),
        ("toy", "quick"),
    ]
    assert found[2].document == again.document
    assert again.status == "indication"


def test_results_of_a_store_that_is_not_there(store: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        runner.results(store)
