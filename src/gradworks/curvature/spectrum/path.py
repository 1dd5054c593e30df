"""The loss along a straight line between two sets of parameters: basins and barriers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradworks.curvature.operators.batches import Batches
from gradworks.curvature.operators.model import LossFn, check_choice
from gradworks.curvature.operators.surroundings import Mode, RandomState, model_mode

__all__ = ["PathLoss", "line_loss"]

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class PathLoss:
    """Loss on a line.

    Attributes:
        t: Positions, ``(num_points,)``, 0 to 1.
        loss: Losses, ``(num_points,)``, float64 on CPU.
        barrier: Largest excess over the chord between the ends' losses.
        climb: Largest excess over the higher end; two solutions lie in one basin where it is small.
        distance: Euclidean distance of the ends' parameters.
    """

    t: Tensor
    loss: Tensor
    barrier: float
    climb: float
    distance: float = math.nan


def _check_states(model: nn.Module, start: State, end: State) -> None:
    """Both must be state dicts of this model."""
    own = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    for name, state in (("start", start), ("end", end)):
        if not isinstance(state, Mapping):
            raise TypeError(f"{name} must be a state dict, got {type(state).__name__}")
        missing = [k for k in own if k not in state]
        extra = [k for k in state if k not in own and isinstance(state[k], Tensor)]
        if missing or extra:
            raise ValueError(
                f"{name} is not a state dict of {type(model).__name__}: "
                f"missing {missing[:3]}, unknown {extra[:3]}"
            )
        for key, tensor in own.items():
            if state[key].shape != tensor.shape:
                raise ValueError(
                    f"{name}[{key!r}] must have shape {tuple(tensor.shape)}, "
                    f"got {tuple(state[key].shape)}"
                )


@contextmanager
def _cumulative(norms: list[nn.Module]) -> Iterator[None]:
    """Batch norms, alone in train mode, with plain averages; put back afterwards."""
    before = [(norm, norm.training, norm.momentum) for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.momentum = True, None  # type: ignore[assignment]
        yield
    finally:
        for norm, training, momentum in before:
            norm.training, norm.momentum = training, momentum


def line_loss(
    model: nn.Module,
    start: State,
    end: State,
    loss_fn: LossFn,
    data: Any,
    *,
    num_points: int = 25,
    mode: Mode = "eval",
    refresh_batch_norm: bool = False,
    refresh_data: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> PathLoss:
    r"""Loss along :math:`w(t) = (1-t)\,w_a + t\,w_b`, over all data.

    To see whether two solutions lie in the same basin. Any function of output and target that is a
    mean over the batch can stand in for the loss, e.g. the error rate on test data.

    .. math:: \text{climb} = \max_t L(w(t)) - \max(L(w_a), L(w_b)), \qquad
        \text{barrier} = \max_t \big[ L(w(t)) - (1-t)\,L(w_a) - t\,L(w_b) \big]

    Args:
        model: The model; left as it is.
        start: State dict at t = 0, which also gives integer buffers.
        end: State dict at t = 1.
        loss_fn: ``(output, target) -> scalar``, a mean over the batch.
        data: One ``(inputs, targets)`` tuple or a re-iterable of them.
        num_points: At least 2. Default 25.
        mode: ``"eval"`` (default), ``"train"`` or ``"keep"``.
        refresh_batch_norm: Estimate batch-norm statistics anew at each point, ends included,
            instead of interpolating them: interpolated ones invent barriers.
        refresh_data: Where from; default ``data``.
        progress: Called with (points done, ``num_points``).

    Returns:
        The curve and its two heights.

    Raises:
        TypeError: A state that is no mapping, or data of a wrong type.
        ValueError: States with other keys or shapes, ``num_points`` below 2, empty data, or a
            loss that is not finite.

    Example:
        >>> import copy, torch
        >>> from gradworks.curvature.spectrum import line_loss
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> a, b = {"weight": -torch.ones(1, 1)}, {"weight": torch.ones(1, 1)}
        >>> data = (torch.ones(1, 1), torch.zeros(1, 1))
        >>> path = line_loss(model, a, b, torch.nn.functional.mse_loss, data, num_points=3)
        >>> path.loss.tolist(), path.climb
        ([1.0, 0.0, 1.0], 0.0)
    """  # noqa: DOC502
    if isinstance(num_points, bool) or not isinstance(num_points, int) or num_points < 2:
        raise ValueError(f"num_points must be an integer of at least 2, got {num_points!r}")
    check_choice("mode", mode, ("eval", "train", "keep"))
    _check_states(model, start, end)
    anchor = next(model.parameters(), None)
    if anchor is None:
        raise ValueError(f"{type(model).__name__} has no parameter: there is no line to walk")
    batches = Batches(data, device=anchor.device)
    refresh = batches if refresh_data is None else Batches(refresh_data, device=anchor.device)
    norms: list[nn.Module] = [
        m
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    names = {id(m): name for name, m in model.named_modules()}
    prefixes = [names[id(m)] + "." if names[id(m)] else "" for m in norms]
    random = RandomState(anchor.device)
    params = {name for name, _ in model.named_parameters()}
    distance = sum(
        float((end[k].double() - start[k].double()).square().sum()) for k in start if k in params
    )
    positions = torch.linspace(0, 1, num_points, dtype=torch.float64)
    losses = []
    with torch.no_grad(), model_mode(model, mode):
        for i, t in enumerate(positions.tolist()):
            state = {name: b.clone() for name, b in model.named_buffers()}
            state |= _between(start, end, t, anchor)
            if refresh_batch_norm and norms:
                with random.replay(refresh.generators):
                    _refresh(model, state, refresh, norms, prefixes)
            with random.replay(batches.generators):
                losses.append(_mean_loss(model, state, loss_fn, batches))
            if progress is not None:
                progress(i + 1, num_points)
    loss = torch.tensor(losses, dtype=torch.float64)
    if not bool(torch.isfinite(loss).all()):
        where = float(positions[int((~torch.isfinite(loss)).nonzero()[0])])
        raise ValueError(f"loss is not finite at t={where:.3g} of the line")
    chord = (1 - positions) * loss[0] + positions * loss[-1]
    return PathLoss(
        t=positions,
        loss=loss,
        barrier=float((loss - chord).max()),
        climb=float(loss.max() - torch.maximum(loss[0], loss[-1])),
        distance=distance**0.5,
    )


def _between(
    start: Mapping[str, Any], end: Mapping[str, Any], t: float, anchor: Tensor
) -> dict[str, Tensor]:
    """Floating entries interpolated, the others from the start; fresh tensors throughout."""
    state = {}
    for key, a in start.items():
        if not isinstance(a, Tensor):  # extra state of a module
            continue
        b = end[key]
        if a.is_floating_point() or a.is_complex():
            state[key] = torch.lerp(a.detach(), b.detach().to(a), t).to(anchor.device)
        else:
            state[key] = a.detach().clone().to(anchor.device)
    return state


def _refresh(
    model: nn.Module,
    state: dict[str, Tensor],
    data: Batches,
    norms: list[nn.Module],
    prefixes: list[str],
) -> None:
    """Batch-norm statistics of the data at these parameters, into ``state``."""
    for prefix in prefixes:
        state[f"{prefix}running_mean"].zero_()
        state[f"{prefix}running_var"].fill_(1.0)
        if f"{prefix}num_batches_tracked" in state:
            state[f"{prefix}num_batches_tracked"].zero_()
    with _cumulative(norms):
        for part in data:
            part.call(
                lambda *args, **kwargs: functional_call(
                    model, state, args, kwargs, tie_weights=False
                )
            )


def _mean_loss(model: nn.Module, state: dict[str, Tensor], loss_fn: LossFn, data: Batches) -> float:
    """Loss over all data at a state; copies of it, so that train mode leaves it alone."""
    total: Tensor | None = None
    count = 0
    held = {k: v.clone() for k, v in state.items()}
    for part in data:
        output = part.call(
            lambda *args, **kwargs: functional_call(model, held, args, kwargs, tie_weights=False)
        )
        term = torch.as_tensor(loss_fn(output, part.targets)).double() * part.size
        total = term if total is None else total + term
        count += part.size
    if total is None:
        raise ValueError("data is empty; give at least one (inputs, targets) batch")
    return float(total) / count
