"""Extreme eigenvalues of batches against those of all data, and the laws that predict them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from gradworks.papers.rmt_learning_rate.problems import (
    Examples,
    draw_batch,
    examples,
    network,
    reference,
)

if TYPE_CHECKING:
    from torch import nn

    from gradworks.curvature import SymmetricOperator
    from gradworks.papers.rmt_learning_rate.cells import Cells

__all__ = ["eigenvalues", "fit_positive_noise", "log_error"]

_SPREAD = 12.0  # of the logarithm of the noise of Law 2: the search's half-width
_STARTS = 48


def eigenvalues(cells: Cells) -> None:
    """Measure one trained network at every batch size; fit on some sizes, predict the others.

    Args:
        cells: Of the trial.
    """
    spec = cells.spec
    data = examples(spec, cells.generator("examples"))
    model = network(spec, tuple(data[0].shape[1:]), cells.generator("weights"))
    reference(model, data, spec, cells.generator("reference"))
    sizes = [*spec["fit"], *spec["held_out"]]
    whole = cells.run("whole", lambda: _whole(model, data, int(spec["lanczos_steps"])))
    found = {B: cells.run(f"b{B}", partial(_batches, cells, model, data, B)) for B in sizes}
    direct = cells.run("direct", lambda: _direct(cells, model, data))
    _judge(cells, whole, found, direct["noise"], len(data[1]), _size(model))


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _ends(op: SymmetricOperator, steps: int) -> tuple[float, float]:
    """Smallest and largest Ritz value."""
    import torch

    from gradworks.curvature import tridiagonalize

    start = torch.Generator().manual_seed(0)
    values = torch.linalg.eigvalsh(tridiagonalize(op, steps, generator=start).matrix())
    return float(values[0]), float(values[-1])


def _whole(model: nn.Module, data: Examples, steps: int) -> dict[str, float]:
    """The ends of both spectra over all data."""
    import torch.nn.functional as F

    from gradworks.curvature import GGNOperator, HessianOperator

    low, high = _ends(HessianOperator(model, F.cross_entropy, data), 2 * steps)
    _, ggn = _ends(GGNOperator(model, F.cross_entropy, data), steps)
    return {"top": high, "bottom": low, "ggn": ggn}


def _batches(cells: Cells, model: nn.Module, data: Examples, size: int) -> dict[str, float]:
    """Mean ends of the spectra over batches of one size; both matrices see the same batches."""
    import torch.nn.functional as F

    from gradworks.curvature import GGNOperator, HessianOperator

    spec = cells.spec
    steps = int(spec["lanczos_steps"])
    generator = cells.generator(f"batches {size}")
    tops, bottoms, ggns = [], [], []
    for i in range(int(spec["repeats"])):
        batch = draw_batch(data, size, generator)
        low, high = _ends(HessianOperator(model, F.cross_entropy, batch), steps)
        tops.append(high)
        bottoms.append(low)
        if i < int(spec["ggn_repeats"]):
            ggns.append(_ends(GGNOperator(model, F.cross_entropy, batch), steps)[1])
    return {"top": _mean(tops), "bottom": _mean(bottoms), "ggn": _mean(ggns)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _direct(cells: Cells, model: nn.Module, data: Examples) -> dict[str, float]:
    """The noise from differences of batches, which takes it to be spread over all coordinates."""
    import torch.nn.functional as F

    from gradworks.curvature.learning_rate import measure_noise

    found = measure_noise(
        model,
        F.cross_entropy,
        data,
        batch_sizes=tuple(cells.spec["fit"]),
        repeats=2,
        num_steps=5,  # of the fit that comes with it and is not used
        method="direct",
        generator=cells.generator("direct"),
    )
    return {"noise": found.noise}


def log_error(
    predict: Callable[[float], float], sizes: Sequence[int], seen: Sequence[float]
) -> float:
    """Return the mean absolute error of the logarithm.

    Args:
        predict: Of a batch size.
        sizes: Batch sizes.
        seen: What was measured at each.
    """
    return _mean([abs(math.log(predict(B) / s)) for B, s in zip(sizes, seen, strict=True)])


def fit_positive_noise(
    sizes: Sequence[int], seen: Sequence[float], lam: float, num_params: int
) -> float:
    """Return the noise of Law 2 that explains the largest eigenvalues of batches best.

    Args:
        sizes: Batch sizes.
        seen: The largest eigenvalue at each.
        lam: That over all data.
        num_params: P.
    """
    from scipy.optimize import minimize_scalar

    from gradworks.curvature.learning_rate import batch_ggn_extreme_eigenvalue

    def cost(log_noise: float) -> float:
        v = math.exp(log_noise)
        terms = (
            math.log(batch_ggn_extreme_eigenvalue(lam, v, num_params, B) / s) ** 2
            for B, s in zip(sizes, seen, strict=True)
        )
        return sum(terms)

    # the noise at which the smallest batch's excess would be P v / B lies in the middle
    middle = math.log(max(max(seen) - lam, 1e-3 * lam) * min(sizes) / num_params)
    grid = [middle - _SPREAD + 2 * _SPREAD * i / (_STARTS - 1) for i in range(_STARTS)]
    best = min(grid, key=cost)
    step = 2 * _SPREAD / (_STARTS - 1)
    found = minimize_scalar(cost, bounds=(best - step, best + step), method="bounded")
    return math.exp(float(found.x))


def _power(sizes: Sequence[int], seen: Sequence[float]) -> Callable[[float], float]:
    """The power of the batch size through some measurements: the second baseline."""
    x, y = [math.log(B) for B in sizes], [math.log(s) for s in seen]
    mx, my = _mean(x), _mean(y)
    slope = sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x)
    return lambda B: math.exp(my + slope * (math.log(B) - mx))


def _judge(
    cells: Cells,
    whole: Mapping[str, float],
    found: Mapping[int, Mapping[str, float]],
    direct: float,
    n: int,
    num_params: int,
) -> None:
    """Fit on the sizes for it, predict the others, and say how far off each way is."""
    from gradworks.curvature.learning_rate import (
        batch_extreme_eigenvalue,
        batch_ggn_extreme_eigenvalue,
        fit_noise,
    )

    fit, held = list(cells.spec["fit"]), list(cells.spec["held_out"])
    smallest = min(fit)

    def seen(what: str, sizes: Sequence[int]) -> list[float]:
        return [found[B][what] for B in sizes]

    lam, ggn = whole["top"], whole["ggn"]
    noise = fit_noise(fit, seen("top", fit), lam, n)
    positive = fit_positive_noise(fit, seen("ggn", fit), ggn, num_params)

    def law(B: float) -> float:
        return batch_extreme_eigenvalue(lam, noise, B, n)

    def ggn_law(B: float) -> float:
        return batch_ggn_extreme_eigenvalue(ggn, positive, num_params, B)

    tops, ggns = seen("top", held), seen("ggn", held)
    laws = log_error(law, held, tops)
    for B in sorted(found):
        cells.trial.log(B, split="train", predicted=law(B), predicted_ggn=ggn_law(B), **found[B])
    cells.trial.result(
        "test",
        lambda_max=lam,
        lambda_min=whole["bottom"],
        noise=noise,
        noise_direct=direct,
        saturation=noise / lam**2,
        law_error=laws,
        gain_constant=log_error(lambda _: lam, held, tops) - laws,
        gain_power=log_error(_power(fit, seen("top", fit)), held, tops) - laws,
        direct_error=log_error(lambda B: batch_extreme_eigenvalue(lam, direct, B, n), held, tops),
        excess_top=math.log(found[smallest]["top"] / lam),
        excess_bottom=math.log(found[smallest]["bottom"] / whole["bottom"]),
        excess_ggn=math.log(found[smallest]["ggn"] / ggn),
        ggn_error=log_error(ggn_law, held, ggns),
        ggn_gain_constant=log_error(lambda _: ggn, held, ggns) - log_error(ggn_law, held, ggns),
        **_slopes(whole, found, n),
    )


def _slopes(
    whole: Mapping[str, float], found: Mapping[int, Mapping[str, float]], n: int
) -> dict[str, float]:
    """How excess and lower edge go with the batch size: -1 and -1/2 by Law 1; NaN without both."""
    from gradworks.bench.statistics import MIN_SIZES, fit_slope
    from gradworks.curvature.learning_rate import effective_batch

    def slope(values: Mapping[int, float]) -> float:
        kept = {effective_batch(B, n): value for B, value in values.items() if value > 0}
        return fit_slope(list(kept), list(kept.values())) if len(kept) >= MIN_SIZES else math.nan

    return {
        "excess_slope": slope({B: row["top"] - whole["top"] for B, row in found.items()}),
        "bottom_slope": slope({B: -row["bottom"] for B, row in found.items()}),
    }
