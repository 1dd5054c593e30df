"""How ``.grad`` is written, and the scale of mixed precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from gradworks.multitask.collect.processes import local_of
from gradworks.multitask.collect.rows import Factor, Own

__all__ = ["Scale", "write", "write_own"]


class Scale:
    """The factor by which a gradient scaler multiplies losses; 1 without one.

    Args:
        scaler: A ``GradScaler`` or None; a disabled one counts as None.

    Raises:
        TypeError: If it is no gradient scaler.
    """

    def __init__(self, scaler: torch.amp.GradScaler | None) -> None:
        if scaler is not None and not isinstance(scaler, torch.amp.GradScaler):
            raise TypeError(
                f"scaler must be a torch.amp.GradScaler or None, got {type(scaler).__name__}"
            )
        self._scaler = scaler

    @property
    def active(self) -> bool:
        """Whether losses are scaled."""
        return self._scaler is not None and self._scaler.is_enabled()

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to differentiate."""
        if self._scaler is None or not self.active:
            return loss
        found: Tensor = self._scaler.scale(loss)
        return found

    def value(self, device: torch.device) -> Tensor | None:
        """The scale, which stays on its device; None without a scaler."""
        return self.scaled(torch.ones((), device=device)) if self.active else None

    def inverse(self, factor: float, device: torch.device) -> Factor:
        """What brings a gradient back to its unit, times ``factor``."""
        scale = self.value(device)
        return factor if scale is None else factor / scale


def write(param: Parameter, part: Tensor, accumulate: bool, scale: Tensor | None = None) -> None:
    """Add a flat gradient to ``.grad``, or replace that.

    Args:
        param: A parameter; of a sharded one this process's part is written.
        part: Its gradient, flat; never kept.
        accumulate: Add to what is there.
        scale: What the gradient is multiplied by.
    """
    if scale is not None:
        part = part.to(param.dtype) * scale  # rows may be in half precision
    grad = param.grad if accumulate else None
    if grad is not None and grad.layout != torch.strided:
        param.grad = grad = grad.to_dense()
    fresh = grad is None
    if grad is None:
        grad = torch.empty_like(param, requires_grad=False)
    place = local_of(grad, param)
    value = part.view(place.shape)
    if fresh:
        place.copy_(value)
        param.grad = grad
    else:
        place.add_(value)


def write_own(
    own: Own, accumulate: bool, average: Callable[[Sequence[Tensor]], list[Tensor]]
) -> None:
    """Write the gradients of heads.

    Args:
        own: Parameters with their gradients.
        accumulate: Add to what is there.
        average: Sums over replicas what was divided by their number.
    """
    grads = average([grad for _, grad in own])
    for (param, _), grad in zip(own, grads):
        if grad.layout == torch.strided:
            write(param, grad.reshape(-1), accumulate)
        elif accumulate and param.grad is not None:
            param.grad = param.grad + grad
        else:
            param.grad = grad.clone()
