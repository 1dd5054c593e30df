"""GCond on vectors, as the paper's code goes about it: slow, and what the fast path is held to.

Every round reads all gradients again, for every pair. Tests compare :class:`GCond` with it and the
benchmark takes it as the peer; nothing else uses it. Written from the description of the method;
the authors' code keeps bfloat16, this keeps the dtype of the gradients.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["VectorGCond"]

# Defaults of the authors' code; conflict_tol is ours (0 there).
DEFAULTS: dict[str, Any] = {
    "thresholds": (-0.8, -0.5, 0.0),
    "remap_power": 2.0,
    "smooth": True,
    "max_iters": None,
    "norm_cap": None,
    "momentum": 0.85,
    "lion": False,
    "trust_coef": 1e-4,
    "trust_clip": 100.0,
    "dominance_window": 3,
    "tie_weights": (0.8, 0.2),
    "norm_beta": 0.95,
    "return_raw": False,
    "conflict_tol": 1e-6,
    "eps": 1e-8,
}


class VectorGCond:
    """The authors' arithmetic on whole vectors.

    Args:
        **options: As for ``GCond``; those that are ours alone are unknown here.

    Raises:
        TypeError: If an option is unknown.

    Example:
        >>> import torch
        >>> from gradworks.multitask.gcond.reference import VectorGCond
        >>> VectorGCond()(torch.tensor([[1.0, 0.0], [-1.0, 1.0]]))
        tensor([0.2326, 1.5000])
    """

    def __init__(self, **options: Any) -> None:
        unknown = sorted(set(options) - set(DEFAULTS))
        if unknown:
            raise TypeError(f"unknown options {unknown}; known are {sorted(DEFAULTS)}")
        self.options = {**DEFAULTS, **options}
        self.history: deque[int] = deque(maxlen=self.options["dominance_window"])
        self.previous: list[Tensor] = []
        self.average = torch.zeros(())
        self.emas: list[float] = []
        self.step = self.rounds = 0

    @torch.no_grad()
    def __call__(
        self, jacobian: Tensor, parameters: Sequence[Tensor] = (), *, overwrite: bool = False
    ) -> Tensor:
        """Return the direction, ``(params,)``.

        Args:
            jacobian: ``(tasks, params)``.
            parameters: For ``lion``: in the order of the columns.
            overwrite: Resolve in the rows and keep them as the gradients before, as the authors do.
        """
        options, beta = self.options, self.options["momentum"]
        grads: list[Tensor] = [row if overwrite else row.clone() for row in jacobian]
        if not self.previous:
            self.previous = [torch.zeros_like(grad) for grad in grads]
            self.average = torch.zeros_like(grads[0])
            self.emas = [1.0] * len(grads)
        self.rounds = 0
        if len(grads) > 1:
            self._measure(grads)
            self._resolve(grads)
        total = grads[0].clone()
        for grad in grads[1:]:
            total += grad
        self.step += 1
        self.previous = grads
        self.average.mul_(beta).add_(total, alpha=1 - beta)
        if options["return_raw"]:
            return total
        corrected: Tensor = self.average / (1 - beta**self.step)
        return self._lion(corrected, parameters) if options["lion"] else corrected

    def _measure(self, grads: list[Tensor]) -> None:
        """Running averages of the norms, then the cut."""
        cap, decay, eps = (self.options[key] for key in ("norm_cap", "norm_beta", "eps"))
        for k, grad in enumerate(grads):
            norm = float(grad.norm())
            self.emas[k] = max(decay * self.emas[k] + (1 - decay) * norm, eps)
            if cap is not None and norm > cap:
                grad *= cap / (norm + eps)

    def _resolve(self, grads: list[Tensor]) -> None:
        """Rounds, until no pair conflicts."""
        for _ in range(self.options["max_iters"] or 2 * len(grads)):
            found = self._worst(grads)
            if found is None:
                return
            self.rounds += 1
            if self.options["smooth"]:
                self._smooth(grads, *found)
            else:
                self._zones(grads, *found)

    def _worst(self, grads: list[Tensor]) -> tuple[int, int, float] | None:
        """The pair of the smallest cosine below the weak threshold."""
        eps = self.options["eps"]
        least = self.options["thresholds"][2] - self.options["conflict_tol"]
        pair = None
        for i, first in enumerate(grads):
            for j in range(i + 1, len(grads)):
                squares = float(first @ first), float(grads[j] @ grads[j])
                if min(squares) < eps:
                    continue
                cosine = float(first @ grads[j]) / (math.sqrt(squares[0] * squares[1]) + eps)
                if cosine < least:
                    least, pair = cosine, (i, j)
        return None if pair is None else (*pair, least)

    def _smooth(self, grads: list[Tensor], i: int, j: int, cosine: float) -> None:
        """Both give way by shares that depend on the angle."""
        eps = self.options["eps"]
        winner, loser = self._arbitrate(grads, i, j)
        w, x = grads[winner], grads[loser]
        angle = self._angle(max(-1.0, min(1.0, cosine)))
        inner = float(w @ x)
        to_w = -math.sin(angle) * inner / (float(x @ x) + eps)
        to_l = -math.sin(min(angle, math.pi / 2)) * inner / (float(w @ w) + eps)
        change_w, change_x = x.mul(to_w), w.mul(to_l)
        w.add_(change_w)
        x.add_(change_x)

    def _zones(self, grads: list[Tensor], i: int, j: int, cosine: float) -> None:
        """The loser goes, or is projected, or both are."""
        critical, main, _ = self.options["thresholds"]
        eps = self.options["eps"]
        if cosine >= main:
            a, b = grads[i], grads[j]
            # of the cosine, whose eps is thereby in the projection
            inner = cosine * math.sqrt(float(a @ a) * float(b @ b))
            to_a, to_b = -inner / (float(b @ b) + eps), -inner / (float(a @ a) + eps)
            change_a = b.mul(to_a)
            b.add_(a, alpha=to_b)
            a.add_(change_a)
            return
        winner, loser = self._arbitrate(grads, i, j)
        w, x = grads[winner], grads[loser]
        if cosine < critical:
            x.zero_()
        else:
            x.add_(w, alpha=-float(w @ x) / (float(w @ w) + eps))

    def _angle(self, cosine: float) -> float:
        """The effective angle."""
        eps: float = self.options["eps"]
        critical, main, weak = map(float, self.options["thresholds"])
        half = math.pi / 2
        if cosine >= main:
            return half * (1 - min(1.0, max(0.0, (cosine - main) / (weak - main + eps))))
        if cosine <= critical:
            return math.pi
        share = (cosine - main) / (critical - main + eps)
        return half + half * float(share ** self.options["remap_power"])

    def _arbitrate(self, grads: list[Tensor], i: int, j: int) -> tuple[int, int]:
        """Winner and loser; a dominant winner gives way."""
        eps, window = self.options["eps"], self.options["dominance_window"]
        full = len(self.history) == window > 0
        i_rules, j_rules = (full and self.history.count(task) == window for task in (i, j))
        norms = {task: float(grads[task].norm()) for task in (i, j)}
        if i_rules != j_rules:
            winner = j if i_rules else i
        else:
            stable, strong = self.options["tie_weights"]
            z = {task: norms[task] / (self.emas[task] + eps) for task in (i, j)}
            scores = {}
            for task in (i, j):
                before = self.previous[task]
                product = norms[task] * float(before.norm()) + eps
                cosine = float(grads[task] @ before) / product
                strength = z[task] / (z[i] + z[j] + eps)
                scores[task] = stable * max(0.0, cosine) + strong * strength
            winner = j if scores[j] > scores[i] else i
        self.history.append(winner)
        return winner, i + j - winner

    def _lion(self, corrected: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """The sign, as long as a trust ratio says, tensor by tensor."""
        eps, clip, coef = (self.options[key] for key in ("eps", "trust_clip", "trust_coef"))
        parts = []
        for param, part in zip(
            parameters, torch.split(corrected, [p.numel() for p in parameters]), strict=True
        ):
            norms = float(param.norm()), float(part.norm())
            ratio = 1.0 if min(norms) < eps else norms[0] / norms[1]
            parts.append(part.sign() * min(ratio, clip) * coef)
        return torch.cat(parts)
