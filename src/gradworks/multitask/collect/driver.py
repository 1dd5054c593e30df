"""One driver for all models: it collects the gradient of every task and writes ``.grad``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from gradworks.multitask.aggregator import (
    Aggregator,
    gramian_of,
)
from gradworks.multitask.collect.blocks import Blocks, suited
from gradworks.multitask.collect.ending import Ending, Pass
from gradworks.multitask.collect.features import Features
from gradworks.multitask.collect.inputs import (
    Losses,
    checked_heads,
    checked_shared,
    common_dtype,
    named_losses,
)
from gradworks.multitask.collect.pending import Pending
from gradworks.multitask.collect.processes import Processes, SumOver, local_of
from gradworks.multitask.collect.rows import Own, batched_fits, rows_of, unshared
from gradworks.multitask.collect.stats import AggregationStats
from gradworks.multitask.collect.writing import Scale

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["TaskGradients"]

METHODS = ("auto", "sequential", "vjp", "features")
AnyAggregator = Callable[[Tensor], Tensor]


class TaskGradients:
    """Collects the gradient of every task and writes ``.grad``; any optimizer follows.

    Args:
        shared: Parameters of the trunk.
        heads: Parameters of each task's head, by the name of the task; they get the gradient of
            their own task.
        method: ``"sequential"``: a backward pass a task. ``"vjp"``: one batched pass, which holds
            the activations of all tasks. ``"features"``: gradients in the features alone,
            aggregated there, and one pass through the trunk: an approximation, fast for many tasks.
            ``"auto"``: sequential on a CPU and up to 8 tasks, then batched where memory allows.
        features: For ``method="features"``: the module whose output the heads share, or a function
            without arguments that returns that output (a tensor or several).
        chunk_params: Collect blocks of at most this many parameters (at least one tensor) and keep
            no Jacobian. Needs an aggregator that allows it; costs further backward passes.
        dtype: Dtype of the rows; None: that of the parameters.
        scaler: A ``torch.amp.GradScaler``. Losses go in unscaled; ``.grad`` is written scaled, so
            ``scaler.step`` and ``scaler.update`` follow as ever.
        process_group: The replicas of data-parallel training, over which rows are averaged, such
            as ``torch.distributed.group.WORLD``. None: nothing is averaged. Leave it out for
            FSDP2, whose gradients are averages already.

    Raises:
        RuntimeError: If a group is given and ``torch.distributed`` does not run.
        TypeError: If a parameter is no tensor, or an argument of another type than allowed.
        ValueError: If there is no shared parameter, one occurs twice, a word is unknown, or
            arguments exclude each other.

    Note:
        Rows are written into one buffer of tasks x parameters: the price of any method that needs
        them. One host synchronisation a step, of two numbers a task, finds what is not finite.

        Where several processes take part, an aggregator that draws at random (PCGrad) draws the
        same on each of them.

    Example:
        >>> import torch
        >>> from gradworks.multitask import SAMGS, TaskGradients
        >>> trunk, a, b = (torch.nn.Linear(2, 2) for _ in range(3))
        >>> collect = TaskGradients(trunk.parameters(), {"a": a.parameters(), "b": b.parameters()})
        >>> z = trunk(torch.ones(4, 2))
        >>> stats = collect.backward({"a": a(z).square().mean(), "b": b(z).exp().mean()}, SAMGS())
        >>> stats.tasks, trunk.weight.grad.shape
        (('a', 'b'), torch.Size([2, 2]))
    """

    def __init__(
        self,
        shared: Iterable[Parameter],
        heads: Mapping[str, Iterable[Parameter]] | None = None,
        *,
        method: Literal["auto", "sequential", "vjp", "features"] = "auto",
        features: Callable[..., Any] | None = None,
        chunk_params: int | None = None,
        dtype: torch.dtype | None = None,
        scaler: torch.amp.GradScaler | None = None,
        process_group: ProcessGroup | None = None,
    ) -> None:
        self.shared = checked_shared(shared)
        self.heads = checked_heads(heads, self.shared)
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        if (method == "features") != (features is not None):
            raise ValueError("method='features' and features= go together; give both or neither")
        if chunk_params is not None:
            if isinstance(chunk_params, bool) or not isinstance(chunk_params, int):
                raise TypeError(
                    f"chunk_params must be an integer or None, got {type(chunk_params).__name__}"
                )
            if chunk_params < 1:
                raise ValueError(f"chunk_params must be at least 1, got {chunk_params}")
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"dtype must be floating, got {dtype}")
        every_head = [p for params in self.heads.values() for p in params]
        self.processes = Processes(self.shared, every_head, process_group)
        for name, used in (
            ("method='vjp'", method == "vjp"),
            ("method='features'", method == "features"),
            ("chunk_params", chunk_params is not None),
        ):
            if used and self.processes.sharded:
                raise ValueError(f"{name} does not work with sharded parameters; leave it out")
        if chunk_params is not None and method == "features":
            raise ValueError("method='features' stores no Jacobian; leave chunk_params out")
        self.method = method
        self.features = None if features is None else Features(features)
        self.chunk_params = chunk_params
        self.dtype = dtype or common_dtype(self.shared)
        self.scale = Scale(scaler)
        self.sizes = [local_of(p, p).numel() for p in self.shared]
        # replicas see other samples, so their features are other columns
        replicas = self.processes.replicas if method == "features" else None
        self.reduce = self.processes.shards if replicas is None else SumOver([replicas])
        self._ending = Ending(
            self.shared, self.sizes, every_head, self.scale, self.processes, self.reduce
        )
        self._pending: Pending | None = None
        self._kept: Tensor | None = None

    def jacobian(self, losses: Losses, *, retain_graph: bool = False) -> Tensor:
        """Return the gradients of ``losses`` in the shared parameters, ``(tasks, params)``.

        Args:
            losses: A scalar a task.
            retain_graph: Keep their graph for another call.

        Returns:
            One row a task, averaged over ``process_group``; this process's columns under FSDP2;
            the columns of the features with ``method="features"``.

        Raises:
            RuntimeError: If the graph was freed before.
            TypeError: If a loss is no tensor.
            ValueError: If there is none, one is no scalar, or one has no graph.
        """  # noqa: DOC502
        named = named_losses(losses, self.heads)
        return self._rows(named, heads=False, retain=retain_graph)[0]

    def gramian(self, losses: Losses, *, retain_graph: bool = False) -> Tensor:
        """Return the inner products of the task gradients, ``(tasks, tasks)``.

        With ``chunk_params`` they are summed over blocks of parameters and no Jacobian is stored.

        Args:
            losses: As for :meth:`jacobian`.
            retain_graph: As there.

        Returns:
            Over all shards, at least in float32.

        Raises:
            RuntimeError: As there.
            TypeError: As there.
            ValueError: As there.
        """  # noqa: DOC502
        named = named_losses(losses, self.heads)
        if self.chunk_params is not None:
            return self._blocks(named, heads=False).gramian(retain_graph)
        found = gramian_of(self._rows(named, heads=False, retain=retain_graph)[0])
        return found if self.reduce is None else self.reduce(found)

    def backward(
        self,
        losses: Losses,
        aggregator: AnyAggregator,
        *,
        accumulate: bool = True,
        statistics: bool = False,
    ) -> AggregationStats:
        """Write ``.grad``: the aggregate on the trunk, each task's own gradient on its head.

        Args:
            losses: A scalar a task, in the aggregator's order; a list takes the heads' names.
            aggregator: Maps ``(tasks, params)`` to ``(params,)``; an
                :class:`~gradworks.multitask.Aggregator`, one of torchjd, or a function.
            accumulate: Add to an existing ``.grad`` as ``loss.backward()`` does.
            statistics: Keep the inner products of the rows and the weights that the direction
                implies.

        Returns:
            Names, norms and losses of the tasks, and the statistics.

        Raises:
            NonFiniteGradientError: If a loss or gradient is not finite and there is no scaler;
                ``.grad`` and the aggregator's state stay as they were.
            RuntimeError: As for :meth:`jacobian`, if the aggregate is of another shape, or if
                :meth:`accumulate` holds rows.
            TypeError: As there, or if the aggregator cannot be called or does not suit sharded
                parameters.
            ValueError: As there, if a head has no loss, or the aggregator does not suit
                ``chunk_params``.
        """  # noqa: DOC502
        named = named_losses(losses, self.heads)
        unknown = sorted(set(self.heads) - set(named))
        if unknown:
            raise ValueError(f"heads {unknown} have no loss; losses are {sorted(named)}")
        if self._pending is not None:
            raise RuntimeError(
                "accumulate() holds rows of earlier micro-batches; finish them with aggregate(), "
                "or drop them with discard()"
            )
        features = None if self.features is None else self.features.current()
        self._bind(aggregator, self.sizes if features is None else [z.numel() for z in features])
        values = torch.stack([loss.detach().reshape(()).float() for loss in named.values()])
        step = Pass(tuple(named), values, accumulate, statistics, features)
        if self.chunk_params is not None:
            allowed = suited(aggregator, statistics)
            return self._ending.from_blocks(step, self._blocks(named, heads=True), allowed)
        step.rows, step.own = self._rows(named, heads=True)
        stats = self._end(step, aggregator)
        if self.features is not None:
            self.features.forget()
        return stats

    def accumulate(
        self, losses: Losses, *, scale: float = 1.0, tasks: Sequence[str] | None = None
    ) -> None:
        """Add the gradients of one micro-batch to the rows that :meth:`aggregate` will use.

        Args:
            losses: As for :meth:`jacobian`; by name, some of the tasks are enough.
            scale: What these gradients are multiplied by, such as 1 / number of micro-batches.
            tasks: Names of all tasks, in order, at the first micro-batch; None: the heads, or
                those of its losses.

        Raises:
            RuntimeError: As for :meth:`jacobian`; what was held is dropped.
            TypeError: As there.
            ValueError: As there, if ``scale`` is not finite, a task is unknown, or the driver works
                on features or blocks.
        """  # noqa: DOC502
        if self.features is not None or self.chunk_params is not None:
            raise ValueError("accumulate() needs rows: leave features and chunk_params out")
        if not -float("inf") < scale < float("inf"):
            raise ValueError(f"scale must be finite, got {scale}")
        named = named_losses(losses, self.heads)
        held = self._pending
        if held is None:
            names = tasks if tasks is not None else [*self.heads] or [*named]
            held = Pending(names, lambda tasks: self._room(tasks, sum(self.sizes)))
        elif tasks is not None and tuple(tasks) != held.tasks:
            raise ValueError(f"tasks are {held.tasks} since the first micro-batch, got {tasks}")
        places = held.places(named)
        self._pending = None  # a pass that fails half-way leaves sums that mean nothing
        own = rows_of(
            [self.scale.scaled(loss) for loss in named.values()],
            self.shared,
            [self.heads.get(name, []) for name in named],
            [held.rows[i] for i in places],
            factor=self.scale.inverse(scale * self.processes.factor, self.processes.device),
            how=self._how(len(named)),
            add=True,
        )
        held.add(places, named, own, scale)
        self._pending = held

    def aggregate(
        self, aggregator: AnyAggregator, *, accumulate: bool = True, statistics: bool = False
    ) -> AggregationStats:
        """Write ``.grad`` from what :meth:`accumulate` holds, and let that go.

        Args:
            aggregator: As for :meth:`backward`.
            accumulate: As there.
            statistics: As there.

        Returns:
            As there; a task that never came has a zero row.

        Raises:
            NonFiniteGradientError: As there; the held rows are dropped.
            RuntimeError: If nothing is held, or the aggregate is of another shape.
            TypeError: As there.
        """  # noqa: DOC502
        held = self._pending
        if held is None:
            raise RuntimeError("nothing to aggregate; call accumulate() first")
        self._bind(aggregator, self.sizes)
        self._pending = None
        for work in self.processes.start(held.rows):
            work.wait()
        step = Pass(held.tasks, held.losses, accumulate, statistics, None, held.own, held.rows)
        del held
        return self._end(step, aggregator)

    @property
    def pending(self) -> Tensor | None:
        """The rows accumulated so far on this process, ``(tasks, params)``, or None."""
        return None if self._pending is None else self._pending.rows

    def discard(self) -> None:
        """Drop what :meth:`accumulate` holds, and the memory kept for the rows."""
        self._pending = None
        self._kept = None

    def _end(self, step: Pass, aggregator: AnyAggregator) -> AggregationStats:
        """Aggregate and write; on a CPU the rows' memory is kept: fresh pages cost as much."""
        kept = step.rows if self.processes.device.type == "cpu" else None
        stats = self._ending.from_rows(step, aggregator)
        self._kept = kept
        return stats

    def _room(self, tasks: int, columns: int) -> Tensor:
        """Memory for rows: that of the last step if nobody else holds it."""
        kept, self._kept = self._kept, None
        if kept is not None and kept.shape == (tasks, columns) and unshared(kept):
            return kept
        del kept
        return torch.empty(tasks, columns, dtype=self.dtype, device=self.processes.device)

    def _how(self, tasks: int) -> str:
        """Which way the rows are collected."""
        if self.processes.sharded:
            return "hooked"
        if self.method == "vjp" or (self.method == "auto" and batched_fits(tasks, self.shared)):
            return "vjp"
        return "sequential"

    def _rows(
        self, named: dict[str, Tensor], *, heads: bool, retain: bool = False
    ) -> tuple[Tensor, Own]:
        """The rows, averaged over replicas, and the gradients of the heads."""
        features = None if self.features is None else self.features.current()
        inputs: Sequence[Tensor] = self.shared if features is None else features
        columns = sum(self.sizes) if features is None else sum(z.numel() for z in features)
        rows = self._room(len(named), columns)
        works: list[Any] = []

        def send(i: int) -> None:
            # each row travels while the next is computed; features differ between replicas
            if features is None:
                works.extend(self.processes.start(rows[i]))

        own = rows_of(
            [self.scale.scaled(loss) for loss in named.values()],
            inputs,
            [self.heads.get(name, []) if heads else [] for name in named],
            rows,
            factor=self.scale.inverse(self.processes.factor, self.processes.device),
            how=self._how(len(named)),
            retain=retain,
            done=send,
        )
        for work in works:
            work.wait()
        return rows, own

    def _bind(self, aggregator: AnyAggregator, sizes: Sequence[int]) -> None:
        """Tell the aggregator how the columns are cut and shared out."""
        if not callable(aggregator):
            raise TypeError(f"aggregator must be callable, got {type(aggregator).__name__}")
        if isinstance(aggregator, Aggregator):
            if not aggregator.bound(sizes, self.reduce):
                aggregator.bind(sizes, self.reduce)
        elif self.reduce is not None:
            raise TypeError(
                "each process holds a part of the columns, so aggregator must be a "
                f"gradworks.multitask.Aggregator, got {type(aggregator).__name__}; one of torchjd "
                "goes through from_torchjd"
            )

    def _blocks(self, named: dict[str, Tensor], *, heads: bool) -> Blocks:
        """Rows by blocks of parameters."""
        return Blocks(
            losses=[self.scale.scaled(loss) for loss in named.values()],
            shared=self.shared,
            heads=[self.heads.get(name, []) if heads else [] for name in named],
            limit=self.chunk_params or 1,
            dtype=self.dtype,
            how=self._how(len(named)),
            factor=self.scale.inverse(self.processes.factor, self.processes.device),
            processes=self.processes,
        )
