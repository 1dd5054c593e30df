"""What the page of the paper shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gradworks.bench.figures import Figure, Series
from gradworks.papers.hessian_alignment.claims import LABELS

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose workloads did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        Accuracy on unseen domains, by kind of shift; accuracy and distance of Hessians along
        training on coloured digits.
    """
    return [figure for figure in _drawn(result) if figure.series]


def _drawn(result: Result) -> list[Figure]:
    return [
        _accuracies(result),
        *(_along(result, name, metric) for name in _COLOURED for metric in _ALONG),
        _sessions(result),
    ]


# Which figure of which workload stands for which kind of shift.
_KINDS = {
    "computed shift": ("shift", "accuracy"),
    "correlation (colours)": ("coloured", "accuracy"),
    "label (colours)": ("coloured", "accuracy_label_shift"),
    "diversity (angles)": ("rotated", "accuracy"),
    "diversity (sessions)": ("sessions", "accuracy"),
}
_COLOURED = {"coloured": "", "published": "published-"}
_ALONG: dict[str, tuple[str, str, bool]] = {
    "test": ("Accuracy when colours are reversed", "accuracy", False),
    "train": ("Distance of the domains' head Hessians", "spectral norm", True),
}
_CHANCE_BLIND = 0.75  # best without looking at the colour


def _bars(result: Result, arm: str, name: str, shown: dict[str, tuple[str, str]]) -> Series | None:
    """Means of an arm with their intervals."""
    from gradworks.bench.statistics import bootstrap_interval

    rows = []
    for label, (workload, metric) in shown.items():
        found = result.values(metric, arm, workload).values()
        values = [v for v in found if v is not None and math.isfinite(v)]
        if values:
            lo, hi, _ = bootstrap_interval(values)
            rows.append((label, sum(values) / len(values), lo, hi))
    if not rows:
        return None
    x, y, low, high = (list(column) for column in zip(*rows, strict=True))
    return Series(name=name, x=x, y=y, lo=low, hi=high, style="bars")


def _all_arms(draw: Callable[[str, str], Series | None]) -> tuple[Series, ...]:
    """A series a method, of those that have one."""
    found = (draw(arm, label) for arm, label in LABELS.items())
    return tuple(series for series in found if series is not None)


def _accuracies(result: Result) -> Figure:
    """All methods on all kinds of shift."""
    return Figure(
        id="accuracies",
        title="Accuracy on unseen domains",
        caption=(
            "Mean over seeds with 95 % intervals. Every method had as many trials to find its "
            "settings (in quick runs none), without the unseen domain. On coloured digits 0.75 is "
            "the best without looking at the colour."
        ),
        x_label="kind of shift",
        y_label="accuracy",
        series=_all_arms(lambda arm, label: _bars(result, arm, label, _KINDS)),
    )


def _sessions(result: Result) -> Figure:
    """Each session as the unseen one."""
    spec: dict[str, Any] = next(
        (w["spec"] for w in result.document["workloads"] if w["name"] == "sessions"), {}
    )
    shown = {name: ("sessions", f"accuracy_{name}") for name in spec.get("cells", {})}
    return Figure(
        id="sessions",
        title="Muscle signals: each session unseen in turn",
        caption="Accuracy on the session that was not trained on; chance is 0.2.",
        x_label="unseen session",
        y_label="accuracy",
        series=_all_arms(lambda arm, label: _bars(result, arm, label, shown)),
    )


def _along(result: Result, workload: str, split: str) -> Figure:
    """A curve along training on coloured digits."""
    title, axis, log = _ALONG[split]
    metric = "accuracy_main" if split == "test" else "distance_main"

    def line(arm: str, label: str) -> Series | None:
        found = result.curve(workload, _COLOURED[workload] + arm, split, metric)
        if found is None:
            return None
        rows = [
            row
            for row in zip(*(found[key] for key in ("step", "mean", "lo", "hi")), strict=True)
            if None not in row
        ]
        if not rows:
            return None
        x, y, lo, hi = (list(column) for column in zip(*rows, strict=True))
        return Series(name=label, x=x, y=y, lo=lo, hi=hi)

    series = _all_arms(line)
    if series and split == "test":
        ends = [0.0, max(float(x) for s in series for x in s.x)]
        blind = Series(name="blind to colour", x=ends, y=[_CHANCE_BLIND] * 2, style="reference")
        series = (*series, blind)
    tuned = result.document["studies"] and not _COLOURED[workload]
    where = "tuned settings" if tuned else "published settings"
    return Figure(
        id=f"{workload}-{'accuracy' if split == 'test' else 'distance'}",
        title=f"{title}: coloured digits, {where}",
        caption=(
            "Mean over seeds with their range. Once the penalty sets in, alignment should bring "
            "the Hessians together and the accuracy up."
        ),
        x_label="step",
        y_label=axis,
        series=series,
        y_log=log,
    )
