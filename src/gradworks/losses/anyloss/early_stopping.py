"""Early stopping on the metric of held-out rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gradworks.losses.anyloss.baselines import hard_confusion
from gradworks.losses.anyloss.metrics import MetricFn
from gradworks.losses.anyloss.network import BatchedNet

__all__ = ["Watch"]


class Watch:
    """The metric on held-out rows after every epoch, and the best models so far.

    Args:
        metric: Function of a ``Confusion``; larger is better.
        patience: Epochs without a rise after which to stop.
        X: Held-out features (1, rows, features).
        target: Their labels (variants, rows).
        weight: Their weights (rows,).
    """

    def __init__(
        self, metric: MetricFn, patience: int, X: Tensor, target: Tensor, weight: np.ndarray
    ) -> None:
        self._X, self._target = X, target
        self._weight = torch.as_tensor(weight, dtype=X.dtype, device=X.device)
        self._metric = metric
        self._patience = patience
        self.scores: list[float] = []
        self.best: BatchedNet | None = None
        self._best_epoch = -1

    def __call__(self, epoch: int, net: BatchedNet) -> bool:
        """Take the models of an epoch.

        Args:
            epoch: Number of the epoch, from 0.
            net: The models after it.

        Returns:
            Whether to stop.
        """
        confusion = hard_confusion(net.logits(self._X)[0], self._target, self._weight)
        score = float(self._metric(confusion).mean())
        if not self.scores or score > max(self.scores):
            self.best, self._best_epoch = net.clone(), epoch
        self.scores.append(score)
        return epoch - self._best_epoch >= self._patience
