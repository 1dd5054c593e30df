"""Data of several domains: a computed shift, coloured digits, rotated digits, recording sessions.

Every builder draws with a generator and returns a :class:`Problem`: domains to train on, one to
choose settings by (never with the colours, angles or sessions of the test), and domains to test.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["Domain", "Problem", "coloured", "image_folders", "pose", "rotated", "sessions", "shift"]

BOTH = 2  # the colour of an image in both channels
LIT = 0.01  # pixels that fewer images light are left out: 74 of 196, with 0.2 % of the light


@dataclass(frozen=True)
class Domain:
    """Examples of one domain.

    Attributes:
        inputs: ``(n, d)``; of coloured images the pixels, without their channels.
        targets: ``(n,)`` integer labels.
        colours: ``(n,)``: the channel that holds each image, 2 for both; None for plain inputs.
    """

    inputs: Tensor
    targets: Tensor
    colours: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, index: Tensor) -> Domain:
        """Return some of the examples.

        Args:
            index: Their positions.
        """
        colours = None if self.colours is None else self.colours[index]
        return Domain(self.inputs[index], self.targets[index], colours)


@dataclass(frozen=True)
class Problem:
    """What one network is trained, chosen and tested on.

    Attributes:
        train: At least two domains.
        valid: For choosing settings.
        test: Unseen domains, by name.
        classes: Number of classes; 2 means one logit.
        channels: 2 for coloured images, 1 otherwise.
    """

    train: tuple[Domain, ...]
    valid: Domain
    test: Mapping[str, Domain]
    classes: int
    channels: int = 1

    @property
    def width(self) -> int:
        """Number of inputs, channels included."""
        return self.train[0].inputs.shape[1] * self.channels


def _chance(probability: float, count: int, generator: torch.Generator) -> Tensor:
    """Integers 0 or 1."""
    return (torch.rand(count, generator=generator) < probability).long()


def _joined(domains: list[Domain]) -> Domain:
    """Domains below one another."""
    return Domain(torch.cat([d.inputs for d in domains]), torch.cat([d.targets for d in domains]))


# -- a computed shift ------------------------------------------------------------------------------


def shift(spec: Mapping[str, Any], generator: torch.Generator) -> Problem:
    """Return two features of +-1 with a little noise: one stable, one whose agreement changes.

    Args:
        spec: ``examples`` a domain, ``stable``, ``spurious`` of the training domains, ``valid`` and
            ``test``: how often a feature agrees with the label.
        generator: Draws.
    """

    def domain(spurious: float) -> Domain:
        n = int(spec["examples"])
        y = _chance(0.5, n, generator)
        agrees = [_chance(p, n, generator) for p in (float(spec["stable"]), spurious)]
        signs = (2.0 * torch.stack(agrees, 1) - 1.0) * (2.0 * y[:, None] - 1.0)
        return Domain(signs + 0.1 * torch.randn(n, 2, generator=generator), y)

    train = tuple(domain(float(p)) for p in spec["spurious"])
    return Problem(
        train, domain(float(spec["valid"])), {"reversed": domain(float(spec["test"]))}, 2
    )


# -- digits ----------------------------------------------------------------------------------------


@functools.cache
def _digits() -> tuple[Tensor, Tensor]:
    """The MNIST sample: images from 0 to 1 and labels."""
    from gradworks.bench import data

    X, y, _ = data.mnist5k()
    return torch.tensor(X).float().div_(255.0).view(-1, 28, 28), torch.tensor(y)


def _coloured(pixels: Tensor, digits: Tensor, flip: float, noise: float, g: Any) -> Domain:
    """Label by digit, flipped; colour by label, flipped."""
    labels = (digits < 5).long() ^ _chance(noise, len(digits), g)
    colours = labels ^ _chance(flip, len(digits), g)
    return Domain(pixels, labels, colours)


def coloured(spec: Mapping[str, Any], generator: torch.Generator) -> Problem:
    """Return coloured digits: the colour predicts the label better than the shape, until the test.

    Args:
        spec: ``flips`` of the two training domains, ``valid`` and ``test``; ``noise`` of the
            labels; ``held_out`` images for validation and ``tested`` for the test. With ``share``
            the first domain takes that share of the digits below 5 and the rest of the others:
            the labels are out of balance in opposite ways.
        generator: Draws.
    """
    images, digits = _digits()
    order = torch.randperm(len(digits), generator=generator)
    pixels = images[order, ::2, ::2].flatten(1)
    pixels = pixels[:, (images[:, ::2, ::2].flatten(1) > 0).float().mean(0) > LIT]
    digits = digits[order]
    tested, held_out = int(spec["tested"]), int(spec["held_out"])
    pool = torch.arange(tested + held_out, len(digits))
    if "share" in spec:
        low, high = (pool[(digits[pool] < 5) == side] for side in (True, False))
        cut = [round(float(spec["share"]) * len(low)), round((1 - spec["share"]) * len(high))]
        parts = [torch.cat([low[: cut[0]], high[: cut[1]]])]
        parts.append(torch.cat([low[cut[0] :], high[cut[1] :]]))
    else:
        parts = [pool[::2], pool[1::2]]
    noise = float(spec["noise"])

    def of(index: Tensor, flip: float) -> Domain:
        return _coloured(pixels[index], digits[index], flip, noise, generator)

    train = tuple(of(index, float(flip)) for index, flip in zip(parts, spec["flips"], strict=True))
    valid = of(torch.arange(tested, tested + held_out), float(spec["valid"]))
    test = of(torch.arange(tested), float(spec["test"]))
    gray = Domain(test.inputs, test.targets, torch.full_like(test.targets, BOTH))
    return Problem(train, valid, {"reversed": test, "gray": gray}, 2, channels=2)


@functools.cache
def _turned(angles: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The digits at several angles, halved to 14 x 14: (angles, 5000, 196), and their labels."""
    import torch.nn.functional as F

    images, digits = _digits()
    made = []
    for angle in angles:
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0]]).expand(len(images), 2, 3)
        grid = F.affine_grid(turn, [len(images), 1, 28, 28], align_corners=False)
        turned = F.grid_sample(images[:, None], grid, align_corners=False)
        made.append(F.avg_pool2d(turned, 2).flatten(1))
    return torch.stack(made), digits


def _split(domain: Domain, share: float, generator: torch.Generator) -> tuple[Domain, Domain]:
    """A random share of a domain held out: what is kept, what is held out."""
    order = torch.randperm(len(domain), generator=generator)
    cut = round(share * len(domain))
    return domain.rows(order[cut:]), domain.rows(order[:cut])


def rotated(spec: Mapping[str, Any], generator: torch.Generator) -> Problem:
    """Return digits turned by an angle a domain; no image is in two domains.

    Args:
        spec: ``angles`` of all domains, ``test`` those that are not trained on, and the share of
            each training domain that is ``held_out``.
        generator: Draws.
    """
    angles = tuple(int(a) for a in spec["angles"])
    turned, digits = _turned(angles)
    parts = torch.randperm(len(digits), generator=generator).tensor_split(len(angles))
    whole = {a: Domain(turned[i][parts[i]], digits[parts[i]]) for i, a in enumerate(angles)}
    kept, held = [], []
    for angle, domain in whole.items():
        if angle not in spec["test"]:
            rest, out = _split(domain, float(spec["held_out"]), generator)
            kept.append(rest)
            held.append(out)
    test = {f"turned_{a}": whole[int(a)] for a in spec["test"]}
    return Problem(tuple(kept), _joined(held), test, 10)


# -- recordings ------------------------------------------------------------------------------------


@functools.cache
def _recordings(window: int) -> dict[str, Domain]:
    """Logarithms of the covariances of muscle signals, by session."""
    from gradworks.bench import data

    X, y, meta = data.emg_covariances(window, window)  # windows do not overlap
    if meta.groups is None:
        raise RuntimeError("emg_covariances() gave no sessions")
    values, vectors = torch.linalg.eigh(torch.tensor(X))
    logs = (vectors * values.log()[:, None, :]) @ vectors.mT
    rows, columns = torch.triu_indices(8, 8).unbind()
    # off-diagonal entries count twice in the norm of a matrix
    flat = logs[:, rows, columns] * torch.where(rows == columns, 1.0, math.sqrt(2.0))
    labels, groups = torch.tensor(y), torch.tensor(meta.groups)
    return {
        name: Domain(flat[groups == i].float(), labels[groups == i])
        for i, name in enumerate(meta.group_names)
    }


def sessions(spec: Mapping[str, Any], generator: torch.Generator) -> Problem:
    """Return muscle signals of three sessions to train on and of a fourth to test.

    Args:
        spec: ``window`` in rows, the share ``held_out``, and ``target``, the unseen session.
        generator: Draws.
    """
    whole = _recordings(int(spec["window"]))
    parts = [
        _split(domain, float(spec["held_out"]), generator)
        for name, domain in whole.items()
        if name != spec["target"]
    ]
    seen = torch.cat([kept.inputs for kept, _ in parts])
    mean, scale = seen.mean(0), seen.std(0)

    def scaled(domain: Domain) -> Domain:
        return Domain((domain.inputs - mean) / scale, domain.targets)

    return Problem(
        tuple(scaled(kept) for kept, _ in parts),
        scaled(_joined([held for _, held in parts])),
        {str(spec["target"]): scaled(whole[str(spec["target"])])},
        5,
    )


_KINDS: Mapping[str, Callable[[Mapping[str, Any], torch.Generator], Problem]] = {
    "shift": shift,
    "coloured": coloured,
    "rotated": rotated,
    "sessions": sessions,
}


def pose(spec: Mapping[str, Any], generator: torch.Generator) -> Problem:
    """Return the problem that a workload names.

    Args:
        spec: ``kind`` and what its builder asks for.
        generator: Draws.
    """
    return _KINDS[spec["kind"]](spec, generator)


# -- the published benchmarks ----------------------------------------------------------------------

_SUFFIXES = {".jpg", ".jpeg", ".png"}


def image_folders(root: str | Path) -> dict[str, list[tuple[Path, int]]]:
    """List a benchmark of images in the layout of its authors: ``domain/class/image.jpg``.

    Args:
        root: Folder of PACS, VLCS, OfficeHome or DomainNet.

    Returns:
        Files and class numbers by domain; classes are numbered in the order of their names.

    Raises:
        ValueError: If there are fewer than two domains, or domains differ in their classes.
    """
    root = Path(root)
    domains = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    if len(domains) < 2:
        raise ValueError(
            f"{root} must hold one folder for each of at least two domains, found {len(domains)}"
        )
    names = {d.name: sorted(p.name for p in d.iterdir() if p.is_dir()) for d in domains}
    first = names[domains[0].name]
    for domain, found in names.items():
        if found != first or not found:
            raise ValueError(
                f"{root / domain} must hold the {len(first)} class folders of "
                f"{domains[0].name}, found {len(found)}"
            )
    return {
        domain.name: [
            (path, label)
            for label, name in enumerate(first)
            for path in sorted((domain / name).iterdir())
            if path.suffix.lower() in _SUFFIXES
        ]
        for domain in domains
    }
