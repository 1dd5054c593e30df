"""A figure as data, drawn twice: interactive in the site, static on paper.

A paper module says *what* to show; ``gradworks.report`` draws it with plotly and with matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Figure", "Series"]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line, cloud or set of bars.

    Args:
        name: Entry of the legend.
        x: Positions: numbers, or category names for bars.
        y: Heights.
        lo: Lower ends of the intervals, or None.
        hi: Upper ends, or None.
        style: ``"line"`` (with a band where intervals are given), ``"points"`` (with error bars),
            ``"bars"`` or ``"reference"`` (a thin dashed line).
    """

    name: str
    x: Sequence[float | str]
    y: Sequence[float]
    lo: Sequence[float] | None = None
    hi: Sequence[float] | None = None
    style: Literal["line", "points", "bars", "reference"] = "line"

    def __post_init__(self) -> None:
        for what in ("y", "lo", "hi"):
            values = getattr(self, what)
            if values is not None and len(values) != len(self.x):
                raise ValueError(
                    f"series {self.name!r}: {what} has {len(values)} values, x has {len(self.x)}"
                )


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One plot of a paper's page.

    Args:
        id: Short name, unique on the page, used in file names.
        title: What it shows, a few words.
        caption: What to see in it, one or two sentences; also the text for screen readers.
        x_label: Axis title with unit.
        y_label: Axis title with unit.
        series: What is drawn.
        x_log: Logarithmic x axis.
        y_log: Logarithmic y axis.
    """

    id: str
    title: str
    caption: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_log: bool = False
    y_log: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as JSON-ready data."""
        return asdict(self)
