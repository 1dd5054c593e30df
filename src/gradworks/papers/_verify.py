"""Check a published result: rerun one of its final trials here and compare the figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gradworks.bench.experiment import Arm, Experiment, Workload
from gradworks.bench.result import Result
from gradworks.papers._model import Paper, PlannedPaper
from gradworks.papers._published import published

__all__ = ["NothingPublished", "compare", "verify"]

# On another machine the sums of floating-point numbers come in another order; where every stored
# seed gave one and the same figure, this relative deviation still counts as that figure.
ROUNDING = 1e-6

# Figures that measure the machine, not the method.
_CLOCK_WORDS = ("seconds", "milliseconds", "wall_time", "peak_rss")


class NothingPublished(LookupError):
    """The paper runs, but no result of it is published that could be checked."""

    def __init__(self, slug: str) -> None:
        super().__init__(
            f"{slug} has no published result to verify; `gradworks run {slug} --preset full` gives "
            f"a verdict here, `--publish results` stores it"
        )
        self.slug = slug


def verify(paper: Paper) -> dict[str, Any]:
    """Rerun one stored final trial of ``paper`` and compare its figures with the published ones.

    The trial is the first final seed of the arm that the primary claim judges, with its published
    hyper-parameters. On the machine and versions of the published run the figures are the same
    bit for bit; elsewhere they must lie inside the interval that the stored seeds span.

    Args:
        paper: A paper with a published result.

    Returns:
        ``text`` (what to print), ``agrees``, ``exact`` and, a metric, the published figure, the
        one that came out here and the interval.

    Raises:
        PlannedPaper: If the paper does not run yet.
        NothingPublished: If nothing is published.
        ValueError: If the published trials and the paper's protocol no longer fit together.
    """
    if paper.planned:
        raise PlannedPaper(paper.slug)
    result = published(paper.slug)
    if result is None:
        raise NothingPublished(paper.slug)
    experiment = paper.build(result.preset)
    stored = result.document["protocol_hash"]
    if stored != experiment.protocol_hash:
        raise ValueError(
            f"{paper.slug}: the published result has protocol {stored}, this version of gradworks "
            f"has {experiment.protocol_hash}: claims, spaces, budgets or seeds changed since. Run "
            f"`gradworks run {paper.slug} --preset {result.preset}` and publish again"
        )
    final = _stored_final(experiment, result)
    workload = next(w for w in experiment.workloads if w.name == final["workload"])
    arm = next(a for a in experiment.arms if a.name == final["arm"])
    rows = compare(
        final["metrics"], _rerun(experiment, workload, arm, final), _peers(result, final)
    )
    exact = all(row["equal"] for row in rows)
    agrees = all(row["agrees"] for row in rows)
    return {
        "paper": paper.slug,
        "preset": result.preset,
        "workload": workload.name,
        "arm": arm.name,
        "seed": final["seed"],
        "agrees": agrees,
        "exact": exact,
        "metrics": rows,
        "text": _text(paper, workload, arm, final["seed"], rows, exact=exact),
    }


def _stored_final(experiment: Experiment, result: Result) -> dict[str, Any]:
    """Return the stored trial to rerun: first seed of the arm that the primary claim judges."""
    finals = [one for one in result.document["finals"] if one["status"] == "done"]
    # The experiment's own copy: a preset may judge on fewer workloads than the paper lists.
    criteria = next(claim for claim in experiment.claims if claim.primary).criteria
    for criterion in criteria:
        workloads = criterion.workloads or tuple(w.name for w in experiment.workloads)
        mine = [f for f in finals if f["arm"] == criterion.arm and f["workload"] in workloads]
        if mine:
            order = {name: position for position, name in enumerate(workloads)}
            return min(mine, key=lambda f: (order[f["workload"]], f["seed"]))
    arms = ", ".join(sorted({criterion.arm for criterion in criteria})) or "none"
    raise ValueError(
        f"{experiment.paper}: the published result holds no finished final trial of the arms that "
        f"its primary claim judges ({arms})"
    )


def _peers(result: Result, final: Mapping[str, Any]) -> list[Mapping[str, Mapping[str, Any]]]:
    """Return the figures of every stored seed of the same arm on the same workload."""
    return [
        one["metrics"]
        for one in result.document["finals"]
        if one["arm"] == final["arm"]
        and one["workload"] == final["workload"]
        and one["status"] == "done"
    ]


def _rerun(
    experiment: Experiment, workload: Workload, arm: Arm, final: Mapping[str, Any]
) -> dict[str, dict[str, float | None]]:
    """Run the stored trial again, here, as a worker of a run does, and return its figures.

    Raises:
        RuntimeError: If the trial does not come to its end.
    """
    from gradworks.bench.task import Task
    from gradworks.bench.trial import RESULT_STEP
    from gradworks.bench.worker import execute

    task = Task(
        trial_id=0,
        workload=workload,
        arm=arm,
        kind="final",
        number=int(final["number"]),
        seed=int(final["seed"]),
        params=dict(final["params"]),
        threads=experiment.threads,
        strict=experiment.preset != "paper",
    )
    ending = execute(task, lambda message: None, lambda: False)
    if ending.status != "done":
        raise RuntimeError(
            f"{experiment.paper}: the published trial ({arm.label}, {workload.label}, seed "
            f"{task.seed}) ended as {ending.status} here: {ending.error or 'no reason given'}"
        )
    results: dict[str, dict[str, float | None]] = {}
    for step, _, _, split, metric, value in ending.rows:
        if step == RESULT_STEP:
            results.setdefault(split, {})[metric] = value
    return results


def compare(
    stored: Mapping[str, Mapping[str, Any]],
    here: Mapping[str, Mapping[str, float | None]],
    seeds: Sequence[Mapping[str, Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """Compare the figures of two runs of one trial.

    Args:
        stored: Published figures: split, then metric.
        here: Figures of the rerun, likewise.
        seeds: Published figures of every seed, the stored trial's among them.

    Returns:
        One row a figure that does not measure the machine: ``split``, ``metric``, ``published``,
        ``here``, ``lo``, ``hi``, ``equal`` (the same bits) and ``agrees``.
    """
    rows = []
    for split, metrics in sorted(stored.items()):
        for metric, value in sorted(metrics.items()):
            if any(word in metric for word in _CLOCK_WORDS):
                continue
            now = here.get(split, {}).get(metric)
            now = None if now is None or not math.isfinite(now) else float(now)
            spread = [one.get(split, {}).get(metric) for one in seeds]
            figures = [float(one) for one in spread if one is not None]
            lo, hi = (min(figures), max(figures)) if figures else (None, None)
            equal = now == value
            rows.append(
                {
                    "split": split,
                    "metric": metric,
                    "published": value,
                    "here": now,
                    "lo": lo,
                    "hi": hi,
                    "equal": equal,
                    "agrees": equal or _inside(now, lo, hi),
                }
            )
    return rows


def _inside(value: float | None, lo: float | None, hi: float | None) -> bool:
    """Return whether ``value`` lies in the interval, rounding allowed."""
    if value is None or lo is None or hi is None:
        return False
    slack = ROUNDING * max(abs(lo), abs(hi))
    return lo - slack <= value <= hi + slack


def _text(
    paper: Paper,
    workload: Workload,
    arm: Arm,
    seed: int,
    rows: Sequence[Mapping[str, Any]],
    *,
    exact: bool,
) -> str:
    """Return what the command prints."""
    what = f"{paper.slug}: {arm.label} on {workload.label}, seed {seed}"
    if exact:
        return f"{what}: all {len(rows)} figures are the published ones, bit for bit."
    outside = [row for row in rows if not row["agrees"]]
    shown = outside or [row for row in rows if not row["equal"]]
    figures = "; ".join(
        f"{row['split']} {row['metric']} {_show(row['here'])} here, {_show(row['published'])} "
        f"published, seeds {_show(row['lo'])} to {_show(row['hi'])}"
        for row in shown[:3]
    )
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    if outside:
        return f"{what}: {len(outside)} of {len(rows)} figures do NOT agree: {figures}{more}."
    return f"{what}: agrees within the seeds' interval, not bit for bit: {figures}{more}."


def _show(value: float | None) -> str:
    """Return a figure as text."""
    return "none" if value is None else f"{value:.6g}"
