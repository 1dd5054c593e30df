"""The largest learning rate that trains, at every batch size, and how it grows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gradworks.papers.rmt_learning_rate.problems import Examples, examples, network, reference
from gradworks.papers.rmt_learning_rate.side_by_side import final_losses, largest

if TYPE_CHECKING:
    from torch import nn

    from gradworks.papers.rmt_learning_rate.cells import Cells

__all__ = ["THRESHOLDS", "largest_rates", "rate_grid", "unsaturated"]

# A rate trains when the loss over all examples ends below this; the first one decides. Chance is
# log 10 = 2.3, the loss before the first step.
THRESHOLDS: Mapping[str, float] = {"": 1.0, "_loose": math.log(10)}


def largest_rates(cells: Cells) -> None:
    """Predict the unsaturated range from a measured noise model, then measure and fit in it.

    Args:
        cells: Of the trial; the arm's ``optimizer`` is ``"sgd"`` or ``"adam"``.
    """
    import copy

    spec, optimizer = cells.spec, str(cells.trial.settings["optimizer"])
    data = examples(spec, cells.generator("examples"))
    model = network(spec, tuple(data[0].shape[1:]), cells.generator("weights"))
    trained = copy.deepcopy(model)
    reference(trained, data, spec, cells.generator("reference"))
    noise = cells.run("noise", lambda: _noise(cells, trained, data))
    rates = rate_grid(*spec["rates"][optimizer])
    found = {
        B: cells.run(f"b{B}", partial(_measure, cells, model, optimizer, rates, data, B))
        for B in spec["sizes"]
    }
    _judge(cells, noise, found, len(data[1]))


def rate_grid(low: float, high: float) -> list[float]:
    """Return rates a factor of sqrt 2 apart.

    Args:
        low: The smallest.
        high: At most this.

    Example:
        >>> [round(rate, 3) for rate in rate_grid(0.25, 1.0)]
        [0.25, 0.354, 0.5, 0.707, 1.0]
    """
    return [low * 2 ** (i / 2) for i in range(int(2 * math.log2(high / low) + 1e-9) + 1)]


def unsaturated(sizes: Sequence[int], saturation: float) -> list[int]:
    """Return the batch sizes below the predicted saturation; none where they are too few for a fit.

    Args:
        sizes: Those measured.
        saturation: Predicted beforehand.
    """
    from gradworks.bench.statistics import MIN_SIZES

    kept = [B for B in sizes if saturation >= B]
    return kept if len(kept) >= MIN_SIZES else []


def _noise(cells: Cells, model: nn.Module, data: Examples) -> dict[str, float]:
    """Largest eigenvalue, noise and saturation, before any rate is tried."""
    import torch.nn.functional as F

    from gradworks.curvature.learning_rate import measure_noise

    how = dict(cells.spec.get("noise", {}))  # the library's defaults, unless the workload says
    generator = cells.generator("noise")
    found = measure_noise(model, F.cross_entropy, data, generator=generator, **how)
    return {
        "lambda_max": found.lambda_max,
        "noise": found.noise,
        "saturation": found.saturation_batch(),
    }


def _measure(
    cells: Cells, model: nn.Module, optimizer: str, rates: list[float], data: Examples, size: int
) -> dict[str, float]:
    """The largest rate that trains, by each threshold."""
    losses = final_losses(
        model,
        optimizer,
        rates,
        data,
        steps=int(cells.spec["steps"]),
        batch_size=size,
        generator=cells.generator(f"batches {size}"),
    )
    return {f"rate{tag}": largest(rates, losses, below) for tag, below in THRESHOLDS.items()}


def _judge(
    cells: Cells, noise: Mapping[str, float], found: Mapping[int, dict[str, float]], n: int
) -> None:
    """Slopes in the predicted range and over everything, and the law's own."""
    from gradworks.curvature.learning_rate import batch_extreme_eigenvalue

    inside = unsaturated(list(found), noise["saturation"])

    def law(B: int) -> float:
        return 2 / batch_extreme_eigenvalue(noise["lambda_max"], noise["noise"], B, n)

    figures: dict[str, Any] = dict(noise)
    for tag in THRESHOLDS:
        for B, row in found.items():
            if math.isfinite(row[f"rate{tag}"]):
                cells.trial.log(B, split="train", **{f"rate{tag}": row[f"rate{tag}"]})
        figures[f"slope{tag}"] = _slope(inside, [found[B][f"rate{tag}"] for B in inside])
        figures[f"slope_all{tag}"] = _slope(
            list(found), [row[f"rate{tag}"] for row in found.values()]
        )
    for B in found:
        cells.trial.log(B, split="train", law=law(B))
    figures["law_slope"] = _slope(inside, [law(B) for B in inside])
    seen = [(law(B), row["rate"]) for B, row in found.items() if math.isfinite(row["rate"])]
    off = [math.log(rate / said) for said, rate in seen]
    figures["over_law"] = sum(off) / len(off) if off else math.nan
    cells.trial.result("test", in_range=len(inside), **figures)


def _slope(sizes: Sequence[int], rates: Sequence[float]) -> float:
    """Slope of log rate on log size; NaN where a size has no rate, or there are too few."""
    from gradworks.bench.statistics import MIN_SIZES, fit_slope

    if len(sizes) < MIN_SIZES or not all(map(math.isfinite, rates)):
        return math.nan
    return fit_slope(sizes, rates)
