"""AdaHessian: the optimizer, and its three ways to learn the curvature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from gradworks.optim.adahessian.averaging import Averaging, check_averaging, check_shape
from gradworks.optim.adahessian.curvature import Probes, differences, from_graph, require_scalar
from gradworks.optim.adahessian.paths import (
    HessianTensors,
    multi_tensor_adahessian,
    single_tensor_adahessian,
)
from gradworks.optim.arguments import betas_of, in_interval
from gradworks.optim.checked import CheckedOptimizer
from gradworks.optim.sharded import is_sharded, local
from gradworks.optim.tensors import choose_path

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["AdaHessian"]

_ASK = (
    "call optimizer.estimate(loss) in place of loss.backward(), or "
    "loss.backward(create_graph=True), before optimizer.step()"
)
_SHARDED = (
    "; gradients of sharded or replicated modules (FSDP2, DDP) keep no graph: use "
    "optimizer.estimate_from(closure) there"
)


class AdaHessian(CheckedOptimizer):
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
        the estimate.

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
        state["hessian_step"] = 0  # a number: a loaded tensor would take the parameter's dtype

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles begin without an estimate, and draw from a generator of their own."""
        generator = None if self._generator is None else self._generator.get_state()
        return {
            **super().__getstate__(),
            "_n_samples": self._n_samples,
            "_zero_curvature": self._zero_curvature,
            "_generator_state": generator,
            "_generator_device": None if self._generator is None else self._generator.device.type,
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
                    found["hessian_step"] = int(found.get("hessian_step", found["step"]))

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
        super().load_state_dict(dict(state_dict))
        if self._generator is not None and "generator" in state_dict:
            self._generator.set_state(state_dict["generator"].cpu())
        self._forget()

    # -- the estimate --------------------------------------------------------------------------

    def _forget(self) -> None:
        """Nothing is known of the step to come."""
        self._pending: dict[Tensor, Tensor] = {}
        self._probes: list[Probes] | None = None
        self._origin: Literal["none", "estimate", "given", "graph"] = "none"
        self._unscaled = False

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    def _due(self, group: dict[str, Any], param: Tensor) -> bool:
        """Whether the parameter's next step takes a new estimate; its first one always does."""
        state = self.state.get(param)
        if not state:
            return True
        every: int = group["update_each"]
        return every == 1 or state["hessian_step"] == 0 or state["step"].item() % every == 0

    @property
    def needs_hessian(self) -> bool:
        """Whether the next step takes a new estimate of any parameter."""
        return any(
            self._due(group, p)
            for group in self.param_groups
            for p in group["params"]
            if p.requires_grad
        )

    def _samples(
        self, params: Sequence[Tensor], vectors: Sequence[Tensor] | None
    ) -> list[list[Tensor]]:
        """The step's probes: given, or drawn once and used again."""
        if vectors is not None:
            if self._n_samples != 1:
                raise ValueError("vectors are one probe; they go with n_samples=1")
            _require_like("vectors", vectors, params)
            return [list(vectors)]
        if self._probes is None:
            self._probes = [
                Probes(params, self._generator, self._process_group) for _ in range(self._n_samples)
            ]
        return [probe.vectors(params) for probe in self._probes]

    def _add(self, params: Sequence[Tensor], products: Sequence[Tensor]) -> None:
        for p, found in zip(params, products):
            before = self._pending.get(p)
            self._pending[p] = found.detach() if before is None else before.add_(found.detach())

    def estimate(
        self, loss: Tensor, *, vectors: Sequence[Tensor] | None = None, retain_graph: bool = False
    ) -> None:
        """Compute gradients and, if one is due, the estimate: in place of ``loss.backward()``.

        Adds to ``.grad`` and to the estimate: called for each micro-batch, with the same probe, the
        sums are those of the summed loss. No graph outlives it unless it is kept.

        Args:
            loss: A scalar with its graph; not scaled.
            vectors: The probe, one a parameter that requires a gradient, in the groups' order;
                None draws one.
            retain_graph: Keep the graph of the loss.

        Raises:
            TypeError: If the loss is no tensor.
            ValueError: If ``vectors`` do not match the parameters.
            RuntimeError: If the loss is no scalar or has no graph, if it is linear in a parameter
                (``zero_curvature="raise"``), or an operation has no second derivative.
        """  # noqa: DOC502
        require_scalar(loss)
        params = self._parameters()
        due = self.needs_hessian
        with torch.enable_grad():
            grads = torch.autograd.grad(
                loss.reshape(()),
                params,
                create_graph=due,
                retain_graph=due or retain_graph,
                allow_unused=True,
            )
            products: list[Tensor] = []
            if due:
                products = from_graph(
                    grads,
                    params,
                    self._samples(params, vectors),
                    zero_curvature=self._zero_curvature,
                    retain_graph=retain_graph,
                )
        found = [None if g is None else g.detach() for g in grads]
        if self._process_group is not None:
            self._average([g for g in found if g is not None] + products)
        for p, g in zip(params, found):
            if g is not None:
                p.grad = g if p.grad is None else p.grad.detach().add_(g)
        if due:
            self._add(params, products)
            self._origin = "estimate"

    def _average(self, tensors: list[Tensor]) -> None:
        """Mean over the replicas, all tensors of a type in one reduction."""
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            same = [t for t in tensors if t.dtype == dtype]
            flat = torch.cat([t.reshape(-1) for t in same])
            torch.distributed.all_reduce(flat, group=self._process_group)
            flat /= torch.distributed.get_world_size(self._process_group)
            for t, part in zip(same, torch.split(flat, [t.numel() for t in same])):
                t.copy_(part.view_as(t))

    def estimate_from(
        self, closure: Callable[[], Tensor], *, h: float = 1e-3, module: nn.Module | None = None
    ) -> Tensor:
        """Gradients, and the estimate from their difference at a second point: no double backward.

        One forward and backward pass more. Works under FSDP2, DDP and ``torch.compile``, and with
        fused attention or cuDNN's recurrent layers. The closure is called with the random numbers
        of its first call, so that dropout is the same.

        Args:
            closure: Returns the loss of the same batch each time, without calling ``backward``.
            h: Distance, relative to the larger of 1 and the weights' root mean square; above 0.
            module: The model, whose buffers (running statistics) only the first pass changes.

        Returns:
            The loss, detached.

        Raises:
            ValueError: If ``h`` is not above 0.
            TypeError: If the closure does not return a tensor.
            RuntimeError: If the loss is no scalar, or parameters have 16 bits.
        """  # noqa: DOC502
        if not h > 0:
            raise ValueError(f"h must be above 0, got {h}")
        params = self._parameters()
        for p in params:
            if p.dtype in (torch.float16, torch.bfloat16):
                raise RuntimeError(
                    f"estimate_from needs float32 parameters: in {p.dtype} weights h apart are "
                    "equal; keep float32 parameters and use autocast"
                )
        before = [None if p.grad is None else p.grad.detach().clone() for p in params]
        due = self.needs_hessian
        samples = self._samples(params, None) if due else []
        try:
            loss, products = differences(closure, params, samples, h, module)
        finally:
            for p, g in zip(params, before):
                if g is not None:
                    p.grad = g if p.grad is None else p.grad.add_(g)
        if due:
            self._add(params, products)
            self._origin = "estimate"
        return loss

    def set_hessian(self, diagonals: Sequence[Tensor]) -> None:
        """Give the estimate for the next step, before absolute value and averaging.

        Args:
            diagonals: One for each parameter that has a gradient, in the groups' order.

        Raises:
            TypeError: If one is no tensor.
            ValueError: If their number or a shape does not match.
        """  # noqa: DOC502
        params = [p for p in self._parameters() if p.grad is not None]
        _require_like("diagonals", diagonals, params)
        self._pending = {p: d.detach() for p, d in zip(params, diagonals)}
        self._origin = "given"

    @torch.no_grad()
    def unscale_hessian_(self, scale: float | Tensor) -> None:
        """Divide the estimate by a loss scale: before ``scaler.step`` after a scaled ``backward``.

        Args:
            scale: ``scaler.get_scale()``.

        Raises:
            RuntimeError: If there is neither an estimate nor a graph to make one from.
        """  # noqa: DOC502
        if not self._pending and self.needs_hessian:
            self._from_gradients()
        for p, found in self._pending.items():
            self._pending[p] = found / scale
        self._unscaled = True

    def _from_gradients(self) -> None:
        """The estimate from gradients that kept their graph.

        Raises:
            RuntimeError: If they kept none.
        """
        params = [p for p in self._parameters() if p.grad is not None]
        grads = [p.grad for p in params]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.grad.layout != torch.strided:
                    return  # refused by name in the step
        if not any(g.requires_grad for g in grads if g is not None):
            sharded = any(is_sharded(p) for p in params) or torch.distributed.is_initialized()
            raise RuntimeError(
                f"an estimate of the curvature is due and the gradients have no graph: {_ASK}"
                f"{_SHARDED if sharded else ''}"
            )
        with torch.enable_grad():
            products = from_graph(
                grads,
                params,
                self._samples(params, None),
                zero_curvature=self._zero_curvature,
                retain_graph=False,
            )
        self._add(params, products)
        self._origin = "graph"

    # -- the step ------------------------------------------------------------------------------

    # GradScaler then tells the step its scale, which must not be guessed
    _step_supports_amp_scaling = True

    def _unscale(self) -> bool:
        """What ``scaler.step`` asks for; whether the step is to be skipped."""
        found_inf = getattr(self, "found_inf", None)
        if found_inf is None:
            return False
        if bool(found_inf):
            return True
        if self._origin == "graph" and not self._unscaled:
            raise RuntimeError(
                "the estimate comes from a scaled loss: call "
                "optimizer.unscale_hessian_(scaler.get_scale()) before scaler.step(optimizer)"
            )
        scale = getattr(self, "grad_scale", None)
        if scale is not None:
            if self._origin == "estimate":
                raise RuntimeError(
                    "estimate() takes the unscaled loss, so that its gradients are not to be "
                    "unscaled: call optimizer.step() itself"
                )
            for p in self._parameters():
                if p.grad is not None:
                    p.grad = p.grad.detach().div(scale.to(p.grad.device))
        return False

    def _any_due(self) -> bool:
        """Whether a parameter with a gradient is due."""
        return any(
            p.grad is not None and self._due(group, p)
            for group in self.param_groups
            for p in group["params"]
        )

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
        still = all(not isinstance(g["lr"], Tensor) and g["lr"] == 0 for g in self.param_groups)
        graph = any(p.grad is not None and p.grad.requires_grad for p in self._parameters())
        # at lr 0 nothing moves: a warm-up's first step, or torch making state to load into
        if not self._pending and self._any_due() and (graph or not still):
            self._from_gradients()
        if graph:  # a graph on .grad is a reference cycle: it would never be freed
            for p in self._parameters():
                if p.grad is not None:
                    p.grad = p.grad.detach()
        try:
            if not self._unscale():
                for group in self.param_groups:
                    self._step_group(group)
        finally:
            self._forget()
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        due = {p: self._due(group, p) for p in group["params"] if p.grad is not None}
        params, grads, exp_avgs, exp_sqs, steps = self._collect(group)
        lr = group["lr"].squeeze() if isinstance(group["lr"], Tensor) else group["lr"]
        diagonals = [
            local(self._pending[p], p) if due[p] and p in self._pending else None for p in params
        ]
        for p, D in zip(params, diagonals):
            self.state[p]["hessian_step"] += D is not None
        tensors = HessianTensors(
            [local(p) for p in params],
            [local(g, p) for g, p in zip(grads, params)],
            [local(m, p) for m, p in zip(exp_avgs, params)],
            [local(v, p) for v, p in zip(exp_sqs, params)],
            steps,
            [self.state[p]["hessian_step"] for p in params],
            diagonals,
        )
        path = choose_path(params, foreach=group["foreach"], fused=None, differentiable=False)
        take = multi_tensor_adahessian if path == "foreach" else single_tensor_adahessian
        take(
            tensors,
            lr=lr,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            hessian_power=group["hessian_power"],
            averaging=group["averaging"],
            maximize=group["maximize"],
        )


def _require_like(name: str, given: Sequence[Tensor], params: Sequence[Tensor]) -> None:
    """One tensor a parameter, in its shape."""
    found = list(given)
    if len(found) != len(params):
        raise ValueError(f"{name} must be {len(params)} tensors, got {len(found)}")
    for i, (tensor, param) in enumerate(zip(found, params)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}[{i}] must be a tensor, got {type(tensor).__name__}")
        if tensor.shape != param.shape:
            raise ValueError(
                f"{name}[{i}] must have shape {tuple(param.shape)}, got {tuple(tensor.shape)}"
            )
