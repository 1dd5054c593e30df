"""AdamW, for parameters that have no low-rank state: line by line, and all at once."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from gradworks.optim.precision import in_work_dtype, work_dtype
from gradworks.optim.steps import bias_corrections

__all__ = ["DenseTensors", "multi_tensor_adamw", "on_device", "single_tensor_adamw"]


def on_device(number: float | Tensor, like: Tensor) -> float | Tensor:
    """A number as foreach operations take it."""
    if isinstance(number, Tensor):
        return number.to(like.device, non_blocking=True)
    return number


class DenseTensors(NamedTuple):
    """Parameters and what belongs to each: real and local, sharing the user's memory."""

    params: list[Tensor]
    grads: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]


def single_tensor_adamw(
    tensors: DenseTensors,
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float | Tensor,
    maximize: bool,
    traced: bool,
) -> None:
    """AdamW, a parameter at a time."""
    for param, grad, exp_avg, exp_avg_sq, step in zip(*tensors):
        work = work_dtype(param.dtype)
        p, m, v, g = (x.to(work) for x in (param, exp_avg, exp_avg_sq, grad))
        if maximize:
            g = -g
        step += 1
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        correction1, correction2 = bias_corrections(step, beta1, beta2, traced)
        denom = v.sqrt().div_(correction2).add_(eps)
        size = lr / correction1
        if isinstance(weight_decay, Tensor) or weight_decay != 0:
            p.mul_(1 - weight_decay)
        if isinstance(size, Tensor):
            p.sub_((m / denom).mul_(size))
        else:
            p.addcdiv_(m, denom, value=-size)
        for stored, computed in ((param, p), (exp_avg, m), (exp_avg_sq, v)):
            if computed is not stored:
                stored.copy_(computed)


def multi_tensor_adamw(
    tensors: DenseTensors,
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float | Tensor,
    maximize: bool,
    traced: bool,
) -> None:
    """The same for all parameters of a device and dtype at once."""
    if not tensors.params:
        return
    groups = Optimizer._group_tensors_by_device_and_dtype([*tensors])  # type: ignore[list-item]
    for lists, _ in groups.values():
        stored_p, stored_g, stored_m, stored_v, steps = cast(list[list[Tensor]], lists)
        p, g, m, v = (in_work_dtype(x) for x in (stored_p, stored_g, stored_m, stored_v))
        if maximize:
            g = list(torch._foreach_neg(g))
        lr, weight_decay = on_device(lr, p[0]), on_device(weight_decay, p[0])
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(m, g, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, g, g, 1 - beta2)
        corrections = [bias_corrections(step, beta1, beta2, traced) for step in steps]
        denom = list(torch._foreach_sqrt(v))
        torch._foreach_div_(denom, cast(list[Tensor], [c for _, c in corrections]))
        torch._foreach_add_(denom, eps)
        u = list(torch._foreach_div(m, denom))
        torch._foreach_mul_(u, cast(list[Tensor], [lr / c for c, _ in corrections]))
        if isinstance(weight_decay, Tensor) or weight_decay != 0:
            torch._foreach_mul_(p, 1 - weight_decay)
        torch._foreach_sub_(p, u)
        for stored, computed in ((stored_p, p), (stored_m, m), (stored_v, v)):
            if computed is not stored:
                torch._foreach_copy_(stored, computed)
