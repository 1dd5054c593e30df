"""One trial: an arm's estimates for all problems of all sizes, and what they are judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from gradworks.papers.langevin.landscapes import Samples, Tensors, chance, draw
from gradworks.papers.langevin.walk import Walk

if TYPE_CHECKING:
    from torch import Tensor

    from gradworks.bench.trial import Trial

__all__ = ["half_way", "huge", "trial"]

RECOVERED = 0.8  # overlap after refinement that counts as success
BURN_IN = 10.0  # relaxation times

Figures = dict[str, float]
Problems = Tensors | Samples


def trial(trial: Trial) -> None:
    """Run one arm on every cell of the workload, then judge over cells.

    Args:
        trial: The trial; ``spec["sizes"]`` and ``spec["factors"]`` span the cells.
    """
    walk = Walk(trial)
    estimate = _ARMS[trial.arm.method]
    spec = trial.spec
    factors = [float(f) for f in spec["factors"]]
    for d in spec["sizes"]:
        cell = f"d{d}"
        if cell in walk.cells:
            walk.give(cell)
            continue
        problems = draw(spec, int(d), factors, walk.generator(f"problems {cell}"))
        walk.finish(cell, estimate(walk, cell, problems))
    _judge(trial, walk)


# -- estimates ---------------------------------------------------------------------------------


def _overlaps(estimate: Tensor, star: Tensor) -> Tensor:
    """Absolute cosines of each row."""
    cosines: Tensor = (estimate * star).sum(-1).abs()
    lengths: Tensor = estimate.norm(dim=-1) * star.norm(dim=-1)
    return cosines / lengths


def _langevin(walk: Walk, cell: str, problems: Problems) -> Figures:
    """The average of a hot chain, its last iterate, and the estimator it should be."""
    spec, star = walk.trial.spec, problems.star
    d, order = star.shape[-1], problems.order
    cs, c = float(spec["cs"]), float(spec["c"])
    # lr = cs / (temperature d) differs with n: chains of unit temperature on the loss in units of
    # each problem's own are the same chains
    temperatures = (c / (problems.n * d).sqrt()).unsqueeze(1)

    def gradient(theta: Tensor) -> Tensor:
        return problems.gradient(theta) / temperatures

    chain = walk.chain(
        cell,
        star,
        gradient,
        lr=cs / d,
        temperature=1.0,
        steps=int(spec["steps"]),
        burn_in=math.ceil(BURN_IN / cs),
        square=order % 2 == 0,
    )
    with walk.trial.untimed():
        found = _read(chain.mean, chain.second_moment).to(star.dtype)
        reference = problems.reference()
        average = _overlaps(found, star)
        known = _overlaps(reference, star)
        refined = _overlaps(problems.refine(found), star)
        figures = {
            "overlap": _mean(average),
            "reference": _mean(known),
            "gap": _mean(average - known),
            "cosine": _mean(_overlaps(found, reference)),
            "last": _mean(chain.last),
            "last_excess": _mean(chain.last) - chance(d),
            "refined": _mean(refined),
        }
        return {**figures, **_successes(spec, refined)}


def _read(mean: Tensor, second_moment: Tensor | None) -> Tensor:
    """The direction of every row: of the mean, or leading in the second moment."""
    import torch

    if second_moment is None:
        return mean
    found: Tensor = torch.linalg.eigh(second_moment).eigenvectors[..., -1]
    return found


def _successes(spec: Any, refined: Tensor) -> Figures:
    """How many problems were solved at each number of samples, where there are several."""
    if len(spec["factors"]) == 1:
        return {}
    won = (refined > RECOVERED).double().view(len(spec["factors"]), -1).mean(1)
    return {f"won_{i}": share for i, share in enumerate(won.tolist())}


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _smoothing(walk: Walk, cell: str, problems: Problems) -> Figures:
    """Normalized ascent of the loss smoothed over a distance ``d^(1/4)``, by Monte Carlo."""
    import torch
    import torch.nn.functional as F

    spec, star = walk.trial.spec, problems.star
    if not isinstance(problems, Tensors):
        raise TypeError(f"smoothing is for tensors, got {type(problems).__name__}")
    generator = walk.generator(f"noise {cell}")
    draws, steps, reach = int(spec["draws"]), int(spec["smoothing_steps"]), star.shape[-1] ** 0.25
    count, d = star.shape
    theta = F.normalize(torch.randn(count, d, generator=generator), dim=-1)
    for step in range(steps):
        # a direction orthogonal to theta, of length `reach`
        xi = torch.randn(count, draws, d, generator=generator)
        xi = F.normalize(xi - (xi @ theta.unsqueeze(-1)) * theta.unsqueeze(1), dim=-1)
        there = F.normalize(theta.unsqueeze(1) + reach * xi, dim=-1)
        upward = _mean_pull(problems, there)
        upward = upward - (upward * theta).sum(-1, keepdim=True) * theta
        rate = 0.5 * (1 - step / steps)
        theta = F.normalize(theta + rate * F.normalize(upward, dim=-1), dim=-1)
    overlap = _overlaps(theta, star)
    return {"overlap": _mean(overlap), "refined": _mean(_overlaps(problems.refine(theta), star))}


def _mean_pull(problems: Tensors, there: Tensor) -> Tensor:
    """Mean of ``T(x, ..., x, .)`` over draws ``(problems, draws, d)``, and the chain rule's part.

    The gradient of the loss at a normalized point is its tangential part there.
    """
    import torch

    count, draws, d = there.shape
    left = torch.bmm(there, problems.T.reshape(count, d, -1))  # (problems, draws, d^(k-1))
    rows = there.reshape(count * draws, 1, d)
    left = left.reshape(count * draws, -1)
    for _ in range(problems.order - 2):
        left = torch.bmm(rows, left.view(count * draws, d, -1)).squeeze(1)
    pull = left.view(count, draws, d)
    pull = pull - (pull * there).sum(-1, keepdim=True) * there
    return pull.mean(1)


def _power(walk: Walk, cell: str, problems: Problems) -> Figures:
    """Power iteration from a random start."""
    import torch

    theta = torch.randn(*problems.star.shape, generator=walk.generator(f"start {cell}"))
    return {"overlap": _mean(_overlaps(problems.refine(theta), problems.star))}


def _sgd(walk: Walk, cell: str, problems: Problems) -> Figures:
    """Minibatch SGD on the sphere without added noise: the average and the last iterate."""
    spec, settings = walk.trial.spec, walk.trial.settings
    problems = _samples(problems)
    source, size = walk.generator(f"batches {cell}"), int(settings["batch_size"])

    def gradient(theta: Tensor) -> Tensor:
        import torch

        n = problems.X.shape[1]
        rows = torch.randint(n, (len(theta), size), generator=source)
        return problems.gradient(theta, rows)

    chain = walk.chain(
        cell,
        problems.star,
        gradient,
        lr=float(settings["lr"]),
        temperature=0.0,
        steps=int(spec["sgd_steps"]),
        burn_in=int(spec["sgd_steps"]) // 50,
        square=False,
        source=source,
    )
    average = _overlaps(chain.mean.to(problems.star.dtype), problems.star)
    known = _overlaps(problems.reference(), problems.star)
    return {
        "overlap": _mean(average),
        "last": _mean(chain.last),
        "over_last": _mean(average) - _mean(chain.last),
        "gap": _mean(average - known),
        "reference": _mean(known),
    }


def _online(walk: Walk, cell: str, problems: Problems) -> Figures:
    """One pass of SGD over the same samples, one at a time: the last iterate."""
    import torch
    import torch.nn.functional as F

    from gradworks.optim.langevin import langevin_step

    problems = _samples(problems)
    lr = float(walk.trial.settings["lr"])
    theta = torch.randn(*problems.star.shape, generator=walk.generator(f"start {cell}"))
    theta = F.normalize(theta, dim=-1)
    for i in range(problems.X.shape[1]):
        rows = torch.full((len(theta), 1), i)
        theta = langevin_step(theta, problems.gradient(theta, rows), None, lr, 0.0)
    return {"overlap": _mean(_overlaps(theta, problems.star))}


def _samples(problems: Problems) -> Samples:
    """Samples; tensors have no minibatches."""
    if not isinstance(problems, Samples):
        raise TypeError(f"minibatches are of samples, got {type(problems).__name__}")
    return problems


_ARMS: dict[str, Callable[[Walk, str, Problems], Figures]] = {
    "gradworks.optim.langevin": _langevin,
    "smoothing": _smoothing,
    "power iteration": _power,
    "minibatch SGD": _sgd,
    "online SGD": _online,
}


# -- over all cells ----------------------------------------------------------------------------


def _judge(trial: Trial, walk: Walk) -> None:
    """Means over sizes, and slopes over them where there are enough."""
    from gradworks.bench.statistics import MIN_SIZES, fit_slope

    sizes = [float(d) for d in trial.spec["sizes"]]
    cells = [walk.cells[f"d{d}"] for d in trial.spec["sizes"]]
    common = [name for name in cells[0] if not name.startswith("won_")]
    found = {name: sum(cell[name] for cell in cells) / len(cells) for name in common}
    if len(sizes) >= MIN_SIZES and len(trial.spec["factors"]) == 1:
        for name in ("overlap", "reference"):
            if name in found:
                scaled = [cell[name] * d**0.25 for cell, d in zip(cells, sizes)]
                found[f"{name}_slope"] = fit_slope(sizes, scaled)
    if "won_0" in cells[0]:
        factors = [float(f) for f in trial.spec["factors"]]
        shares = [[cell[f"won_{i}"] for i in range(len(factors))] for cell in cells]
        halves = half_way(factors, shares, int(trial.spec["problems"]))
        counts = [f * d ** (int(trial.spec["order"]) / 2) for f, d in zip(halves, sizes)]
        found |= {f"half_d{d}": n for d, n in zip(trial.spec["sizes"], counts)}
        if len(sizes) >= MIN_SIZES:
            found["half_slope"] = fit_slope(sizes, counts)
    trial.result("valid" if trial.kind == "tune" else "test", **found)


def half_way(
    factors: Sequence[float], shares: Sequence[Sequence[float]], problems: int
) -> list[float]:
    """Where half of the problems are solved, for each size, by logistic regression on log n.

    One steepness for all sizes, with a weak pull towards 3, keeps the fit finite where successes
    and failures do not overlap; thresholds are pulled as weakly towards the middle of the grid.

    Args:
        factors: Numbers of samples, increasing, in any unit.
        shares: Share of successes for each size and factor.
        problems: Number of problems behind each share.

    Returns:
        One number of samples for each size, in the same unit.
    """
    import numpy as np
    from scipy.optimize import minimize

    x = np.log(np.asarray(factors, dtype=float))
    won = np.asarray(shares, dtype=float)
    middle = x.mean()

    def cost(free: Any) -> float:
        steep, at = free[0], free[1:]
        logits = np.exp(steep) * (x[None, :] - at[:, None])
        likelihood = (won * logits - np.logaddexp(0.0, logits)).sum() * problems
        prior = 0.5 * (steep - math.log(3.0)) ** 2 + 0.02 * ((at - middle) ** 2).sum()
        return float(prior - likelihood)

    first = np.concatenate([[math.log(3.0)], np.full(len(won), middle)])
    fit = minimize(cost, first, method="BFGS")
    return [float(v) for v in np.exp(fit.x[1:])]


def huge(trial: Trial) -> NoReturn:
    """The published scale: refuses.

    Args:
        trial: Names the sizes.

    Raises:
        MissingData: Always, with what it would take.
    """
    from gradworks.bench.data import MissingData

    wanted: Any = trial.spec
    raise MissingData(
        f"the paper preset draws tensors of order {wanted['order']} with d up to "
        f"{max(wanted['sizes'])}, {wanted['memory']} each, for {wanted['steps']:,} steps: it needs "
        f"{wanted['hardware']}. Run --preset full for a verdict on this machine"
    )
