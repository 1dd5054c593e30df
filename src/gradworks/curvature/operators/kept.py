"""Graphs of all microbatches kept between products while they fit into memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from gradworks.curvature.operators.algebra import SymmetricOperator
from gradworks.curvature.operators.batches import Batches, Microbatch
from gradworks.curvature.operators.surroundings import Mode

__all__ = ["GraphKeeper"]


class GraphKeeper(SymmetricOperator):
    """The part of a model's operators that decides what to keep, and drops it in time."""

    _model: nn.Module
    _mode: Mode
    _batches: Batches | list[Microbatch]

    @abstractmethod
    def _conditions(self) -> AbstractContextManager[None]:
        """Everything a pass over the data needs."""

    @abstractmethod
    def _parts(self) -> Iterator[Microbatch]:
        """The microbatches of a pass."""

    @abstractmethod
    def _weight(self, part: Microbatch) -> float:
        """What a microbatch counts."""

    def _keep_graphs(self, limit: int | None) -> None:
        """Start with nothing kept; ``limit`` in bytes, ``None`` for none, -1 for keep nothing."""
        self._cache_bytes = limit
        self._kept: Any = None
        self._kept_at: tuple[Any, ...] = ()
        self._refused = False

    def _fingerprint(self) -> tuple[Any, ...]:
        """Changes whenever a parameter or buffer is written to in place or replaced, or a mode."""
        found: list[Any] = []
        waiting, seen = [self._model], {id(self._model)}
        while waiting:  # modules() builds names, which takes as long as small products
            module = waiting.pop()
            for held in (module._parameters, module._buffers):
                for tensor in held.values():
                    if tensor is not None:
                        found += (tensor.data_ptr(), tensor._version)
            if self._mode == "keep":
                found.append(module.training)
            for child in module._modules.values():
                if child is not None and id(child) not in seen:
                    seen.add(id(child))
                    waiting.append(child)
        return tuple(found)

    def _graphs(self) -> Any:
        """The kept graphs, built on first use and after a change of the model; None if refused."""
        now = self._fingerprint()
        if self._kept is not None and now == self._kept_at:
            return self._kept
        self._kept = None
        if self._refused or self._cache_bytes == -1:
            return None
        self._kept = self._build_within_limit()
        self._kept_at = now
        self._refused = self._kept is None
        return self._kept

    def _build_within_limit(self) -> Any:
        """Graphs of all microbatches, or None as soon as they would pass ``cache_bytes``."""
        built: list[Any] = []
        per_example: float | None = None
        kept = 0.0
        single = not isinstance(self._batches, Batches) or self._batches.single
        with self._conditions():
            for part in self._parts():
                # One graph is alive during a product in any case: no need to weigh a single one.
                if self._cache_bytes is not None and not single and per_example is None:
                    with self._random_fork():
                        per_example = self._saved_bytes(part) / part.size
                kept += (per_example or 0.0) * part.size
                if self._cache_bytes is not None and kept > self._cache_bytes:
                    return None
                built.append((self._weight(part), self._build(part)))
            return self._combine(built)  # recorded too: the caller may be under no_grad

    def _saved_bytes(self, part: Microbatch) -> int:
        """Bytes that the graph of one microbatch keeps alive beside the parameters."""
        known = {p.untyped_storage().data_ptr() for p in self._model.parameters()}
        total = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                known.add(storage.data_ptr())
                total += storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            self._weigh(part)
        return total

    @abstractmethod
    def _weigh(self, part: Microbatch) -> None:
        """Build what a microbatch keeps, or its like where hooks cannot follow, to be counted."""

    @abstractmethod
    def _build(self, part: Microbatch) -> Any:
        """What is kept of one microbatch."""

    def _combine(self, built: list[Any]) -> Any:
        """What is kept of all of them."""
        return built

    def release(self) -> None:
        """Drop the kept graphs; the next product builds them anew."""
        self._kept = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _states(self) -> list[Tensor]:
        """The generators' states, for several forward passes with the same masks."""
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        return states

    def _restore(self, states: list[Tensor]) -> None:
        """Back to recorded states."""
        torch.set_rng_state(states[0])
        if len(states) > 1:
            torch.cuda.set_rng_state(states[1], self.device)

    def _random_fork(self) -> Any:
        """Masks of a second forward pass must not shift those of the next microbatch."""
        return torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else [])
