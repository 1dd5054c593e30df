r"""The projection of AdamP and SGDP: when a weight counts as scale invariant, and what is removed.

A weight of ``C`` channels is seen as rows :math:`p_r` of :math:`K` entries, :math:`N = CK`. The
update loses its radial part per channel, else per layer, else not at all (Sec. 3, Eq. 11-12):

.. math::
    \max_r \cos(g_r, p_r) < \delta / \sqrt K, \qquad \cos(g, p) < \delta / \sqrt N

All rows must pass: one failing row sends the tensor to the layer test. Four sums a row
(:math:`g_r p_r, g_r g_r, p_r p_r, u_r p_r`) are enough for both tests and both projections.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gradworks.optim.arguments import at_least_zero, in_interval
from gradworks.optim.precision import work_dtype
from gradworks.optim.sharded import Sharding, is_sharded, local, sharding_of

__all__ = ["effective_step", "project_radial", "scale_invariance"]

CHANNEL, LAYER, UNTOUCHED, EXEMPT = 1, 2, 0, -1


class Layout(NamedTuple):
    """What the tests need to know of a weight's shape; sizes are those of the whole weight."""

    channel_dim: int
    row_size: int
    size: int
    sharding: Sharding | None = None


def layout_of(param: Tensor, channel_dim: int = 0) -> Layout | None:
    """Layout of a weight; None where nothing is ever projected (fewer than 2 dims, or empty)."""
    if param.ndim < 2 or param.numel() == 0:
        return None
    channel_dim %= param.ndim
    # a complex entry is two real ones: a random direction then still has cosine 1 / sqrt(size)
    size = param.numel() * (2 if param.is_complex() else 1)
    return Layout(
        channel_dim, size // param.shape[channel_dim], size, sharding_of(param, channel_dim)
    )


def as_rows(channel_dim: int, *tensors: Tensor) -> list[Tensor]:
    """The tensors with channels first, as matrices where that needs no copy for any of them."""
    if channel_dim:
        tensors = tuple(x.movedim(channel_dim, 0) for x in tensors)
    if tensors[0].numel() > 0 and all(x.is_contiguous() for x in tensors):
        return [x.view(x.shape[0], -1) for x in tensors]
    return list(tensors)


def _per_row(values: Tensor, rows: Tensor) -> Tensor:
    """One number a row, shaped to broadcast against the rows."""
    return values.view(-1, *(1,) * (rows.ndim - 1))


def norm_squares(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Row sums of squares without a temporary tensor of the size of ``x``."""
    norms: Tensor = torch.linalg.vector_norm(x, dim=dims)
    return norms.square()


def cosine(dot: Tensor, aa: Tensor, bb: Tensor, eps: float | Tensor) -> Tensor:
    """Absolute cosine of the released code; divided twice, as a product of norms underflows."""
    return dot.abs() / aa.sqrt().clamp_min(eps) / bb.sqrt().clamp_min(eps)


def radial(up: Tensor, pp: Tensor, eps: float | Tensor) -> Tensor:
    """Coefficient c of ``u - c p`` with n = p / (|p| + eps): n (n.u) = p (p.u) / (|p| + eps)^2."""
    # the root has no slope at 0, where the smallest number changes nothing beside eps
    norm = pp.clamp_min(torch.finfo(pp.dtype).tiny).sqrt() + eps
    return up / norm / norm


class RowSums(NamedTuple):
    """The four numbers of each row, (rows,) each."""

    gp: Tensor
    gg: Tensor
    pp: Tensor
    up: Tensor


def row_sums(param: Tensor, grad: Tensor, update: Tensor, channel_dim: int) -> RowSums:
    """Sums over rows of g.p, g.g, p.p and u.p, in the arithmetic dtype.

    Elementwise products and sums: a matrix product would be rounded to TF32 or bfloat16 where the
    user allows that for the model, and the threshold is as small as 1e-3.
    """
    p, g, u = as_rows(channel_dim, param, grad, update)
    dims = tuple(range(1, p.ndim))
    return RowSums(
        (g * p).sum(dims), norm_squares(g, dims), norm_squares(p, dims), (u * p).sum(dims)
    )


def decide(
    sums: RowSums,
    row_threshold: float | Tensor,
    layer_threshold: float | Tensor,
    wd_ratio: float | Tensor,
    eps: float | Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Radial coefficient of each row, weight-decay ratio and branch of one weight, branch free."""
    gp, gg, pp, up = sums
    layer_gp, layer_gg, layer_pp, layer_up = gp.sum(), gg.sum(), pp.sum(), up.sum()
    # "all rows below" and not "maximum below": the same, and a NaN then fails as it does there
    channel = (cosine(gp, gg, pp, eps) < row_threshold).all()
    layer = ~channel & (cosine(layer_gp, layer_gg, layer_pp, eps) < layer_threshold)
    zero = torch.zeros_like(layer_gp)
    whole = torch.where(layer, radial(layer_up, layer_pp, eps), zero)
    coefficient = torch.where(channel, radial(up, pp, eps), whole)
    # in the dtype of the weight: of two Python numbers `where` would make a float32
    ratio = torch.where(channel | layer, wd_ratio, torch.ones_like(zero))
    branch = torch.where(channel, CHANNEL, torch.where(layer, LAYER, UNTOUCHED))
    return coefficient, ratio, branch


def remove_radial(update: Tensor, param: Tensor, coefficient: Tensor, channel_dim: int) -> Tensor:
    """``u - c p``, out of place, one coefficient a row."""
    update, param = update.movedim(channel_dim, 0), param.movedim(channel_dim, 0)
    new = torch.addcmul(update, param, _per_row(coefficient, param), value=-1)
    return new.movedim(0, channel_dim)


def remove_radial_(update: Tensor, param: Tensor, coefficient: Tensor, channel_dim: int) -> None:
    """``u -= c p``, one coefficient a row."""
    update, param = as_rows(channel_dim, update, param)
    update.addcmul_(param, _per_row(coefficient, param), value=-1)


def project_traced(
    param: Tensor,
    grad: Tensor,
    update: Tensor,
    layout: Layout,
    *,
    delta: float,
    wd_ratio: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """New update, ratio and branch without a look at any value: no synchronization, one graph."""
    coefficient, ratio, branch = decide(
        row_sums(param, grad, update, layout.channel_dim),
        delta / math.sqrt(layout.row_size),
        delta / math.sqrt(layout.size),
        wd_ratio,
        eps,
    )
    return remove_radial(update, param, coefficient, layout.channel_dim), ratio, branch


def project_on_host_(
    param: Tensor,
    grad: Tensor,
    update: Tensor,
    layout: Layout,
    *,
    delta: float,
    wd_ratio: float,
    eps: float,
) -> tuple[float, int]:
    """The paper line by line, in place: branches on values, so that a CPU skips what is not taken.

    Returns the weight-decay ratio and the branch.
    """
    p, g, u = as_rows(layout.channel_dim, param, grad, update)
    dims = tuple(range(1, p.ndim))
    gp, gg, pp = (g * p).sum(dims), norm_squares(g, dims), norm_squares(p, dims)
    if (cosine(gp, gg, pp, eps) < delta / math.sqrt(layout.row_size)).all():  # view 1, channels
        coefficient = radial((u * p).sum(dims), pp, eps)
        u.addcmul_(p, _per_row(coefficient, p), value=-1)
        return wd_ratio, CHANNEL
    gp, gg, pp = gp.sum(), gg.sum(), pp.sum()
    if cosine(gp, gg, pp, eps) < delta / math.sqrt(layout.size):  # view 2, layer
        u.addcmul_(p, radial((u * p).sum(), pp, eps), value=-1)
        return wd_ratio, LAYER
    return 1.0, UNTOUCHED


def _check_alike(param: Tensor, **others: Tensor) -> None:
    """Same shape, so that nothing broadcasts silently."""
    for name, other in others.items():
        if other.shape != param.shape:
            raise ValueError(
                f"{name} must have the shape of param {tuple(param.shape)}, got "
                f"{tuple(other.shape)}"
            )
        if other.is_sparse:
            raise RuntimeError(f"{name} is sparse; pass {name}.to_dense()")


def _real(*tensors: Tensor) -> list[Tensor]:
    """Complex tensors as pairs of reals, 16-bit ones in float32."""
    real = [torch.view_as_real(x.resolve_conj()) if x.is_complex() else x for x in tensors]
    return [x.to(work_dtype(x.dtype)) for x in real]


def project_radial(
    param: Tensor,
    grad: Tensor,
    update: Tensor,
    *,
    delta: float = 0.1,
    wd_ratio: float = 0.1,
    eps: float = 1e-8,
) -> tuple[Tensor, Tensor]:
    r"""Remove the radial part of an update if the weight behaves as scale invariant.

    The piece of AdamP to put behind any other direction (of RMSprop, Lion, ...). Branch free, no
    host synchronization, differentiable. Not for the raw gradient or the momentum buffer: those
    are what the test looks at, the projection belongs on the final direction.

    .. math::
        u \leftarrow u - n (n \cdot u), \qquad n = p / (\lVert p \rVert + \epsilon)

    per row (dimension 0) if every row has :math:`\cos(g_r, p_r) < \delta / \sqrt K`, else for the
    whole tensor if :math:`\cos(g, p) < \delta / \sqrt N`, else unchanged.

    Args:
        param: Weight :math:`p`, before decay; any shape. With fewer than 2 dimensions the update
            is returned as it is.
        grad: Raw gradient :math:`g`, the shape of ``param``.
        update: Direction :math:`u`, the shape of ``param``.
        delta: Threshold, at least 0; 0.1 (the paper's). 0 never projects.
        wd_ratio: What the returned ratio is where the weight was projected, 0.1 (the paper's).
        eps: Added to norms, at least 0; 1e-8.

    Returns:
        The new update, and the factor of the weight decay as a 0-d tensor (``wd_ratio`` or 1).

    Note:
        Shapes that differ and numbers out of range are a ``ValueError``, a sparse tensor is a
        ``RuntimeError``.

        8N flops; a zero gradient counts as scale invariant, a zero weight leaves the update as
        it is. Complex weights: norms and products over real and imaginary parts together.

    Example:
        >>> import torch
        >>> w, g, u = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.ones(1, 2)
        >>> project_radial(w, g, u)
        (tensor([[0., 1.]]), tensor(0.1000))

    References:
        "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights", 2020,
        arXiv:2006.08217, Sec. 3, Algorithms 1 and 2.
    """
    _check_alike(param, grad=grad, update=update)
    at_least_zero("delta", delta)
    at_least_zero("eps", eps)
    in_interval("wd_ratio", wd_ratio, closed=True)
    layout = layout_of(param)
    if layout is None:
        return update.clone(), torch.ones(
            (), dtype=local(_real(param)[0]).dtype, device=param.device
        )
    if is_sharded(param):
        return _project_sharded(param, grad, update, layout, delta, wd_ratio, eps)
    p, g, u = _real(param, grad, update)
    new, ratio, _ = project_traced(p, g, u, layout, delta=delta, wd_ratio=wd_ratio, eps=eps)
    if update.is_complex():
        return torch.view_as_complex(new.contiguous()), ratio
    return new.to(update.dtype), ratio


@torch.no_grad()
def _project_sharded(
    param: Tensor,
    grad: Tensor,
    update: Tensor,
    layout: Layout,
    delta: float,
    wd_ratio: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """:func:`project_radial` of a ``DTensor``; the result is laid out as ``param``."""
    from gradworks.optim.adamp.many import decide_many

    new = update.redistribute(placements=param.placements).clone()  # type: ignore[attr-defined]
    p, g, u = _real(local(param), local(grad, param), local(new))
    (coefficient,), ratios, _ = decide_many(
        [row_sums(p, g, u, 0)], [layout], delta=delta, wd_ratio=wd_ratio, eps=eps
    )
    remove_radial_(u, p, coefficient, 0)
    if not update.is_complex():
        local(new).copy_(u)
    return new, ratios[0]


def scale_invariance(param: Tensor, grad: Tensor, *, eps: float = 1e-8) -> tuple[Tensor, Tensor]:
    r"""Absolute cosines between gradient and weight: per row, and for the whole tensor.

    A diagnostic to log: near 0 for weights followed by a normalization, of size
    :math:`1 / \sqrt K` for unrelated directions.

    Args:
        param: Weight of any shape; with fewer than 2 dimensions it is one row.
        grad: Its gradient, the same shape.
        eps: Smallest norm divided by, 1e-8.

    Returns:
        Cosines of the rows, (rows,), and of the whole, 0-d; both in [0, 1].

    Note:
        Shapes that differ are a ``ValueError``, a sparse tensor is a ``RuntimeError``.

    Example:
        >>> import torch
        >>> scale_invariance(torch.eye(2), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        (tensor([0., 1.]), tensor(0.5000))

    References:
        arXiv:2006.08217, Sec. 3.
    """
    _check_alike(param, grad=grad)
    if is_sharded(param):
        param, grad = param.full_tensor(), grad.full_tensor()  # type: ignore[attr-defined]
    if param.ndim < 2:
        param, grad = param.reshape(1, -1), grad.reshape(1, -1)
    p, g = _real(param, grad)
    p, g = as_rows(0, p, g)
    dims = tuple(range(1, p.ndim))
    gp, gg, pp = (g * p).sum(dims), norm_squares(g, dims), norm_squares(p, dims)
    return cosine(gp, gg, pp, eps), cosine(gp.sum(), gg.sum(), pp.sum(), eps)


def effective_step(param: Tensor, lr: float | Tensor) -> Tensor:
    r"""Step of plain SGD on the unit sphere for a scale-invariant weight: lr / |p|^2.

    The number that momentum makes decay too soon (the paper's Sec. 2): plot it over training.

    Args:
        param: Weight of any shape.
        lr: Learning rate.

    Returns:
        0-d tensor; infinite for a zero weight.

    Example:
        >>> import torch
        >>> effective_step(torch.tensor([3.0, 4.0]), lr=0.1)
        tensor(0.0040)

    References:
        arXiv:2006.08217, Sec. 2.
    """
    if is_sharded(param):
        param = param.full_tensor()  # type: ignore[attr-defined]
    (p,) = _real(param)
    norm: Tensor = torch.linalg.vector_norm(p)
    return lr / norm.square()
