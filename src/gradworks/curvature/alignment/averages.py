"""Moving averages of what small batches estimate badly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MovingAverage"]


class MovingAverage(nn.Module):
    r"""Exponential moving average whose newest term carries the gradient; stateful.

    .. math:: a \leftarrow \gamma a + (1 - \gamma) x, \qquad \text{returned: } a / (1 - \gamma)

    Dividing keeps the size of the gradient that goes into ``x`` whatever :math:`\gamma` is, as
    Fishr does. The average starts at zero. In evaluation mode the state stays as it is.

    Args:
        decay: :math:`\gamma` in [0, 1); 0.95 as in Fishr.
        rescale: Divide by :math:`1 - \gamma`. Default True.

    Raises:
        ValueError: ``decay`` is out of range.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import MovingAverage
        >>> average = MovingAverage(0.5)
        >>> average(torch.tensor([1.0])), average(torch.tensor([1.0]))
        (tensor([1.]), tensor([1.5000]))

    References:
        Rame, Dancette, Cord, "Fishr: invariant gradient variances for out-of-distribution
        generalization", 2022, arXiv:2109.02934.
    """

    average: Tensor | None

    def __init__(self, decay: float = 0.95, *, rescale: bool = True) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.rescale = rescale
        self.register_buffer("average", None)

    def extra_repr(self) -> str:
        """The settings, as ``print(module)`` shows them."""
        return f"decay={self.decay}, rescale={self.rescale}"

    def reset(self) -> None:
        """Forget what was seen."""
        self.average = None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """An average may come to a module that has none yet."""
        saved = state_dict.get(f"{prefix}average")
        self.average = None if saved is None else torch.empty_like(saved)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Take a value in and return the average.

        Args:
            x: Always of the same shape.

        Returns:
            The average with this value in it, in its shape.

        Raises:
            ValueError: The shape is not that of the state.
        """
        if self.average is None:
            average = (1 - self.decay) * x
        else:
            if self.average.shape != x.shape:
                raise ValueError(
                    f"x has shape {tuple(x.shape)}, the average {tuple(self.average.shape)}; call "
                    "reset() when domains or the head change"
                )
            average = self.decay * self.average.to(x) + (1 - self.decay) * x
        if self.training:
            self.average = average.detach()
        return average / (1 - self.decay) if self.rescale else average
