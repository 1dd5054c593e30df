"""What the page of the paper shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradworks.bench.figures import Figure, Series

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]

_CURVES = {
    "adamw": "AdamW",
    "plain": "Sinkhorn, no rotation",
    "soap": "SOAP",
    "muon": "Muon",
    "eigen": "Sinkhorn, eigenbasis",
    "aro": "ARO, Sinkhorn",
}
_RATES = {
    "rate_plain": "no rotation",
    "rate_eigen": "exact eigenbasis",
    "rate_aro": "ARO's rotation",
}
_RATIOS = {"over_adamw": "AdamW", "over_muon": "Muon", "over_soap": "SOAP, every step"}


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose workloads did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        Steps, losses, curves, alignment of frames for both maps, and step times.
    """
    drawn = [
        _by_arm(
            result,
            "steps",
            "steps_to_target",
            "Steps to AdamW's loss, learning rates tuned alike",
            "One point a seed. Twice the budget: the loss was not reached.",
            "steps",
        ),
        _by_arm(
            result,
            "losses",
            "nats",
            "Test cross-entropy, learning rates tuned alike",
            "One point a seed. All arms had the same number of tuning trials; the test text was "
            "opened once, by these runs.",
            "test cross-entropy (nats a character)",
        ),
        _lines(
            result,
            "curves",
            [("text", arm, "valid", "nats", label) for arm, label in _CURVES.items()],
            "By step",
            "Mean and range over seeds, validation text.",
            "validation cross-entropy (nats a character)",
        ),
        *(
            _lines(
                result,
                f"alignment-{base}",
                [("descent", arm, "train", rate, label) for rate, label in _RATES.items()],
                f"Decrease along the step, map {base}",
                "Mean over hidden matrices, range over seeds, while ARO trains: the decrease along "
                "R f(R'M) over the sizes of step and momentum. 1 is steepest descent. A frame that "
                "orders directions by strength equalises them at this price.",
                "share of the steepest decrease",
            )
            for arm, base in (("watched", "Sinkhorn"), ("watched-sign", "sign"))
        ),
        _times(result),
    ]
    return [figure for figure in drawn if figure.series]


def _by_arm(
    result: Result, name: str, metric: str, title: str, caption: str, y_label: str
) -> Figure:
    """A final figure of every seed."""
    points = [
        (arm["label"], value)
        for arm in result.document["arms"]
        for value in result.values(metric, arm["name"], "text").values()
        if value == value
    ]
    series: tuple[Series, ...] = ()
    if points:
        x, y = zip(*points, strict=True)
        series = (Series(name="test", x=x, y=y, style="points"),)
    return Figure(
        id=name, title=title, caption=caption, x_label="optimizer", y_label=y_label, series=series
    )


def _lines(
    result: Result,
    name: str,
    wanted: list[tuple[str, str, str, str, str]],
    title: str,
    caption: str,
    y_label: str,
) -> Figure:
    """Curves by step, with the range of the seeds."""
    series = []
    for workload, arm, split, metric, label in wanted:
        curve = result.curve(workload, arm, split, metric)
        if curve is None:
            continue
        columns = (curve[part] for part in ("step", "mean", "lo", "hi"))
        rows = [row for row in zip(*columns, strict=True) if None not in row]
        if rows:
            x, y, lo, hi = zip(*rows, strict=True)
            series.append(Series(name=label, x=x, y=y, lo=lo, hi=hi))
    return Figure(
        id=name, title=title, caption=caption, x_label="step", y_label=y_label, series=tuple(series)
    )


def _times(result: Result) -> Figure:
    """Ratios of step times of every trial."""
    points = [
        (label, value)
        for metric, label in _RATIOS.items()
        for value in result.values(metric, "cost", "cost").values()
    ]
    series: tuple[Series, ...] = ()
    if points:
        x, y = zip(*points, strict=True)
        series = (Series(name="ratio", x=x, y=y, style="points"),)
    return Figure(
        id="times",
        title="Time of ARO's step over that of others",
        caption=(
            "Optimizer steps alone, in turns in one process, one thread, the matrices of one "
            "transformer block; one point a trial. Below 1 ARO is faster."
        ),
        x_label="over",
        y_label="ratio of times",
        series=series,
        y_log=True,
    )
