"""FAMO: weights that make all losses fall at one relative speed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradworks.multitask.loss_weighting.adam import Moments
from gradworks.multitask.loss_weighting.weighting import Layer, Losses, LossWeighting

__all__ = ["FAMO"]

# Added to the distance of a loss from its lower bound by the authors' code.
FAMO_EPS = 1e-8


class FAMO(LossWeighting):
    r"""Weights that make all losses fall at one relative speed, without gradients of tasks.

    With :math:`D_i = L_i - \ell_i + 10^{-8}` and :math:`z = \mathrm{softmax}(\xi)`:

    .. math:: L = \sum_i \frac{z_i}{c} \log D_i, \quad c = \sum_i z_i / D_i, \qquad
        \xi \leftarrow \mathrm{Adam}\big( \xi, \, (\partial z / \partial \xi)^\top
        (\log D - \log D^{+}) + \gamma \xi \big)

    where :math:`D^+` is taken after the step, by :meth:`update`: on the same batch (one more
    forward pass), or, cheaper, with the losses of the next batch.

    Args:
        gamma: Decay :math:`\gamma` of the logits; 0.01 (the authors' ``famo.py``; their experiments
            vary it).
        lr: Learning rate of the logits; 0.025 (there).
        min_losses: Lower bounds :math:`\ell_i`; None: 0.

    Raises:
        ValueError: If an argument is out of range.

    Note:
        The weights on the gradients sum to 1. The authors' training loops also clip the gradient
        of the trunk to norm 1; here that is left to the loop.

    Example:
        >>> import torch
        >>> from gradworks.multitask.loss_weighting import FAMO
        >>> weighting = FAMO()
        >>> loss = weighting([torch.tensor(1.0), torch.tensor(4.0)])
        >>> weighting.weights
        tensor([0.8000, 0.2000])
        >>> weighting.update([torch.tensor(0.5), torch.tensor(4.0)])  # the first fell faster
        >>> weighting.logits
        tensor([-0.0250,  0.0250])

    References:
        Liu, Feng, Stone, Liu, "FAMO: Fast Adaptive Multitask Optimization", 2023,
        arXiv:2306.03792, Algorithm 1.
    """

    uses_update = True
    _late = ("logits", "moments")

    logits: Tensor | None
    moments: Tensor | None
    step: Tensor

    def __init__(
        self,
        gamma: float = 0.01,
        *,
        lr: float = 0.025,
        min_losses: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma must be at least 0, got {gamma}")
        if not 0 <= lr < math.inf:
            raise ValueError(f"lr must be at least 0, got {lr}")
        self.gamma = gamma
        self.lr = lr
        self.min_losses = None if min_losses is None else tuple(map(float, min_losses))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self._previous: Tensor | None = None

    def reset(self) -> None:
        """Forget logits and moments."""
        super().reset()
        self.step.zero_()
        self._previous = None

    def update(self, losses: Losses) -> None:
        """Move the logits by how the losses changed since the last call.

        Args:
            losses: After the step, in the order of that call.

        Raises:
            NonFiniteGradientError: If a loss is not finite; the state stays as it was.
            RuntimeError: If no call came before.
            TypeError: If a loss is no tensor.
            ValueError: As for a call.
        """  # noqa: DOC502
        if self._previous is None or self.logits is None or self.moments is None:
            raise RuntimeError("update() needs the losses of a call before it; call first")
        after = self._distance(*self._checked(losses)[1:]).detach().log()
        z = torch.softmax(self.logits, 0)
        fall = self._previous - after.to(z.dtype)
        self._previous = None
        self.step += 1
        grad = z * (fall - (z * fall).sum())
        Moments(self.moments, self.step).move(self.logits, grad, self.lr, self.gamma)

    def _weigh(self, losses: Tensor, values: list[float], layer: Layer) -> tuple[Tensor, Tensor]:
        distance = self._distance(losses, values)
        if self.logits is None:
            wide = torch.promote_types(losses.dtype, torch.float32)
            self.logits = torch.zeros_like(losses, dtype=wide).detach()
            self.moments = Moments.zeros_for(self.logits)
        z = torch.softmax(self.logits, 0)
        logs = distance.log()
        self._previous = logs.detach().to(z.dtype)
        parts = z / distance.detach()
        c = parts.sum()
        return (z / c * logs).sum(), parts / c

    def _distance(self, losses: Tensor, values: list[float]) -> Tensor:
        """How far the losses are above their bounds."""
        low = self.min_losses or (0.0,) * len(values)
        if len(low) != len(values):
            raise ValueError(f"min_losses holds {len(low)} numbers for {len(values)} losses")
        for i, (value, least) in enumerate(zip(values, low)):
            if value < least:
                raise ValueError(
                    f"loss of task {i} is {value}, below its bound {least}; FAMO takes logarithms: "
                    "give min_losses"
                )
        return losses - losses.new_tensor(low) + FAMO_EPS
