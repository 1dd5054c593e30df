"""A step of DiffGrad on lists of plain tensors, three ways: line by line, all at once, compiled."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from gradworks.optim.compiled import (
    GATHERED,
    flat_views,
    numbers_on_device,
    run_kernel,
    run_kernel_on_many,
)
from gradworks.optim.precision import in_work_dtype, work_dtype
from gradworks.optim.steps import bias_corrections

__all__ = [
    "DiffGradTensors",
    "diffgrad_kernel",
    "fused_diffgrad",
    "multi_tensor_diffgrad",
    "single_tensor_diffgrad",
]

CHUNK = 1 << 24  # entries stepped together: temporaries of 64 MB fill a device, not its memory


class DiffGradTensors(NamedTuple):
    """Parameters of one group and what belongs to each: real, local, sharing the user's memory."""

    params: list[Tensor]
    grads: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    previous_grads: list[Tensor]
    steps: list[Tensor]

    def part(self, start: int, stop: int) -> DiffGradTensors:
        """Parameters ``start`` to ``stop`` with what belongs to them."""
        return DiffGradTensors(*(tensors[start:stop] for tensors in self))


def single_tensor_diffgrad(
    tensors: DiffGradTensors,
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    scale_free: bool,
    maximize: bool,
    traced: bool,
    differentiable: bool = False,
) -> None:
    """The algorithm line by line: the oracle of the other paths."""
    for param, grad, exp_avg, exp_avg_sq, previous_grad, step in zip(*tensors):
        work = work_dtype(param.dtype)
        p = param.to(work, copy=differentiable)
        m = exp_avg.to(work, copy=differentiable)
        v = exp_avg_sq.to(work, copy=differentiable)
        q = previous_grad.to(work, copy=differentiable)
        g = grad.to(work)
        if maximize:
            g = -g
        if weight_decay != 0:
            if decoupled:
                p.mul_(1 - lr * weight_decay)
            else:
                g = g.add(p, alpha=weight_decay)

        step += 1
        m.lerp_(g, 1 - beta1)  # m = b1 m + (1 - b1) g
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)  # v = b2 v + (1 - b2) g^2
        correction1, correction2 = bias_corrections(step, beta1, beta2, traced)
        size = lr * correction2 / correction1
        root = v.sqrt()
        if differentiable:
            change = (q - g).abs()
            if scale_free:
                change = change / (root / correction2 + eps)
            p = p - size * (change.sigmoid() * m) / (root + eps)
            q = g
        else:
            q.sub_(g).abs_()  # |q - g| in the place of q, which is not needed again
            if scale_free:
                q.div_((root / correction2).add_(eps))
            q.sigmoid_().mul_(m)  # the friction acts here only, never on the stored moment
            root.add_(eps)  # outside the root, not bias corrected: the authors' eps
            if isinstance(size, Tensor):
                p.addcdiv_(q.mul_(size), root, value=-1)
            else:
                p.addcdiv_(q, root, value=-size)
            q.copy_(g)  # with its L2 term; a copy, as the user zeroes gradients in place

        for stored, computed in (
            (param, p),
            (exp_avg, m),
            (exp_avg_sq, v),
            (previous_grad, q),
        ):
            if computed is not stored:
                stored.copy_(computed)


def multi_tensor_diffgrad(
    tensors: DiffGradTensors,
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    scale_free: bool,
    maximize: bool,
    traced: bool,
) -> None:
    """The same for many tensors of a device and dtype at once; nothing is read.

    At most ``CHUNK`` entries at a time, so that temporaries stay small beside the model.
    """
    if not tensors.params:
        return
    groups = Optimizer._group_tensors_by_device_and_dtype([*tensors])  # type: ignore[list-item]
    for lists, _ in groups.values():
        group = DiffGradTensors(*cast(list[list[Tensor]], lists))
        rate = lr.to(group.params[0].device, non_blocking=True) if isinstance(lr, Tensor) else lr
        for chunk in _chunks(group):
            p, g, m, v, q = (in_work_dtype(x) for x in chunk[:5])
            if maximize:
                g = list(torch._foreach_neg(g))
            if weight_decay != 0:
                if decoupled:
                    torch._foreach_mul_(p, 1 - rate * weight_decay)
                else:
                    g = list(torch._foreach_add(g, p, alpha=weight_decay))

            torch._foreach_add_(chunk.steps, 1)
            torch._foreach_lerp_(m, g, 1 - beta1)
            torch._foreach_mul_(v, beta2)
            torch._foreach_addcmul_(v, g, g, 1 - beta2)
            corrections = [bias_corrections(step, beta1, beta2, traced) for step in chunk.steps]
            denom = list(torch._foreach_sqrt(v))
            torch._foreach_sub_(q, g)
            torch._foreach_abs_(q)
            if scale_free:
                scale = list(
                    torch._foreach_div(denom, cast(list[Tensor], [c for _, c in corrections]))
                )
                torch._foreach_add_(scale, eps)
                torch._foreach_div_(q, scale)
                del scale
            torch._foreach_sigmoid_(q)
            torch._foreach_mul_(q, m)
            torch._foreach_add_(denom, eps)
            sizes = [rate * second / first for first, second in corrections]
            if any(isinstance(size, Tensor) for size in sizes):
                torch._foreach_mul_(q, cast(list[Tensor], sizes))
                torch._foreach_addcdiv_(p, q, denom, -1)
            else:
                torch._foreach_addcdiv_(p, q, denom, [-size for size in cast(list[float], sizes)])
            torch._foreach_copy_(q, g)
            for stored, computed in zip(chunk, (p, None, m, v, q)):
                if computed is not None and computed is not stored:
                    torch._foreach_copy_(stored, computed)


def _chunks(group: DiffGradTensors) -> list[DiffGradTensors]:
    """Consecutive parameters of ``CHUNK`` entries together, or one that has more."""
    cuts, entries = [0], 0
    for i, param in enumerate(group.params):
        if entries and entries + param.numel() > CHUNK:
            cuts.append(i)
            entries = 0
        entries += param.numel()
    return [group.part(*ends) for ends in pairwise([*cuts, len(group.params)])]


def diffgrad_kernel(
    variant: str,
    numbers: Tensor,
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    previous_grad: Tensor,
) -> None:
    """A step of DiffGrad: one loop, five reads, four writes.

    The variant names friction, decay and direction: what it leaves out, the loop need not load.
    """
    friction, decay, direction = variant.split("_")
    work = work_dtype(param.dtype)
    new1, keep2, new2, eps, coupled, scale, size, kept = numbers.unbind(0)
    p, g = param.to(work), grad.to(work)
    m, v, q = exp_avg.to(work), exp_avg_sq.to(work), previous_grad.to(work)
    if direction == "ascend":
        g = -g
    if decay == "coupled":
        g = g + coupled * p
    if decay == "decoupled":
        p = kept * p
    m = m + new1 * (g - m)
    v = keep2 * v + new2 * g * g
    root = v.sqrt()
    change = (q - g).abs()
    if friction == "rms":
        change = change / (root * scale + eps)
    # sigmoid and denominator share one division: divisions are what this loop waits for
    step = size * m / ((1 + (-change).exp()) * (root + eps))
    exp_avg.copy_(m)
    exp_avg_sq.copy_(v)
    previous_grad.copy_(g)
    param.copy_(p - step)


def fused_diffgrad(tensors: DiffGradTensors, **settings: Any) -> None:
    """Compiled kernels; what has no dense view takes the oracle's path.

    On a CPU several tensors share a call: for small ones calls cost more than steps.
    """
    variant = _variant(**settings)
    together: dict[tuple[torch.dtype, float], list[tuple[Tensor, Sequence[Tensor]]]] = {}
    others = []
    for i, (*lists, step) in enumerate(zip(*tensors)):
        param = lists[0]
        on_host = param.is_cpu and not settings["traced"]
        short = on_host and 0 < param.numel() < GATHERED
        plain = short and all(x.is_contiguous() for x in lists)
        views = lists if plain else flat_views(*lists, small=0)
        if views is None:
            others.append(i)
        elif on_host:
            together.setdefault((param.dtype, step.item()), []).append((step, views))
        else:
            numbers = _kernel_numbers(param, step, **settings)
            run_kernel(diffgrad_kernel, variant, numbers, views)
            step += 1
    for members in together.values():
        steps, each = zip(*members)
        numbers = _kernel_numbers(each[0][0], steps[0], **settings)
        run_kernel_on_many(diffgrad_kernel, variant, numbers, each)
        torch._foreach_add_(steps, 1)
    for i in others:  # after the kernels: where those do not compile, nothing is stepped
        single_tensor_diffgrad(tensors.part(i, i + 1), **settings)


def _variant(
    *, weight_decay: float, decoupled: bool, scale_free: bool, maximize: bool, **_: Any
) -> str:
    """Which of the kernels is meant."""
    friction = "rms" if scale_free else "absolute"
    decay = "none" if weight_decay == 0 else "decoupled" if decoupled else "coupled"
    return f"{friction}_{decay}_{'ascend' if maximize else 'descend'}"


def _kernel_numbers(
    param: Tensor,
    step: Tensor,
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    traced: bool,
    **_: Any,
) -> Tensor:
    """What the kernel reads: a vector computed by the host for a CPU."""
    work = work_dtype(param.dtype)
    constant = (1 - beta1, beta2, 1 - beta2, eps, weight_decay)
    on_host = not traced and param.is_cpu
    correction1, correction2 = bias_corrections(step + 1, beta1, beta2, not on_host)
    rate = float(lr) if on_host else lr
    moving = (1 / correction2, rate * correction2 / correction1, 1 - rate * weight_decay)
    if on_host:
        return torch.tensor((*constant, *moving), dtype=work)
    return numbers_on_device(constant, moving, work, param.device)
