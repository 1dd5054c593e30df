"""Data by example: random batches of any size, and all of it in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data import default_collate as collate_examples

from gradworks.curvature.operators.batches import Batches
from gradworks.curvature.operators.surroundings import RandomState

__all__ = ["CHUNK", "Examples"]

Pair = tuple[Any, Any]

# Examples in one piece of a pass over everything.
CHUNK = 1024


class Examples:
    """Examples that can be drawn at random and gone through in order.

    Args:
        data: One ``(inputs, targets)`` tuple, a re-iterable of such batches, a DataLoader, or a
            torch ``Dataset`` of ``(input, target)`` examples. Batches of a re-iterable are kept; a
            DataLoader over an indexed data set is drawn from with its own ``collate_fn``.
        device: Where the model lives.

    Raises:
        TypeError: A one-shot iterator or something that cannot be iterated over.
        ValueError: No example, or one on another device.
    """

    def __init__(self, data: Any, *, device: torch.device) -> None:
        self._source: Any = None
        self._collate: Any = collate_examples
        if isinstance(data, DataLoader) and _draws_all(data):
            self._source, self._collate = data.dataset, data.collate_fn
        elif isinstance(data, Dataset) and not isinstance(data, IterableDataset):
            self._source = data
        if self._source is not None:
            self._ends = [len(self._source)]
            if self._ends[-1] == 0:
                raise ValueError("data is empty; give at least one (inputs, targets) example")
            return
        batches = Batches(data, device=device)
        with RandomState(device).replay(batches.generators):  # a loader draws its order
            self._parts = [(part.inputs, part.targets, part.size) for part in batches]
        if not self._parts:
            raise ValueError("data is empty; give at least one (inputs, targets) batch")
        self._ends = list(accumulate(size for _, _, size in self._parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def take(self, index: Tensor) -> Pair:
        """Some examples as one batch.

        Args:
            index: Positions, ``(n,)``, integer, on the CPU.

        Returns:
            Inputs and targets; in the order of the positions, sorted where the data are batches.

        Raises:
            TypeError: The data set does not give ``(input, target)``.
            ValueError: Tensors of different batches do not fit together.
        """  # noqa: DOC502
        if self._source is not None:
            with torch.random.fork_rng(devices=[]):  # a transform may draw
                batch = self._collate([self._source[i] for i in index.tolist()])
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise TypeError(
                    "data must give (input, target) examples, a batch of them came out as "
                    f"{type(batch).__name__}"
                )
            return batch[0], batch[1]
        pieces = []
        low = 0
        for (inputs, targets, size), high in zip(self._parts, self._ends):
            chosen = index[(index >= low) & (index < high)] - low
            if len(chosen):
                pieces.append(_rows((inputs, targets), size, chosen))
            low = high
        found: Pair = pieces[0] if len(pieces) == 1 else _joined(pieces)
        return found

    def draw(self, size: int, generator: torch.Generator) -> Pair:
        """A random batch without replacement.

        Args:
            size: At most the number of examples.
            generator: On the CPU.

        Returns:
            Inputs and targets.
        """
        return self.take(torch.randperm(len(self), generator=generator)[:size])

    def in_order(self, chunk: int = CHUNK) -> list[Pair] | Chunks:
        """Everything, as batches that can be gone through again and again.

        Args:
            chunk: Examples in a batch, where the data are not batches already.

        Returns:
            Data for an operator.
        """
        if self._source is None and len(self._parts) > 1:
            return [(inputs, targets) for inputs, targets, _ in self._parts]
        return Chunks(self, chunk)


class Chunks:
    """All examples in order, a piece at a time."""

    def __init__(self, examples: Examples, chunk: int) -> None:
        self._examples, self._chunk = examples, chunk

    def __len__(self) -> int:
        return -(-len(self._examples) // self._chunk)

    def __iter__(self) -> Iterator[Pair]:
        for low in range(0, len(self._examples), self._chunk):
            yield self._examples.take(
                torch.arange(low, min(low + self._chunk, len(self._examples)))
            )


def _draws_all(loader: DataLoader[Any]) -> bool:
    """A loader of every example of an indexed data set, and of no other."""
    return loader.batch_sampler is not None and isinstance(
        loader.sampler, (RandomSampler, SequentialSampler)
    )


def _rows(value: Any, n: int, index: Tensor) -> Any:
    """Some rows of every tensor with n rows in a nest; everything else as it is."""
    if isinstance(value, Tensor):
        return value[index.to(value.device)] if value.dim() > 0 and len(value) == n else value
    if isinstance(value, Mapping):
        return {key: _rows(item, n, index) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return _like(value, [_rows(item, n, index) for item in value])
    return value


def _like(value: Any, items: list[Any]) -> Any:
    """Items in a sequence of the same kind; named tuples take theirs one by one."""
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def _joined(pieces: list[Any]) -> Any:
    """Batches put one under the other."""
    first = pieces[0]
    if isinstance(first, Tensor):
        if first.dim() == 0:
            return first
        try:
            return torch.cat(pieces)
        except RuntimeError as error:
            shapes = sorted({tuple(piece.shape[1:]) for piece in pieces})[:3]
            raise ValueError(
                f"examples of different batches do not fit into one: shapes {shapes}; "
                "pad them, or give one (inputs, targets)"
            ) from error
    if isinstance(first, Mapping):
        return {key: _joined([piece[key] for piece in pieces]) for key in first}
    if isinstance(first, (tuple, list)):
        return _like(first, [_joined(list(items)) for items in zip(*pieces)])
    return first
