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

    def logits(self, X: Tensor) -> Tensor:
        """Scores of every model.

        Args:
            X: Features (folds, rows, in); a first dimension of 1 serves all folds.

        Returns:
            Tensor (folds, variants, rows).
        """
        folds, variants = self.weights[0].shape[:2]
        # One matrix product a fold covers all its variants.
        h = torch.matmul(self.weights[0].flatten(1, 2), X.mT)
        h = h.view(h.shape[0], variants, -1, X.shape[1]) + self.biases[0]
        for weight, bias in zip(self.weights[1:], self.biases[1:]):
            h = torch.matmul(weight, _ACTIVATIONS[self.activation](h)) + bias
        return h.squeeze(2).expand(folds, variants, -1)
