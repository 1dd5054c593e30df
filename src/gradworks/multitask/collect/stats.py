"""What one backward pass of several losses saw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["AggregationStats", "implied_weights"]


@dataclass(frozen=True)
class AggregationStats:
    """What one backward pass saw.

    Attributes:
        tasks: Names of the tasks.
        norms: Norm of each task's gradient in the shared parameters, ``(tasks,)``.
        unreached: Tasks without a gradient there: their row is zero.
        losses: Values of the losses, ``(tasks,)``; their mean over all processes.
        skipped: Whether a row was not finite and the gradient scaler will skip the step.
        non_finite: Names of those tasks.
        gramian: Inner products of the task gradients, ``(tasks, tasks)``; None unless asked for.
        weights: Weights whose weighted sum of the task gradients comes closest to the direction
            that was written (least squares), ``(tasks,)``; None unless asked for.
    """

    tasks: tuple[str, ...]
    norms: Tensor
    unreached: tuple[str, ...]
    losses: Tensor
    skipped: bool = False
    non_finite: tuple[str, ...] = ()
    gramian: Tensor | None = None
    weights: Tensor | None = None

    def cosines(self) -> Tensor:
        """Return the cosine of each pair of task gradients, ``(tasks, tasks)``.

        Returns:
            Numbers in [-1, 1]; 0 where a gradient is zero.

        Raises:
            RuntimeError: If the pass ran without ``statistics=True``.
        """
        if self.gramian is None:
            raise RuntimeError("no inner products were kept; call backward with statistics=True")
        norms = self.gramian.diagonal().clamp_min(0).sqrt()
        product = norms[:, None] * norms[None, :]
        zero = torch.zeros_like(product)
        return torch.where(product > 0, self.gramian / product, zero).clamp(-1, 1)


def implied_weights(gramian: Tensor, inner: Tensor) -> Tensor:
    """Least-squares weights of the rows in a direction, the smallest where rows depend.

    Args:
        gramian: Inner products of the rows, ``(tasks, tasks)``.
        inner: Inner products of the rows with the direction, ``(tasks,)``.

    Returns:
        ``(tasks,)``; 0 for a zero row.
    """
    norms = gramian.diagonal().clamp_min(0).sqrt()
    # rows brought to length 1 first: losses of unlike scale would ruin the condition number
    inverse = torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))
    cosines = gramian * inverse[:, None] * inverse[None, :]
    solved: Tensor = torch.linalg.pinv(cosines, hermitian=True) @ (inner * inverse)
    return solved * inverse
