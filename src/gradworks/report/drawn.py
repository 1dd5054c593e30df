"""What a tool measured, ready for a page: a figure, the numbers beside it, a table; and a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Drawn", "Table", "plain_series", "write_whole"]


@dataclass(frozen=True)
class Table:
    """A small table.

    Attributes:
        caption: What it shows.
        headings: Name of each column, and whether numbers stand in it.
        rows: Cells as text; the first heads its row.
    """

    caption: str
    headings: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Drawn:
    """A measurement as pages show it.

    Attributes:
        figure: ``Figure.to_dict()``, or a map of :mod:`gradworks.report.maps`.
        facts: Names and values.
        table: Or None.
    """

    figure: Mapping[str, Any]
    facts: Sequence[tuple[str, str]] = ()
    table: Table | None = None


def plain_series(
    name: str, x: Sequence[float], y: Sequence[float | None], style: str
) -> dict[str, Any]:
    """Return a series of a figure without intervals.

    Args:
        name: In the legend.
        x: Positions.
        y: Heights; None is a gap.
        style: As :class:`gradworks.bench.figures.Series` knows them.
    """
    return {"name": name, "x": x, "y": y, "lo": None, "hi": None, "style": style}


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a kill leaves the old one or the new one.

    Args:
        path: The file; its folder is there.
        text: What it will hold.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
