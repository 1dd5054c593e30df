"""What the page of the paper shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradworks.bench.figures import Figure, Series
from gradworks.papers.langevin.landscapes import chance, predicted

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose workloads did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        Overlaps against size and samples with the predicted lines, the last iterate, SGD.
    """
    drawn = [
        _against_size(result, "half"),
        _against_size(result, "sizes"),
        _same_estimator(result),
        _samples(result),
        _single_index(result),
    ]
    return [figure for figure in drawn if figure is not None]


def _workload(result: Result, name: str) -> Mapping[str, Any] | None:
    """A workload, where it ran."""
    return next((w for w in result.document["workloads"] if w["name"] == name), None)


def _points(
    result: Result, label: str, arm: str, metric: str, workload: Mapping[str, Any]
) -> Series | None:
    """A metric against the dimension: mean over seeds and its 95 % interval."""
    from gradworks.bench.statistics import bootstrap_interval

    rows = []
    for d in workload["spec"]["sizes"]:
        found = result.values(f"{metric}_d{d}", arm, workload["name"]).values()
        values = [v for v in found if v is not None and math.isfinite(v)]
        if values:
            lo, hi, _ = bootstrap_interval(values)
            rows.append((float(d), sum(values) / len(values), lo, hi))
    if not rows:
        return None
    x, y, low, high = (list(column) for column in zip(*rows, strict=True))
    return Series(name=label, x=x, y=y, lo=low, hi=high, style="points")


def _present(series: Sequence[Series | None]) -> tuple[Series, ...]:
    """Those that have something to show."""
    return tuple(s for s in series if s is not None)


def _line(name: str, sizes: Sequence[float], values: Sequence[float]) -> Series:
    """A predicted line."""
    return Series(name=name, x=list(sizes), y=list(values), style="reference")


def _against_size(result: Result, name: str) -> Figure | None:
    """Overlaps of all estimators against the dimension, with what is predicted."""
    workload = _workload(result, name)
    if workload is None or workload["spec"]["model"] != "tensor":
        return None
    factor = float(workload["spec"]["factors"][0])
    sizes = [float(d) for d in workload["spec"]["sizes"]]
    series = _present(
        [
            _points(result, "average iterate", "langevin", "overlap", workload),
            _points(result, "partial trace", "langevin", "reference", workload),
            _points(result, "last iterate", "langevin", "last", workload),
            _points(result, "smoothing", "smoothing", "overlap", workload),
            _points(result, "power iteration, random start", "power", "overlap", workload),
        ]
    )
    if not series:
        return None
    return Figure(
        id=f"overlap-{name}",
        title=f"Overlap with the hidden direction: {workload['label']}",
        caption=(
            "Mean over seeds with 95 % intervals. The upper dashed line is the partial trace's "
            "exact prediction, the lower one what a random direction gives: the average follows "
            "the one, the last iterate of the same chains the other."
        ),
        x_label="dimension d",
        y_label="absolute overlap",
        series=(
            *series,
            _line("predicted for the partial trace", sizes, [predicted(d, factor) for d in sizes]),
            _line("chance", sizes, [chance(int(d)) for d in sizes]),
        ),
        x_log=True,
    )


def _same_estimator(result: Result) -> Figure | None:
    """Cosine of average and partial trace."""
    series = []
    for name in ("half", "sizes", "order-4", "single-index"):
        workload = _workload(result, name)
        if workload is not None:
            series.append(_points(result, workload["label"], "langevin", "cosine", workload))
    shown = _present(series)
    if not shown:
        return None
    ends = [min(float(x) for s in shown for x in s.x), max(float(x) for s in shown for x in s.x)]
    return Figure(
        id="cosine",
        title="The average is the partial trace in disguise",
        caption=(
            "Absolute cosine of the average iterate with the high-temperature estimator of the "
            "same data, mean over seeds with 95 % intervals; the dashed line is the criterion for "
            "order 3 at half of d^1.5 samples. Hotter and longer chains come closer to 1."
        ),
        x_label="dimension d",
        y_label="cosine",
        series=(*shown, _line("criterion", ends, [0.93, 0.93])),
        x_log=True,
    )


def _samples(result: Result) -> Figure | None:
    """Samples at which half of the problems are solved, against the dimension."""
    workload = _workload(result, "samples")
    if workload is None:
        return None
    found = _points(result, "half of the problems solved", "langevin", "half", workload)
    if found is None:
        return None
    sizes = [float(x) for x in found.x]
    middle = len(sizes) // 2
    level = found.y[middle] / sizes[middle] ** 1.5
    return Figure(
        id="samples",
        title="Samples needed against dimension",
        caption=(
            "Number of samples at which average and refinement reach an overlap of 0.8 in half of "
            "the problems, mean over seeds with 95 % intervals; dashed lines have the slopes 3/2 "
            "of the theorem, an upper bound, and 2 of the last iterate."
        ),
        x_label="dimension d",
        y_label="samples n",
        series=(
            found,
            _line("slope 3/2", sizes, [level * d**1.5 for d in sizes]),
            _line("slope 2", sizes, [level * d**2 / sizes[middle] ** 0.5 for d in sizes]),
        ),
        x_log=True,
        y_log=True,
    )


def _single_index(result: Result) -> Figure | None:
    """Averages and last iterates on single-index models."""
    workload = _workload(result, "single-index")
    if workload is None:
        return None
    lines = [
        _points(result, "Langevin, average", "langevin", "overlap", workload),
        _points(result, "Langevin, last", "langevin", "last", workload),
        _points(result, "high-temperature estimator", "langevin", "reference", workload),
    ]
    for size in (1, 4, 32):
        for metric, what in (("overlap", "average"), ("last", "last")):
            label = f"SGD, batch {size}, {what}"
            lines.append(_points(result, label, f"sgd-{size}", metric, workload))
    lines.append(_points(result, "online SGD, one pass", "online", "overlap", workload))
    series = _present(lines)
    if not series:
        return None
    sizes = [float(d) for d in workload["spec"]["sizes"]]
    return Figure(
        id="single-index",
        title="Single-index models: averages and last iterates",
        caption=(
            "Mean over seeds with 95 % intervals at n = d^1.5 samples. SGD has no noise of its own "
            "beside its batches; its rate is tuned for each batch size alike."
        ),
        x_label="dimension d",
        y_label="absolute overlap",
        series=(*series, _line("chance", sizes, [chance(int(d)) for d in sizes])),
        x_log=True,
    )
