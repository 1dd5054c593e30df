"""Rows of the Jacobian: one backward pass a task, or one batched pass for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Parameter

from gradworks.multitask.collect.processes import local_of

__all__ = ["batched", "batched_fits", "rows_of", "sequential", "unshared"]

Own = list[tuple[Parameter, Tensor]]
Factor = float | Tensor

# Phrases of torch's error where the saved tensors of a graph are gone.
FREED = ("second time", "have already been freed", "saved intermediate values")


def rows_of(
    losses: Sequence[Tensor],
    inputs: Sequence[Tensor],
    heads: Sequence[Sequence[Parameter]],
    rows: Tensor | Sequence[Tensor],
    *,
    factor: Factor = 1.0,
    how: str = "sequential",
    add: bool = False,
    retain: bool = False,
    done: Callable[[int], None] | None = None,
) -> Own:
    """Write the gradient of each loss in ``inputs`` into its row.

    Args:
        losses: Scalars.
        inputs: Parameters of the trunk, or its features.
        heads: The parameters of each loss's own head.
        rows: ``(tasks, entries of inputs)``, or a list of rows; overwritten, or added to.
        factor: What the rows are multiplied by; a tensor is never read on the host.
        how: ``"sequential"``, ``"vjp"`` or ``"hooked"`` (by ``backward``, as FSDP2 needs it).
        add: Add to the rows.
        retain: Keep the graph after the last loss.
        done: Called with the number of each row that is complete.

    Returns:
        Parameters of the heads with the gradient of their own loss, not multiplied.

    Raises:
        RuntimeError: If the graph was freed before, or a batched pass is impossible.
    """  # noqa: DOC502
    collect = batched if how == "vjp" else sequential
    sizes = [local_of(x, x).numel() for x in inputs]
    own: Own = []
    found = collect(losses, inputs, heads, how == "hooked", retain)
    for i, (grads, mine) in enumerate(found):
        _fill(torch.split(rows[i], sizes), grads, factor, add)
        own += mine
        if done is not None:
            done(i)
    return own


Gradients = Iterator[tuple[list[Tensor | None], Own]]


def sequential(
    losses: Sequence[Tensor],
    inputs: Sequence[Tensor],
    heads: Sequence[Sequence[Parameter]],
    hooked: bool,
    retain: bool,
) -> Gradients:
    """One backward pass a loss; the graph is kept until the last.

    Yields:
        Gradients in the inputs, and those of the loss's own head.
    """
    with _grads_aside([*inputs, *(p for head in heads for p in head)] if hooked else []):
        for i, (loss, head) in enumerate(zip(losses, heads)):
            keep = retain or i < len(losses) - 1
            wanted = [*inputs, *head]
            with _explained(i):
                if hooked:
                    torch.autograd.backward(loss, retain_graph=keep)
                    grads: list[Tensor | None] = [_taken(p) for p in wanted]
                else:
                    grads = list(
                        torch.autograd.grad(loss, wanted, retain_graph=keep, allow_unused=True)
                    )
            mine = [(p, g) for p, g in zip(head, grads[len(inputs) :]) if g is not None]
            if hooked:
                for others in heads:
                    for param in others:
                        param.grad = None
            del grads[len(inputs) :]
            yield grads, mine
            grads.clear()  # before the next pass makes its own: one row of room, not two


def batched(
    losses: Sequence[Tensor],
    inputs: Sequence[Tensor],
    heads: Sequence[Sequence[Parameter]],
    hooked: bool,
    retain: bool,
) -> Gradients:
    """All losses in one vectorised backward pass, which holds the activations of all.

    Yields:
        Gradients in the inputs, and those of the loss's own head.
    """
    stacked = torch.stack([loss.reshape(()) for loss in losses])
    unit = torch.eye(len(losses), dtype=stacked.dtype, device=stacked.device)
    every = [p for head in heads for p in head]
    try:
        with _explained(None):
            grads = torch.autograd.grad(
                stacked,
                [*inputs, *every],
                unit,
                is_grads_batched=True,
                allow_unused=True,
                retain_graph=retain,
            )
    except RuntimeError as error:
        if "freed" in str(error):
            raise
        raise RuntimeError(
            "the batched backward pass failed; an operation of the model may have no batched "
            "derivative. method='sequential' needs none"
        ) from error
    of = dict(zip(map(id, every), grads[len(inputs) :]))
    for i, head in enumerate(heads):
        mine = [(p, g[i]) for p in head if (g := of[id(p)]) is not None]
        yield [None if g is None else g[i] for g in grads[: len(inputs)]], mine


def batched_fits(tasks: int, inputs: Sequence[Tensor]) -> bool:
    """Whether the batched pass is worth it and the accelerator's memory is enough for it.

    It holds, for each task, gradients as large as the activations: at most what is allocated now
    beyond the parameters and their gradients.
    """
    device = inputs[0].device
    if device.type != "cuda" or tasks <= 8:
        return False
    free, _ = torch.cuda.mem_get_info(device)
    used = torch.cuda.memory_allocated(device)
    spare = free + torch.cuda.memory_reserved(device) - used
    return _needed(tasks, used, inputs) <= spare


def unshared(tensor: Tensor) -> bool:
    """Whether no other tensor lies in this one's memory."""
    count = getattr(torch._C, "_storage_Use_Count", None)
    storage = tensor.untyped_storage()  # counts as one, the tensor as another
    return count is not None and count(storage._cdata) <= 2


def _needed(tasks: int, used: int, inputs: Sequence[Tensor]) -> int:
    """Bytes of a batched pass: rows twice, and the activations of each task."""
    weights = sum(x.numel() * x.element_size() for x in inputs)
    return tasks * (2 * weights + max(used - 2 * weights, 0))


def _fill(
    parts: Sequence[Tensor], grads: Sequence[Tensor | None], factor: Factor, add: bool
) -> None:
    """Write the gradients of one loss into its row."""
    for part, grad in zip(parts, grads):
        if grad is not None:
            _put(part, grad, factor, add)
        elif not add:
            part.zero_()


def _put(part: Tensor, grad: Tensor, factor: Factor, add: bool) -> None:
    """Write (or add) a gradient times the factor, in one pass where that is possible."""
    if grad.layout != torch.strided:
        grad = grad.to_dense()
    place = part.view(grad.shape)
    plain = isinstance(factor, float) and factor == 1.0
    if add:
        place.add_(grad if plain else grad * factor)
    elif plain:
        place.copy_(grad)
    else:
        torch.mul(grad, factor, out=place)


def _taken(param: Tensor) -> Tensor | None:
    """Take what a backward pass left in ``.grad``, this process's part of it."""
    grad = param.grad
    param.grad = None
    return None if grad is None else local_of(grad, param)


@contextmanager
def _grads_aside(params: Sequence[Tensor]) -> Iterator[None]:
    """Put ``.grad`` away, and back at the end."""
    kept = [p.grad for p in params]
    for param in params:
        param.grad = None
    try:
        yield
    finally:
        for param, grad in zip(params, kept):
            param.grad = grad


@contextmanager
def _explained(loss: int | None) -> Iterator[None]:
    """Say what to do where the graph is gone."""
    try:
        yield
    except RuntimeError as error:
        if not any(phrase in str(error) for phrase in FREED):
            raise
        which = "the losses" if loss is None else f"loss {loss}"
        raise RuntimeError(
            f"the graph of {which} was freed; collect before any backward() of these losses, "
            "compute them anew, or pass retain_graph=True to the earlier call"
        ) from error
