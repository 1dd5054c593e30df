"""Perceptrons with two leading dimensions: many of them in the same tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["BatchedNet"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
# Their derivatives as functions of what they return.
_SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda h: (h > 0.0).to(h.dtype),
    "sigmoid": lambda h: torch.addcmul(h, h, h, value=-1.0),
    "tanh": lambda h: 1.0 - h * h,
}


@dataclass
class BatchedNet:
    """Single-layer or multi-layer perceptrons, (folds, variants) of them.

    Initialisation after the paper (arXiv:2405.14745): a last layer of zeros, so that every
    probability starts at 1/2, where the amplified probability has its gradient.

    Args:
        weights: One tensor a layer, (folds, variants, out, in).
        biases: One tensor a layer, (folds, variants, out, 1).
        activation: Between layers: "relu", "sigmoid" or "tanh".
    """

    weights: list[Tensor]
    biases: list[Tensor]
    activation: str = "relu"

    @classmethod
    def zeros(
        cls,
        folds: int,
        variants: int,
        features: int,
        hidden: Sequence[int] = (),
        *,
        activation: str = "relu",
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> BatchedNet:
        """Start with a last layer of zeros; hidden layers are He-normal, alike for all models.

        Args:
            folds: Number of folds.
            variants: Number of models a fold.
            features: Number of inputs.
            hidden: Widths of the hidden layers; none is a single-layer perceptron.
            activation: "relu", "sigmoid" or "tanh".
            generator: CPU generator for the hidden layers; ``None`` starts one at seed 0.
            dtype: Of the parameters.
            device: Of the parameters.

        Returns:
            The models. The same hidden weights for every fold and variant keep comparisons paired.

        Raises:
            ValueError: If the activation is unknown or a width is not positive.
        """
        if activation not in _ACTIVATIONS:
            allowed = ", ".join(_ACTIVATIONS)
            raise ValueError(f"activation must be one of {allowed}, got {activation!r}")
        if any(width < 1 for width in hidden):
            raise ValueError(f"hidden layer widths must be at least 1, got {tuple(hidden)}")
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        widths = [features, *hidden]
        weights, biases = [], []
        for fan_in, fan_out in pairwise(widths):
            start = torch.randn(fan_out, fan_in, dtype=torch.float64, generator=generator)
            start = (start * math.sqrt(2.0 / fan_in)).to(device=device, dtype=dtype)
            weights.append(start.repeat(folds, variants, 1, 1))
            biases.append(torch.zeros(folds, variants, fan_out, 1, dtype=dtype, device=device))
        weights.append(torch.zeros(folds, variants, 1, widths[-1], dtype=dtype, device=device))
        biases.append(torch.zeros(folds, variants, 1, 1, dtype=dtype, device=device))
        return cls(weights, biases, activation)

    @property
    def parameters(self) -> list[Tensor]:
        """All tensors, weights first.

        Returns:
            A new list of the live tensors.
        """
        return [*self.weights, *self.biases]

    def clone(self) -> BatchedNet:
        """Copy with parameters of its own.

        Returns:
            The copy, detached.
        """
        weights = [w.detach().clone() for w in self.weights]
        return BatchedNet(weights, [b.detach().clone() for b in self.biases], self.activation)

    def standardized(self, mean: Tensor, scale: Tensor) -> BatchedNet:
        """The same functions of ``(x - mean) / scale`` in place of ``x``.

        Args:
            mean: What is subtracted from the features, (folds, 1, in).
            scale: What they are divided by, (folds, 1, in).

        Returns:
            The models for standardised features.
        """
        first = self.weights[0]
        shifted = self.biases[0] + first @ mean[:, None].mT
        weights, biases = [first * scale[:, None], *self.weights[1:]], [shifted, *self.biases[1:]]
        return BatchedNet(weights, biases, self.activation)

    def raw(self, mean: Tensor, scale: Tensor) -> BatchedNet:
        """The same functions of ``x`` in place of ``(x - mean) / scale``.

        Args:
            mean: What was subtracted from the features, (folds, 1, in).
            scale: What they were divided by, (folds, 1, in).

        Returns:
            The models for features in their own units.
        """
        first = self.weights[0] / scale[:, None]
        shifted = self.biases[0] - first @ mean[:, None].mT
        weights, biases = [first, *self.weights[1:]], [shifted, *self.biases[1:]]
        return BatchedNet(weights, biases, self.activation)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> BatchedNet:
        """Move and cast the parameters.

        Args:
            device: Where to.
            dtype: Floating-point type.

        Returns:
            Models of that device and dtype, detached.
        """
        weights = [w.detach().to(device, dtype) for w in self.weights]
        biases = [b.detach().to(device, dtype) for b in self.biases]
        return BatchedNet(weights, biases, self.activation)

    def logits(self, X: Tensor) -> Tensor:
        """Scores of every model.

        Args:
            X: Features (folds, rows, in); a first dimension of 1 serves all folds.

        Returns:
            Tensor (folds, variants, rows).
        """
        return self.layers(X)[-1].squeeze(2).expand(*self.weights[0].shape[:2], -1)

    def layers(self, X: Tensor) -> list[Tensor]:
        """What every layer gives: hidden ones after their activation, then the scores.

        Args:
            X: Features (folds, rows, in); a first dimension of 1 serves all folds.

        Returns:
            One tensor (folds, variants, out, rows) a layer.
        """
        # One matrix product a fold covers all its variants.
        h = torch.matmul(self.weights[0].flatten(1, 2), X.mT)
        h = h.view(h.shape[0], self.weights[0].shape[1], -1, X.shape[1]) + self.biases[0]
        found = []
        for weight, bias in zip(self.weights[1:], self.biases[1:]):
            h = _ACTIVATIONS[self.activation](h)
            found.append(h)
            h = torch.matmul(weight, h) + bias
        return [*found, h]

    def gradients(self, X: Tensor, found: Sequence[Tensor], slope: Tensor) -> list[Tensor]:
        """Derivatives of all parameters by the chain rule, without a recorded graph.

        Args:
            X: Features (folds, rows, in).
            found: What :meth:`layers` gave for them.
            slope: Derivatives of each model's loss by its scores, (folds, variants, rows).

        Returns:
            One tensor a parameter, in the order of :attr:`parameters`.
        """
        by_weight, by_bias = [], []
        delta = slope.unsqueeze(2)
        for k in range(len(self.weights) - 1, -1, -1):
            by_bias.append(delta.sum(-1, keepdim=True))
            if k == 0:
                by_weight.append(torch.matmul(delta.flatten(1, 2), X).view_as(self.weights[0]))
                break
            h = found[k - 1]
            by_weight.append(torch.matmul(delta, h.mT))
            back = self.weights[k].mT * delta if delta.shape[2] == 1 else self.weights[k].mT @ delta
            delta = back.mul_(_SLOPES[self.activation](h))
        return [*reversed(by_weight), *reversed(by_bias)]
