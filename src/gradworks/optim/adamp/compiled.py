"""``fused=True``: one compiled kernel a tensor.

``torch.compile`` turns a step into a few loops over the weight: moments and the four row sums, then
the update. Kernels see a dense weight as (rows, K), or as (before, rows, after) where the channels
lie inside; sizes are dynamic and all numbers come in one small tensor, so that no schedule compiles
again, and so that powers of the betas are not computed anew for each entry.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from gradworks.optim.adamp.projection import Layout, RowSums, decide, work_dtype

__all__ = [
    "adamp_kernel",
    "dense_views",
    "numbers_on_device",
    "run_kernel",
    "sgdp_kernel",
    "thresholds",
]

SMALL = 1 << 15  # a step of a shorter vector, operation by operation: 30 us; a kernel's call: 70 us


def _project(
    param: Tensor, grad: Tensor, update: Tensor, numbers: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """New update, ratio and branch in a form whose four sums share one loop."""
    eps, wd_ratio, row_threshold, layer_threshold = numbers
    dims = (1,) if param.ndim == 2 else (0, 2)
    sums = RowSums(
        (grad * param).sum(dims),
        (grad * grad).sum(dims),
        (param * param).sum(dims),
        (update * param).sum(dims),
    )
    coefficient, ratio, branch = decide(sums, row_threshold, layer_threshold, wd_ratio, eps)
    return update - param * coefficient.unsqueeze(-1), ratio, branch


def adamp_kernel(
    nesterov: bool,
    numbers: Tensor,
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
) -> Tensor | None:
    """A step of AdamP; returns the branch, None for a 1-d weight."""
    work = work_dtype(param.dtype)
    sign, new1, keep2, new2, eps, *rest, scale, size, decay = numbers.unbind(0)
    p, g = param.to(work), sign * grad.to(work)
    m, v = exp_avg.to(work), exp_avg_sq.to(work)
    m = m + new1 * (g - m)
    v = keep2 * v + new2 * g * g
    exp_avg.copy_(m)
    exp_avg_sq.copy_(v)
    denom = v.sqrt() * scale + eps
    u = (m + new1 * (g - m) if nesterov else m) / denom
    branch = None
    if param.ndim > 1:
        u, ratio, branch = _project(p, g, u, (eps, *rest))
        decay = decay * ratio
    param.copy_(p * (1 - decay) - size * u)
    return branch


def sgdp_kernel(
    nesterov: bool, numbers: Tensor, param: Tensor, grad: Tensor, momentum_buffer: Tensor
) -> Tensor | None:
    """A step of SGDP; returns the branch, None for a 1-d weight."""
    work = work_dtype(param.dtype)
    sign, momentum, new, eps, *rest, size, decay = numbers.unbind(0)
    p, g = param.to(work), sign * grad.to(work)
    buf = momentum * momentum_buffer.to(work) + new * g
    momentum_buffer.copy_(buf)
    d = g + momentum * buf if nesterov else buf
    branch = None
    if param.ndim > 1:
        d, ratio, branch = _project(p, g, d, (eps, *rest))
        decay = decay * ratio
    param.copy_(p * (1 - decay) - size * d)
    return branch


def thresholds(layout: Layout | None, delta: float) -> tuple[float, float]:
    """Bounds of the two tests; a 1-d weight has none."""
    if layout is None:
        return 0.0, 0.0
    return delta / math.sqrt(layout.row_size), delta / math.sqrt(layout.size)


@lru_cache(maxsize=1024)
def _constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Settings on the device: copied there once, not at every step."""
    return torch.tensor(values, dtype=dtype, device=device)


def numbers_on_device(
    constant: tuple[float, ...],
    moving: Sequence[float | Tensor],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """The vector of a kernel where the step count lies on the device."""
    values = [
        x.to(device, dtype, non_blocking=True)
        if isinstance(x, Tensor)
        else torch.full((), x, dtype=dtype, device=device)
        for x in moving
    ]
    return torch.cat([_constants(constant, dtype, device), torch.stack(values)])


def dense_views(layout: Layout | None, *tensors: Tensor) -> list[Tensor] | None:
    """Views of all tensors, the weight first, as the kernels see them; None if there are none.

    A gradient of another memory format is copied; a weight or state with gaps has no such view.
    Short vectors have none either: on a CPU the call of a kernel costs more than their step.
    """
    param = tensors[0]
    if param.numel() < 2:  # torch.compile treats sizes 0 and 1 apart
        return None
    if layout is None and param.is_cpu and param.numel() < SMALL:
        return None
    if (layout is None or layout.channel_dim == 0) and all(x.is_contiguous() for x in tensors):
        return [x.view(-1) if layout is None else x.view(x.shape[0], -1) for x in tensors]
    strides = param.stride()
    order = sorted(range(param.ndim), key=lambda d: (-strides[d], d))
    views = []
    for i, tensor in enumerate(tensors):
        if tensor.stride() != strides:
            if i != 1:
                return None
            tensor = torch.empty_like(param, dtype=tensor.dtype).copy_(tensor)
        flat = tensor.permute(order)
        if not flat.is_contiguous():
            return None
        if layout is None:
            views.append(flat.view(-1))
            continue
        at = order.index(layout.channel_dim)
        before, rows = math.prod(flat.shape[:at]), flat.shape[at]
        shape = (rows, -1) if before == 1 else (before, rows, math.prod(flat.shape[at + 1 :]))
        views.append(flat.view(shape))
    return views


@lru_cache(maxsize=64)
def _compiled(
    kernel: Callable[..., Tensor | None], dtype: torch.dtype, ndim: int, nesterov: bool
) -> Callable[..., Any]:
    """A compiled copy of a kernel with code of its own.

    torch counts recompilations by code object (8 at most): sharing one, a run over many dtypes
    would use them up.
    """
    with warnings.catch_warnings():  # torch warns of itself while it loads its compiler
        warnings.simplefilter("ignore")
        importlib.import_module("torch._inductor.compile_fx")
    name = f"{kernel.__name__}_{ndim}d_{str(dtype).removeprefix('torch.')}_{nesterov}"
    code = kernel.__code__.replace(co_name=name)
    return torch.compile(FunctionType(code, kernel.__globals__, name), dynamic=True)


def run_kernel(
    kernel: Callable[..., Tensor | None],
    nesterov: bool,
    numbers: Tensor,
    views: Sequence[Tensor],
) -> Tensor | None:
    """One step of one tensor.

    Raises:
        RuntimeError: If the kernel cannot be compiled here; nothing was changed then.
    """
    compiled = _compiled(kernel, views[0].dtype, views[0].ndim, nesterov)
    try:
        branch: Tensor | None = compiled(nesterov, numbers, *views)
    except Exception as error:
        raise RuntimeError(
            "fused=True compiles its kernel with torch.compile, which failed here "
            f"({type(error).__name__}); it needs a supported Python and, on CPU, a C++ compiler "
            "(g++ or clang++, or the one named by CXX). Use fused=None"
        ) from error
    return branch
