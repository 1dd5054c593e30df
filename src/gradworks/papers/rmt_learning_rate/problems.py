"""Data and networks of the studies, drawn for a seed, and a plain reference training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Examples", "draw_batch", "examples", "network", "reference", "split"]

Examples = tuple["Tensor", "Tensor"]
CLASSES = 10


def _images(name: str, pool: int) -> Examples:
    """All images (n, 1, height, width) in [0, 1], and labels."""
    import torch
    import torch.nn.functional as F

    from gradworks.bench import data

    if name == "mnist5k":
        X, y, _ = data.mnist5k()
        images = torch.as_tensor(X).float().reshape(-1, 1, 28, 28) / 255
    else:
        X, y, _ = data.digits()
        images = torch.as_tensor(X).float().reshape(-1, 1, 8, 8) / 16
    return F.avg_pool2d(images, pool) if pool > 1 else images, torch.as_tensor(y).long()


def _standard(inputs: Tensor, reference: Tensor) -> Tensor:
    """Pixels centred and scaled; those that hardly vary are not blown up."""
    spread = reference.std(0) + 0.1 * reference.std()
    return (inputs - reference.mean(0)) / spread


def split(spec: Mapping[str, Any], generator: torch.Generator) -> tuple[Examples, ...]:
    """Return the data of a workload in parts, shuffled by a seed.

    Args:
        spec: ``data``, ``pool``, ``inputs`` (``"pixels"`` or ``"standard"``: by the first part's
            statistics) and ``parts``, the number of examples of each part but the last.
        generator: Fixes the shuffle.

    Returns:
        The parts; the last holds what is left.
    """
    import torch

    inputs, labels = _images(spec["data"], int(spec.get("pool", 1)))
    order = torch.randperm(len(labels), generator=generator)
    sizes = [int(n) for n in spec.get("parts", ())]
    rows = torch.split(order, [*sizes, len(labels) - sum(sizes)])
    if spec["inputs"] == "standard":
        inputs = _standard(inputs, inputs[rows[0]])
    return tuple((inputs[part], labels[part]) for part in rows)


def examples(spec: Mapping[str, Any], generator: torch.Generator) -> Examples:
    """Return all examples of a workload that holds nothing out.

    Args:
        spec: As for :func:`split`.
        generator: Fixes their order.
    """
    return split(spec, generator)[0]


def _layers(kind: str, shape: tuple[int, ...], hidden: int) -> list[nn.Module]:
    from torch import nn

    _, height, width = shape
    features = height * width
    if kind == "conv":
        left = ((height + 1) // 2 + 1) // 2 * (((width + 1) // 2 + 1) // 2)
        return [
            nn.Conv2d(1, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            nn.Conv2d(6, 12, 3, stride=2, padding=1),
            nn.BatchNorm2d(12),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(12 * left, CLASSES),
        ]
    first = [nn.Flatten(), nn.Linear(features, hidden), nn.Tanh()]
    second = [nn.Linear(hidden, hidden), nn.Tanh()] if kind == "deep" else []
    return [*first, *second, nn.Linear(hidden, CLASSES)]


def network(
    spec: Mapping[str, Any], shape: tuple[int, ...], generator: torch.Generator
) -> nn.Sequential:
    """Return a network with torch's initial weights for a seed; the global state is left alone.

    Args:
        spec: ``network``: ``"deep"`` (two hidden layers), ``"shallow"`` (one), both with tanh, or
            ``"conv"`` (two convolutions with batch normalisation); ``hidden``: units of a layer.
        shape: Of one input, ``(1, height, width)``.
        generator: Fixes the weights.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        return nn.Sequential(*_layers(spec["network"], shape, int(spec.get("hidden", 32))))


def draw_batch(data: Examples, size: int, generator: torch.Generator) -> Examples:
    """Return some examples, drawn without replacement.

    Args:
        data: All.
        size: How many.
        generator: Draws them.
    """
    import torch

    rows = torch.randperm(len(data[1]), generator=generator)[:size]
    return data[0][rows], data[1][rows]


def reference(
    model: nn.Module, data: Examples, spec: Mapping[str, Any], generator: torch.Generator
) -> None:
    """Train the network that is measured: plain SGD at a rate well below the largest.

    Args:
        model: Trained in place; ends in eval mode.
        data: Examples.
        spec: ``reference``: ``steps``, ``lr`` and ``batch_size``.
        generator: Draws the batches.

    Raises:
        Diverged: If the loss leaves the finite numbers.
    """
    import torch
    import torch.nn.functional as F

    from gradworks.bench.trial import Diverged

    how = spec["reference"]
    optimizer = torch.optim.SGD(model.parameters(), lr=float(how["lr"]))
    model.train()
    loss = torch.zeros(())
    for _ in range(int(how["steps"])):
        x, y = draw_batch(data, int(how["batch_size"]), generator)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    optimizer.zero_grad()
    model.eval()
    if not torch.isfinite(loss):
        raise Diverged(f"the reference training ended at a loss of {float(loss.detach())}")
