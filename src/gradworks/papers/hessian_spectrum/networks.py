"""The networks of the studies, with the initial weights of a seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["network", "state_of"]


def _layers(spec: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> list[nn.Module]:
    """Two hidden layers, or two convolutions and a linear layer."""
    from torch import nn

    if spec["kind"] == "mlp":
        h = int(spec["hidden"])
        features = 1
        for size in shape:
            features *= size
        return [
            nn.Flatten(),
            nn.Linear(features, h),
            nn.ReLU(),
            nn.Linear(h, h),
            nn.ReLU(),
            nn.Linear(h, classes),
        ]
    a, b = (int(c) for c in spec["channels"])
    channels, height, width = shape
    first: list[nn.Module] = [nn.Conv2d(channels, a, 3, stride=2, padding=1)]
    second: list[nn.Module] = [nn.Conv2d(a, b, 3, stride=2, padding=1)]
    if spec["norm"]:
        first.append(nn.BatchNorm2d(a))
        second.append(nn.BatchNorm2d(b))
    quarter = ((height + 1) // 2 + 1) // 2, ((width + 1) // 2 + 1) // 2
    head = nn.Linear(b * quarter[0] * quarter[1], classes)
    return [*first, nn.ReLU(), *second, nn.ReLU(), nn.Flatten(), head]


def network(
    spec: Mapping[str, Any],
    shape: tuple[int, ...],
    classes: int,
    *,
    seed: int,
    dtype: torch.dtype,
) -> nn.Sequential:
    """A network with torch's default initial weights for a seed; the global state is left alone.

    Args:
        spec: ``kind`` (``"mlp"`` or ``"conv"``) and its sizes.
        shape: Of one input.
        classes: Outputs.
        seed: Fixes the weights.
        dtype: Of the weights.

    Returns:
        The network, in train mode.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(*_layers(spec, shape, classes)).to(dtype)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of everything in a model.

    Args:
        model: The model.

    Returns:
        Its state dict, detached.
    """
    return {name: t.detach().clone() for name, t in model.state_dict().items()}
