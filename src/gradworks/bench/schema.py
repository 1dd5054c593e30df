"""The tables of the run store, as a list of migrations.

``MIGRATIONS[k]`` brings a store from version ``k`` to ``k + 1``; a new store goes through all of
them, so that an old store and a new one cannot differ. A migration that was once released is
never edited: a change is one more entry at the end.
"""

from __future__ import annotations

import sqlite3

__all__ = ["MIGRATIONS", "SCHEMA_VERSION", "migrate", "version_of"]

_TABLES = (
    "CREATE TABLE schema_version (version INTEGER NOT NULL)",
    "INSERT INTO schema_version VALUES (1)",
    """CREATE TABLE experiment (
        id TEXT PRIMARY KEY, paper TEXT NOT NULL, claim_set TEXT NOT NULL, preset TEXT NOT NULL,
        protocol_hash TEXT NOT NULL, created REAL NOT NULL, spec TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('open', 'frozen', 'done')))""",
    """CREATE TABLE workload (
        id INTEGER PRIMARY KEY, experiment_id TEXT NOT NULL REFERENCES experiment (id),
        name TEXT NOT NULL, data_sha256 TEXT, data_source TEXT, model TEXT, n_params INTEGER,
        steps INTEGER NOT NULL, batch_size INTEGER NOT NULL, spec TEXT NOT NULL,
        UNIQUE (experiment_id, name))""",
    """CREATE TABLE arm (
        id INTEGER PRIMARY KEY, experiment_id TEXT NOT NULL REFERENCES experiment (id),
        name TEXT NOT NULL, method TEXT NOT NULL, version TEXT, space TEXT NOT NULL,
        fixed TEXT NOT NULL, is_baseline INTEGER NOT NULL, UNIQUE (experiment_id, name))""",
    """CREATE TABLE provenance (
        id INTEGER PRIMARY KEY, git_sha TEXT, dirty INTEGER, diff_sha256 TEXT, python TEXT,
        torch TEXT, numpy TEXT, gradworks TEXT, lock_sha256 TEXT, platform TEXT, cpu TEXT,
        cores INTEGER, threads INTEGER, gpu TEXT, driver TEXT, deterministic INTEGER, env TEXT)""",
    """CREATE TABLE trial (
        id INTEGER PRIMARY KEY, workload_id INTEGER NOT NULL REFERENCES workload (id),
        arm_id INTEGER NOT NULL REFERENCES arm (id),
        kind TEXT NOT NULL CHECK (kind IN ('tune', 'final', 'time')),
        number INTEGER NOT NULL, seed INTEGER NOT NULL, params TEXT NOT NULL, unit_point TEXT,
        status TEXT NOT NULL CHECK
            (status IN ('queued', 'running', 'done', 'diverged', 'failed', 'killed')),
        attempt INTEGER NOT NULL DEFAULT 0, started REAL, ended REAL,
        steps_done INTEGER NOT NULL DEFAULT 0, seconds REAL, peak_rss INTEGER,
        state_bytes INTEGER, error TEXT, provenance_id INTEGER REFERENCES provenance (id),
        UNIQUE (workload_id, arm_id, kind, number, seed))""",
    """CREATE TABLE metric (
        trial_id INTEGER NOT NULL REFERENCES trial (id), step INTEGER NOT NULL, evals REAL,
        seconds REAL, split TEXT NOT NULL, name TEXT NOT NULL, value REAL,
        PRIMARY KEY (trial_id, step, split, name)) WITHOUT ROWID""",
    """CREATE TABLE checkpoint (
        trial_id INTEGER PRIMARY KEY REFERENCES trial (id), step INTEGER NOT NULL,
        path TEXT NOT NULL, sha256 TEXT NOT NULL, written REAL NOT NULL)""",
    """CREATE TABLE lease (
        trial_id INTEGER PRIMARY KEY REFERENCES trial (id), worker TEXT NOT NULL,
        pid INTEGER NOT NULL, host TEXT NOT NULL, boot_id TEXT NOT NULL,
        heartbeat REAL NOT NULL)""",
    """CREATE TABLE timing (
        id INTEGER PRIMARY KEY, experiment_id TEXT REFERENCES experiment (id), ours TEXT NOT NULL,
        peer TEXT NOT NULL, peer_version TEXT, threads INTEGER, blocks INTEGER, ratio REAL,
        lo REAL, hi REAL, control_ratio REAL, control_lo REAL, control_hi REAL, raw TEXT)""",
    """CREATE TABLE verdict (
        id INTEGER PRIMARY KEY, experiment_id TEXT NOT NULL REFERENCES experiment (id),
        claim TEXT NOT NULL, verdict TEXT NOT NULL, estimate REAL, lo REAL, hi REAL, p REAL,
        p_adj REAL, n INTEGER, min_effect REAL, n_needed INTEGER, protocol_hash TEXT NOT NULL,
        text TEXT NOT NULL, created REAL NOT NULL)""",
)

# Version 2: the state of a study survives a kill (round of widening, chosen point), two
# checkpoints a trial so that a torn one has a predecessor, all data sets of a workload, a
# verdict's single criteria, and an index that finds open work among thousands of finished trials.
_STUDIES = (
    """CREATE TABLE study (
        id INTEGER PRIMARY KEY, workload_id INTEGER NOT NULL REFERENCES workload (id),
        arm_id INTEGER NOT NULL REFERENCES arm (id), round INTEGER NOT NULL DEFAULT 0,
        space TEXT NOT NULL, chosen TEXT, on_edge TEXT NOT NULL DEFAULT '[]',
        UNIQUE (workload_id, arm_id))""",
    """INSERT INTO study (workload_id, arm_id, space)
        SELECT DISTINCT trial.workload_id, trial.arm_id, arm.space
        FROM trial JOIN arm ON arm.id = trial.arm_id WHERE trial.kind = 'tune'""",
    "ALTER TABLE checkpoint RENAME TO checkpoint_v1",
    """CREATE TABLE checkpoint (
        trial_id INTEGER NOT NULL REFERENCES trial (id), step INTEGER NOT NULL,
        path TEXT NOT NULL, sha256 TEXT NOT NULL, written REAL NOT NULL,
        PRIMARY KEY (trial_id, step))""",
    """INSERT INTO checkpoint (trial_id, step, path, sha256, written)
        SELECT trial_id, step, path, sha256, written FROM checkpoint_v1""",
    "DROP TABLE checkpoint_v1",
    "ALTER TABLE workload ADD COLUMN data TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE verdict ADD COLUMN outcomes TEXT NOT NULL DEFAULT '[]'",
    "DELETE FROM verdict WHERE id NOT IN "
    "(SELECT max(id) FROM verdict GROUP BY experiment_id, claim)",
    "CREATE UNIQUE INDEX verdict_once ON verdict (experiment_id, claim)",
    "CREATE INDEX trial_open ON trial (attempt, id) WHERE status IN ('queued', 'killed')",
    "CREATE INDEX trial_of_workload ON trial (workload_id, kind, status)",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_TABLES, _STUDIES)
SCHEMA_VERSION = len(MIGRATIONS)


def version_of(connection: sqlite3.Connection) -> int | None:
    """Return the schema version, 0 for an empty file, None for somebody else's database."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if "schema_version" not in tables:
        return None if tables else 0
    row = connection.execute("SELECT version FROM schema_version").fetchone()
    return None if row is None else int(row[0])


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the store to the newest version, each step in one transaction.

    A process killed inside a step leaves the version before it. Two processes may call this at
    the same time: the version is read again under the write lock.
    """
    # Rebuilding a table under enforced foreign keys would reject its rename half way.
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        while True:
            connection.execute("BEGIN IMMEDIATE")
            version = version_of(connection)
            if version is None or version >= SCHEMA_VERSION:
                connection.execute("ROLLBACK")
                return
            for statement in MIGRATIONS[version]:
                connection.execute(statement)
            connection.execute("UPDATE schema_version SET version = ?", (version + 1,))
            broken = connection.execute("PRAGMA foreign_key_check").fetchone()
            if broken is not None:
                raise sqlite3.DatabaseError(f"a row of table {broken[0]} points nowhere")
            connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    finally:
        connection.execute("PRAGMA foreign_keys = ON")
