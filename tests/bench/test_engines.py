"""Engines: the same figures everywhere, dead workers replaced, stubborn ones ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.bench import toy
from tests.bench.test_runner import stable, statuses

from gradworks import bench
from gradworks.bench import Experiment, RunFailed, engines
from gradworks.bench.engines import processes
from gradworks.bench.events import Event
from gradworks.bench.store import Store
from gradworks.bench.worker import threads_environment

ONE = {"tune_trials": 0, "final_seeds": 1}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def run(experiment: Experiment, store: Path, **options) -> bench.Result:
    return bench.run(experiment, store=store, **{"jobs": 1, **options})


def once(tmp_path: Path, wrong: str, **changes) -> Experiment:
    """An experiment in which one trial goes wrong once."""
    flag = str(tmp_path / f"{wrong}.flag")
    return toy.experiment(a_fixed={"wrong": wrong, "once": flag, "at": 9}, **changes)


@pytest.mark.slow
def test_processes_give_the_figures_of_one_process(store: Path, tmp_path: Path) -> None:
    alone = bench.run(toy.experiment(), store=tmp_path / "alone.db", engine="serial")
    both = run(toy.experiment(), store, jobs=2)
    assert stable(both) == stable(alone)
    [provenance] = both.document["provenance"]
    assert provenance["threads"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "attempts", "words"),
    [
        ("die", 1, "its process died (SIGKILL, perhaps for want of memory)"),
        ("exit", 1, "its process died (exit code 7)\n\nlast words"),
        ("term", 0, None),  # asked to stop, it checkpoints and another goes on
    ],
)
def test_a_worker_that_dies_is_replaced(
    store: Path, tmp_path: Path, wrong: str, attempts: int, words: str | None
) -> None:
    experiment = once(tmp_path, wrong, **ONE)
    result = run(experiment, store)
    with Store(store) as opened:
        rows = opened.read("SELECT attempt, status, error FROM trial ORDER BY id")
    assert [row["status"] for row in rows] == ["done", "done"]
    assert [row["attempt"] for row in rows] == [attempts, 0]
    calm = run(experiment, tmp_path / "calm.db", engine="serial")
    assert stable(result) == stable(calm)
    if words is not None:
        (tmp_path / f"{wrong}.flag").unlink()
        always = toy.experiment(a_fixed={"wrong": wrong}, **ONE)
        with pytest.raises(RunFailed) as caught:
            run(always, store)
        head, _, tail = words.partition("\n\n")
        assert f"ours on bowl, final seed 0 failed 3 times: {head}" in str(caught.value)
        assert tail in str(caught.value.__cause__ or "")


@pytest.mark.slow
def test_a_trial_that_does_not_stop_is_ended_and_begins_again(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs; the user presses Ctrl-C; there is no step at which it could stop."""
    experiment = once(tmp_path, "hang", **ONE)
    monkeypatch.setattr("gradworks.bench.scheduler.GRACE_SECONDS", 0.3)
    flag = tmp_path / "hang.flag"

    def interrupt(event: object) -> None:
        if flag.exists():
            os.kill(os.getpid(), signal.SIGINT)
            flag.unlink()

    with pytest.raises(bench.RunInterrupted):
        run(experiment, store, progress=interrupt)
    assert statuses(store) == {("final", "killed"): 1, ("final", "queued"): 1}
    with Store(store) as opened:
        assert opened.read("SELECT count(*) FROM lease")[0][0] == 0
    flag.touch()
    calm = run(experiment, tmp_path / "calm.db", engine="serial")
    assert stable(run(experiment, store)) == stable(calm)


@pytest.mark.slow
def test_ctrl_c_reaches_running_trials_through_the_run(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_SLEEP", "0.05")
    sent: list[int] = []

    def interrupt(event: Event) -> None:
        if not sent and event.done > 0.2:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(bench.RunInterrupted, match="0 of 2 trials"):
        run(toy.experiment(**ONE), store, jobs=2, progress=interrupt)
    with Store(store) as opened:
        killed = opened.read("SELECT id FROM trial WHERE status = 'killed'")
        checkpoints = opened.read("SELECT DISTINCT trial_id FROM checkpoint")
    assert len(checkpoints) == len(killed) >= 1
    monkeypatch.delenv("TOY_SLEEP")
    calm = bench.run(toy.experiment(**ONE), store=tmp_path / "calm.db", engine="serial")
    assert stable(run(toy.experiment(**ONE), store)) == stable(calm)


def test_a_worker_that_cannot_start_ends_the_run(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "COMMAND", ("-c", "raise SystemExit('no torch here')"))
    with pytest.raises(RuntimeError, match="a worker could not start") as caught:
        run(toy.experiment(**ONE), store)
    assert "no torch here" in str(caught.value)
    assert statuses(store) == {("final", "queued"): 2}


def test_workers_do_not_fight_for_cores() -> None:
    assert threads_environment(3)["OMP_NUM_THREADS"] == "3"
    assert threads_environment(3)["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.slow
def test_a_script_without_a_main_guard_runs(tmp_path: Path) -> None:
    """Workers import gradworks, not the user's script: nothing in it runs twice."""
    (tmp_path / "mine.py").write_text("from tests.bench.toy import descend\n")
    (tmp_path / "script.py").write_text(
        "import dataclasses, gradworks.bench as bench\n"
        "from tests.bench import toy\n"
        "print('once')\n"
        "experiment = toy.experiment(tune_trials=0, final_seeds=1, w_trial='mine:descend')\n"
        "result = bench.run(experiment, store='run.db', jobs=2)\n"
        "print(len(result.document['finals']))\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["once", "2"], done.stderr


def test_no_such_engine() -> None:
    with pytest.raises(ValueError, match=r"engine must be one of .* got 'threads'"):
        engines.create("threads", 1, 1, lambda message: None)


def test_without_ray_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "gradworks.bench.engines.ray", raising=False)
    with pytest.raises(ImportError) as caught:
        engines.create("ray", 1, 1, lambda message: None)
    assert str(caught.value) == 'the ray engine needs: pip install "gradworks[ray]"'
    assert caught.value.name is None  # the command takes it for the user's to mend


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # ray's own
def test_ray_gives_the_figures_of_one_process(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason='needs: pip install "gradworks[ray]"')
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    experiment = once(tmp_path, "die", final_seeds=2, tune_trials=2)
    result = run(experiment, store, engine="ray", jobs=2)
    calm = run(experiment, tmp_path / "calm.db", engine="serial")
    assert stable(result) == stable(calm)
    with Store(store) as opened:
        [row] = opened.read("SELECT error FROM trial WHERE attempt = 1")
        assert "its actor died" in row["error"]
