"""The examples a study trains on, drawn for one seed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["draw"]


def _cifar10() -> tuple[Any, Any]:
    """CIFAR-10 from the user's own file.

    Raises:
        MissingData: If none is named, or it is not there.
    """
    import numpy as np

    from gradworks.bench.data import MissingData

    name = os.environ.get("GRADWORKS_CIFAR10", "")
    if not name or not Path(name).is_file():
        raise MissingData(
            "CIFAR-10 is no packaged data set: set GRADWORKS_CIFAR10 to an .npz file with "
            "X (n, 3, 32, 32) and y (n,), or run --preset full"
        )
    with np.load(name, allow_pickle=False) as file:
        return file["X"], file["y"]


def _images(name: str, pool: int) -> tuple[Tensor, Tensor]:
    """All images (n, channels, height, width) in [0, 1] as float64, and labels."""
    import torch
    import torch.nn.functional as F

    from gradworks.bench import data

    if name == "cifar10":
        X, y = _cifar10()
        images = torch.as_tensor(X).double() / 255
    elif name == "mnist5k":
        X, y, _ = data.mnist5k()
        images = torch.as_tensor(X).double().reshape(-1, 1, 28, 28) / 255
    else:
        X, y, _ = data.digits()
        images = torch.as_tensor(X).double().reshape(-1, 1, 8, 8) / 16
    if pool > 1:
        images = F.avg_pool2d(images, pool)
    return images, torch.as_tensor(y).long()


def draw(
    spec: Mapping[str, Any],
    seed: int,
    *,
    classes: int,
    separation: float | None = None,
    held_out: int = 0,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Examples to train on, as many of each class as can be, and others held out.

    Args:
        spec: The workload's.
        seed: Fixes the draw.
        classes: The first so many classes.
        separation: Of blobs.
        held_out: How many to hold out; 0 for none.

    Returns:
        Inputs and labels to train on; inputs and labels held out.
    """
    import torch

    from gradworks.bench import data

    n = int(spec["examples"])
    generator = torch.Generator().manual_seed(seed)
    if spec["data"] == "blobs":
        X, y, _ = data.blobs(
            n=n + held_out,
            classes=classes,
            features=int(spec["features"]),
            separation=float(spec["separation"] if separation is None else separation),
            seed=seed % 2**32,
        )
        inputs, labels = torch.as_tensor(X).double(), torch.as_tensor(y).long()
    else:
        inputs, labels = _images(spec["data"], int(spec.get("pool", 1)))
    order = torch.randperm(len(labels), generator=generator)
    inputs, labels = inputs[order], labels[order]
    train = _balanced(labels, classes, n)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[train] = True
    rest = ((~chosen) & (labels < classes)).nonzero()[:held_out, 0]
    return (inputs[train], labels[train]), (inputs[rest], labels[rest])


def _balanced(labels: Tensor, classes: int, n: int) -> Tensor:
    """Positions of n examples of the first classes, their counts as equal as the data allow."""
    import torch

    of_class: Sequence[Tensor] = [(labels == c).nonzero()[:, 0] for c in range(classes)]
    chosen: list[Tensor] = []
    left = n
    for rank, positions in enumerate(sorted(of_class, key=len)):
        share = min(len(positions), left // (classes - rank))
        chosen.append(positions[:share])
        left -= share
    return torch.cat(chosen).sort().values
