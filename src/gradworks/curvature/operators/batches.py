"""Data as the operators see it: re-iterable batches, cut into microbatches, counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Batches", "Microbatch"]


@dataclass(frozen=True)
class Microbatch:
    """One piece of one batch: what a model and a loss are called with."""

    batch: int
    piece: int
    size: int
    inputs: Any
    targets: Any

    @property
    def label(self) -> str:
        """How errors call it."""
        return f"batch {self.batch}" + (f", microbatch {self.piece}" if self.piece else "")

    def call(self, model: Any) -> Any:
        """Apply a callable to the inputs: a sequence is unpacked, a mapping given by keyword."""
        if isinstance(self.inputs, (tuple, list)):
            return model(*self.inputs)
        if isinstance(self.inputs, Mapping):
            return model(**self.inputs)
        return model(self.inputs)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a nest of tuples, lists and mappings."""  # noqa: DOC402
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _examples(inputs: Any, targets: Any, label: str) -> int:
    """Length of the first dimension of the first tensor that has one, targets first."""
    for tensor in (*_tensors(targets), *_tensors(inputs)):
        if tensor.dim() > 0:
            if tensor.shape[0] == 0:
                raise ValueError(f"data has no example in {label}; leave empty batches out")
            return tensor.shape[0]
    raise ValueError(
        f"data has no tensor with a batch dimension in {label}; "
        "give inputs and targets whose first dimension counts examples"
    )


def _cut(value: Any, n: int, low: int, high: int) -> Any:
    """Rows low:high of every tensor with n rows in a nest; everything else as it is."""
    if isinstance(value, Tensor):
        return value[low:high] if value.dim() > 0 and value.shape[0] == n else value
    if isinstance(value, Mapping):
        return {key: _cut(item, n, low, high) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_cut(item, n, low, high) for item in value)
    if isinstance(value, list):
        return [_cut(item, n, low, high) for item in value]
    return value


def _is_pair(data: Any) -> bool:
    """One ``(inputs, targets)``: a tuple of two; two tuples of two are two batches."""
    if not isinstance(data, tuple) or len(data) != 2:
        return False
    return not all(isinstance(part, tuple) and len(part) == 2 for part in data)


class Batches:
    """Batches that can be gone through again and again.

    Args:
        data: One ``(inputs, targets)`` tuple or a re-iterable of such pairs. A tuple of two tuples
            of two is read as two batches; put a single batch of such a form into a list.
        device: Where the model lives; every tensor must be there.
        microbatch_size: Largest number of examples at once; ``None`` for whole batches.

    Raises:
        TypeError: A one-shot iterator or something that cannot be iterated over.
        ValueError: Empty data, or ``microbatch_size`` below 1.
    """

    def __init__(
        self, data: Any, *, device: torch.device, microbatch_size: int | None = None
    ) -> None:
        if microbatch_size is not None and (
            isinstance(microbatch_size, bool)
            or not isinstance(microbatch_size, int)
            or microbatch_size < 1
        ):
            raise ValueError(
                f"microbatch_size must be an integer of at least 1 or None, got {microbatch_size!r}"
            )
        if isinstance(data, Iterator):
            raise TypeError(
                f"data must be re-iterable, got a one-shot {type(data).__name__}; "
                "pass list(data) or the DataLoader itself"
            )
        if isinstance(data, (Tensor, Mapping, str)) or not (
            isinstance(data, Iterable) or hasattr(data, "__getitem__")
        ):
            raise TypeError(
                "data must be (inputs, targets) or a re-iterable of such pairs, "
                f"got {type(data).__name__}"
            )
        self._data: Any = [data] if _is_pair(data) else data
        if hasattr(self._data, "__len__") and len(self._data) == 0:
            raise ValueError("data is empty; give at least one (inputs, targets) batch")
        self._device = device
        self._microbatch_size = microbatch_size

    def __iter__(self) -> Iterator[Microbatch]:
        for index, pair in enumerate(self._data):
            label = f"batch {index}"
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(
                    f"{label} of data must be an (inputs, targets) pair, got "
                    f"{type(pair).__name__}"
                    + (f" of length {len(pair)}" if isinstance(pair, (tuple, list)) else "")
                )
            inputs, targets = pair
            n = _examples(inputs, targets, label)
            for tensor in _tensors((inputs, targets)):
                if tensor.device != self._device:
                    raise ValueError(
                        f"{label} of data is on {tensor.device}, the parameters on "
                        f"{self._device}; move one of them, e.g. "
                        "[(x.to(device), y.to(device)) for x, y in loader]"
                    )
            step = self._microbatch_size or n
            for piece, low in enumerate(range(0, n, step)):
                high = min(n, low + step)
                if (low, high) == (0, n):
                    yield Microbatch(index, 0, n, inputs, targets)
                else:
                    yield Microbatch(
                        index,
                        piece,
                        high - low,
                        _cut(inputs, n, low, high),
                        _cut(targets, n, low, high),
                    )

    @property
    def single(self) -> bool:
        """Surely one microbatch a pass."""
        return (
            hasattr(self._data, "__len__")
            and len(self._data) == 1
            and self._microbatch_size is None
        )

    @property
    def generators(self) -> list[torch.Generator]:
        """Generators that going through the data advances."""
        found = [getattr(self._data, "generator", None)]
        found.append(getattr(getattr(self._data, "sampler", None), "generator", None))
        unique: list[torch.Generator] = []
        for g in found:
            if isinstance(g, torch.Generator) and not any(g is u for u in unique):
                unique.append(g)
        return unique
