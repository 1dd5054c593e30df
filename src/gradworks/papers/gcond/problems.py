"""What is trained: data, network, named losses, and what is measured on held-out examples.

Masked reconstruction with two losses, L1 and 1 - SSIM, is the paper's setting: on digits here, on
crops of photographs from the bench. A pair of unlike losses (label and image) and fourteen losses
of one kind (functions of genes, from the bench) stand beside it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from gradworks.bench import data, models
from gradworks.bench.multitask import problem
from gradworks.bench.workloads import split_rows
from gradworks.losses.ms_ssim import ssim

__all__ = ["Batch", "Coder", "Problem", "pose"]

Batch = tuple[Tensor, Any]  # what goes into the network, and what the losses compare with
Loss = Callable[[Any, Any], Tensor]

_KERNEL = 7  # of SSIM: images have 20 pixels a side
_SHARE = 0.5  # of the patches that are hidden


@dataclass(frozen=True, eq=False)
class Problem:
    """One training problem.

    Attributes:
        model: Makes the network, its weights drawn from the generator.
        losses: By name, of the network's output and of the targets; means over examples.
        weights: Of the losses.
        rows: Number of training examples.
        batch: ``batch(rows, generator)`` draws what is hidden of these training examples.
        held: ``"valid"`` and ``"test"``, drawn once.
        measures: Figures of an output, before :attr:`loss`.
        probed: Images and labels to fit and to judge a linear classifier of codes; None where
            there is none.
    """

    model: Callable[[Generator], nn.Module]
    losses: Mapping[str, Loss]
    weights: Mapping[str, float]
    rows: int
    batch: Callable[[Tensor, Generator], Batch]
    held: Mapping[str, Batch]
    measures: Callable[[Any, Any], dict[str, Tensor]]
    probed: Mapping[str, tuple[Tensor, Tensor]] | None = None

    def loss(self, output: Any, target: Any) -> Tensor:
        """Return the weighted sum of the losses.

        Args:
            output: Of the network.
            target: What it is compared with.
        """
        return sum(
            (weight * self.losses[name](output, target) for name, weight in self.weights.items()),
            torch.zeros(()),
        )

    @torch.no_grad()
    def judge(self, model: nn.Module, split: str) -> dict[str, float]:
        """Return the figures of a held-out split.

        Args:
            model: The network.
            split: ``"valid"`` or ``"test"``.
        """
        inputs, target = self.held[split]
        output = model(inputs)
        found = {"loss": self.loss(output, target), **self.measures(output, target)}
        return {name: float(value) for name, value in found.items()}


class Coder(nn.Module):
    """A convolutional encoder and decoder, with a linear classifier of the codes where asked for.

    Args:
        channels: Of the images.
        width: Channels after the first convolution; the codes have twice as many.
        side: Pixels of a side, a multiple of 4; only for the classifier.
        classes: Of the classifier; 0 for none.
    """

    def __init__(self, channels: int, width: int, side: int = 0, classes: int = 0) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.LeakyReLU(0.1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(2 * width, 4 * width, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, 4 * channels, 3, 1, 1),
            nn.PixelShuffle(2),
        )
        self.head = nn.Linear(2 * width * (side // 4) ** 2, classes) if classes else None

    def forward(self, input: Tensor) -> Any:
        """Return the image, or class scores and the image.

        Args:
            input: (batch, channels, side, side).
        """
        codes = self.encoder(input)
        image = self.decoder(codes)
        return image if self.head is None else (self.head(codes.flatten(1)), image)


def pose(spec: Mapping[str, Any]) -> Problem:
    """Return the problem that a workload describes.

    Args:
        spec: ``kind`` is ``"digits"``, ``"pair"``, or ``"tasks"`` for a problem of
            ``gradworks.bench.multitask`` by its name; the rest are sizes.
    """
    return _posed(json.dumps(spec, sort_keys=True))


@functools.lru_cache(maxsize=4)
def _posed(written: str) -> Problem:
    """Read and cut once in a process: problems are not changed by training."""
    spec = json.loads(written)
    kinds = {"digits": _digits, "pair": _pair, "tasks": _tasks}
    return kinds[spec["kind"]](spec)


def _dissimilarity(output: Tensor, target: Tensor) -> Tensor:
    return 1 - ssim(output, target, data_range=1.0, kernel_size=_KERNEL)


def _reconstruction(output: Tensor, target: Tensor) -> dict[str, Tensor]:
    return {"l1": F.l1_loss(output, target), "dssim": _dissimilarity(output, target)}


def hidden(images: Tensor, patch: int, generator: Generator) -> Tensor:
    """Return images of which half the patches, drawn for each image, are black.

    Args:
        images: (batch, channels, side, side).
        patch: Pixels of a patch's side; divides the side.
        generator: Source of the draw.
    """
    count, grid = len(images), images.shape[-1] // patch
    order = torch.rand(count, grid * grid, generator=generator).argsort(1)
    seen = (order >= round(_SHARE * grid * grid)).to(images.dtype).view(count, 1, grid, grid)
    return images * seen.repeat_interleave(patch, 2).repeat_interleave(patch, 3)


def _masked(
    spec: Mapping[str, Any],
    train: Tensor,
    held: Mapping[str, Tensor],
    probed: Mapping[str, tuple[Tensor, Tensor]] | None = None,
) -> Problem:
    """Reconstruction of what was hidden, weights as in the authors' example."""
    patch, width = int(spec["patch"]), int(spec["width"])
    fixed = Generator().manual_seed(1)  # the same for every arm and seed

    def batch(rows: Tensor, generator: Generator) -> Batch:
        images = train[rows]
        return hidden(images, patch, generator), images

    def build(generator: Generator) -> nn.Module:
        return models.initialised(lambda: Coder(train.shape[1], width), generator)

    return Problem(
        model=build,
        losses={"l1": F.l1_loss, "ssim": _dissimilarity},
        weights={"l1": 0.85, "ssim": 0.15},
        rows=len(train),
        batch=batch,
        held={split: (hidden(images, patch, fixed), images) for split, images in held.items()},
        measures=_reconstruction,
        probed=probed,
    )


def _mnist() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The digits' own boxes of 20 x 20 pixels, from 0 to 1, labels, and the rows of each split."""
    pixels, labels, _ = data.mnist5k()
    parts = zip(("train", "valid", "test"), split_rows(labels, len(labels), seed=0))
    rows = {split: torch.from_numpy(part) for split, part in parts}
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 28, 28) / 255
    return images[:, :, 4:24, 4:24].contiguous(), torch.tensor(labels), rows


def _some(rows: Tensor, count: int) -> Tensor:
    """As many rows, evenly spread."""
    return rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()]


def _digits(spec: Mapping[str, Any]) -> Problem:
    images, labels, rows = _mnist()
    held = {split: images[_some(rows[split], spec["held"])] for split in ("valid", "test")}
    probed = None
    if "probe" in spec:
        chosen = {"train": _some(rows["train"], spec["probe"]), "test": rows["test"]}
        probed = {split: (images[few], labels[few]) for split, few in chosen.items()}
    return _masked(spec, images[rows["train"]], held, probed)


def _pair(spec: Mapping[str, Any]) -> Problem:
    """A label and the whole image from one that is half hidden."""
    images, labels, rows = _mnist()
    patch, width = int(spec["patch"]), int(spec["width"])
    train, known = images[rows["train"]], labels[rows["train"]]
    fixed = Generator().manual_seed(1)

    def batch(chosen: Tensor, generator: Generator) -> Batch:
        return hidden(train[chosen], patch, generator), (known[chosen], train[chosen])

    def kept(split: str) -> Batch:
        few = _some(rows[split], spec["held"])
        return hidden(images[few], patch, fixed), (labels[few], images[few])

    def measures(output: Any, target: Any) -> dict[str, Tensor]:
        wrong = (output[0].argmax(1) != target[0]).float().mean()
        entropy = F.cross_entropy(output[0], target[0])
        return {"error": wrong, "label": entropy, "l1": F.l1_loss(output[1], target[1])}

    return Problem(
        model=lambda generator: models.initialised(lambda: Coder(1, width, 20, 10), generator),
        losses={
            "label": lambda output, target: F.cross_entropy(output[0], target[0]),
            "image": lambda output, target: F.l1_loss(output[1], target[1]),
        },
        weights={"label": 1.0, "image": 10.0},  # of a size at the start
        rows=len(train),
        batch=batch,
        held={split: kept(split) for split in ("valid", "test")},
        measures=measures,
    )


def _tasks(spec: Mapping[str, Any]) -> Problem:
    """A multi-task problem of the bench, its weights those of the spec or equal ones."""
    found = problem(spec["name"])
    equal = dict.fromkeys(found.tasks, 1 / len(found.tasks))

    def one(task: str) -> Loss:
        return lambda output, target: found.losses[task](output[task], target[task])

    def measures(output: Any, target: Any) -> dict[str, Tensor]:
        errors = {task: found.errors[task](output[task], target[task]) for task in found.tasks}
        mean = torch.stack(list(errors.values())).mean()
        return {"error": mean, **(errors if "weights" in spec else {})}

    return Problem(
        model=found.model,
        losses={task: one(task) for task in found.tasks},
        weights=spec.get("weights", equal),
        rows=len(found.splits["train"][0]),
        batch=found.batch,
        held={split: found.splits[split] for split in ("valid", "test")},
        measures=measures,
    )
