"""The networks that are looked at, with the initial weights of a seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["network", "normed", "params_of", "weight_before_norm"]

SIDE = 8  # of an image
CLASSES = 10


def _block(layer: nn.Module, norm: nn.Module | None) -> list[nn.Module]:
    """A layer, its normalisation where it has one, and ReLU."""
    from torch import nn

    return [layer, *([] if norm is None else [norm]), nn.ReLU()]


def _mlp(hidden: list[int], norm: bool) -> list[nn.Module]:
    """Fully connected layers on the pixels."""
    from torch import nn

    layers: list[nn.Module] = [nn.Flatten()]
    width = SIDE * SIDE
    for h in hidden:
        layers += _block(nn.Linear(width, h), nn.BatchNorm1d(h) if norm else None)
        width = h
    return [*layers, nn.Linear(width, CLASSES)]


def _conv(channels: list[int], norm: bool) -> list[nn.Module]:
    """3x3 convolutions, the first two with stride 2, and a linear layer on 2x2 positions."""
    from torch import nn

    layers: list[nn.Module] = []
    width = 1
    for i, c in enumerate(channels):
        stride = 2 if i < 2 else 1
        convolution = nn.Conv2d(width, c, 3, stride=stride, padding=1)
        layers += _block(convolution, nn.BatchNorm2d(c) if norm else None)
        width = c
    return [*layers, nn.Flatten(), nn.Linear(4 * width, CLASSES)]


def network(spec: Mapping[str, Any], *, seed: int) -> nn.Sequential:
    """A network with torch's default initial weights for a seed; the global state is left alone.

    Args:
        spec: ``kind`` (``"mlp"`` or ``"conv"``), its ``widths`` (two or more channels) and whether
            it has batch ``norm``.
        seed: Fixes the weights.

    Returns:
        The network for 8x8 images and ten classes, in train mode.
    """
    import torch
    from torch import nn

    build = _mlp if spec["kind"] == "mlp" else _conv
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(*build([int(w) for w in spec["widths"]], bool(spec["norm"])))


def normed(model: nn.Module) -> bool:
    """Whether a model has batch normalisation.

    Args:
        model: The model.
    """
    from torch import nn

    return any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in model.modules())


def params_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters.

    Args:
        model: The model.

    Returns:
        Name to tensor, detached.
    """
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def weight_before_norm(model: nn.Sequential) -> dict[str, Tensor]:
    """The direction that scales the first layer, which batch normalisation follows.

    Args:
        model: With batch normalisation behind its first layer.

    Returns:
        The weight and bias of that layer, zeros elsewhere.
    """
    import torch

    first = next(name for name, _ in model.named_parameters()).rpartition(".")[0]
    return {
        name: p.detach().clone() if name.startswith(f"{first}.") else torch.zeros_like(p)
        for name, p in model.named_parameters()
    }
