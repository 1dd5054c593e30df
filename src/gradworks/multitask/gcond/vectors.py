"""The passes over whole gradients: inner products, combinations, momentum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gradworks.multitask.gcond.resolve import Products

__all__ = ["combined", "lion_steps", "momentum_step", "products_of"]

# Numbers of a matrix that are treated at once: on a processor as many as its last cache holds, so
# that what one operation wrote the next finds there; elsewhere it bounds what half precision is
# widened into.
CACHED = 1 << 20
WIDENED = 1 << 26


def products_of(
    rows: Tensor,
    previous: Tensor | None,
    mix: np.ndarray,
    lengths: Sequence[float],
    reduce: Callable[[Tensor], Tensor],
) -> Products:
    """Inner products, with one host synchronisation.

    Those with the step before are asked for only where they decide something, except on an
    accelerator, where asking again would wait for it again.

    Args:
        rows: ``(tasks, params)``, this process's columns.
        previous: Rows of the step before, or None where there was none.
        mix: What multiples of them the gradients before were, ``(tasks, tasks)``.
        lengths: Norms of those gradients.
        reduce: Sums a small tensor over the shards of the columns.
    """
    tasks = len(rows)
    if previous is None:
        return Products(_read(rows, [rows], reduce), lambda: np.zeros_like(mix), lengths)
    if rows.device.type == "cpu":
        among = _read(rows, [rows], reduce)
        return Products(among, lambda: _read(rows, [previous], reduce) @ mix.T, lengths)
    table = _read(rows, [rows, previous], reduce)
    return Products(table[:, :tasks], lambda: table[:, tasks:] @ mix.T, lengths)


def _read(rows: Tensor, others: Sequence[Tensor], reduce: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Inner products of rows with others, ``(tasks, tasks x others)``, on the host."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    exact = torch.float64 if rows.device.type == "cpu" else wide
    shape = len(rows), len(rows) * len(others)
    table = torch.zeros(shape, dtype=exact, device=rows.device)
    columns = torch.split(table, len(rows), 1)
    for block in _blocks(rows):
        part = rows[:, block].to(wide)
        for place, other in zip(columns, others, strict=True):
            place += part @ (part if other is rows else other[:, block].to(wide)).T
    found: np.ndarray = reduce(table).to("cpu", torch.float64).numpy()
    return found


def combined(rows: Tensor, combination: np.ndarray) -> Tensor:
    """Multiples of the rows, at least in float32.

    Args:
        rows: ``(tasks, params)``.
        combination: ``(tasks, tasks)``.
    """
    wide = torch.promote_types(rows.dtype, torch.float32)
    table = torch.from_numpy(combination).to(rows.device, wide)
    made = torch.empty(rows.shape, dtype=wide, device=rows.device)
    for block in _blocks(rows):
        torch.mm(table, rows[:, block].to(wide), out=made[:, block])
    return made


def momentum_step(
    rows: Tensor,
    weights: np.ndarray,
    *,
    previous: Tensor,
    remembered: Tensor,
    buffer: Tensor,
    beta: float,
    correction: float,
    return_raw: bool,
) -> tuple[Tensor, Tensor]:
    """Sum, remember and average, a block of columns at a time.

    Args:
        rows: ``(tasks, params)``.
        weights: Of the rows in the sum, ``(tasks,)``.
        previous: Takes the rows that are remembered.
        remembered: Those rows.
        buffer: The average over steps, ``(params,)``; updated.
        beta: Its decay.
        correction: What it is divided by in the result.
        return_raw: The result is the sum, not the average.

    Returns:
        The result, ``(params,)``, at least in float32, and its squared norm on this process.
    """
    wide = torch.promote_types(rows.dtype, torch.float32)
    plain = bool((weights == 1).all())  # exact: nothing is multiplied
    factors = torch.from_numpy(weights).to(rows.device, wide)
    result = torch.empty(rows.shape[1], dtype=wide, device=rows.device)
    square = torch.zeros((), dtype=wide, device=rows.device)
    for block in _blocks(rows):
        part = rows[:, block]
        total = part.sum(0, dtype=wide) if plain else factors @ part.to(wide)
        previous[:, block].copy_(part if remembered is rows else remembered[:, block])
        average = buffer[block]
        if average.dtype == wide:
            average.lerp_(total, 1 - beta)
        else:
            widened = average.to(wide).lerp_(total, 1 - beta)
            average.copy_(widened)
            average = widened
        out = result[block]
        if return_raw:
            out.copy_(total)
        else:
            torch.div(average, correction, out=out)
        square += torch.dot(out, out)
    return result, square


def lion_steps(
    average: Tensor,
    parameters: Sequence[Tensor],
    *,
    coefficient: float,
    clip: float,
    eps: float,
    reduce: Callable[[Tensor], Tensor],
) -> Tensor:
    """The sign of the average, in each parameter tensor as long as its norm allows.

    Args:
        average: ``(params,)``; becomes the result.
        parameters: This process's parts.
        coefficient: Of the length.
        clip: Largest ratio of the norms of parameter and average.
        eps: Norms below count as none: the ratio is 1.
        reduce: Sums a small tensor over the shards of the columns.

    Returns:
        ``average``, changed in place.
    """
    parts = torch.split(average, [p.numel() for p in parameters])
    norms = [torch.linalg.vector_norm(x.detach().to(average.dtype)) for x in parameters]
    norms += [torch.linalg.vector_norm(part) for part in parts]
    of_params, of_parts = reduce(torch.stack(norms).square()).sqrt().chunk(2)
    none = (of_params < eps) | (of_parts < eps) | (of_parts == 0)  # eps may be 0
    ratio = torch.where(none, 1.0, of_params / of_parts)
    scale = ratio.clamp(max=clip) * coefficient
    average.sign_()
    for part, factor in zip(parts, scale.unbind(), strict=True):
        part.mul_(factor)
    return average


def _blocks(rows: Tensor) -> Iterator[slice]:
    """Columns that are treated at once."""
    width = max(1, (CACHED if rows.device.type == "cpu" else WIDENED) // len(rows))
    return (slice(start, start + width) for start in range(0, rows.shape[1], width))
