"""What is run in a cell, and how the cells of a workload are judged together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gradworks.papers.matrix_sensing.cells import Cells, errors_of, log_curve, slope
from gradworks.papers.matrix_sensing.presets import LR, RANK

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gradworks.solvers.matrix_sensing import MeasurementOperator, SensingResult

__all__ = ["asymmetric", "digits", "exact", "one_step", "pose", "symmetric"]

SEEN = 20  # iterations between two records of long runs
DIGITS_TOL = 1e-27  # squared residual at which rounding begins

Figures = dict[str, float]


def pose(
    generator: torch.Generator,
    n: int,
    k: int,
    *,
    factor: int | None,
    symmetric: bool,
    kappa: float = 1.0,
    noise: float = 0.0,
) -> tuple[MeasurementOperator, Tensor, Tensor]:
    """Return measurements, their values and the matrix behind them.

    Args:
        generator: Draws all.
        n: Side of the matrix, of rank 3.
        k: Columns that the number of measurements is for.
        factor: ``factor n k`` Gaussian measurements, compressed; None: all entries.
        symmetric: Whether the matrix and the measurements are.
        kappa: Condition number.
        noise: Length of the noise over that of the values.
    """
    import torch

    from gradworks.solvers.matrix_sensing import MeasurementOperator, random_low_rank

    M = random_low_rank(n, rank=RANK, kappa=kappa, symmetric=symmetric, generator=generator)
    if factor is None:
        op = MeasurementOperator.identity(n)
        return op, op(M), M
    op = MeasurementOperator.gaussian(factor * n * k, n, symmetric=symmetric, generator=generator)
    y = op(M)
    if noise:
        drawn = torch.randn(len(y), generator=generator, dtype=y.dtype)
        y = y + noise * float(y.norm() / drawn.norm()) * drawn
    op, y = op.compressed(y)
    return op, y, M


def _line(result: SensingResult, predicted: float) -> Figures:
    """Rate, how straight its line is, and the rate over what was predicted."""
    line = result.observed_rate()
    return {
        "rate": line.rate,
        "r2": line.r_squared,
        "predicted": predicted,
        "over_predicted": line.rate / predicted,
    }


def _slow(result: SensingResult, lr: float, spare: int, window: Any) -> Figures:
    """Slope of the slow phase, and ``eta^2 T^2 err`` over ``(k - r) / 4``."""
    last = float(errors_of(result)[-1]) * (lr * result.n_iter) ** 2
    return {"slope": slope(result, *window), "constant": last * 4 / spare}


# -- symmetric -----------------------------------------------------------------------------------


def symmetric(cells: Cells) -> None:
    """Run symmetric descent with more columns than the rank.

    Args:
        cells: Each has columns, a condition number and a number of measurements.
    """
    found = {
        name: cells.run(name, _symmetric, name, cell) for name, cell in cells.spec["cells"].items()
    }
    slopes = [figures["slope"] for figures in found.values()]
    constants = [figures["constant"] for figures in found.values()]
    cells.result(
        slope_low=min(slopes),
        slope_high=max(slopes),
        constant=max(constants, key=lambda c: abs(c - 1)),
    )


def _symmetric(cells: Cells, name: str, cell: Mapping[str, Any]) -> Figures:
    from gradworks.solvers.matrix_sensing import symmetric_gd

    spec, source = cells.spec, cells.generator(name)
    k, kappa, factor = int(cell["k"]), float(cell["kappa"]), cell["factor"]
    op, y, M = pose(source, int(spec["n"]), k, factor=factor, symmetric=True, kappa=kappa)
    result = symmetric_gd(
        op,
        y,
        k,
        lr=LR / kappa,
        alpha=float(spec["alpha"]),
        max_iter=int(spec["steps"]),
        target=M,
        record_every=SEEN,
        generator=source,
    )
    log_curve(cells.trial, f"error_{name}", result)
    found = _slow(result, LR / kappa, k - RANK, spec["window"])
    if factor is not None:
        found["isometry"] = op.rip_estimate(min(2 * k, int(spec["n"])), generator=source)
    return found


def digits(cells: Cells) -> None:
    """Run symmetric descent on second moments of the digits, with spare columns and without.

    Args:
        cells: Their workload names rank and columns.
    """
    spare = cells.run("spare", _digits, int(cells.spec["k"]), "spare")
    exact = cells.run("exact", _digits, int(cells.spec["rank"]), "exact")
    cells.result(
        slope_low=spare["slope"],
        slope_high=spare["slope"],
        constant=spare["constant"],
        r2_symmetric=exact["r2"],
    )


def _digits(cells: Cells, k: int, name: str) -> Figures:
    from gradworks.papers.matrix_sensing.cells import second_moments
    from gradworks.solvers.matrix_sensing import MeasurementOperator, symmetric_gd

    spec = cells.spec
    M, smallest = second_moments(int(spec["rank"]))
    op = MeasurementOperator.identity(len(M))
    spare = k - int(spec["rank"])
    result = symmetric_gd(
        op,
        op(M),
        k,
        lr=LR,
        alpha=float(spec["alpha"]),
        max_iter=int(spec["steps"]),
        tol=0.0 if spare else DIGITS_TOL,
        target=M,
        record_every=SEEN,
        generator=cells.generator(name),
    )
    log_curve(cells.trial, f"error_{name}", result)
    if spare:
        return _slow(result, LR, spare, spec["window"])
    return _line(result, -2 * math.log1p(-LR * smallest))


# -- linear rates --------------------------------------------------------------------------------


def exact(cells: Cells) -> None:
    """Run both forms with as many columns as the rank.

    Args:
        cells: Their workload names the scale of the start.
    """
    one = cells.run("symmetric", _exact, "symmetric")
    two = cells.run("asymmetric", _exact, "asymmetric")
    cells.result(r2_symmetric=one["r2"], r2_asymmetric=two["r2"])


def _exact(cells: Cells, form: str) -> Figures:
    from gradworks.solvers.matrix_sensing import asymmetric_gd, predicted_rate, symmetric_gd

    spec, source = cells.spec, cells.generator(form)
    alike = form == "symmetric"
    op, y, M = pose(source, int(spec["n"]), RANK, factor=spec["factor"], symmetric=alike)
    solve: Callable[..., SensingResult] = symmetric_gd if alike else asymmetric_gd
    result = solve(
        op,
        y,
        RANK,
        lr=LR,
        alpha=float(spec["alpha"]),
        max_iter=int(spec["steps"]),
        target=M,
        generator=source,
    )
    log_curve(cells.trial, f"error_{form}", result)
    if alike:  # the smallest singular value is 1
        return _line(result, -2 * math.log1p(-LR))
    F, G = result.factors
    return _line(result, predicted_rate(F, G, RANK, LR, coupled=True))


def asymmetric(cells: Cells) -> None:
    """Run the plain asymmetric form from starts of several scales.

    Args:
        cells: Their workload names columns and scales.
    """
    alphas = [float(alpha) for alpha in cells.spec["alphas"]]
    slopes, ratios = [], []
    for k in (int(k) for k in cells.spec["ks"]):
        rates = [cells.run(f"k{k}_a{alpha:g}", _asymmetric, k, alpha)["rate"] for alpha in alphas]
        slopes.append(_of_rates(alphas, rates))
        ratios.append(_spread(rates))
    cells.result(
        slope=sum(slopes) / len(slopes),
        slope_low=min(slopes),
        slope_high=max(slopes),
        ratio=min(ratios),
    )


def _of_rates(alphas: list[float], rates: list[float]) -> float:
    """Slope of the log rate on log alpha; NaN where a run never came to its line."""
    from gradworks.bench.statistics import fit_slope

    good = all(math.isfinite(rate) and rate > 0 for rate in rates)
    return fit_slope(alphas, rates) if good else math.nan


def _spread(rates: list[float]) -> float:
    """Largest over smallest rate; NaN where a run never came to its line."""
    good = all(math.isfinite(rate) and rate > 0 for rate in rates)
    return max(rates) / min(rates) if good else math.nan


def _asymmetric(cells: Cells, k: int, alpha: float) -> Figures:
    from gradworks.solvers.matrix_sensing import asymmetric_gd, predicted_rate

    # one matrix and one start for all scales
    spec, source = cells.spec, cells.generator(f"k{k}")
    op, y, M = pose(source, int(spec["n"]), k, factor=spec["factor"], symmetric=False)
    result = asymmetric_gd(
        op,
        y,
        k,
        lr=LR,
        alpha=alpha,
        max_iter=math.ceil(float(spec["relaxations"]) / alpha**2),
        target=M,
        record_every=SEEN,
        generator=source,
    )
    log_curve(cells.trial, f"error_k{k}_a{alpha:g}", result)
    F, G = result.factors
    return _line(result, predicted_rate(F, G, RANK, LR, coupled=True))


def one_step(cells: Cells) -> None:
    """Run the form whose factors are rescaled once, from starts of several scales.

    Args:
        cells: Their workload names columns, scales and ``beta``.
    """
    rates = [
        cells.run(f"a{alpha:g}", _one_step, float(alpha))["rate"] for alpha in cells.spec["alphas"]
    ]
    cells.result(ratio=_spread(rates))


def _one_step(cells: Cells, alpha: float) -> Figures:
    from gradworks.solvers.matrix_sensing import accelerated_gd

    spec, source = cells.spec, cells.generator("problem")
    k, beta = int(spec["k"]), float(spec["beta"])
    op, y, M = pose(source, int(spec["n"]), k, factor=spec["factor"], symmetric=False)
    result = accelerated_gd(
        op,
        y,
        k,
        lr=LR,
        alpha=alpha,
        beta=beta,
        max_iter=int(spec["steps"]),
        target=M,
        generator=source,
    )
    log_curve(cells.trial, f"error_a{alpha:g}", result)
    return _line(result, -2 * math.log1p(-LR * beta**2))
