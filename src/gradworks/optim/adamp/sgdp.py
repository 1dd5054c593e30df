"""SGDP: SGD with momentum whose step along a scale-invariant weight is removed (Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT, _use_grad_for_differentiable

from gradworks.optim.adamp.optimizer import ProjectedOptimizer
from gradworks.optim.adamp.projection import layout_of
from gradworks.optim.adamp.sgd_paths import (
    SGDTensors,
    fused_sgdp,
    multi_tensor_sgdp,
    single_tensor_sgdp,
)
from gradworks.optim.arguments import in_interval
from gradworks.optim.tensors import choose_path, to_real

__all__ = ["SGDP", "sgdp"]


class SGDP(ProjectedOptimizer):
    r"""SGD with momentum for networks with normalization: no step along scale-invariant weights.

    As :class:`~gradworks.optim.adamp.AdamP`, for SGD: with momentum 0.9 the squared norm of a
    scale-invariant weight grows about 19 times as fast as under plain gradient descent, and the
    effective step falls as fast. Of no use to networks without normalization.

    .. math::
        b_t &= \mu b_{t-1} + (1 - \tau) g_t, \qquad
        d_t = g_t + \mu b_t \text{ (Nesterov) or } b_t \\
        d_t, r_t &= \Pi(d_t), \lambda_r \text{ if } p \text{ passes for scale invariant, else }
        d_t, 1 \\
        p_t &= (1 - \eta \lambda r_t / (1 - \mu)) p_{t-1} - \eta d_t

    Args:
        params: Parameters, named parameters or groups. Only weights of 2 or more dimensions are
            ever projected.
        lr: Step :math:`\eta`, at least 0, a number or a tensor of one element.
        momentum: :math:`\mu` in [0, 1); 0. The paper uses 0.9.
        dampening: :math:`\tau` in [0, 1]; 0. It acts on the first step too, unlike in
            ``torch.optim.SGD``.
        weight_decay: Decoupled decay :math:`\lambda`, at least 0; 0. Divided by
            :math:`1 - \mu`, so that it means what the coupled one does under momentum.
        nesterov: Look one gradient ahead; False. Needs momentum and no dampening.
        eps: Added to norms, at least 0; 1e-8.
        delta: Threshold, at least 0; 0.1 (Sec. 3). 0 never projects.
        wd_ratio: Share of the decay kept on projected weights, in [0, 1]; 0.1.
        channel_dim: Dimension whose slices are rows; 0. May differ by group.
        foreach: Multi-tensor path without host synchronization; None: on accelerators.
        maximize: Ascend instead.
        differentiable: Let autograd follow the step.
        fused: One kernel a tensor, compiled at the first step (half a minute); None: no.
        record_branches: Keep which weights were projected: ``last_branch`` and ``report()``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a number is out of range, ``nesterov`` lacks momentum, or two paths are asked
            for at once.
        RuntimeError: If a gradient is sparse, a parameter flat (FSDP1) or conjugated lazily, or
            ``fused=True`` cannot compile.

    Note:
        The step is projected, never the momentum buffer: with ``nesterov=False`` the authors' code
        projects the buffer itself, in place. Checkpoints of that code load (their buffer is called
        ``momentum``). A gradient with NaN or infinity is stepped with, as in ``torch.optim``. All
        else as in :class:`~gradworks.optim.adamp.AdamP`; state: one tensor like the parameter.

    Example:
        >>> import torch
        >>> from gradworks.optim import SGDP
        >>> weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
        >>> opt = SGDP([weight], lr=1.0, momentum=0.9, nesterov=True)
        >>> weight.grad = torch.tensor([[-4.0, 3.0]])  # orthogonal: scale invariant
        >>> opt.step()
        >>> weight.data
        tensor([[10.6000, -1.7000]])

    References:
        "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights", 2020,
        arXiv:2006.08217, Algorithm 1.
    """

    _buffers = ("momentum_buffer",)
    _counts = False

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        eps: float = 1e-8,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        *,
        channel_dim: int = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        record_branches: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "eps": eps,
            "delta": delta,
            "wd_ratio": wd_ratio,
            "channel_dim": channel_dim,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
            "record_branches": record_branches,
        }
        super().__init__(params, defaults)

    @staticmethod
    def _check_settings(group: dict[str, Any]) -> None:
        """What SGDP takes beside what AdamP does."""
        ProjectedOptimizer._check_settings(group)
        in_interval("momentum", group["momentum"], closed=False)
        in_interval("dampening", group["dampening"], closed=True)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(
                "nesterov=True needs momentum > 0 and dampening = 0, got "
                f"momentum={group['momentum']} and dampening={group['dampening']}"
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take checkpoints of the authors' code, whose buffer is called ``momentum``."""
        super().__setstate__(state)
        for found in self.state.values():
            if "momentum" in found:
                found["momentum_buffer"] = found.pop("momentum")

    @_use_grad_for_differentiable
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
            params, grads, momentum_buffers = self._collect(group)
            branches = sgdp(
                params,
                grads,
                momentum_buffers,
                lr=group["lr"],
                momentum=group["momentum"],
                dampening=group["dampening"],
                weight_decay=group["weight_decay"],
                nesterov=group["nesterov"],
                eps=group["eps"],
                delta=group["delta"],
                wd_ratio=group["wd_ratio"],
                channel_dim=group["channel_dim"],
                foreach=group["foreach"],
                maximize=group["maximize"],
                differentiable=group["differentiable"],
                fused=group["fused"],
            )
            if group["record_branches"]:
                self._note_branches(group, params, branches)
        return loss


def sgdp(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    momentum_buffers: Sequence[Tensor],
    *,
    lr: float | Tensor,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    eps: float,
    delta: float,
    wd_ratio: float,
    channel_dim: int = 0,
    foreach: bool | None = None,
    maximize: bool = False,
    differentiable: bool = False,
    fused: bool | None = None,
) -> list[Tensor | int]:
    """One step of SGDP on lists of tensors, in place; the arithmetic of :class:`SGDP`.

    Args:
        params: Parameters.
        grads: Their gradients.
        momentum_buffers: Their buffers.
        lr: As in :class:`SGDP`, and so are all others.
        momentum: Decay of the buffer.
        dampening: Taken off each gradient that enters the buffer.
        weight_decay: Decoupled decay.
        nesterov: Look one gradient ahead.
        eps: Added to norms.
        delta: Threshold.
        wd_ratio: Share of the decay on projected weights.
        channel_dim: Dimension whose slices are rows.
        foreach: Multi-tensor path.
        maximize: Ascend.
        differentiable: Let autograd follow.
        fused: One compiled kernel a tensor.

    Returns:
        The branch of each parameter, as :func:`~gradworks.optim.adamp.adamp` returns it.
    """
    path = choose_path(params, foreach=foreach, fused=fused, differentiable=differentiable)
    p, g, buf = (list(x) for x in (params, grads, momentum_buffers))
    layouts = [layout_of(param, channel_dim) for param in p]
    to_real(p, g, buf)
    if isinstance(lr, Tensor):
        lr = lr.squeeze()
    settings: dict[str, Any] = {
        "lr": lr,
        "momentum": momentum,
        "dampening": dampening,
        "weight_decay": weight_decay / (1 - momentum),  # as coupled decay acts under momentum
        "nesterov": nesterov,
        "maximize": maximize,
        "test": {"delta": delta, "wd_ratio": wd_ratio, "eps": eps},
    }
    tensors = SGDTensors(p, g, buf, layouts)
    if path == "foreach":
        return multi_tensor_sgdp(tensors, **settings)
    if path == "fused":
        return fused_sgdp(tensors, **settings)
    return single_tensor_sgdp(tensors, differentiable=differentiable, **settings)
