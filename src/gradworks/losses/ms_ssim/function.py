"""The fast path as one differentiable operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradworks.losses.ms_ssim.fused import gradient_scale, similarity_with_gradient
from gradworks.losses.ms_ssim.mask import scale_weights
from gradworks.losses.ms_ssim.plain import values
from gradworks.losses.ms_ssim.plan import Plan
from gradworks.losses.ms_ssim.tile import TargetMoments

__all__ = ["similarity"]


def similarity(
    x: Tensor,
    y: Tensor,
    mask: Tensor | None,
    plan: Plan,
    remembered: TargetMoments | None = None,
) -> Tensor:
    """Similarity of every image and channel.

    Args:
        x: Images (N, C, *spatial), float32 or float64.
        y: Images alike.
        mask: Weights of pixels, (N or 1, C or 1, *spatial), or ``None``.
        plan: Settings.
        remembered: The target's moments, kept between calls.

    Returns:
        Values (N, C).
    """
    if torch.compiler.is_compiling():
        return _plain(x, y, mask, plan)
    track = torch.is_grad_enabled()
    need = (track and x.requires_grad, track and y.requires_grad)
    found: Tensor = _Similarity.apply(x, y, mask, plan, need, remembered)[0]  # type: ignore[no-untyped-call]
    return found


def _plain(x: Tensor, y: Tensor, mask: Tensor | None, plan: Plan) -> Tensor:
    """By the formulas, differentiable again."""
    with torch.autocast(x.device.type, enabled=False):
        weights = None if mask is None else scale_weights(_rows(mask, x), plan)
        found = values(x.flatten(0, 1), y.flatten(0, 1), weights, plan)
    return found.view(x.shape[:2])


def _pullback(
    x: Tensor, y: Tensor, mask: Tensor | None, plan: Plan
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """From the gradient of the values to those of both images, differentiable again."""
    found: Callable[[Tensor], tuple[Tensor, Tensor]]
    found = torch.func.vjp(lambda a, b: _plain(a, b, mask, plan), x, y)[1]
    return found


def _rows(mask: Tensor, x: Tensor) -> Tensor:
    """A mask as (images or 1, *spatial)."""
    return mask[0] if mask.shape[:2] == (1, 1) else mask.expand(x.shape).flatten(0, 1)


class _Similarity(torch.autograd.Function):
    """Values with their gradients, which the backward pass only scales.

    A second derivative goes through the plain formulas.
    """

    @staticmethod
    def forward(
        x: Tensor,
        y: Tensor,
        mask: Tensor | None,
        plan: Plan,
        need: tuple[bool, bool],
        remembered: TargetMoments | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        with torch.autocast(x.device.type, enabled=False):
            weights = None if mask is None else scale_weights(_rows(mask, x), plan)
            images = [image.flatten(0, 1).contiguous() for image in (x, y)]
            found, by_x, by_y = similarity_with_gradient(
                images[0], images[1], weights, plan, need=need, remembered=remembered
            )
        return (
            found.view(x.shape[:2]),
            None if by_x is None else by_x.view(x.shape),
            None if by_y is None else by_y.view(x.shape),
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        x, y, mask, plan, _, _ = inputs
        ctx.mark_non_differentiable(*(g for g in output[1:] if g is not None))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, y, mask, output[1], output[2])
        ctx.save_for_forward(x, y, mask)
        ctx.plan = plan
        ctx.scale = gradient_scale(x.shape[2:], plan, weighted=mask is not None)

    @staticmethod
    def backward(ctx: Any, slope: Tensor | None, *_: Any) -> tuple[Any, ...]:
        x, y, mask, by_x, by_y = ctx.saved_tensors
        if slope is None:
            return (None,) * 6
        need = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():
            found = list(_pullback(x, y, mask, ctx.plan)(slope))
            return (*(g if wanted else None for g, wanted in zip(found, need)), *(None,) * 4)
        column = (slope * ctx.scale)[(..., *(None,) * (x.dim() - 2))]
        return (
            column * by_x if need[0] else None,
            column * by_y if need[1] else None,
            *(None,) * 4,
        )

    @staticmethod
    def jvp(ctx: Any, along_x: Tensor | None, along_y: Tensor | None, *_: Any) -> tuple[Any, ...]:
        x, y, mask = ctx.saved_tensors
        tangents = tuple(torch.zeros_like(x) if t is None else t for t in (along_x, along_y))
        # A pullback is linear; its own pullback is the derivative along a direction. Unlike a
        # nested forward mode this works inside every transform.
        pullback = _pullback(x, y, mask, ctx.plan)
        push = torch.func.vjp(pullback, x.new_zeros(x.shape[:2]))[1]
        return push(tangents)[0], None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, y: Tensor, mask: Any, *rest: Any
    ) -> tuple[Any, Any]:
        size = info.batch_size

        def joined(image: Tensor, dim: int | None) -> Tensor:
            moved = image.expand(size, *image.shape) if dim is None else image.movedim(dim, 0)
            return moved.flatten(0, 1)

        plan, need = rest[:2]
        x, y = joined(x, in_dims[0]), joined(y, in_dims[1])
        if mask is not None and (in_dims[2] is not None or mask.shape[0] > 1):
            # One mask for all images of a call becomes one an image, where calls differ.
            moved = mask[None] if in_dims[2] is None else mask.movedim(in_dims[2], 0)
            mask = moved.expand(size, x.shape[0] // size, *moved.shape[2:]).flatten(0, 1)
        found: Sequence[Tensor | None]
        found = _Similarity.apply(x, y, mask, plan, need, None)  # type: ignore[no-untyped-call]
        parts = tuple(None if f is None else f.view(size, -1, *f.shape[1:]) for f in found)
        return parts, tuple(None if f is None else 0 for f in found)
