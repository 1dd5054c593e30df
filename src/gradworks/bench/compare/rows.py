"""The rows of a comparison: one an optimizer, every figure with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradworks.bench.result import Result
    from gradworks.bench.statistics import TimeRatio

__all__ = ["last_study", "ratio_of", "summaries", "summary", "target_of", "workload_of"]

Runs = dict[int, dict[str, Any]]


def workload_of(result: Result, name: str | None = None) -> dict[str, Any]:
    """Return a workload of a result's document, the first if no name is given.

    Args:
        result: What running a comparison gave.
        name: Of the workload.

    Raises:
        ValueError: If there is none of that name.
    """
    found: list[dict[str, Any]] = result.document["workloads"]
    for workload in found:
        if name in (None, workload["name"]):
            return workload
    raise ValueError(f"workload must be one of {', '.join(w['name'] for w in found)}, got {name!r}")


def arms_of(result: Result, workload: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the arms that ran on a workload, in the document's order."""
    names = workload.get("arms") or [arm["name"] for arm in result.document["arms"]]
    return [arm for arm in result.document["arms"] if arm["name"] in names]


def _finals(result: Result, workload: str, arm: str) -> Runs:
    finals = result.document["finals"]
    return {r["seed"]: r for r in finals if (r["workload"], r["arm"]) == (workload, arm)}


def _final(run: dict[str, Any], split: str, metric: str) -> float | None:
    value = run["metrics"].get(split, {}).get(metric)
    return value if run["status"] == "done" and value is not None else None


def target_of(result: Result, workload: dict[str, Any]) -> float | None:
    """Return the median of the baseline's final validation metric, None if no run ended well.

    Args:
        result: What running a comparison gave.
        workload: One of its workloads.
    """
    first = arms_of(result, workload)[0]["name"]
    runs = _finals(result, workload["name"], first).values()
    values = [_final(run, "valid", workload["select_on"]) for run in runs]
    known = [v for v in values if v is not None]
    return median(known) if known else None


def _interval(row: dict[str, Any], key: str, values: Sequence[float], centre: float) -> None:
    """Put a value and the interval around the mean of ``values`` into a row."""
    from gradworks.bench.statistics import bootstrap_interval

    lo, hi, _ = bootstrap_interval(values)
    row[key], row[f"{key}_lo"], row[f"{key}_hi"] = centre, lo, hi


@dataclass(frozen=True)
class _Times:
    """When one run reached the target, None for never, and what its whole budget was."""

    steps: float | None
    evals: float | None
    seconds: float | None
    budget_seconds: float | None


def _times(
    result: Result, workload: dict[str, Any], arm: str, target: float | None
) -> dict[int, _Times]:
    from gradworks.bench.statistics import steps_to_target

    curve = result.curve(workload["name"], arm, "valid", workload["select_on"])
    found = {}
    for seed, run in _finals(result, workload["name"], arm).items():
        values = (curve or {}).get("runs", {}).get(str(seed))
        steps = (
            steps_to_target(curve["step"], values, target, workload["select_direction"])
            if curve is not None and values is not None and target is not None
            else None
        )
        per_step = _seconds_a_step(run)
        evals = _final(run, "train", "evals")
        found[seed] = _Times(
            steps=steps,
            evals=None if steps is None or evals is None else steps * evals / workload["steps"],
            seconds=None if steps is None or per_step is None else steps * per_step,
            budget_seconds=None if per_step is None else workload["steps"] * per_step,
        )
    return found


def _seconds_a_step(run: dict[str, Any]) -> float | None:
    seconds, steps = run.get("seconds"), run.get("steps_done")
    return seconds / steps if seconds and steps and run["status"] == "done" else None


def summaries(result: Result) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of :func:`summary` for every workload of a comparison.

    Args:
        result: What running a comparison gave.
    """
    return {w["name"]: summary(result, w["name"]) for w in result.document["workloads"]}


def summary(result: Result, workload: str | None = None) -> list[dict[str, Any]]:
    """Return one row an optimizer, for a table.

    Args:
        result: What running a comparison gave.
        workload: Name of the workload; None takes the first.

    Returns:
        Rows with the test metric, its paired ``difference`` from the first optimizer, medians of
        ``steps_to_target``, ``evals_to_target`` (where a step is not one gradient everywhere) and
        ``seconds_to_target`` (None where the median run misses) with the runs that ``reached`` it,
        ``steps_ratio`` and ``seconds_ratio`` to the target and ``step_time_ratio`` over the first
        optimizer, ``state_bytes`` a parameter, the ``chosen`` settings and a ``note``. Keys that
        end in ``_lo`` and ``_hi`` are 95 % intervals, or the range below six seeds; of a median
        they are order statistics, and an upper end is None where it lies beyond the budget.

    Raises:
        ValueError: If there is no such workload.
    """  # noqa: DOC502
    chosen = workload_of(result, workload)
    arms = [arm["name"] for arm in arms_of(result, chosen)]
    target = target_of(result, chosen)
    times = {arm: _times(result, chosen, arm, target) for arm in arms}
    rows = [_row(result, chosen, arm, arms[0], target, times) for arm in arms]
    if all(row["evals_to_target"] == row["steps_to_target"] for row in rows):
        for row in rows:  # one gradient a step: the column would say nothing
            for end in ("", "_lo", "_hi"):
                row.pop(f"evals_to_target{end}", None)
    return rows


def _row(
    result: Result,
    workload: dict[str, Any],
    arm: str,
    first: str,
    target: float | None,
    times: dict[str, dict[int, _Times]],
) -> dict[str, Any]:
    metric = workload["select_on"]
    runs = _finals(result, workload["name"], arm)
    baseline = _finals(result, workload["name"], first)
    row: dict[str, Any] = {"arm": arm, "n": len(runs)}
    values = {s: _final(run, "test", metric) for s, run in runs.items()}
    known = {s: v for s, v in values.items() if v is not None}
    row[metric] = None
    if known:
        _interval(row, metric, list(known.values()), fmean(known.values()))
    row["difference"] = None
    if arm != first:
        others = {s: _final(run, "test", metric) for s, run in baseline.items()}
        pairs = [v - b for s, v in known.items() if (b := others.get(s)) is not None]
        if pairs:
            _interval(row, "difference", pairs, fmean(pairs))
    row["target"] = target
    mine = times[arm]
    for kind in ("steps", "evals", "seconds"):
        _median(row, f"{kind}_to_target", [getattr(t, kind) for t in mine.values()])
    row["reached"] = f"{sum(t.steps is not None for t in mine.values())}/{len(mine)}"
    row["steps_ratio"] = row["seconds_ratio"] = row["step_time_ratio"] = None
    if arm != first:
        _ratios(row, workload["steps"], mine, times[first])
        _step_time(row, runs, baseline)
    row["state_bytes"] = _state(runs)
    row["chosen"], row["note"] = _chosen(result, workload, arm), _note(result, workload, arm, runs)
    return row


def _median(row: dict[str, Any], key: str, times: Sequence[float | None]) -> None:
    """Put a median with its interval into a row, misses above every time."""
    from gradworks.bench.statistics import censored_median, median_interval

    row[key] = censored_median(times) if times else None
    if row[key] is not None:
        row[f"{key}_lo"], row[f"{key}_hi"], _ = median_interval(times)


def ratio_of(
    row: Mapping[str, Any], key: str, first: Mapping[str, Any]
) -> tuple[float | None, bool]:
    """Return a ratio as it may be shown, and whether it is only a lower bound.

    A run that misses the target counts as its whole budget. That flatters an optimizer that misses
    more often than the baseline: its ratio is then a lower bound, and if it never gets there, none.

    Args:
        row: Of :func:`summary`.
        key: ``"steps_ratio"``, ``"seconds_ratio"`` or ``"step_time_ratio"``.
        first: The baseline's row.
    """
    value: float | None = row.get(key)
    if key == "step_time_ratio" or value is None:
        return value, False
    hits, baseline = (int(str(r["reached"]).split("/")[0]) for r in (row, first))
    return (value, hits < baseline) if hits else (None, False)


def _ratios(
    row: dict[str, Any], budget: float, mine: dict[int, _Times], first: dict[int, _Times]
) -> None:
    """Put the ratios of steps and of seconds to the target into a row."""
    from gradworks.bench.statistics import time_ratio

    shared = sorted(mine.keys() & first.keys())
    if not any(first[s].steps for s in shared):
        return
    ours, theirs = [mine[s] for s in shared], [first[s] for s in shared]
    steps = time_ratio([t.steps for t in ours], [t.steps for t in theirs], budget)
    _put(row, "steps_ratio", steps)
    clocked = [
        (o, t)
        for o, t in zip(ours, theirs, strict=True)
        if o.budget_seconds is not None and t.budget_seconds is not None
    ]
    if clocked and any(t.seconds for _, t in clocked):
        seconds = time_ratio(
            [o.seconds for o, _ in clocked],
            [t.seconds for _, t in clocked],
            [t.budget_seconds or 0.0 for _, t in clocked],
            arm_budget=[o.budget_seconds or 0.0 for o, _ in clocked],
        )
        _put(row, "seconds_ratio", seconds)


def _put(row: dict[str, Any], key: str, found: TimeRatio) -> None:
    row[key], row[f"{key}_lo"], row[f"{key}_hi"] = found.ratio, found.lo, found.hi


def _step_time(row: dict[str, Any], runs: Runs, baseline: Runs) -> None:
    """Put the ratio of seconds a step into a row: the geometric mean over paired seeds."""
    logs = []
    for seed in runs.keys() & baseline.keys():
        ours, theirs = _seconds_a_step(runs[seed]), _seconds_a_step(baseline[seed])
        if ours and theirs:
            logs.append(math.log(ours / theirs))
    if logs:
        key = "step_time_ratio"
        _interval(row, key, logs, fmean(logs))
        for end in (key, f"{key}_lo", f"{key}_hi"):
            row[end] = math.exp(row[end])


def _state(runs: Runs) -> float | None:
    """Return bytes of optimizer state a parameter: the same for every seed."""
    for run in runs.values():
        parameters = run["metrics"].get("train", {}).get("parameters")
        if run.get("state_bytes") is not None and parameters:
            return float(run["state_bytes"] / parameters)
    return None


def last_study(result: Result, workload: str, arm: str) -> dict[str, Any] | None:
    """Return the last round of an arm's tuning, None without one.

    Args:
        result: What running a comparison gave.
        workload: Name of the workload.
        arm: Name of the arm.
    """
    all_rounds: list[dict[str, Any]] = result.document["studies"]
    rounds = [s for s in all_rounds if (s["workload"], s["arm"]) == (workload, arm)]
    return max(rounds, key=lambda s: s["round"]) if rounds else None


def _chosen(result: Result, workload: dict[str, Any], arm: str) -> str:
    study = last_study(result, workload["name"], arm)
    chosen = (study or {}).get("chosen") or {}
    return ", ".join(f"{name} {value:.3g}" for name, value in sorted(chosen.items()))


def _note(result: Result, workload: dict[str, Any], arm: str, runs: Runs) -> str:
    study, said = last_study(result, workload["name"], arm), []
    diverged = sum(run["status"] == "diverged" for run in runs.values())
    if diverged:
        said.append(f"{diverged} diverged")
    if study is not None and study["on_edge"]:
        said.append("best on the edge of its space")
    return "; ".join(said)
