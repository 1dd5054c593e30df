"""``fused=True``: moments and the four row sums in one loop over the weight, the update in another.

Kernels see a dense weight as (rows, K), or as (before, rows, after) where the channels lie inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from gradworks.optim.adamp.projection import Layout, RowSums, decide
from gradworks.optim.compiled import flat_views, in_memory_order
from gradworks.optim.precision import work_dtype

__all__ = ["adamp_kernel", "dense_views", "sgdp_kernel", "thresholds"]


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


def dense_views(layout: Layout | None, *tensors: Tensor) -> list[Tensor] | None:
    """Views of all tensors, the weight first, as the kernels see them; None if there are none.

    A gradient of another memory format is copied; a weight or state with gaps has no such view.
    """
    param = tensors[0]
    if layout is None:
        return flat_views(*tensors)
    if param.numel() < 2:  # torch.compile treats sizes 0 and 1 apart
        return None
    if layout.channel_dim == 0 and all(x.is_contiguous() for x in tensors):
        return [x.view(x.shape[0], -1).detach() for x in tensors]
    found = in_memory_order(*tensors)
    if found is None:
        return None
    order, permuted = found
    shape = permuted[0].shape
    at = order.index(layout.channel_dim)
    before, rows = math.prod(shape[:at]), shape[at]
    seen = (rows, -1) if before == 1 else (before, rows, math.prod(shape[at + 1 :]))
    # detached, as those of flat_views: no recompilation for the shape of each base
    return [x.view(seen).detach() for x in permuted]
