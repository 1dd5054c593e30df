"""AdamP: Adam whose step along a scale-invariant weight is removed (Algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT, _use_grad_for_differentiable

from gradworks.optim.adamp.adam_paths import (
    AdamTensors,
    fused_adamp,
    multi_tensor_adamp,
    single_tensor_adamp,
)
from gradworks.optim.adamp.optimizer import ProjectedOptimizer
from gradworks.optim.adamp.projection import layout_of
from gradworks.optim.arguments import betas_of
from gradworks.optim.steps import refuse_capture
from gradworks.optim.tensors import choose_path, to_real

__all__ = ["AdamP", "adamp"]


class AdamP(ProjectedOptimizer):
    r"""Adam for networks with normalization: no step along scale-invariant weights.

    A weight followed by batch, layer or weight normalization has a gradient orthogonal to it, so
    that each step makes it longer and its effective step :math:`\eta / \lVert w \rVert^2` smaller,
    with momentum far too soon. AdamP finds such weights by the angle between gradient and weight,
    removes the radial part of their update and decays them less. A drop-in for ``AdamW`` in vision
    and audio; of no use to networks without normalization, and with a well tuned weight decay the
    gain shrinks.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        u_t &= m_t \,/\, (\sqrt{v_t} / \sqrt{1 - \beta_2^t} + \epsilon) \\
        u_t, r_t &= \Pi(u_t), \lambda_r \text{ if } \max_r \cos(g_r, p_r) < \delta / \sqrt K
        \text{, else if } \cos(g, p) < \delta / \sqrt N \text{; else } u_t, 1 \\
        p_t &= (1 - \eta \lambda r_t) p_{t-1} - \eta / (1 - \beta_1^t) \, u_t

    with :math:`\Pi(u) = u - n (n \cdot u)`, :math:`n = p / (\lVert p \rVert + \epsilon)` per row,
    or for the layer (see :func:`~gradworks.optim.adamp.project_radial`).

    Args:
        params: Parameters, named parameters or groups. Only weights of 2 or more dimensions are
            ever projected.
        lr: Step :math:`\eta`, at least 0, a number or a tensor of one element; 1e-3 (the paper's).
        betas: Decay of the two moments, each in [0, 1); (0.9, 0.999).
        eps: Added to the denominator and to norms, at least 0; 1e-8.
        weight_decay: Decoupled decay :math:`\lambda`, at least 0; 0.
        delta: Threshold :math:`\delta`, at least 0; 0.1 (Sec. 3). 0 is AdamW.
        wd_ratio: Share of the decay :math:`\lambda_r` kept on projected weights, in [0, 1]; 0.1.
        nesterov: Look one gradient ahead in the first moment; False.
        channel_dim: Dimension whose slices are rows; 0. Of a transposed convolution it is 1. May
            differ by group.
        foreach: Multi-tensor path without host synchronization; None: on accelerators.
        maximize: Ascend instead.
        capturable: Keep ``step`` on the device, for CUDA graphs.
        differentiable: Let autograd follow the step.
        fused: One kernel a tensor, compiled at the first step (half a minute); None: no.
        record_branches: Keep which weights were projected: ``last_branch`` and ``report()``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a number is out of range, or two paths are asked for at once.
        RuntimeError: If a gradient is sparse, a parameter flat (FSDP1) or conjugated lazily, or
            ``fused=True`` cannot compile.

    Note:
        Beside the authors' code: weights in any memory format, complex ones (norms over real and
        imaginary parts together) and sharded ones (``DTensor``; one all-reduce of five numbers a
        weight and group, weights that are split along rows add one for their row sums). Parameters
        of 16 bits: arithmetic in float32, state in 16 bits. A gradient with NaN or infinity is
        stepped with, as in ``torch.optim``; such a weight is not projected.

        8N more flops than Adam a step; state: two tensors like the parameter.

        FSDP1 with ``use_orig_params=True`` shows 1-d pieces of weights, which cannot be told from
        biases: nothing is projected there.

    Example:
        >>> import torch
        >>> from gradworks.optim import AdamP
        >>> _ = torch.manual_seed(0)
        >>> conv, norm = torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)
        >>> model = torch.nn.Sequential(conv, norm, torch.nn.Flatten(), torch.nn.LazyLinear(2))
        >>> data = torch.randn(16, 3, 8, 8)
        >>> _ = model(data)
        >>> opt = AdamP(model.named_parameters(), lr=1e-2, record_branches=True)
        >>> model(data).logsumexp(1).mean().backward()
        >>> opt.step()
        >>> opt.report()[0]
        LayerReport(name='0.weight', shape=(8, 3, 3, 3), branch=1, taken_as='channels')

    References:
        "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights", 2020,
        arXiv:2006.08217, Algorithm 2.
    """

    _buffers = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        nesterov: bool = False,
        *,
        channel_dim: int = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        record_branches: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "delta": delta,
            "wd_ratio": wd_ratio,
            "nesterov": nesterov,
            "channel_dim": channel_dim,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "record_branches": record_branches,
        }
        super().__init__(params, defaults)

    @staticmethod
    def _check_settings(group: dict[str, Any]) -> None:
        """What AdamP takes beside what SGDP does."""
        ProjectedOptimizer._check_settings(group)
        betas_of(group["betas"])

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
            params, grads, exp_avgs, exp_avg_sqs, state_steps = self._collect(group)
            branches = adamp(
                params,
                grads,
                exp_avgs,
                exp_avg_sqs,
                state_steps,
                lr=group["lr"],
                betas=group["betas"],
                eps=group["eps"],
                weight_decay=group["weight_decay"],
                delta=group["delta"],
                wd_ratio=group["wd_ratio"],
                nesterov=group["nesterov"],
                channel_dim=group["channel_dim"],
                foreach=group["foreach"],
                maximize=group["maximize"],
                capturable=group["capturable"],
                differentiable=group["differentiable"],
                fused=group["fused"],
            )
            if group["record_branches"]:
                self._note_branches(group, params, branches)
        return loss


def adamp(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    state_steps: Sequence[Tensor],
    *,
    lr: float | Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    delta: float,
    wd_ratio: float,
    nesterov: bool,
    channel_dim: int = 0,
    foreach: bool | None = None,
    maximize: bool = False,
    capturable: bool = False,
    differentiable: bool = False,
    fused: bool | None = None,
) -> list[Tensor | int]:
    """One step of AdamP on lists of tensors, in place; the arithmetic of :class:`AdamP`.

    Args:
        params: Parameters.
        grads: Their gradients.
        exp_avgs: First moments.
        exp_avg_sqs: Second moments.
        state_steps: Steps done so far, 0-d.
        lr: As in :class:`AdamP`, and so are all others.
        betas: Two decay rates.
        eps: Added to the denominator and to norms.
        weight_decay: Decoupled decay.
        delta: Threshold.
        wd_ratio: Share of the decay on projected weights.
        nesterov: Look one gradient ahead.
        channel_dim: Dimension whose slices are rows.
        foreach: Multi-tensor path.
        maximize: Ascend.
        capturable: ``state_steps`` are on the device.
        differentiable: Let autograd follow.
        fused: One compiled kernel a tensor.

    Returns:
        The branch of each parameter: 1 channels, 2 layer, 0 untouched, -1 exempt; 0-d tensors
        where a number would have synchronized the device.

    Raises:
        RuntimeError: If a CUDA graph is captured without ``capturable``.
    """  # noqa: DOC502
    path = choose_path(params, foreach=foreach, fused=fused, differentiable=differentiable)
    p, g, m, v = (list(x) for x in (params, grads, exp_avgs, exp_avg_sqs))
    layouts = [layout_of(param, channel_dim) for param in p]
    to_real(p, g, m, v)
    refuse_capture("AdamP", p, capturable)
    if isinstance(lr, Tensor):
        lr = lr.squeeze()
    settings: dict[str, Any] = {
        "lr": lr,
        "beta1": betas[0],
        "beta2": betas[1],
        "eps": eps,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
        "maximize": maximize,
        "traced": capturable or differentiable or torch.compiler.is_compiling(),
        "test": {"delta": delta, "wd_ratio": wd_ratio, "eps": eps},
    }
    tensors = AdamTensors(p, g, m, v, list(state_steps), layouts)
    if path == "foreach":
        return multi_tensor_adamp(tensors, **settings)
    if path == "fused":
        return fused_adamp(tensors, **settings)
    return single_tensor_adamp(tensors, differentiable=differentiable, **settings)
