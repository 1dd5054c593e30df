"""The trap of batch normalisation: which statistics a moved network is measured with.

In train mode the loss does not change when the weights before a batch norm are scaled, so the
surface is flat along them whatever the model; in eval mode the stored statistics no longer fit the
moved weights, so it is steep for reasons that training never sees. Statistics estimated anew at
each point are what the moved network would use.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from gradworks.curvature.landscape.surfaces import LossLine, LossPlane
from gradworks.curvature.operators.surroundings import model_mode

__all__ = ["MODES", "PlaneMode", "bn_report", "norm_layers"]

PlaneMode = Literal["eval", "train", "recalibrate"]
MODES = ("eval", "train", "recalibrate")

# Above this relative difference a plane in eval mode is one of its stale statistics.
_TOLERATED = 0.10


def norm_layers(model: nn.Module) -> list[nn.Module]:
    """Layers that keep running statistics of the activations."""
    return [
        m
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._NormBase) and m.running_mean is not None
    ]


@contextmanager
def measuring(model: nn.Module, norms: list[nn.Module], *, batch: bool) -> Iterator[None]:
    """Eval mode, with batch statistics where asked for; afterwards all flags are as they were.

    Dropout stays off in every mode: it would be another function at each point.
    """
    momenta = [(m, m.momentum) for m in norms]
    with model_mode(model, "eval"):
        try:
            if batch:
                for m in model.modules():
                    if isinstance(m, nn.modules.batchnorm._NormBase):
                        m.training = True
            yield
        finally:
            for m, momentum in momenta:
                m.momentum = momentum


@contextmanager
def estimating(norms: list[nn.Module], share: float) -> Iterator[None]:
    """Statistics move towards those of the next batch by ``share``; eval mode afterwards."""
    try:
        for m in norms:
            m.training, m.momentum = True, share  # type: ignore[assignment]
        yield
    finally:
        for m in norms:
            m.training = False


def bn_report(plane_eval: LossPlane | LossLine, plane_recalibrated: LossPlane | LossLine) -> float:
    r"""How far stale batch-norm statistics bend a surface.

    .. math:: \max_{ij} \frac{|L^{eval}_{ij} - L^{rec}_{ij}|}{|L^{rec}_{ij}|}

    Args:
        plane_eval: Measured with ``mode="eval"``.
        plane_recalibrated: The same with ``mode="recalibrate"``.

    Returns:
        The largest relative difference of the points measured in both; ``inf`` where only one of
        the two is finite.

    Raises:
        ValueError: Different coordinates, or no common point.

    Warns:
        UserWarning: Above 10 %.

    Example:
        >>> import torch
        >>> from gradworks.curvature.landscape import LossPlane, bn_report
        >>> one = torch.zeros(1)
        >>> bn_report(
        ...     LossPlane(one, one, torch.tensor([[1.05]])), LossPlane(one, one, torch.ones(1, 1))
        ... )  # doctest: +ELLIPSIS
        0.0499...
    """  # noqa: DOC502
    largest = bn_difference(plane_eval, plane_recalibrated)
    if largest > _TOLERATED:
        warnings.warn(
            f"stored batch-norm statistics change the loss by up to {largest:.0%}: read the "
            "recalibrated plane",
            UserWarning,
            stacklevel=2,
        )
    return largest


def bn_difference(
    plane_eval: LossPlane | LossLine, plane_recalibrated: LossPlane | LossLine
) -> float:
    """The number of :func:`bn_report`, without its warning."""
    for axis in ("alpha", "beta"):
        a, b = getattr(plane_eval, axis, None), getattr(plane_recalibrated, axis, None)
        if (a is None) != (b is None) or (a is not None and not _equal(a, b)):
            raise ValueError(f"the two planes have different coordinates {axis}")
    stale, fresh = plane_eval.loss.double(), plane_recalibrated.loss.double()
    measured = ~(stale.isnan() | fresh.isnan())
    if not bool(measured.any()):
        raise ValueError("the two planes have no measured point in common")
    stale, fresh = stale[measured], fresh[measured]
    difference = (stale - fresh).abs() / fresh.abs().clamp_min(torch.finfo(torch.float64).tiny)
    both = stale.isinf() & fresh.isinf()
    one = stale.isinf() ^ fresh.isinf()
    difference = difference.where(~both, 0.0).where(~one, torch.inf)
    return float(difference.max())


def _equal(a: Tensor, b: Tensor | None) -> bool:
    return b is not None and a.shape == b.shape and torch.equal(a, b)
