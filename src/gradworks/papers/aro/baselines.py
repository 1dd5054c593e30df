"""What ARO is compared with on hidden matrices: other frames for its map, and SOAP.

All leave embeddings, the last layer and vectors to AdamW at a rate of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradworks.bench.muon import MuonWithAdamW
from gradworks.optim import ARO
from gradworks.optim.aro.layout import Layout, orient, unorient
from gradworks.optim.aro.maps import base_map, to_rms
from gradworks.optim.aro.rotations import clear_noise, orthogonal_factor, signed_qr

__all__ = ["SOAP", "FixedFrame", "RotatedARO", "eigenbasis"]

_REST = 3e-3  # AdamW's rate of what is no hidden matrix


class RotatedARO(ARO):
    """ARO on hidden matrices, AdamW at a rate of its own on the rest."""

    rest_of_model: ClassVar[Mapping[str, Any]] = {"algorithm": "adamw", "lr": _REST}


def eigenbasis(M: Tensor) -> Tensor:
    """The eigenvectors of M M^T, those of large values first."""
    vectors: Tensor = torch.linalg.eigh(M @ M.mT).eigenvectors
    return vectors.flip(-1)


class FixedFrame(MuonWithAdamW):
    """ARO's maps in a frame that does not look at the map.

    Args:
        params: Parameters or groups.
        lr: Step of matrices.
        base: "sinkhorn" or "sign".
        frame: "none": the matrix's own coordinates; "eigen": one step of orthogonal iteration
            towards the eigenvectors of M M^T, as ARO's rotation is one step.
        **settings: As for :class:`gradworks.bench.muon.MuonWithAdamW`.
    """

    def __init__(
        self, params: Any, lr: float = 0.01, *, base: str, frame: str, **settings: Any
    ) -> None:
        self._map, self._frame = base_map(base, 5, "simultaneous"), frame
        super().__init__(params, lr, **settings)

    def _of_matrices(self, matrices: list[Tensor], group: dict[str, Any]) -> Optimizer:
        """The map in its frame."""

        def direction(G: Tensor, state: dict[str, Any]) -> Tensor:
            if not state:
                state["momentum"] = torch.zeros_like(G)
                state["rotation"] = torch.eye(G.shape[0], dtype=G.dtype, device=G.device)
            M, R = state["momentum"].lerp_(G, 1 - group["momentum"]), state["rotation"]
            if self._frame == "eigen":
                R.copy_(orthogonal_factor(M @ (M.mT @ R), R, "qr", 1e-6))
            return to_rms(R @ self._map(clear_noise(R.mT @ M)), 0.2)

        return _Oriented(matrices, group, direction)


class SOAP(MuonWithAdamW):
    """AdamW in the eigenbases of both second moments, re-expressed from its published update.

    Bases by one step of orthogonal iteration whenever they are renewed; the first gradient makes
    them and steps nothing. Second moments are not moved into a new basis.

    Args:
        params: Parameters or groups.
        lr: Step of matrices.
        betas: Decay of the moments; the second also of the matrices whose bases are taken.
        eps: Added to the denominator.
        gap: Steps from basis to basis.
        **settings: As for :class:`gradworks.bench.muon.MuonWithAdamW`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 3e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        gap: int = 10,
        **settings: Any,
    ) -> None:
        self._betas, self._eps, self._gap = betas, eps, gap
        super().__init__(params, lr, **settings)

    def _of_matrices(self, matrices: list[Tensor], group: dict[str, Any]) -> Optimizer:
        """Both bases."""
        return _Oriented(matrices, group, self._direction)

    def _direction(self, G: Tensor, state: dict[str, Any]) -> Tensor:
        """Adam's step in the bases as they were, then bases renewed."""
        (b1, b2), first = self._betas, not state
        if first:
            for name, n in zip(("left", "right"), G.shape, strict=True):
                state[name] = torch.zeros(n, n, dtype=G.dtype, device=G.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(G), torch.zeros_like(G)
            state["count"] = torch.zeros((), dtype=torch.int64)
        state["left"].lerp_(G @ G.mT, 1 - b2)
        state["right"].lerp_(G.mT @ G, 1 - b2)
        if first:
            state["left_basis"] = eigenbasis(G)
            state["right_basis"] = eigenbasis(G.mT)
            return torch.zeros_like(G)
        state["count"] += 1
        t = int(state["count"])
        P, Q = state["left_basis"], state["right_basis"]
        turned = P.mT @ G @ Q
        state["exp_avg"].lerp_(G, 1 - b1)
        state["exp_avg_sq"].lerp_(turned.square(), 1 - b2)
        denominator = (state["exp_avg_sq"] / (1 - b2**t)).sqrt() + self._eps
        step: Tensor = P @ ((P.mT @ state["exp_avg"] @ Q) / denominator) @ Q.mT / (1 - b1**t)
        if t % self._gap == 0:
            state["left_basis"] = signed_qr(state["left"] @ P)
            state["right_basis"] = signed_qr(state["right"] @ Q)
        return step


class _Oriented(Optimizer):
    """Decay, and a step along a direction of each matrix, turned so that it is not tall."""

    def __init__(
        self,
        matrices: list[Tensor],
        group: dict[str, Any],
        direction: Callable[[Tensor, dict[str, Any]], Tensor],
    ) -> None:
        self._direction = direction
        super().__init__(matrices, {"lr": group["lr"], "weight_decay": group["weight_decay"]})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step.

        Args:
            closure: Not taken.
        """
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                rows, columns = p.shape
                layout = Layout((), min(p.shape), max(p.shape), rows > columns)
                step = self._direction(orient(p.grad, layout), self.state[p])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(unorient(step, layout, p.shape), alpha=group["lr"])
