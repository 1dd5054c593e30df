"""Tables of plain rows: plans, comparisons, data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradworks.report.wording import duration, number, plural

__all__ = ["comparison_table", "data_table", "new_table", "plan_table"]

# Headings of the columns that need more than their key.
_HEADINGS = {
    "arm": "optimizer",
    "here": "installed",
    "package": "pip package",
    "what": "what it is",
    "n": "seeds",
}
_STATE = {"ok": "green", "changed": "bold red", "other": "yellow", "absent": "yellow"}


class _Plan(Protocol):
    """What :func:`gradworks.bench.plan` returns."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""


def new_table(title: str | None = None) -> Table:
    """Return an empty table in the one look that all tables of ours have."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        header_style="bold",
        pad_edge=False,
    )


def plan_table(plan: _Plan, console: Console) -> None:
    """Print what a run would do and what it would cost, before anything starts.

    Args:
        plan: What :func:`gradworks.bench.plan` returned.
        console: Where.
    """
    document = plan.to_dict()
    table = new_table(f"{document['paper']}: the {document['preset']} preset")
    table.add_column("what")
    table.add_column("how many")
    trials = document["tune_trials"] + document["final_trials"]
    rows = {
        "workloads": _counted(document["workloads"]),
        "arms": _counted(document["arms"]),
        "tuning trials": number(document["tune_trials"]),
        "final runs": number(document["final_trials"]),
        "trials in all": number(trials),
        "expected time": f"{duration(document['seconds'])} on "
        f"{plural(int(document['cores']), 'core')}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def _counted(value: Any) -> str:
    """A count, or the names with their count."""
    if isinstance(value, (list, tuple)):
        names = [str(v["name"]) if isinstance(v, Mapping) else str(v) for v in value]
        return f"{len(names)}: {', '.join(names)}"
    return number(value)


def comparison_table(
    rows: Sequence[Mapping[str, Any]], console: Console, title: str | None = None
) -> None:
    """Print a comparison, one column an arm; ``x``, ``x_lo`` and ``x_hi`` share one line.

    Args:
        rows: What :func:`gradworks.bench.compare.summary` returned.
        console: Where.
        title: Above the table.
    """
    if not rows:
        console.print(Text("nothing to show"))
        return
    table = new_table(title)
    table.add_column("")
    for row in rows:
        table.add_column(str(row.get("arm", "")), overflow="fold")
    for key in _shown(rows):
        if key != "arm":
            heading = _HEADINGS.get(key, key.replace("_", " "))
            table.add_row(heading, *(_cell(row, key) for row in rows))
    console.print(table)


def data_table(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print data sets: what is installed, or what the hashes say.

    Args:
        rows: What :func:`gradworks.bench.data.installed` or ``verify`` returned.
        console: Where.
    """
    _print_rows(rows, console, None)


def _print_rows(rows: Sequence[Mapping[str, Any]], console: Console, title: str | None) -> None:
    if not rows:
        console.print(Text("nothing to show"))
        return
    keys = _shown(rows)
    table = new_table(title)
    for key in keys:
        numeric = all(_is_number(row.get(key)) for row in rows)
        heading = _HEADINGS.get(key, key.replace("_", " "))
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row, key) for key in keys))
    console.print(table)


def _shown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys that get a heading, in order: no ends of intervals, nothing empty."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    ends = {f"{key}_{end}" for key in keys for end in ("lo", "hi") if f"{key}_{end}" in keys}
    return [key for key in keys if key not in ends and _says_something(rows, key)]


def _says_something(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    """False for a column that is empty in every row."""
    return any(row.get(key) not in (None, "", [], {}) for row in rows)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _cell(row: Mapping[str, Any], key: str) -> Text:
    value = row.get(key)
    if isinstance(value, bool):
        return Text("yes", style="green") if value else Text("no", style="yellow")
    if value is None:
        return Text("–", style="dim")
    if isinstance(value, (int, float)):
        lo, hi = row.get(f"{key}_lo"), row.get(f"{key}_hi")
        ends = "" if lo is None or hi is None else f" [{number(lo)}, {number(hi)}]"
        return Text(f"{number(value)}{ends}")
    if isinstance(value, (list, tuple)):
        joint = "×" if key == "shape" else ", "
        return Text(joint.join(number(v) if _is_number(v) else str(v) for v in value))
    if isinstance(value, Mapping):
        return Text(", ".join(f"{k} {number(v) if _is_number(v) else v}" for k, v in value.items()))
    return Text(str(value), style=_STATE.get(str(value), ""))
