"""The page of all optimizers on all shared workloads: from the stored document to its tables."""

from __future__ import annotations

import ast
import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks.report import wording
from gradworks.report.outcomes import OutcomeView
from gradworks.report.site import strip, views

if TYPE_CHECKING:
    from gradworks.bench.result import Result
    from gradworks.papers import Paper

__all__ = ["COLUMNS", "chosen", "context", "figures", "in_words", "slugs"]

# Column -> its heading, and what its figure in its own unit is called.
COLUMNS: Mapping[str, tuple[str, str]] = {
    "seconds_ratio": ("Time to target", "seconds_to_target"),
    "steps_ratio": ("Steps to target", "steps_to_target"),
    "step_time_ratio": ("Step time", ""),
}
_WIDTH = 120  # of a strip in the table


def chosen(extra: Sequence[Result]) -> tuple[Result, bool] | None:
    """Return the comparison to show and whether it is the published one, None if there is none.

    Args:
        extra: Results of a run store; the newest comparison among them comes first, for whoever
            gave a store wants to see it.
    """
    from gradworks.bench import compare
    from gradworks.papers import compared

    local = [result for result in extra if result.paper == compare.SHARED]
    if local:
        return max(local, key=lambda r: str(r.document.get("finished") or "")), False
    kept = compared()
    return None if kept is None else (kept, True)


def context(result: Result, papers: Sequence[Paper], *, published: bool) -> dict[str, Any]:
    """Return everything that the page prints.

    Args:
        result: The comparison.
        papers: The catalogue, for links.
        published: Whether it is the one that is kept with the code.
    """
    from gradworks.bench import compare

    document = result.document
    first = document["arms"][0]
    rows = compare.summaries(result)
    return {
        "baseline": first["label"],
        "published": published,
        "finished": views.day(str(document.get("finished") or "")),
        "seconds": wording.duration(document.get("seconds")),
        "notes": list(document.get("notes", ())),
        "workloads": [
            _workload(document, workload, rows[workload["name"]], _pages(papers))
            for workload in document["workloads"]
        ],
        "tuned": [_tuned(document, w, rows[w["name"]]) for w in document["workloads"]],
        "tuning": document["studies"][0]["trials"] if document.get("studies") else [],
        "seeds": max((row["n"] for table in rows.values() for row in table), default=0),
        "facts": views.facts(document["provenance"][0]) if document.get("provenance") else [],
        "ranges": max((row["n"] for table in rows.values() for row in table), default=0) < 6,
    }


def figures(result: Result) -> list[tuple[str, dict[str, Any]]]:
    """Return the page's plots with the workload of each: ratios first, then the stored curves.

    Args:
        result: The comparison.
    """
    from gradworks.bench import compare

    found = []
    for workload in result.document["workloads"]:
        name = workload["name"]
        ratio = compare.ratios(result, name)
        if ratio is not None:
            found.append((name, ratio.to_dict()))
        stored = [f for f in result.document.get("figures", ()) if f["id"].startswith(f"{name}-")]
        found += [(name, f) for f in stored if "-validation" in f["id"]]
    return found


def slugs(result: Result, papers: Sequence[Paper]) -> set[str]:
    """Return the papers whose optimizers a comparison shows.

    Args:
        result: The comparison.
        papers: The catalogue.
    """
    pages = _pages(papers)
    return {pages[arm["method"]] for arm in result.document["arms"] if arm["method"] in pages}


def in_words(result: Result) -> str:
    """Return one sentence about a comparison, for a link to it.

    Args:
        result: The comparison.
    """
    document = result.document
    names = [workload["name"] for workload in document["workloads"]]
    return (
        f"{wording.plural(len(document['arms']), 'optimizer')} on {' and '.join(names)}: time and "
        f"steps until {document['arms'][0]['label']}'s quality, step time and memory of state."
    )


def _pages(papers: Sequence[Paper]) -> dict[str, str]:
    """Return the paper's slug of each class of ``gradworks.optim``, without importing one."""
    spec = importlib.util.find_spec("gradworks")
    folder = Path(next(iter((spec and spec.submodule_search_locations) or ()), ""))
    source = (folder / "optim" / "__init__.py").read_text(encoding="utf-8")
    slugs = {paper.card.package: paper.slug for paper in papers}
    return {
        f"gradworks.optim.{alias.name}": slug
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for package, slug in slugs.items()
        if node.module == package or node.module.startswith(f"{package}.")
        for alias in node.names
    }


def _workload(
    document: Mapping[str, Any],
    workload: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    pages: Mapping[str, str],
) -> dict[str, Any]:
    """One workload's table, the fastest to the target first."""
    from gradworks.bench import workloads

    arms = {arm["name"]: arm for arm in document["arms"]}
    metric = workload["select_on"]
    ordered = sorted(rows, key=lambda row: _speed(row, rows[0]))
    axis = {key: _axis(rows, key) for key in COLUMNS}
    what = workloads.describe(workload["name"]) if workload["name"] in workloads.NAMES else ""
    return {
        "name": workload["name"],
        "what": what,
        "metric": metric.replace("_", " "),
        "steps": workload["steps"],
        "batch_size": workload["batch_size"],
        "target": wording.number(rows[0]["target"]),
        "data": [one["source"] for one in workload.get("data", ()) if one.get("source")],
        "rows": [
            {
                "label": arms[row["arm"]]["label"],
                "method": arms[row["arm"]]["method"],
                "page": pages.get(arms[row["arm"]]["method"], ""),
                "baseline": row is rows[0],
                "cells": [_cell(row, key, axis[key], rows[0]) for key in COLUMNS],
                "reached": str(row["reached"]).replace("/", " of "),
                "state": _bytes(row["state_bytes"]),
                "metric": wording.number(row[metric]),
                "metric_interval": _ends(row, metric),
                "note": row["note"],
            }
            for row in ordered
        ],
    }


def _speed(row: Mapping[str, Any], first: Mapping[str, Any]) -> tuple[int, float]:
    """By what rows are ordered: time to the target, then bounds of it, then the final metric."""
    from gradworks.bench.compare import ratio_of

    if row is first:
        return 0, 1.0
    shown, bound = ratio_of(row, "seconds_ratio", first)
    if shown is not None:
        return int(bound), shown
    metric = row[_metric(row)]
    return 2, math.inf if metric is None else float(metric)


def _metric(row: Mapping[str, Any]) -> str:
    """The name of the workload's metric: the key after the number of seeds."""
    keys = list(row)
    return keys[keys.index("n") + 1]


def _outcome(row: Mapping[str, Any], key: str) -> OutcomeView:
    record = {"estimate": row[key], "lo": row.get(f"{key}_lo"), "hi": row.get(f"{key}_hi")}
    level = 0.95 if row["n"] >= 6 else None
    return OutcomeView(
        name=key,
        kind="speed",
        status="",
        scale="ratio",
        unit="seed",
        direction="lower",
        neutral=1.0,
        compared="",
        record={**record, "level": level, "n": row["n"]},
    )


def _axis(rows: Sequence[Mapping[str, Any]], key: str) -> strip.Axis | None:
    """One axis for a column: rows are compared by eye."""
    from gradworks.bench.compare import ratio_of

    shown = [_outcome(row, key) for row in rows if ratio_of(row, key, rows[0])[0] is not None]
    return strip.shared_axis(shown, _WIDTH) if shown else None


def _cell(
    row: Mapping[str, Any], key: str, axis: strip.Axis | None, first: Mapping[str, Any]
) -> dict[str, Any]:
    from gradworks.bench.compare import ratio_of

    heading, own = COLUMNS[key]
    unit = {"seconds_to_target": " s", "steps_to_target": " steps"}.get(own, "")
    plain = f"{wording.number(row[own])}{unit}" if own and row.get(own) is not None else ""
    cell: dict[str, Any] = {
        "label": heading,
        "ratio": "×1" if row is first else "–",
        "interval": "",
        "own": plain or ("median run misses" if own else ""),
        "own_interval": _own_ends(row, own),
        "strip": None,
    }
    value, bound = ratio_of(row, key, first)
    if row is not first and value is not None:
        cell["ratio"] = f"{'≥ ' if bound else ''}{wording.effect(value, 'ratio')}"
        cell["interval"] = f"{row[f'{key}_lo']:.2f} to {row[f'{key}_hi']:.2f}"
        cell["strip"] = strip.row(_outcome(row, key), axis)
    return cell


def _own_ends(row: Mapping[str, Any], own: str) -> str:
    if not own or row.get(f"{own}_lo") is None:
        return ""
    hi = row.get(f"{own}_hi")
    return f"{wording.number(row[f'{own}_lo'])} to {'a miss' if hi is None else wording.number(hi)}"


def _ends(row: Mapping[str, Any], key: str) -> str:
    lo, hi = row.get(f"{key}_lo"), row.get(f"{key}_hi")
    return "" if lo is None or hi is None else f"{wording.number(lo)} to {wording.number(hi)}"


def _bytes(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def _tuned(
    document: Mapping[str, Any], workload: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What was searched, what was chosen and what stayed fixed."""
    arms = {arm["name"]: arm for arm in document["arms"]}
    shown = []
    for row in rows:
        arm = arms[row["arm"]]
        knobs = [
            f"{k['name'].replace('_', ' ')} {wording.setting(k['low'])} to "
            f"{wording.setting(k['high'])}"
            for k in arm["space"]
        ]
        fixed = ", ".join(
            f"{name.replace('_', ' ')} {wording.setting(value)}"
            for name, value in arm["fixed"].items()
        )
        shown.append(
            {
                "label": arm["label"],
                "searched": ", ".join(knobs) or "–",
                "chosen": str(row["chosen"]).replace("_", " ").replace("-", "\N{MINUS SIGN}")
                or "–",
                "fixed": fixed or "–",
                "note": row["note"] or "–",
            }
        )
    return {"name": workload["name"], "rows": shown}
