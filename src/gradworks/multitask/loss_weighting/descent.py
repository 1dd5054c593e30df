"""Dynamic weight average: weights by the rate of descent."""

from __future__ import annotations

import torch
from torch import Tensor

from gradworks.multitask.loss_weighting.weighting import Layer, LossWeighting

__all__ = ["DynamicWeightAverage"]


class DynamicWeightAverage(LossWeighting):
    r"""Weights by how slowly a loss fell between the last two periods.

    .. math:: w_i = T \, \mathrm{softmax}_i \big( r_i / \tau \big), \qquad
        r_i = \bar L_i(k - 1) / \bar L_i(k - 2)

    with :math:`\bar L_i(k)` the mean loss in period k. Weights are 1 in the first two periods.

    Args:
        temperature: :math:`\tau` above 0; 2.0, as in the paper.
        period: Calls in a period; set it to the number of batches an epoch (the paper's period).

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> from gradworks.multitask.loss_weighting import DynamicWeightAverage
        >>> weighting = DynamicWeightAverage(period=1)
        >>> for fast in (4.0, 1.0, 0.5):
        ...     loss = weighting([torch.tensor(fast), torch.tensor(1.0)])
        >>> weighting.weights  # from 1 / 4 and 1 / 1
        tensor([0.8147, 1.1853])

    References:
        Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention", 2019,
        arXiv:1803.10704, Eq. (7).
    """

    _late = ("sums", "last", "before")

    sums: Tensor | None
    last: Tensor | None
    before: Tensor | None
    calls: Tensor

    def __init__(self, temperature: float = 2.0, *, period: int = 25) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if period < 1:
            raise ValueError(f"period must be at least 1, got {period}")
        self.temperature = temperature
        self.period = period
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def reset(self) -> None:
        """Forget all periods."""
        super().reset()
        self.calls.zero_()

    def _weigh(self, losses: Tensor, values: list[float], layer: Layer) -> tuple[Tensor, Tensor]:
        if self.last is None or self.before is None:
            weights = torch.ones_like(losses)
        else:
            if bool((self.before == 0).any()):
                raise ValueError(
                    "a loss was 0 on average over a period, its rate of descent has no meaning; "
                    "drop that task or use another weighting"
                )
            rates = self.last / self.before
            weights = len(values) * torch.softmax(rates / self.temperature, 0).to(losses.dtype)
        kept = losses.detach().to(torch.promote_types(losses.dtype, torch.float32))
        self.sums = kept.clone() if self.sums is None else self.sums + kept
        self.calls += 1
        if int(self.calls) == self.period:
            self.last, self.before = self.sums / self.period, self.last
            self.sums = torch.zeros_like(kept)
            self.calls.zero_()
        return (weights * losses).sum(), weights
