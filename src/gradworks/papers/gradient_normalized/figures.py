"""What the page of the paper shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradworks.bench.figures import Figure, Series

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]

_ARM = "gradient-normalized"
_METHODS = {
    "exact": "exact Hessian",
    "approximate": "approximate Hessian",
    "zero": "no Hessian",
    "descent": "gradient descent, backtracking",
}


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose workloads did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        One convergence plot a problem, and iterations of all.
    """
    drawn = [
        _gaps(result, workload["name"], workload["label"])
        for workload in result.document["workloads"]
        if workload["name"] != "solves"
    ]
    return [figure for figure in (*drawn, _iterations(result)) if figure.series]


def _gaps(result: Result, workload: str, label: str) -> Figure:
    """F - f* by iteration."""
    series = []
    for method, name in _METHODS.items():
        curve = result.curve(workload, _ARM, "train", f"gap_{method}")
        if curve is None:
            continue
        rows = [
            (step, mean)
            for step, mean in zip(curve["step"], curve["mean"], strict=True)
            if mean is not None and mean > 1e-14
        ]
        if rows:
            x, y = zip(*rows, strict=True)
            series.append(Series(name=name, x=x, y=y))
    if series:
        ends = [0, max(float(x) for line in series for x in line.x)]
        series.append(Series(name="solved", x=ends, y=[1e-8, 1e-8], style="reference"))
    return Figure(
        id=f"gap-{workload.replace('.', '')}",
        title=label[:1].upper() + label[1:],
        caption=(
            "Mean over the seeds that are still running at an iteration. A straight line is a "
            "linear rate."
        ),
        x_label="iteration",
        y_label="f - f*",
        series=tuple(series),
        y_log=True,
    )


def _iterations(result: Result) -> Figure:
    """Iterations to 1e-8 on every problem."""
    series = []
    for method, name in _METHODS.items():
        x, y = [], []
        for workload in result.document["workloads"]:
            values = list(result.values(f"iterations_{method}", _ARM, workload["name"]).values())
            if values:
                x.append(workload["label"])
                y.append(sum(values) / len(values))
        if x:
            series.append(Series(name=name, x=x, y=y, style="bars"))
    return Figure(
        id="iterations",
        title="Iterations until f is within 1e-8",
        caption="Mean over seeds; a method that did not get there counts with its limit.",
        x_label="problem",
        y_label="iterations",
        series=tuple(series),
        y_log=True,
    )
