"""A step of SGDP on lists of plain tensors, three ways: line by line, all at once, compiled."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from gradworks.optim.adamp.kernels import (
    dense_views,
    sgdp_kernel,
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

__all__ = ["SGDTensors", "fused_sgdp", "multi_tensor_sgdp", "single_tensor_sgdp"]


class SGDTensors(NamedTuple):
    """Parameters of one group and what belongs to each: real, local, sharing the user's memory."""

    params: list[Tensor]
    grads: list[Tensor]
    momentum_buffers: list[Tensor]
    layouts: list[Layout | None]

    def only(self, i: int) -> SGDTensors:
        """One parameter with what belongs to it."""
        return SGDTensors(
            [self.params[i]], [self.grads[i]], [self.momentum_buffers[i]], [self.layouts[i]]
        )


def single_tensor_sgdp(
    tensors: SGDTensors,
    *,
    lr: float | Tensor,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    test: dict[str, float],
    differentiable: bool = False,
) -> list[Tensor | int]:
    """The paper line by line (Algorithm 1): the oracle of the other paths."""
    branches: list[Tensor | int] = []
    traced = differentiable or torch.compiler.is_compiling()
    for param, grad, momentum_buffer, layout in zip(*tensors):
        work = work_dtype(param.dtype)
        p = param.to(work, copy=differentiable)
        buf = momentum_buffer.to(work, copy=differentiable)
        g = grad.to(work)
        if maximize:
            g = -g

        buf.mul_(momentum).add_(g, alpha=1 - dampening)
        # the buffer itself is never projected: d is a tensor of its own
        d = g.add(buf, alpha=momentum) if nesterov else buf.clone()

        ratio: float | Tensor = 1.0
        branch: Tensor | int = EXEMPT
        if layout is not None:
            if traced or not p.is_cpu:
                d, ratio, branch = project_traced(p, g, d, layout, **test)
            else:
                ratio, branch = project_on_host_(p, g, d, layout, **test)  # Eq. (11), (12)
        branches.append(branch)

        decay = 1 - lr * weight_decay * ratio
        if differentiable:
            p = p * decay - d * lr
        else:
            if weight_decay != 0:
                p.mul_(decay)
            if isinstance(lr, Tensor):
                p.sub_(d.mul_(lr))
            else:
                p.add_(d, alpha=-lr)

        for stored, computed in ((param, p), (momentum_buffer, buf)):
            if computed is not stored:
                stored.copy_(computed)
    return branches


def multi_tensor_sgdp(
    tensors: SGDTensors,
    *,
    lr: float | Tensor,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    test: dict[str, float],
) -> list[Tensor | int]:
    """The same for all tensors of a device and dtype at once; branch free, nothing is read."""
    branches: list[Tensor | int] = [EXEMPT] * len(tensors.params)
    if not tensors.params:
        return branches
    groups = Optimizer._group_tensors_by_device_and_dtype(
        [*tensors[:3]],  # type: ignore[list-item]
        with_indices=True,
    )
    for lists, indices in groups.values():
        stored_p, stored_g, stored_buf = cast(list[list[Tensor]], lists)
        p, g, buf = (in_work_dtype(x) for x in (stored_p, stored_g, stored_buf))
        if maximize:
            g = list(torch._foreach_neg(g))

        torch._foreach_mul_(buf, momentum)
        torch._foreach_add_(buf, g, alpha=1 - dampening)
        d = list(torch._foreach_add(g, buf, alpha=momentum) if nesterov else map(torch.clone, buf))

        if isinstance(lr, Tensor):
            lr = lr.to(p[0].device, non_blocking=True)
        ratios, taken = project_many_(p, g, d, [tensors.layouts[i] for i in indices], **test)
        for i, branch in zip(indices, taken):
            branches[i] = branch

        if weight_decay != 0:
            decay_many_(p, ratios, lr * weight_decay)
        if isinstance(lr, Tensor):
            torch._foreach_mul_(d, lr)
            torch._foreach_sub_(p, d)
        else:
            torch._foreach_add_(p, d, alpha=-lr)
        for stored, computed in ((stored_p, p), (stored_buf, buf)):
            if computed is not stored:
                torch._foreach_copy_(stored, computed)
    return branches


def fused_sgdp(tensors: SGDTensors, **settings: Any) -> list[Tensor | int]:
    """One compiled kernel a tensor; what has no dense view takes the oracle's path."""
    branches: list[Tensor | int] = [EXEMPT] * len(tensors.params)
    others = []
    for i, (*lists, layout) in enumerate(zip(*tensors)):
        views = dense_views(layout, *lists)
        if views is None:
            others.append(i)
            continue
        numbers = _kernel_numbers(lists[0], layout, **settings)
        branch = run_kernel(sgdp_kernel, settings["nesterov"], numbers, views)
        if branch is not None:
            branches[i] = branch
    for i in others:  # after the kernels: where those do not compile, nothing is stepped
        (branches[i],) = single_tensor_sgdp(tensors.only(i), **settings)
    return branches


def _kernel_numbers(
    param: Tensor,
    layout: Layout | None,
    *,
    lr: float | Tensor,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    test: dict[str, float],
) -> Tensor:
    """What the kernel reads: a vector computed by the host for a CPU."""
    work = work_dtype(param.dtype)
    bounds = thresholds(layout, test["delta"])
    sign = -1.0 if maximize else 1.0
    constant = (sign, momentum, 1 - dampening, test["eps"], test["wd_ratio"], *bounds)
    if param.is_cpu:
        rate = float(lr)
        return torch.tensor((*constant, rate, rate * weight_decay), dtype=work)
    return numbers_on_device(constant, (lr, lr * weight_decay), work, param.device)
