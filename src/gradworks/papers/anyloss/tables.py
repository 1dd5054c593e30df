"""Data sets of the AnyLoss experiment, dealt to folds, and the two ways to resample them."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradworks.bench import data
from gradworks.papers.anyloss.presets import SETS_FOLDER

__all__ = ["Table", "oversampled", "read_table", "supplied", "undersampled"]

_HELD_OUT = 0.3
_NEIGHBOURS = 5  # of SMOTE, its published default


@dataclass(frozen=True)
class Table:
    """A data set and the row numbers of its folds."""

    X: np.ndarray
    y: np.ndarray
    train: list[np.ndarray]
    test: list[np.ndarray]
    inner: list[np.ndarray]
    held_out: list[np.ndarray]


def read_table(spec: Mapping[str, Any], seed: int) -> Table:
    """Read the set and deal its rows to folds; the smaller class is the positive one.

    Args:
        spec: The workload's: source, number of folds and of repeats.
        seed: Of the folds.

    Returns:
        The set and its folds.
    """
    source = spec["source"]
    if "keel" in source:
        X, y, _ = data.keel(source["keel"])
    elif "table" in source:
        X, y, _ = getattr(data, source["table"])()
        X, y = X[:: source.get("every", 1)], y[:: source.get("every", 1)]
    else:
        X, y = supplied(source["file"], source["sha256"])
    y = (1 - y if y.mean() > 0.5 else y).astype(np.float64)
    rng = np.random.default_rng(seed)
    rows = np.arange(len(y))
    parts: dict[str, list[np.ndarray]] = {"train": [], "test": [], "inner": [], "held_out": []}
    for _ in range(spec["repeats"]):
        number = _dealt(y, spec["folds"], rng)
        for k in range(spec["folds"]):
            train = rows[number != k]
            away = _held_out(y[train], rng)
            parts["train"].append(train)
            parts["test"].append(rows[number == k])
            parts["inner"].append(train[~away])
            parts["held_out"].append(train[away])
    return Table(X, y, **parts)


def _dealt(y: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Stratified fold numbers: each class is shuffled and dealt out in turn."""
    number = np.empty(len(y), dtype=np.int64)
    start = 0
    for label in (1.0, 0.0):
        own = rng.permutation(np.flatnonzero(y == label))
        number[own] = (start + np.arange(len(own))) % folds
        start += len(own)  # the next class goes on where this one ended: folds of equal size
    return number


def _held_out(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whether a row is held out: 30 % of each class, one row at least."""
    away = np.zeros(len(y), dtype=bool)
    for label in (1.0, 0.0):
        own = rng.permutation(np.flatnonzero(y == label))
        away[own[: max(1, round(_HELD_OUT * len(own)))]] = True
    return away


def supplied(file: str, sha256: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one of the authors' files: a header, numbers, the label in the last column.

    Args:
        file: Its name.
        sha256: What its content must hash to.

    Returns:
        Features and labels.

    Raises:
        RuntimeError: If the file is another one by now.
        ValueError: If its form is not that.
    """
    path = Path(os.environ.get(SETS_FOLDER, "")) / file
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise RuntimeError(f"{path} changed since the run was planned; run it with --fresh")
    _, *rows = [row for row in csv.reader(content.decode("utf-8-sig").splitlines()) if row]
    labels = sorted({row[-1].strip() for row in rows})
    if len(labels) != 2:
        raise ValueError(f"{path} must hold two classes in its last column, found {len(labels)}")
    try:
        X = np.array([[float(cell) for cell in row[:-1]] for row in rows])
    except ValueError as error:
        raise ValueError(f"{path} must hold numbers before the last column: {error}") from error
    return X, np.array([labels.index(row[-1].strip()) for row in rows], dtype=np.int64)


def oversampled(table: Table, seed: int) -> Table:
    """Add SMOTE's rows to the training parts; test and held-out rows stay as they are.

    Args:
        table: The set and its folds.
        seed: Of the new rows.

    Returns:
        The set with the new rows, which only training parts contain.

    Raises:
        MissingData: If imbalanced-learn is not installed.
    """
    try:
        from imblearn.over_sampling import SMOTE
    except ImportError:
        raise data.MissingData(
            'the SMOTE arm needs imbalanced-learn: pip install "imbalanced-learn>=0.13"'
        ) from None
    X, y = [table.X], [table.y]
    count = len(table.y)

    def grown(rows: np.ndarray) -> np.ndarray:
        nonlocal count
        mean, scale = table.X[rows].mean(0), table.X[rows].std(0)
        scale = np.where(scale > 0.0, scale, 1.0)  # neighbours are looked for in equal units
        few = int(table.y[rows].sum())
        if few < 2:
            return rows  # nothing to interpolate between
        smote = SMOTE(k_neighbors=min(_NEIGHBOURS, few - 1), random_state=seed % 2**31)
        made, _ = smote.fit_resample((table.X[rows] - mean) / scale, table.y[rows])
        fresh = made[len(rows) :] * scale + mean
        X.append(fresh)
        y.append(np.ones(len(fresh)))
        count += len(fresh)
        return np.concatenate([rows, np.arange(count - len(fresh), count)])

    train = [grown(rows) for rows in table.train]
    inner = [grown(rows) for rows in table.inner]
    return Table(np.concatenate(X), np.concatenate(y), train, table.test, inner, table.held_out)


def undersampled(table: Table, seed: int) -> Table:
    """Drop rows of the larger class from the training parts until both classes are equal.

    Args:
        table: The set and its folds.
        seed: Of the choice of rows.

    Returns:
        The set with smaller training parts; test and held-out rows stay as they are.
    """
    rng = np.random.default_rng(seed)

    def shrunk(rows: np.ndarray) -> np.ndarray:
        few, many = rows[table.y[rows] == 1], rows[table.y[rows] == 0]
        kept = rng.permutation(many)[: len(few)]
        return np.sort(np.concatenate([few, kept]))

    train = [shrunk(rows) for rows in table.train]
    return dataclasses.replace(table, train=train, inner=[shrunk(rows) for rows in table.inner])
