"""How task gradients conflict, by pairs: angles, lengths, and the bound on curvature."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradworks.multitask.aggregator import Aggregator, gramian_of, row_norms

__all__ = ["ConflictStatistics", "conflict_statistics", "magnitude_similarity", "similarities_of"]

# Units of the last place by which the inner products of opposite rows miss their squared norms.
ROUNDING = 32


def magnitude_similarity(norms: Tensor) -> Tensor:
    r"""Pairwise similarity of gradient norms, :math:`2 n_i n_j / (n_i^2 + n_j^2)`.

    Args:
        norms: At least 0, ``(tasks,)``.

    Returns:
        Symmetric ``(tasks, tasks)`` in [0, 1] with diagonal 1; two zero norms are alike.

    Raises:
        TypeError: If ``norms`` is not a floating tensor.
        ValueError: If it is not 1-D or holds a negative number.

    Example:
        >>> import torch
        >>> from gradworks.multitask.sam_gs import magnitude_similarity
        >>> magnitude_similarity(torch.tensor([1.0, 2.0]))
        tensor([[1.0000, 0.8000],
                [0.8000, 1.0000]])
    """
    if not isinstance(norms, Tensor) or not norms.is_floating_point():
        raise TypeError("norms must be a floating tensor")
    if norms.dim() != 1:
        raise ValueError(f"norms must be 1-D, got shape {tuple(norms.shape)}")
    if bool((norms < 0).any()):
        raise ValueError("norms must be at least 0")
    low = torch.minimum(norms[:, None], norms[None, :])
    high = torch.maximum(norms[:, None], norms[None, :])
    ratio = torch.where(high == 0, torch.ones_like(high), low / high)  # squares never overflow
    return 2 * ratio / (1 + ratio.square())


def similarities_of(norms: NDArray[np.float64], reduction: str) -> list[float]:
    """Mean (or least) similarity over pairs, on the host.

    Args:
        norms: ``(blocks, tasks)``.
        reduction: ``"mean"`` or ``"min"``.

    Returns:
        One number a block. Zeros take no part; without a pair it is 1.
    """
    i, j = np.triu_indices(norms.shape[1], 1)
    a, b = norms[:, i], norms[:, j]
    counted = (a > 0) & (b > 0)
    ratio = np.divide(np.minimum(a, b), np.maximum(a, b), out=np.ones_like(a), where=counted)
    pairs = 2 * ratio / (1 + ratio * ratio)
    if reduction == "min":
        return [float(x) for x in pairs.min(1, initial=1.0)]
    count = counted.sum(1)
    total = np.where(counted, pairs, 0.0).sum(1)
    return [float(x / n) if n else 1.0 for x, n in zip(total, count)]


class ConflictStatistics(NamedTuple):
    """The three pairwise quantities that the field plots, each ``(tasks, tasks)``.

    Attributes:
        cosine: Cosine of the angle; below 0 is a conflict.
        magnitude: Magnitude similarity.
        curvature_bound: See :func:`conflict_statistics`.
    """

    cosine: Tensor
    magnitude: Tensor
    curvature_bound: Tensor


def conflict_statistics(jacobian: Tensor) -> ConflictStatistics:
    r"""How task gradients conflict: angles, lengths, and the bound on curvature.

    .. math:: \xi_{ij} = (1 - \cos^2_{ij}) \, \frac{\lVert g_i - g_j \rVert^2}
        {\lVert g_i + g_j \rVert^2}

    Args:
        jacobian: Gradients of the tasks, ``(tasks, params)``.

    Returns:
        Cosines, magnitude similarities and :math:`\xi`, at least in float32. A pair with a zero
        gradient has cosine 0; opposite gradients have :math:`\xi = 0`.

    Raises:
        TypeError: If it is not of a floating dtype.
        ValueError: If it is not 2-D.

    Example:
        >>> import torch
        >>> from gradworks.multitask.sam_gs import conflict_statistics
        >>> conflict_statistics(torch.eye(2)).curvature_bound
        tensor([[0., 1.],
                [1., 0.]])
    """  # noqa: DOC502
    Aggregator.check(jacobian)
    rows = jacobian.detach()
    gramian, norms = gramian_of(rows), row_norms(rows)
    product = norms[:, None] * norms[None, :]
    zero = torch.zeros_like(gramian)
    cosine = torch.where(product == 0, zero, gramian / product).clamp(-1, 1)
    squares = norms.square()[:, None] + norms.square()[None, :]
    apart, together = squares - 2 * gramian, squares + 2 * gramian
    sine = 1 - cosine.square()
    rounding = ROUNDING * torch.finfo(squares.dtype).eps * squares
    bound = torch.where(together <= rounding, zero, sine * apart / together)
    return ConflictStatistics(cosine, magnitude_similarity(norms), bound.clamp_min(0))
