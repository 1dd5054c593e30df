"""The map on the front page: contour lines of a surface, and a descent with a mark a paper.

The trail is gradient descent with momentum on a sum of Gaussian hills; papers stand on it in the
order they appeared, the oldest highest. The drawing needs contourpy, which comes with matplotlib.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Map", "draw"]

WIDTH, HEIGHT = 560, 400

# Height, centre (x, y), width (x, y) of each hill; negative ones are valleys. Pixels.
_HILLS = (
    (1.00, 40.0, 30.0, 100.0, 80.0),
    (0.90, 300.0, 40.0, 90.0, 62.0),
    (0.75, 560.0, 70.0, 80.0, 110.0),
    (0.85, 40.0, 285.0, 85.0, 85.0),
    (0.95, 318.0, 200.0, 70.0, 52.0),
    (0.60, 150.0, 430.0, 120.0, 55.0),
    (-0.18, 165.0, 135.0, 60.0, 60.0),
    (-0.42, 205.0, 300.0, 75.0, 60.0),
    (-1.25, 470.0, 300.0, 100.0, 72.0),
    (-0.30, 390.0, 130.0, 60.0, 50.0),
)
_TILT = (-0.0005, -0.0006)  # of the whole land, so that the way leads to the last valley
_START = (72.0, 50.0)
_MOMENTUM, _RATE = 0.96, 6.0
_LEVELS = 18

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Map:
    """What the template draws.

    Attributes:
        contours: SVG path data, one a level, from low to high.
        trail: SVG path data of the descent.
        points: Places on the trail, ``(x, y)``, the first at the start.
    """

    contours: tuple[str, ...]
    trail: str
    points: tuple[tuple[float, float], ...]


def _height(x: Any, y: Any) -> Any:
    return (
        _TILT[0] * x
        + _TILT[1] * y
        + sum(
            h * np.exp(-0.5 * (((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2))
            for h, cx, cy, sx, sy in _HILLS
        )
    )


def _slope(x: float, y: float) -> tuple[float, float]:
    """The gradient of the height."""
    gx, gy = _TILT
    for h, cx, cy, sx, sy in _HILLS:
        value = h * float(np.exp(-0.5 * (((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2)))
        gx -= value * (x - cx) / sx**2
        gy -= value * (y - cy) / sy**2
    return gx, gy


@lru_cache(maxsize=1)
def _descent() -> Array:
    """The way down, ``(steps, 2)``."""
    x, y = _START
    vx = vy = 0.0
    way = [(x, y)]
    for _ in range(4000):
        gx, gy = _slope(x, y)
        vx, vy = _MOMENTUM * vx - _RATE * gx, _MOMENTUM * vy - _RATE * gy
        x, y = x + vx, y + vy
        way.append((x, y))
        if abs(vx) + abs(vy) < 0.02 and len(way) > 100:
            break
    return np.array(way)


def draw(count: int) -> Map:
    """Return the map with ``count`` places along the trail at equal distances.

    Args:
        count: At least 0.

    Example:
        >>> len(draw(28).points)
        28
    """
    way = _descent()
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(way, axis=0).T))])
    at = np.linspace(0.0, length[-1], max(count, 1))
    xs, ys = np.interp(at, length, way[:, 0]), np.interp(at, length, way[:, 1])
    points = tuple((round(float(x), 1), round(float(y), 1)) for x, y in zip(xs, ys))
    return Map(_contours(), _path(way[:: max(1, len(way) // 160)]), points[:count])


@lru_cache(maxsize=1)
def _contours() -> tuple[str, ...]:
    from contourpy import contour_generator

    margin = 24
    x = np.linspace(-margin, WIDTH + margin, 100)
    y = np.linspace(-margin, HEIGHT + margin, 72)
    z = _height(x[None, :], y[:, None])
    generator = contour_generator(x, y, z)
    levels = np.linspace(float(z.min()), float(z.max()), _LEVELS + 2)[1:-1]
    return tuple(
        "".join(_path(np.asarray(line)) for line in generator.lines(float(level)))
        for level in levels
    )


def _path(line: Array) -> str:
    """SVG path data of a line, thinned to points that show."""
    kept = [line[0]]
    for point in line[1:-1]:
        if np.hypot(*(point - kept[-1])) >= 5.0:
            kept.append(point)
    kept.append(line[-1])
    return "M" + "L".join(f"{p[0]:.0f} {p[1]:.0f}" for p in kept)
