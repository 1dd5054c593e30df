"""Running statistics of batch normalization under weights that no batch has seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["fresh_statistics"]


@contextmanager
def fresh_statistics(model: nn.Module, data: Iterable[Any]) -> Iterator[None]:
    """Statistics of ``data`` at the present weights inside, the old ones again outside.

    Each batch counts by its size. Only the normalizations are in train mode meanwhile: dropout is
    off, as it will be where the statistics are used.

    Args:
        model: Its batch normalizations that keep statistics are treated.
        data: Batches: a tensor of inputs, or a tuple, list or dict whose first entry is that.

    Yields:
        Nothing.

    Raises:
        ValueError: If ``data`` has no batch.
    """  # noqa: DOC502
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    buffers = [b for norm in norms for b in norm.buffers(recurse=False)]
    before = [b.detach().clone() for b in buffers]
    try:
        if norms:
            _estimate(model, norms, data)
        yield
    finally:
        with torch.no_grad():
            for buffer, old in zip(buffers, before):
                buffer.copy_(old)


def _estimate(
    model: nn.Module, norms: list[nn.modules.batchnorm._BatchNorm], data: Iterable[Any]
) -> None:
    """Averages over all batches into the buffers; modes and momenta are set back."""
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    place = next((p.device for p in model.parameters()), None)
    seen = 0
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        with torch.no_grad():
            for batch in data:
                inputs = _inputs(batch)
                seen += len(inputs)
                for norm in norms:
                    norm.momentum = len(inputs) / seen  # a running mean over examples
                model(inputs if place is None else inputs.to(place))
    finally:
        for module, training in modes.items():
            module.training = training
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
    if not seen:
        raise ValueError("data has no batch; batch-norm statistics need at least one")


def _inputs(batch: Any) -> Tensor:
    """The inputs of a batch."""
    if isinstance(batch, dict):
        batch = next(iter(batch.values()))
    elif isinstance(batch, (tuple, list)):
        batch = batch[0]
    if not isinstance(batch, Tensor):
        raise TypeError(
            "a batch must be a tensor of inputs, or a tuple, list or dict whose first entry is "
            f"one, got {type(batch).__name__}"
        )
    return batch
