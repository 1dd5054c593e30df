"""Sensor recordings: muscle signals with their covariance matrices, brain connectivity."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from gradworks.bench.data.files import Meta, checked, meta_of
from gradworks.bench.data.registry import find

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["connectomes", "emg", "emg_covariances"]


def emg() -> tuple[Array, Array, Meta]:
    """Return muscle signals of five hand signs, in the order of recording.

    Returns:
        X (731682, 8) float32, eight channels; y (731682,) int64, five signs; what is known, with
        the session of each row in ``meta.groups`` (four sessions, the natural domains).

    Raises:
        MissingData: If ``geomstats`` is not installed.
        ChangedData: If its file is not the one that was hashed.
    """  # noqa: DOC502
    import numpy as np

    entry, _ = find("emg")
    path = checked(entry, entry.files[0])
    signals = np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(1, 9), dtype=np.float32)
    words = np.loadtxt(path, delimiter=",", skiprows=1, usecols=(9, 10), dtype="U8")
    classes, y = np.unique(words[:, 0], return_inverse=True)
    sessions, groups = np.unique(words[:, 1], return_inverse=True)
    meta = meta_of(
        "emg",
        features=tuple(f"c{i}" for i in range(8)),
        classes=tuple(classes.tolist()),
        groups=groups.astype(np.int64),
        group_names=tuple(sessions.tolist()),
    )
    return signals, y.astype(np.int64), meta


def emg_covariances(window: int = 200, step: int = 100) -> tuple[Array, Array, Meta]:
    """Return covariance matrices of windows of :func:`emg`, none across a change of sign.

    Args:
        window: Rows a window, at least 9 (a matrix of fewer rows is singular).
        step: Rows between the starts of two windows, at least 1.

    Returns:
        X (windows, 8, 8) float64, 7,144 of them by default; y (windows,); what is known, with the
        session of each window in ``meta.groups``.

    Raises:
        ValueError: If ``window`` or ``step`` is too small.
        MissingData: If ``geomstats`` is not installed.
        ChangedData: If its file is not the one that was hashed.
    """  # noqa: DOC502
    import numpy as np

    if window < 9:
        raise ValueError(f"window must be at least 9 rows, got {window}")
    if step < 1:
        raise ValueError(f"step must be at least 1 row, got {step}")
    X, y, meta = emg()
    groups = meta.groups
    if groups is None:
        raise RuntimeError("emg() gave no sessions")
    change = np.flatnonzero((np.diff(y) != 0) | (np.diff(groups) != 0)) + 1
    edges = [0, *change.tolist(), len(y)]
    starts = np.array(
        [
            start
            for first, end in itertools.pairwise(edges)
            for start in range(first, end - window + 1, step)
        ]
    )
    cut = np.lib.stride_tricks.sliding_window_view(X, window, axis=0)[starts].astype(np.float64)
    centred = cut - cut.mean(axis=2, keepdims=True)
    matrices = centred @ centred.transpose(0, 2, 1) / (window - 1)
    described = meta_of(
        "emg",
        classes=meta.classes,
        groups=groups[starts],
        group_names=meta.group_names,
        note=f"covariances of windows of {window} rows every {step}",
    )
    return matrices, y[starts], described


def connectomes() -> tuple[Array, Array, Meta]:
    """Return correlations between 28 brain regions of 86 people.

    Returns:
        X (86, 28, 28) float64, symmetric with a unit diagonal; y (86,) int64, 1 for a patient;
        what is known.

    Raises:
        MissingData: If ``geomstats`` is not installed.
        ChangedData: If a file is not the one that was hashed.
    """  # noqa: DOC502
    import numpy as np

    entry, _ = find("connectomes")
    upper, labels = (
        np.loadtxt(checked(entry, file), delimiter=",", skiprows=1) for file in entry.files
    )
    by_person = {int(person): int(label) for person, label in labels}
    matrices = np.tile(np.eye(28), (len(upper), 1, 1))
    rows, columns = np.triu_indices(28, k=1)
    matrices[:, rows, columns] = upper[:, 1:]
    matrices[:, columns, rows] = upper[:, 1:]
    y = np.array([by_person[int(person)] for person in upper[:, 0]])
    return matrices, y, meta_of("connectomes", classes=("control", "patient"))
