"""What the page of the paper shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradworks.bench.figures import Figure, Series

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]

_CURVES = {
    "adamw": "AdamW",
    "dct": "DCT-AdamW",
    "dct-ef": "DCT-AdamW, error feedback",
    "galore": "GaLore",
    "random": "random basis",
}
_RATIOS = {
    "over_svd": "DCT-AdamW over GaLore, SVD every step",
    "over_ldadam": "DCT-AdamW with error feedback over LDAdam",
    "over_adamw": "DCT-AdamW over AdamW",
    "over_rank": "DCT-AdamW, four times the rank",
    "trion_over_dion": "Trion over Dion",
    "trion_over_muon": "Trion over Muon",
}
_STATES = {
    "adamw": "AdamW",
    "galore": "GaLore",
    "ldadam": "LDAdam",
    "dct": "DCT-AdamW",
    "dct_int8": "DCT-AdamW, error feedback in 8 bits",
    "dct_ef": "DCT-AdamW, error feedback",
    "muon": "Muon",
    "dion": "Dion",
    "trion": "Trion",
}
_BASES = {
    "svd": "singular vectors",
    "dct3": "DCT-III (the default)",
    "dct2": "DCT-II",
    "random": "random",
    "identity": "identity",
}


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose workloads did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        Losses, curves, ranks, energies, step times and bytes.
    """
    drawn = [
        _losses(result),
        _curves(result),
        _ranks(result),
        _energies(result),
        _times(result),
        _bytes(result),
    ]
    return [figure for figure in drawn if figure.series]


def _points(result: Result, workload: str, metric: str) -> list[tuple[str, float]]:
    """Label of the arm and value of each seed; a diverged run has none."""
    return [
        (arm["label"], value)
        for arm in result.document["arms"]
        for value in result.values(metric, arm["name"], workload).values()
        if value == value
    ]


def _rows(
    result: Result, workload: str, arm: str, split: str, metric: str
) -> list[tuple[float, float, float, float]]:
    """Step, mean and range of a curve, where all seeds have a value."""
    curve = result.curve(workload, arm, split, metric)
    if curve is None:
        return []
    columns = (curve[name] for name in ("step", "mean", "lo", "hi"))
    return [row for row in zip(*columns, strict=True) if None not in row]


def _losses(result: Result) -> Figure:
    """Test cross-entropy of every seed."""
    points = _points(result, "text", "nats")
    series = (
        [Series(name="test", x=[p[0] for p in points], y=[p[1] for p in points], style="points")]
        if points
        else []
    )
    return Figure(
        id="losses",
        title="Test cross-entropy, learning rates tuned alike",
        caption=(
            "One point a seed; rank 24 of 96 but for AdamW and Muon. All arms had the same number "
            "of tuning trials; the test text was opened once, by these runs."
        ),
        x_label="optimizer",
        y_label="test cross-entropy (nats a character)",
        series=tuple(series),
    )


def _curves(result: Result) -> Figure:
    """Validation cross-entropy by step."""
    series = []
    for arm, label in _CURVES.items():
        rows = _rows(result, "text", arm, "valid", "nats")
        if rows:
            x, y, lo, hi = zip(*rows, strict=True)
            series.append(Series(name=label, x=x, y=y, lo=lo, hi=hi))
    return Figure(
        id="curves",
        title="By step",
        caption="Mean and range over seeds, validation text.",
        x_label="step",
        y_label="validation cross-entropy (nats a character)",
        series=tuple(series),
    )


def _ranks(result: Result) -> Figure:
    """Test cross-entropy by rank."""
    series = []
    for name, label in (("dct", "DCT-AdamW"), ("trion", "Trion")):
        rows = []
        for arm in result.document["arms"]:
            head, _, rank = arm["name"].rpartition("-rank-")
            seeds = result.values("nats", arm["name"], "ranks") if head == name else {}
            values = [v for v in seeds.values() if v == v]
            if values:
                mean = sum(values) / len(values)
                rows.append((float(rank), mean, min(values), max(values)))
        if rows:
            x, y, lo, hi = (list(column) for column in zip(*sorted(rows), strict=True))
            series.append(Series(name=label, x=x, y=y, lo=lo, hi=hi))
    return Figure(
        id="ranks",
        title="What the rank costs",
        caption=(
            "At one rate for each method (0.003 and 0.02), not tuned again, and in fewer steps "
            "than above; mean and range over seeds. 96 is full rank."
        ),
        x_label="rank",
        y_label="test cross-entropy (nats a character)",
        series=tuple(series),
    )


def _energies(result: Result) -> Figure:
    """Share of the squared gradient captured."""
    series = []
    for basis, label in _BASES.items():
        rows = _rows(result, "energy", "watched", "train", f"energy_{basis}")
        if rows:
            x, y, lo, hi = zip(*rows, strict=True)
            series.append(Series(name=label, x=x, y=y, lo=lo, hi=hi))
    return Figure(
        id="energy",
        title="How much of a gradient a quarter of the directions captures",
        caption=(
            "Mean over the matrices of the first block, with the range of the seeds, while AdamW "
            "trains: the best quarter of the columns of each fixed basis, and as many singular "
            "vectors, which no other choice can exceed."
        ),
        x_label="step",
        y_label="share of the squared norm",
        series=tuple(series),
    )


def _times(result: Result) -> Figure:
    """Ratios of step times of every trial."""
    points = [
        (label, value)
        for metric, label in _RATIOS.items()
        for value in result.values(metric, "cost", "cost").values()
    ]
    series = []
    if points:
        x, y = zip(*points, strict=True)
        series.append(Series(name="ratio", x=x, y=y, style="points"))
    return Figure(
        id="times",
        title="Ratios of step times",
        caption=(
            "Optimizer steps alone, in turns in one process, one thread, the matrices of one "
            "transformer block; one point a trial. Below 1 the first is faster."
        ),
        x_label="first over second",
        y_label="ratio of times",
        series=tuple(series),
        y_log=True,
    )


def _bytes(result: Result) -> Figure:
    """State of the transformer."""
    found = {
        label: list(result.values(f"bytes_{name}", "memory", "memory").values())
        for name, label in _STATES.items()
    }
    bars = [(label, values[0] / 1e6) for label, values in found.items() if values]
    series = []
    if bars:
        x, y = zip(*bars, strict=True)
        series.append(Series(name="state", x=x, y=y, style="bars"))
    return Figure(
        id="bytes",
        title="State of the optimizer",
        caption=(
            "The small transformer, rank 24 of 96; embeddings and last layer are AdamW's. The "
            "same for every seed."
        ),
        x_label="optimizer",
        y_label="megabytes",
        series=tuple(series),
    )
