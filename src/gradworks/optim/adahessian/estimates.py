"""The estimates of a step: from the graph, from differences, or given; and when they are due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from gradworks.optim.adahessian.curvature import Probes, differences, from_graph, require_scalar
from gradworks.optim.checked import CheckedOptimizer
from gradworks.optim.sharded import is_sharded, local

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["CurvatureEstimates"]

_ASK = (
    "call optimizer.estimate(loss) in place of loss.backward(), or "
    "loss.backward(create_graph=True), before optimizer.step()"
)
_SHARDED = (
    "; gradients of sharded or replicated modules (FSDP2, DDP) keep no graph: use "
    "optimizer.estimate_from(closure) there"
)


class CurvatureEstimates(CheckedOptimizer):
    """An optimizer whose steps take z * Hz beside the gradients."""

    # GradScaler then tells the step its scale, which must not be guessed
    _step_supports_amp_scaling = True

    _n_samples: int
    _zero_curvature: Literal["raise", "allow"]
    _generator: torch.Generator | None
    _process_group: ProcessGroup | None

    def _forget(self) -> None:
        """Nothing is known of the step to come."""
        self._pending: dict[Tensor, Tensor] = {}
        self._probes: list[Probes] | None = None
        self._probed: list[Tensor] = []
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
        return every == 1 or state["hessian_step"].item() == 0 or state["step"].item() % every == 0

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
        """The step's probes: given, or drawn once and used again for the same parameters."""
        if vectors is not None:
            if self._n_samples != 1:
                raise ValueError("vectors are one probe; they go with n_samples=1")
            _require_like("vectors", vectors, params)
            return [list(vectors)]
        known = [id(p) for p in self._probed]
        if self._probes is None or known != [id(p) for p in params]:
            self._probes = [
                Probes(params, self._generator, self._process_group) for _ in range(self._n_samples)
            ]
            self._probed = list(params)
        return [probe.vectors(params) for probe in self._probes]

    def _add(self, params: Sequence[Tensor], products: Sequence[Tensor]) -> None:
        for p, found in zip(params, products):
            before = self._pending.get(p)
            # a new tensor: what set_hessian was given is the caller's
            self._pending[p] = found.detach() if before is None else before + found.detach()

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
        # copies, as backward() makes them: autograd gives several parameters one tensor
        found = [None if g is None else g.detach().clone() for g in grads]
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
        except BaseException:
            for p, g in zip(params, before):
                p.grad = g
            raise
        for p, g in zip(params, before):
            if g is not None:
                p.grad = g if p.grad is None else p.grad.add_(g)
        if due:
            self._add(params, products)
            self._origin = "estimate"
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset all gradients, and with them an estimate that was made beside them.

        Args:
            set_to_none: As in ``torch.optim``. What :meth:`set_hessian` gave stays.
        """
        super().zero_grad(set_to_none)
        if self._origin != "given":
            self._forget()

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

    def _ready_diagonals(self) -> list[list[Tensor | None] | None]:
        """For each group the estimates of the parameters with a gradient; None: skip the step.

        Raises:
            RuntimeError: If an estimate is due and there is none, nor a graph to make it from.
        """
        due = {
            p: self._due(group, p)
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None
        }
        still = all(not isinstance(g["lr"], Tensor) and g["lr"] == 0 for g in self.param_groups)
        graph = any(p.grad.requires_grad for p in due if p.grad is not None)
        try:
            # at lr 0 nothing moves: a warm-up's first step, or torch making state to load into
            if not self._pending and any(due.values()) and (graph or not still):
                self._from_gradients()
            if graph:  # a graph on .grad is a reference cycle: it would never be freed
                for p in due:
                    if p.grad is not None:
                        p.grad = p.grad.detach()
            if self._unscale():
                return [None] * len(self.param_groups)
            for p, wanted in due.items():
                if wanted and not still and p not in self._pending:
                    raise RuntimeError(
                        f"an estimate of the curvature is due for a parameter of shape "
                        f"{tuple(p.shape)} and there is none, though there are others: {_ASK}"
                    )
            return [
                [
                    local(self._pending[p], p) if due[p] and p in self._pending else None
                    for p in group["params"]
                    if p in due
                ]
                for group in self.param_groups
            ]
        finally:
            self._forget()


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
