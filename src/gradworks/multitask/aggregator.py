"""What an aggregator is: a module from the Jacobian of several losses to one direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = ["Aggregator", "ColumnAggregator", "GramianAggregator", "NonFiniteGradientError"]

# Columns that an aggregator treats at once: tasks x this many numbers stay in the cache.
COLUMNS = 1 << 15


class NonFiniteGradientError(RuntimeError):
    """A task's loss or gradient holds NaN or infinity; nothing was updated.

    Args:
        tasks: Numbers of the tasks, counted from 0.
        names: Their names; None: the numbers.
        what: What is not finite: ``"gradient"`` or ``"loss"``.
        where: More about the place, such as ``"micro-batch 3"``.

    Attributes:
        tasks: Numbers of the tasks, counted from 0.
        names: Names of the tasks.
    """

    def __init__(
        self,
        tasks: Sequence[int],
        names: Sequence[str] | None = None,
        *,
        what: str = "gradient",
        where: str = "",
    ) -> None:
        self.tasks = tuple(tasks)
        self.names = tuple(str(t) for t in tasks) if names is None else tuple(names)
        self._text = (what, where)
        shown = self.names if names is None else [repr(name) for name in self.names]
        which = ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "")
        place = f" in {where}" if where else ""
        super().__init__(
            f"the {what} of task {which} is not finite{place}; the state was left as it was. Skip "
            "the step or look at that task's loss"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _error, (self.tasks, self.names, *self._text)


def _error(
    tasks: Sequence[int], names: Sequence[str], what: str, where: str
) -> NonFiniteGradientError:
    """Build the error again where it was sent to another process."""
    plain = tuple(names) == tuple(str(t) for t in tasks)
    return NonFiniteGradientError(tasks, None if plain else names, what=what, where=where)


class Aggregator(nn.Module):
    """Turns a Jacobian ``(tasks, params)`` into one direction ``(params,)``.

    Row i is the gradient of loss i in the shared parameters, flattened and joined in the order of
    the parameter list. Nothing is differentiated through. A stateless aggregator is a pure
    function; a stateful one keeps its state in buffers or extra state, is saved by ``state_dict``
    and forgets by :meth:`reset`.

    Subclasses override :meth:`forward`, call :meth:`check` first, and return a new tensor: never a
    view of the Jacobian or of their state. Sums over columns go through :meth:`reduce`, so that
    they hold where each process has a shard of the columns. Two other bases ask for less than the
    whole matrix: :class:`GramianAggregator` and :class:`ColumnAggregator`.

    Attributes:
        needs: ``"jacobian"``: the whole matrix; ``"gramian"``: :class:`GramianAggregator`;
            ``"columns"``: :class:`ColumnAggregator`. With the last two the driver can work within
            ``chunk_params``.
        block_sizes: Columns of each parameter tensor, or None before :meth:`bind`.

    Example:
        >>> import torch
        >>> from gradworks.multitask import Aggregator
        >>> class Largest(Aggregator):
        ...     def forward(self, jacobian):
        ...         self.check(jacobian)
        ...         squares = self.reduce(jacobian.square().sum(1))
        ...         return jacobian[squares.argmax()].clone()
        >>> Largest()(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        tensor([0., 4.])
    """

    needs: Literal["jacobian", "gramian", "columns"] = "jacobian"

    def __init__(self) -> None:
        super().__init__()
        self.block_sizes: tuple[int, ...] | None = None
        self._reduce: Callable[[Tensor], Tensor] | None = None

    def bind(
        self, block_sizes: Sequence[int], reduce: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """Learn how the columns are cut into parameter tensors (the driver calls this).

        Args:
            block_sizes: Columns of each tensor, in order; those of this process where sharded.
            reduce: Sums a small tensor over the shards; None: all columns are here.

        Raises:
            TypeError: If ``reduce`` cannot be called.
            ValueError: If a size is negative.
        """
        sizes = tuple(int(size) for size in block_sizes)
        if any(size < 0 for size in sizes):
            raise ValueError(f"block_sizes must be at least 0, got {sizes}")
        if reduce is not None and not callable(reduce):
            raise TypeError(f"reduce must be a function or None, got {type(reduce).__name__}")
        self.block_sizes = sizes
        self._reduce = reduce

    def bound(
        self, block_sizes: Sequence[int], reduce: Callable[[Tensor], Tensor] | None = None
    ) -> bool:
        """Whether :meth:`bind` was last called with these.

        Args:
            block_sizes: As there.
            reduce: As there.
        """
        return self.block_sizes == tuple(block_sizes) and self._reduce is reduce

    @property
    def sharded(self) -> bool:
        """Whether other processes hold the other columns."""
        return self._reduce is not None

    def reduce(self, tensor: Tensor) -> Tensor:
        """Sum a small tensor over the shards of the columns; without shards it is returned as is.

        Args:
            tensor: The sum over this process's columns.
        """
        return tensor if self._reduce is None else self._reduce(tensor)

    def norms(self, jacobian: Tensor) -> Tensor:
        """Norms of the rows over all shards, ``(tasks,)``, at least float32.

        Args:
            jacobian: ``(tasks, params)``, this process's columns.
        """
        norms = row_norms(jacobian)
        return self.reduce(norms.square()).sqrt() if self.sharded else norms

    def gramian(self, jacobian: Tensor) -> Tensor:
        """Inner products of the rows over all shards, ``(tasks, tasks)``, at least float32.

        Args:
            jacobian: ``(tasks, params)``, this process's columns.
        """
        return self.reduce(gramian_of(jacobian))

    def reset(self) -> None:
        """Forget the state; nothing to do where there is none."""

    def forward(self, jacobian: Tensor) -> Tensor:
        """Return the direction of ``jacobian``; the plain sum unless a subclass says otherwise."""
        self.check(jacobian)
        return jacobian.sum(0)

    def __call__(self, jacobian: Tensor) -> Tensor:
        """Return the direction, without a graph."""
        with torch.no_grad():
            found: Tensor = super().__call__(jacobian)
        return found

    def __getstate__(self) -> dict[str, Any]:
        # Process groups can be neither copied nor pickled; a copy is bound anew by its driver.
        return {**self.__dict__, "_reduce": None, "block_sizes": None}

    @staticmethod
    def check(jacobian: Tensor) -> None:
        """Refuse what no aggregator can use.

        Args:
            jacobian: Floating, ``(tasks, params)``, at least one task.

        Raises:
            TypeError: If it is no tensor, or not of a floating dtype.
            ValueError: If it is not 2-D or has no row.
        """
        if not isinstance(jacobian, Tensor):
            raise TypeError(f"jacobian must be a tensor, got {type(jacobian).__name__}")
        if not jacobian.is_floating_point():
            raise TypeError(f"jacobian must be of a floating dtype, got {jacobian.dtype}")
        if jacobian.dim() != 2:
            raise ValueError(
                f"jacobian must be 2-D (tasks, params), got shape {tuple(jacobian.shape)}"
            )
        if jacobian.shape[0] == 0:
            raise ValueError(f"jacobian has no task, got shape {tuple(jacobian.shape)}")


class GramianAggregator(Aggregator):
    """A weighted sum of the task gradients whose weights depend on their inner products alone.

    Subclasses override :meth:`weights`. Under ``chunk_params`` the driver stores no Jacobian: it
    sums the Gramian over blocks of parameters, then runs one backward pass of the weighted losses.

    Example:
        >>> import torch
        >>> from gradworks.multitask import GramianAggregator
        >>> class UnitRows(GramianAggregator):
        ...     def weights(self, gramian):
        ...         return gramian.diagonal().rsqrt()
        >>> UnitRows()(torch.tensor([[3.0, 0.0], [0.0, 5.0]]))
        tensor([1., 1.])
    """

    needs: Literal["jacobian", "gramian", "columns"] = "gramian"

    def weights(self, gramian: Tensor) -> Tensor:
        """Return the weight of each task; ones (the plain sum) unless a subclass says otherwise.

        Args:
            gramian: Inner products of the task gradients over all shards, ``(tasks, tasks)``, at
                least float32.

        Returns:
            ``(tasks,)``.
        """
        return torch.ones_like(gramian[0])

    def forward(self, jacobian: Tensor) -> Tensor:
        """Return the weighted sum of the rows, ``(params,)``."""
        self.check(jacobian)
        weights = self.weights(self.gramian(jacobian))
        return weights.to(jacobian.dtype) @ jacobian


class ColumnAggregator(Aggregator):
    """A method that needs the norms of the rows first and then treats each column by itself.

    Subclasses override :meth:`begin`, :meth:`columns` and :meth:`finish`. The driver under
    ``chunk_params``, and :meth:`forward` on a whole matrix, call ``begin`` once, ``columns`` for
    each block in order, ``finish`` once.

    Example:
        >>> import torch
        >>> from gradworks.multitask import ColumnAggregator
        >>> class SignedMean(ColumnAggregator):
        ...     def columns(self, jacobian, start):
        ...         return jacobian.sign().mean(0)
        >>> SignedMean()(torch.tensor([[3.0, -1.0], [2.0, 5.0]]))
        tensor([1., 0.])
    """

    needs: Literal["jacobian", "gramian", "columns"] = "columns"

    def begin(self, norms: Tensor, params: int, like: Tensor) -> None:
        """Take what must be known before the first block, and refuse what cannot be used.

        Args:
            norms: Norms of the whole rows over all shards, ``(tasks,)``, at least float32.
            params: Number of columns on this process.
            like: An empty tensor with the dtype and device of the blocks.
        """

    def columns(self, jacobian: Tensor, start: int) -> Tensor:
        """Return the direction in one block of columns; the plain sum unless overridden.

        Args:
            jacobian: The block, ``(tasks, columns)``.
            start: Number of its first column.

        Returns:
            ``(columns,)``, a new tensor.
        """
        return jacobian.sum(0)

    def finish(self, direction: Tensor) -> Tensor:
        """Change the whole direction at the end, such as clip it; may work in place.

        Args:
            direction: ``(params,)``.

        Returns:
            The same shape.
        """
        return direction

    def forward(self, jacobian: Tensor) -> Tensor:
        """Return the direction, ``(params,)``, block by block."""
        self.check(jacobian)
        params = jacobian.shape[1]
        self.begin(self.norms(jacobian), params, jacobian.new_empty(0))
        direction = torch.empty_like(jacobian[0])
        for start in range(0, params, COLUMNS):
            block = slice(start, start + COLUMNS)
            direction[block] = self.columns(jacobian[:, block], start)
        return self.finish(direction)


def row_norms(jacobian: Tensor) -> Tensor:
    """Norms of the rows; half precision is summed in float32."""
    wide = torch.promote_types(jacobian.dtype, torch.float32)
    norms: Tensor = torch.linalg.vector_norm(jacobian, dim=1, dtype=wide)
    return norms


def gramian_of(jacobian: Tensor) -> Tensor:
    """Inner products of the rows, at least in float32."""
    wide = jacobian.to(torch.promote_types(jacobian.dtype, torch.float32))
    return wide @ wide.T
