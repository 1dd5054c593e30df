"""A step of AdamP on lists of plain tensors, three ways: line by line, all at once, compiled."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from gradworks.optim.adamp.kernels import (
    adamp_kernel,
    dense_views,
    thresholds,
)
from gradworks.optim.adamp.many import decay_many_, project_many_
from gradworks.optim.adamp.projection import (
    EXEMPT,
    Layout,
    project_on_host_,
    project_traced,
)
from gradworks.optim.compiled import numbers_on_device, run_kernel
from gradworks.optim.precision import in_work_dtype, work_dtype
from gradworks.optim.steps import bias_corrections

__all__ = ["AdamTensors", "fused_adamp", "multi_tensor_adamp", "single_tensor_adamp"]


class AdamTensors(NamedTuple):
    """Parameters of one group and what belongs to each: real, local, sharing the user's memory."""

    params: list[Tensor]
    grads: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]
    layouts: list[Layout | None]

    def only(self, i: int) -> AdamTensors:
        """One parameter with what belongs to it."""
        return AdamTensors(
            [self.params[i]],
            [self.grads[i]],
            [self.exp_avgs[i]],
            [self.exp_avg_sqs[i]],
            [self.steps[i]],
            [self.layouts[i]],
        )


def single_tensor_adamp(
    tensors: AdamTensors,
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    traced: bool,
    test: dict[str, float],
    differentiable: bool = False,
) -> list[Tensor | int]:
    """The paper line by line (Algorithm 2): the oracle of the other paths."""
    branches: list[Tensor | int] = []
    for param, grad, exp_avg, exp_avg_sq, step, layout in zip(*tensors):
        work = work_dtype(param.dtype)
        p = param.to(work, copy=differentiable)
        m = exp_avg.to(work, copy=differentiable)
        v = exp_avg_sq.to(work, copy=differentiable)
        g = grad.to(work)
        if maximize:
            g = -g

        step += 1
        m.lerp_(g, 1 - beta1)  # m = b1 m + (1 - b1) g
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)  # v = b2 v + (1 - b2) g^2
        correction1, correction2 = bias_corrections(step, beta1, beta2, traced)
        root = v.sqrt()  # autograd keeps the root: no step in place where it follows
        denom = root / correction2 + eps if differentiable else root.div_(correction2).add_(eps)
        u = (m.lerp(g, 1 - beta1) if nesterov else m) / denom  # no bias correction in u

        ratio: float | Tensor = 1.0
        branch: Tensor | int = EXEMPT
        if layout is not None:
            if traced or not p.is_cpu:
                u, ratio, branch = project_traced(p, g, u, layout, **test)
            else:
                ratio, branch = project_on_host_(p, g, u, layout, **test)  # Eq. (11), (12)
        branches.append(branch)

        decay, size = 1 - lr * weight_decay * ratio, lr / correction1
        if differentiable:
            p = p * decay - u * size
        else:
            if weight_decay != 0:
                p.mul_(decay)
            if isinstance(size, Tensor):
                p.sub_(u.mul_(size))
            else:
                p.add_(u, alpha=-size)

        for stored, computed in ((param, p), (exp_avg, m), (exp_avg_sq, v)):
            if computed is not stored:
                stored.copy_(computed)
    return branches


def multi_tensor_adamp(
    tensors: AdamTensors,
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    traced: bool,
    test: dict[str, float],
) -> list[Tensor | int]:
    """The same for all tensors of a device and dtype at once; branch free, nothing is read."""
    branches: list[Tensor | int] = [EXEMPT] * len(tensors.params)
    if not tensors.params:
        return branches
    groups = Optimizer._group_tensors_by_device_and_dtype(
        [*tensors[:5]],  # type: ignore[list-item]
        with_indices=True,
    )
    for lists, indices in groups.values():
        stored_p, stored_g, stored_m, stored_v, steps = cast(list[list[Tensor]], lists)
        p, g, m, v = (in_work_dtype(x) for x in (stored_p, stored_g, stored_m, stored_v))
        if maximize:
            g = list(torch._foreach_neg(g))

        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(m, g, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, g, g, 1 - beta2)
        corrections = [bias_corrections(step, beta1, beta2, traced) for step in steps]
        denom = list(torch._foreach_sqrt(v))
        torch._foreach_div_(denom, cast(list[Tensor], [c for _, c in corrections]))
        torch._foreach_add_(denom, eps)
        u = list(torch._foreach_div(torch._foreach_lerp(m, g, 1 - beta1) if nesterov else m, denom))
        del denom

        if isinstance(lr, Tensor):
            lr = lr.to(p[0].device, non_blocking=True)
        ratios, taken = project_many_(p, g, u, [tensors.layouts[i] for i in indices], **test)
        for i, branch in zip(indices, taken):
            branches[i] = branch

        if weight_decay != 0:
            decay_many_(p, ratios, lr * weight_decay)
        sizes = [lr / c for c, _ in corrections]
        if all(isinstance(size, float) and size == sizes[0] for size in sizes):
            torch._foreach_add_(p, u, alpha=-cast(float, sizes[0]))
        else:
            torch._foreach_mul_(u, cast(list[Tensor], sizes))
            torch._foreach_sub_(p, u)
        for stored, computed in ((stored_p, p), (stored_m, m), (stored_v, v)):
            if computed is not stored:
                torch._foreach_copy_(stored, computed)
    return branches


def fused_adamp(tensors: AdamTensors, **settings: Any) -> list[Tensor | int]:
    """One compiled kernel a tensor; what has no dense view takes the oracle's path."""
    branches: list[Tensor | int] = [EXEMPT] * len(tensors.params)
    others = []
    for i, (*lists, step, layout) in enumerate(zip(*tensors)):
        views = dense_views(layout, *lists)
        if views is None:
            others.append(i)
            continue
        numbers = _kernel_numbers(lists[0], step, layout, **settings)
        branch = run_kernel(adamp_kernel, settings["nesterov"], numbers, views)
        step += 1
        if branch is not None:
            branches[i] = branch
    for i in others:  # after the kernels: where those do not compile, nothing is stepped
        (branches[i],) = single_tensor_adamp(tensors.only(i), **settings)
    return branches


def _kernel_numbers(
    param: Tensor,
    step: Tensor,
    layout: Layout | None,
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    traced: bool,
    test: dict[str, float],
) -> Tensor:
    """What the kernel reads: a vector computed by the host for a CPU."""
    work = work_dtype(param.dtype)
    bounds = thresholds(layout, test["delta"])
    sign = -1.0 if maximize else 1.0
    constant = (sign, 1 - beta1, beta2, 1 - beta2, eps, test["wd_ratio"], *bounds)
    on_host = not traced and param.is_cpu
    correction1, correction2 = bias_corrections(step + 1, beta1, beta2, not on_host)
    if on_host:
        rate = float(lr)
        host = (1 / correction2, rate / correction1, rate * weight_decay)
        return torch.tensor((*constant, *host), dtype=work)
    moving = (1 / correction2, lr / correction1, lr * weight_decay)
    return numbers_on_device(constant, moving, work, param.device)
