"""One network trained at many learning rates at once, on the same batches.

The rates are rows of stacked weights, so a grid costs little more than one run. The update is that
of the torch optimizer at rate 1; each row takes its own multiple of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradworks.papers.rmt_learning_rate.problems import Examples, draw_batch

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["final_losses", "largest", "smallest"]


def final_losses(
    model: nn.Module,
    optimizer: str,
    rates: Sequence[float],
    data: Examples,
    *,
    steps: int,
    batch_size: int,
    generator: torch.Generator,
) -> Tensor:
    """Train a network of linear and tanh layers at every rate and return the final losses.

    Args:
        model: Where all start; left as it is.
        optimizer: ``"sgd"`` (plain) or ``"adam"`` (torch's defaults).
        rates: Learning rates.
        data: Examples.
        steps: Steps.
        batch_size: Examples a step.
        generator: Draws the batches.

    Returns:
        Losses over all examples, ``(rates,)``, not finite where training diverged.

    Raises:
        TypeError: A layer of another kind.
    """  # noqa: DOC502
    import torch

    layers = _layers(model)
    stacked = [
        p.detach().expand(len(rates), *p.shape).clone().requires_grad_() for p in model.parameters()
    ]
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    update = kind(stacked, lr=1.0)
    scale = [
        torch.tensor(rates, dtype=p.dtype).reshape(-1, *([1] * (p.dim() - 1))) for p in stacked
    ]
    for _ in range(steps):
        x, y = draw_batch(data, batch_size, generator)
        # a row that has diverged adds nothing finite to the sum, and nothing to other rows' slopes
        grads = torch.autograd.grad(_losses(layers, stacked, x, y).sum(), stacked)
        with torch.no_grad():
            for p, g in zip(stacked, grads, strict=True):
                p.grad = g
            before = [p.detach().clone() for p in stacked]
            update.step()
            for p, old, rate in zip(stacked, before, scale, strict=True):
                p.sub_(old).mul_(rate).add_(old)
    with torch.no_grad():
        return _losses(layers, stacked, *data)


def _layers(model: nn.Module) -> list[bool]:
    """Which layers are linear; the others are tanh, behind an input that is flattened."""
    from torch import nn

    found = [module for module in model.children() if not isinstance(module, nn.Flatten)]
    for module in found:
        if not isinstance(module, nn.Linear | nn.Tanh):
            raise TypeError(f"model must be of linear and tanh layers, got {type(module).__name__}")
    return [isinstance(module, nn.Linear) for module in found]


def _losses(layers: Sequence[bool], weights: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of every row of stacked weights, by batched products."""
    import torch

    rest = iter(weights)
    h = x.flatten(1).expand(len(weights[0]), -1, -1)
    for linear in layers:
        if linear:
            weight, bias = next(rest), next(rest)
            h = torch.baddbmm(bias.unsqueeze(1), h, weight.mT)
        else:
            h = h.tanh()
    right = h.gather(2, y.expand(len(h), -1).unsqueeze(2)).squeeze(2)
    losses: Tensor = (h.logsumexp(2) - right).mean(1)
    return losses


def largest(values: Sequence[float], losses: Tensor, threshold: float) -> float:
    """Return the largest value that ended below a loss.

    Args:
        values: Increasing.
        losses: One a value.
        threshold: The loss.

    Returns:
        NaN where none did, and where the last one did: the largest may lie beyond it.
    """
    trained = [v for v, loss in zip(values, losses.tolist(), strict=True) if loss < threshold]
    return trained[-1] if trained and trained[-1] != values[-1] else math.nan


def smallest(values: Sequence[float], losses: Tensor, threshold: float) -> float:
    """Return the smallest value that ended below a loss.

    Args:
        values: Increasing.
        losses: One a value.
        threshold: The loss.

    Returns:
        NaN where none did, and where the first one did: the smallest may lie below it.
    """
    trained = [v for v, loss in zip(values, losses.tolist(), strict=True) if loss < threshold]
    return trained[0] if trained and trained[0] != values[0] else math.nan
