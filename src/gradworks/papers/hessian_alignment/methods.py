"""The penalty of each method, as the authors' code weighs its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradworks.curvature.alignment import (
    HGPAlignment,
    HutchinsonAlignment,
    MovingAverage,
    coral_penalty,
    domain_losses,
    fishr_penalty,
    iga_penalty,
    irm_penalty,
    vrex_penalty,
)

__all__ = ["Penalty"]

_Lists = Sequence[Tensor]


class Penalty:
    """What a method adds to the mean loss, before it is weighed.

    Args:
        method: Its name; plain training and Fish add nothing.
        spec: ``curvature`` over gradient for each alignment, ``reduction`` and ``detach_mean`` of
            the alignments; ``batch`` is None where a step sees all rows, and then the halves of IRM
            and the moving average of Fishr, which are for small batches, are left out.
        params: Of the whole network, for IGA.

    Attributes:
        active: Whether there is a penalty.
    """

    def __init__(self, method: str, spec: Mapping[str, Any], params: Sequence[Tensor]) -> None:
        sampled = spec.get("batch") is not None
        aligned = {"hgp": HGPAlignment, "hutchinson": HutchinsonAlignment}
        average = MovingAverage(0.95) if sampled else None
        made: dict[str, Callable[[_Lists, _Lists, _Lists], Tensor]] = {
            "irm": lambda z, a, y: irm_penalty(a, y, halves=sampled),
            "vrex": lambda z, a, y: vrex_penalty(domain_losses(a, y)),
            "coral": lambda z, a, y: coral_penalty(z),
            "iga": lambda z, a, y: iga_penalty(domain_losses(a, y), params),
            "fishr": lambda z, a, y: fishr_penalty(z, a, y, ema=average),
        }
        if method in aligned:
            align = aligned[method](
                float(spec["curvature"][method]),
                1.0,
                reduction=spec["reduction"],
                detach_mean=bool(spec["detach_mean"]),
            )
            made[method] = lambda z, a, y: align(z, a, y).total
        self._penalty = made.get(method)
        self.active = self._penalty is not None

    def __call__(self, features: _Lists, logits: _Lists, targets: _Lists) -> Tensor:
        """Return the penalty of one batch of every domain.

        Args:
            features: ``(n_e, d)`` for each domain.
            logits: ``(n_e, C)`` for each domain.
            targets: ``(n_e,)`` for each domain.
        """
        if self._penalty is None:
            return torch.zeros(())
        return self._penalty(features, logits, targets)
