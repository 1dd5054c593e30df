"""Points of weight space: their tensors, put in the place of the model's for many calls at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradworks.curvature.operators.batches import Microbatch

__all__ = ["Flat", "OneByOne", "Points", "State", "Together", "alike"]

State = dict[str, Tensor]
LossOf = Callable[[nn.Module, Microbatch], Tensor]


def alike(items: Sequence[Any], device: torch.device) -> Iterator[Any]:
    """Items that all see the same random numbers.

    A model that draws none for the first of them is taken to draw none at all.
    """  # noqa: DOC402
    state = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    draws = True
    for i, item in enumerate(items):
        if i == 1:
            draws = not torch.equal(state, torch.get_rng_state())
            if cuda is not None:
                draws = draws or not torch.equal(cuda, torch.cuda.get_rng_state(device))
        if i and draws:
            torch.set_rng_state(state)
            if cuda is not None:
                torch.cuda.set_rng_state(cuda, device)
        yield item


class _Group:
    """Weights of one type as one vector, with the directions as rows of one matrix.

    Each tensor begins at a multiple of 64 bytes, as kernels like it: one operation moves them all.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], moves: Sequence[Mapping[str, Tensor]]
    ) -> None:
        self.names = list(weights)
        self.shapes = [w.shape for w in weights.values()]
        self.sizes = [w.numel() for w in weights.values()]
        line = max(1, 64 // next(iter(weights.values())).element_size())
        self.room = [-(-size // line) * line for size in self.sizes]
        self.base = self._joined(list(weights.values()))
        self.rows = torch.stack(
            [
                self._joined([d[n] if n in d else torch.zeros_like(w) for n, w in weights.items()])
                for d in moves
            ]
        )

    def _joined(self, tensors: Sequence[Tensor]) -> Tensor:
        """One vector, with gaps of zeros."""
        flat = tensors[0].new_zeros(sum(self.room))
        for part, size, t in zip(torch.split(flat, self.room), self.sizes, tensors):
            part[:size] = t.reshape(-1)
        return flat

    def views(self, flat: Tensor) -> State:
        """Tensors by name of one vector, or stacked ones of several."""
        lead = flat.shape[:-1]
        parts = torch.split(flat, self.room, dim=-1)
        return {
            n: p[..., :size].view(*lead, *s)
            for n, p, size, s in zip(self.names, parts, self.sizes, self.shapes)
        }


class Flat:
    """All that moves, by type.

    Args:
        weights: The saved weights by name.
        moves: Directions by name.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], moves: Sequence[Mapping[str, Tensor]]
    ) -> None:
        moving = {n for d in moves for n in d}
        types: dict[torch.dtype, dict[str, Tensor]] = {}
        for name, w in weights.items():
            if name in moving:
                types.setdefault(w.dtype, {})[name] = w
        self.groups = [_Group(of_type, moves) for of_type in types.values()]
        self.device = next(iter(weights.values())).device

    def stacked(self, coefficients: Tensor) -> State:
        """Weights of n points, each stacked along a first dimension.

        Args:
            coefficients: ``(n, K)``.

        Returns:
            Tensors ``(n, ...)`` by name.
        """
        made: State = {}
        for group in self.groups:
            c = coefficients.to(self.device, group.base.dtype)
            made.update(group.views(torch.addmm(group.base, c, group.rows)))
        return made

    def copies(self) -> list[Tensor]:
        """Vectors to write points over, one a group.

        Returns:
            ``(P,)`` each.
        """
        return [torch.empty_like(group.base) for group in self.groups]

    def write(self, copies: list[Tensor], coefficients: list[float]) -> None:
        """Write one point.

        Args:
            copies: From :meth:`copies`.
            coefficients: K numbers.
        """
        for group, work in zip(self.groups, copies):
            torch.add(group.base, group.rows[0], alpha=coefficients[0], out=work)
            for c, row in zip(coefficients[1:], group.rows[1:]):
                work.add_(row, alpha=c)

    def views(self, copies: list[Tensor]) -> State:
        """Tensors by name that share the copies' memory.

        Args:
            copies: From :meth:`copies`.

        Returns:
            Views by name.
        """
        made: State = {}
        for group, work in zip(self.groups, copies):
            made.update(group.views(work))
        return made


class _Holder(nn.Module):
    """Runs a function on a model whose tensors are replaced: once for many calls."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.held = model

    def forward(self, f: Callable[[nn.Module], Any]) -> Any:
        """Apply."""
        return f(self.held)


def _within(model: nn.Module, state: State, f: Callable[[nn.Module], Any]) -> Any:
    """Apply a function to the model with other tensors in the place of its own."""
    return functional_call(_Holder(model), {f"held.{n}": t for n, t in state.items()}, (f,))


class Points(ABC):
    """Some points and their losses.

    Args:
        model: In the mode it is measured in.
        flat: Weights and directions.
        loss: Loss of a model and a microbatch.
        coefficients: ``(n, K)``.
    """

    def __init__(self, model: nn.Module, flat: Flat, loss: LossOf, coefficients: Tensor) -> None:
        self.model, self.flat, self.loss = model, flat, loss
        self.coefficients = coefficients
        self.buffers: State = {n: b.detach() for n, b in model.named_buffers()}

    def forget(self, layers: Sequence[nn.Module]) -> None:
        """Start from zero statistics: stored ones that are not finite would stay so.

        Args:
            layers: With ``running_mean`` and ``running_var``.
        """
        stored = {id(t) for m in layers for t in (m.running_mean, m.running_var)}
        for name, b in self.model.named_buffers():
            if id(b) in stored:
                self.buffers[name] = torch.zeros_like(b)

    @abstractmethod
    def losses(self, part: Microbatch) -> Tensor:
        """Losses of one microbatch, ``(n,)``."""

    @abstractmethod
    def calibrate(self, part: Microbatch) -> None:
        """Move the statistics of all points towards those of one batch."""


class OneByOne(Points):
    """Points in turn, written over one copy of the weights; arguments as for :class:`Points`."""

    def __init__(self, model: nn.Module, flat: Flat, loss: LossOf, coefficients: Tensor) -> None:
        super().__init__(model, flat, loss, coefficients)
        self._numbers: list[list[float]] = coefficients.tolist()
        self._fresh: list[State] | None = None
        self._copies = flat.copies()
        self._held = {n: b.clone() for n, b in self.buffers.items()}
        self._versions = {n: b._version for n, b in self._held.items()}

    def _go(self, i: int) -> None:
        """Write point i over the copy; buffers only where somebody wrote to them."""
        self.flat.write(self._copies, self._numbers[i])
        for name, held in self._held.items():
            if self._fresh is not None:
                held.copy_(self._fresh[i][name])
            elif held._version != self._versions[name]:
                held.copy_(self.buffers[name])
                self._versions[name] = held._version

    def _walk(self, step: Callable[[int, nn.Module], None]) -> None:
        """Go to all points."""

        def walk(model: nn.Module) -> None:
            for i in alike(range(len(self._numbers)), self.flat.device):
                self._go(i)
                step(i, model)

        _within(self.model, {**self.flat.views(self._copies), **self._held}, walk)

    def losses(self, part: Microbatch) -> Tensor:
        """Losses of one microbatch, point by point.

        Args:
            part: The microbatch.

        Returns:
            ``(n,)``.
        """
        found: list[Tensor] = []
        self._walk(lambda _, model: found.append(self.loss(model, part)))
        return torch.stack(found)

    def calibrate(self, part: Microbatch) -> None:
        """Move the statistics of all points towards those of one batch.

        Args:
            part: The microbatch.
        """
        if self._fresh is None:
            self._fresh = [{n: b.clone() for n, b in self.buffers.items()} for _ in self._numbers]
        fresh = self._fresh

        def step(i: int, model: nn.Module) -> None:
            part.call(model)
            for name, held in self._held.items():
                fresh[i][name].copy_(held)

        self._walk(step)


class Together(Points):
    """Points at once, under ``torch.vmap``.

    Args:
        model: In the mode it is measured in.
        flat: Weights and directions.
        loss: Loss of a model and a microbatch.
        coefficients: ``(n, K)``.
        own_buffers: Whether buffers differ from point to point.
    """

    def __init__(
        self,
        model: nn.Module,
        flat: Flat,
        loss: LossOf,
        coefficients: Tensor,
        *,
        own_buffers: bool,
    ) -> None:
        super().__init__(model, flat, loss, coefficients)
        self._own = own_buffers
        self._fresh: State | None = None

    def _writable(self) -> State:
        """Buffers that may be written to."""
        if self._fresh is not None:
            return {n: b.clone() for n, b in self._fresh.items()}
        if not self._own:
            return {n: b.clone() for n, b in self.buffers.items()}
        n = len(self.coefficients)
        return {name: b.expand(n, *b.shape).clone() for name, b in self.buffers.items()}

    def _map(self, f: Callable[[nn.Module], Tensor]) -> tuple[Tensor, State]:
        """Results at all points, and the buffers afterwards."""
        buffers = self._writable()

        def one(weights: State, held: State) -> Tensor:
            result: Tensor = _within(self.model, {**weights, **held}, f)
            return result

        where = 0 if self._own else None
        batched = torch.vmap(one, in_dims=(0, where), randomness="same")
        return batched(self.flat.stacked(self.coefficients), buffers), buffers

    def losses(self, part: Microbatch) -> Tensor:
        """Losses of one microbatch, all points at once.

        Args:
            part: The microbatch.

        Returns:
            ``(n,)``.
        """
        return self._map(lambda model: self.loss(model, part))[0]

    def calibrate(self, part: Microbatch) -> None:
        """Move the statistics of all points towards those of one batch.

        Args:
            part: The microbatch.
        """

        def run(model: nn.Module) -> Tensor:
            part.call(model)
            return next(model.parameters()).new_zeros(())

        self._fresh = self._map(run)[1]
