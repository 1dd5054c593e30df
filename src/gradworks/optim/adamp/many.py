"""The projection for many weights at once: what the multi-tensor paths share.

Sums are taken weight by weight; all that follows is done for the rows of all weights together, so
that an accelerator starts few kernels, and one reduction serves all weights of a sharded model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradworks.optim.adamp.projection import (
    CHANNEL,
    EXEMPT,
    LAYER,
    UNTOUCHED,
    Layout,
    RowSums,
    as_rows,
    cosine,
    radial,
    remove_radial_,
)
from gradworks.optim.sharded import sum_over_mesh

__all__ = ["decay_many_", "decide_many", "project_many_"]


def project_many_(
    params: list[Tensor],
    grads: list[Tensor],
    updates: list[Tensor],
    layouts: Sequence[Layout | None],
    *,
    delta: float,
    wd_ratio: float,
    eps: float,
) -> tuple[list[Tensor | None], list[Tensor | int]]:
    """Project the updates in place; ratio (None: exempt) and branch of each weight."""
    ratios: list[Tensor | None] = [None] * len(params)
    branches: list[Tensor | int] = [EXEMPT] * len(params)
    chosen = [i for i, layout in enumerate(layouts) if layout is not None]
    if not chosen:
        return ratios, branches
    p, g, u = ([x[i] for i in chosen] for x in (params, grads, updates))
    found = [layout for layout in layouts if layout is not None]
    coefficients, all_ratios, all_branches = decide_many(
        _row_sums_many(p, g, u, [layout.channel_dim for layout in found]),
        found,
        delta=delta,
        wd_ratio=wd_ratio,
        eps=eps,
    )
    for update, param, coefficient, layout in zip(u, p, coefficients, found):
        remove_radial_(update, param, coefficient, layout.channel_dim)
    for i, ratio, branch in zip(chosen, all_ratios.unbind(0), all_branches.unbind(0)):
        ratios[i], branches[i] = ratio, branch
    return ratios, branches


def decay_many_(
    params: list[Tensor], ratios: Sequence[Tensor | None], rate: float | Tensor
) -> None:
    """``p *= 1 - rate * ratio``, ratio 1 where None."""
    exempt = [param for param, ratio in zip(params, ratios) if ratio is None]
    if exempt:
        torch._foreach_mul_(exempt, 1 - rate)
    chosen = [(param, ratio) for param, ratio in zip(params, ratios) if ratio is not None]
    if chosen:
        factors = 1 - rate * torch.stack([ratio for _, ratio in chosen])
        torch._foreach_mul_([param for param, _ in chosen], list(factors.unbind(0)))


def _row_sums_many(
    params: list[Tensor], grads: list[Tensor], updates: list[Tensor], channel_dims: list[int]
) -> list[RowSums]:
    """The four sums of each row of each weight."""
    products = zip(torch._foreach_mul(grads, params), torch._foreach_mul(updates, params))
    sums = []
    for param, grad, (gp, up), dim in zip(params, grads, products, channel_dims):
        gp, g, p, up = as_rows(dim, gp, grad, param, up)
        dims = tuple(range(1, p.ndim))
        gg, pp = (torch.linalg.vector_norm(x, dim=dims) for x in (g, p))
        sums.append(RowSums(gp.sum(dims), gg, pp, up.sum(dims)))
    gg = torch._foreach_pow([rows.gg for rows in sums], 2)
    pp = torch._foreach_pow([rows.pp for rows in sums], 2)
    return [RowSums(rows.gp, g, p, rows.up) for rows, g, p in zip(sums, gg, pp)]


def decide_many(
    sums: Sequence[RowSums],
    layouts: Sequence[Layout],
    *,
    delta: float,
    wd_ratio: float,
    eps: float,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """:func:`decide` for many weights at once, sharded ones among them: coefficients of each, and
    the ratios and branches of all as vectors.
    """  # noqa: D205
    shardings = [layout.sharding for layout in layouts]
    if any(shardings):
        stacked = [torch.stack(rows) for rows in sums]
        stacked = sum_over_mesh(stacked, [s and (s.mesh, s.row_dims) for s in shardings])
        sums = [RowSums(*rows.unbind(0)) for rows in stacked]
    sizes = [rows.gp.numel() for rows in sums]
    gp, gg, pp, up = (torch.cat(column) for column in zip(*sums))

    # a - b < 0 exactly where a < b: the oracle's comparison, with no vector of thresholds that
    # would have to be copied to the accelerator
    excess = torch._foreach_sub(
        torch.split(cosine(gp, gg, pp, eps), sizes),
        [delta / math.sqrt(x.row_size) for x in layouts],
    )
    # the number of rows that fail adds up over processes; a maximum would need a second reduction
    failing = (~(torch.cat(excess) < 0)).to(gp.dtype)
    parts = torch.split(torch.stack([failing, gp, gg, pp, up], dim=1), sizes)
    totals = [part.sum(0) for part in parts]
    if any(shardings):
        totals = sum_over_mesh(totals, [s and (s.mesh, s.channel_dims) for s in shardings])
    fails, layer_gp, layer_gg, layer_pp, layer_up = torch.stack(totals).unbind(1)

    channel = fails == 0
    cosines = cosine(layer_gp, layer_gg, layer_pp, eps)
    excess = torch._foreach_sub(cosines.unbind(0), [delta / math.sqrt(x.size) for x in layouts])
    layer = ~channel & (torch.stack(excess) < 0)
    zeros = torch.zeros_like(layer_gp)
    whole = torch.where(layer, radial(layer_up, layer_pp, eps), zeros)
    coefficients = torch.where(_spread(channel, sizes), radial(up, pp, eps), _spread(whole, sizes))
    ratios = torch.where(channel | layer, wd_ratio, torch.ones_like(zeros))
    branches = torch.where(channel, CHANNEL, torch.where(layer, LAYER, UNTOUCHED))
    return list(torch.split(coefficients, sizes)), ratios, branches


def _spread(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Each value once for each row of its weight; no index tensor, which would have to be copied
    to the accelerator.
    """  # noqa: D205
    return torch.cat([value.expand(n) for value, n in zip(values.unbind(0), sizes)])
