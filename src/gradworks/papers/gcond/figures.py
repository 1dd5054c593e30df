"""What the page of the paper shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from gradworks.bench.figures import Figure, Series
from gradworks.papers.gcond.claims import LABELS, MASKED

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]

_TITLES = {"digits": "digits", "photographs": "photographs", "pair": "pair", "genes": "genes"}
_DRAWN = ("sum", "pcgrad", "sum-stochastic", "gcond-sequential", "gcond-stochastic")
_STEPS = {"digits": 4.0, "digits-8": 8.0, "digits-24": 24.0}
_AXES = {"evals": ("passes", "backward passes"), "seconds": ("time", "seconds of training")}


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose workloads did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        Losses against those of the sum; loss by backward passes and by time; conflicts along
        training; loss by micro-batches a step; what a step costs.
    """
    made = [
        *(_ratios(result, metric) for metric in ("l1", "dssim")),
        *(_curve(result, name, axis) for name in _TITLES for axis in _AXES),
        _conflicts(result),
        _accumulations(result),
        _costs(result),
    ]
    return [figure for figure in made if figure.series]


def _kept(made: Iterable[Series | None]) -> tuple[Series, ...]:
    """Those that there is something to draw of."""
    return tuple(series for series in made if series is not None)


def _band(
    name: str, rows: Mapping[float | str, list[float]], style: Literal["line", "bars"] = "line"
) -> Series | None:
    """Means with 95 % intervals."""
    from gradworks.bench.statistics import bootstrap_interval

    found = []
    for place, values in rows.items():
        finite = [value for value in values if math.isfinite(value)]
        if finite:
            lo, hi, _ = bootstrap_interval(finite)
            found.append((place, sum(finite) / len(finite), lo, hi))
    if not found:
        return None
    x, y, low, high = (list(column) for column in zip(*found, strict=True))
    return Series(name=name, x=x, y=y, lo=low, hi=high, style=style)


def _ratios(result: Result, metric: str) -> Figure:
    """A held-out loss of every method over that of the sum."""

    def bars(arm: str, label: str) -> Series | None:
        rows: dict[float | str, list[float]] = {}
        for workload in MASKED:
            base = result.values(metric, "sum", workload)
            mine = result.values(metric, arm, workload)
            rows[_TITLES[workload]] = [mine[s] / base[s] for s in mine if base.get(s)]
        return _band(label, rows, "bars")

    said = "L1" if metric == "l1" else "1 - SSIM"
    return Figure(
        id=f"ratio-{metric}",
        title=f"{said} on held-out images, over that of the sum",
        caption=(
            "Mean over seeds with 95 % intervals at equal samples; below 1 is better than the sum. "
            "Every method had as many trials for its rate (in quick runs none)."
        ),
        x_label="images",
        y_label="ratio",
        series=_kept(bars(arm, label) for arm, label in LABELS.items() if arm != "sum"),
    )


def _curve(result: Result, workload: str, axis: str) -> Figure:
    """Held-out loss along training."""
    key, label = _AXES[axis]

    def line(arm: str) -> Series | None:
        found = result.curve(workload, arm, "valid", "loss")
        if found is None or axis not in found:
            return None
        columns = (found[name] for name in (axis, "mean", "lo", "hi"))
        rows = [row for row in zip(*columns, strict=True) if None not in row]
        if not rows:
            return None
        x, y, lo, hi = (list(column) for column in zip(*rows, strict=True))
        return Series(name=LABELS[arm], x=x, y=y, lo=lo, hi=hi)

    return Figure(
        id=f"{workload}-{key}",
        title=f"Loss by {label}: {_TITLES[workload]}",
        caption="Weighted validation loss; mean over seeds with their range.",
        x_label=label,
        y_label="loss",
        series=_kept(map(line, _DRAWN)),
        y_log=True,
    )


def _conflicts(result: Result) -> Figure:
    """The smallest cosine between two losses' gradients."""

    def line(workload: str, arm: str) -> Series | None:
        found = result.curve(workload, arm, "train", "min_cosine")
        if found is None:
            return None
        columns = (found[name] for name in ("step", "mean", "lo", "hi"))
        rows = [row for row in zip(*columns, strict=True) if None not in row]
        if not rows:
            return None
        x, y, lo, hi = (list(column) for column in zip(*rows, strict=True))
        return Series(name=f"{_TITLES[workload]}: {LABELS[arm]}", x=x, y=y, lo=lo, hi=hi)

    modes = ("gcond-sequential", "gcond-stochastic", "sum-stochastic")
    series = _kept(line(workload, arm) for workload in _TITLES for arm in modes)
    if series:
        ends = [0.0, max(float(x) for s in series for x in s.x)]
        series = (*series, Series(name="no conflict above", x=ends, y=[0, 0], style="reference"))
    return Figure(
        id="conflicts",
        title="Smallest cosine between the gradients of two losses",
        caption=(
            "Before any projection; mean over seeds with their range. Below zero GCond projects, "
            "above it does what the sum with the same momentum does."
        ),
        x_label="step",
        y_label="cosine",
        series=series,
    )


def _accumulations(result: Result) -> Figure:
    """Loss at equal samples by how many micro-batches make a step."""

    def line(arm: str) -> Series | None:
        rows: dict[float | str, list[float]] = {
            steps: list(result.values("loss", arm, workload).values())
            for workload, steps in _STEPS.items()
        }
        found = _band(LABELS[arm], rows)
        return found if found is not None and len(found.x) > 1 else None

    return Figure(
        id="accumulation",
        title="Held-out loss by micro-batches a step, digits",
        caption="Equal samples for 4 and 8, nearly twice for 24. Mean with 95 % intervals.",
        x_label="micro-batches a step",
        y_label="loss",
        series=_kept(map(line, _DRAWN)),
        x_log=True,
    )


def _costs(result: Result) -> Figure:
    """Passes and times over those of the stochastic mode."""
    rivals = {
        "GCond, sequential": "sequential",
        "the same, a forward pass a loss": "released",
        "PCGrad": "pcgrad",
        "sum": "sum",
    }

    def bars(said: str, kind: str) -> Series | None:
        rows: dict[float | str, list[float]] = {
            name: list(result.values(f"{kind}_{key}", "cost", "cost").values())
            for name, key in rivals.items()
        }
        return _band(said, rows, "bars")

    return Figure(
        id="cost",
        title="Cost of a step over that of GCond's stochastic mode, two losses",
        caption="Whole training steps, taken in turns in one process; backward passes counted.",
        x_label="method",
        y_label="ratio",
        series=_kept((bars("time", "wall_time"), bars("backward passes", "passes"))),
    )
