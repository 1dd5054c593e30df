"""What a trial leaves in the store while it runs: points of curves and checkpoints."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradworks.bench.database import StoreError
from gradworks.bench.store import Store

if TYPE_CHECKING:
    from gradworks.bench.trial import Row

__all__ = ["KEPT", "insert_rows", "restore", "save_checkpoint", "write_rows"]

KEPT = 2  # checkpoints a trial: a torn one has a predecessor


def insert_rows(connection: sqlite3.Connection, trial_id: int, rows: Sequence[Row]) -> None:
    """Add points of curves inside a transaction; a point told twice counts once.

    Args:
        connection: Where the transaction is open.
        trial_id: Row of the trial.
        rows: Step, evaluations, seconds, split, name, value.
    """
    connection.executemany(
        "INSERT OR REPLACE INTO metric (trial_id, step, evals, seconds, split, name, value) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(trial_id, *row) for row in rows],
    )


def write_rows(store: Store, trial_id: int, worker: str, rows: Sequence[Row]) -> None:
    """Add points of curves, unless another run holds the trial by now.

    Args:
        store: The run store.
        trial_id: Row of the trial.
        worker: Who holds it.
        rows: Step, evaluations, seconds, split, name, value.
    """
    with store.transaction() as connection:
        if _held(connection, trial_id, worker):
            insert_rows(connection, trial_id, rows)


def _held(connection: sqlite3.Connection, trial_id: int, worker: str) -> bool:
    query = "SELECT 1 FROM lease WHERE trial_id = ? AND worker = ?"
    return connection.execute(query, (trial_id, worker)).fetchone() is not None


def save_checkpoint(
    store: Store, trial_id: int, worker: str, step: int, data: bytes, rows: Sequence[Row]
) -> bool:
    """Write a checkpoint with the points that came before it; keep the newest two.

    Args:
        store: The run store.
        trial_id: Row of the trial.
        worker: Who holds it.
        step: Steps done.
        data: The state.
        rows: Points of curves since the last write.

    Returns:
        False if another run holds the trial by now; nothing is kept then.

    Raises:
        StoreError: If the file cannot be written; an error of the store itself is one, too.
    """
    try:
        path, sha256 = store.checkpoints.write(trial_id, step, data)
    except OSError as error:
        raise StoreError(
            f"a checkpoint beside store {store.path} could not be written ({error.strerror}): "
            "free some space or make the folder writable, and run again"
        ) from error
    stale: list[str] = [path]
    with store.transaction() as connection:
        if _held(connection, trial_id, worker):
            insert_rows(connection, trial_id, rows)
            # One at or after this step is from before a fall-back: it was found damaged.
            earlier = connection.execute(
                "SELECT step, path FROM checkpoint WHERE trial_id = ? ORDER BY step DESC",
                (trial_id,),
            ).fetchall()
            kept = [row["step"] for row in earlier if row["step"] < step][: KEPT - 1]
            dropped = [row for row in earlier if row["step"] not in kept]
            connection.executemany(
                "DELETE FROM checkpoint WHERE trial_id = ? AND step = ?",
                [(trial_id, row["step"]) for row in dropped],
            )
            connection.execute(
                "INSERT INTO checkpoint (trial_id, step, path, sha256, written) "
                "VALUES (?, ?, ?, ?, ?)",
                (trial_id, step, path, sha256, time.time()),
            )
            connection.execute("UPDATE trial SET steps_done = ? WHERE id = ?", (step, trial_id))
            stale = [row["path"] for row in dropped]
    for old in stale:
        store.checkpoints.remove(old)
    return path not in stale


def restore(store: Store, trial_id: int) -> tuple[bytes | None, str]:
    """Return the last good checkpoint of a trial that is about to run, and a note.

    What was told after that checkpoint is removed: the trial tells it again.

    Args:
        store: The run store.
        trial_id: Row of the trial.

    Returns:
        The state, or None to begin at the start; a sentence if a checkpoint was damaged, else "".
    """
    note = ""
    found: bytes | None = None
    step = -1
    for row in store.read(
        "SELECT step, path, sha256 FROM checkpoint WHERE trial_id = ? ORDER BY step DESC", trial_id
    ):
        found = store.checkpoints.read(row["path"], row["sha256"])
        if found is not None:
            step = row["step"]
            break
        note = f"the checkpoint after step {row['step']} is damaged"
    if note:
        note += f": going on from step {step}" if found else ": the trial begins again"
    with store.transaction() as connection:
        connection.execute(
            "DELETE FROM metric WHERE trial_id = ? AND (step > ? OR step < 0)", (trial_id, step)
        )
    return found, note
