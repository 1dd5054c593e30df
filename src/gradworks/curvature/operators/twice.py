"""Second derivatives that torch does not have, or has wrong: found before they give zeros.

Three things happen in practice. An operation raises (``cdist``, ``ctc_loss``, fused kernels,
compiled code). A custom ``Function`` marked ``once_differentiable`` breaks the graph: asked for the
derivatives by some tensors, autograd never gets to its error and the product is zero, silently. And
weight normalisation takes its norms for constants the second time (seen with torch 2.13): the
product is wrong, silently.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = [
    "SecondDerivativeError",
    "eager_code",
    "has_weight_norm",
    "look_for_breaks",
    "recurrent_kernels",
    "require_graph",
    "say_what_is_missing",
    "unwrapped",
    "whole_weight_norm",
]

# How torch words it, in its own releases and in extensions.
_WORDS = (
    "derivative for",
    "double backward",
    "double-backward",
    "differentiate twice",
)
_BREAK = "torch::autograd::Error"


class SecondDerivativeError(RuntimeError):
    """An operation of the model or the loss has no second derivative."""


def _refusal(cause: str) -> SecondDerivativeError:
    """The error with what to do."""
    return SecondDerivativeError(
        f"no second derivative: {cause}; pass method='finite_difference', which takes two "
        "gradients for a product, or replace the operation"
    )


@contextmanager
def say_what_is_missing() -> Iterator[None]:
    """Turn torch's many errors about missing second derivatives into one with advice."""
    try:
        yield
    except SecondDerivativeError:
        raise
    except RuntimeError as error:  # NotImplementedError is one
        text = str(error)
        if any(words in text.lower() for words in _WORDS):
            raise _refusal(text.splitlines()[0].rstrip(". ")) from error
        raise


def require_graph(loss: Tensor) -> None:
    """A loss without a graph has no derivative.

    Args:
        loss: The loss, or outputs.

    Raises:
        ValueError: It has none.
    """
    if not loss.requires_grad:
        raise ValueError(
            "the loss does not depend on any selected parameter through autograd; "
            "look for detach(), no_grad() or .item() in the model, the loss or the closure"
        )


def look_for_breaks(grads: Sequence[Tensor | None]) -> None:
    """Refuse a graph of gradients in which an operation stands that is differentiable once.

    Args:
        grads: Gradients with their graph.

    Raises:
        SecondDerivativeError: There is one.
    """  # noqa: DOC502
    waiting: list[Any] = [g.grad_fn for g in grads if g is not None and g.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name() == _BREAK:
            raise _refusal(
                "a torch.autograd.Function of the model or the loss is marked once_differentiable"
            )
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


def has_weight_norm(model: nn.Module) -> bool:
    """Whether a model normalises weights, by parametrisation or by the older hook.

    Args:
        model: The model.

    Returns:
        The answer.
    """
    kinds = {"_WeightNorm", "WeightNorm"}
    return any(
        type(m).__name__ in kinds
        or any(type(hook).__name__ in kinds for hook in m._forward_pre_hooks.values())
        for m in model.modules()
    )


class _WholeWeightNorm(TorchFunctionMode):
    """Weight normalisation written out, so that its norms count as functions of the weights."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch._weight_norm:
            return _weight_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """G v / |v| with norms over all dimensions but one (-1: over all)."""
    if dim == -1:
        return v * (g / v.square().sum().sqrt())
    others = [d for d in range(v.dim()) if d != dim]
    return v * (g / v.square().sum(others, keepdim=True).sqrt())


def whole_weight_norm(wanted: bool) -> AbstractContextManager[Any]:
    """Weight normalisation with its whole second derivative.

    Args:
        wanted: Nothing is intercepted otherwise; a call of torch costs a little more within.

    Returns:
        The context.
    """
    return _WholeWeightNorm() if wanted else nullcontext()


def recurrent_kernels(model: nn.Module, device: torch.device) -> AbstractContextManager[Any]:
    """Recurrent layers without cuDNN, which has no second derivative, nor a first in eval mode.

    Args:
        model: The model.
        device: Where it is.

    Returns:
        The context; empty for other models and devices.
    """
    if device.type != "cuda" or not any(isinstance(m, nn.RNNBase) for m in model.modules()):
        return nullcontext()
    flags: AbstractContextManager[Any] = torch.backends.cudnn.flags(enabled=False)
    return flags


def eager_code() -> AbstractContextManager[Any]:
    """Compiled modules and functions run as they were written: compiled ones derive only once.

    Returns:
        The context; empty where nothing can have been compiled yet.
    """
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside ``DistributedDataParallel`` and ``torch.compile``, in any order.

    Args:
        model: The model.

    Returns:
        The one that was wrapped.
    """
    while True:
        inner = (
            model.module
            if isinstance(model, nn.parallel.DistributedDataParallel)
            else getattr(model, "_orig_mod", None)
        )
        if not isinstance(inner, nn.Module):
            return model
        model = inner
