"""Block by block of parameters: the direction without a Jacobian in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from gradworks.multitask.aggregator import ColumnAggregator, GramianAggregator, gramian_of
from gradworks.multitask.collect.processes import Processes
from gradworks.multitask.collect.rows import Factor, Own, rows_of

__all__ = ["Blocks", "suited"]


@dataclass
class Blocks:
    """Rows of some losses, a block of parameters at a time.

    Attributes:
        losses: Scalars, scaled.
        shared: Parameters of the trunk.
        heads: Parameters of each loss's own head.
        limit: At most this many parameters a block.
        dtype: Of the rows.
        how: ``"sequential"`` or ``"vjp"``.
        factor: What the rows are multiplied by.
        processes: The replicas.
        own: Gradients of the heads, once collected.
    """

    losses: Sequence[Tensor]
    shared: Sequence[Parameter]
    heads: Sequence[Sequence[Parameter]]
    limit: int
    dtype: torch.dtype
    how: str
    factor: Factor
    processes: Processes
    own: Own | None = None

    def gramian(self, retain: bool) -> Tensor:
        """Inner products of the rows, summed over the blocks.

        Args:
            retain: Keep the graph after the last block.
        """
        return torch.stack([gramian_of(rows) for _, rows in self.each(retain)]).sum(0)

    def norms(self) -> Tensor:
        """Norms of the rows, one row in memory at a time; keeps the graph."""
        params = sum(p.numel() for p in self.shared)
        row = torch.empty(1, params, dtype=self.dtype, device=self.shared[0].device)
        wide = torch.promote_types(self.dtype, torch.float32)
        found, own = [], []
        for loss, head in zip(self.losses, self.heads):
            own += rows_of([loss], self.shared, [head], row, factor=self.factor, retain=True)
            self._sum(row)
            found.append(torch.linalg.vector_norm(row, dtype=wide))
        self.own = own
        return torch.stack(found)

    def each(self, retain: bool) -> Iterator[tuple[int, Tensor]]:
        """Give the first column and the rows of each block.

        Args:
            retain: Keep the graph after the last block.

        Yields:
            A number, and ``(tasks, columns)``.
        """
        blocks = list(self._cut())
        start = 0
        for k, block in enumerate(blocks):
            size = sum(p.numel() for p in block)
            rows = torch.empty(len(self.losses), size, dtype=self.dtype, device=block[0].device)
            first = self.own is None
            own = rows_of(
                self.losses,
                block,
                self.heads if first else [[] for _ in self.losses],
                rows,
                factor=self.factor,
                how=self.how,
                retain=retain or k < len(blocks) - 1,
            )
            if first:
                self.own = own
            self._sum(rows)
            yield start, rows
            start += size

    def weighted(self, weights: Tensor) -> list[Tensor]:
        """Gradients of the weighted sum of the losses over the replicas, still scaled.

        Args:
            weights: ``(tasks,)``.
        """
        total = torch.stack([loss.reshape(()) for loss in self.losses])
        total = (total * weights.to(total)).sum() * self.processes.factor
        grads = torch.autograd.grad(total, list(self.shared), allow_unused=True)
        dense = [torch.zeros_like(p) if g is None else g for p, g in zip(self.shared, grads)]
        return self.processes.sum_replicas(dense)

    def columns(self, aggregator: ColumnAggregator, norms: Tensor) -> Tensor:
        """The direction from blocks of columns.

        Args:
            aggregator: Treats the blocks.
            norms: Of the whole rows.
        """
        params = sum(p.numel() for p in self.shared)
        # what comes before finish() may be too large for half precision
        wide = torch.promote_types(self.dtype, torch.float32)
        direction = torch.empty(params, dtype=wide, device=self.shared[0].device)
        with torch.no_grad():
            aggregator.begin(norms, params, direction.new_empty(0, dtype=self.dtype))
        for start, rows in self.each(retain=False):
            with torch.no_grad():
                direction[start : start + rows.shape[1]] = aggregator.columns(rows, start)
        with torch.no_grad():
            return aggregator.finish(direction)

    def _cut(self) -> Iterator[list[Parameter]]:
        """Cut the trunk.

        Yields:
            Blocks of at most ``limit`` parameters and at least one tensor.
        """
        block: list[Parameter] = []
        size = 0
        for param in self.shared:
            if block and size + param.numel() > self.limit:
                yield block
                block, size = [], 0
            block.append(param)
            size += param.numel()
        yield block

    def _sum(self, rows: Tensor) -> None:
        """Sum over the replicas, in place."""
        for work in self.processes.start(rows):
            work.wait()


def suited(
    aggregator: Callable[[Tensor], Tensor], statistics: bool
) -> GramianAggregator | ColumnAggregator:
    """Refuse an aggregator that needs whole rows.

    Args:
        aggregator: As the user gave it.
        statistics: Whether inner products are asked for.

    Returns:
        The aggregator.

    Raises:
        ValueError: If blocks of parameters are not enough.
    """
    if not isinstance(aggregator, GramianAggregator | ColumnAggregator):
        raise ValueError(
            f"{type(aggregator).__name__} needs the whole Jacobian and chunk_params keeps none; "
            "leave chunk_params out, or take a GramianAggregator or ColumnAggregator (many of "
            "torchjd are one through from_torchjd)"
        )
    if statistics and isinstance(aggregator, ColumnAggregator):
        raise ValueError(
            "statistics needs inner products, which blocks of columns do not give; leave "
            "chunk_params out, or call gramian()"
        )
    return aggregator
