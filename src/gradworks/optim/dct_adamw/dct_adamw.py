"""DCTAdamW: AdamW whose moments live in columns of a fixed cosine basis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from gradworks.optim.arguments import betas_of, flags, integer_at_least
from gradworks.optim.dct_adamw.dense import multi_tensor_adamw, single_tensor_adamw
from gradworks.optim.dct_adamw.feedback import BITS
from gradworks.optim.dct_adamw.layout import Layout, assembled, error_state
from gradworks.optim.dct_adamw.low_rank import (
    LowRank,
    multi_tensor_low_rank,
    single_tensor_low_rank,
)
from gradworks.optim.dct_adamw.optimizer import LowRankOptimizer
from gradworks.optim.sharded import local
from gradworks.optim.steps import new_step, refuse_capture
from gradworks.optim.tensors import choose_path

__all__ = ["DCTAdamW"]

COMPRESSED = ("error_q", "error_min", "error_max")


class DCTAdamW(LowRankOptimizer):
    r"""AdamW with low-rank moments, without a singular value decomposition.

    For fine-tuning and training where the state of AdamW does not fit. Of each matrix the moments
    are kept in an r-dimensional subspace: the r columns of one fixed orthogonal matrix Q, a cosine
    transform, along which the gradient is largest at that step. A layer stores r indices, no
    projector. Not for networks whose parameters are few or not matrices: those are AdamW's anyway.

    .. math::
        A_t &= G_t + E_{t-1}, \qquad S_t = A_t Q, \qquad
        I_t = \text{top}_r \, \lVert S_{\cdot j} \rVert_1, \qquad a_t = S_{\cdot I_t} \\
        E_t &= A_t - a_t Q_{\cdot I_t}^T \quad \text{(error feedback)} \\
        m_t &= \beta_1 R(m_{t-1}) + (1 - \beta_1) a_t, \qquad
        v_t = \beta_2 R(v_{t-1}) + (1 - \beta_2) a_t^2 \\
        p_t &= (1 - \eta \lambda) p_{t-1} - \frac{\eta}{1 - \beta_1^t} \,
        \frac{m_t}{\sqrt{v_t} / \sqrt{1 - \beta_2^t} + \epsilon} \, Q_{\cdot I_t}^T

    R carries moments from one subspace to the next: columns of one orthogonal matrix are equal or
    orthogonal, so that those of a column that stays are kept and a column that enters starts at
    zero. Matrices with more columns than rows are projected on the left, that is transposed.

    Args:
        params: Parameters, named parameters or groups. Real matrices whose smaller dimension is at
            least ``rank`` and whose larger one is below ``max_dim`` have low-rank state; all others
            (biases, convolutions, vocabularies, complex ones) are AdamW's.
        lr: Step :math:`\eta`, at least 0, a number or a tensor of one element; 1e-3.
        betas: Decay of the two moments, each in [0, 1); (0.9, 0.999).
        eps: Added to the denominator, at least 0; 1e-8.
        weight_decay: Decoupled decay :math:`\lambda`, at least 0; 0.
        rank: Columns a matrix keeps: an integer of at least 1, or a fraction in (0, 1) of the
            smaller dimension. Required.
        update_gap: Steps between two choices of a subspace, at least 1; 1. It is chosen at the
            first step and at each whose number is a multiple.
        rotate: Carry moments over; True (the paper's; the released code's default is False, which
            leaves the numbers where they are while their meaning changes).
        norm: 1 (released) or 2: rank columns by this norm. 2 loses least of the gradient.
        basis: "dct3" (released), "dct2", "identity" (rows or columns of the gradient itself),
            "hadamard" (sizes that are powers of 2), or an orthogonal tensor.
        side: "right" keeps columns, "left" rows, "auto" what the smaller dimension says. A weight
            sharded along its rows (FSDP2) is always projected on the right under "auto", one
            sharded along its columns on the left.
        transform: "matmul", "fft", or "auto": the FFT from n = 512 on a CPU, from 8192 elsewhere.
        error_feedback: Keep what a step left out and add it to the next gradient; False.
        ef_dtype: None, "int8" or "int4": in how many bits; None.
        column_age: Correct the bias of each column for the steps since it entered; False. As
            published, a column that enters late steps 3 to 6 times too far at first.
        max_dim: 32,000. 0 leaves a group to AdamW.
        foreach: One product for all matrices of a shape, without host synchronization; None: on
            accelerators.
        maximize: Ascend instead.
        capturable: Keep ``step`` on the device, for CUDA graphs. With ``update_gap`` above 1 the
            transform is then computed at every step.

    Raises:
        TypeError: If an argument is of the wrong type, or ``rank`` is missing.
        ValueError: If a number is out of range, a basis is not orthogonal or not of a weight's
            size, or ``ef_dtype`` is given without ``error_feedback``.
        RuntimeError: If a gradient is sparse, a parameter flat (FSDP1), or a matrix sharded along
            both dimensions.

    Note:
        Beside the released code: rotation is not written into its own input, 8-bit errors have 256
        levels, 4-bit ones come back in order, bases fit every layer, all state is in ``state_dict``
        and ``.grad`` stays as it is; parameters that are not matrices are trained. Indices are
        ascending, ties fall to the lower. Gradient clipping acts on G, not on what error feedback
        adds. Parameters of 16 bits: arithmetic in float32. A gradient with NaN or infinity is
        stepped with, as in ``torch.optim``: it spoils its row (its column on the left side) for
        good, and stays in the error feedback.

        A choice costs 2 R C^2 flops (an FFT less), the rest 2 R C r. State: 2 R r numbers and r
        indices, see :func:`~gradworks.optim.dct_adamw.state_bytes`.

    Example:
        >>> import torch
        >>> from gradworks.optim import DCTAdamW
        >>> weight = torch.nn.Parameter(torch.zeros(2, 2))
        >>> opt = DCTAdamW([weight], lr=0.1, rank=1, basis="identity")
        >>> weight.grad = torch.tensor([[1.0, 3.0], [0.0, -2.0]])
        >>> opt.step()
        >>> weight.data  # the second column alone
        tensor([[ 0.0000, -0.1000],
                [ 0.0000,  0.1000]])

    References:
        "SVD-Free Low-Rank Adaptive Gradient Optimization for Large Language Models" (later
        "FFT-based Dynamic Subspace Selection for Low-Rank Adaptive Optimization of LLMs"), 2025,
        arXiv:2505.17967.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        rank: float,
        update_gap: int = 1,
        rotate: bool = True,
        norm: int = 1,
        basis: str | Tensor = "dct3",
        side: str = "auto",
        transform: str = "auto",
        error_feedback: bool = False,
        ef_dtype: str | None = None,
        column_age: bool = False,
        max_dim: int = 32_000,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "rank": rank,
            "update_gap": update_gap,
            "rotate": rotate,
            "norm": norm,
            "basis": basis,
            "side": side,
            "transform": transform,
            "error_feedback": error_feedback,
            "ef_dtype": ef_dtype,
            "column_age": column_age,
            "max_dim": max_dim,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    @staticmethod
    def _check_settings(group: dict[str, Any]) -> None:
        """What DCTAdamW takes beside what Trion does."""
        LowRankOptimizer._check_settings(group)
        betas_of(group["betas"])
        integer_at_least("update_gap", group["update_gap"], 1)
        flags(group, "rotate", "error_feedback", "column_age")
        ef_dtype = group["ef_dtype"]
        if ef_dtype is not None and ef_dtype not in BITS:
            raise ValueError(f"ef_dtype must be None, 'int8' or 'int4', got {ef_dtype!r}")
        if ef_dtype is not None and not group["error_feedback"]:
            raise ValueError(f"ef_dtype={ef_dtype!r} needs error_feedback=True")

    def _layout(self, group: dict[str, Any], param: Tensor) -> Layout | None:
        """The group's rule; a matrix that has state keeps its rank."""
        state = self.state.get(param)
        if state and "indices" in state:
            group = {**group, "rank": state["indices"].numel()}
        return LowRankOptimizer._layout(self, group, param)

    def _start_matrix(
        self, group: dict[str, Any], param: Tensor, layout: Layout, state: dict[str, Any]
    ) -> None:
        """Zero moments in the first columns."""
        part = local(param)
        state["step"] = new_step(param, group)
        state["indices"] = torch.arange(layout.rank, device=part.device)
        for name in ("exp_avg", "exp_avg_sq"):
            zero = part.new_zeros(layout.small(part.shape))
            state[name] = assembled(zero, param, layout.small(tuple(param.shape)))

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
            refuse_capture("DCTAdamW", params, group["capturable"])
            items = [self._item(group, *found) for found in matrices]
            lr = group["lr"]
            if isinstance(lr, Tensor):
                lr = lr.squeeze()
            shared: dict[str, Any] = {
                "lr": lr,
                "beta1": group["betas"][0],
                "beta2": group["betas"][1],
                "eps": group["eps"],
                "maximize": group["maximize"],
                "traced": group["capturable"] or torch.compiler.is_compiling(),
            }
            decay = group["weight_decay"]
            projected: dict[str, Any] = {
                "weight_decay": decay,
                "update_gap": group["update_gap"],
                "rotate": group["rotate"],
                "norm": group["norm"],
                "ef_dtype": group["ef_dtype"],
            }
            dense_decay = lr * decay if decay != 0 else 0.0
            if path == "foreach":
                multi_tensor_low_rank(items, **projected, **shared)
                multi_tensor_adamw(dense, weight_decay=dense_decay, **shared)
            else:
                single_tensor_low_rank(items, **projected, **shared)
                single_tensor_adamw(dense, weight_decay=dense_decay, **shared)
        return loss

    def _item(
        self, group: dict[str, Any], param: Tensor, layout: Layout, state: dict[str, Any]
    ) -> LowRank:
        """A matrix as a step takes it."""
        own, age = local(param), None
        names: tuple[str, ...] = ()
        if group["column_age"]:  # may be switched on late, as may error feedback
            if "age" not in state:
                # columns that were there before are as old as the run, for all that is known
                age = state["step"].to(device=own.device, dtype=torch.int32)
                state["age"] = age.expand(layout.rank).clone()
            age = state["age"]
        if group["error_feedback"]:
            names = ("error",) if group["ef_dtype"] is None else COMPRESSED
            if names[0] not in state:
                state.update(error_state(param, layout, group["ef_dtype"]))
        return LowRank(
            own,
            local(param.grad, param),  # type: ignore[arg-type]
            local(state["exp_avg"], param),
            local(state["exp_avg_sq"], param),
            state["step"],
            state["indices"],
            age,
            tuple(local(state[name], param) for name in names),
            layout,
            self._basis(group, param, layout),
        )
