"""The images: digits to train on, and the test images as they are shifted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["SHIFTS", "draw", "foreign", "shifted", "with_wrong_labels"]

TRAIN = 1000  # of 1,797 digits; the others are the test set
_MARGIN = 4  # empty pixels around an MNIST digit

Examples = tuple["Tensor", "Tensor"]


def draw(seed: int) -> tuple[Examples, Examples]:
    """Split scikit-learn's digits.

    Args:
        seed: Fixes the split.

    Returns:
        1,000 images (n, 1, 8, 8) in [0, 1] with labels to train on; the other 797.
    """
    import torch

    from gradworks.bench import data

    X, y, _ = data.digits()
    images = torch.as_tensor(X).float().reshape(-1, 1, 8, 8) / 16
    labels = torch.as_tensor(y).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    train, test = order[:TRAIN], order[TRAIN:]
    return (images[train], labels[train]), (images[test], labels[test])


def foreign(count: int, generator: torch.Generator) -> Examples:
    """The second data set: images of the MNIST sample at the digits' size.

    Args:
        count: How many.
        generator: Draws them.

    Returns:
        Images (count, 1, 8, 8) in [0, 1] without their margins, and labels.
    """
    import torch
    import torch.nn.functional as F

    from gradworks.bench import data

    X, y, _ = data.mnist5k()
    rows = torch.randperm(len(y), generator=generator)[:count]
    images = torch.as_tensor(X)[rows].float().reshape(-1, 1, 28, 28) / 255
    inner = images[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return F.adaptive_avg_pool2d(inner, 8), torch.as_tensor(y).long()[rows]


def with_wrong_labels(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Replace some labels by other classes.

    Args:
        labels: Classes from 0 to 9.
        share: Of the labels, each of which becomes another class.
        generator: Draws them.

    Returns:
        New labels.
    """
    import torch

    count = round(share * len(labels))
    rows = torch.randperm(len(labels), generator=generator)[:count]
    away = torch.randint(1, 10, (count,), generator=generator)
    wrong = labels.clone()
    wrong[rows] = (labels[rows] + away) % 10
    return wrong


# -- shifts ------------------------------------------------------------------------------------


def _noise(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise with this standard deviation."""
    import torch

    return images + level * torch.randn(images.shape, generator=generator)


def _rotation(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Turned about the centre by these degrees."""
    import math

    import torch
    import torch.nn.functional as F

    c, s = math.cos(math.radians(level)), math.sin(math.radians(level))
    matrix = torch.tensor([[c, -s, 0.0], [s, c, 0.0]]).expand(len(images), 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _contrast(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Distances from each image's mean multiplied by this."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + level * (images - mean)


def _translation(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Moved to the right by so many pixels; what comes in is empty."""
    import torch.nn.functional as F

    step = int(level)
    return F.pad(images, (step, 0))[..., : images.shape[-1]]


SHIFTS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "noise": _noise,
    "rotation": _rotation,
    "contrast": _contrast,
    "translation": _translation,
}


def shifted(examples: Examples, kind: str, level: float, generator: torch.Generator) -> Examples:
    """Return the test set under a shift.

    Args:
        examples: Images and labels.
        kind: One of ``SHIFTS``, or ``"mnist"`` for as many images of the other data set.
        level: How strong; noise of level 0 changes nothing.
        generator: Of noise, or of the draw.

    Returns:
        Images and labels.
    """
    images, labels = examples
    if kind == "mnist":
        return foreign(len(labels), generator)
    return SHIFTS[kind](images, level, generator), labels
