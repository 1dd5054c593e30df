"""One tile of one scale: the mean of ``cs`` or of ``l * cs``, and its gradient, in one go.

With x' = x - mean x, a = w * x', b alike, P = w * (x'^2 + y'^2), Q = w * (x' y'), and the means
u = a + mean x, v = b + mean y:

    S = 2 (Q - a b) + C2,  V = P - a^2 - b^2 + C2,  cs = S / V
    L1 = 2 u v + C1,  L2 = u^2 + v^2 + C1,  l = L1 / L2

    cs:    d/dQ = 2 / V,    d/dP = -cs / V,    d/da = 2 (a cs - b) / V
    l cs:  d/dQ = 2 l / V,  d/dP = -l cs / V,
           d/da = 2 (a l cs - b l) / V + 2 (v cs - u l cs) / L2

and grad x = w^T (d/da) + 2 x' w^T (d/dP) + y' w^T (d/dQ), where w^T is the adjoint of the filter.
Every term carries a factor of 2, which sits in the reciprocals: 2 / V and 2 / L2 are what is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradworks.losses.ms_ssim.plan import Plan
from gradworks.losses.ms_ssim.window import Bands, Convolutions

__all__ = ["Constants", "Images", "TargetMoments", "Tiling", "tile_similarity"]


class Images(NamedTuple):
    """A tile: its lines of x and y, and the constants subtracted from both."""

    x: Tensor
    y: Tensor
    shift_x: Tensor
    shift_y: Tensor


class Moments(NamedTuple):
    """What the target contributes to a tile: the same in every step while the target stays."""

    centred: Tensor
    shift: Tensor
    mean: Tensor
    square: Tensor


class TargetMoments:
    """Moments of one target, recorded tile by tile and replayed in the same order.

    Args:
        pixels: Pixels a piece; kept, so that the tiles of a later pass are the same.
    """

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self.complete = False
        self._tiles: list[Moments] = []
        self._next = 0

    def take(self, make: Callable[[], Moments]) -> Moments:
        """The next tile's moments, made in the first pass."""
        if not self.complete:
            self._tiles.append(make())
        found = self._tiles[self._next]
        self._next += 1
        return found

    def start(self) -> None:
        """Begin a pass; what an interrupted first pass has left is dropped."""
        self._next = 0
        if not self.complete:
            self._tiles.clear()

    def finish(self) -> None:
        """End a pass: from now on the moments are replayed."""
        self.complete = True


class Constants(NamedTuple):
    """Numbers as tensors without dimensions, so that one pass can add them."""

    two: Tensor
    half_c1: Tensor
    c1: Tensor
    half_c2: Tensor
    c2: Tensor

    @staticmethod
    def of(plan: Plan, like: Tensor) -> Constants:
        """The constants of a plan, on the device of ``like``."""
        numbers = (2.0, 0.5 * plan.c1, plan.c1, 0.5 * plan.c2, plan.c2)
        return Constants(
            *(torch.full((), n, dtype=like.dtype, device=like.device) for n in numbers)
        )


class Tiling(NamedTuple):
    """What all tiles of one pass share."""

    plan: Plan
    filter: Bands | Convolutions
    constants: Constants
    need: tuple[bool, bool]
    remembered: TargetMoments | None


def _filtered(images: Images, tiling: Tiling) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """Centred x and y, the target's shift, and the maps a, b, P + C2, Q + C2 / 2 of the tile."""
    x, y, shift_x, shift_y = images
    count, spatial = x.shape[0], x.shape[1:]
    _, filt, constants, _, remembered = tiling
    # The window sums to 1, so what is added before it comes out after it: one pass less.
    if remembered is None:
        buffer = filt.buffer(4, count, spatial, x)
        dx, dy, squares, product = filt.unstack(buffer)
        torch.sub(y, shift_y, out=dy)
        torch.sub(x, shift_x, out=dx)
        torch.addcmul(constants.c2, dx, dx, out=squares).addcmul_(dy, dy)
        torch.addcmul(constants.half_c2, dx, dy, out=product)
        return dx, dy, shift_y, filt.unstack(filt.valid(buffer))

    def of_target() -> Moments:
        buffer = filt.buffer(2, count, spatial, y)
        dy, squares = filt.unstack(buffer)
        torch.sub(y, shift_y, out=dy)
        torch.addcmul(constants.c2, dy, dy, out=squares)
        return Moments(dy.clone(), shift_y, *(m.clone() for m in filt.unstack(filt.valid(buffer))))

    dy, shift_y, mean, square = remembered.take(of_target)
    buffer = filt.buffer(3, count, spatial, x)
    dx, squares, product = filt.unstack(buffer)
    torch.sub(x, shift_x, out=dx)
    torch.mul(dx, dx, out=squares)
    torch.addcmul(constants.half_c2, dx, dy, out=product)
    a, squares, product = filt.unstack(filt.valid(buffer))
    return dx, dy, shift_y, (a, mean, squares.add_(square), product)


def tile_similarity(
    images: Images,
    tiling: Tiling,
    *,
    luminance: bool,
    share: Tensor | None,
    into: Sequence[Tensor | None],
    seen: int,
) -> Tensor:
    """Sum of the map over a tile's positions, and its gradient.

    Args:
        images: The tile.
        tiling: What all tiles share.
        luminance: The map is ``l * cs``, else ``cs``.
        share: Weights of the positions, or ``None`` for 1.
        into: Where the gradients by x and by y go, (images, *spatial), or ``None``.
        seen: So many first lines of ``into`` are added to, the others written.

    Returns:
        Sum (images,).
    """
    plan, filt, constants, need, _ = tiling
    dx, dy, shift_y, (a, b, squares, product) = _filtered(images, tiling)
    # Rounding must not turn the sum of two variances negative.
    spread = squares.addcmul_(a, a, value=-1).addcmul_(b, b, value=-1).clamp_min_(plan.c2)
    by_spread = torch.div(constants.two, spread, out=spread)
    cs = product.addcmul_(a, b, value=-1).mul_(by_spread)
    if luminance:
        u, v = a + images.shift_x, b + shift_y
        by_light = torch.addcmul(constants.c1, u, u).addcmul_(v, v)
        torch.div(constants.two, by_light, out=by_light)
        light = torch.addcmul(constants.half_c1, u, v).mul_(by_light)
        field = light * cs
    else:
        field = cs
    total = (field if share is None else field * share).sum(tuple(range(1, dx.dim())))
    if not any(need):
        return total

    if share is not None:
        by_spread.mul_(share)
    valid = [s - size + 1 for s, size in zip(dx.shape[1:], plan.kernel)]
    buffer = filt.buffer(2 + sum(need), dx.shape[0], valid, dx)
    by_product, by_squares, *by_means = filt.unstack(buffer)
    torch.mul(field, by_spread, out=by_squares)  # with the other sign
    if luminance:
        if share is not None:
            by_light.mul_(share)
        torch.mul(light, by_spread, out=by_product)
        cs.mul_(by_light)
        field.mul_(by_light)
    else:
        by_product.copy_(by_spread)
    mine = [(a, b), (b, a)]
    means = [(u, v), (v, u)] if luminance else []
    wanted = [side for side in (0, 1) if need[side]]
    for slot, side in zip(by_means, wanted):
        own, other = mine[side]
        torch.mul(own, by_squares, out=slot).addcmul_(other, by_product, value=-1)
        if luminance:
            own_mean, other_mean = means[side]
            slot.addcmul_(other_mean, cs).addcmul_(own_mean, field, value=-1)
    by_product, by_squares, *by_means = filt.unstack(filt.transposed(buffer))
    deviations = [(dx, dy), (dy, dx)]
    for slot, side in zip(by_means, wanted):
        own, other = deviations[side]
        sink = into[side]
        if sink is not None:
            slot.addcmul_(own, by_squares, value=-1).addcmul_(other, by_product)
            sink[:, :seen].add_(slot[:, :seen])
            sink[:, seen:].copy_(slot[:, seen:])
    return total
