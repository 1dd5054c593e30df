"""A step of AdaHessian on lists of plain tensors, two ways: line by line, and all at once."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from gradworks.optim.adahessian.averaging import Averaging, smoothed
from gradworks.optim.precision import in_work_dtype, work_dtype
from gradworks.optim.steps import bias_corrections

__all__ = ["HessianTensors", "multi_tensor_adahessian", "single_tensor_adahessian"]


class HessianTensors(NamedTuple):
    """Parameters of one group and what belongs to each: local, sharing the user's memory.

    ``diagonals`` are z * Hz before smoothing, None on steps without a new estimate;
    ``hessian_steps`` counts the estimates so far.
    """

    params: list[Tensor]
    grads: list[Tensor]
    exp_avgs: list[Tensor]
    exp_hessian_diag_sqs: list[Tensor]
    steps: list[Tensor]
    hessian_steps: list[Tensor]
    diagonals: list[Tensor | None]


def _corrections(
    step: Tensor, hessian_step: Tensor, beta1: float, beta2: float
) -> tuple[float | Tensor, float | Tensor]:
    """1 - beta1^t and sqrt(1 - beta2^k) after k estimates, or before the first."""
    if torch.compiler.is_compiling():
        first, _ = bias_corrections(step, beta1, beta2, True)
        _, second = bias_corrections(hessian_step, beta1, beta2, True)
        return first, second
    return 1 - beta1 ** step.item(), (1 - beta2 ** max(hessian_step.item(), 1)) ** 0.5


def single_tensor_adahessian(
    tensors: HessianTensors,
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    hessian_power: float,
    averaging: Averaging,
    maximize: bool,
) -> None:
    """The algorithm line by line: the oracle of the other path."""
    for param, grad, exp_avg, exp_sq, step, hessian_step, diagonal in zip(*tensors):
        work = work_dtype(param.dtype)
        p, m, v, g = (x.to(work) for x in (param, exp_avg, exp_sq, grad))
        if maximize:
            g = -g  # the estimate is an absolute value: it has no sign to turn

        step += 1
        m.lerp_(g, 1 - beta1)  # m = b1 m + (1 - b1) g
        if diagonal is not None:
            hessian_step += 1
            D = smoothed(diagonal.to(work), averaging)
            v.mul_(beta2).addcmul_(D, D, value=1 - beta2)  # v = b2 v + (1 - b2) D^2
        # corrected by the number of estimates, not of steps
        correction1, correction2 = _corrections(step, hessian_step, beta1, beta2)
        size = lr / correction1
        denom = v.sqrt()
        if hessian_power == 1:  # numerator and denominator times the correction: a pass less
            denom.add_(eps * correction2)
            size = size * correction2
        else:
            denom.div_(correction2).pow_(hessian_power).add_(eps)  # eps after the power
        if weight_decay != 0:
            p.mul_(1 - lr * weight_decay)
        if isinstance(size, Tensor):
            p.sub_(denom.reciprocal_().mul_(m).mul_(size))
        else:
            p.addcdiv_(m, denom, value=-size)
        for stored, computed in ((param, p), (exp_avg, m), (exp_sq, v)):
            if computed is not stored:
                stored.copy_(computed)


def multi_tensor_adahessian(
    tensors: HessianTensors,
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    hessian_power: float,
    averaging: Averaging,
    maximize: bool,
) -> None:
    """The same for all tensors of a device and dtype at once; only step counts are read."""
    if not tensors.params:
        return
    groups = Optimizer._group_tensors_by_device_and_dtype(
        [*tensors[:6]],  # type: ignore[list-item]
        with_indices=True,
    )
    for lists, indices in groups.values():
        p, g, m, v, steps, hessian_steps = cast(list[list[Tensor]], lists)
        stored = (p, m, v)
        p, g, m, v = (in_work_dtype(x) for x in (p, g, m, v))
        if maximize:
            g = list(torch._foreach_neg(g))

        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(m, g, 1 - beta1)
        fresh = [i for i, k in enumerate(indices) if tensors.diagonals[k] is not None]
        if fresh:
            torch._foreach_add_([hessian_steps[i] for i in fresh], 1)
            D = [
                smoothed(cast(Tensor, tensors.diagonals[indices[i]]).to(p[i].dtype), averaging)
                for i in fresh
            ]
            second = [v[i] for i in fresh]
            torch._foreach_mul_(second, beta2)
            torch._foreach_addcmul_(second, D, D, 1 - beta2)
        denom = list(torch._foreach_sqrt(v))
        firsts, corrections = zip(
            *(_corrections(s, h, beta1, beta2) for s, h in zip(steps, hessian_steps)), strict=True
        )
        if hessian_power == 1:
            torch._foreach_add_(denom, cast(list[float], [eps * c for c in corrections]))
        else:
            torch._foreach_div_(denom, cast(list[Tensor], list(corrections)))
            if hessian_power != 1:
                torch._foreach_pow_(denom, hessian_power)
            torch._foreach_add_(denom, eps)
            corrections = (1.0,) * len(p)
        rate: Any = lr.to(p[0].device, non_blocking=True) if isinstance(lr, Tensor) else lr
        if weight_decay != 0:
            torch._foreach_mul_(p, 1 - rate * weight_decay)
        sizes = [rate * second / first for first, second in zip(firsts, corrections)]
        if any(isinstance(size, Tensor) for size in sizes):
            torch._foreach_reciprocal_(denom)
            torch._foreach_mul_(denom, m)
            torch._foreach_mul_(denom, sizes)
            torch._foreach_sub_(p, denom)
        else:
            torch._foreach_addcdiv_(p, m, denom, [-size for size in sizes])
        for kept, computed in zip(stored, (p, m, v)):
            if computed is not kept:
                torch._foreach_copy_(kept, computed)
