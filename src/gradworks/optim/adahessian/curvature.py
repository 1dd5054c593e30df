"""Where z * Hz comes from: the graph of the gradients, or the difference of two gradients."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from gradworks.curvature.hutchinson import hessian_vector_product
from gradworks.curvature.probes import random_signs, shaped_like
from gradworks.optim.sharded import is_sharded

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Probes", "differences", "from_graph"]

ADVICE = (
    "; an operation of the model has no second derivative: for attention use "
    "torch.nn.attention.sdpa_kernel(SDPBackend.MATH), for recurrent layers on CUDA "
    "torch.backends.cudnn.flags(enabled=False), or estimate_from(closure)"
)
_NO_SECOND = re.compile(r"derivative for|double.?backward|not implemented|cudnn", re.IGNORECASE)


class Probes:
    """The signs of one step, drawn once for all its micro-batches; kept as one byte an entry."""

    def __init__(
        self,
        params: Sequence[Tensor],
        generator: torch.Generator | None,
        group: ProcessGroup | None,
    ) -> None:
        self._parts: list[tuple[list[int], Tensor]] = []
        for (device, sharded), run in itertools.groupby(
            enumerate(params), lambda pair: (pair[1].device, is_sharded(pair[1]))
        ):
            indices = [i for i, _ in run]
            if sharded:
                self._parts += [([i], self._scattered(params[i], generator)) for i in indices]
                continue
            # neighbours in one vector: one draw and one conversion
            count = sum(_whole_words(params[i]) for i in indices)
            signs = random_signs(count, device, torch.int8, generator)
            if group is not None:
                torch.distributed.broadcast(signs, group_src=0, group=group)
            self._parts.append((indices, signs))

    @staticmethod
    def _scattered(param: Tensor, generator: torch.Generator | None) -> Tensor:
        """Process 0's signs, scattered: one probe of the whole parameter."""
        from torch.distributed.tensor import distribute_tensor

        z = random_signs(param.numel(), param.device, torch.int8, generator).view(param.shape)
        mesh, placements = param.device_mesh, param.placements  # type: ignore[attr-defined]
        return distribute_tensor(z, mesh, placements)

    def vectors(self, params: Sequence[Tensor]) -> list[Tensor]:
        """The probe in the parameters' types."""
        found: list[Tensor] = []
        for indices, signs in self._parts:
            if is_sharded(signs):
                found.append(signs.to(params[indices[0]].dtype))
                continue
            wide = {dtype: signs.to(dtype) for dtype in {params[i].dtype for i in indices}}
            begin = 0
            for p in (params[i] for i in indices):
                found.append(shaped_like(wide[p.dtype][begin : begin + p.numel()], p))
                begin += _whole_words(p)
        return found


def _whole_words(param: Tensor) -> int:
    """Signs that a parameter draws: 64 a word, as it would alone and as it does where sharded."""
    return -(-param.numel() // 64) * 64


def from_graph(
    grads: Sequence[Tensor | None],
    params: Sequence[Tensor],
    samples: Sequence[Sequence[Tensor]],
    *,
    zero_curvature: Literal["raise", "allow"],
    retain_graph: bool,
) -> list[Tensor]:
    """Mean over samples of z * Hz, one product for all parameters together.

    Args:
        grads: Gradients with their graph; None where the loss does not depend on a parameter.
        params: The parameters.
        samples: Probes.
        zero_curvature: What to do about a gradient that depends on no parameter.
        retain_graph: Keep the graph at the end.

    Raises:
        RuntimeError: If a gradient is constant, or there is no second derivative.
    """
    known = [i for i, g in enumerate(grads) if g is not None]
    constant = [i for i in known if not grads[i].requires_grad]  # type: ignore[union-attr]

    def refuse(unused: list[int]) -> None:
        """A parameter with a gradient that nothing leads to from the gradients."""
        found = [i for i in unused if i in known]
        if found and zero_curvature == "raise":
            i = found[0]
            raise RuntimeError(
                f"the gradient of parameter {i} of shape {tuple(params[i].shape)} depends on no "
                "parameter: the loss is linear in it, or an operation hides its second derivative "
                "(estimate_from(closure) needs none). A step would be divided by eps; "
                "zero_curvature='allow' takes its curvature as zero"
            )

    refuse(constant)
    total: list[Tensor] | None = None
    for i, z in enumerate(samples):
        if len(constant) == len(known):
            products = [torch.zeros_like(p) for p in params]
        else:
            try:
                products = hessian_vector_product(
                    grads,
                    params,
                    z,
                    retain_graph=retain_graph or i + 1 < len(samples),
                    check_finite=False,
                    unused=refuse,
                )
            except RuntimeError as error:
                if ADVICE not in str(error) and _NO_SECOND.search(str(error)):
                    raise RuntimeError(f"{error}{ADVICE}") from error
                raise
        found = [v * h for v, h in zip(z, products)]
        total = found if total is None else [a.add_(b) for a, b in zip(total, found)]
    if total is not None and len(samples) > 1:
        torch._foreach_div_(total, len(samples))
    return total or []


def _random_numbers(params: Sequence[Tensor]) -> Callable[[], None]:
    """A function that winds torch's random numbers back to where they are now."""
    accelerators = sorted({p.device for p in params if p.device.type != "cpu"}, key=str)
    cpu = torch.get_rng_state()
    module = getattr(torch, accelerators[0].type) if accelerators else None
    states = [module.get_rng_state(d) for d in accelerators] if module else []

    def rewind() -> None:
        torch.set_rng_state(cpu)
        for device, state in zip(accelerators, states):
            module.set_rng_state(state, device)  # type: ignore[union-attr]

    return rewind


def differences(
    closure: Callable[[], Tensor],
    params: Sequence[Tensor],
    samples: Sequence[Sequence[Tensor]],
    h: float,
    module: nn.Module | None,
) -> tuple[Tensor, list[Tensor]]:
    """Gradients into ``.grad`` and the mean of z * (g(w + h z) - g(w)) / h; weights are restored.

    Args:
        closure: Returns the loss without calling ``backward``.
        params: The parameters, float32 or float64.
        samples: Probes.
        h: Step relative to the larger of 1 and the root mean square of all weights.
        module: Whose buffers (running statistics) the further passes leave alone.

    Returns:
        The loss, and z * Hz.
    """
    for p in params:
        p.grad = None
    rewind = _random_numbers(params)
    loss = _backward(closure)
    first = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
    used = [p.grad is not None for p in params]
    size = _step_size(params, h)
    weights = [p.detach().clone() for p in params]
    buffers = [] if module is None else [(b, b.detach().clone()) for b in module.buffers()]
    total = [torch.zeros_like(p) for p in params]
    try:
        for z in samples:
            with torch.no_grad():
                for p, w, v in zip(params, weights, z):
                    p.copy_(w + size * v)
                    p.grad = None
            rewind()
            _backward(closure)
            with torch.no_grad():
                for t, p, g, v in zip(total, params, first, z):
                    if p.grad is not None:
                        t.add_(v * (p.grad - g) / (size * len(samples)))
    finally:
        with torch.no_grad():
            for p, w in zip(params, weights):
                p.copy_(w)
            for buffer, value in buffers:
                buffer.copy_(value)
        for p, g, was in zip(params, first, used):
            p.grad = g if was else None
    return loss, total


def _backward(closure: Callable[[], Tensor]) -> Tensor:
    with torch.enable_grad():
        loss = closure()
        require_scalar(loss)
        torch.autograd.backward(loss)
    return loss.detach()


def require_scalar(loss: object) -> None:
    """Require a loss with a graph.

    Raises:
        TypeError: If it is no tensor.
        RuntimeError: If it is no scalar or has no graph.
    """
    if not isinstance(loss, Tensor):
        raise TypeError(f"loss must be a tensor, got {type(loss).__name__}")
    if loss.numel() != 1:
        raise RuntimeError(f"loss must be a scalar, got shape {tuple(loss.shape)}")
    if not loss.requires_grad:
        raise RuntimeError("loss has no graph: it was computed under no_grad or detached")


def _step_size(params: Sequence[Tensor], h: float) -> Tensor:
    """``h max(1, rms of all weights)``, 0-d, on their device: nothing waits for it."""
    norms = [torch.linalg.vector_norm(p.detach()) for p in params]
    whole = [n.full_tensor() if is_sharded(n) else n for n in norms]
    count = sum(p.numel() for p in params)
    square = torch.stack([n.to(whole[0]) for n in whole]).square().sum()
    return h * (square / max(count, 1)).sqrt().clamp_min(1.0)
