"""GradNorm: weights trained on gradient norms of the last shared layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradworks.multitask.aggregator import NonFiniteGradientError
from gradworks.multitask.loss_weighting.adam import Moments
from gradworks.multitask.loss_weighting.weighting import Layer, LossWeighting

__all__ = ["GradNorm"]

# A weight never falls below this, however often its sign says so (ours).
LEAST_WEIGHT = 1e-4


class GradNorm(LossWeighting):
    r"""Weights trained so that tasks learn at one rate.

    With :math:`G_i = w_i \lVert \nabla_W L_i \rVert` over the last shared layer W and
    :math:`r_i = \frac{L_i / L_i(0)}{\mathrm{mean}_j\, L_j / L_j(0)}`, the weights follow Adam on

    .. math:: \sum_i \big| G_i - \bar G \, r_i^\alpha \big|, \qquad
        \bar G = \mathrm{mean}_i\, G_i \text{ held fixed,}

    and are then scaled back to sum to the number of tasks. The loss of a call uses the weights from
    before its update, as in the paper's Algorithm 1. Its gradient in :math:`w_i` has a closed form,
    so there is no second derivative: the price is one backward pass a task down to W.

    Args:
        alpha: Strength :math:`\alpha` of the pull to one rate, at least 0; 1.5.
        lr: Learning rate of the weights; 0.025.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> from gradworks.multitask.loss_weighting import GradNorm
        >>> W = torch.ones(2, requires_grad=True)
        >>> weighting = GradNorm(lr=0.1)
        >>> loss = weighting([W.sum(), 10 * W.sum()], shared=[W])
        >>> weighting.loss_weights  # for the next call: the second task's gradient is the longer
        tensor([1.1000, 0.9000])

    References:
        Chen, Badrinarayanan, Lee, Rabinovich, "GradNorm: Gradient Normalization for Adaptive Loss
        Balancing in Deep Multitask Networks", 2018, arXiv:1711.02257, Algorithm 1. Weights stay
        above 1e-4 (ours).
    """

    uses_shared = True
    _late = ("loss_weights", "initial_losses", "moments")

    loss_weights: Tensor | None
    initial_losses: Tensor | None
    moments: Tensor | None
    step: Tensor

    def __init__(self, alpha: float = 1.5, *, lr: float = 0.025) -> None:
        super().__init__()
        if not 0 <= alpha < math.inf:
            raise ValueError(f"alpha must be at least 0, got {alpha}")
        if not 0 <= lr < math.inf:
            raise ValueError(f"lr must be at least 0, got {lr}")
        self.alpha = alpha
        self.lr = lr
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def reset(self) -> None:
        """Forget weights, first losses and moments."""
        super().reset()
        self.step.zero_()

    def _weigh(self, losses: Tensor, values: list[float], layer: Layer) -> tuple[Tensor, Tensor]:
        if not layer.params:
            raise ValueError("shared is missing: give the parameters of the last shared layer")
        first = self.loss_weights is None
        for i, value in enumerate(values):
            if value < 0 or (first and value == 0):
                raise ValueError(
                    f"loss of task {i} is {value}; GradNorm divides by the losses of the first "
                    "call, which must be above 0, and later ones at least 0"
                )
        norms = torch.stack([_norm_in(layer.params, loss) for loss in layer.losses])
        if not bool(torch.isfinite(norms).all()):
            raise NonFiniteGradientError(
                torch.isfinite(norms).logical_not().nonzero()[:, 0].tolist()
            )
        now = losses.detach().to(norms.dtype)
        if self.loss_weights is None or self.initial_losses is None or self.moments is None:
            self.loss_weights, self.initial_losses = torch.ones_like(now), now.clone()
            self.moments = Moments.zeros_for(now)
        used = self.loss_weights.clone()
        ratios = now / self.initial_losses
        rates = ratios / ratios.mean().clamp_min(torch.finfo(ratios.dtype).tiny)
        lengths = used * norms
        target = lengths.mean() * rates.pow(self.alpha)
        grad = torch.sign(lengths - target) * norms
        self.step += 1
        Moments(self.moments, self.step).move(self.loss_weights, grad, self.lr)
        self.loss_weights.clamp_(min=LEAST_WEIGHT)
        self.loss_weights *= len(values) / self.loss_weights.sum()
        weights = used.to(losses.dtype)
        return (weights * losses).sum(), weights


def _norm_in(params: list[Tensor], loss: Tensor) -> Tensor:
    """Norm of the gradient of a loss in some parameters; the graph is kept."""
    grads = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
    found = [torch.linalg.vector_norm(g, dtype=_wide(g)) for g in grads if g is not None]
    if not found:
        return torch.zeros((), dtype=_wide(loss), device=loss.device)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(found))
    return norm


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
