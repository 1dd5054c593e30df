"""The gradients of several losses in the parameters that they share, and one step from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from gradworks.multitask.aggregator import row_norms

__all__ = ["AggregationStats", "TaskGradients"]

Losses = Sequence[Tensor] | Mapping[str, Tensor]


@dataclass(frozen=True)
class AggregationStats:
    """What one backward pass saw.

    Attributes:
        tasks: Names of the tasks.
        norms: Norm of each task's gradient in the shared parameters, ``(tasks,)``.
        unreached: Tasks whose loss reaches no shared parameter.
    """

    tasks: tuple[str, ...]
    norms: Tensor
    unreached: tuple[str, ...]


class TaskGradients:
    """Collects the gradient of every task and writes ``.grad``; any optimizer follows.

    Args:
        shared: Parameters of the trunk.
        heads: Parameters of each task's head, by the name of the task; they get the gradient of
            their own task.
        method: ``"sequential"``: a backward pass a task; ``"vjp"``: one batched pass, which holds
            the activations of all tasks; ``"auto"``: sequential on a CPU and up to 8 tasks.
        dtype: Dtype of the Jacobian; None: that of the parameters.

    Raises:
        TypeError: If a parameter is no tensor.
        ValueError: If there is no shared parameter, one occurs twice, or the method is unknown.

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
        method: Literal["auto", "sequential", "vjp"] = "auto",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.shared = [p for p in _tensors(shared, "shared") if p.requires_grad]
        self.heads = {
            name: [p for p in _tensors(params, f"head {name!r}") if p.requires_grad]
            for name, params in (heads or {}).items()
        }
        if not self.shared:
            raise ValueError("shared holds no parameter that requires a gradient")
        everything = self.shared + [p for params in self.heads.values() for p in params]
        if len({id(p) for p in everything}) < len(everything):
            raise ValueError("a parameter occurs twice; shared and heads must not overlap")
        if method not in ("auto", "sequential", "vjp"):
            raise ValueError(f"method must be 'auto', 'sequential' or 'vjp', got {method!r}")
        devices = sorted({str(p.device) for p in self.shared})
        if len(devices) > 1:
            raise ValueError(f"shared parameters lie on several devices: {', '.join(devices)}")
        self.method = method
        self.dtype = dtype or self.shared[0].dtype
        self.sizes = [p.numel() for p in self.shared]

    def jacobian(self, losses: Losses) -> Tensor:
        """Return the gradients of ``losses`` in the shared parameters, ``(tasks, params)``.

        Args:
            losses: A scalar a task; their graph is freed.

        Raises:
            RuntimeError: If the graph was freed before.
            TypeError: If a loss is no tensor.
            ValueError: If there is none, one is no scalar, or one has no graph.
        """  # noqa: DOC502
        return self._collect(_named(losses), with_heads=False)[0]

    def gramian(self, losses: Losses) -> Tensor:
        """Return the inner products of the task gradients, ``(tasks, tasks)``.

        Args:
            losses: As for :meth:`jacobian`.

        Raises:
            RuntimeError: As there.
            TypeError: As there.
            ValueError: As there.
        """  # noqa: DOC502
        rows = self.jacobian(losses)
        return rows @ rows.T

    def backward(
        self,
        losses: Losses,
        aggregator: Callable[[Tensor], Tensor],
        *,
        accumulate: bool = True,
    ) -> AggregationStats:
        """Write ``.grad``: the aggregate on the trunk, each task's own gradient on its head.

        Args:
            losses: A scalar a task, in the aggregator's order; with heads, by the heads' names.
            aggregator: Maps ``(tasks, params)`` to ``(params,)``; an
                :class:`~gradworks.multitask.Aggregator`, one of torchjd, or a function.
            accumulate: Add to an existing ``.grad`` as ``loss.backward()`` does.

        Returns:
            Names and norms of the tasks.

        Raises:
            RuntimeError: As for :meth:`jacobian`, or if the aggregate is of another shape.
            TypeError: As there.
            ValueError: As there, or if a head has no loss.
        """  # noqa: DOC502
        named = _named(losses)
        unknown = sorted(set(self.heads) - set(named))
        if unknown:
            raise ValueError(f"heads {unknown} have no loss; losses are {sorted(named)}")
        rows, reached, own = self._collect(named, with_heads=True)
        bind = getattr(aggregator, "bind", None)
        if bind is not None and getattr(aggregator, "block_sizes", None) is None:
            bind(self.sizes)
        with torch.no_grad():
            direction = aggregator(rows)
        if direction.shape != rows.shape[1:]:
            raise RuntimeError(
                f"aggregator returned shape {tuple(direction.shape)}, expected {(rows.shape[1],)}"
            )
        for param, part in zip(self.shared, torch.split(direction, self.sizes)):
            _write(param, part.view(param.shape).to(param.dtype), accumulate)
        for param, grad in own:
            _write(param, grad, accumulate)
        tasks = tuple(named)
        unreached = tuple(task for task, hit in zip(tasks, reached) if not hit)
        return AggregationStats(tasks, row_norms(rows), unreached)

    def _collect(
        self, losses: dict[str, Tensor], *, with_heads: bool
    ) -> tuple[Tensor, list[bool], list[tuple[Parameter, Tensor]]]:
        """Rows of the Jacobian, which tasks reach the trunk, and the heads' gradients."""
        use_vjp = self.method == "vjp" or (
            self.method == "auto" and self.shared[0].device.type != "cpu" and len(losses) > 8
        )
        if use_vjp and not (with_heads and self.heads):
            rows, reached = self._batched(list(losses.values()))
            return rows, reached, []
        rows = self.shared[0].new_zeros(len(losses), sum(self.sizes), dtype=self.dtype)
        reached, own = [], []
        for i, (name, loss) in enumerate(losses.items()):
            head = self.heads.get(name, []) if with_heads else []
            grads = torch.autograd.grad(
                loss, [*self.shared, *head], retain_graph=i < len(losses) - 1, allow_unused=True
            )
            parts = torch.split(rows[i], self.sizes)
            for part, grad in zip(parts, grads):
                if grad is not None:
                    part.copy_(grad.reshape(-1))
            reached.append(any(grad is not None for grad in grads[: len(self.shared)]))
            own += [(p, g) for p, g in zip(head, grads[len(self.shared) :]) if g is not None]
        return rows, reached, own

    def _batched(self, losses: list[Tensor]) -> tuple[Tensor, list[bool]]:
        """All rows from one vectorised backward pass."""
        stacked = torch.stack([loss.reshape(()) for loss in losses])
        unit = torch.eye(len(losses), dtype=stacked.dtype, device=stacked.device)
        grads = torch.autograd.grad(
            stacked, self.shared, unit, is_grads_batched=True, allow_unused=True
        )
        rows = torch.cat(
            [
                unit.new_zeros(len(losses), size) if grad is None else grad.reshape(len(losses), -1)
                for grad, size in zip(grads, self.sizes)
            ],
            dim=1,
        ).to(self.dtype)
        return rows, [bool(hit) for hit in (rows != 0).any(1).tolist()]


def _tensors(params: Iterable[Parameter], what: str) -> list[Parameter]:
    """List parameters, refusing anything that is no tensor."""
    found = list(params)
    for param in found:
        if not isinstance(param, Tensor):
            raise TypeError(f"{what} must hold tensors, got {type(param).__name__}")
    return found


def _named(losses: Losses) -> dict[str, Tensor]:
    """Losses by name, checked."""
    named = (
        dict(losses)
        if isinstance(losses, Mapping)
        else {str(i): loss for i, loss in enumerate(losses)}
    )
    if not named:
        raise ValueError("losses is empty; give one scalar a task")
    for name, loss in named.items():
        if not isinstance(loss, Tensor):
            raise TypeError(f"loss {name!r} must be a tensor, got {type(loss).__name__}")
        if loss.numel() != 1:
            raise ValueError(f"loss {name!r} must be a scalar, got shape {tuple(loss.shape)}")
        if not loss.requires_grad:
            raise ValueError(f"loss {name!r} has no graph: it depends on no parameter")
    return named


def _write(param: Parameter, grad: Tensor, accumulate: bool) -> None:
    """Add to ``.grad``, or replace it."""
    if accumulate and param.grad is not None:
        param.grad.add_(grad)
    else:
        param.grad = grad.detach().clone()
