"""A training step of several losses: micro-batches accumulated, conflicts resolved, ``.grad``.

"GCond: Gradient Conflict Resolution via Accumulation-based Stabilization for Large-Scale
Multi-Task Learning", 2025, arXiv:2509.07252.

What differs from the authors' code: only batch norm is frozen unless asked otherwise (theirs stops
dropout too); the losses of a micro-batch share one forward pass; replicas average the gradients of
each task before conflicts are resolved (theirs average what each has resolved for itself).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from gradworks.multitask.aggregator import NonFiniteGradientError
from gradworks.multitask.collect import AggregationStats, TaskGradients
from gradworks.multitask.gcond.method import GCond
from gradworks.multitask.gcond.replicas import agree, average_grads

__all__ = ["Conductor", "ConductorStats"]

Loss = Callable[..., Tensor]
NextBatch = Callable[[], Sequence[Any]]


@dataclass(frozen=True)
class ConductorStats:
    """What one step saw.

    Attributes:
        losses: Mean of each loss over its micro-batches on this process, without its weight.
        aggregator: The aggregator's own figures, such as ``GCondStats``; None if it keeps none or
            the step was skipped.
        gradients: Norms of the task gradients, and whether a gradient scaler will skip the step.
    """

    losses: dict[str, Tensor]
    aggregator: Any
    gradients: AggregationStats


class Conductor:
    """Takes the place of the backward pass in a training loop with several losses.

    Each loss is accumulated over micro-batches, an aggregator makes one direction of the sums, and
    ``.grad`` is written (what was there goes). Any optimizer follows; behind :class:`GCond`, which
    has a momentum, use one with ``betas=(0, ...)``.

    In stochastic mode a micro-batch serves one loss: K losses cost one backward pass a micro-batch
    instead of K, and each loss sees a K-th of the samples.

    Args:
        model: Called with the first part of a batch. Wrapped in ``DistributedDataParallel``, its
            process group is used.
        losses: Functions by name, called with the model's output and the other parts of a batch;
            the names order the tasks.
        weights: What each loss is multiplied by, at least 0, by name; None: 1.
        accumulation_steps: Micro-batches a step; in stochastic mode a multiple of the number of
            losses: the first share goes to the first loss, the next to the second.
        mode: ``"stochastic"`` (the paper's, default of the authors' code) or ``"sequential"``:
            every loss on every micro-batch.
        freeze: ``"batch_norm"``: batch norm runs in evaluation mode; ``"eval"``: the whole model
            does (authors' code); ``"none"``.
        aggregator: From the gradients of the losses to one direction: an
            :class:`~gradworks.multitask.Aggregator`, or a module or function of torchjd; None: a
            new :class:`GCond`.
        autocast: Dtype of mixed precision, or a ``torch.autocast``; None: none.
        scaler: A ``torch.amp.GradScaler``; ``scaler.step`` and ``scaler.update`` follow as ever.
        sync: With replicas: ``"before"``: gradients of each loss are averaged, then resolved, the
            same everywhere; ``"after"``: each replica resolves its own and the results are averaged
            (authors' code).

    Raises:
        TypeError: If an argument is of another type than allowed.
        ValueError: If a name has no loss or no weight, weights are negative or sum to 0, the
            number of micro-batches does not suit, a word is unknown, or nothing can be trained.

    Note:
        Memory: one gradient a loss beside the aggregator's state. ``.grad`` changes only once
        everything was computed; no micro-batch waits for the accelerator.

    Example:
        >>> import torch
        >>> import torch.nn.functional as F
        >>> from gradworks.multitask.gcond import Conductor
        >>> model = torch.nn.Linear(3, 2)
        >>> conductor = Conductor(model, {"l1": F.l1_loss, "l2": F.mse_loss}, None, 4)
        >>> optimizer = torch.optim.AdamW(model.parameters(), betas=(0.0, 0.999))
        >>> stats = conductor.step(lambda: (torch.randn(8, 3), torch.zeros(8, 2)))
        >>> optimizer.step()
        >>> list(stats.losses), len(stats.aggregator.raw_norms), model.weight.grad.shape
        (['l1', 'l2'], 2, torch.Size([2, 3]))

    References:
        arXiv:2509.07252 and its authors' code, ``GradientConductor.step``.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Mapping[str, Loss],
        weights: Mapping[str, float] | None,
        accumulation_steps: int,
        *,
        mode: Literal["stochastic", "sequential"] = "stochastic",
        freeze: Literal["batch_norm", "eval", "none"] = "batch_norm",
        aggregator: Callable[[Tensor], Tensor] | None = None,
        autocast: torch.dtype | torch.autocast | None = None,
        scaler: torch.amp.GradScaler | None = None,
        sync: Literal["before", "after"] = "before",
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a module, got {type(model).__name__}")
        for name, value, allowed in (
            ("mode", mode, ("stochastic", "sequential")),
            ("freeze", freeze, ("batch_norm", "eval", "none")),
            ("sync", sync, ("before", "after")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        self.losses = _checked_losses(losses)
        self.weights = _checked_weights(weights, self.losses)
        self.accumulation_steps = _checked_steps(accumulation_steps, len(self.losses), mode)
        self.model = model
        self.mode = mode
        self.freeze = freeze
        self.aggregator = GCond() if aggregator is None else aggregator
        if not callable(self.aggregator):
            raise TypeError(f"aggregator must be callable, got {type(aggregator).__name__}")
        self._inner: nn.Module = model
        self._after = None
        group = None
        if isinstance(model, DistributedDataParallel):
            # its hooks would average the gradient of one loss as if it were the step's
            self._inner, group = model.module, model.process_group
            self._after = group if sync == "after" else None
        trained = [p for p in self._inner.parameters() if p.requires_grad]
        if not trained:
            raise ValueError("model has no parameter that requires a gradient; nothing to train")
        self._trained = trained
        self._driver = TaskGradients(
            trained, scaler=scaler, process_group=None if self._after is not None else group
        )
        self._autocast = _checked_autocast(autocast, trained[0].device.type)
        follow = getattr(self.aggregator, "follow", None)
        if callable(follow):
            follow(trained)

    def step(self, next_batch: NextBatch) -> ConductorStats:
        """Accumulate, aggregate, and write ``.grad``.

        Args:
            next_batch: Gives a micro-batch, a tuple: what the model takes (a tensor; a tuple if it
                takes several), then what the losses take after the model's output. Called
                ``accumulation_steps`` times.

        Returns:
            The losses and what the aggregator saw.

        Raises:
            NonFiniteGradientError: If a loss or gradient is not finite and there is no scaler; it
                names loss and micro-batch, and ``.grad`` and state stay as they were.
            RuntimeError: If a loss depends on a graph that is gone.
            TypeError: If a batch is no tuple, or a loss no tensor.
            ValueError: If a loss is no scalar or depends on no parameter.
        """  # noqa: DOC502
        seen: list[tuple[str, int, Tensor]] = []
        try:
            with _frozen(self._inner, self.freeze), torch.enable_grad():
                self._accumulate(next_batch, seen)
            if self._after is not None:
                agree(self._driver, self._after)
            gradients = self._driver.aggregate(self.aggregator, accumulate=False)
        except NonFiniteGradientError as error:
            raise self._named(error, seen) from None
        finally:
            self._driver.discard()
        if self._after is not None:
            average_grads(self._trained, self._after)
        losses = {
            name: torch.stack([value for of, _, value in seen if of == name]).mean()
            for name in self.losses
        }
        kept = None if gradients.skipped else getattr(self.aggregator, "stats", None)
        return ConductorStats(losses, kept, gradients)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs beside model, optimizer and scaler."""
        state = getattr(self.aggregator, "state_dict", None)
        return {"tasks": list(self.losses), "aggregator": state() if callable(state) else {}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave; the next step is the one that would have followed.

        Args:
            state_dict: Of a conductor with the same losses and aggregator.

        Raises:
            ValueError: If its losses are others, or in another order.
        """
        tasks = list(state_dict["tasks"])
        if tasks != list(self.losses):
            raise ValueError(
                f"the state has losses {tasks}, this conductor {list(self.losses)}; names and "
                "order must be the same"
            )
        load = getattr(self.aggregator, "load_state_dict", None)
        if callable(load):
            load(state_dict["aggregator"])

    def _accumulate(self, next_batch: NextBatch, seen: list[tuple[str, int, Tensor]]) -> None:
        """Sum the weighted gradients of each loss over its micro-batches."""
        names = list(self.losses)
        share = self.accumulation_steps
        if self.mode == "stochastic":
            share //= len(names)
        for micro in range(self.accumulation_steps):
            wanted = names if self.mode == "sequential" else [names[micro // share]]
            with self._mixed():
                inputs, others = _parts(next_batch())
                output = self._inner(*inputs)
                found = {name: self.losses[name](output, *others) for name in wanted}
            weighted = {}
            for name, loss in found.items():
                if not isinstance(loss, Tensor):
                    raise TypeError(f"loss {name!r} must be a tensor, got {type(loss).__name__}")
                seen.append((name, micro, loss.detach().float().mean()))
                weight = self.weights[name]
                weighted[name] = loss if weight == 1 else loss * weight
            self._driver.accumulate(weighted, scale=1 / share, tasks=names)

    def _mixed(self) -> AbstractContextManager[Any]:
        """Mixed precision, or nothing."""
        return nullcontext() if self._autocast is None else self._autocast

    def _named(
        self, error: NonFiniteGradientError, seen: list[tuple[str, int, Tensor]]
    ) -> NonFiniteGradientError:
        """Say which loss was the first that was not finite, and in which micro-batch."""
        for name, micro, value in seen:
            if not bool(torch.isfinite(value)):
                task = list(self.losses).index(name)
                where = f"micro-batch {micro} (counted from 0)"
                return NonFiniteGradientError([task], [name], what="loss", where=where)
        names = list(self.losses)
        return NonFiniteGradientError(error.tasks, [names[task] for task in error.tasks])


def _parts(batch: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """What the model takes, and what the losses take besides."""
    if not isinstance(batch, tuple | list) or not batch:
        raise TypeError(
            "next_batch must return a tuple (input, ...): what the model takes, then what the "
            f"losses take after its output; got {type(batch).__name__}"
        )
    first = batch[0]
    return (first if isinstance(first, tuple) else (first,)), batch[1:]


@contextmanager
def _frozen(model: nn.Module, freeze: str) -> Iterator[None]:
    """Put modules into evaluation mode, and each back to its own mode at the end."""
    chosen = [
        module
        for module in model.modules()
        if module.training and (freeze == "eval" or isinstance(module, _BatchNorm))
    ]
    if freeze == "none":
        chosen = []
    for module in chosen:
        module.training = False
    try:
        yield
    finally:
        for module in chosen:
            module.training = True


def _checked_losses(losses: Mapping[str, Loss]) -> dict[str, Loss]:
    """Functions by name."""
    if not isinstance(losses, Mapping):
        raise TypeError(f"losses must map names to functions, got {type(losses).__name__}")
    if not losses:
        raise ValueError("losses is empty; give one function a task")
    for name, loss in losses.items():
        if not callable(loss):
            raise TypeError(f"losses[{name!r}] must be a function, got {type(loss).__name__}")
    found = {str(name): loss for name, loss in losses.items()}
    for name in found:
        if sum(str(key) == name for key in losses) > 1:
            raise ValueError(f"two losses are called {name!r}; names must differ as text")
    return found


def _checked_weights(
    weights: Mapping[str, float] | None, losses: Mapping[str, Loss]
) -> dict[str, float]:
    """A weight for each loss."""
    if weights is None:
        return dict.fromkeys(losses, 1.0)
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights must map names to numbers, got {type(weights).__name__}")
    found = {str(name): float(weight) for name, weight in weights.items()}
    if set(found) != set(losses):
        raise ValueError(
            f"weights must have the names of the losses, {sorted(losses)}, got {sorted(found)}"
        )
    bad = {name: w for name, w in found.items() if not 0 <= w < float("inf")}
    if bad:
        raise ValueError(f"weights must be finite and at least 0, got {bad}")
    if sum(found.values()) == 0:
        raise ValueError("weights sum to 0; at least one must be above 0")
    return {name: found[name] for name in losses}


def _checked_steps(steps: int, losses: int, mode: str) -> int:
    """The number of micro-batches."""
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"accumulation_steps must be an integer, got {type(steps).__name__}")
    if steps < 1:
        raise ValueError(f"accumulation_steps must be at least 1, got {steps}")
    if mode == "stochastic" and steps % losses:
        following = (steps // losses + 1) * losses
        raise ValueError(
            f"accumulation_steps must be a multiple of the {losses} losses in stochastic mode, got "
            f"{steps}; the next is {following}"
        )
    return steps


def _checked_autocast(
    autocast: torch.dtype | torch.autocast | None, device: str
) -> torch.autocast | None:
    """Mixed precision on the model's device."""
    if autocast is None or isinstance(autocast, torch.autocast):
        return autocast
    if not isinstance(autocast, torch.dtype):
        raise TypeError(
            f"autocast must be a dtype, a torch.autocast or None, got {type(autocast).__name__}"
        )
    return torch.autocast(device, dtype=autocast)
