"""The table of a comparison of optimizers: few stand side by side, many below each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from gradworks.bench.compare import ratio_of
from gradworks.report.terminal.tables import comparison_table, new_table
from gradworks.report.wording import number

__all__ = ["optimizer_table"]

_MOST_COLUMNS = 3  # optimizers that fit a terminal with their intervals
# Column -> heading, short enough for 80 characters; the metric of the workload comes first.
_COLUMNS = {
    "steps_ratio": "steps",
    "seconds_ratio": "seconds",
    "step_time_ratio": "a step",
    "reached": "hits",
    "state_bytes": "B/par",
}
_RATIOS = frozenset({"steps_ratio", "seconds_ratio", "step_time_ratio"})


def optimizer_table(
    rows: Sequence[Mapping[str, Any]],
    console: Console,
    title: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Print a comparison; more than three optimizers have a row each, with ratios to the first.

    Args:
        rows: What :func:`gradworks.bench.compare.summary` returned.
        console: Where.
        title: Above the table.
        labels: Names to print, by arm.
    """
    if len(rows) <= _MOST_COLUMNS:
        comparison_table(rows, console, title)
        return
    names = [(labels or {}).get(row["arm"], str(row["arm"])) for row in rows]
    keys = list(rows[0])
    metric = keys[keys.index("n") + 1]
    table = new_table(title)
    table.add_column("optimizer", overflow="fold")
    headings = {metric: metric.replace("_", " "), **_COLUMNS}
    headings = {
        key: text for key, text in headings.items() if any(row.get(key) is not None for row in rows)
    }
    for text in headings.values():
        table.add_column(text, justify="right", no_wrap=True)
    for name, row in zip(names, rows, strict=True):
        table.add_row(name, *(_cell(row, key, rows[0]) for key in headings))
    console.print(table)
    words = [
        f"steps, seconds: to the target, median final validation {metric.replace('_', ' ')} of "
        f"{names[0]} ({number(rows[0].get('target'))}); with a step's time they are ratios to "
        f"{names[0]}, below 1 is less; ≥ where more runs miss the target than of {names[0]}. hits: "
        "runs that reach it. B/par: bytes of state a parameter.",
        *(f"{name}: {row['note']}." for name, row in zip(names, rows, strict=True) if row["note"]),
    ]
    for text in words:
        console.print(Text(text, style="dim"))


def _cell(row: Mapping[str, Any], key: str, first: Mapping[str, Any]) -> Text:
    value, bound = ratio_of(row, key, first) if key in _RATIOS else (row.get(key), False)
    if isinstance(value, str):
        return Text(value)
    if value is None:
        return Text("–", style="dim")
    short = _ratio if key in _RATIOS else number
    lo, hi = row.get(f"{key}_lo"), row.get(f"{key}_hi")
    ends = "" if lo is None or hi is None else f"\n{short(lo)}–{short(hi)}"
    return Text(f"{'≥' if bound else ''}{short(value)}{ends}")


def _ratio(value: float) -> str:
    return f"{value:.2f}"
