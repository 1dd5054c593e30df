"""The smallest damping with which a second-order step on batches trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from gradworks.papers.rmt_learning_rate.largest_rates import THRESHOLDS
from gradworks.papers.rmt_learning_rate.problems import Examples, draw_batch, examples, network
from gradworks.papers.rmt_learning_rate.side_by_side import smallest

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from gradworks.papers.rmt_learning_rate.cells import Cells

__all__ = ["damped_losses", "dampings"]


def dampings(cells: Cells) -> None:
    """Find the smallest damping against the batch size and against the rate.

    Args:
        cells: Of the trial.
    """
    spec = cells.spec
    data = examples(spec, cells.generator("examples"))
    model = network(spec, tuple(data[0].shape[1:]), cells.generator("weights"))
    low, high = spec["dampings"]
    grid = [2.0**i for i in range(int(low), int(high) + 1)]

    def measure(lr: float, size: int) -> dict[str, float]:
        losses = damped_losses(
            model,
            grid,
            data,
            lr=lr,
            steps=int(spec["steps"]),
            batch_size=size,
            generator=cells.generator(f"batches {size}"),
        )
        return {f"damping{tag}": smallest(grid, losses, b) for tag, b in THRESHOLDS.items()}

    def run(lr: float, size: int) -> dict[str, float]:
        return cells.run(f"lr{lr:g} b{size}", partial(measure, lr, size))

    by_size = {size: run(float(spec["lr"]), size) for size in spec["sizes"]}
    by_rate = {lr: run(lr, int(spec["batch_size"])) for lr in map(float, spec["rates"])}
    figures: dict[str, float] = {}
    for tag in THRESHOLDS:
        figures[f"slope_batch{tag}"] = _slope(by_size, f"damping{tag}")
        figures[f"slope_lr{tag}"] = _slope(by_rate, f"damping{tag}")
        _log(cells, by_size, "by_batch", f"damping{tag}")
        # steps of a curve are whole numbers: rates are logged as 1/lr
        _log(cells, {round(1 / lr): row for lr, row in by_rate.items()}, "by_rate", f"damping{tag}")
    cells.trial.result("test", **figures)


def _slope(found: Mapping[float, Mapping[str, float]], name: str) -> float:
    """Slope of log damping; NaN where one is missing."""
    from gradworks.bench.statistics import fit_slope

    values = [row[name] for row in found.values()]
    return fit_slope(list(found), values) if all(map(math.isfinite, values)) else math.nan


def _log(cells: Cells, found: Mapping[int, Mapping[str, float]], what: str, name: str) -> None:
    for at in sorted(found):
        if math.isfinite(found[at][name]):
            cells.trial.log(at, split="train", **{f"{name}_{what}": found[at][name]})


def damped_losses(
    model: nn.Module,
    dampings: Sequence[float],
    data: Examples,
    *,
    lr: float,
    steps: int,
    batch_size: int,
    generator: torch.Generator,
) -> Tensor:
    r"""Train by damped Gauss-Newton steps of batches, at many dampings side by side.

    .. math:: w \leftarrow w - \mathrm{lr}\,(G_B + \delta I)^{-1} g_B

    with gradient and Gauss-Newton matrix of the same batch, both exact.

    Args:
        model: A small network, where all start; left as it is.
        dampings: :math:`\delta`.
        data: Examples.
        lr: Rate.
        steps: Steps.
        batch_size: Examples a step.
        generator: Draws the batches.

    Returns:
        Losses over all examples, ``(dampings,)``, not finite where training diverged.
    """
    import torch
    import torch.nn.functional as F
    from torch.func import functional_call, jacrev, vmap

    shapes = {name: p.shape for name, p in model.named_parameters()}
    start = torch.cat([p.detach().flatten() for p in model.parameters()])
    weights = start.expand(len(dampings), -1).clone()
    eye = torch.eye(len(start)) * torch.tensor(dampings).reshape(-1, 1, 1)

    def outputs(flat: Tensor, x: Tensor) -> Tensor:
        pieces = torch.split(flat, [shape.numel() for shape in shapes.values()])
        given = {name: t.reshape(shapes[name]) for name, t in zip(shapes, pieces)}
        found: Tensor = functional_call(model, given, (x.unsqueeze(0),))
        return found.squeeze(0)

    rows = vmap(vmap(outputs, in_dims=(None, 0)), in_dims=(0, None))
    slopes = vmap(vmap(jacrev(outputs), in_dims=(None, 0)), in_dims=(0, None))
    with torch.no_grad():
        for _ in range(steps):
            x, y = draw_batch(data, batch_size, generator)
            J = slopes(weights, x)  # (dampings, batch, classes, P)
            p = rows(weights, x).softmax(-1)
            g = torch.einsum("dbc,dbcp->dp", p - F.one_hot(y, p.shape[-1]), J) / batch_size
            # the square root of diag(p) - p p^T: rows of diag(sqrt p) less their mean under p
            R = p.sqrt().unsqueeze(-1) * (J - torch.einsum("dbc,dbcp->dbp", p, J).unsqueeze(2))
            R = R.flatten(1, 2)
            G = R.mT @ R / batch_size
            # a row that has diverged must not stop the others: no check, its loss stays NaN
            factor, _ = torch.linalg.cholesky_ex(G + eye)
            weights -= lr * torch.cholesky_solve(g.unsqueeze(-1), factor).squeeze(-1)
        final: Tensor = torch.stack(
            [F.cross_entropy(one, data[1]) for one in rows(weights, data[0])]
        )
        return final
