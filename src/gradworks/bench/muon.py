"""PyTorch's Muon for a whole model: it takes matrices only, everything else goes to AdamW.

What Muon is compared as, here and in its own papers. The steps are those of ``torch.optim``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

__all__ = ["MuonWithAdamW"]

_MUON = ("lr", "weight_decay", "momentum", "nesterov", "adjust_lr_fn")


class MuonWithAdamW(Optimizer):
    """``torch.optim.Muon`` on matrices, ``torch.optim.AdamW`` on the rest.

    Args:
        params: Parameters or groups. Groups with ``matrices=False`` and parameters that are no
            matrix take AdamW's steps.
        lr: Step of matrices; 0.02, of the method's first release.
        momentum: Of matrices; 0.95.
        weight_decay: Decoupled, of all parameters; 0.
        adamw_lr: Step of the rest; 3e-4. A schedule acts on both: it is multiplied by ``lr`` over
            the ``lr`` that the group was made with.
        adamw_betas: Decay of AdamW's moments; (0.9, 0.95).
        adamw_eps: Added to AdamW's denominator; 1e-10.
        nesterov: Momentum that looks ahead; True, as released.
        adjust_lr_fn: As for ``torch.optim.Muon``: "match_rms_adamw" gives updates AdamW's size.

    Raises:
        ValueError: If a number is out of range, as ``torch.optim`` says.
    """

    rest_of_model: ClassVar[Mapping[str, Any]] = {"matrices": False}

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        adamw_lr: float = 3e-4,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-10,
        nesterov: bool = True,
        adjust_lr_fn: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "adamw_lr": adamw_lr,
            "adamw_betas": adamw_betas,
            "adamw_eps": adamw_eps,
            "nesterov": nesterov,
            "adjust_lr_fn": adjust_lr_fn,
            "matrices": True,
        }
        super().__init__(params, defaults)
        self._parts = [self._part(group) for group in self.param_groups]
        self._share_state()

    def _part(self, group: dict[str, Any]) -> tuple[float, Optimizer | None, Optimizer | None]:
        """Return the first rate of a group, and the two optimizers of its parameters."""
        matrices = [p for p in group["params"] if p.dim() == 2 and group["matrices"]]
        chosen = set(matrices)
        rest = [p for p in group["params"] if p not in chosen]
        muon = self._of_matrices(matrices, group) if matrices else None
        settings = {
            "lr": group["adamw_lr"],
            "betas": group["adamw_betas"],
            "eps": group["adamw_eps"],
            "weight_decay": group["weight_decay"],
        }
        return group["lr"], muon, torch.optim.AdamW(rest, **settings) if rest else None

    def _of_matrices(self, matrices: list[Tensor], group: dict[str, Any]) -> Optimizer:
        """Return the optimizer of a group's matrices."""
        return torch.optim.Muon(matrices, **{k: group[k] for k in _MUON})

    def _share_state(self) -> None:
        """Let the inner optimizers read and write this one's state."""
        for _, *inner in self._parts:
            for one in inner:
                if one is not None:
                    one.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go back to a saved state.

        Args:
            state_dict: What ``state_dict`` returned.
        """
        super().load_state_dict(state_dict)
        self._share_state()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Take one step.

        Args:
            closure: Computes the loss and its gradients anew.

        Returns:
            The closure's loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, (first, muon, adamw) in zip(self.param_groups, self._parts, strict=True):
            share = group["lr"] / first if first else 1.0
            for inner, rate in ((muon, group["lr"]), (adamw, group["adamw_lr"] * share)):
                if inner is not None:
                    inner.param_groups[0]["lr"] = rate
                    inner.step()
        return loss
