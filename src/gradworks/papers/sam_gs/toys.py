"""The two synthetic problems, with all starts, problems and loss scales in one program.

Two losses of a point in the plane. Where the second coordinate is above 0 they are logarithms with
deep, narrow valleys; below 0 they are smooth: quadratic in "one", of degree six in "two". Both are
0 on the line between, a ridge on which many methods stall. A step in a plane costs next to nothing,
so gradients are written out in numpy and every row of the batch is a run of its own; the tests hold
them against automatic differentiation, and the directions against the aggregators of
``gradworks.multitask`` and torchjd.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["BEST", "FUNCTIONS", "STARTS", "Direction", "losses_and_gradients", "run"]

Array = np.ndarray[Any, np.dtype[np.float64]]

# Of the authors' code.
STARTS = (
    (-8.0, 5.0),
    (-3.0, 7.5),
    (0.0, 10.0),
    (3.0, 7.5),
    (8.0, 5.0),
    (-10.0, -3.0),
    (10.0, -3.0),
)
FUNCTIONS = ("one", "two")
# Lowest sum of both losses, found by minimising it from a grid of points (see the tests).
BEST = {"one": -30.18328, "two": -74.13399}
_LEAST = 5e-6  # below, the logarithms are flat
# Rows of the two losses, which mirror each other.
_SIDES = np.array([[1.0], [-1.0]])
_OFFSETS = np.array([[-3.5], [3.5]])
_NEARER = np.array([[0.05 / 4], [-0.05 / 4]])  # the authors shift one of the powers

# Of SAM-GS in the authors' configurations, which differ between the two.
TOY_GAMMA = 0.1
TOY_BETA2 = {"one": 0.99, "two": 0.9}
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8  # of Adam
_CLIP_EPS = 1e-6  # of torch.nn.utils.clip_grad_norm_
_FLOOR = 1e-8  # added to the running dissimilarity by the authors' code


def _quadratic(x: Array, y: Array) -> tuple[Array, Array, Array]:
    a, b = x - 7 * _SIDES, y + 8
    return a * a / 10 + (0.01 * b * b - 20), a / 5, b / 50


def _sextic(x: Array, y: Array) -> tuple[Array, Array, Array]:
    a, b = (x - 5.5 * _SIDES) / 4, y / 4
    near = a + _NEARER
    a2, b2, n2 = a * a, b * b, near * near
    along = b2 * (0.1 * b2 * b2 - b2 - 1.5) + 1.5
    value = 0.1 * n2 * n2 * n2 - a2 * (a2 + 1.5) + along
    dx = 0.15 * n2 * n2 * near - a * (a2 + 0.75)
    return value, dx, b * (0.15 * b2 * b2 - b2 - 0.75)


def losses_and_gradients(points: Array, sextic: Array) -> tuple[Array, Array]:
    """Return both losses and their gradients at every point.

    Args:
        points: ``(rows, 2)``.
        sextic: Which rows are of the problem ``"two"``; the others are of ``"one"``.

    Returns:
        Losses ``(2, rows)`` and gradients ``(2, rows, 2)``.
    """
    x, y = points[:, 0], points[:, 1]
    half, whole = np.tanh(y / 2), np.tanh(y)
    above, below = y > 0, y < 0
    up, down = half * above, -half * below
    dhalf = 0.5 - 0.5 * half * half
    # the valleys: log max(|u|, least) + 6, with du/dx = -1/2
    u = -0.5 * x + _OFFSETS + _SIDES * whole
    size = np.abs(u)
    deep = size > _LEAST
    log = np.log(np.where(deep, size, _LEAST)) + 6
    inverse = deep / np.where(deep, u, 1.0)
    smooth, smooth_x, smooth_y = (
        np.where(sextic, *pair) for pair in zip(_sextic(x, y), _quadratic(x, y))
    )
    gradients = np.empty((2, len(points), 2))
    gradients[..., 0] = -0.5 * up * inverse + down * smooth_x
    gradients[..., 1] = (
        (up * (1 - whole * whole)) * _SIDES * inverse
        + dhalf * above * log
        + down * smooth_y
        - dhalf * below * smooth
    )
    return up * log + down * smooth, gradients


class Direction:
    """A method for two tasks, on many points at once.

    Args:
        method: ``"sum"``, ``"pcgrad"``, ``"equalise"`` (gradients brought to their mean length) or
            ``"samgs"``.
        rows: Number of points.
        clip: Largest norm of the direction; None: no clip.
        gamma: Similarity under which SAM-GS equalises; 0.1 in the authors' toy problems.
        momentum: Of SAM-GS; 0.9.
        beta2: Of SAM-GS; a number, or one a row.
        scale: Of SAM-GS: ``"norm"`` rescales the direction to the sum of the norms.

    Raises:
        ValueError: If there is no such method.
    """

    def __init__(
        self,
        method: str,
        rows: int,
        *,
        clip: float | None = None,
        gamma: float = TOY_GAMMA,
        momentum: float = 0.9,
        beta2: float | Array = 0.99,
        scale: str = "published",
    ) -> None:
        if method not in ("sum", "pcgrad", "equalise", "samgs"):
            raise ValueError(f"method must be sum, pcgrad, equalise or samgs, got {method!r}")
        self.method, self.clip = method, clip
        self.gamma, self.momentum, self.beta2 = gamma, momentum, beta2
        self.scale = scale
        self.exp_avg = np.zeros((2, rows, 2))
        self.exp_dissim = np.zeros(rows)
        self.step = 0

    def __call__(self, gradients: Array) -> Array:
        """Return the direction of every point.

        Args:
            gradients: ``(2, rows, 2)``.

        Returns:
            ``(rows, 2)``.
        """
        if self.method == "sum":
            found = gradients[0] + gradients[1]
        elif self.method == "pcgrad":
            found = self._projected(gradients)
        else:
            found = 2 * self._surgery(gradients)
        if self.clip is not None:
            length = np.sqrt(np.einsum("rc,rc->r", found, found))
            found = found * np.minimum(self.clip / (length + _CLIP_EPS), 1.0)[:, None]
        return np.asarray(found)

    def _projected(self, gradients: Array) -> Array:
        inner = np.minimum(np.einsum("rc,rc->r", gradients[0], gradients[1]), 0.0)
        squares = np.einsum("trc,trc->tr", gradients, gradients)
        share = inner / np.where(squares > 0, squares, 1.0)
        first, second = gradients
        projected: Array = first + second - share[1, :, None] * second - share[0, :, None] * first
        return projected

    def _surgery(self, gradients: Array) -> Array:
        norms = np.sqrt(np.einsum("trc,trc->tr", gradients, gradients))
        active = norms > 0
        mean = norms.sum(0) / np.maximum(active.sum(0), 1)
        equalised = (
            gradients * np.where(active, mean / np.where(active, norms, 1.0), 0.0)[..., None]
        )
        if self.method == "equalise":
            return np.asarray(equalised[0] + equalised[1])
        self.step += 1
        both = active.all(0)
        squares = norms[0] * norms[0] + norms[1] * norms[1]
        similar = np.where(both, 2 * norms[0] * norms[1] / np.where(both, squares, 1.0), 1.0)
        self.exp_avg += (1 - self.momentum) * (gradients - self.exp_avg)
        apart = (1 - self.beta2) * (1 - similar) ** 2 + _FLOOR
        self.exp_dissim = self.beta2 * self.exp_dissim + apart
        root = np.sqrt(self.exp_dissim / (1 - self.beta2**self.step))
        weights = np.abs(self.exp_avg) / (1 - self.momentum**self.step) / root[:, None]
        unlike = ((similar < self.gamma) | ~both)[:, None]
        found: Array = np.where(unlike, equalised[0] + equalised[1], (gradients * weights).sum(0))
        if self.scale == "norm":
            length = np.sqrt(np.einsum("rc,rc->r", found, found))
            found *= (norms.sum(0) / np.where(length > 0, length, 1.0))[:, None]
        return found


def run(
    method: str,
    starts: Array,
    functions: list[str],
    scales: Array,
    *,
    steps: int,
    lr: float,
    watch_every: int = 0,
    **options: Any,
) -> Mapping[str, Any]:
    """Run Adam from every start.

    Args:
        method: Of :class:`Direction`.
        starts: ``(rows, 2)``.
        functions: Problem of each row.
        scales: What the first loss of each row is multiplied by.
        steps: Number of steps.
        lr: Of Adam.
        watch_every: Keep the sums of the losses after as many steps; 0: never.
        **options: Of :class:`Direction`.

    Returns:
        ``points``, ``(rows, 2)``; ``sums`` of both losses, as stated, without the scale; and
        ``watched``, a list of steps and their sums.
    """
    sextic = np.array([name == "two" for name in functions])
    points = np.array(starts, dtype=np.float64)
    factors = np.ones((2, len(points), 1))
    factors[0, :, 0] = scales
    options.setdefault("beta2", np.array([TOY_BETA2[name] for name in functions]))
    direction = Direction(method, len(points), **options)
    first, second = np.zeros_like(points), np.zeros_like(points)
    watched: list[tuple[int, Array]] = []
    for step in range(1, steps + 1):
        losses, gradients = losses_and_gradients(points, sextic)
        if watch_every and (step - 1) % watch_every == 0:
            watched.append((step - 1, losses.sum(0)))
        g = direction(gradients * factors)
        first += (1 - _BETA1) * (g - first)
        second += (1 - _BETA2) * (g * g - second)
        root = np.sqrt(second / (1 - _BETA2**step)) + _EPS
        points -= (lr / (1 - _BETA1**step)) * first / root
    sums = losses_and_gradients(points, sextic)[0].sum(0)
    if watch_every:
        watched.append((steps, sums))
    return {"points": points, "sums": sums, "watched": watched}
