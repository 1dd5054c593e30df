"""What DCTAdamW and Trion share: which parameters are projected, bases, and state that comes back.

Torch casts all of a loaded state to the parameter's dtype, integers included: ``load_state_dict``
here puts back what a checkpoint had.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradworks.optim.arguments import integer_at_least
from gradworks.optim.checked import CheckedOptimizer, load_with_hooks
from gradworks.optim.dct_adamw.basis import Basis, basis_for, check_basis
from gradworks.optim.dct_adamw.dense import DenseTensors
from gradworks.optim.dct_adamw.feedback import error_dtype
from gradworks.optim.dct_adamw.layout import SIDES, Layout, check_rank, layout_of
from gradworks.optim.precision import work_dtype
from gradworks.optim.sharded import refuse_partial
from gradworks.optim.steps import new_step, restored_step
from gradworks.optim.tensors import refuse_sparse, to_real

__all__ = ["LowRankOptimizer"]


class LowRankOptimizer(CheckedOptimizer):
    """Matrices in a subspace of a fixed basis, all else in AdamW."""

    _counts = False  # low-rank state of Trion has no step; restored below
    # state that a matrix has and another parameter has not
    _sign = "indices"

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self._held: dict[Tensor, Basis] = {}
        self._own: dict[tuple[int, str, str, str], Basis] = {}
        super().__init__(params, defaults)

    @staticmethod
    def _check_settings(group: dict[str, Any]) -> None:
        """What both take."""
        if group["rank"] is None:
            raise TypeError("rank is required: basis vectors a matrix keeps, or a fraction")
        check_rank(group["rank"])
        integer_at_least("max_dim", group["max_dim"], 0)
        if group["norm"] not in {1, 2} or isinstance(group["norm"], bool):
            raise ValueError(f"norm must be 1 or 2, got {group['norm']!r}")
        if group["side"] not in SIDES:
            raise ValueError(f"side must be one of {', '.join(SIDES)}, got {group['side']!r}")
        check_basis(group["basis"], group.get("transform", "auto"))

    @staticmethod
    def _check_param(group: dict[str, Any], param: Tensor) -> None:
        """A basis must exist in the size that a matrix needs."""
        refuse_partial(param)
        layout = _layout(group, param)
        name = group["basis"]
        if layout is None:
            return
        shape = tuple(param.shape)
        if isinstance(name, Tensor) and name.shape[0] != layout.n:
            raise ValueError(
                f"basis as a tensor has size {name.shape[0]}, a weight of shape {shape} needs "
                f"{layout.n}; give weights of other sizes a group with a basis of their own"
            )
        if isinstance(name, str) and name == "hadamard" and layout.n & (layout.n - 1):
            raise ValueError(
                f"basis 'hadamard' needs a size that is a power of 2, a weight of shape {shape} "
                f"has {layout.n}; take 'dct3', or the other side"
            )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, also late in training; settings not given are the defaults.

        Args:
            param_group: ``params`` and settings of their own.
        """
        super().add_param_group(param_group)
        self._hold_all(self.param_groups[-1])

    def _hold_all(self, group: dict[str, Any]) -> None:
        """Make bases before the first step: ``torch.compile`` could not follow their making."""
        for param in group["params"]:
            layout = self._layout(group, param)
            if layout is not None:
                self._hold(group, param, layout)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take groups and step counts of older versions; bases are made anew."""
        super().__setstate__(state)
        self._held, self._own = {}, {}
        for group in self.param_groups:
            self._hold_all(group)
            for param in group["params"]:
                found = self.state.get(param)
                if found and ("exp_avg" in found or "step" in found):
                    found["step"] = restored_step(found.get("step"), param, group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint: indices, ages and compressed errors keep their integers.

        Args:
            state_dict: What ``state_dict()`` gave.

        Raises:
            ValueError: If the groups differ, or a parameter's state is of another kind: full where
                a low rank is asked for, or the other way round.
        """  # noqa: DOC502
        state_dict = load_with_hooks(self, super().load_state_dict, state_dict)
        for group, saved in zip(self.param_groups, state_dict["param_groups"]):
            for param, key in zip(group["params"], saved["params"]):
                found = self.state.get(param)
                if not found:
                    continue
                self._check_loaded(group, param, found)
                for name, value in state_dict["state"].get(key, {}).items():
                    dtype = _kept_dtype(name, param, value)
                    if dtype is not None:
                        found[name] = value.detach().to(
                            device=found[name].device, dtype=dtype, copy=True
                        )

    def _check_loaded(self, group: dict[str, Any], param: Tensor, found: dict[str, Any]) -> None:
        """State of the kind that the group's settings ask for."""
        low = self._layout(group, param) is not None
        if low != (self._sign in found):
            kind, wanted = ("full", "low-rank") if low else ("low-rank", "full")
            raise ValueError(
                f"the checkpoint holds {kind} state for a parameter of shape {tuple(param.shape)}, "
                f"which has {wanted} state under rank={group['rank']}, "
                f"max_dim={group['max_dim']}"
            )

    def _layout(self, group: dict[str, Any], param: Tensor) -> Layout | None:
        """How a matrix is projected; None: AdamW."""
        return _layout(group, param)

    def _sorted(
        self, group: dict[str, Any]
    ) -> tuple[list[tuple[Tensor, Layout, dict[str, Any]]], DenseTensors]:
        """Matrices with a gradient, their layouts and state; and AdamW's parameters, local.

        State is created at the first gradient.
        """
        matrices: list[tuple[Tensor, Layout, dict[str, Any]]] = []
        dense = DenseTensors([], [], [], [], [])
        for param in group["params"]:
            if param.grad is None:
                continue
            refuse_sparse(type(self).__name__, param)
            state = self.state[param]
            layout = self._layout(group, param)
            if layout is not None:
                if not state:
                    self._start_matrix(group, param, layout, state)
                matrices.append((param, layout, state))
                continue
            if not state:
                state["step"] = new_step(param, group)
                for name in ("exp_avg", "exp_avg_sq"):
                    state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)
            found = (param, param.grad, state["exp_avg"], state["exp_avg_sq"], state["step"])
            for tensors, tensor in zip(dense, found):
                tensors.append(tensor)
        to_real(*dense[:4])
        return matrices, dense

    def _start_matrix(
        self, group: dict[str, Any], param: Tensor, layout: Layout, state: dict[str, Any]
    ) -> None:
        """State of a matrix that is met for the first time."""
        raise TypeError("use one of the optimizers of gradworks.optim")

    def _basis(self, group: dict[str, Any], param: Tensor, layout: Layout) -> Basis:
        """The basis of a matrix, held so that all share it."""
        basis = self._held.get(param)
        if (
            basis is None
            or basis.rows.device != param.device
            or basis.rows.dtype != work_dtype(param.dtype)
            or basis.rows.shape[0] != layout.n
        ):
            basis = self._hold(group, param, layout)
        return basis

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _hold(self, group: dict[str, Any], param: Tensor, layout: Layout) -> Basis:
        """Look a basis up, and keep it."""
        dtype = work_dtype(param.dtype)
        transform = group.get("transform", "auto")
        name = self._basis_name(group, layout)
        if isinstance(name, Tensor):  # one copy for all weights that a user's matrix fits
            key = (id(group["basis"]), layout.side, str(dtype), str(param.device))
            if key not in self._own:
                self._own[key] = basis_for(name, layout.n, transform, dtype, param.device)
            basis = self._own[key]
        else:
            basis = basis_for(name, layout.n, transform, dtype, param.device)
        self._held[param] = basis
        return basis

    def _basis_name(self, group: dict[str, Any], layout: Layout) -> str | Tensor:
        """Whose columns are picked."""
        basis: str | Tensor = group["basis"]
        return basis


def _layout(group: dict[str, Any], param: Tensor) -> Layout | None:
    """How a group's settings lay a parameter out."""
    return layout_of(param, rank=group["rank"], side=group["side"], max_dim=group["max_dim"])


def _kept_dtype(name: str, param: Tensor, value: object) -> torch.dtype | None:
    """The dtype of a loaded state that torch's cast to the parameter's would spoil."""
    if not isinstance(value, Tensor) or name == "step":
        return None
    if not value.is_floating_point() and not value.is_complex():
        return value.dtype
    if name == "error":
        return error_dtype(param.dtype)
    return work_dtype(param.dtype) if name in {"error_min", "error_max"} else None
