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
        Losses, curves, ranks, energies and bytes.
    """
    drawn = [_losses(result), _curves(result), _ranks(result), _energies(result), _bytes(result)]
    return [figure for figure in drawn if figure.series]


def _points(result: Result, workload: str, metric: str) -> list[tuple[str, float]]:
    """Label of the arm and value of each seed; a diverged run has none."""
    return [
        (arm["label"], value)
        for arm in result.document["arms"]
        for value in result.values(metric, arm["name"], workload).values()
        if value == value
    ]


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
        caption="One point a seed. Differences between the low-rank bases are hundredths of a nat.",
        x_label="optimizer",
        y_label="test cross-entropy (nats a character)",
        series=tuple(series),
    )


def _curves(result: Result) -> Figure:
    """Validation cross-entropy by step."""
    series = []
    for arm, label in _CURVES.items():
        curve = result.curve("text", arm, "valid", "nats")
        if curve is not None:
            series.append(
                Series(name=label, x=curve["step"], y=curve["mean"], lo=curve["lo"], hi=curve["hi"])
            )
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
    x, y, lo, hi = [], [], [], []
    for arm in result.document["arms"]:
        if not arm["name"].startswith("rank-"):
            continue
        values = [v for v in result.values("nats", arm["name"], "ranks").values() if v == v]
        if values:
            x.append(float(arm["name"].removeprefix("rank-")))
            y.append(sum(values) / len(values))
            lo.append(min(values))
            hi.append(max(values))
    series = (Series(name="DCT-AdamW", x=x, y=y, lo=lo, hi=hi),) if x else ()
    return Figure(
        id="ranks",
        title="What the rank costs",
        caption="At one rate, 0.003, not tuned again; mean and range over seeds. 96 is full rank.",
        x_label="rank",
        y_label="test cross-entropy (nats a character)",
        series=series,
    )


def _energies(result: Result) -> Figure:
    """Share of the squared gradient captured."""
    series = []
    for basis, label in _BASES.items():
        curve = result.curve("energy", "watched", "train", f"energy_{basis}")
        if curve is not None:
            rows = [
                (step, mean)
                for step, mean in zip(curve["step"], curve["mean"], strict=True)
                if mean is not None
            ]
            if rows:
                x, y = zip(*rows, strict=True)
                series.append(Series(name=label, x=x, y=y))
    return Figure(
        id="energy",
        title="How much of a gradient a quarter of the directions captures",
        caption=(
            "Mean over the matrices of the first block, while AdamW trains. The cosine basis is "
            "near a random one; singular vectors are far above both."
        ),
        x_label="step",
        y_label="share of the squared norm",
        series=tuple(series),
    )


def _bytes(result: Result) -> Figure:
    """State of the transformer."""
    names = {"adamw": "AdamW", "galore": "GaLore", "dct": "DCT-AdamW", "trion": "Trion"}
    x, y = [], []
    for name, label in names.items():
        values = list(result.values(f"bytes_{name}", "memory", "memory").values())
        if values:
            x.append(label)
            y.append(values[0] / 1e6)
    series = (Series(name="state", x=x, y=y, style="bars"),) if x else ()
    return Figure(
        id="bytes",
        title="State of the optimizer",
        caption="The small transformer, rank 24 of 96; embeddings and last layer are AdamW's.",
        x_label="optimizer",
        y_label="megabytes",
        series=series,
    )
