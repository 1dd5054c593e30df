"""What one step of ARO moves a weight along: a base map in a frame that is turned towards it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gradworks.optim.aro.maps import BaseMap, to_rms
from gradworks.optim.aro.rotations import clear_noise, orthogonal_factor

__all__ = ["Direction", "Settings", "directions"]


class Settings(NamedTuple):
    """What of a group the direction depends on.

    Args:
        f: Base map; None: Adam's, which has second moments.
        rotation: How the rotation is factored.
        qr_eps: Shift of the fast factorization.
        update_rms: Root mean square of the direction; None leaves it as it comes.
        beta2: Decay of the second moments.
        eps: Added to their root.
    """

    f: BaseMap | None
    rotation: str
    qr_eps: float
    update_rms: float | None
    beta2: float
    eps: float


class Direction(NamedTuple):
    """Of each weight the direction; the new rotation, second moments; which momenta are not 0."""

    along: list[Tensor]
    rotation: Tensor
    second: Tensor | None
    moves: list[Tensor]


def directions(
    momenta: list[Tensor],
    R: Tensor,
    V: Tensor | None,
    settings: Settings,
    due: bool | Tensor,
) -> Direction:
    """Turn the frame, apply the base map in the new one, and scale.

    Args:
        momenta: Matrices (..., m, n) that share a rotation: one, or all of a layer.
        R: Their rotation (..., m, m).
        V: Second moments of the one, in rotated coordinates, or None.
        settings: Of the group.
        due: Whether the frame is turned in this step.

    Returns:
        Direction.
    """
    M = momenta[0] if len(momenta) == 1 else torch.cat(momenta, -1)
    if due is not False:
        new = _turned(M, R, V, settings)
        R = new if due is True else torch.where(due, new, R)
    moves = [(one != 0).any(-1).any(-1)[..., None, None] for one in momenta]
    X = clear_noise(R.mT @ M)
    if V is None:
        parts = (
            [X]
            if len(momenta) == 1
            else list(torch.split(X, [one.shape[-1] for one in momenta], -1))
        )
        mapped = [_map(settings)(part) for part in parts]
    else:
        V = torch.where(moves[0], _second(V, X, settings), V)
        mapped = [X / (V.sqrt() + settings.eps)]
    along = [torch.where(move, R @ part, 0.0) for part, move in zip(mapped, moves)]
    if settings.update_rms is not None:
        along = [to_rms(one, settings.update_rms) for one in along]
    return Direction(along, R, V, moves)


def _map(settings: Settings) -> BaseMap:
    """The map of a group that has one."""
    if settings.f is None:
        raise TypeError("Adam's map needs second moments")
    return settings.f


def _turned(M: Tensor, R: Tensor, V: Tensor | None, settings: Settings) -> Tensor:
    """The frame turned once; second moments look ahead in the old frame, and are not kept."""
    X = clear_noise(R.mT @ M)
    mapped = _map(settings)(X) if V is None else X / (_second(V, X, settings).sqrt() + settings.eps)
    return orthogonal_factor(M @ mapped.mT, R, settings.rotation, settings.qr_eps)


def _second(V: Tensor, X: Tensor, settings: Settings) -> Tensor:
    """Second moments a step on."""
    return V * settings.beta2 + (1 - settings.beta2) * X * X
