"""What the page of the paper shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradworks.bench.figures import Figure, Series
from gradworks.papers.loss_landscape.claims import ARM, FOLLOWS, MAINLY_POSITIVE
from gradworks.papers.loss_landscape.presets import AXES, RULES

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]

_PROXIES = {
    "re": "re",
    "kh_half": "Kh, n = 0.5",
    "kh_one": "Kh, n = 1",
    "trace": "trace",
    "top": "largest eigenvalue",
    "loss": "loss",
}
_AXES = {
    "random": "random",
    "hessian": "Hessian, top two",
    "top_bottom": "Hessian, top and bottom",
    "trajectory": "trajectory",
    "adam": "Adam's moments",
}
_MODES = {"eval": "stored statistics", "train": "batch statistics", "recalibrate": "recalibrated"}


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose measurements did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        Slices and gaps of planes, criteria against accuracy, correlations, Lanczos steps, spectra.
    """
    workloads = [w for w in result.document["workloads"] if "network" in w["spec"]]
    drawn = [
        _gaps(result, workloads),
        _slice(result, workloads, "random", "Random filter-normalised axis"),
        _slice(result, workloads, "hessian_long", "Hessian axis of the same length"),
        _rules(result, workloads),
        _correlations(result, workloads),
        *(_cloud(result, workloads, proxy) for proxy in ("re", "kh_half", "loss")),
        _steps(result, workloads),
        _types(result, workloads),
    ]
    return [figure for figure in drawn if figure is not None]


Workloads = Sequence[Mapping[str, Any]]


def _values(result: Result, metric: str, workload: Mapping[str, Any]) -> list[float]:
    """The finite values of a metric, one a seed."""
    found = result.values(metric, ARM, workload["name"]).values()
    return [v for v in found if math.isfinite(v)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _geometric(values: Sequence[float]) -> float:
    return math.exp(_mean([math.log(v) for v in values]))


def _bars(
    name: str, found: Mapping[str, Sequence[float]], mean: Callable[[Sequence[float]], float]
) -> Series | None:
    """A bar for each entry that has values, with their range."""
    kept = {label: values for label, values in found.items() if values}
    if not kept:
        return None
    return Series(
        name=name,
        x=list(kept),
        y=[mean(v) for v in kept.values()],
        lo=[min(v) for v in kept.values()],
        hi=[max(v) for v in kept.values()],
        style="bars",
    )


def _present(series: Sequence[Series | None]) -> tuple[Series, ...]:
    """Those that have something to show."""
    return tuple(s for s in series if s is not None)


def _normed(workloads: Workloads) -> list[Mapping[str, Any]]:
    """The networks with batch normalisation."""
    return [w for w in workloads if w["spec"]["network"]["norm"]]


def _gaps(result: Result, workloads: Workloads) -> Figure | None:
    """How far the modes are apart, by network."""
    kinds = {
        "random": "random, filter-normalised",
        "hessian": "Hessian, unit",
        "hessian_long": "Hessian, as long as random",
        "hessian_batch": "Hessian of batch statistics, as long",
    }
    series = _present(
        [
            _bars(
                label,
                {w["label"]: _values(result, f"gap_{key}", w) for w in _normed(workloads)},
                _geometric,
            )
            for key, label in kinds.items()
        ]
    )
    if not series:
        return None
    return Figure(
        id="gaps",
        title="How far batch norm's stored statistics mislead",
        caption=(
            "Largest relative difference between the eval and the recalibrated plane, geometric "
            "mean and range over seeds. By the paper it is smaller for Hessian axes; unit "
            "eigenvectors are short steps, the third bars take the length of the first, the fourth "
            "the eigenvectors of the Hessian under batch statistics."
        ),
        x_label="network",
        y_label="largest relative difference",
        series=series,
        y_log=True,
    )


def _slice(result: Result, workloads: Workloads, axes: str, title: str) -> Figure | None:
    """The loss along one axis in the three modes."""
    network = next((w for w in _normed(workloads) if w["name"] == "conv-bn"), None)
    if network is None:
        return None
    spec = network["spec"]
    distance, last = float(spec["distance"]), int(spec["points"]) - 1
    series = []
    for mode, label in _MODES.items():
        curve = result.curve(network["name"], ARM, "train", f"slice_{axes}_{mode}")
        if curve is None:
            continue
        rows = zip(*(curve[key] for key in ("step", "mean", "lo", "hi")), strict=True)
        kept = [row for row in rows if None not in row]
        if kept:
            step, y, lo, hi = (list(column) for column in zip(*kept, strict=True))
            x = [distance * (2 * s / last - 1) for s in step]
            series.append(Series(name=label, x=x, y=y, lo=lo, hi=hi))
    if not series:
        return None
    return Figure(
        id=f"slice-{axes.partition('_')[0]}",
        title=f"{title}: {network['label']}",
        caption=(
            "Training loss on the middle row of the plane, mean and range over seeds, with batch "
            "norm's statistics as stored, of the batch, and re-estimated at each point. Where the "
            "lines part, the picture is one of the statistics and not of the network."
        ),
        x_label="position along the axis",
        y_label="training loss, nats",
        series=tuple(series),
        y_log=True,
    )


def _rules(result: Result, workloads: Workloads) -> Figure | None:
    """The gap for every pair of axes and rule."""
    series = _present(
        [
            _bars(
                _AXES[axes],
                {
                    rule or "none": [
                        value
                        for w in _normed(workloads)
                        for value in _values(result, f"gap_{rule or 'none'}_table_{axes}", w)
                    ]
                    for rule in RULES
                },
                _geometric,
            )
            for axes in AXES
        ]
    )
    if not series:
        return None
    return Figure(
        id="rules",
        title="Axes and normalisations",
        caption=(
            "Largest relative difference between the eval and the recalibrated plane on a coarse "
            "grid, geometric mean and range over networks with batch norm and seeds. Without "
            "normalisation the lengths of the axes differ by orders of magnitude."
        ),
        x_label="normalisation",
        y_label="largest relative difference",
        series=series,
        y_log=True,
    )


def _correlations(result: Result, workloads: Workloads) -> Figure | None:
    """How each proxy follows accuracy."""
    series = _present(
        [
            _bars(
                label,
                {
                    shown: [
                        _mean(values)
                        for w in workloads
                        if (values := _values(result, f"{prefix}spearman_{proxy}", w))
                    ]
                    for proxy, shown in _PROXIES.items()
                },
                _mean,
            )
            for prefix, label in (("", "all shifts"), ("ladder_", "six levels of noise"))
        ]
    )
    if not series:
        return None
    shown = list(_PROXIES.values())
    line = Series(name="bound of the claim", x=shown, y=[-FOLLOWS] * len(shown), style="reference")
    return Figure(
        id="correlations",
        title="What follows accuracy when the data change",
        caption=(
            "Spearman correlation of accuracy with each number over shifts, mean and range over "
            "networks. The last, the plain loss on the same batch, needs no Hessian: a criterion "
            "is worth its cost only where it does better."
        ),
        x_label="number from one labelled batch",
        y_label="rank correlation with accuracy",
        series=(*series, line),
    )


def _cloud(result: Result, workloads: Workloads, proxy: str) -> Figure | None:
    """A proxy against accuracy, a point for each network and shift."""
    series = []
    for norm, label in ((False, "without batch norm"), (True, "with batch norm")):
        points = []
        for w in workloads:
            if w["spec"]["network"]["norm"] != norm:
                continue
            for kind, level in w["spec"]["shifts"]:
                at = f"{kind}{level:g}"
                x = _values(result, f"accuracy_{at}", w)
                y = _values(result, f"{proxy}_{at}", w)
                if x and y:
                    points.append((_mean(x), _mean(y)))
        if points:
            points.sort()
            x_values, y_values = [p[0] for p in points], [p[1] for p in points]
            series.append(Series(name=label, x=x_values, y=y_values, style="points"))
    if not series:
        return None
    shown = _PROXIES[proxy]
    return Figure(
        id=f"accuracy-{proxy.replace('_', '-')}",
        title=f"{shown} against accuracy",
        caption=(
            f"Each point is one network under one shift, mean over seeds: accuracy on the shifted "
            f"test set and {shown} on one of its batches. By the paper re and Kh fall as accuracy "
            f"rises."
        ),
        x_label="accuracy",
        y_label=shown,
        series=tuple(series),
        y_log=True,
    )


def _steps(result: Result, workloads: Workloads) -> Figure | None:
    """What the criteria owe to the number of Lanczos steps."""
    closer = [w for w in workloads if w["spec"]["kh_steps"]]
    if not closer:
        return None
    spec = closer[0]["spec"]
    at = {int(steps): f"kh_{steps}" for steps in spec["kh_steps"]}
    at[int(spec["lanczos_steps"])] = "noise0"
    series = []
    for key, label in (("kh_half", "Kh, n = 0.5"), ("re", "re")):
        kept = []
        for steps, cell in sorted(at.items()):
            values = [v for w in closer for v in _values(result, f"{key}_{cell}", w)]
            if values:
                kept.append((steps, _geometric(values), min(values), max(values)))
        if kept:
            x, y, lo, hi = (list(column) for column in zip(*kept, strict=True))
            series.append(Series(name=label, x=x, y=y, lo=lo, hi=hi, style="points"))
    if not series:
        return None
    return Figure(
        id="lanczos-steps",
        title="Kh depends on the number of Lanczos steps",
        caption=(
            "Both criteria on the unshifted batch, geometric mean and range over networks and "
            "seeds. Kh with n = 0.5 moves with the steps, re settles: a value of Kh means nothing "
            "without the steps, probes and batch it was made with."
        ),
        x_label="Lanczos steps",
        y_label="criterion",
        series=tuple(series),
        y_log=True,
    )


def _types(result: Result, workloads: Workloads) -> Figure | None:
    """The type of each network's spectrum."""
    bars = _bars(
        "unshifted batch",
        {w["label"]: _values(result, "type_ratio_noise0", w) for w in workloads},
        _mean,
    )
    if bars is None:
        return None
    bound = Series(
        name="mainly positive above", x=bars.x, y=[MAINLY_POSITIVE] * len(bars.x), style="reference"
    )
    return Figure(
        id="types",
        title="Smallest over largest eigenvalue",
        caption=(
            "Mean over probes of the smallest Ritz value over the largest, mean and range over "
            "seeds. Above the dashed line a spectrum counts as mainly positive."
        ),
        x_label="network",
        y_label="smallest / largest",
        series=(bars, bound),
    )
