"""Grey patches and whole pictures of nine natural photographs, split by photograph."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from gradworks.bench import data

__all__ = ["patches", "photographs", "pieces"]

_LUMA = (0.299, 0.587, 0.114)
_LEAST = 0.02  # deviation of a patch: sky is no test of structure


@functools.cache
def _grey() -> Mapping[str, Tensor]:
    """All photographs by name, (height, width) from 0 to 1."""
    found = {}
    for read in (data.photographs, data.sample_images):
        pictures, names, _ = read()
        for name, picture in zip(names.tolist(), pictures):
            found[name] = torch.tensor(picture).float() @ torch.tensor(_LUMA) / 255
    return found


def photographs(names: Sequence[str]) -> dict[str, Tensor]:
    """Return whole photographs, (height, width) from 0 to 1.

    Args:
        names: As :func:`gradworks.bench.data.photographs` calls them.

    Raises:
        ValueError: If there is no photograph of that name.
    """
    unknown = sorted(set(names) - set(_grey()))
    if unknown:
        raise ValueError(f"names must be among {sorted(_grey())}, got {unknown}")
    return {name: _grey()[name] for name in names}


def patches(
    pictures: Mapping[str, Tensor], side: int, count: int, generator: Generator, *, shrunk: bool
) -> Tensor:
    """Return patches from random places, as many of each photograph.

    Args:
        pictures: What they are cut from, (height, width).
        side: Pixels of a side.
        count: Number of patches.
        generator: Source of the places.
        shrunk: Cut every other one from the photograph at half its size: more in it to see.

    Returns:
        (count, 1, side, side), none of them without structure.
    """
    sources: list[Tensor] = []
    for picture in pictures.values():
        sources.append(picture)
        if shrunk:
            sources.append(F.avg_pool2d(picture[None, None], 2)[0, 0])
    made: list[Tensor] = []
    while len(made) < count:
        picture = sources[len(made) % len(sources)]
        top, left = (
            int(torch.randint(size - side + 1, (), generator=generator)) for size in picture.shape
        )
        patch = picture[top : top + side, left : left + side]
        if float(patch.std()) >= _LEAST:
            made.append(patch)
    return torch.stack(made)[:, None].contiguous()


def pieces(pictures: Mapping[str, Tensor], side: int, spec: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the patches of all splits; they are the same for every arm and seed.

    Args:
        pictures: Unused names are left out.
        side: Pixels of a side.
        spec: ``pictures`` names the photographs of ``"train"``, ``"valid"`` and ``"test"``,
            ``counts`` the patches of each.
    """
    return {
        split: patches(
            {name: pictures[name] for name in names},
            side,
            int(spec["counts"][split]),
            Generator().manual_seed(number),
            shrunk=True,
        )
        for number, (split, names) in enumerate(spec["pictures"].items())
    }
