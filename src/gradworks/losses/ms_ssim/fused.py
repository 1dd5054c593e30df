"""Values and gradients in one pass, a piece of the batch at a time.

The value of an image is one number, so its gradient is known, up to that number's own gradient,
before any backward pass. Here both are computed together while a piece is in the processor's cache:
nothing but the gradient image is kept, where automatic differentiation keeps some twenty maps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradworks.losses.ms_ssim.mask import Weights
from gradworks.losses.ms_ssim.plain import bases, exponents
from gradworks.losses.ms_ssim.plan import Plan
from gradworks.losses.ms_ssim.pooling import halve_fast, unhalve_
from gradworks.losses.ms_ssim.tile import (
    Constants,
    Images,
    TargetMoments,
    Tiling,
    tile_similarity,
)
from gradworks.losses.ms_ssim.window import Bands, Convolutions

__all__ = ["gradient_scale", "piece_pixels", "positions", "similarity_with_gradient"]

# Pixels a piece: on CPU what keeps its dozen maps near the second-level cache (a thread); elsewhere
# what bounds the memory of one piece (about 16 maps) to some hundred megabytes.
_CPU_PIXELS = 2**16
_OTHER_PIXELS = 2**22
# A tile has this many times the kernel's rows at least: less would filter the overlap too often.
_TILE_KERNELS = 6


def piece_pixels(image: Tensor) -> int:
    """Pixels a piece on this device."""
    if image.device.type == "cpu":
        return _CPU_PIXELS * torch.get_num_threads()
    return _OTHER_PIXELS


def gradient_scale(spatial: Sequence[int], plan: Plan, *, weighted: bool) -> float:
    """What the gradients of ``similarity_with_gradient`` still have to be multiplied by.

    A sum over positions stands for a mean where one scale is all: the backward pass multiplies by
    the slope anyway, so one more pass over the images is saved.
    """
    if weighted or len(plan.weights) > 1 or plan.nonneg is not None:
        return 1.0
    return 1.0 / positions(spatial, plan)


def positions(spatial: Sequence[int], plan: Plan) -> int:
    """How many windows fit."""
    return math.prod(s - size + 1 for s, size in zip(spatial, plan.kernel))


def similarity_with_gradient(
    x: Tensor,
    y: Tensor,
    weights: Sequence[Weights] | None,
    plan: Plan,
    *,
    need: tuple[bool, bool],
    remembered: TargetMoments | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Similarity of every image, and its gradients up to ``gradient_scale``.

    Args:
        x: Contiguous images (images, *spatial), float32 or float64.
        y: Images alike.
        weights: Weights of positions, one a scale, or ``None``.
        plan: Settings.
        need: Whether the gradients by ``x`` and by ``y`` are wanted.
        remembered: Moments of ``y``, filled in the first pass.

    Returns:
        Values (images,), and the gradient of each image's value by ``x`` and by ``y``, or ``None``.
    """
    scales = len(plan.weights)
    budget = piece_pixels(x) if remembered is None else remembered.pixels
    # Reduced matrix precision is a choice for networks; variances would lose their digits.
    exact = x.dtype == torch.float64 or torch.get_float32_matmul_precision() == "highest"
    kind = Bands if x.device.type == "cpu" and exact else Convolutions
    tiling = Tiling(plan, kind(plan.kernel, plan.sigma), Constants.of(plan, x), need, remembered)
    replay = remembered is not None and remembered.complete
    if remembered is not None:
        remembered.start()
    factors: list[Tensor] = []
    gradients: list[list[Tensor | None]] = []
    counts: list[float] = []
    for scale in range(scales):
        last = scale == scales - 1
        position = None if weights is None else weights[scale]
        total, found = _scale(x, y, position, tiling, budget, last and plan.luminance)
        counts.append(1.0 if weights is not None else float(positions(x.shape[1:], plan)))
        factors.append(total / counts[-1] if position is None else total + position.empty)
        gradients.append(found)
        if not last:
            x = halve_fast(x, plan.odd)
            y = x if replay else halve_fast(y, plan.odd)  # replayed: y is not read
    if remembered is not None:
        remembered.finish()
    if scales == 1 and plan.nonneg is None:
        return factors[0], gradients[0][0], gradients[0][1]
    base, alive = bases(torch.stack(factors), plan.nonneg)
    power = exponents(plan, base)
    value = (base**power * alive).prod(0)
    slopes = value * power / base * (0.5 if plan.nonneg == "shift" else 1.0)
    steps = [slope / count for slope, count in zip(slopes.unbind(0), counts)]
    by_x, by_y = (_chained(found, steps, plan.odd) for found in zip(*gradients))
    return value, by_x, by_y


def _chained(
    gradients: Sequence[Tensor | None], slopes: Sequence[Tensor], odd: str
) -> Tensor | None:
    """The scales' gradients summed into the first, coarsest first."""
    coarser: Tensor | None = None
    for gradient, slope in zip(reversed(gradients), reversed(slopes)):
        if gradient is None:
            return None
        gradient.mul_(slope.view(-1, *(1,) * (gradient.dim() - 1)))
        coarser = gradient if coarser is None else unhalve_(gradient, coarser, odd)
    return coarser


def _scale(
    x: Tensor,
    y: Tensor,
    weights: Weights | None,
    tiling: Tiling,
    budget: int,
    luminance: bool,
) -> tuple[Tensor, list[Tensor | None]]:
    """Sum of ``l * cs`` or of ``cs`` an image, and its gradients by x and by y.

    In pieces of images, and where one image is larger than a piece, in tiles of its lines.
    """
    plan = tiling.plan
    sides = tuple(range(1, x.dim()))
    shifts = x.mean(sides, keepdim=True), y.mean(sides, keepdim=True)
    sinks = [torch.empty_like(x) if wanted else None for wanted in tiling.need]
    total = x.new_zeros(x.shape[0])
    pixels, overlap = math.prod(x.shape[1:]), plan.kernel[0] - 1
    valid = x.shape[1] - overlap
    step, rows = max(1, budget // pixels), valid
    if pixels > budget:
        rows = max(budget // math.prod(x.shape[2:]) - overlap, _TILE_KERNELS * plan.kernel[0])
    for piece in (slice(i, i + step) for i in range(0, x.shape[0], step)):
        for start in range(0, valid, rows):
            stop = min(start + rows, valid)
            lines = slice(start, stop + overlap)
            share = None
            if weights is not None:
                whole = weights.share[:, start:stop]
                share = whole if whole.shape[0] == 1 else whole[piece]
            total[piece] += tile_similarity(
                Images(x[piece, lines], y[piece, lines], *(s[piece] for s in shifts)),
                tiling,
                luminance=luminance,
                share=share,
                into=[None if sink is None else sink[piece, lines] for sink in sinks],
                seen=overlap if start else 0,
            )
    return total, sinks
