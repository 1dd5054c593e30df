"""Matplotlib view of a noise model; matplotlib is imported when one is drawn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gradworks.curvature.spectrum.plots import _axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gradworks.curvature.learning_rate.noise import NoiseModel

__all__ = ["plot_rates"]

_INK = "#3b6ea5"
_ACCENT = "#c8553d"


def plot_rates(model: NoiseModel, ax: Axes | None, *, momentum: float, safety: float) -> Axes:
    """Draw :meth:`NoiseModel.max_learning_rate`, its band, the points measured and the edges."""
    sizes = model.curve_sizes()
    how = {"momentum": momentum, "safety": safety}
    rates = [model.max_learning_rate(B, **how) for B in sizes]
    axes = _axes(ax)
    if not math.isnan(model.noise_stderr):
        ends = [model.learning_rate_interval(B, **how) for B in sizes]
        low, high = ([end[i] for end in ends] for i in (0, 1))
        axes.fill_between(sizes, low, high, color=_INK, alpha=0.25, label="two standard errors")
    axes.plot(sizes, rates, color=_INK, label="from the law")
    seen = [(row.batch_size, row.top) for row in model.table if row.tops and row.top > 0]
    if seen:
        bound = safety * 2 * (1 + momentum)
        axes.plot(
            [B for B, _ in seen],
            [bound / top for _, top in seen],
            "o",
            color=_ACCENT,
            label="from measured batches",
        )
    edge = model.saturation_batch()
    if sizes[0] < edge < sizes[-1]:
        axes.axvline(edge, color="0.6", linestyle=":", label=f"saturation, B = {edge:.3g}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("batch size")
    axes.set_ylabel("largest learning rate")
    axes.legend()
    return axes  # type: ignore[no-any-return]
