"""From rows to ``.grad``: what is not finite, the aggregate, the statistics, the writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Parameter

from gradworks.multitask.aggregator import (
    ColumnAggregator,
    GramianAggregator,
    gramian_of,
    row_norms,
)
from gradworks.multitask.collect.blocks import Blocks
from gradworks.multitask.collect.finite import Seen, look
from gradworks.multitask.collect.processes import Processes, SumOver
from gradworks.multitask.collect.rows import Own
from gradworks.multitask.collect.stats import AggregationStats, implied_weights
from gradworks.multitask.collect.writing import Scale, write, write_own

__all__ = ["Ending", "Pass"]


@dataclass
class Pass:
    """What one backward pass found and was asked for.

    Attributes:
        tasks: Names.
        losses: Values on this process, ``(tasks,)``.
        accumulate: Add to an existing ``.grad``.
        statistics: Keep inner products and implied weights.
        features: The features that the rows are gradients in; None: the parameters.
        own: Gradients of the heads.
        rows: ``(tasks, columns)``, let go of as soon as they are used; None within blocks.
    """

    tasks: tuple[str, ...]
    losses: Tensor
    accumulate: bool
    statistics: bool
    features: Sequence[Tensor] | None = None
    own: Own = field(default_factory=list)
    rows: Tensor | None = None


@dataclass(frozen=True)
class Ending:
    """The second half of a step.

    Attributes:
        shared: Parameters of the trunk.
        sizes: Entries of each on this process.
        every_head: All parameters of heads.
        scale: Of mixed precision.
        processes: That take part.
        reduce: Sums over the shards of the columns, or None.
    """

    shared: Sequence[Parameter]
    sizes: Sequence[int]
    every_head: Sequence[Parameter]
    scale: Scale
    processes: Processes
    reduce: SumOver | None

    def from_rows(self, step: Pass, aggregator: Callable[[Tensor], Tensor]) -> AggregationStats:
        """Aggregate rows and write.

        Args:
            step: What was found, with its rows.
            aggregator: As the user gave it.

        Raises:
            NonFiniteGradientError: If something is not finite and there is no scaler.
            RuntimeError: If the aggregate is of another shape than a row.
        """  # noqa: DOC502
        rows, step.rows = step.rows, None
        if rows is None:
            raise RuntimeError("the pass has no rows")
        norms = row_norms(rows)
        if self.reduce is not None:
            norms = self.reduce(norms.square()).sqrt()
        self._join(step)
        seen = look(norms, step.losses, rows, self.reduce)
        if seen.bad:
            return self._skip(step, norms, seen)
        with torch.no_grad(), self.processes.same_draws():
            # a view: who keeps it holds the storage, which is then not used again
            direction = aggregator(rows.detach())
        if not isinstance(direction, Tensor) or direction.shape != rows.shape[1:]:
            shape = tuple(direction.shape) if isinstance(direction, Tensor) else type(direction)
            raise RuntimeError(f"aggregator returned {shape}, expected shape {(rows.shape[1],)}")
        gramian = weights = None
        if step.statistics:
            gramian = gramian_of(rows)
            inner = rows.to(gramian.dtype) @ direction.to(gramian.dtype)
            if self.reduce is not None:
                gramian, inner = self.reduce(gramian), self.reduce(inner)
            weights = implied_weights(gramian, inner)
        del rows
        if step.features is None:
            self._write_flat(direction, step.accumulate)
        else:
            self._write_through(step.features, direction, step.accumulate)
        return self._done(step, norms, seen, gramian, weights)

    def from_blocks(
        self, step: Pass, blocks: Blocks, aggregator: GramianAggregator | ColumnAggregator
    ) -> AggregationStats:
        """Go over blocks of parameters twice: for norms or inner products, then the direction.

        Args:
            step: What was found; takes the gradients of the heads.
            blocks: The rows.
            aggregator: One that needs no whole rows.

        Raises:
            NonFiniteGradientError: If something is not finite and there is no scaler.
        """  # noqa: DOC502
        gramian = blocks.gramian(True) if isinstance(aggregator, GramianAggregator) else None
        norms = blocks.norms() if gramian is None else gramian.diagonal().clamp_min(0).sqrt()
        step.own = blocks.own or []
        self._join(step)
        seen = look(norms, step.losses, None, None)
        if seen.bad:
            return self._skip(step, norms, seen)
        weights: Tensor | None = None
        with self.processes.same_draws():
            if isinstance(aggregator, ColumnAggregator):
                direction = blocks.columns(aggregator, norms)
                self._write_flat(direction, step.accumulate)
            elif gramian is not None:
                with torch.no_grad():
                    weights = aggregator.weights(gramian)
                for param, grad in zip(self.shared, blocks.weighted(weights)):
                    write(param, grad.reshape(-1), step.accumulate)
        asked = step.statistics
        return self._done(step, norms, seen, gramian if asked else None, weights if asked else None)

    def _write_flat(self, direction: Tensor, accumulate: bool) -> None:
        """Cut a direction into the trunk's parameters."""
        scale = self.scale.value(self.processes.device)
        for param, part in zip(self.shared, torch.split(direction, list(self.sizes))):
            write(param, part, accumulate, scale)

    def _write_through(
        self, features: Sequence[Tensor], direction: Tensor, accumulate: bool
    ) -> None:
        """One backward pass of a direction in the features through the trunk."""
        scale = self.scale.value(self.processes.device)
        if scale is not None:
            direction = direction * scale
        parts = torch.split(direction, [z.numel() for z in features])
        outer = [part.view(z.shape).to(z.dtype) for part, z in zip(parts, features)]
        grads = torch.autograd.grad(list(features), list(self.shared), outer, allow_unused=True)
        dense = [torch.zeros_like(p) if g is None else g for p, g in zip(self.shared, grads)]
        for param, grad in zip(self.shared, self.processes.sum_replicas(dense)):
            write(param, grad.reshape(-1), accumulate)

    def _join(self, step: Pass) -> None:
        """Mean losses over all processes; gradients of heads that any replica has."""
        if self.processes.replicas is None:
            step.losses = self.processes.mean(step.losses)
            return
        mine = {id(p): g for p, g in step.own}
        here = step.losses.new_tensor([float(id(p) in mine) for p in self.every_head])
        joint = self.processes.mean(torch.cat([step.losses, here]))
        step.losses = joint[: len(step.tasks)]
        anywhere = joint[len(step.tasks) :].tolist() if self.every_head else []
        step.own = [
            (p, mine[id(p)] if id(p) in mine else torch.zeros_like(p))
            for p, share in zip(self.every_head, anywhere)
            if share > 0
        ]

    def _average(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """Mean over the replicas."""
        if self.processes.replicas is None:
            return list(grads)
        dense = [g if g.layout == torch.strided else g.to_dense() for g in grads]
        return self.processes.sum_replicas([g * self.processes.factor for g in dense])

    def _skip(self, step: Pass, norms: Tensor, seen: Seen) -> AggregationStats:
        """Refuse, or leave to the scaler what is not finite: it finds it and skips the step."""
        if not self.scale.active:
            seen.refuse(step.tasks)
        for param, size in zip(self.shared, self.sizes):
            nothing = torch.full((size,), float("inf"), dtype=param.dtype, device=param.device)
            write(param, nothing, step.accumulate)
        return self._done(step, norms, seen, None, None)

    def _done(
        self,
        step: Pass,
        norms: Tensor,
        seen: Seen,
        gramian: Tensor | None,
        weights: Tensor | None,
    ) -> AggregationStats:
        """Write the heads and tell what was seen."""
        write_own(step.own, step.accumulate, self._average)
        return AggregationStats(
            tasks=step.tasks,
            norms=norms,
            unreached=tuple(step.tasks[i] for i in seen.zero),
            losses=step.losses,
            skipped=bool(seen.bad),
            non_finite=tuple(step.tasks[i] for i in seen.bad),
            gramian=gramian,
            weights=weights,
        )
