"""What the page of the paper shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gradworks.bench.figures import Figure, Series

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]

_SHOWN = 600  # steps of the toy until all have arrived
_ARRIVED = math.acos(0.999)
_TOY = {
    "toy-gd": "GD",
    "toy-sgd-0.9": "SGD, momentum 0.9",
    "toy-sgd-0.99": "SGD, momentum 0.99",
    "toy-sgdp-0.9": "SGDP, momentum 0.9",
    "toy-sgdp-0.99": "SGDP, momentum 0.99",
}
_PAIRS = {
    "sgd": {"plain-sgd": "SGD", "plain-sgdp": "SGDP"},
    "adam": {"plain-adam": "Adam", "plain-adamp": "AdamP"},
}
_TUNED = {"sgd": "SGD", "sgdp": "SGDP", "adamw": "AdamW", "adamp": "AdamP"}
_BRANCHES = {
    "share_channels": "projected by channel",
    "share_layer": "projected as one layer",
    "share_untouched": "not projected",
}


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose workloads did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        Norms on the toy, norm and effective step of each layer, branches, test errors.
    """
    drawn: list[Figure | None] = [_toy_norm(result), _toy_angle(result)]
    for pair in _PAIRS:
        drawn += [_layers(result, pair, "growth"), _layers(result, pair, "effective_step")]
    drawn += [_branches(result, "plain-sgdp", "SGDP"), _branches(result, "plain-adamp", "AdamP")]
    drawn += [_errors(result)]
    return [figure for figure in drawn if figure is not None and figure.series]


def _line(
    result: Result, workload: str, arm: str, metric: str, name: str, *, last: float = math.inf
) -> list[Series]:
    """A curve of the final runs with the range of the seeds, where it was logged."""
    curve = result.curve(workload, arm, "train", metric)
    if curve is None:
        return []
    # the first points of a curve may be missing where nothing was recorded yet
    rows = [
        row
        for row in zip(curve["step"], curve["mean"], curve["lo"], curve["hi"], strict=True)
        if None not in row and row[0] <= last
    ]
    step, mean, lo, hi = (list(column) for column in zip(*rows, strict=True)) if rows else [[]] * 4
    return [Series(name=name, x=step, y=mean, lo=lo, hi=hi)] if rows else []


def _joined(parts: Iterable[Sequence[Series]]) -> tuple[Series, ...]:
    return tuple(series for part in parts for series in part)


def _toy_norm(result: Result) -> Figure:
    """Norm on the toy, one line an optimizer, and the published last norms."""
    lines = _joined(_line(result, "toy", arm, "norm", name) for arm, name in _TOY.items())
    if lines:
        ends = [0, max(float(x) for line in lines for x in line.x)]
        for momentum, norm in ((0.9, 2.93), (0.99, 27.87)):
            name = f"published, momentum {momentum}"
            lines = (*lines, Series(name=name, x=ends, y=[norm, norm], style="reference"))
    return Figure(
        id="toy-norm",
        title="Two-dimensional toy: norm of the weight",
        caption=(
            "Norm of a weight that starts at 1, mean and range over starts, against the published "
            "last norms. Momentum lengthens the weight; the projected runs keep it short."
        ),
        x_label="step",
        y_label="norm",
        series=lines,
        y_log=True,
    )


def _toy_angle(result: Result) -> Figure:
    """Angle to the optimum on the toy, while it is being reached."""
    lines = _joined(
        _line(result, "toy", arm, "angle", name, last=_SHOWN) for arm, name in _TOY.items()
    )
    if lines:
        reached = Series(name="arrived", x=[0, _SHOWN], y=[_ARRIVED] * 2, style="reference")
        lines = (*lines, reached)
    return Figure(
        id="toy-angle",
        title="Two-dimensional toy: angle to the optimum",
        caption=(
            "Mean and range over starts; a run has arrived where the cosine stays above 0.999. "
            "The projected runs arrive first; momentum 0.99 without projection arrives last, "
            "slowed down by the length of its weight."
        ),
        x_label="step",
        y_label="angle (rad)",
        series=lines,
        y_log=True,
    )


def _layers(result: Result, pair: str, metric: str) -> Figure:
    """Growth or effective step of each scale-invariant weight, with and without projection."""
    arms = _PAIRS[pair]
    plain, projected = arms.values()
    lines = _joined(
        _line(result, "norms", arm, f"{metric} {weight}", f"{label}, layer {number + 1}")
        for number, weight in enumerate(_weights(result))
        for arm, label in arms.items()
    )
    what = {
        "growth": ("growth of each layer's norm", "norm / first norm"),
        "effective_step": ("effective step of each layer", "rate / squared norm"),
    }
    title, label = what[metric]
    return Figure(
        id=f"{pair}-{metric.replace('_', '-')}",
        title=f"{plain} and {projected}: {title}",
        caption=(
            f"Convolutions that batch normalization follows, on digits, no weight decay, one "
            f"schedule of the learning rate for {plain} and {projected}; mean and range over seeds."
        ),
        x_label="step",
        y_label=label,
        series=lines,
        y_log=metric == "effective_step",
    )


def _weights(result: Result) -> list[str]:
    """Names of the weights that were watched."""
    found = {
        curve["metric"].removeprefix("norm ")
        for curve in result.document["curves"]
        if curve["workload"] == "norms" and curve["metric"].startswith("norm ")
    }
    return sorted(found, key=lambda name: [int(x) if x.isdigit() else x for x in name.split(".")])


def _branches(result: Result, arm: str, label: str) -> Figure:
    """Share of the weights in each branch of the test for scale invariance."""
    lines = _joined(_line(result, "norms", arm, metric, name) for metric, name in _BRANCHES.items())
    return Figure(
        id=f"branches-{label.lower()}",
        title=f"{label}: which weights were taken as scale invariant",
        caption=(
            "Share of the weights of two and more dimensions: three convolutions, which are scale "
            "invariant, and the last layer, which is not. A fixed threshold takes a layer that is "
            "not invariant for one that is now and then: about 8 % of the steps for a random "
            "gradient."
        ),
        x_label="step",
        y_label="share of weights",
        series=lines,
    )


def _errors(result: Result) -> Figure | None:
    """Test error of every seed at the tuned settings."""
    series = []
    for workload in result.document["workloads"]:
        points = [
            (label, 100 * value)
            for arm, label in _TUNED.items()
            for value in result.values("error", arm, workload["name"]).values()
            if value == value  # a diverged run has none
        ]
        if points:
            x, y = zip(*points, strict=True)
            series.append(Series(name=workload["label"], x=[*x], y=[*y], style="points"))
    if not series:
        return None
    return Figure(
        id="errors",
        title="Test error with learning rate and decay tuned alike",
        caption=(
            "One point a seed. All arms had the same number of tuning trials, both of a pair the "
            "same spaces; the test split was opened once, by these runs."
        ),
        x_label="optimizer",
        y_label="test error (%)",
        series=tuple(series),
    )
