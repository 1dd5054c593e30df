"""The friction of each layer while a network trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradworks.bench.trial import Trial
from gradworks.optim import DiffGrad

__all__ = ["WatchedDiffGrad", "frictions"]


class WatchedDiffGrad(DiffGrad):
    """DiffGrad that keeps the mean friction of each parameter's last step.

    For gradients without weight decay: the coupled one would be part of them.
    """

    @property
    def frictions(self) -> dict[Tensor, Tensor]:
        """Mean friction by parameter."""
        found: dict[Tensor, Tensor] = self.__dict__.setdefault("_frictions", {})
        return found

    def _collect(self, group: dict[str, Any]) -> tuple[list[Tensor], ...]:
        """Look at the previous gradients before they are replaced."""
        lists = super()._collect(group)
        params, grads, _, _, previous_grads, _ = lists
        for param, grad, previous_grad in zip(params, grads, previous_grads, strict=True):
            self.frictions[param] = torch.sigmoid((previous_grad - grad).abs()).mean()
        return lists


def frictions(model: nn.Module, optimizer: Optimizer, step: int, trial: Trial) -> dict[str, float]:
    """Return the mean friction of each weight, and of all of them together.

    Args:
        model: What is trained.
        optimizer: What trains it; nothing is returned unless it is a :class:`WatchedDiffGrad`.
        step: Unused.
        trial: Unused.
    """
    seen: dict[Tensor, Tensor] = getattr(optimizer, "frictions", {})
    if not seen:
        return {}
    sizes = {p: p.numel() for p in seen}
    total = sum(float(friction) * sizes[p] for p, friction in seen.items())
    found = {
        f"friction {name}": float(seen[p])
        for name, p in model.named_parameters()
        if p in seen and p.ndim > 1
    }
    return {**found, "final_friction": total / sum(sizes.values())}
