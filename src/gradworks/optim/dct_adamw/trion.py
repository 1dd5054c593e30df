"""Trion: Muon in columns of a fixed cosine basis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from gradworks.optim.arguments import (
    at_least_zero,
    betas_of,
    in_interval,
    integer_at_least,
    learning_rate,
)
from gradworks.optim.dct_adamw.dense import multi_tensor_adamw, single_tensor_adamw
from gradworks.optim.dct_adamw.layout import Layout
from gradworks.optim.dct_adamw.optimizer import LowRankOptimizer
from gradworks.optim.dct_adamw.orthogonal_momentum import (
    SCALES,
    Matrix,
    multi_tensor_trion,
    single_tensor_trion,
)
from gradworks.optim.sharded import local
from gradworks.optim.steps import refuse_capture
from gradworks.optim.tensors import choose_path

__all__ = ["Trion"]

TRANSPOSED = {"dct3": "dct2", "dct2": "dct3"}


class Trion(LowRankOptimizer):
    r"""Muon on the part of the momentum that r columns of a cosine basis capture.

    For pre-training of transformers: steps with orthonormal factors, whose Newton-Schulz iteration
    runs on (R, r) instead of (R, C). Momentum is full size, so that memory is Muon's. Not for
    embeddings and heads: give them ``max_dim`` or a group with ``max_dim=0``.

    .. math::
        B_t &= M_{t-1} + G_t, \qquad S_t = B_t Q, \qquad
        I_t = \text{top}_r \, \lVert S_{\cdot j} \rVert_1, \qquad b_t = S_{\cdot I_t} \\
        M_t &= B_t - (1 - \mu) \, b_t Q_{\cdot I_t}^T \\
        p_t &= (1 - \eta \lambda) p_{t-1} - \eta \, s \, \text{NS}(b_t) \, Q_{\cdot I_t}^T

    with NS the quintic Newton-Schulz iteration. Matrices with more columns than rows are projected
    on the left, onto rows of Q (the released code's choice).

    Args:
        params: Parameters, named parameters or groups. Real matrices whose smaller dimension is at
            least ``rank`` and whose larger one is below ``max_dim`` take the steps above; all
            others AdamW's.
        lr: Step :math:`\eta` of matrices, at least 0, a number or a tensor of one element; 0.02.
        momentum: :math:`\mu` in [0, 1); 0.95.
        weight_decay: Decoupled decay :math:`\lambda` of all parameters, at least 0; 0.
        rank: Columns: an integer of at least 1, or a fraction in (0, 1) of the smaller dimension.
            Required.
        scale: Factor s of a matrix (R, C): "kj" sqrt(max(1, R/C)), "none" 1, "kimi"
            0.2 sqrt(max(R, C)), "dion" sqrt(R/C).
        ns_steps: Newton-Schulz iterations, at least 1; 5.
        ns_dtype: Their dtype; None: that of the rest, float32 for parameters of 16 bits.
            ``torch.bfloat16`` is fast on accelerators.
        adamw_lr: Step of AdamW's parameters; 3e-4. A schedule acts on both: it is multiplied by
            ``lr`` over the ``lr`` that the group was made with.
        adamw_betas: Decay of AdamW's moments; (0.9, 0.95).
        adamw_eps: Added to AdamW's denominator; 1e-10.
        basis: As in :class:`~gradworks.optim.DCTAdamW`.
        norm: 1 (released) or 2: rank columns by this norm.
        side: "auto", "left" or "right", as in :class:`~gradworks.optim.DCTAdamW`.
        max_dim: 32,000.
        foreach: One product for all matrices of a shape; None: on accelerators.
        maximize: Ascend instead.
        capturable: Keep ``step`` of AdamW's parameters on the device, for CUDA graphs.

    Raises:
        TypeError: If an argument is of the wrong type, or ``rank`` is missing.
        ValueError: If a number is out of range, or a basis is not orthogonal or not of a weight's
            size.
        RuntimeError: If a gradient is sparse, a parameter flat (FSDP1), or a matrix sharded along
            both dimensions.

    Note:
        The released class cannot run as it is (names are missing) and needs a process group; its
        fast transform reconstructs from another basis on the left side. Sharded matrices sum their
        column norms and, once an iteration, r x r products over the mesh. A gradient with NaN or
        infinity is stepped with, as in ``torch.optim``, and spoils its whole matrix.

        Flops 2 R C^2 for the transform (an FFT less), 4 R C r and, an iteration, 4 R r^2 + 2 r^3.
        State: one tensor like the parameter; AdamW's two.

    Example:
        >>> import torch
        >>> from gradworks.optim import Trion
        >>> weight = torch.nn.Parameter(torch.zeros(2, 2))
        >>> opt = Trion([weight], lr=0.1, rank=1, basis="identity")
        >>> weight.grad = torch.tensor([[0.0, 4.0], [0.0, -3.0]])
        >>> opt.step()
        >>> weight.data[:, 0].tolist(), bool(weight.data[0, 1] < 0 < weight.data[1, 1])
        ([0.0, 0.0], True)

    References:
        "FFT-based Dynamic Subspace Selection for Low-Rank Adaptive Optimization of LLMs", 2025,
        arXiv:2505.17967, the section on Trion.
    """

    _sign = "momentum_buffer"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        rank: float,
        scale: str = "kj",
        ns_steps: int = 5,
        ns_dtype: torch.dtype | None = None,
        adamw_lr: float = 3e-4,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-10,
        basis: str | Tensor = "dct3",
        norm: int = 1,
        side: str = "auto",
        max_dim: int = 32_000,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "rank": rank,
            "scale": scale,
            "ns_steps": ns_steps,
            "ns_dtype": ns_dtype,
            "adamw_lr": adamw_lr,
            "adamw_betas": adamw_betas,
            "adamw_eps": adamw_eps,
            "basis": basis,
            "norm": norm,
            "side": side,
            "max_dim": max_dim,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    @staticmethod
    def _check_settings(group: dict[str, Any]) -> None:
        """What Trion takes beside what DCTAdamW does."""
        LowRankOptimizer._check_settings(group)
        in_interval("momentum", group["momentum"], closed=False)
        if group["scale"] not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {group['scale']!r}")
        integer_at_least("ns_steps", group["ns_steps"], 1)
        ns_dtype = group["ns_dtype"]
        if ns_dtype is not None and not isinstance(ns_dtype, torch.dtype):
            raise TypeError(f"ns_dtype must be a torch.dtype or None, got {ns_dtype!r}")
        if ns_dtype is not None and not ns_dtype.is_floating_point:
            raise ValueError(f"ns_dtype must be a floating dtype, got {ns_dtype}")
        _adamw_learning_rate(group["adamw_lr"])
        try:
            betas_of(group["adamw_betas"])
        except (TypeError, ValueError) as error:
            raise type(error)(f"adamw_{error}") from None
        at_least_zero("adamw_eps", group["adamw_eps"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, also late in training; settings not given are the defaults.

        Args:
            param_group: ``params`` and settings of their own.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group.setdefault("base_lr", float(group["lr"]))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take groups that do not know their first learning rate."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("base_lr", float(group.get("initial_lr", group["lr"])))

    def _start_matrix(
        self, group: dict[str, Any], param: Tensor, layout: Layout, state: dict[str, Any]
    ) -> None:
        """Zero momentum."""
        state["momentum_buffer"] = torch.zeros_like(param, memory_format=torch.preserve_format)

    def _basis_name(self, group: dict[str, Any], layout: Layout) -> str | Tensor:
        """On the left rows of Q are picked, not columns."""
        basis: str | Tensor = group["basis"]
        if layout.side == "right":
            return basis
        return basis.mT if isinstance(basis, Tensor) else TRANSPOSED.get(basis, basis)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
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
            matrices, dense = self._sorted(group)
            params = [param for param, _, _ in matrices] + dense.params
            path = choose_path(params, foreach=group["foreach"], fused=None, differentiable=False)
            refuse_capture("Trion", dense.params, group["capturable"])
            items = [
                Matrix(
                    local(param),
                    local(param.grad, param),  # type: ignore[arg-type]
                    local(state["momentum_buffer"], param),
                    layout,
                    self._basis(group, param, layout),
                    (param.shape[0], param.shape[1]),
                )
                for param, layout, state in matrices
            ]
            lr = group["lr"].squeeze() if isinstance(group["lr"], Tensor) else group["lr"]
            decay = group["weight_decay"]
            projected: dict[str, Any] = {
                "lr": lr,
                "momentum": group["momentum"],
                "weight_decay": decay,
                "scale": group["scale"],
                "ns_steps": group["ns_steps"],
                "ns_dtype": group["ns_dtype"],
                "norm": group["norm"],
                "maximize": group["maximize"],
            }
            base_lr = group["base_lr"]
            dense_lr = group["adamw_lr"] * (lr / base_lr if base_lr else 1.0)
            plain: dict[str, Any] = {
                "lr": dense_lr,
                "beta1": group["adamw_betas"][0],
                "beta2": group["adamw_betas"][1],
                "eps": group["adamw_eps"],
                "weight_decay": dense_lr * decay if decay != 0 else 0.0,
                "maximize": group["maximize"],
                "traced": group["capturable"] or torch.compiler.is_compiling(),
            }
            if path == "foreach":
                multi_tensor_trion(items, **projected)
                multi_tensor_adamw(dense, **plain)
            else:
                single_tensor_trion(items, **projected)
                single_tensor_adamw(dense, **plain)
        return loss


def _adamw_learning_rate(value: object) -> None:
    """Require a finite number, not negative.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.
    """  # noqa: DOC502
    if isinstance(value, Tensor):
        raise TypeError("adamw_lr must be a number, got a Tensor; schedule lr, which scales it")
    try:
        learning_rate(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"adamw_{error}") from None
