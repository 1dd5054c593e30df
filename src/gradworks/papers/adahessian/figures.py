"""What the page of the paper shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradworks.bench.figures import Figure, Series

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]

_TUNED = {"adahessian": "AdaHessian", "adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
_PATHS = {"path-adahessian": "AdaHessian", "path-adam": "Adam", "path-sgd": "SGD"}
_WHAT = {"error": "validation error", "nats": "validation cross-entropy (nats)"}
_MINIMA = {"rosenbrock": (1.0, 1.0), "rastrigin": (0.0, 0.0)}


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose workloads did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        Errors, robustness to the learning rate, curves, ablations and paths.
    """
    drawn = [_errors(result), *(_robustness(result, name) for name in ("digits", "resnet"))]
    for workload, metric in (("digits", "error"), ("text", "nats")):
        drawn += [_curve(result, workload, metric), _by_time(result, workload, metric)]
    drawn += [_ablations(result), *(_path(result, name) for name in _MINIMA)]
    return [figure for figure in drawn if figure.series]


def _errors(result: Result) -> Figure:
    """Test error of every seed."""
    labels = {arm["name"]: arm["label"] for arm in result.document["arms"]}
    series = []
    for workload in result.document["workloads"]:
        points = [
            (label, 100 * value)
            for name, label in labels.items()
            if name in _TUNED or name.startswith("published-")
            for value in result.values("error", name, workload["name"]).values()
            if value == value  # a diverged run has none
        ]
        if points:
            x, y = zip(*points, strict=True)
            series.append(Series(name=workload["label"], x=x, y=y, style="points"))
    return Figure(
        id="errors",
        title="Test error, tuned alike and at the published settings",
        caption="One point a seed; the test split was opened once, by these runs.",
        x_label="optimizer",
        y_label="test error (%)",
        series=tuple(series),
    )


def _robustness(result: Result, workload: str) -> Figure:
    """Validation error by learning rate, in units of each optimizer's best."""
    series = []
    for arm, label in _TUNED.items():
        found = [
            (trial["params"]["lr"], trial["value"])
            for study in result.document["studies"]
            if study["workload"] == workload and study["arm"] == arm
            for trial in study["trials"]
            if trial["value"] is not None
        ]
        if found:
            best = min(found, key=lambda pair: pair[1])[0]
            x, y = zip(*sorted((lr / best, 100 * value) for lr, value in found), strict=True)
            series.append(Series(name=label, x=x, y=y))
    return Figure(
        id=f"rates-{workload}",
        title="How much the learning rate matters",
        caption=(
            "Validation error of every tuning trial, over the learning rate in units of each "
            "optimizer's best: the flatter, the less it needs tuning. Diverged trials are left out."
        ),
        x_label="learning rate / best learning rate",
        y_label="validation error (%)",
        series=tuple(series),
        x_log=True,
    )


def _curve(result: Result, workload: str, metric: str) -> Figure:
    """Validation metric by step."""
    series = []
    for arm, label in _TUNED.items():
        curve = result.curve(workload, arm, "valid", metric)
        if curve is not None:
            series.append(
                Series(name=label, x=curve["step"], y=curve["mean"], lo=curve["lo"], hi=curve["hi"])
            )
    return Figure(
        id=f"curve-{workload}",
        title="By step, learning rates tuned alike",
        caption=(
            "Mean and range over seeds. A step of AdaHessian takes two to three times as long as "
            "one of the others: see the claim about cost."
        ),
        x_label="step",
        y_label=_WHAT[metric],
        series=tuple(series),
    )


def _by_time(result: Result, workload: str, metric: str) -> Figure:
    """The same by training time: steps times what one took, mean over seeds."""
    series = []
    for arm, label in _TUNED.items():
        curve = result.curve(workload, arm, "valid", metric)
        times = [
            run["seconds"]
            for run in result.document["finals"]
            if (run["workload"], run["arm"]) == (workload, arm) and run["seconds"] is not None
        ]
        if curve is not None and times:
            each = sum(times) / len(times) / max(curve["step"][-1], 1)
            series.append(Series(name=label, x=[each * s for s in curve["step"]], y=curve["mean"]))
    return Figure(
        id=f"time-{workload}",
        title="By training time, learning rates tuned alike",
        caption=(
            "The same curves over seconds of training on one thread, evaluation not counted; equal "
            "numbers of steps, so that the curves end at different times."
        ),
        x_label="training time (s)",
        y_label=_WHAT[metric],
        series=tuple(series),
    )


def _ablations(result: Result) -> Figure:
    """Test error at the published rate, parts left out."""
    x, y, lo, hi = [], [], [], []
    for arm in result.document["arms"]:
        values = [
            100 * v for v in result.values("error", arm["name"], "ablations").values() if v == v
        ]
        if arm["name"].startswith("ablate-") and values:
            x.append(arm["label"])
            y.append(sum(values) / len(values))
            lo.append(min(values))
            hi.append(max(values))
    bars = (Series(name="test error", x=x, y=y, lo=lo, hi=hi, style="points"),) if x else ()
    return Figure(
        id="ablations",
        title="What each part does",
        caption="Learning rate 0.15, not tuned again; mean and range over seeds.",
        x_label="variant",
        y_label="test error (%)",
        series=bars,
    )


def _path(result: Result, function: str) -> Figure:
    """Distance to the minimum."""
    series = []
    for arm, label in _PATHS.items():
        curve = result.curve(function, arm, "train", "height")
        if curve is not None:
            rows = [
                (s, m)
                for s, m in zip(curve["step"], curve["mean"], strict=True)
                if m is not None and m > 1e-16
            ]
            if rows:
                x, y = zip(*rows, strict=True)
                series.append(Series(name=label, x=x, y=y))
    return Figure(
        id=f"path-{function}",
        title=f"{function.capitalize()}'s function",
        caption=(
            "Height above the minimum on the way from one start; rates chosen for the picture, so "
            "that nothing is decided here."
        ),
        x_label="step",
        y_label="height above the minimum",
        series=tuple(series),
        y_log=True,
    )
