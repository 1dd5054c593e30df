"""SIGKILL at random moments, twenty times: the store ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.bench import toy

from gradworks.bench import run
from gradworks.bench.store import Store

ROOT = Path(__file__).parents[2]
KILLS = 20
SCRIPT = """
import sys
from gradworks.bench import run
from tests.bench import toy
run(toy.experiment(final_seeds=6), store=sys.argv[1], jobs=int(sys.argv[2]))
"""


class Life:
    """One process that runs the toy experiment."""

    def __init__(self, store: Path, *, sleep: float, jobs: int = 2) -> None:
        self.words = store.with_name(f"words-{time.monotonic_ns()}.txt")
        env = {
            **os.environ,
            "TOY_SLEEP": str(sleep),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        with self.words.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(store), str(jobs)], env=env, stderr=stderr
            )

    def said(self) -> str:
        return self.words.read_text()

    def __enter__(self) -> Life:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def ask(store: Path, sql: str) -> list[tuple]:
    """Read the store as a stranger would; nothing where it does not exist yet."""
    try:
        connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=10)
    except sqlite3.OperationalError:
        return []
    try:
        return connection.execute(sql).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in task.read_text().split()]
    return found


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def contents(store: Path) -> dict[str, list[tuple]]:
    """Everything that must not depend on what happened on the way."""
    return {
        "trials": ask(
            store,
            "SELECT workload_id, arm_id, kind, number, seed, params, unit_point, status, attempt,"
            " steps_done, state_bytes FROM trial ORDER BY 1, 2, 3, 4, 5",
        ),
        "metrics": ask(
            store,
            "SELECT t.workload_id, t.arm_id, t.kind, t.number, m.step, m.split, m.name, m.value "
            "FROM metric m JOIN trial t ON t.id = m.trial_id ORDER BY 1, 2, 3, 4, 5, 6, 7",
        ),
        "studies": ask(store, "SELECT workload_id, arm_id, round, space, chosen FROM study"),
        "verdicts": ask(store, "SELECT claim, verdict, estimate, lo, hi, p, text FROM verdict"),
        "experiments": ask(store, "SELECT id, state FROM experiment"),
        "leases": ask(store, "SELECT * FROM lease"),
        "checkpoints": ask(store, "SELECT * FROM checkpoint"),
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_twenty_kills(tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed.db"
    calm = run(toy.experiment(final_seeds=6), store=undisturbed, engine="serial")
    store = tmp_path / "killed.db"
    moments = random.Random(0)
    finished: dict[int, float] = {}
    resumed = 0
    for kill in range(KILLS):
        # 20 steps: a trial takes half a second.
        with Life(store, sleep=0.02, jobs=1 + kill % 2) as life:
            if kill % 4 == 0:
                time.sleep(moments.uniform(0.0, 1.0))  # while it starts
            else:
                # A worker is up and past its imports: what it does from here on must survive.
                here = f"SELECT 1 FROM checkpoint WHERE written > {time.time()}"
                wait_until(lambda here=here: ask(store, here))
                time.sleep(moments.uniform(0.0, 0.3))
            workers = children(life.process.pid)
            assert life.process.poll() is None, life.said()
            life.process.send_signal(signal.SIGKILL)
            life.process.wait()
        wait_until(lambda pids=workers: not any(alive(pid) for pid in pids))
        done = dict(ask(store, "SELECT id, ended FROM trial WHERE status = 'done'"))
        assert finished.items() <= done.items(), "a finished trial was run again"
        finished = done
        resumed += bool(ask(store, "SELECT 1 FROM checkpoint"))
    assert resumed >= 5, "the kills came at the wrong moments to say anything"
    assert finished
    with Life(store, sleep=0.0) as life:
        assert life.process.wait(120) == 0, life.said()

    assert contents(store) == contents(undisturbed)
    assert not store.with_name("killed.db.checkpoints").exists()
    after = run(toy.experiment(final_seeds=6), store=store, engine="serial")
    assert after.status == calm.status
    assert after.claims == calm.claims
    with Store(store) as opened:
        assert opened.read("PRAGMA integrity_check")[0][0] == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_checkpoints(tmp_path: Path, signum: int) -> None:
    store = tmp_path / "run.db"
    with Life(store, sleep=0.05) as life:
        wait_until(lambda: ask(store, "SELECT 1 FROM lease"))
        life.process.send_signal(signum)
        assert life.process.wait(60) != 0
    words = life.said()
    assert "RunInterrupted: interrupted: 0 of" in words
    assert "run the same command again" in words
    assert not ask(store, "SELECT 1 FROM lease")
    states = dict(ask(store, "SELECT status, count(*) FROM trial GROUP BY status"))
    assert states["killed"] >= 1
    assert len(ask(store, "SELECT DISTINCT trial_id FROM checkpoint")) == states["killed"]


@pytest.mark.slow
def test_two_runs_share_a_store(tmp_path: Path) -> None:
    undisturbed, store = tmp_path / "alone.db", tmp_path / "shared.db"
    run(toy.experiment(final_seeds=6), store=undisturbed, engine="serial")
    holders = set()
    with Life(store, sleep=0.02) as one, Life(store, sleep=0.02) as two:

        def over() -> bool:
            holders.update(pid for (pid,) in ask(store, "SELECT pid FROM lease"))
            return one.process.poll() is not None and two.process.poll() is not None

        wait_until(over, 120)
    for life in (one, two):
        assert life.process.returncode == 0, life.said()
    assert holders == {one.process.pid, two.process.pid}, "one of them did nothing"
    assert contents(store) == contents(undisturbed)
