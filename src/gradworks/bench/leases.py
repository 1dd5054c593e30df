"""Who runs which trial: claims with a heartbeat, given back, taken over, finished once.

A run holds its trials in its own name and is the only one that writes them; its workers never
touch the store. A trial is finished by the run that holds its lease, in one transaction with its
figures: whoever lost the lease meanwhile finds that out there and drops what it has.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gradworks.bench.database import StoreError
from gradworks.bench.identity import HEARTBEAT_SECONDS, Identity, is_gone
from gradworks.bench.recording import insert_rows
from gradworks.bench.store import Store, arm_from, workload_from
from gradworks.bench.task import Ending, Task

__all__ = ["MAX_ATTEMPTS", "Heartbeat", "LeaseLost", "Leases"]

MAX_ATTEMPTS = 3


class LeaseLost(Exception):
    """Another run took the trial over; what this one has of it is dropped."""


@dataclass(frozen=True)
class Failure:
    """A trial that was given up."""

    name: str
    attempts: int
    error: str


class Leases:
    """The trials that one run holds.

    Args:
        store: The run store.
        experiment_id: The experiment.
        identity: Who claims.
    """

    def __init__(self, store: Store, experiment_id: str, identity: Identity) -> None:
        self._store = store
        self._experiment_id = experiment_id
        self._identity = identity
        spec = json.loads(
            store.read("SELECT spec FROM experiment WHERE id = ?", experiment_id)[0]["spec"]
        )
        self._workloads = {w["name"]: workload_from(w) for w in spec["workloads"]}
        self._arms = {a["name"]: arm_from(a) for a in spec["arms"]}
        self._threads = int(spec["threads"])
        self._strict = spec["preset"] in ("quick", "full")

    def claim(self, kind: Literal["tune", "final"], provenance_id: int | None) -> Task | None:
        """Take the next open trial, or return None if there is none.

        Args:
            kind: ``"tune"``, or ``"final"`` once the experiment is frozen.
            provenance_id: What the trial will run on.
        """
        me = self._identity
        with self._store.transaction() as connection:
            row = connection.execute(
                "SELECT t.id, t.kind, t.number, t.seed, t.params, w.name AS workload,"
                " a.name AS arm FROM trial t JOIN workload w ON w.id = t.workload_id "
                "JOIN arm a ON a.id = t.arm_id JOIN experiment e ON e.id = w.experiment_id "
                "WHERE e.id = ? AND t.kind = ? AND t.status IN ('queued', 'killed') "
                # Nothing is tuned once the test split is open, nothing opens it before.
                "AND (t.kind = 'tune') = (e.state = 'open') ORDER BY t.attempt, t.id LIMIT 1",
                (self._experiment_id, kind),
            ).fetchone()
            if row is None:
                return None
            connection.execute(
                "INSERT INTO lease VALUES (?, ?, ?, ?, ?, ?)",
                (row["id"], me.worker, me.pid, me.host, me.boot_id, time.time()),
            )
            connection.execute(
                "UPDATE trial SET status = 'running', started = coalesce(started, ?),"
                " provenance_id = ? WHERE id = ?",
                (time.time(), provenance_id, row["id"]),
            )
        return Task(
            trial_id=row["id"],
            workload=self._workloads[row["workload"]],
            arm=self._arms[row["arm"]],
            kind=row["kind"],
            number=row["number"],
            seed=row["seed"],
            params=json.loads(row["params"]),
            threads=self._threads,
            strict=self._strict,
        )

    def _drop(self, connection: sqlite3.Connection, trial_id: int) -> None:
        """Remove our lease.

        Raises:
            LeaseLost: If it is not ours any more.
        """
        gone = connection.execute(
            "DELETE FROM lease WHERE trial_id = ? AND worker = ?",
            (trial_id, self._identity.worker),
        ).rowcount
        if not gone:
            raise LeaseLost(f"trial {trial_id}")

    def finish(self, trial_id: int, ending: Ending) -> None:
        """Write how a trial ended, with its figures, and give up its lease.

        :class:`LeaseLost` if another run holds the trial by now.

        Args:
            trial_id: Row of the trial.
            ending: What its worker said.
        """
        over = ending.status in ("done", "diverged")
        with self._store.transaction() as connection:
            self._drop(connection, trial_id)
            if ending.status == "error":
                self._count_attempt(connection, trial_id, ending.error or "unknown error")
                return
            insert_rows(connection, trial_id, ending.rows)
            connection.execute(
                "UPDATE trial SET status = ?, steps_done = ?, seconds = ?, peak_rss = ?,"
                " state_bytes = ?, error = coalesce(?, error), ended = ? WHERE id = ?",
                (
                    ending.status,
                    ending.steps_done,
                    ending.seconds,
                    ending.peak_rss,
                    ending.state_bytes,
                    ending.error,
                    time.time() if over else None,
                    trial_id,
                ),
            )
            if over:
                connection.execute("DELETE FROM checkpoint WHERE trial_id = ?", (trial_id,))
        if over:
            self._store.checkpoints.drop(trial_id)

    def release(self, trial_id: int, error: str | None) -> None:
        """Give back a trial whose worker is gone.

        :class:`LeaseLost` if another run holds the trial by now.

        Args:
            trial_id: Row of the trial.
            error: Why the worker died, which counts as an attempt; None if we ended it ourselves.
        """
        with self._store.transaction() as connection:
            self._drop(connection, trial_id)
            if error is None:
                connection.execute("UPDATE trial SET status = 'killed' WHERE id = ?", (trial_id,))
            else:
                self._count_attempt(connection, trial_id, error)

    @staticmethod
    def _count_attempt(connection: sqlite3.Connection, trial_id: int, error: str) -> None:
        """Count a failed attempt: queue the trial again, or give it up at the last one."""
        connection.execute(
            "UPDATE trial SET attempt = attempt + 1, error = ?, ended = ?, status = "
            "CASE WHEN attempt + 1 >= ? THEN 'failed' ELSE 'queued' END WHERE id = ?",
            (error, time.time(), MAX_ATTEMPTS, trial_id),
        )

    def reclaim(self) -> int:
        """Give up the leases of dead runs; their trials go on from their last checkpoint."""
        rows = self._store.read(
            "SELECT l.* FROM lease l JOIN trial t ON t.id = l.trial_id "
            "JOIN workload w ON w.id = t.workload_id WHERE w.experiment_id = ? AND l.worker <> ?",
            self._experiment_id,
            self._identity.worker,
        )
        now = time.time()
        dead = [
            (row["trial_id"], row["worker"], row["heartbeat"])
            for row in rows
            if is_gone(
                row["worker"], row["pid"], row["host"], row["boot_id"], now - row["heartbeat"]
            )
        ]
        taken = 0
        if dead:
            with self._store.transaction() as connection:
                for trial_id, worker, heartbeat in dead:
                    # Another run may have been quicker, or the heartbeat came back meanwhile.
                    gone = connection.execute(
                        "DELETE FROM lease WHERE trial_id = ? AND worker = ? AND heartbeat = ?",
                        (trial_id, worker, heartbeat),
                    ).rowcount
                    if gone:
                        connection.execute(
                            "UPDATE trial SET status = 'killed' WHERE id = ?", (trial_id,)
                        )
                        taken += 1
        return taken

    def retry_failed(self) -> int:
        """Queue failed trials again: whoever runs again has mended the cause."""
        with self._store.transaction() as connection:
            return connection.execute(
                "UPDATE trial SET status = 'queued', attempt = 0 WHERE status = 'failed' AND "
                "workload_id IN (SELECT id FROM workload WHERE experiment_id = ?)",
                (self._experiment_id,),
            ).rowcount

    def failure(self) -> Failure | None:
        """Return the first trial that was given up, or None."""
        rows = self._store.read(
            "SELECT w.name AS workload, a.name AS arm, t.kind, t.number, t.seed, t.attempt,"
            " t.error FROM trial t JOIN workload w ON w.id = t.workload_id "
            "JOIN arm a ON a.id = t.arm_id "
            "WHERE w.experiment_id = ? AND t.status = 'failed' ORDER BY t.ended, t.id LIMIT 1",
            self._experiment_id,
        )
        if not rows:
            return None
        row = rows[0]
        which = f"trial {row['number']}" if row["kind"] == "tune" else f"seed {row['seed']}"
        name = f"{row['arm']} on {row['workload']}, {row['kind']} {which}"
        return Failure(name, row["attempt"], row["error"] or "unknown error")


class Heartbeat:
    """Keeps the leases of a run alive from a thread of its own, while a trial computes.

    Args:
        path: The store.
        worker: The holder's name.
    """

    def __init__(self, path: Path, worker: str) -> None:
        self._path = path
        self._worker = worker
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            # A full disk or a busy store is the main thread's to report; the lease lasts longer.
            with contextlib.suppress(StoreError), Store(self._path, create=False) as store:
                touch(store, self._worker)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()


def touch(store: Store, worker: str) -> None:
    """Renew all leases of ``worker``."""
    with store.transaction() as connection:
        connection.execute("UPDATE lease SET heartbeat = ? WHERE worker = ?", (time.time(), worker))
