"""Problems with several tasks and one trunk, by name, on real data.

===================  ================================================================  ==========
name                 tasks                                                             network
===================  ================================================================  ==========
multi_digits         two overlaid digits: the left one's class, the right one's        CNN
multi_digits_3       the same, and the image again from the features, loss times 10    CNN
yeast14              14 functions of yeast genes, yes or no                            MLP
solar_flare          counts of flares of three sizes                                   MLP
masked_patches       crops of photographs, half hidden: L1 and 1 - SSIM of the whole   conv coder
===================  ================================================================  ==========

The test split is the same for every seed; the seed divides the rest into training and validation
data. Photographs are divided as wholes, once for all seeds.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from gradworks.bench import data
from gradworks.bench.measures import class_error
from gradworks.bench.multitask.definition import SPLITS, Measure, MultiTaskProblem, Split
from gradworks.bench.multitask.measures import poisson_deviance, ranking_error
from gradworks.bench.multitask.networks import builder
from gradworks.bench.workloads import UnknownTarget, split_rows

if TYPE_CHECKING:
    import numpy as np

__all__ = ["NAMES", "problem"]


def problem(name: str, seed: int = 0) -> MultiTaskProblem:
    """Return a problem.

    Args:
        name: One of ``NAMES``.
        seed: Divides training from validation data.

    Raises:
        UnknownTarget: If there is no such problem.
        MissingData: If the package of its data is not installed.

    Example:
        >>> from gradworks.bench.multitask import problem
        >>> found = problem("multi_digits")
        >>> found.tasks
        ('left', 'right')
    """  # noqa: DOC502
    if name not in _BUILDERS:
        near = difflib.get_close_matches(name, NAMES, n=2, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise UnknownTarget(f"no problem is called {name!r}{hint} Known: {', '.join(NAMES)}")
    return _built(name, int(seed))


@functools.lru_cache(maxsize=4)
def _built(name: str, seed: int) -> MultiTaskProblem:
    """Read and cut once in a process: training changes no problem."""
    return _BUILDERS[name](seed)


# ---------------------------------------------------------------- two digits in one image

_CANVAS, _SHIFT = 36, 8  # digits of 28 x 28 pixels at two corners: they overlap in the middle
_PAIRS = {"train": 6000, "valid": 1000, "test": 1000}
_RECONSTRUCTION = 10.0  # weight of the squared error of the image


@functools.lru_cache(maxsize=1)
def _digits() -> tuple[Tensor, np.ndarray[Any, Any]]:
    pixels, labels, _ = data.mnist5k()
    return torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 28, 28) / 255, labels


def _overlaid(
    images: Tensor, labels: Tensor, rows: Tensor, count: int, generator: Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Pairs of digits drawn from ``rows``, at half resolution, and what the tasks want."""
    left, right = (rows[torch.randint(len(rows), (count,), generator=generator)] for _ in "lr")
    canvas = torch.zeros(count, 1, _CANVAS, _CANVAS)
    canvas[:, :, : -_SHIFT or None, : -_SHIFT or None] = images[left]
    corner = canvas[:, :, _SHIFT:, _SHIFT:]
    torch.maximum(corner, images[right], out=corner)
    small = F.avg_pool2d(canvas, 2)
    return small, {"left": labels[left], "right": labels[right], "image": small}


def _multi_digits(seed: int, *, image: bool = False) -> MultiTaskProblem:
    images, classes = _digits()
    labels = torch.tensor(classes)
    tasks = ("left", "right", "image") if image else ("left", "right")
    splits: dict[str, Split] = {}
    for i, (split, rows) in enumerate(zip(SPLITS, split_rows(classes, len(classes), seed))):
        draw = Generator().manual_seed(1 if split == "test" else 1000 + 10 * seed + i)
        inputs, wanted = _overlaid(images, labels, torch.from_numpy(rows), _PAIRS[split], draw)
        splits[split] = inputs, {task: wanted[task] for task in tasks}
    side = _CANVAS // 2

    def trunk() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 64),
            nn.ReLU(),
        )

    def heads() -> dict[str, nn.Module]:
        found: dict[str, nn.Module] = {task: nn.Linear(64, 10) for task in ("left", "right")}
        if image:
            found["image"] = nn.Sequential(
                nn.Linear(64, side * side), nn.Sigmoid(), nn.Unflatten(1, (1, side, side))
            )
        return found

    losses: dict[str, Measure] = {"left": F.cross_entropy, "right": F.cross_entropy}
    errors: dict[str, Measure] = {"left": class_error, "right": class_error}
    if image:
        losses["image"] = lambda output, target: _RECONSTRUCTION * F.mse_loss(output, target)
        errors["image"] = F.mse_loss
    return MultiTaskProblem(
        name="multi_digits_3" if image else "multi_digits",
        tasks=tasks,
        model=builder(trunk, tasks, heads),
        splits=splits,
        losses=losses,
        errors=errors,
        batch_size=64,
        steps=300,
        data=("mnist5k",),
    )


# ---------------------------------------------------------------- tables with several outputs


def _table(
    seed: int,
    name: str,
    read: Callable[[], tuple[Any, Any, Any]],
    tasks: tuple[str, ...],
    loss: Measure,
    error: Measure,
    *,
    width: int,
    batch_size: int,
    steps: int,
) -> MultiTaskProblem:
    """A network of two layers under as many linear heads as there are columns."""
    features, wanted, meta = read()
    inputs = torch.tensor(features, dtype=torch.float32)
    columns = torch.tensor(wanted, dtype=torch.float32)
    rows = [torch.from_numpy(part) for part in split_rows(None, len(inputs), seed)]
    seen = inputs[rows[0]]
    deviation = seen.std(0)
    inputs = (inputs - seen.mean(0)) / torch.where(deviation > 0, deviation, 1.0)
    splits = {
        split: (inputs[part], {task: columns[part, i] for i, task in enumerate(tasks)})
        for split, part in zip(SPLITS, rows)
    }

    def trunk() -> nn.Module:
        return nn.Sequential(
            nn.Linear(inputs.shape[1], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )

    def heads() -> dict[str, nn.Module]:
        return {task: nn.Sequential(nn.Linear(width, 1), nn.Flatten(0)) for task in tasks}

    return MultiTaskProblem(
        name=name,
        tasks=tasks,
        model=builder(trunk, tasks, heads),
        splits=splits,
        losses=dict.fromkeys(tasks, loss),
        errors=dict.fromkeys(tasks, error),
        batch_size=batch_size,
        steps=steps,
        data=(meta.name,),
    )


def _yeast(seed: int) -> MultiTaskProblem:
    return _table(
        seed,
        "yeast14",
        data.yeast,
        tuple(f"function{i}" for i in range(1, 15)),
        F.binary_cross_entropy_with_logits,
        ranking_error,
        width=64,
        batch_size=64,
        steps=150,
    )


def _solar(seed: int) -> MultiTaskProblem:
    return _table(
        seed,
        "solar_flare",
        data.solarflare,
        ("c_class", "m_class", "x_class"),
        F.poisson_nll_loss,
        poisson_deviance,
        width=16,
        batch_size=64,
        steps=150,
    )


# ---------------------------------------------------------------- two losses of one output

_SIDE, _PATCH, _HIDDEN = 32, 8, 0.5
_CROPS = {"train": 2000, "valid": 200, "test": 200}
_HELD = {"valid": ("coffee",), "test": ("astronaut", "flower")}
_KERNEL = 7


def hide_patches(images: Tensor, generator: Generator) -> Tensor:
    """Return images of which half the patches, drawn for each image, are black.

    Args:
        images: ``(batch, channels, side, side)``; the side is a multiple of 8.
        generator: Source of the draw.
    """
    grid = images.shape[-1] // _PATCH
    order = torch.rand(len(images), grid * grid, generator=generator).argsort(1)
    seen = (order >= round(_HIDDEN * grid * grid)).to(images.dtype)
    mask = seen.view(-1, 1, grid, grid)
    return images * F.interpolate(mask, scale_factor=_PATCH, mode="nearest")


def _dissimilarity(output: Tensor, target: Tensor) -> Tensor:
    from gradworks.losses.ms_ssim import ssim

    found: Tensor = 1 - ssim(output, target, data_range=1.0, kernel_size=_KERNEL)
    return found


def _crops(pictures: list[Tensor], count: int, generator: Generator) -> Tensor:
    cut = []
    for i in range(count):
        picture = pictures[i % len(pictures)]
        top, left = (
            int(torch.randint(size - _SIDE + 1, (), generator=generator))
            for size in picture.shape[:2]
        )
        cut.append(picture[top : top + _SIDE, left : left + _SIDE].permute(2, 0, 1))
    return torch.stack(cut).float() / 255


def _masked(seed: int) -> MultiTaskProblem:
    found: dict[str, Tensor] = {}
    for read in (data.photographs, data.sample_images):
        pictures, names, _ = read()
        found |= {name: torch.tensor(p) for name, p in zip(names.tolist(), pictures)}
    held = {name for names in _HELD.values() for name in names}
    chosen = {split: [found[n] for n in sorted(found) if n in _HELD[split]] for split in _HELD}
    chosen["train"] = [found[n] for n in sorted(found) if n not in held]
    tasks = ("l1", "dssim")
    draw = Generator().manual_seed(2)  # photographs are divided once for all seeds
    splits: dict[str, Split] = {}
    for split in SPLITS:
        images = _crops(chosen[split], _CROPS[split], draw)
        inputs = images if split == "train" else hide_patches(images, draw)
        splits[split] = inputs, dict.fromkeys(tasks, images)

    def coder() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.Sigmoid(),
        )

    measures: dict[str, Measure] = {"l1": F.l1_loss, "dssim": _dissimilarity}
    return MultiTaskProblem(
        name="masked_patches",
        tasks=tasks,
        model=builder(coder, tasks, dict),
        splits=splits,
        losses=measures,
        errors=measures,
        batch_size=32,
        steps=150,
        data=("photographs", "sample_images"),
        corrupt=hide_patches,
    )


_BUILDERS: Mapping[str, Callable[[int], MultiTaskProblem]] = {
    "multi_digits": _multi_digits,
    "multi_digits_3": functools.partial(_multi_digits, image=True),
    "yeast14": _yeast,
    "solar_flare": _solar,
    "masked_patches": _masked,
}

NAMES: tuple[str, ...] = tuple(_BUILDERS)
