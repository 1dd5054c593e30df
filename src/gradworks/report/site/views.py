"""From entries to what the templates print: no decision is made in a template."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from gradworks.report import wording
from gradworks.report.outcomes import ClaimView, OutcomeView
from gradworks.report.site import strip
from gradworks.report.site.shelf import Entry, Run

__all__ = ["card", "claims", "day", "facts", "finals", "run_view", "studies", "tally"]

# Statuses in the order in which pages list them.
ORDER = (
    "reproduced",
    "partly",
    "not reproduced",
    "undecided",
    "indication",
    "failed",
    "not run",
    "planned",
)
_MOST_FINALS = 400

_PROVENANCE = {
    "git_sha": "Commit",
    "dirty": "Changed files",
    "gradworks": "gradworks",
    "python": "Python",
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "platform": "System",
    "cpu": "Processor",
    "cores": "Cores",
    "threads": "Threads a trial",
    "gpu": "GPU",
    "driver": "Driver",
    "deterministic": "Deterministic",
    "lock_sha256": "Package list, SHA-256",
}


def day(text: str) -> str:
    """Return a date as people write it.

    Example:
        >>> day("2017-06-14"), day("2026-11-25T10:00:00+00:00"), day("")
        ('14 Jun 2017', '25 Nov 2026', '')
    """
    if not text:
        return ""
    date = datetime.date.fromisoformat(text[:10])
    return f"{date.day} {date:%b %Y}"


def tally(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return how many papers have each status, in the order of :data:`ORDER`."""
    found = [entry.status for entry in entries]
    return [
        {"status": status, "count": found.count(status), "meaning": wording.MEANING[status]}
        for status in ORDER
        if status in found
    ]


def card(entry: Entry) -> dict[str, Any]:
    """Return what the index shows of one paper."""
    one, view = entry.paper.card, entry.primary
    words = [one.slug, one.title, one.summary, one.area, one.package, one.venue or ""]
    words += [one.arxiv or "", *one.tags, *(c.statement for c in entry.paper.claims)]
    outcome = _leading(view)
    return {
        "slug": one.slug,
        "title": one.title,
        "date": one.date,
        "day": day(one.date),
        "area": one.area,
        "summary": one.summary,
        "status": entry.status,
        "statement": view.statement if view else "",
        "strip": strip.draw(outcome, width=300) if outcome is not None else None,
        "preset": entry.runs[0].result.preset if entry.runs else "",
        "finished": entry.runs[0].finished if entry.runs else "",
        "search": " ".join(words).lower().replace("-", " ").replace("_", " "),
    }


def _leading(view: ClaimView | None) -> OutcomeView | None:
    """The outcome that stands for a claim: the first that can be drawn."""
    if view is None:
        return None
    return next((o for o in view.outcomes if o.record.get("estimate") is not None), None)


def claims(views: Sequence[ClaimView]) -> list[dict[str, Any]]:
    """Return the claims of a run with their outcomes in words and strips."""
    return [
        {"view": view, "strip": _strip_of(view), "outcomes": _outcomes(view.outcomes)}
        for view in views
    ]


def _strip_of(view: ClaimView) -> strip.Strip | None:
    """The large strip of a claim: that of its leading outcome."""
    leading = _leading(view)
    return None if leading is None else strip.draw(leading, width=340)


def _outcomes(outcomes: Sequence[OutcomeView]) -> list[dict[str, Any]]:
    """Rows of a claim's table, their strips on one axis where that makes sense."""
    axis = strip.shared_axis(outcomes, width=150)
    return [
        {
            "name": outcome.name,
            "kind": outcome.kind,
            "status": outcome.status,
            "compared": outcome.compared,
            "estimate": wording.effect(outcome.record["estimate"], outcome.scale),
            "interval": wording.interval(outcome.record, outcome.scale),
            "published": _maybe(outcome.record.get("published"), outcome.scale),
            "least": _maybe(outcome.record.get("min_effect"), outcome.scale),
            "n": wording.units(outcome.record, outcome.unit),
            "n_needed": outcome.record.get("n_needed"),
            "p": wording.p_value(outcome.record),
            "text": outcome.record.get("text", ""),
            "strip": strip.row(outcome, axis),
        }
        for outcome in outcomes
    ]


def _maybe(value: float | None, scale: str) -> str:
    return "–" if value is None else wording.effect(value, scale)


def run_view(run: Run) -> dict[str, Any]:
    """Return the facts of one run."""
    document = run.document
    preset = run.result.preset
    kind = "published" if run.published else "from your run store"
    counts = document.get("counts", {})
    kinds = {"tune": "tuning", "final": "final", "diverged": "diverged", "failed": "failed"}
    trials = [f"{counts[key]} {name}" for key, name in kinds.items() if counts.get(key)]
    return {
        "key": run.key,
        "preset": preset,
        "kind": kind,
        "published": run.published,
        "status": run.result.status,
        "finished": day(run.finished),
        "notes": list(document.get("notes", ())),
        "seconds": wording.duration(document.get("seconds")),
        "trials": ", ".join(trials),
        "experiment": document.get("experiment", ""),
        "protocol_hash": document.get("protocol_hash", ""),
        "claims": claims(run.views),
        "workloads": [_workload(w) for w in document.get("workloads", ())],
        "arms": [_arm(a) for a in document.get("arms", ())],
        "studies": studies(document),
        "finals": finals(document),
        "provenance": [facts(p) for p in document.get("provenance", ())],
    }


def _workload(workload: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "label": workload.get("label") or workload["name"],
        "steps": wording.number(workload["steps"]) if workload.get("steps") else "–",
        "batch_size": wording.number(workload["batch_size"]) if workload.get("batch_size") else "–",
        "model": wording.setting(workload.get("model")),
        "select_on": wording.setting(workload.get("select_on")),
        "data": [
            {key: wording.setting(one.get(key)) for key in ("name", "licence", "sha256")}
            for one in workload.get("data", ())
        ],
    }


def _arm(arm: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "label": arm.get("label") or arm["name"],
        "method": arm.get("method", ""),
        "role": "baseline" if arm.get("is_baseline") else "method",
        "space": [_knob(knob) for knob in arm.get("space", ())],
        "fixed": _pairs(arm.get("fixed", {})),
    }


def _knob(knob: Mapping[str, Any]) -> str:
    low, high, default = (wording.setting(knob[key]) for key in ("low", "high", "default"))
    scale = str(knob.get("scale", "log")).replace("_", " ")
    return f"{knob['name']} {low} to {high} ({scale}, default {default})"


def studies(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row a tuning study."""
    labels = _labels(document)
    rows = []
    for study in document.get("studies", ()):
        trials = study.get("trials", ())
        values = [t["value"] for t in trials if t.get("value") is not None]
        expected = [v for v in study.get("expected_best", ()) if v is not None]
        rows.append(
            {
                "workload": labels.get(study["workload"], study["workload"]),
                "arm": labels.get(study["arm"], study["arm"]),
                "trials": len(trials),
                "diverged": sum(t.get("status") == "diverged" for t in trials),
                "widened": study.get("round", 0),
                "on_edge": "yes" if study.get("on_edge") else "no",
                "chosen": _pairs(study.get("chosen", {})),
                "best": wording.number(expected[-1]) if expected else "–",
                "spread": f"{wording.number(min(values))} to {wording.number(max(values))}"
                if values
                else "–",
            }
        )
    return rows


def finals(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the final runs as a table: columns, rows, and how many were left out."""
    labels = _labels(document)
    runs = document.get("finals", ())
    names = sorted({name for run in runs for name in run.get("metrics", {}).get("test", {})})
    rows = [
        [
            labels.get(run["workload"], run["workload"]),
            labels.get(run["arm"], run["arm"]),
            str(run["seed"]),
            run["status"],
            *(wording.number(run.get("metrics", {}).get("test", {}).get(n)) for n in names),
        ]
        for run in runs[:_MOST_FINALS]
    ]
    columns = ["workload", "arm", "seed", "status", *(n.replace("_", " ") for n in names)]
    return {"columns": columns, "rows": rows, "left_out": max(0, len(runs) - _MOST_FINALS)}


def facts(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what made a result, named for people; nested and empty items are left out."""
    known = [(name, provenance.get(key)) for key, name in _PROVENANCE.items()]
    rest = [
        (key.replace("_", " "), value)
        for key, value in sorted(provenance.items())
        if key not in _PROVENANCE and key != "id"
    ]
    return [
        (name, wording.setting(value))
        for name, value in known + rest
        if value not in (None, "") and not isinstance(value, (dict, list))
    ]


def _labels(document: Mapping[str, Any]) -> dict[str, str]:
    parts = [*document.get("workloads", ()), *document.get("arms", ())]
    return {p["name"]: p.get("label") or p["name"] for p in parts}


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {wording.setting(value)}" for name, value in values.items()) or "–"
