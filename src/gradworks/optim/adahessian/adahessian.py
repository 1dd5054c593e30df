"""AdaHessian: the optimizer, and its three ways to learn the curvature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from gradworks.optim.adahessian.averaging import Averaging, check_averaging, check_shape
from gradworks.optim.adahessian.estimates import CurvatureEstimates
from gradworks.optim.adahessian.paths import (
    HessianTensors,
    multi_tensor_adahessian,
    single_tensor_adahessian,
)
from gradworks.optim.arguments import betas_of, in_interval
from gradworks.optim.checked import load_with_hooks
from gradworks.optim.sharded import local
from gradworks.optim.steps import new_step, restored_step
from gradworks.optim.tensors import choose_path

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["AdaHessian"]


_PASSED = ("eps", "weight_decay", "hessian_power", "averaging", "maximize")


class AdaHessian(CurvatureEstimates):
    r"""Adam whose denominator is an estimate of the Hessian's diagonal, smoothed in space and time.

    One product of the Hessian with random signs z a step, about two further backward passes. For
    problems in which curvature differs much between weights; robust to the learning rate, whose
    default carries over between networks. At equal tuning AdamW reaches similar accuracies sooner.

    .. math::
        D_t &= \operatorname{average}(|z \odot H z|), \qquad
        m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) D_t^2 \\
        p_t &= p_{t-1} - \eta \left( \frac{m_t / (1 - \beta_1^t)}
            {(\sqrt{v_t} / \sqrt{1 - \beta_2^t})^k + \epsilon} + \lambda p_{t-1} \right)

    Three ways to use it: ``opt.estimate(loss)`` in place of ``loss.backward()`` (recommended: no
    graph outlives it); ``loss.backward(create_graph=True)``; or :meth:`set_hessian` with an
    estimate of your own. :meth:`estimate_from` needs no second derivative.

    Args:
        params: Real parameters or groups.
        lr: Step :math:`\eta`, at least 0; 0.15 (authors' code).
        betas: Decay of the two moments, each in [0, 1); (0.9, 0.999).
        eps: Added after the power, at least 0; 1e-4. Weights without curvature (dead units) are
            stepped by ``lr / eps`` times their momentum: do not lower it.
        weight_decay: Decoupled decay :math:`\lambda`, at least 0; 0.
        hessian_power: k in [0, 1]; 1. 0 is SGD with bias-corrected momentum.
        averaging: ``"spatial"`` (the default: over the kernel of convolutions), ``"row"`` (also
            over the second dimension of matrices), ``"none"``, or ``{ndim: block}``: means of
            consecutive elements.
        update_each: Estimate at steps 1, n + 1, 2 n + 1, ...; at least 1.
        n_samples: Probes an estimate, at least 1; 1 (the paper). More are averaged with their sign,
            which does converge to the diagonal.
        generator: Of the probes, on the parameters' device; None: torch's global one. Its state is
            kept in ``state_dict``.
        zero_curvature: ``"raise"`` for a parameter in which the loss is linear, or ``"allow"``.
        maximize: Ascend instead.
        foreach: Multi-tensor path; None: on accelerators.
        process_group: Replicas that train on parts of a batch: :meth:`estimate` draws one probe for
            all and averages gradients and products over them. Call it on the bare module.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a number is out of range, or a block does not divide a parameter.
        RuntimeError: If a parameter is complex, or a gradient sparse.

    Note:
        With one probe and no averaging, v estimates the squared norm of a row of the Hessian, not
        its squared diagonal entry: :math:`E (Hz)_i^2 = \sum_j H_{ij}^2`.

        ``GradScaler``: give :meth:`estimate` the unscaled loss and call ``opt.step()``; after
        ``scaler.scale(loss).backward(create_graph=True)`` call
        ``opt.unscale_hessian_(scaler.get_scale())`` before ``scaler.step(opt)``.

        A gradient or product with NaN or infinity is stepped with, as in ``torch.optim``.

        State: two tensors like the parameter. A checkpoint between ``estimate`` and ``step`` loses
        the estimate. Copies and pickles have a generator of their own and no ``process_group``.

    Example:
        >>> import torch
        >>> from gradworks.optim import AdaHessian
        >>> _ = torch.manual_seed(0)
        >>> w = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        >>> opt = AdaHessian([w], lr=1.0, betas=(0.0, 0.0), eps=0.0)
        >>> opt.estimate((torch.tensor([1.0, 100.0]) * w**2).sum())
        >>> opt.step()
        >>> w.tolist()
        [0.0, 0.0]

    References:
        "ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning", 2020,
        arXiv:2006.00719.
    """

    _buffers = ("exp_avg", "exp_hessian_diag_sq")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.15,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-4,
        weight_decay: float = 0.0,
        hessian_power: float = 1.0,
        averaging: Averaging = "spatial",
        *,
        update_each: int = 1,
        n_samples: int = 1,
        generator: torch.Generator | None = None,
        zero_curvature: Literal["raise", "allow"] = "raise",
        maximize: bool = False,
        foreach: bool | None = None,
        process_group: ProcessGroup | None = None,
    ) -> None:
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
        if process_group is not None and not _is_process_group(process_group):
            raise TypeError(
                f"process_group must be a ProcessGroup or None, got {type(process_group).__name__}"
            )
        if zero_curvature not in ("raise", "allow"):
            raise ValueError(f"zero_curvature must be 'raise' or 'allow', got {zero_curvature!r}")
        self._check_count("n_samples", n_samples)
        self._n_samples = n_samples
        self._zero_curvature: Literal["raise", "allow"] = zero_curvature
        self._generator = generator
        self._process_group = process_group
        self._forget()
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "hessian_power": hessian_power,
            "averaging": averaging,
            "update_each": update_each,
            "maximize": maximize,
            "foreach": foreach,
        }
        super().__init__(params, defaults)

    @staticmethod
    def _check_count(name: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")

    @classmethod
    def _check_settings(cls, group: dict[str, Any]) -> None:
        """What AdaHessian takes beside what all do."""
        betas_of(group["betas"])
        in_interval("hessian_power", group["hessian_power"], closed=True)
        check_averaging(group["averaging"])
        cls._check_count("update_each", group["update_each"])

    @staticmethod
    def _check_param(group: dict[str, Any], param: Tensor) -> None:
        """Real, and divided by its blocks."""
        if param.is_complex():
            raise RuntimeError(
                f"AdaHessian does not take complex parameters, got one of shape "
                f"{tuple(param.shape)}; a Hessian in signs z needs torch.view_as_real"
            )
        check_shape(group["averaging"], param)

    def _start(self, group: dict[str, Any], param: Tensor, state: dict[str, Any]) -> None:
        """Estimates are counted apart from steps."""
        super()._start(group, param, state)
        state["hessian_step"] = new_step(param, group)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles begin without an estimate, and draw from a generator of their own."""
        generator = None if self._generator is None else self._generator.get_state()
        return {
            **super().__getstate__(),
            "_n_samples": self._n_samples,
            "_zero_curvature": self._zero_curvature,
            "_generator_state": generator,
            "_generator_device": None if self._generator is None else str(self._generator.device),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take checkpoints of the authors' code, which counts no estimates."""
        generator = state.pop("_generator_state", None)
        device = state.pop("_generator_device", None)
        if not hasattr(self, "_pending"):
            self._process_group = None
            self._generator = None
            if generator is not None:
                self._generator = torch.Generator(device=device)
                self._generator.set_state(generator)
            self._forget()
        super().__setstate__(state)
        for group in self.param_groups:
            for param in group["params"]:
                found = self.state.get(param)
                if found:
                    count = found.get("hessian_step", float(found["step"]))
                    found["hessian_step"] = restored_step(count, param, group)

    def state_dict(self) -> dict[str, Any]:
        """State, groups and, where one was given, the generator's state."""
        found = super().state_dict()
        if self._generator is not None:
            found["generator"] = self._generator.get_state()
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; its generator's state too.

        Args:
            state_dict: From :meth:`state_dict`, or of the authors' code.
        """
        state_dict = load_with_hooks(self, super().load_state_dict, dict(state_dict))
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            for param, key in zip(group["params"], saved["params"], strict=True):
                # torch casts all state but `step` to the parameter's dtype and device
                count = state_dict["state"].get(key, {}).get("hessian_step")
                if count is not None:
                    value = torch.tensor(float(count), dtype=torch.float32)
                    self.state[param]["hessian_step"] = value
        if self._generator is not None and "generator" in state_dict:
            self._generator.set_state(state_dict["generator"].cpu())
        self._forget()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one step.

        Args:
            closure: Reevaluates the model, calls :meth:`estimate` or
                ``backward(create_graph=True)``, and returns the loss.

        Returns:
            The closure's loss, or None.

        Raises:
            RuntimeError: If an estimate is due and there is none, nor a graph to make it from.
        """  # noqa: DOC502
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for path, tensors, settings in self._prepared():
            # torch 2.13 cannot compile means into _foreach; one at a time is as fast there
            if path == "foreach" and not torch.compiler.is_compiling():
                multi_tensor_adahessian(tensors, **settings)
            else:
                single_tensor_adahessian(tensors, **settings)
        return loss

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it decides by counts and gradients
    def _prepared(self) -> list[tuple[str, HessianTensors, dict[str, Any]]]:
        """For each group that is stepped: its path, plain tensors and settings."""
        found = []
        for group, diagonals in zip(self.param_groups, self._ready_diagonals()):
            if diagonals is None:
                continue
            params, grads, exp_avgs, exp_sqs, steps = self._collect(group)
            tensors = HessianTensors(
                [local(p) for p in params],
                [local(g, p) for g, p in zip(grads, params)],
                [local(m, p) for m, p in zip(exp_avgs, params)],
                [local(v, p) for v, p in zip(exp_sqs, params)],
                steps,
                [self.state[p]["hessian_step"] for p in params],
                diagonals,
            )
            settings = {
                "lr": group["lr"].squeeze() if isinstance(group["lr"], Tensor) else group["lr"],
                "beta1": group["betas"][0],
                "beta2": group["betas"][1],
                **{name: group[name] for name in _PASSED},
            }
            path = choose_path(params, foreach=group["foreach"], fused=None, differentiable=False)
            found.append((path, tensors, settings))
        return found


def _is_process_group(value: object) -> bool:
    return torch.distributed.is_available() and isinstance(value, torch.distributed.ProcessGroup)
