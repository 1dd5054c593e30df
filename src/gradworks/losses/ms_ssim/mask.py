"""Weights of positions: which parts of an image count, at every scale (ours beside the papers)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gradworks.losses.ms_ssim.plan import Plan
from gradworks.losses.ms_ssim.pooling import halve

__all__ = ["Weights", "scale_weights"]


class Weights(NamedTuple):
    """Weights of the valid positions of one scale.

    Attributes:
        share: (images or 1, *valid), of sum 1 an image, or all 0.
        empty: (images or 1,), 1 where no position has a weight: such an image counts as equal.
    """

    share: Tensor
    empty: Tensor


def scale_weights(mask: Tensor, plan: Plan) -> list[Weights]:
    """Weights for every scale: a position weighs what the mask says at its window's centre.

    Args:
        mask: (images or 1, *spatial), not negative.
        plan: Settings.

    Returns:
        Weights, one a scale.
    """
    found = []
    sides = tuple(range(1, mask.dim()))
    for scale in range(len(plan.weights)):
        if scale:
            mask = halve(mask, plan.odd)
        centre = mask
        for side, size in enumerate(plan.kernel):
            centre = centre.narrow(side + 1, size // 2, mask.shape[side + 1] - size + 1)
        total = centre.sum(sides, keepdim=True)
        empty = total <= 0
        share = centre / torch.where(empty, 1.0, total)
        found.append(Weights(share, empty.flatten().to(mask.dtype)))
    return found
