"""The number of steps done: where it lies, and the bias corrections that follow from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["bias_corrections", "new_step", "refuse_capture", "restored_step"]


def _device(param: Tensor, group: dict[str, Any]) -> torch.device | str:
    """On the host, but where the step must not be read or one kernel does all."""
    return param.device if group.get("capturable") or group.get("fused") else "cpu"


def new_step(param: Tensor, group: dict[str, Any]) -> Tensor:
    """Zero steps, as torch's optimizers keep them."""
    return torch.zeros((), dtype=torch.float32, device=_device(param, group))


def restored_step(step: object, param: Tensor, group: dict[str, Any]) -> Tensor:
    """The step of a checkpoint, in which older code kept a number."""
    if isinstance(step, Tensor):
        return step.clone()  # a group's count may be that of several parameters
    count = float(step or 0)  # type: ignore[arg-type]
    return torch.tensor(count, dtype=torch.float32, device=_device(param, group))


def bias_corrections(
    step: Tensor, beta1: float, beta2: float, traced: bool
) -> tuple[float | Tensor, float | Tensor]:
    """Bias corrections 1 - beta1^t and sqrt(1 - beta2^t); as tensors where t must not be read."""
    if traced:
        # in float32 the first 1 - 0.999 would be wrong in its sixth digit
        t = step.to(torch.float32 if step.device.type == "mps" else torch.float64)
        return 1 - beta1**t, (1 - beta2**t).sqrt()
    count = step.item()
    return 1 - beta1**count, (1 - beta2**count) ** 0.5


def refuse_capture(name: str, params: list[Tensor], capturable: bool) -> None:
    """Stop before a CUDA graph records a step that reads its count on the host."""
    if params and params[0].is_cuda and not capturable and _capturing():
        raise RuntimeError(f"a CUDA graph is being captured; construct {name} with capturable=True")


def _capturing() -> bool:
    """Whether the current stream records a CUDA graph."""
    return not torch.compiler.is_compiling() and torch.cuda.is_current_stream_capturing()
