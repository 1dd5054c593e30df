"""What the page of the paper shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradworks.bench.figures import Figure, Series
from gradworks.papers.diffgrad.claims import FUNCTIONS

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]

_CURVES = {
    "curve-diffgrad": "diffGrad",
    "curve-adam": "Adam",
    "curve-half": "Adam at half the rate",
    "curve-first": "diffGrad as first released",
}
_MINIMA = {"f1": (-0.3, 0.2), "f2": (-0.9, 0.0), "f3": (0.0, -0.5)}  # global, local
_SCALED = {
    "scale-diffgrad": "diffGrad",
    "scale-rms": "friction without scale",
    "scale-adam": "Adam",
}


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose workloads did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        Paths and shares on the functions, test errors, frictions and what the scale of the loss
        changes.
    """
    drawn = [_path(result, name) for name in FUNCTIONS]
    drawn += [_shares(result), _errors(result), _text(result), _frictions(result)]
    drawn += [_layers(result), _losses(result)]
    return [figure for figure in drawn if figure.series]


def _line(
    result: Result, workload: str, arm: str, split: str, metric: str, name: str
) -> list[Series]:
    """A curve of the final runs with the range of the seeds, where it was logged."""
    curve = result.curve(workload, arm, split, metric)
    if curve is None:
        return []
    # the first points of a curve may be missing where nothing was recorded yet
    rows = [
        row
        for row in zip(curve["step"], curve["mean"], curve["lo"], curve["hi"], strict=True)
        if None not in row
    ]
    step, mean, lo, hi = (list(column) for column in zip(*rows, strict=True)) if rows else [[]] * 4
    return [Series(name=name, x=step, y=mean, lo=lo, hi=hi)] if rows else []


def _joined(parts: Sequence[Sequence[Series]]) -> tuple[Series, ...]:
    return tuple(series for part in parts for series in part)


def _path(result: Result, function: str) -> Figure:
    """The run from -1 at the rate 0.1, with the minima."""
    lines = _joined(
        [_line(result, function, arm, "train", "end", name) for arm, name in _CURVES.items()]
    )
    if lines:
        ends = [0, max(float(x) for line in lines for x in line.x)]
        for what, at in zip(("global minimum", "a local minimum"), _MINIMA[function], strict=True):
            lines = (*lines, Series(name=what, x=ends, y=[at, at], style="reference"))
    return Figure(
        id=f"path-{function}",
        title=f"{function.upper()}: the published run, and Adam at half its rate",
        caption=(
            "From -1 at the learning rate 0.1, as in the authors' notebooks. As first released, "
            "diffGrad compares the gradient with itself and takes half of Adam's steps."
        ),
        x_label="step",
        y_label="x",
        series=lines,
    )


def _shares(result: Result) -> Figure:
    """Share of starts that end in the global basin, by learning rate."""
    series = []
    for arm, label in _CURVES.items():
        x, y = [], []
        for rate in _rates(result):
            found = [
                value
                for function in FUNCTIONS
                for value in result.values(f"share_{rate:g}", arm, function).values()
            ]
            if found:
                x.append(rate)
                y.append(100 * sum(found) / len(found))
        if x:
            series.append(Series(name=label, x=x, y=y))
    return Figure(
        id="shares",
        title="Starts that end in the global basin",
        caption=(
            "Mean over three functions, 41 starts in [-1.5, 1.5] and the seeds, 299 steps. Adam at "
            "half the rate is the control: what it reaches too is no merit of the friction."
        ),
        x_label="learning rate",
        y_label="share of starts (%)",
        series=tuple(series),
        x_log=True,
    )


def _rates(result: Result) -> list[float]:
    """Learning rates that were run on the functions."""
    head = "share_"
    found = {
        float(curve["metric"].removeprefix(head))
        for curve in result.document["curves"]
        if curve["workload"] in FUNCTIONS and curve["metric"].startswith(head)
    }
    return sorted(found)


def _tuned(result: Result, metric: str) -> list[tuple[str, list[tuple[str, float]]]]:
    """Label of each tuned workload, and a point for each seed of each arm."""
    labels = {arm["name"]: arm["label"] for arm in result.document["arms"]}
    found = []
    for workload in result.document["workloads"]:
        if workload["name"].startswith("loss-"):
            continue
        points = [
            (labels[arm], value)
            for arm in labels
            for value in result.values(metric, arm, workload["name"]).values()
            if value == value  # a diverged run has none
        ]
        if points:
            found.append((workload["label"], points))
    return found


def _errors(result: Result) -> Figure:
    """Test error of every seed at the tuned rates."""
    series = [
        Series(
            name=label,
            x=[arm for arm, _ in points],
            y=[100 * value for _, value in points],
            style="points",
        )
        for label, points in _tuned(result, "error")
    ]
    return Figure(
        id="errors",
        title="Test error with learning rates tuned alike",
        caption=(
            "One point a seed. All optimizers had the same number of tuning trials; the test split "
            "was opened once, by these runs."
        ),
        x_label="optimizer",
        y_label="test error (%)",
        series=tuple(series),
    )


def _text(result: Result) -> Figure:
    """Cross-entropy of the language model."""
    series = [
        Series(name=label, x=[arm for arm, _ in points], y=[v for _, v in points], style="points")
        for label, points in _tuned(result, "nats")
    ]
    return Figure(
        id="text",
        title="A language model, learning rates tuned alike",
        caption="One point a seed. No claim of the paper: the workload that all optimizers share.",
        x_label="optimizer",
        y_label="test cross-entropy (nats a character)",
        series=tuple(series),
    )


def _factors(result: Result) -> list[str]:
    """Workloads of the scaled loss, by factor."""
    found = [w["name"] for w in result.document["workloads"] if w["name"].startswith("loss-x")]
    return sorted(found, key=lambda name: float(name.removeprefix("loss-x")))


def _frictions(result: Result) -> Figure:
    """Mean friction during training, for each scale of the loss."""
    lines = _joined(
        [
            _line(
                result, name, "scale-diffgrad", "train", "final_friction",
                f"loss times {name.removeprefix('loss-x')}",
            )
            for name in _factors(result)
        ]
    )  # fmt: skip
    if lines:
        ends = [0, max(float(x) for line in lines for x in line.x)]
        lines = (*lines, Series(name="no change at all", x=ends, y=[0.5, 0.5], style="reference"))
    return Figure(
        id="frictions",
        title="Friction while a network trains",
        caption=(
            "Mean over all weights; mean and range over seeds. Where gradients change by far less "
            "than 1 from step to step the friction is a half, and the method is Adam at half its "
            "rate; where they change by far more there is none."
        ),
        x_label="step",
        y_label="friction",
        series=lines,
    )


def _layers(result: Result) -> Figure:
    """Friction of each layer at the ordinary loss."""
    names = sorted(
        {
            curve["metric"]
            for curve in result.document["curves"]
            if curve["workload"] == "loss-x1" and curve["metric"].startswith("friction ")
        }
    )
    lines = _joined(
        [
            _line(result, "loss-x1", "scale-diffgrad", "train", metric, f"layer {number + 1}")
            for number, metric in enumerate(names)
        ]
    )
    return Figure(
        id="frictions-by-layer",
        title="Friction of each layer",
        caption="Convolutions and the last, linear layer; mean and range over seeds.",
        x_label="step",
        y_label="friction",
        series=lines,
    )


def _losses(result: Result) -> Figure:
    """Validation error under each scale of the loss."""
    lines = _joined(
        [
            _line(
                result, name, arm, "valid", "error",
                f"{label}, loss times {name.removeprefix('loss-x')}",
            )
            for arm, label in _SCALED.items()
            for name in _factors(result)
        ]
    )  # fmt: skip
    return Figure(
        id="scale",
        title="What a factor in front of the loss changes",
        caption=(
            "Validation error at one learning rate, 0.001, untuned. Adam and the friction without "
            "scale do not see the factor (but for eps); the paper's friction takes steps up to "
            "twice as long."
        ),
        x_label="step",
        y_label="validation error",
        series=lines,
    )
