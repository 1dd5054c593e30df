"""Compare optimizers on one workload: equal tuning budgets, paired seeds, time to target.

The first optimizer is the baseline: the target is the median of its final validation metric, and
differences, ratios and intervals are paired with it seed by seed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from gradworks.bench import workloads
from gradworks.bench.experiment import Experiment, Workload
from gradworks.bench.figures import Figure, Series

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["experiment", "figures", "summary"]


def experiment(
    workload: str,
    optimizers: Sequence[str],
    *,
    trials: int = 8,
    seeds: int = 5,
    steps: int | None = None,
) -> Experiment:
    """Return the comparison of optimizers on a workload, ready to run.

    Args:
        workload: One of ``workloads.NAMES``, ``module:function`` or ``path.py:function``.
        optimizers: Names as ``gradworks compare`` takes them; the first is the baseline.
        trials: Tuning trials an optimizer, at least 1; a power of two keeps the points balanced.
        seeds: Final runs an optimizer, at least 1.
        steps: Budget; None takes the workload's own.

    Raises:
        ValueError: If a number is too small, or there is no optimizer, or one is named twice.
        UnknownTarget: If there is no such workload.
        UnknownOptimizer: If there is no such optimizer.
        TypeError: If the function gives no problem, or a name is not an optimizer's.
    """  # noqa: DOC502
    from gradworks.bench import optimizers as by_name
    from gradworks.bench import training

    for name, value in (("trials", trials), ("seeds", seeds), ("steps", steps)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not optimizers:
        raise ValueError("optimizers must name at least one, such as adamw,adamp")
    arms = tuple(by_name.arm(name, is_baseline=i == 0) for i, name in enumerate(optimizers))
    problem = workloads.problem(workload)
    budget = steps or problem.steps
    code = _digest([workload, *(arm.method for arm in arms)])
    return Experiment(
        paper=f"compare {workload}",
        preset="custom",
        workloads=(
            Workload(
                name=workload,
                label=problem.name,
                trial=training.TRIAL,
                spec=training.spec(workload, code=code),
                steps=budget,
                batch_size=problem.batch_size,
                data=problem.data,
                select_on=problem.metric_name,
                select_direction=problem.direction,
            ),
        ),
        arms=arms,
        tune_trials=trials,
        final_seeds=seeds,
        trial_seconds=workloads.seconds_a_step(workload) * budget,
        notes=(f"{problem.name}: {len(problem.train[0])} training examples",),
    )


def _digest(targets: Sequence[str]) -> str | None:
    """Return a hash of the user's files among the targets: other code is another experiment."""
    found = [
        Path(where).expanduser().read_bytes()
        for where in (target.rpartition(":")[0] for target in targets)
        if where.endswith(".py")
    ]
    return hashlib.sha256(b"\0".join(found)).hexdigest()[:16] if found else None


def _finals(result: Result, arm: str) -> dict[int, dict[str, Any]]:
    return {run["seed"]: run for run in result.document["finals"] if run["arm"] == arm}


def _final(run: dict[str, Any], split: str, metric: str) -> float | None:
    value = run["metrics"].get(split, {}).get(metric)
    return value if run["status"] == "done" and value is not None else None


def _target(result: Result, arm: str, metric: str) -> float | None:
    """Return the median of an arm's final validation metric, or None if no run ended well."""
    values = [_final(run, "valid", metric) for run in _finals(result, arm).values()]
    known = [v for v in values if v is not None]
    return median(known) if known else None


def _interval(row: dict[str, Any], key: str, values: Sequence[float], centre: float) -> None:
    """Put a value and the interval around the mean of ``values`` into a row."""
    from gradworks.bench.statistics import bootstrap_interval

    lo, hi, _ = bootstrap_interval(values)
    row[key], row[f"{key}_lo"], row[f"{key}_hi"] = centre, lo, hi


def _times(
    result: Result, workload: dict[str, Any], arm: str, target: float | None
) -> dict[int, tuple[float | None, float | None, float | None]]:
    """Return steps, gradient evaluations and seconds to the target for each seed."""
    from gradworks.bench.statistics import steps_to_target

    curve = result.curve(workload["name"], arm, "valid", workload["select_on"])
    found = {}
    for seed, run in _finals(result, arm).items():
        values = (curve or {}).get("runs", {}).get(str(seed))
        steps = (
            steps_to_target(curve["step"], values, target, workload["select_direction"])
            if curve is not None and values is not None and target is not None
            else None
        )
        per_step = _seconds_a_step(run)
        evals = _final(run, "train", "evals")
        found[seed] = (
            steps,
            None if steps is None or evals is None else steps * evals / workload["steps"],
            None if steps is None or per_step is None else steps * per_step,
        )
    return found


def _seconds_a_step(run: dict[str, Any]) -> float | None:
    seconds, steps = run.get("seconds"), run.get("steps_done")
    return seconds / steps if seconds and steps and run["status"] == "done" else None


def summary(result: Result) -> list[dict[str, Any]]:
    """Return one row an optimizer, for a table.

    Args:
        result: What running :func:`experiment` gave.

    Returns:
        Rows with the test metric, its paired ``difference`` from the first optimizer, medians of
        ``steps_to_target``, ``evals_to_target`` (where a step is not one gradient everywhere) and
        ``seconds_to_target`` (None where the median run misses) with the runs that ``reached`` it,
        ``steps_ratio`` to the target and ``step_time_ratio`` over the first optimizer, the
        ``chosen`` settings and a ``note``. Keys that end in ``_lo`` and ``_hi`` are 95 % intervals,
        or the range below six seeds.
    """
    from gradworks.bench.statistics import censored_median, time_ratio

    workload = result.document["workloads"][0]
    metric, budget = workload["select_on"], workload["steps"]
    arms = [arm["name"] for arm in result.document["arms"]]
    first = arms[0]
    target = _target(result, first, metric)
    times = {arm: _times(result, workload, arm, target) for arm in arms}
    rows = []
    for arm in arms:
        runs = _finals(result, arm)
        row: dict[str, Any] = {"arm": arm, "n": len(runs)}
        values = {s: _final(run, "test", metric) for s, run in runs.items()}
        known = {s: v for s, v in values.items() if v is not None}
        row[metric] = None
        if known:
            _interval(row, metric, list(known.values()), fmean(known.values()))
        row["difference"] = None
        if arm != first:
            baseline = {s: _final(run, "test", metric) for s, run in _finals(result, first).items()}
            pairs = [v - b for s, v in known.items() if (b := baseline.get(s)) is not None]
            if pairs:
                _interval(row, "difference", pairs, fmean(pairs))
        row["target"] = target
        mine = times[arm]
        kinds = ("steps_to_target", "evals_to_target", "seconds_to_target")
        for i, key in enumerate(kinds):
            row[key] = censored_median([t[i] for t in mine.values()]) if mine else None
        row["reached"] = f"{sum(t[0] is not None for t in mine.values())}/{len(mine)}"
        row["steps_ratio"] = row["step_time_ratio"] = None
        shared = sorted(mine.keys() & times[first].keys())
        if arm != first and shared and any(times[first][s][0] for s in shared):
            found = time_ratio(
                [mine[s][0] for s in shared], [times[first][s][0] for s in shared], budget
            )
            row.update(steps_ratio=found.ratio, steps_ratio_lo=found.lo, steps_ratio_hi=found.hi)
        if arm != first:
            _step_time(row, runs, _finals(result, first))
        row["chosen"], row["note"] = _chosen(result, arm), _note(result, arm, runs)
        rows.append(row)
    if all(row["evals_to_target"] == row["steps_to_target"] for row in rows):
        for row in rows:  # one gradient a step: the column would say nothing
            del row["evals_to_target"]
    return rows


def _step_time(
    row: dict[str, Any], runs: dict[int, dict[str, Any]], baseline: dict[int, dict[str, Any]]
) -> None:
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


def _last_study(result: Result, arm: str) -> dict[str, Any] | None:
    studies = [s for s in result.document["studies"] if s["arm"] == arm]
    return max(studies, key=lambda s: s["round"]) if studies else None


def _chosen(result: Result, arm: str) -> str:
    study = _last_study(result, arm)
    chosen = (study or {}).get("chosen") or {}
    return ", ".join(f"{name} {value:.3g}" for name, value in sorted(chosen.items()))


def _note(result: Result, arm: str, runs: dict[int, dict[str, Any]]) -> str:
    study, said = _last_study(result, arm), []
    diverged = sum(run["status"] == "diverged" for run in runs.values())
    if diverged:
        said.append(f"{diverged} diverged")
    if study is not None and study["on_edge"]:
        said.append("best on the edge of its space")
    return "; ".join(said)


def _line(result: Result, workload: str, arm: dict[str, Any], split: str, metric: str) -> Series:
    curve = result.curve(workload, arm["name"], split, metric) or {
        key: [] for key in ("step", "mean", "lo", "hi")
    }
    points = [
        point
        for point in zip(curve["step"], curve["mean"], curve["lo"], curve["hi"], strict=True)
        if None not in point
    ]
    x, y, lo, hi = (list(column) for column in zip(*points)) if points else ([], [], [], [])
    return Series(name=arm["label"], x=x, y=y, lo=lo, hi=hi)


def figures(result: Result) -> list[Figure]:
    """Return the plots of a comparison: validation metric, training loss, tunability.

    Args:
        result: What running :func:`experiment` gave.
    """
    workload = result.document["workloads"][0]
    arms = result.document["arms"]
    name, metric = workload["name"], workload["select_on"]
    words = metric.replace("_", " ")
    target = _target(result, arms[0]["name"], metric)
    lines = [_line(result, name, arm, "valid", metric) for arm in arms]
    if target is not None:
        ends: list[float | str] = [0, workload["steps"]]
        lines.append(Series(name="target", x=ends, y=[target, target], style="reference"))
    made = [
        Figure(
            id="validation",
            title=f"Validation {words} on {workload['label']}",
            caption=f"Mean over the final seeds, band from the best to the worst seed. The target "
            f"is the median final {words} of {arms[0]['label']}.",
            x_label="step",
            y_label=words,
            series=tuple(lines),
        ),
        Figure(
            id="training-loss",
            title=f"Training loss on {workload['label']}",
            caption="Mean loss of the mini-batches since the evaluation before, over the final "
            "seeds; band from the lowest to the highest seed.",
            x_label="step",
            y_label="loss",
            series=tuple(_line(result, name, arm, "train", "loss") for arm in arms),
            y_log=True,
        ),
    ]
    studies = [(arm, _last_study(result, arm["name"])) for arm in arms]
    tuned = [(arm, study["expected_best"]) for arm, study in studies if study is not None]
    if any(values for _, values in tuned):
        made.append(
            Figure(
                id="tuning",
                title="What tuning is worth",
                caption=f"Expected best validation {words} after so many tuning trials: a flat "
                "line needs no tuning.",
                x_label="tuning trials",
                y_label=words,
                series=tuple(
                    Series(name=arm["label"], x=list(range(1, len(values) + 1)), y=values)
                    for arm, values in tuned
                    if values
                ),
            )
        )
    return made
