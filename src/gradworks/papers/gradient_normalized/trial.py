"""Solve one problem with every method, and time the solves."""

from __future__ import annotations

import math
import timeit
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradworks.optim.gradient_normalized import GNSResult, LowRank, minimize
from gradworks.optim.gradient_normalized.metric import Metric
from gradworks.optim.gradient_normalized.solves import prepare
from gradworks.papers.gradient_normalized.problems import Posed, pose

if TYPE_CHECKING:
    from gradworks.bench.trial import Trial

__all__ = ["ACCURACY", "descend", "solve", "solves"]

ACCURACY = 1e-8


def solve(trial: Trial) -> None:
    """Solve the problem of ``spec`` with and without Hessians and log f - f*.

    Args:
        trial: Names the problem and the most iterations.
    """
    spec: Any = trial.spec
    posed = pose(spec, trial)
    found: dict[str, float] = {}
    runs: dict[str, tuple[list[float], float]] = {}
    for name, hessian in (
        ("exact", posed.exact), ("approximate", posed.approximate), ("zero", "zero"),
    ):  # fmt: skip
        result = _newton(posed, hessian, spec["limit"])
        runs[name] = ([f - posed.f_star for f in result.history["fun"]], result.history["time"][-1])
        found[f"evaluations_{name}"] = float(result.history["n_grad"][-1])
    runs["descent"] = (descend(posed, spec["limit"]), math.nan)
    for name, (gaps, _) in runs.items():
        for k, gap in enumerate(gaps):
            trial.log(k, split="train", **{f"gap_{name}": max(gap, 1e-17)})
        solved = next((k for k, gap in enumerate(gaps) if gap < ACCURACY), None)
        found[f"solved_{name}"] = float(solved is not None)
        # a run that did not get there took at least all its iterations
        found[f"iterations_{name}"] = float(len(gaps) - 1 if solved is None else solved)
    found["over_exact"] = found["iterations_approximate"] / max(found["iterations_exact"], 1.0)
    found["over_zero"] = found["iterations_approximate"] / max(found["iterations_zero"], 1.0)
    found["time_ratio"] = runs["approximate"][1] / runs["exact"][1]
    found["r2_approximate"], found["slope_approximate"] = _line(runs["approximate"][0])
    trial.result("test", **found)


def _newton(posed: Posed, hessian: Any, limit: int) -> GNSResult:
    """The paper's method until f is within 1e-8, and a little on for the slope."""
    return minimize(
        posed.fun,
        posed.x0,
        hessian=hessian,
        metric=posed.metric,
        max_iter=limit,
        f_star=posed.f_star - ACCURACY * (1 - 1e-4),  # stop at f - f* = 1e-12
    )


def _line(gaps: list[float]) -> tuple[float, float]:
    """R^2 and slope of log f - f* between 1e-2 and 1e-10 of the first value."""
    kept = [(k, math.log(g)) for k, g in enumerate(gaps) if 1e-10 < g / gaps[0] < 1e-2]
    if len(kept) < 3:  # never got there, or faster than a line can be drawn through
        return (0.0, 0.0) if gaps[-1] / gaps[0] >= 1e-10 else (1.0, -math.log(1e8) / 3)
    x, y = (torch.tensor(column, dtype=torch.float64) for column in zip(*kept, strict=True))
    x, y = x - x.mean(), y - y.mean()
    slope = float((x @ y) / (x @ x))
    return float((x @ y) ** 2 / ((x @ x) * (y @ y))), slope


def descend(posed: Posed, limit: int) -> list[float]:
    """Gradient descent in the metric with backtracking: what it is compared with.

    Args:
        posed: The problem.
        limit: Most iterations.

    Returns:
        f - f* before each step.
    """
    metric = Metric(posed.metric, posed.x0)
    x, size, gaps = posed.x0.clone(), 1.0, []
    for _ in range(limit + 1):
        leaf = x.requires_grad_(True)
        value = posed.fun(leaf)
        (g,) = torch.autograd.grad(value, leaf)
        x = x.detach()
        gaps.append(float(value.detach()) - posed.f_star)
        if gaps[-1] < 1e-12:
            break
        step = metric.solve(g)
        decrease = float(g @ step)
        for _ in range(60):
            if float(posed.fun(x - size * step)) <= float(value.detach()) - size * decrease / 2:
                break
            size /= 2
        x, size = x - size * step, size * 2
    return gaps


def solves(trial: Trial) -> None:
    """Time a rank-one solve against a dense one, in turns.

    Args:
        trial: ``spec`` gives n and the repeats.
    """
    spec: Any = trial.spec
    n = spec["n"]
    generator = trial.generator("vectors")
    q = torch.randn(n, generator=generator, dtype=torch.float64)
    g = torch.randn(n, generator=generator, dtype=torch.float64)
    metric = Metric(None, g)
    low = LowRank(q.unsqueeze(1), torch.ones(1, dtype=torch.float64))
    dense = low.to_dense()

    def timed(H: Tensor | LowRank) -> Callable[[], object]:
        solver = prepare(H, g, metric, cg_tol=1e-6, cg_max_iter=None)
        return lambda: solver.step(1.0)

    rank_one, full = timed(low), timed(dense)
    pairs = [
        (timeit.timeit(full, number=1), timeit.timeit(rank_one, number=20) / 20)
        for _ in range(spec["repeats"] + 1)
    ][1:]
    ratios = sorted(a / b for a, b in pairs)
    trial.result("test", dense_over_rank_one=ratios[len(ratios) // 2])
