"""The result document, read from the store: the same store always gives the same document."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

from gradworks.bench import rulings
from gradworks.bench.claims import Claim, Criterion
from gradworks.bench.curves import curves
from gradworks.bench.experiment import Experiment
from gradworks.bench.result import FORMAT, Result, plain
from gradworks.bench.store import Store, arm_from, workload_from
from gradworks.bench.studies import studies, summary

__all__ = ["experiment_from", "result_of"]


def experiment_from(spec: Mapping[str, Any]) -> Experiment:
    """Return the experiment that ``Experiment.to_dict`` made into ``spec``.

    Args:
        spec: JSON-ready data.
    """
    fields = dict(spec)
    fields["workloads"] = tuple(workload_from(w) for w in spec["workloads"])
    fields["arms"] = tuple(arm_from(a) for a in spec["arms"])
    fields["notes"] = tuple(spec["notes"])
    fields["claims"] = tuple(_claim(claim) for claim in spec["claims"])
    return Experiment(**fields)


def _claim(spec: Mapping[str, Any]) -> Claim:
    criteria = tuple(
        Criterion(**{**criterion, "workloads": tuple(criterion["workloads"])})
        for criterion in spec["criteria"]
    )
    return Claim(**{**spec, "criteria": criteria})


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def result_of(
    store: Store, experiment_id: str, *, experiment: Experiment | None = None, reason: str = ""
) -> Result:
    """Return the result of an experiment, finished or not.

    Args:
        store: The run store.
        experiment_id: The experiment's row.
        experiment: What was run, with its present labels and notes; None takes the stored ones.
        reason: Why it is not finished; its claims are then ``undecided`` and say so.
    """
    row = store.read("SELECT * FROM experiment WHERE id = ?", experiment_id)[0]
    if experiment is None:
        experiment = experiment_from(json.loads(row["spec"]))
    finals = _finals(store, experiment_id)
    claims = _claims(store, experiment_id, experiment, reason, done=row["state"] == "done")
    primary = next((c for c in claims if c["primary"]), claims[0] if claims else None)
    status = "done" if row["state"] == "done" else "undecided"
    return Result(
        plain(
            {
                "format": FORMAT,
                "paper": experiment.paper,
                "preset": experiment.preset,
                "experiment": experiment_id,
                "protocol_hash": row["protocol_hash"],
                "created": _iso(row["created"]),
                "finished": _iso(_finished(store, experiment_id)),
                "status": status if primary is None else primary["status"],
                "notes": [*experiment.notes, *([reason] if reason else [])],
                "seconds": _seconds(store, experiment_id),
                "workloads": _workloads(store, experiment_id, experiment),
                "arms": _arms(store, experiment_id, experiment),
                "studies": [summary(s, experiment) for s in studies(store, experiment_id)],
                "finals": finals,
                "curves": curves(store, experiment_id),
                "claims": claims,
                "figures": [],
                "provenance": _provenance(store, experiment_id),
                "counts": _counts(store, experiment_id),
            }
        )
    )


def _finished(store: Store, experiment_id: str) -> float | None:
    found = store.read(
        "SELECT max(t.ended) AS ended FROM trial t JOIN workload w ON w.id = t.workload_id "
        "WHERE w.experiment_id = ?",
        experiment_id,
    )
    ended: float | None = found[0]["ended"]
    return ended


def _seconds(store: Store, experiment_id: str) -> float:
    found = store.read(
        "SELECT sum(t.seconds) AS seconds FROM trial t JOIN workload w ON w.id = t.workload_id "
        "WHERE w.experiment_id = ?",
        experiment_id,
    )
    return round(found[0]["seconds"] or 0.0, 3)


def _workloads(store: Store, experiment_id: str, experiment: Experiment) -> list[dict[str, Any]]:
    rows = {
        row["name"]: json.loads(row["data"])
        for row in store.read(
            "SELECT name, data FROM workload WHERE experiment_id = ?", experiment_id
        )
    }
    return [
        {
            "name": w.name,
            "label": w.label,
            "steps": w.steps,
            "batch_size": w.batch_size,
            "model": w.spec.get("model") or w.spec.get("problem") or w.trial,
            "spec": dict(w.spec),
            "trial": w.trial,
            "arms": [arm.name for arm in experiment.arms_of(w)],
            "data": rows[w.name],
            "select_on": w.select_on,
            "select_direction": w.select_direction,
        }
        for w in experiment.workloads
    ]


def _arms(store: Store, experiment_id: str, experiment: Experiment) -> list[dict[str, Any]]:
    versions = {
        row["name"]: row["version"]
        for row in store.read(
            "SELECT name, version FROM arm WHERE experiment_id = ?", experiment_id
        )
    }
    spec = {arm["name"]: arm for arm in experiment.to_dict()["arms"]}
    return [spec[arm.name] | {"version": versions[arm.name]} for arm in experiment.arms]


def _finals(store: Store, experiment_id: str) -> list[dict[str, Any]]:
    figures = store.final_metrics(experiment_id, "final")
    return [
        {
            "workload": row["workload"],
            "arm": row["arm"],
            "number": row["number"],
            "seed": row["seed"],
            "params": row["params"],
            "status": row["status"],
            "seconds": None if row["seconds"] is None else round(row["seconds"], 4),
            "steps_done": row["steps_done"],
            "state_bytes": row["state_bytes"],
            "peak_rss": row["peak_rss"],
            "metrics": figures.get(row["id"], {}),
        }
        for row in store.trials(experiment_id, "final")
        if row["status"] in ("done", "diverged")
    ]


def _claims(
    store: Store, experiment_id: str, experiment: Experiment, reason: str, *, done: bool
) -> list[dict[str, Any]]:
    verdicts = rulings.kept(store, experiment_id) if done else {}
    open_verdict = {"status": "undecided", "text": reason or "the run is not finished"}
    return [
        {
            "id": claim.id,
            "statement": claim.statement,
            "published": claim.published,
            "holds_when": claim.holds_when,
            "setting": claim.setting,
            "scaled_down": claim.scaled_down,
            "primary": claim.primary,
            "outcomes": [],
            **verdicts.get(claim.id, open_verdict),
        }
        for claim in experiment.claims
    ]


def _provenance(store: Store, experiment_id: str) -> list[dict[str, Any]]:
    rows = store.read(
        "SELECT DISTINCT p.* FROM provenance p JOIN trial t ON t.provenance_id = p.id "
        "JOIN workload w ON w.id = t.workload_id WHERE w.experiment_id = ? ORDER BY p.id",
        experiment_id,
    )
    shown = []
    for row in rows:
        facts = {key: row[key] for key in row.keys() if key not in ("id", "env")}  # noqa: SIM118
        shown.append(facts | {k: v for k, v in json.loads(row["env"] or "{}").items() if v})
    return shown


def _counts(store: Store, experiment_id: str) -> dict[str, int]:
    counts = store.counts(experiment_id)
    total = {
        kind: sum(n for (k, s), n in counts.items() if k == kind and s in ("done", "diverged"))
        for kind in ("tune", "final")
    }
    for status in ("diverged", "failed"):
        total[status] = sum(n for (_, s), n in counts.items() if s == status)
    return total
