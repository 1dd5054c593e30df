"""Training rows of many folds, and of many data sets, as one padded stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["FoldStack", "join_stacks", "stack_folds"]


@dataclass(frozen=True)
class FoldStack:
    """Training parts of several folds, padded to one length.

    Args:
        X: Standardised features (folds, rows, features).
        y: Labels in {0, 1}, (folds, rows).
        weight: Sample weights (folds, rows), 0 in the padding.
        mean: What was subtracted, (folds, 1, features).
        scale: What was divided by, (folds, 1, features).
    """

    X: Tensor
    y: Tensor
    weight: Tensor
    mean: Tensor
    scale: Tensor

    def transform(self, X: np.ndarray | Tensor) -> Tensor:
        """Standardise the same rows as each fold saw its own.

        Args:
            X: Features (rows, features).

        Returns:
            Tensor (folds, rows, features), ready for ``BatchedNet.logits``.
        """
        return (_tensor(X, self.X.dtype, self.X.device) - self.mean) / self.scale


def _tensor(
    values: np.ndarray | Tensor, dtype: torch.dtype, device: torch.device | str | None
) -> Tensor:
    """Copy to a tensor; arrays may be read-only, which torch warns about."""
    if isinstance(values, Tensor):
        return values.to(device=device, dtype=dtype)
    return torch.from_numpy(np.array(values)).to(device=device, dtype=dtype)


def join_stacks(stacks: Sequence[FoldStack]) -> FoldStack:
    """Put the folds of several data sets into one stack, to train them all in the same program.

    Shorter folds are padded with rows of weight 0, narrower ones with columns of 0, whose weights
    stay 0. Join sets of similar size: padding is computed and thrown away.

    Args:
        stacks: Stacks of one dtype and device.

    Returns:
        One stack with the folds of all, in order.

    Raises:
        ValueError: If there is nothing to join.

    Example:
        >>> one = stack_folds(np.eye(4), np.array([0, 1, 0, 1]), [np.arange(3)])
        >>> two = stack_folds(np.eye(5)[:, :2], np.array([0, 1, 0, 1, 1]), [np.arange(5)])
        >>> tuple(join_stacks([one, two]).X.shape)
        (2, 5, 4)
    """
    if not stacks:
        raise ValueError("stacks must hold at least one FoldStack")
    rows = max(s.X.shape[1] for s in stacks)
    width = max(s.X.shape[2] for s in stacks)

    def padded(tensor: Tensor, right: int, below: int, value: float = 0.0) -> Tensor:
        """Grow the last two dimensions."""
        return F.pad(tensor, (0, right, 0, below), value=value)

    parts = []
    for s in stacks:
        right, below = width - s.X.shape[2], rows - s.X.shape[1]
        parts.append(
            (
                padded(s.X, right, below),
                F.pad(s.y, (0, below)),
                F.pad(s.weight, (0, below)),
                padded(s.mean, right, 0),
                padded(s.scale, right, 0, 1.0),
            )
        )
    return FoldStack(*(torch.cat(tensors) for tensors in zip(*parts)))


def stack_folds(
    X: np.ndarray | Tensor,
    y: np.ndarray | Tensor,
    folds: Sequence[np.ndarray],
    *,
    sample_weight: np.ndarray | Tensor | None = None,
    standardize: bool = True,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> FoldStack:
    """Put the training rows of several folds into one stack, each standardised on its own rows.

    Args:
        X: Features (samples, features).
        y: Labels in {0, 1}, (samples,).
        folds: Row indices of each fold's training part; lengths may differ.
        sample_weight: Weights >= 0, (samples,), or ``None`` for ones.
        standardize: Subtract the fold's weighted mean and divide by its standard deviation
            (population form; constant features are left at their scale).
        dtype: Of the result; float64.
        device: Of the result; CPU.

    Returns:
        The stack.

    Raises:
        ValueError: If there are no folds, or a fold is empty or without weight.

    Example:
        >>> stack = stack_folds(np.eye(4), np.array([0, 1, 0, 1]), [np.arange(3), np.arange(2, 4)])
        >>> tuple(stack.X.shape), stack.weight.tolist()
        ((2, 3, 4), [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    """
    if not folds or min(len(rows) for rows in folds) == 0:
        raise ValueError("folds must hold at least one non-empty array of row indices")
    data, label = _tensor(X, dtype, device), _tensor(y, dtype, device)
    weight = torch.ones_like(label)
    if sample_weight is not None:
        weight = _tensor(sample_weight, dtype, device)
    longest = max(len(rows) for rows in folds)
    index = torch.zeros(len(folds), longest, dtype=torch.int64)
    own = torch.zeros(len(folds), longest, dtype=dtype)
    for i, rows in enumerate(folds):
        index[i, : len(rows)] = torch.as_tensor(rows, dtype=torch.int64)
        own[i, : len(rows)] = 1.0
    index, own = index.to(data.device), own.to(data.device)
    stacked, w = data[index], weight[index] * own
    bare = (~(w.sum(1) > 0.0)).nonzero().flatten().tolist()
    if bare:
        raise ValueError(f"sample_weight is 0 for every row of folds {bare[:3]}: nothing to learn")
    mean = torch.zeros_like(stacked[:, :1])
    scale = torch.ones_like(mean)
    if standardize:
        share = (w / w.sum(1, keepdim=True)).unsqueeze(2)
        mean = (share * stacked).sum(1, keepdim=True)
        deviation = (share * (stacked - mean) ** 2).sum(1, keepdim=True).sqrt()
        noise = torch.finfo(dtype).eps * mean.abs() * 10.0
        scale = torch.where(deviation > noise, deviation, 1.0)
    return FoldStack((stacked - mean) / scale, label[index], w, mean, scale)
