"""The run store: one SQLite file that holds every trial, metric, lease and verdict.

Nothing of a run lives only in memory. Writes are short ``BEGIN IMMEDIATE`` transactions in WAL
mode, so a process killed at any moment leaves whole rows or none, and several processes (and
several runs) can share a file.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradworks.bench.checkpoints import CheckpointFolder
from gradworks.bench.database import Database, StoreError
from gradworks.bench.experiment import Arm, Experiment, Knob, Workload

__all__ = ["Store", "StoreError", "TrialRow", "arm_from", "workload_from"]


@dataclass(frozen=True)
class TrialRow:
    """A trial that a study or the final runs need.

    Args:
        workload: Name of the workload.
        arm: Name of the arm.
        kind: ``"tune"`` or ``"final"``.
        number: Position in the study, or the index of the final seed.
        seed: Seed.
        params: Searched knobs and their values.
        unit_point: The point in the unit cube, None for final runs.
    """

    workload: str
    arm: str
    kind: str
    number: int
    seed: int
    params: Mapping[str, float]
    unit_point: Sequence[float] | None = None


def workload_from(spec: Mapping[str, Any]) -> Workload:
    """Return the workload that ``dataclasses.asdict`` and JSON made into ``spec``."""
    fields = dict(spec)
    for name in ("arms", "data"):
        fields[name] = tuple(fields[name])
    return Workload(**fields)


def arm_from(spec: Mapping[str, Any]) -> Arm:
    """Return the arm that ``dataclasses.asdict`` and JSON made into ``spec``."""
    return Arm(**{**spec, "space": tuple(Knob(**knob) for knob in spec["space"])})


class Store(Database):
    """An open run store.

    Args:
        path: The SQLite file; created with its tables if it does not exist.
        create: False raises instead of creating a file.

    Raises:
        StoreError: If the file cannot be opened, written or understood.

    Note:
        A store holds one connection and belongs to one thread.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        super().__init__(path, create=create)
        self.checkpoints = CheckpointFolder(self.path.with_name(self.path.name + ".checkpoints"))

    # -- experiments ---------------------------------------------------------------------------

    def open_experiment(
        self,
        experiment: Experiment,
        *,
        fresh: bool = False,
        data: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    ) -> str:
        """Return the id under which ``experiment`` runs; create its rows where there are none.

        A data set that changed since the experiment began is a :class:`StoreError`.

        Args:
            experiment: What is run.
            fresh: True takes a new id and leaves the old rows as they are.
            data: Rows ``{"name", "sha256", "source", "licence"}`` a workload, its data sets.
        """
        base = f"{experiment.paper}-{experiment.preset}-{experiment.protocol_hash}"
        data = data or {}
        with self.transaction() as connection:
            ids = [r[0] for r in connection.execute("SELECT id FROM experiment")]
            numbers = [1] if base in ids else []
            for name in ids:
                tail = name.removeprefix(base + "-")
                if tail != name and tail.isdigit():
                    numbers.append(int(tail))
            newest = max(numbers, default=0)
            if newest and not fresh:
                found = base if newest == 1 else f"{base}-{newest}"
                self._same_data(connection, found, data)
                return found
            fresh_id = base if not newest else f"{base}-{newest + 1}"
            self._insert_experiment(connection, fresh_id, experiment, data)
            return fresh_id

    def _same_data(
        self,
        connection: sqlite3.Connection,
        experiment_id: str,
        data: Mapping[str, Sequence[Mapping[str, Any]]],
    ) -> None:
        """Refuse to go on with other data than the run began with."""
        query = "SELECT name, data FROM workload WHERE experiment_id = ?"
        for row in connection.execute(query, (experiment_id,)):
            before = {d["name"]: d["sha256"] for d in json.loads(row["data"])}
            for now in data.get(row["name"], ()):
                if before.get(now["name"], now["sha256"]) != now["sha256"]:
                    raise StoreError(
                        f"data set {now['name']!r} of workload {row['name']!r} changed since "
                        f"{experiment_id} began: restore it or start anew with --fresh"
                    )

    @staticmethod
    def _insert_experiment(
        connection: sqlite3.Connection,
        experiment_id: str,
        experiment: Experiment,
        data: Mapping[str, Sequence[Mapping[str, Any]]],
    ) -> None:
        spec = experiment.to_dict()
        connection.execute(
            "INSERT INTO experiment VALUES (?, ?, ?, ?, ?, ?, ?, 'open')",
            (
                experiment_id,
                experiment.paper,
                ",".join(claim.id for claim in experiment.claims),
                experiment.preset,
                experiment.protocol_hash,
                time.time(),
                json.dumps(spec, sort_keys=True),
            ),
        )
        for workload in spec["workloads"]:
            sets = list(data.get(workload["name"], ()))
            connection.execute(
                "INSERT INTO workload (experiment_id, name, data_sha256, data_source, model, steps,"
                " batch_size, spec, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    experiment_id,
                    workload["name"],
                    " ".join(d["sha256"] or "" for d in sets) or None,
                    " ".join(d["source"] or "" for d in sets) or None,
                    workload["trial"],
                    workload["steps"],
                    workload["batch_size"],
                    json.dumps(workload, sort_keys=True),
                    json.dumps(sets, sort_keys=True),
                ),
            )
        for arm in spec["arms"]:
            connection.execute(
                "INSERT INTO arm (experiment_id, name, method, version, space, fixed, is_baseline) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    experiment_id,
                    arm["name"],
                    arm["method"],
                    _version_of(arm["method"]),
                    json.dumps(arm["space"]),
                    json.dumps(arm["fixed"]),
                    int(arm["is_baseline"]),
                ),
            )

    def state_of(self, experiment_id: str) -> str:
        """Return ``open``, ``frozen`` (final runs are queued) or ``done``."""
        row = self.read("SELECT state FROM experiment WHERE id = ?", experiment_id)[0]
        return str(row["state"])

    # -- trials --------------------------------------------------------------------------------

    def queue(self, experiment_id: str, rows: Iterable[TrialRow]) -> int:
        """Queue trials; one that is there already stays as it is. Return how many were new."""
        with self.transaction() as connection:
            return self.queue_in(connection, experiment_id, rows)

    @staticmethod
    def queue_in(
        connection: sqlite3.Connection, experiment_id: str, rows: Iterable[TrialRow]
    ) -> int:
        """Queue trials inside a transaction that the caller holds."""
        before = connection.total_changes
        connection.executemany(
            "INSERT OR IGNORE INTO trial "
            "(workload_id, arm_id, kind, number, seed, params, unit_point, status) "
            "SELECT w.id, a.id, ?, ?, ?, ?, ?, 'queued' FROM workload w, arm a "
            "WHERE w.experiment_id = ? AND w.name = ? AND a.experiment_id = ? AND a.name = ?",
            [
                (
                    row.kind,
                    row.number,
                    row.seed,
                    json.dumps(dict(row.params)),
                    None if row.unit_point is None else json.dumps(list(row.unit_point)),
                    experiment_id,
                    row.workload,
                    experiment_id,
                    row.arm,
                )
                for row in rows
            ],
        )
        return connection.total_changes - before

    def counts(self, experiment_id: str) -> dict[tuple[str, str], int]:
        """Return how many trials there are of each ``(kind, status)``."""
        return {
            (row["kind"], row["status"]): row["n"]
            for row in self.read(
                "SELECT t.kind, t.status, count(*) AS n FROM trial t "
                "JOIN workload w ON w.id = t.workload_id WHERE w.experiment_id = ? "
                "GROUP BY t.kind, t.status",
                experiment_id,
            )
        }

    def trials(self, experiment_id: str, kind: str) -> list[dict[str, Any]]:
        """Return the trials of a kind by (workload, arm, number), in the experiment's order."""
        rows = self.read(
            "SELECT t.*, w.name AS workload, a.name AS arm FROM trial t "
            "JOIN workload w ON w.id = t.workload_id JOIN arm a ON a.id = t.arm_id "
            "WHERE w.experiment_id = ? AND t.kind = ? ORDER BY w.id, a.id, t.number",
            experiment_id,
            kind,
        )
        return [{**dict(row), "params": json.loads(row["params"])} for row in rows]

    def final_metrics(
        self, experiment_id: str, kind: str, split: str | None = None
    ) -> dict[int, dict[str, dict[str, float | None]]]:
        """Return ``{trial id: {split: {metric: value}}}`` of what trials gave as their result."""
        found: dict[int, dict[str, dict[str, float | None]]] = {}
        for row in self.read(
            "SELECT m.trial_id, m.split, m.name, m.value FROM metric m "
            "JOIN trial t ON t.id = m.trial_id JOIN workload w ON w.id = t.workload_id "
            "WHERE w.experiment_id = ? AND t.kind = ? AND m.step = -1 "
            "AND (?3 IS NULL OR m.split = ?3)",
            experiment_id,
            kind,
            split,
        ):
            splits = found.setdefault(row["trial_id"], {})
            splits.setdefault(row["split"], {})[row["name"]] = row["value"]
        return found

    def sweep(self) -> None:
        """Remove checkpoint files that no row points to: a kill came between the two."""
        if not self.checkpoints.root.exists():
            return
        # Files first: one that is written while we look has its row later, never earlier, so
        # only folders of trials that have ended are touched.
        ended = {
            str(row["id"])
            for row in self.read("SELECT id FROM trial WHERE status IN ('done', 'diverged')")
        }
        for name in self.checkpoints.trials():
            if name in ended:
                self.checkpoints.drop(int(name))

    # -- provenance ----------------------------------------------------------------------------

    def add_provenance(self, row: Mapping[str, Any]) -> int:
        """Return the id of ``row``, stored once however often a run is resumed."""
        values = {
            key: json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
            for key, value in row.items()
        }
        match = " AND ".join(f"{key} IS :{key}" for key in values)
        with self.transaction() as connection:
            found = connection.execute(
                f"SELECT id FROM provenance WHERE {match}", values
            ).fetchone()
            if found is not None:
                return int(found["id"])
            names = ", ".join(values)
            marks = ", ".join(f":{key}" for key in values)
            cursor = connection.execute(
                f"INSERT INTO provenance ({names}) VALUES ({marks})", values
            )
            return int(cursor.lastrowid or 0)


def _version_of(method: str) -> str | None:
    """Return the installed version of the distribution that a dotted path begins with."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(method.split(".")[0])
    except (PackageNotFoundError, ValueError):
        return None
