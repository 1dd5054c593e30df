"""What the page of the paper shows: measured curves and rates beside the predicted lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradworks.bench.figures import Figure, Series
from gradworks.papers.matrix_sensing.claims import ARM
from gradworks.papers.matrix_sensing.presets import LR, RANK

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose workloads did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        Slow curves, slopes, exact rank, rates against the scale, methods, reviewers' questions.
    """
    drawn = [
        _slow(result),
        _slopes(result),
        _linear(result),
        _rates(result, "", "full observation, k = 5"),
        _rates(result, "-gaussian", "Gaussian measurements, k = 5"),
        _digits(result),
        _compared(result),
        _imbalance(result),
        _noise(result),
    ]
    return [figure for figure in drawn if figure is not None]


def _spec(result: Result, workload: str) -> Mapping[str, Any] | None:
    """What a workload was told, where it ran."""
    found = (w["spec"] for w in result.document["workloads"] if w["name"] == workload)
    return next(found, None)


def _curve(
    result: Result, workload: str, metric: str, name: str, arm: str = ARM, *, start: float = 0.0
) -> Series | None:
    """A stored curve: mean over seeds with its band."""
    found = result.curve(workload, arm, "train", metric)
    if found is None:
        return None
    rows = [
        row
        for row in zip(*(found[key] for key in ("step", "mean", "lo", "hi")), strict=True)
        if row[0] > start and None not in row
    ]
    if not rows:
        return None
    x, y, lo, hi = (list(column) for column in zip(*rows, strict=True))
    return Series(name=name, x=x, y=y, lo=lo, hi=hi)


def _points(
    result: Result, workload: str, name: str, metrics: Mapping[float, str], arm: str = ARM
) -> Series | None:
    """Final figures against a number: mean over seeds and its 95 % interval."""
    from gradworks.bench.statistics import bootstrap_interval

    rows = []
    for x, metric in metrics.items():
        values = [
            v
            for v in result.values(metric, arm, workload).values()
            if v is not None and math.isfinite(v)
        ]
        if values:
            lo, hi, _ = bootstrap_interval(values)
            rows.append((float(x), sum(values) / len(values), lo, hi))
    if not rows:
        return None
    at, mean, low, high = (list(column) for column in zip(*rows, strict=True))
    return Series(name=name, x=at, y=mean, lo=low, hi=high, style="points")


def _line(name: str, x: Sequence[float], y: Sequence[float]) -> Series:
    """A predicted line."""
    return Series(name=name, x=list(x), y=list(y), style="reference")


def _present(series: Sequence[Series | None]) -> tuple[Series, ...]:
    """Those that have something to show."""
    return tuple(s for s in series if s is not None)


def _slow(result: Result) -> Figure | None:
    """Errors of the symmetric form with too many columns."""
    spec = _spec(result, "symmetric")
    if spec is None:
        return None
    low, high = (float(t) for t in spec["window"])
    shown: list[Series | None] = []
    for name, cell in spec["cells"].items():
        k = int(cell["k"])
        shown.append(_curve(result, "symmetric", f"error_{name}", f"k = {k}", start=10))
    series = _present(shown)
    if not series:
        return None
    lines = [
        _line(
            f"predicted, k = {cell['k']}",
            [low, high],
            [(int(cell["k"]) - RANK) / (4 * (LR * t) ** 2) for t in (low, high)],
        )
        for cell in spec["cells"].values()
    ]
    return Figure(
        id="slow",
        title="Symmetric descent with too many columns",
        caption=(
            "Squared error, mean over seeds, on logarithmic axes. The dashed lines are the "
            "prediction (k - r)/(4 eta^2 T^2) where the slopes are fitted, with no free constant."
        ),
        x_label="iteration T",
        y_label="squared Frobenius error",
        series=(*series, *lines),
        x_log=True,
        y_log=True,
    )


def _slopes(result: Result) -> Figure | None:
    """Slopes of the slow phase under all measurements."""
    shown = []
    for workload, name in (
        ("symmetric", "full observation"),
        ("symmetric-gaussian", "Gaussian, m = 10 n k"),
        ("measurements", "Gaussian, k = 6, m = 2, 5 and 20 n k"),
    ):
        spec = _spec(result, workload)
        if spec is None:
            continue
        metrics = {}
        for cell_name, cell in spec["cells"].items():
            many = 50 if cell["factor"] is None else cell["factor"]
            at = many if workload == "measurements" else int(cell["k"])
            metrics[float(at)] = f"slope_{cell_name}"
        shown.append(_points(result, workload, name, metrics))
    series = _present(shown)
    if not series:
        return None
    ends = [min(float(x) for s in series for x in s.x), max(float(x) for s in series for x in s.x)]
    return Figure(
        id="slopes",
        title="How fast the error falls: slope of log err on log T",
        caption=(
            "Slopes from T = 4,000 to 40,000, mean over seeds with 95 % intervals. The dashed "
            "lines are the prediction -2 and the upper end of the criterion. Few measurements "
            "(left end of the last series) break the isometry that the theory needs, and the slow "
            "phase starts later."
        ),
        x_label="columns k, or measurements over n k in the last series",
        y_label="slope",
        series=(
            *series,
            _line("predicted", ends, [-2.0, -2.0]),
            _line("criterion", ends, [-1.9, -1.9]),
        ),
    )


def _linear(result: Result) -> Figure | None:
    """Errors with as many columns as the rank."""
    shown = _present(
        [
            _curve(result, "exact", f"error_{form}", f"{form}, k = r")
            for form in ("symmetric", "asymmetric")
        ]
    )
    if not shown:
        return None
    rate = -2 * math.log1p(-LR)
    found = shown[0]
    # through the first point below the way there
    at = next((i for i, e in enumerate(found.y) if e < 1e-3), 0)
    t0, e0 = float(found.x[at]), found.y[at]
    far = t0 + math.log(e0 / 1e-28) / rate if e0 > 1e-28 else t0 + 1
    return Figure(
        id="exact-rank",
        title="With the exact rank both forms converge linearly",
        caption=(
            "Squared error under full observation, mean over seeds. The dashed line has the "
            "predicted slope 2 log(1 - eta sigma_r) of the symmetric form."
        ),
        x_label="iteration T",
        y_label="squared Frobenius error",
        series=(*shown, _line("predicted slope, symmetric", [t0, far], [e0, 1e-28])),
        y_log=True,
    )


def _rates(result: Result, suffix: str, where: str) -> Figure | None:
    """Rates of the plain and of the modified form against the scale of the start."""
    plain, reset = (_spec(result, f"{name}{suffix}") for name in ("asymmetric", "one-step"))
    if plain is None or reset is None:
        return None
    alphas = [float(a) for a in plain["alphas"]]
    scales = [float(a) for a in reset["alphas"]]
    k = int(reset["k"])
    shown = _present(
        [
            _points(
                result,
                f"asymmetric{suffix}",
                "asymmetric",
                {a: f"rate_k{k}_a{a:g}" for a in alphas},
            ),
            _points(
                result,
                f"one-step{suffix}",
                "one modified step",
                {a: f"rate_a{a:g}" for a in scales},
            ),
        ]
    )
    if not shown:
        return None
    predicted = _points(
        result,
        f"asymmetric{suffix}",
        "predicted, asymmetric",
        {a: f"predicted_k{k}_a{a:g}" for a in alphas},
    )
    lines = []
    if predicted is not None:
        lines.append(
            _line(predicted.name, [float(x) for x in predicted.x], [float(y) for y in predicted.y])
        )
    level = -2 * math.log1p(-LR * float(reset["beta"]) ** 2)
    ends = [min(scales), max(scales)]
    lines.append(_line("predicted, one modified step", ends, [level, level]))
    return Figure(
        id=f"rates{suffix}",
        title=f"Rate against the scale of the start: {where}",
        caption=(
            "Fall of log err an iteration, mean over seeds with 95 % intervals. The plain form "
            "follows 2 eta times the least eigenvalue of the spare columns (dashed, of order "
            "alpha^2); after one modified step the rate is that of beta, whatever the start."
        ),
        x_label="scale alpha of the start",
        y_label="rate",
        series=(*shown, *lines),
        x_log=True,
        y_log=True,
    )


def _digits(result: Result) -> Figure | None:
    """The real target."""
    spec = _spec(result, "digits")
    if spec is None:
        return None
    k, rank = int(spec["k"]), int(spec["rank"])
    shown = _present(
        [
            _curve(result, "digits", "error_spare", f"k = {k}", start=10),
            _curve(result, "digits", "error_exact", f"k = r = {rank}", start=10),
        ]
    )
    if not shown:
        return None
    ends = [float(t) for t in spec["window"]]
    return Figure(
        id="digits",
        title="Second moments of the digits, rank 5",
        caption=(
            "Squared error of symmetric descent on a real matrix, mean over seeds; the dashed line "
            "is the prediction (k - r)/(4 eta^2 T^2)."
        ),
        x_label="iteration T",
        y_label="squared Frobenius error",
        series=(
            *shown,
            _line("predicted", ends, [(k - rank) / (4 * (LR * t) ** 2) for t in ends]),
        ),
        x_log=True,
        y_log=True,
    )


def _compared(result: Result) -> Figure | None:
    """All methods with tuned steps from one start."""
    spec = _spec(result, "compared")
    if spec is None:
        return None
    shown = _present(
        [
            _curve(result, "compared", "error", arm["label"], arm["name"])
            for arm in result.document["arms"]
            if arm["name"] != ARM
        ]
    )
    if not shown:
        return None
    return Figure(
        id="compared",
        title="Methods from one start, each with a tuned step",
        caption=(
            "Squared error under full observation with k = 5 columns for rank 3, mean over seeds; "
            "every method starts from the same F and had the same trials to find its step size. No "
            "claim hangs on this plot."
        ),
        x_label="iteration",
        y_label="squared Frobenius error",
        series=shown,
        y_log=True,
    )


def _imbalance(result: Result) -> Figure | None:
    """Which imbalance is best."""
    spec = _spec(result, "questions")
    if spec is None:
        return None
    shown = _points(
        result,
        "questions",
        "plain asymmetric form",
        {float(i): f"steps_i{i:g}" for i in spec["imbalances"]},
    )
    if shown is None:
        return None
    return Figure(
        id="imbalance",
        title="Which imbalance of the start is best",
        caption=(
            "Iterations to a squared error of 1e-10 from alpha = 0.3 with k = 5, mean over seeds "
            "with 95 % intervals; at most 6,000 were run. The paper starts G a third as large as F."
        ),
        x_label="F over G at the start",
        y_label="iterations",
        series=(shown,),
        x_log=True,
        y_log=True,
    )


def _noise(result: Result) -> Figure | None:
    """What noise does to spare columns."""
    spec = _spec(result, "questions")
    if spec is None:
        return None
    noises = [float(v) for v in spec["noises"]]
    series = []
    for k in (RANK, int(spec["k"])):
        for metric, what in (("error", "at the end"), ("best", "best on the way")):
            series.append(
                _points(
                    result,
                    "questions",
                    f"k = {k}, {what}",
                    {v: f"{metric}_noise{v:g}_k{k}" for v in noises},
                )
            )
    shown = _present(series)
    if not shown:
        return None
    return Figure(
        id="noise",
        title="Noise in the measurements",
        caption=(
            "Squared error over the squared norm of the matrix against the relative length of the "
            "noise, one modified step, mean over seeds with 95 % intervals: spare columns fit "
            "noise unless one stops early."
        ),
        x_label="noise over signal",
        y_label="relative squared error",
        series=shown,
        x_log=True,
        y_log=True,
    )
