"""Where a surface is measured: centred grids, and the authors' shifted one for comparison."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradworks.curvature.probes import check_count

__all__ = ["centered_grid", "legacy_grid"]

POINTS = 41


def check_axis(name: str, values: object) -> Tensor:
    """A vector of finite coordinates in float64 on the CPU."""
    found = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    if found.dim() != 1:
        raise ValueError(f"{name} must be a vector, got shape {tuple(found.shape)}")
    if found.numel() == 0:
        raise ValueError(f"{name} is empty; give at least one coordinate")
    if not bool(torch.isfinite(found).all()):
        raise ValueError(f"{name} must be finite")
    return found


def centered_grid(points: int = POINTS, distance: float = 1.0) -> Tensor:
    """Coordinates from ``-distance`` to ``distance``; an odd number has 0 among them.

    Args:
        points: How many. Default 41.
        distance: Half the width, positive.

    Returns:
        ``(points,)``, float64.

    Raises:
        ValueError: ``points`` below 1 or ``distance`` not positive and finite.

    Example:
        >>> from gradworks.curvature.landscape import centered_grid
        >>> centered_grid(5, 2.0).tolist()
        [-2.0, -1.0, 0.0, 1.0, 2.0]
    """
    check_count("points", points)
    if not (distance > 0 and math.isfinite(distance)):
        raise ValueError(f"distance must be positive and finite, got {distance!r}")
    if points == 1:
        return torch.zeros(1, dtype=torch.float64)
    steps = torch.arange(points, dtype=torch.float64) * 2 - (points - 1)
    return steps * (distance / (points - 1))


def legacy_grid(steps: int, distance: float = 1.0) -> tuple[Tensor, Tensor]:
    r"""The coordinates at which the authors' code (and loss-landscapes) measures.

    Row i has :math:`\alpha_i = (i/S - 1/2)`; its columns have :math:`\beta_{ij} = (j+1)/S - 1/2`
    in even rows and :math:`j/S - 1/2` in odd ones, all times ``distance``: the walk turns at the
    end of a row and steps before it measures. The centre is not a point of every such grid.

    Args:
        steps: S.
        distance: The whole width, not half of it.

    Returns:
        ``alpha (S,)`` and ``beta (S, S)``, float64; :func:`loss_plane` takes both.

    Raises:
        ValueError: ``steps`` below 1 or ``distance`` not positive and finite.

    Example:
        >>> from gradworks.curvature.landscape import legacy_grid
        >>> alpha, beta = legacy_grid(2)
        >>> alpha.tolist(), beta.tolist()
        ([-0.5, 0.0], [[0.0, 0.5], [-0.5, 0.0]])
    """
    check_count("steps", steps)
    if not (distance > 0 and math.isfinite(distance)):
        raise ValueError(f"distance must be positive and finite, got {distance!r}")
    at = torch.arange(steps, dtype=torch.float64)
    even = (at % 2 == 0).double()[:, None]
    return (at / steps - 0.5) * distance, ((at + even) / steps - 0.5) * distance
