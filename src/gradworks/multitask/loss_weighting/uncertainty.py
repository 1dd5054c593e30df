"""Uncertainty weighting: each task learns its variance."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gradworks.multitask.loss_weighting.weighting import Layer, LossWeighting

__all__ = ["UncertaintyWeighting"]


class UncertaintyWeighting(LossWeighting):
    r"""Homoscedastic uncertainty: each task learns its log-variance :math:`s_i`.

    .. math:: \sum_i \tfrac12 \big( e^{-s_i} L_i + s_i \big)

    Its parameters go to the optimizer with those of the model. Losses should be at least 0: the
    variance of a negative loss shrinks without end.

    Args:
        num_tasks: Number of tasks.
        initial: :math:`s_i` at the start; 0.0 (MTAN's code starts at -0.5).

    Attributes:
        log_variances: :math:`s`, a parameter.

    Raises:
        ValueError: If ``num_tasks`` is below 1 or ``initial`` not finite.

    Example:
        >>> import torch
        >>> from gradworks.multitask.loss_weighting import UncertaintyWeighting
        >>> weighting = UncertaintyWeighting(2)
        >>> weighting([torch.tensor(2.0), torch.tensor(4.0)]).item()
        3.0

    References:
        Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
        Geometry and Semantics", 2018, arXiv:1705.07115. One formula for all losses, as MTAN's code
        has it; the paper gives classification twice the weight.
    """

    def __init__(self, num_tasks: int, *, initial: float = 0.0) -> None:
        super().__init__()
        if num_tasks < 1:
            raise ValueError(f"num_tasks must be at least 1, got {num_tasks}")
        if not math.isfinite(initial):
            raise ValueError(f"initial must be finite, got {initial}")
        self.initial = initial
        self.log_variances = nn.Parameter(torch.full((num_tasks,), float(initial)))

    def reset(self) -> None:
        """Put the log-variances back to their start; the optimizer's moments are its own."""
        super().reset()
        with torch.no_grad():
            self.log_variances.fill_(self.initial)

    def _tasks(self) -> int:
        return len(self.log_variances)

    def _weigh(self, losses: Tensor, values: list[float], layer: Layer) -> tuple[Tensor, Tensor]:
        weights = 0.5 * torch.exp(-self.log_variances)
        return (weights * losses).sum() + 0.5 * self.log_variances.sum(), weights
