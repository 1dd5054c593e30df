"""The tables of the store: an old store and a new one end up the same, whatever interrupts."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from gradworks.bench import schema
from gradworks.bench.database import Database, StoreError
from gradworks.bench.schema import MIGRATIONS, SCHEMA_VERSION, migrate, version_of
from gradworks.bench.store import Store
from gradworks.bench.studies import studies

SPEC = '[{"name": "lr", "low": 0.1, "high": 1.0, "default": 0.5, "scale": "log"}]'
OLD_ROWS = (
    "INSERT INTO experiment VALUES ('e', 'p', 'c', 'full', 'hash', 1.0, '{}', 'open')",
    """INSERT INTO workload (id, experiment_id, name, steps, batch_size, spec)
       VALUES (1, 'e', 'w', 10, 4, '{"select_on": "loss"}')""",
    f"INSERT INTO arm VALUES (1, 'e', 'a', 'm', NULL, '{SPEC}', '{{}}', 0)",
    f"INSERT INTO arm VALUES (2, 'e', 'b', 'm', NULL, '{SPEC}', '{{}}', 1)",
    """INSERT INTO trial (id, workload_id, arm_id, kind, number, seed, params, status)
       VALUES (1, 1, 1, 'tune', 0, 7, '{"lr": 0.5}', 'done')""",
    """INSERT INTO trial (id, workload_id, arm_id, kind, number, seed, params, status)
       VALUES (2, 1, 1, 'tune', 1, 7, '{"lr": 0.2}', 'killed')""",
    "INSERT INTO metric VALUES (1, -1, NULL, 1.0, 'valid', 'loss', 0.25)",
    "INSERT INTO checkpoint VALUES (2, 4, '2/000000004-x.pt', 'abc', 3.0)",
    "INSERT INTO lease VALUES (2, 'w-1-x', 1, 'h', 'b', 2.0)",
    "INSERT INTO verdict (experiment_id, claim, verdict, protocol_hash, text, created) "
    "VALUES ('e', 'c', 'partly', 'hash', 'old', 1.0)",
    "INSERT INTO verdict (experiment_id, claim, verdict, protocol_hash, text, created) "
    "VALUES ('e', 'c', 'reproduced', 'hash', 'new', 2.0)",
)


def store_of_version(path: Path, version: int, rows: tuple[str, ...] = OLD_ROWS) -> Path:
    """Write a store as the gradworks of that version did."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statements in MIGRATIONS[:version]:
        for statement in statements:
            connection.execute(statement)
    connection.execute("UPDATE schema_version SET version = ?", (version,))
    for row in rows:
        connection.execute(row)
    connection.close()
    return path


def layout(path: Path) -> list[tuple[str, ...]]:
    with sqlite3.connect(path) as connection:
        found = connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
        ).fetchall()
    connection.close()
    return found


def test_an_old_store_gets_the_tables_of_a_new_one(tmp_path: Path) -> None:
    old = store_of_version(tmp_path / "old.db", 1)
    Store(old).close()
    Store(tmp_path / "new.db").close()
    assert layout(old) == layout(tmp_path / "new.db")


def test_an_old_store_keeps_what_it_holds(tmp_path: Path) -> None:
    with Store(store_of_version(tmp_path / "old.db", 1)) as store:
        assert [(t["id"], t["status"]) for t in store.trials("e", "tune")] == [
            (1, "done"),
            (2, "killed"),
        ]
        assert store.final_metrics("e", "tune") == {1: {"valid": {"loss": 0.25}}}
        [checkpoint] = store.read("SELECT * FROM checkpoint")
        assert tuple(checkpoint) == (2, 4, "2/000000004-x.pt", "abc", 3.0)
        assert store.read("SELECT trial_id FROM lease")[0][0] == 2
        # The newest verdict of a claim stays; an arm with tuning trials has a study.
        assert [v["text"] for v in store.read("SELECT text FROM verdict")] == ["new"]
        [study] = studies(store, "e")
        assert (study.arm, study.round, study.chosen) == ("a", 0, None)
        assert study.space[0].high == 1.0
        assert [t.value for t in study.trials] == [0.25, None]


def test_a_migration_that_stops_half_way_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store_of_version(tmp_path / "old.db", 1)
    before = layout(path)
    steps = (MIGRATIONS[0], (*MIGRATIONS[1][:-1], "SELECT no_such_column FROM trial"))
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    with pytest.raises(StoreError, match="no such column"):
        Store(path)
    assert layout(path) == before
    monkeypatch.undo()
    with Store(path) as store:
        assert version_of(store._connection) == SCHEMA_VERSION
        assert len(store.trials("e", "tune")) == 2


def test_many_openers_migrate_once(tmp_path: Path) -> None:
    path = store_of_version(tmp_path / "old.db", 1)
    errors: list[Exception] = []
    gate = threading.Barrier(6)

    def open_it() -> None:
        try:
            gate.wait()
            Store(path).close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    Store(tmp_path / "new.db").close()
    assert layout(path) == layout(tmp_path / "new.db")


def test_a_row_that_points_nowhere_is_refused(tmp_path: Path) -> None:
    rows = (*OLD_ROWS, "INSERT INTO lease VALUES (99, 'w', 1, 'h', 'b', 2.0)")
    path = store_of_version(tmp_path / "old.db", 1, rows)
    with pytest.raises(StoreError, match="points nowhere"):
        Store(path)


def test_version_tells_ours_from_others(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    assert version_of(connection) == 0
    connection.execute("CREATE TABLE recipes (name TEXT)")
    assert version_of(connection) is None
    connection.close()
    with Database(tmp_path / "ours.db") as ours:
        assert version_of(ours._connection) == SCHEMA_VERSION
        migrate(ours._connection)  # nothing to do
        assert version_of(ours._connection) == SCHEMA_VERSION
