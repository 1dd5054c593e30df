"""One SQLite file, opened with care: WAL, short write transactions, errors in one sentence."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from gradworks.bench.schema import SCHEMA_VERSION, migrate, version_of

__all__ = ["BUSY_SECONDS", "Database", "StoreError"]

BUSY_SECONDS = 30.0


class StoreError(RuntimeError):
    """The store cannot be read or written; the text says in one sentence why and what to do."""


def _sentence(path: Path, error: Exception) -> str:
    """Say in one sentence what is wrong with the store at ``path``."""
    text = str(error)
    cases = (
        (("readonly", "read-only"), "is read-only: make it writable or take another --store"),
        (("disk is full",), "could not grow, the disk is full: free some space and run again"),
        (("unable to open",), "cannot be opened: its folder must exist and be writable"),
        (
            ("not a database", "malformed", "points nowhere"),
            "is damaged or no SQLite file: move it away or take another --store",
        ),
        (("is locked",), f"was locked by another program for {BUSY_SECONDS:.0f} s: close that one"),
    )
    for fragments, meaning in cases:
        if any(fragment in text for fragment in fragments):
            return f"store {path} {meaning} ({text})"
    return f"store {path} failed: {text}"


class Database:
    """An open SQLite file with the tables of a run store.

    Args:
        path: The file; created with its tables if it does not exist.
        create: False raises instead of creating a file.

    Raises:
        StoreError: If the file cannot be opened, written or understood.

    Note:
        It holds one connection and belongs to one thread.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        self.path = Path(path).absolute()
        if not create and not self.path.exists():
            raise StoreError(f"store {self.path} does not exist: `gradworks run` creates one")
        if self.path.is_dir():
            raise StoreError(f"store {self.path} is a folder: name a file in it")
        with self._explained():
            self._connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None
            )
        self._connection.row_factory = sqlite3.Row
        try:
            with self._explained():
                self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        """Set the pragmas, refuse what is not ours, bring the tables up to date."""
        connection = self._connection
        version = version_of(connection)
        if version is None:
            raise StoreError(
                f"store {self.path} is an SQLite file of another program: take another --store"
            )
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"store {self.path} was written by a newer gradworks (schema {version}, this one "
                f"reads up to {SCHEMA_VERSION}): upgrade gradworks or take another --store"
            )
        self._use_wal()
        connection.execute("PRAGMA synchronous = NORMAL")
        if version < SCHEMA_VERSION:
            migrate(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        # SQLite opens a read-only file without a word; ask for the write lock now, not in an hour.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")

    def _use_wal(self) -> None:
        """Switch to WAL; the switch itself does not wait for other openers, so it is repeated."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                if self._connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                    return
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into a :class:`StoreError`."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(_sentence(self.path, error)) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write in one transaction: all of it or nothing.

        Yields:
            The connection, with the write lock held.
        """
        connection = self._connection
        with self._explained():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def read(self, sql: str, *args: Any) -> list[sqlite3.Row]:
        """Return all rows of a query."""
        with self._explained():
            return self._connection.execute(sql, args).fetchall()

    def close(self) -> None:
        """Close the connection; the last one also folds the WAL back into the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
