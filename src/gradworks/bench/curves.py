"""The curves of the final runs, over seeds: what plots show and what targets are read from."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

from gradworks.bench.store import Store

__all__ = ["curves"]

DIGITS = 6  # a curve is drawn and searched for a target, not added up: it need not be exact


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


def curves(store: Store, experiment_id: str) -> list[dict[str, Any]]:
    """Return mean, smallest and largest value over the final seeds of every logged metric.

    Args:
        store: The run store.
        experiment_id: The experiment's row.

    Returns:
        A dictionary a curve, in the experiment's order of workloads and arms. A step at which a
        run has no finite value (it diverged before) has None for all three. The curve of the
        validation metric that its workload selects on, from which times to a target are read,
        has ``seconds`` and ``evals`` (means at which a step was reached) and ``runs`` (the
        values of each seed), too.
    """
    rows = store.read(
        "SELECT w.name AS workload, a.name AS arm, m.split, m.name AS metric, t.seed, m.step,"
        " m.evals, m.seconds, m.value FROM metric m JOIN trial t ON t.id = m.trial_id "
        "JOIN workload w ON w.id = t.workload_id JOIN arm a ON a.id = t.arm_id "
        "WHERE w.experiment_id = ? AND t.kind = 'final' AND m.step >= 0 "
        "AND t.status IN ('done', 'diverged') "
        "ORDER BY w.id, a.id, m.split, m.name, m.step, t.seed",
        experiment_id,
    )
    keys = ("workload", "arm", "split", "metric")
    seeds: dict[tuple[str, str], list[int]] = {}
    for row in store.trials(experiment_id, "final"):
        if row["status"] in ("done", "diverged"):
            seeds.setdefault((row["workload"], row["arm"]), []).append(row["seed"])
    selected = {
        (row["name"], "valid", json.loads(row["spec"])["select_on"])
        for row in store.read(
            "SELECT name, spec FROM workload WHERE experiment_id = ?", experiment_id
        )
    }
    found = []
    for key, group in itertools.groupby(rows, lambda row: tuple(row[k] for k in keys)):
        points = list(group)
        runs = sorted(seeds[key[0], key[1]])
        curve = dict(zip(keys, key)) | _curve(points, len(runs))
        if (key[0], *key[2:]) in selected:
            curve |= _single_runs(points, runs)
        found.append(curve)
    return found


def _curve(rows: Sequence[Any], runs: int) -> dict[str, Any]:
    """Return one curve over seeds from its points, ordered by step and seed."""
    curve: dict[str, Any] = {name: [] for name in ("step", "mean", "lo", "hi")}
    for step, group in itertools.groupby(rows, lambda row: row["step"]):
        points = list(group)
        values = [p["value"] for p in points]
        whole = len(points) == runs and None not in values
        curve["step"].append(step)
        curve["mean"].append(_rounded(sum(values) / len(values)) if whole else None)
        curve["lo"].append(_rounded(min(values)) if whole else None)
        curve["hi"].append(_rounded(max(values)) if whole else None)
    return curve


def _single_runs(rows: Sequence[Any], seeds: Sequence[int]) -> dict[str, Any]:
    """Return each seed's values, and when a step was reached."""
    runs: dict[str, list[float | None]] = {str(seed): [] for seed in seeds}
    found: dict[str, Any] = {"seconds": [], "evals": [], "runs": runs}
    for _, group in itertools.groupby(rows, lambda row: row["step"]):
        points = list(group)
        by_seed = {str(p["seed"]): p["value"] for p in points}
        for seed, values in runs.items():
            values.append(_rounded(by_seed.get(seed)))
        for name in ("seconds", "evals"):
            found[name].append(_mean(p[name] for p in points))
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _rounded(sum(known) / len(known)) if known else None
