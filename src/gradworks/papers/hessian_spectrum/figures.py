"""What the page of the paper shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradworks.bench.figures import Figure, Series

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]

# Bars of the histograms, in units of the largest eigenvalue.
BARS = 55
LOW, HIGH = -0.1, 1.0
_PATHS = {
    "ab": "A to B (small batches from A)",
    "ac": "A to C (small batches from the start)",
    "ab_fast": "A to B at three times the rate",
    "ad": "A to D (another start)",
}


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose studies did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        Spectra, outliers against classes, outliers and bulk against width, losses on paths.
    """
    drawn = [_spectra(result), _classes(result), *_widths(result), _separations(result)]
    drawn += [_paths(result, workload) for workload in _workloads(result, "basin")]
    return [figure for figure in drawn if figure is not None]


def _workloads(result: Result, word: str) -> list[Mapping[str, Any]]:
    """The workloads of one study."""
    return [w for w in result.document["workloads"] if w["spec"].get("study") == word]


def _study(result: Result, word: str) -> Mapping[str, Any] | None:
    """The workload of a study, where it ran."""
    return next(iter(_workloads(result, word)), None)


def _summary(result: Result, metric: str, workload: str) -> tuple[float, float, float] | None:
    """Mean, smallest and largest over the seeds of the trained network."""
    values = [v for v in result.values(metric, "network", workload).values() if v == v]
    return (sum(values) / len(values), min(values), max(values)) if values else None


def _points(
    result: Result, name: str, metric: str, workload: str, at: Mapping[str, float]
) -> Series | None:
    """A metric that is logged once a tag, against the tag's number."""
    found = [(x, _summary(result, f"{metric}_{tag}", workload)) for tag, x in at.items()]
    kept = [(x, s) for x, s in found if s is not None]
    if not kept:
        return None
    return Series(
        name=name,
        x=[x for x, _ in kept],
        y=[s[0] for _, s in kept],
        lo=[s[1] for _, s in kept],
        hi=[s[2] for _, s in kept],
        style="points",
    )


def _present(series: Sequence[Series | None]) -> tuple[Series, ...]:
    """Those that have something to show."""
    return tuple(s for s in series if s is not None)


def _spectra(result: Result) -> Figure | None:
    """Histograms of the trained networks' spectra."""
    study = _study(result, "widths")
    if study is None:
        return None
    centres = [LOW + (HIGH - LOW) * (i + 0.5) / BARS for i in range(BARS)]
    series = []
    for h in study["spec"]["hidden"]:
        curve = result.curve(study["name"], "network", "train", f"histogram_h{h}")
        if curve is not None:
            pairs = [(centres[s], y) for s, y in zip(curve["step"], curve["mean"]) if y]
            x, y = [p[0] for p in pairs], [p[1] for p in pairs]
            series.append(Series(name=f"hidden {h}", x=x, y=y, style="points"))
    if not series:
        return None
    return Figure(
        id="spectrum",
        title="Eigenvalues of the trained networks",
        caption=(
            "Number of eigenvalues in each interval of 2 % of the largest, mean over seeds, on a "
            "logarithmic scale. By the paper a wider network adds to the bars at zero only."
        ),
        x_label="eigenvalue / largest eigenvalue",
        y_label="eigenvalues",
        series=tuple(series),
        y_log=True,
    )


def _classes(result: Result) -> Figure | None:
    """Outliers against classes with the line of equality less one."""
    study = _study(result, "classes")
    if study is None:
        return None
    classes = [float(k) for k in study["spec"]["classes"]]
    at = {f"k{k}": float(k) for k in study["spec"]["classes"]}
    series = _present(
        [
            _points(result, "largest gap", "num_outliers", study["name"], at),
            _points(result, "above 5 % of t_1", "num_outliers_threshold", study["name"], at),
        ]
    )
    if not series:
        return None
    line = Series(name="classes - 1", x=classes, y=[k - 1 for k in classes], style="reference")
    return Figure(
        id="outliers-classes",
        title="Outliers against classes",
        caption=(
            "Number of outliers by two rules, mean and range over seeds. A count from one rule is "
            "not a fact; the dashed line is the number of classes less one."
        ),
        x_label="classes",
        y_label="outliers",
        series=(*series, line),
    )


def _widths(result: Result) -> list[Figure | None]:
    """Counts, and shares near zero, against the number of parameters."""
    study = _study(result, "widths")
    if study is None:
        return []
    name = study["name"]
    at = {}
    for h in study["spec"]["hidden"]:
        size = _summary(result, f"dimension_h{h}", name)
        if size is not None:
            at[f"h{h}"] = size[0]
    counts = _present(
        [
            _points(result, "largest gap", "num_outliers", name, at),
            _points(result, "above 5 % of t_1", "num_outliers_threshold", name, at),
            _points(result, "largest eigenvalue t_1", "largest", name, at),
        ]
    )
    shares = _present(
        [
            _points(result, "after training", "fraction_small", name, at),
            _points(result, "at the start", "fraction_small_at_start", name, at),
        ]
    )
    drawn: list[Figure | None] = []
    if counts:
        drawn.append(
            Figure(
                id="outliers-width",
                title="Outliers against size",
                caption=(
                    "Outliers by two rules and the largest eigenvalue, mean and range over seeds. "
                    "By the paper none of them follows the number of parameters."
                ),
                x_label="parameters",
                y_label="outliers; eigenvalue",
                series=counts,
                x_log=True,
            )
        )
    if shares:
        drawn.append(
            Figure(
                id="bulk-width",
                title="The bulk against size",
                caption=(
                    "Share of the eigenvalues below 1 % of the largest in magnitude, mean and "
                    "range over seeds. By the paper it grows with the number of parameters."
                ),
                x_label="parameters",
                y_label="share of eigenvalues",
                series=shares,
                x_log=True,
            )
        )
    return drawn


def _separations(result: Result) -> Figure | None:
    """Outliers and bulk against the distance of the classes."""
    study = _study(result, "separations")
    if study is None:
        return None
    at = {f"d{d:g}": float(d) for d in study["spec"]["separation"]}
    series = _present(
        [
            _points(result, "largest eigenvalue", "largest", study["name"], at),
            _points(result, "width of the bulk", "bulk_width", study["name"], at),
        ]
    )
    if not series:
        return None
    return Figure(
        id="separation",
        title="Outliers and bulk against separation",
        caption=(
            "The largest eigenvalue and the 95 % quantile of the bulk's magnitudes, mean and range "
            "over seeds, for blobs further and further apart. By the paper only the first moves."
        ),
        x_label="distance of the blobs' centres from the origin",
        y_label="eigenvalue",
        series=series,
        y_log=True,
    )


def _paths(result: Result, workload: Mapping[str, Any]) -> Figure | None:
    """Training loss on the lines between solutions."""
    last = int(workload["spec"]["num_points"]) - 1
    series = []
    for tag, label in _PATHS.items():
        curve = result.curve(workload["name"], "network", "train", f"path_{tag}")
        if curve is not None:
            series.append(
                Series(
                    name=label,
                    x=[s / last for s in curve["step"]],
                    y=curve["mean"],
                    lo=curve["lo"],
                    hi=curve["hi"],
                )
            )
    if not series:
        return None
    return Figure(
        id=f"path-{workload['name'].removeprefix('basin-')}",
        title=f"Loss between solutions: {workload['label']}",
        caption=(
            "Training loss on straight lines from the large-batch solution A, mean and range over "
            "seeds. By the paper the lines to small-batch solutions B and C stay within 0.02 nats "
            "of their higher end; D, from another start, is the control."
        ),
        x_label="position on the line",
        y_label="training loss, nats",
        series=tuple(series),
    )
