"""DiffGrad: Adam with a friction coefficient for each coordinate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT, _use_grad_for_differentiable

from gradworks.optim.arguments import betas_of, flags
from gradworks.optim.checked import CheckedOptimizer
from gradworks.optim.diffgrad.paths import (
    DiffGradTensors,
    fused_diffgrad,
    multi_tensor_diffgrad,
    single_tensor_diffgrad,
)
from gradworks.optim.sharded import refuse_partial
from gradworks.optim.steps import refuse_capture
from gradworks.optim.tensors import choose_path, to_real

__all__ = ["DiffGrad", "diffgrad"]

FRICTIONS = ("absolute", "rms")


class DiffGrad(CheckedOptimizer):
    r"""Adam at between half and the whole learning rate, less where the gradient hardly changes.

    Each coordinate's step is multiplied by a friction in [0.5, 1): the sigmoid of how much its
    gradient changed since the last step. A drop-in for ``Adam`` in convolutional networks. Of no
    use where gradients are small: with changes below 0.1 the friction is 0.5 to within 0.025
    everywhere, and the method is Adam at half the learning rate.

    .. math::
        g_t &\leftarrow g_t + \lambda p_{t-1}, \qquad
        m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \xi_t &= 1 / (1 + e^{-|g_{t-1} - g_t|}), \qquad g_0 = 0 \\
        p_t &= p_{t-1} - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}
        \cdot \frac{\xi_t m_t}{\sqrt{v_t} + \epsilon}

    Args:
        params: Parameters, named parameters or groups.
        lr: Step :math:`\eta`, at least 0, a number or a tensor of one element; 1e-3 (the authors').
        betas: Decay of the two moments, each in [0, 1); (0.9, 0.999).
        eps: Added to the root, at least 0; 1e-8. Unlike in ``torch.optim.Adam`` it is not divided
            by the bias correction: in the first step it counts 31.6 times as much.
        weight_decay: Decay :math:`\lambda`, at least 0; 0. An L2 term of the gradient, as in Adam,
            which the friction sees too.
        decoupled_weight_decay: Decay the weights instead, by :math:`\eta \lambda`, as AdamW does;
            False.
        friction_scale: ``"absolute"``, the paper's. ``"rms"`` (ours, not the paper's) divides the
            change by :math:`\sqrt{v_t / (1 - \beta_2^t)} + \epsilon`, so that the loss may be
            multiplied by any number.
        foreach: Multi-tensor path; None: on accelerators.
        maximize: Ascend instead.
        capturable: Keep ``step`` on the device, for CUDA graphs.
        differentiable: Let autograd follow the step.
        fused: One kernel a tensor, compiled at the first step (half a minute); None: no.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a number is out of range, two paths are asked for at once, or ``lr`` is a
            tensor with ``foreach=True`` and without ``capturable=True``.
        RuntimeError: If a gradient is sparse, a parameter flat (FSDP1), a partial sum or
            conjugated lazily, or ``fused=True`` cannot compile.

    Note:
        The friction depends on the scale of the gradient. A loss multiplied by 1000, summed instead
        of averaged, or scaled for mixed precision takes up to twice the steps: unscale first, as
        ``GradScaler.step`` does. Clipping and accumulation change it too.

        Gradients that are None are skipped, and the previous one is kept. A gradient with NaN or
        infinity is stepped with, as in ``torch.optim``, and spoils its own coordinates only.
        Complex parameters are pairs of reals, each with a friction of its own. Parameters of 16
        bits: arithmetic in float32, state in 16 bits. Sharded ones (``DTensor``) need no
        communication. Checkpoints of the authors' code and of ``Adam`` load.

        8N more flops than Adam a step; state: three tensors like the parameter.

    Example:
        >>> import torch
        >>> from gradworks.optim import DiffGrad
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> opt = DiffGrad([weight], lr=0.1)
        >>> for _ in range(2):
        ...     weight.grad = torch.tensor([100.0, 0.01])
        ...     opt.step()
        >>> weight.data  # a whole step and a half one; two half ones
        tensor([0.8500, 0.8998])

    References:
        "diffGrad: An Optimization Method for Convolutional Neural Networks", 2019,
        arXiv:1909.11015.
    """

    _buffers = ("exp_avg", "exp_avg_sq", "previous_grad")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decoupled_weight_decay: bool = False,
        friction_scale: str = "absolute",
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "friction_scale": friction_scale,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    @staticmethod
    def _check_settings(group: dict[str, Any]) -> None:
        """What DiffGrad takes beside what all do."""
        betas_of(group["betas"])
        flags(group, "decoupled_weight_decay")
        _friction_of(group["friction_scale"])
        if isinstance(group["lr"], Tensor) and group["foreach"] and not group["capturable"]:
            raise ValueError(
                "lr as a tensor needs capturable=True where foreach=True; give a number, or leave "
                "foreach out"
            )

    @staticmethod
    def _check_param(group: dict[str, Any], param: Tensor) -> None:
        """A sum that is still to be made has no step of its own."""
        refuse_partial(param)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take checkpoints of Adam, which keeps no previous gradient."""
        super().__setstate__(state)
        for param, found in self.state.items():
            if found and "previous_grad" not in found:
                found["previous_grad"] = torch.zeros_like(
                    param, memory_format=torch.preserve_format
                )

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
            params, grads, exp_avgs, exp_avg_sqs, previous_grads, steps = self._collect(group)
            diffgrad(
                params,
                grads,
                exp_avgs,
                exp_avg_sqs,
                previous_grads,
                steps,
                foreach=group["foreach"],
                fused=group["fused"],
                capturable=group["capturable"],
                differentiable=group["differentiable"],
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                eps=group["eps"],
                weight_decay=group["weight_decay"],
                decoupled_weight_decay=group["decoupled_weight_decay"],
                friction_scale=group["friction_scale"],
                maximize=group["maximize"],
            )
        return loss


def diffgrad(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    previous_grads: Sequence[Tensor],
    state_steps: Sequence[Tensor],
    *,
    foreach: bool | None = None,
    fused: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled_weight_decay: bool,
    maximize: bool,
    friction_scale: str = "absolute",
) -> None:
    """One step of DiffGrad on lists of tensors, in place; the arithmetic of :class:`DiffGrad`.

    Args:
        params: Parameters.
        grads: Their gradients.
        exp_avgs: First moments.
        exp_avg_sqs: Second moments.
        previous_grads: Gradients of the step before, with their L2 term.
        state_steps: Steps done so far, 0-d.
        foreach: Multi-tensor path.
        fused: One compiled kernel a tensor.
        capturable: ``state_steps`` are on the device.
        differentiable: Let autograd follow.
        lr: As in :class:`DiffGrad`, and so are all others.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: Added to the root.
        weight_decay: Decay.
        decoupled_weight_decay: Decay the weights, not the gradient.
        maximize: Ascend.
        friction_scale: ``"absolute"`` or ``"rms"``.

    Raises:
        ValueError: If ``friction_scale`` is neither.
        RuntimeError: If a CUDA graph is captured without ``capturable``.
    """  # noqa: DOC502
    _friction_of(friction_scale)
    path = choose_path(params, foreach=foreach, fused=fused, differentiable=differentiable)
    p, g, m, v, q = (list(x) for x in (params, grads, exp_avgs, exp_avg_sqs, previous_grads))
    to_real(p, g, m, v, q)
    refuse_capture("DiffGrad", p, capturable)
    if isinstance(lr, Tensor):
        lr = lr.squeeze()
    settings: dict[str, Any] = {
        "lr": lr,
        "beta1": beta1,
        "beta2": beta2,
        "eps": eps,
        "weight_decay": weight_decay,
        "decoupled": decoupled_weight_decay,
        "scale_free": friction_scale == "rms",
        "maximize": maximize,
        "traced": capturable or differentiable or torch.compiler.is_compiling(),
    }
    tensors = DiffGradTensors(p, g, m, v, q, list(state_steps))
    if path == "foreach":
        multi_tensor_diffgrad(tensors, **settings)
    elif path == "fused":
        fused_diffgrad(tensors, **settings)
    else:
        single_tensor_diffgrad(tensors, differentiable=differentiable, **settings)


def _friction_of(value: object) -> None:
    """Require one of the two scales."""
    if not isinstance(value, str):
        raise TypeError(f"friction_scale must be one of {FRICTIONS}, got {type(value).__name__}")
    if value not in FRICTIONS:
        raise ValueError(f"friction_scale must be one of {FRICTIONS}, got {value!r}")
