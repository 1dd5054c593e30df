"""The formulas as they stand, by automatic differentiation: the oracle of the fast path.

Also what runs where the fast path cannot: under ``torch.compile``, for derivatives of derivatives,
for forward-mode tangents, and for the map itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradworks.losses.ms_ssim.mask import Weights
from gradworks.losses.ms_ssim.plan import Plan
from gradworks.losses.ms_ssim.pooling import halve
from gradworks.losses.ms_ssim.window import correlate, windows

__all__ = ["average", "bases", "contrast_and_similarity", "exponents", "values"]

# Where "leaky" (and "shift", which only meets it for values out of range) stops the slope growing.
LEAK = 1e-4


def contrast_and_similarity(x: Tensor, y: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """The maps ``cs`` and ``l * cs`` of (images, *spatial) at valid positions (2004, Eq. 13)."""
    sides = tuple(range(1, x.dim()))
    # Means away from the contrast cancel in E[x^2] - E[x]^2; moments about any constant are exact.
    shift_x = x.detach().mean(sides, keepdim=True)
    shift_y = y.detach().mean(sides, keepdim=True)
    a, b = x - shift_x, y - shift_y
    maps = torch.stack([a, b, a * a + b * b, a * b], 1)
    mean_a, mean_b, squares, product = correlate(maps, windows(plan.kernel, plan.sigma, x)).unbind(
        1
    )
    # Rounding must not turn the sum of two variances negative.
    spread = (squares - mean_a * mean_a - mean_b * mean_b).clamp_min(0.0)
    cs = (2.0 * (product - mean_a * mean_b) + plan.c2) / (spread + plan.c2)
    mean_x, mean_y = mean_a + shift_x, mean_b + shift_y
    luminance = (2.0 * mean_x * mean_y + plan.c1) / (mean_x * mean_x + mean_y * mean_y + plan.c1)
    return cs, luminance * cs


def bases(factors: Tensor, mode: str | None) -> tuple[Tensor, Tensor | float]:
    """Factors made non-negative as ``mode`` says, and where they are alive (1) or clamped (0).

    ``"relu"``: the slope of 0^b is infinite, so 1 stands in for what is clamped, and the power is
    multiplied by 0 afterwards. The other modes are always alive.
    """
    if mode == "relu":
        alive = ~(factors <= torch.finfo(factors.dtype).tiny)  # NaN stays NaN
        return torch.where(alive, factors, 1.0), alive.to(factors.dtype)
    if mode is not None:
        base = 0.5 * (1.0 + factors) if mode == "shift" else factors
        # Below the leak: the leak's value, and its slope carried through.
        return base + (LEAK - base).clamp_min(0.0).detach(), 1.0
    return factors, 1.0


def exponents(plan: Plan, like: Tensor) -> Tensor:
    """The exponents as a column (scales, 1)."""
    return torch.tensor(plan.weights, dtype=like.dtype, device=like.device)[:, None]


def values(x: Tensor, y: Tensor, weights: Sequence[Weights] | None, plan: Plan) -> Tensor:
    """Similarity of every image of (images, *spatial): product of powers over the scales."""
    factors = []
    for scale in range(len(plan.weights)):
        last = scale == len(plan.weights) - 1
        field = contrast_and_similarity(x, y, plan)[last and plan.luminance]
        factors.append(average(field, weights[scale] if weights else None))
        if not last:
            x, y = halve(x, plan.odd), halve(y, plan.odd)
    if len(factors) == 1 and plan.nonneg is None:
        return factors[0]
    base, alive = bases(torch.stack(factors), plan.nonneg)
    return (base ** exponents(plan, x) * alive).prod(0)


def average(field: Tensor, weights: Weights | None) -> Tensor:
    """Mean over the positions of every image, or the weighted mean."""
    sides = tuple(range(1, field.dim()))
    if weights is None:
        return field.mean(sides)
    return (field * weights.share).sum(sides) + weights.empty
