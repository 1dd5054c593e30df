"""What the page of the paper shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gradworks.bench.figures import Figure, Series
from gradworks.papers.ms_ssim.claims import LABELS

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]

_NETWORKS = {"mlp": "fully connected", "conv": "convolutional", "vae": "variational"}
_FACTORS = {"sr-x2": "x2", "sr-x3": "x3"}
_JUDGES = {
    "gmsd": "GMSD (lower is better)",
    "haarpsi": "HaarPSI (higher is better)",
    "vif": "VIF (higher is better)",
    "fsim": "FSIM (higher is better)",
}


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose workloads did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        Each judge over the networks and over super-resolution, PSNR, sharpness, codes, curves.
    """
    drawn = [
        *(
            _bars(result, metric, f"Reconstructions: {label.partition(' ')[0]}", label, _NETWORKS)
            for metric, label in _JUDGES.items()
        ),
        _bars(result, "psnr", "Reconstructions: PSNR", "decibels", _NETWORKS),
        _bars(
            result,
            "edges",
            "Reconstructions: energy of edges",
            "over that of the photograph",
            _NETWORKS,
        ),
        *(
            _bars(result, metric, f"Super-resolution: {label.partition(' ')[0]}", label, _FACTORS)
            for metric, label in {**_JUDGES, "psnr": "PSNR, decibels"}.items()
        ),
        _codes(result),
        *(_curves(result, name, label) for name, label in _NETWORKS.items()),
    ]
    return [figure for figure in drawn if figure is not None]


def _interval(values: Mapping[int, float]) -> tuple[float, float, float] | None:
    """Mean and interval of the finite values."""
    from gradworks.bench.statistics import bootstrap_interval

    kept = [v for v in values.values() if v is not None and math.isfinite(v)]
    if not kept:
        return None
    lo, hi, _ = bootstrap_interval(kept)
    return sum(kept) / len(kept), lo, hi


def _series(name: str, rows: Mapping[str | float, tuple[float, float, float] | None]) -> Series:
    """Bars of those that have values."""
    kept = {x: found for x, found in rows.items() if found is not None}
    return Series(
        name=name,
        x=list(kept),
        y=[mean for mean, _, _ in kept.values()],
        lo=[lo for _, lo, _ in kept.values()],
        hi=[hi for _, _, hi in kept.values()],
        style="bars",
    )


def _bars(
    result: Result, metric: str, title: str, label: str, shown: Mapping[str, str]
) -> Figure | None:
    """A metric of all arms, by workload."""
    series = tuple(
        _series(name, {w: _interval(result.values(metric, arm, key)) for key, w in shown.items()})
        for arm, name in LABELS.items()
    )
    series = tuple(s for s in series if s.x)
    if not series:
        return None
    apart = "reconstructions" if shown is _NETWORKS else "super-resolution"
    return Figure(
        id=f"{apart}-{metric}",
        title=title,
        caption=(
            "Held-out photographs, mean over seeds with 95 % intervals. Every loss had as many "
            "trials for its learning rate (in quick runs none)."
        ),
        x_label="network" if shown is _NETWORKS else "factor",
        y_label=label,
        series=series,
    )


def _codes(result: Result) -> Figure | None:
    """Accuracy over the number of labels."""
    spec: Mapping[str, list[int]] = next(
        (w["spec"] for w in result.document["workloads"] if w["name"] == "codes"), {}
    )
    series = tuple(
        _series(
            name,
            {
                f"{count:,}": _interval(result.values(f"accuracy_{count}", arm, "codes"))
                for count in spec.get("labels", ())
            },
        )
        for arm, name in LABELS.items()
    )
    series = tuple(s for s in series if s.x)
    if not series:
        return None
    return Figure(
        id="codes",
        title="Digits classified from their codes",
        caption="Logistic regression on codes of 32 numbers; mean over seeds, 95 % intervals.",
        x_label="labelled digits",
        y_label="test accuracy",
        series=series,
    )


def _curves(result: Result, workload: str, label: str) -> Figure | None:
    """PSNR along training."""
    series = []
    for arm, name in LABELS.items():
        found = result.curve(workload, arm, "valid", "psnr")
        if found is None:
            continue
        rows = [
            row
            for row in zip(*(found[key] for key in ("step", "mean", "lo", "hi")), strict=True)
            if None not in row
        ]
        if rows:
            x, y, lo, hi = (list(column) for column in zip(*rows, strict=True))
            series.append(Series(name=name, x=x, y=y, lo=lo, hi=hi))
    if not series:
        return None
    return Figure(
        id=f"{workload}-psnr",
        title=f"PSNR along training: {label} autoencoder",
        caption=(
            "Patches of the photograph that settings are chosen by; mean over seeds with their "
            "range. A curve that still rises has not reached its plateau."
        ),
        x_label="step",
        y_label="decibels",
        series=tuple(series),
    )
