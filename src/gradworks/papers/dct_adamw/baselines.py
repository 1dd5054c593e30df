"""What DCT-AdamW and Trion are compared with: subspaces that are computed, not picked.

Small readable optimizers for this comparison alone; the packages that have them want other versions
of this environment. GaLore is tested against ``pytorch_optimizer``'s, LDAdam against figures of its
released code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Dion", "GaLore", "LDAdam"]


class _LowRank(Optimizer):
    """Matrices in a subspace, everything else in AdamW; a matrix is seen with rows >= columns."""

    rest_of_model: ClassVar[Mapping[str, Any]] = {"low_rank": False}

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Perform one step.

        Args:
            closure: Reevaluates the model and returns the loss.

        Returns:
            The closure's loss, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                state["step"] = state.get("step", 0) + 1
                small = p.ndim == 2 and group["low_rank"] and min(p.shape) >= group["rank"]
                if not small:
                    _adamw_step(p, p.grad, state, group)
                    continue
                wide = p.shape[0] < p.shape[1]
                weight, grad = (p.T, p.grad.T) if wide else (p, p.grad)
                self._matrix_step(weight, grad, state, group, p.shape)
        return loss

    def _matrix_step(
        self,
        p: Tensor,
        grad: Tensor,
        state: dict[str, Any],
        group: dict[str, Any],
        shape: Sequence[int],
    ) -> None:
        """A step of (R, C), R >= C; ``p`` shares the memory of a parameter of ``shape``."""
        raise TypeError("use one of the classes below")


def _moments(a: Tensor, state: dict[str, Any], betas: tuple[float, float]) -> None:
    """First and second moments, in the coordinates they are kept in."""
    for name, beta, x in (("exp_avg", betas[0], a), ("exp_avg_sq", betas[1], a * a)):
        if name not in state:
            state[name] = torch.zeros_like(a)
        state[name].mul_(beta).add_(x, alpha=1 - beta)


def _direction(state: dict[str, Any], betas: tuple[float, float], eps: float) -> Tensor:
    """AdamW's direction from moments, bias corrected."""
    t = state["step"]
    m = state["exp_avg"] / (1 - betas[0] ** t)
    direction: Tensor = m / ((state["exp_avg_sq"] / (1 - betas[1] ** t)).sqrt() + eps)
    return direction


def _adamw_step(p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """AdamW, with settings of its own where a method for matrices has another rate."""
    betas = group.get("adamw_betas") or group["betas"]
    lr = group["adamw_lr"] * group["lr"] / group["first_lr"] if "adamw_lr" in group else group["lr"]
    _moments(grad, state, betas)
    p.mul_(1 - lr * group["weight_decay"])
    p.add_(_direction(state, betas, group["eps"]), alpha=-lr)


class GaLore(_LowRank):
    """AdamW in the leading singular directions of the gradient, renewed every ``gap`` steps.

    Moments stay as they are when the directions change, as published.

    Args:
        params: Parameters or groups.
        lr: Step.
        betas: Decay of the moments.
        eps: Added to the root.
        weight_decay: Decoupled decay.
        rank: Directions kept.
        gap: Steps between two singular value decompositions.
        scale: Factor of the update; 1 (as AdamW; the authors' 0.25 goes with other rates).
        low_rank: Whether matrices are projected.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        rank: int,
        gap: int = 200,
        scale: float = 1.0,
        low_rank: bool = True,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay,
                "rank": rank, "gap": gap, "scale": scale, "low_rank": low_rank,
            },
        )  # fmt: skip

    def _matrix_step(
        self,
        p: Tensor,
        grad: Tensor,
        state: dict[str, Any],
        group: dict[str, Any],
        shape: Sequence[int],
    ) -> None:
        if (state["step"] - 1) % group["gap"] == 0:
            _, _, Vh = torch.linalg.svd(grad, full_matrices=False)
            state["basis"] = Vh[: group["rank"]].T.contiguous()  # (C, r)
        _moments(grad @ state["basis"], state, group["betas"])
        update = _direction(state, group["betas"], group["eps"]) @ state["basis"].T
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(update, alpha=-group["lr"] * group["scale"])


class LDAdam(_LowRank):
    r"""AdamW in a subspace of one power iteration a step, moments rotated, errors fed back.

    After "LDAdam: Adaptive Optimization from Low-Dimensional Gradient Statistics", 2024,
    arXiv:2410.16103, and its released code, whose defaults these are. With
    :math:`A = G + E` and :math:`B = \rho \hat m P_{old}^\top + (1 - \rho) A` the new directions are
    orthonormal columns of :math:`B^\top B P_{old}`. Moments turn by
    :math:`R = P_{old}^\top P_{new}`, the second one as a variance and a squared mean; what
    projection and turning lose of the step, momentum to come included, is fed back as E.

    Args:
        params: Parameters or groups.
        lr: Step.
        betas: Decay of the moments; (0.908, 0.99).
        eps: Added to the root.
        weight_decay: Decoupled decay.
        rank: Directions kept.
        rho: Share of the momentum in what the directions are taken from; 0.908.
        low_rank: Whether matrices are projected.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.908, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        rank: int,
        rho: float = 0.908,
        low_rank: bool = True,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay,
                "rank": rank, "rho": rho, "low_rank": low_rank,
            },
        )  # fmt: skip

    def _matrix_step(
        self,
        p: Tensor,
        grad: Tensor,
        state: dict[str, Any],
        group: dict[str, Any],
        shape: Sequence[int],
    ) -> None:
        A = grad + state["error"] if "error" in state else grad
        if "basis" in state:
            lost = self._turn(A, state, group)
        else:
            _, _, Vh = torch.linalg.svd(A, full_matrices=False)
            state["basis"] = Vh[: group["rank"]].T.contiguous()
            lost = torch.zeros_like(A)
        a = A @ state["basis"]
        state["error"] = A - a @ state["basis"].T + lost
        _moments(a, state, group["betas"])
        update = _direction(state, group["betas"], group["eps"]) @ state["basis"].T
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(update, alpha=-group["lr"])

    def _turn(self, A: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """Choose new directions, turn the moments, and return what that loses of later steps."""
        beta1, beta2 = group["betas"]
        t = state["step"] - 1
        seen1, seen2 = 1 - beta1**t, 1 - beta2**t
        before, m, v = state["basis"], state["exp_avg"], state["exp_avg_sq"]
        B = group["rho"] / seen1 * (m @ before.T) + (1 - group["rho"]) * A
        basis = torch.linalg.qr(B.T @ (B @ before)).Q
        R = before.T @ basis
        turned = m @ R
        spread = (v / seen2 - (m / seen1) ** 2) @ R**2 + (turned / seen1) ** 2
        state.update(basis=basis, exp_avg=turned, exp_avg_sq=spread.abs() * seen2)
        lost: Tensor = beta1 / (1 - beta1) * (m @ before.T - turned @ basis.T)
        return lost


class Dion(_LowRank):
    """Orthonormalised momentum of low rank by one power iteration a step, with error feedback.

    After "Dion: Distributed Orthonormalized Updates", 2025, arXiv:2504.05295.

    Args:
        params: Parameters or groups.
        lr: Step of matrices; 0.02.
        momentum: Share of the momentum kept; 0.95.
        weight_decay: Decoupled decay.
        rank: Rank of the update.
        adamw_lr: Step of the rest of the model; 3e-4; a schedule acts on both.
        adamw_betas: Decay of its moments.
        eps: Added to its root.
        low_rank: Whether matrices are projected.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        rank: int,
        adamw_lr: float = 3e-4,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-10,
        low_rank: bool = True,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr, "first_lr": lr, "momentum": momentum, "weight_decay": weight_decay,
                "rank": rank, "adamw_lr": adamw_lr, "adamw_betas": tuple(adamw_betas), "eps": eps,
                "low_rank": low_rank,
            },
        )  # fmt: skip

    def _matrix_step(
        self,
        p: Tensor,
        grad: Tensor,
        state: dict[str, Any],
        group: dict[str, Any],
        shape: Sequence[int],
    ) -> None:
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(grad)
            _, _, Vh = torch.linalg.svd(grad, full_matrices=False)
            state["basis"] = Vh[: group["rank"]].T.contiguous()  # (C, r)
        B = state["momentum"] + grad
        P = torch.linalg.qr(B @ state["basis"]).Q  # (R, r)
        R = B.T @ P  # (C, r)
        state["momentum"] = B - (1 - group["momentum"]) * (P @ R.T)
        state["basis"] = R / R.norm(dim=0, keepdim=True).clamp_min(1e-12)
        rows, columns = shape  # the parameter's: a wide one takes short steps
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(P @ state["basis"].T, alpha=-group["lr"] * (rows / columns) ** 0.5)
