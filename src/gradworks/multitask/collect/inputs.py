"""What the driver accepts: parameters and losses, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

__all__ = ["Losses", "checked_heads", "checked_shared", "named_losses"]

Losses = Sequence[Tensor] | Mapping[str, Tensor]


def checked_shared(shared: Iterable[Parameter]) -> list[Parameter]:
    """Parameters of the trunk that take a gradient.

    Args:
        shared: As the user gave them.

    Returns:
        A list; parameters that need no gradient are left out.

    Raises:
        TypeError: If one is no tensor or is complex.
        ValueError: If none is left, or they lie on several devices.
    """  # noqa: DOC502
    found = [p for p in _tensors(shared, "shared") if p.requires_grad]
    if not found:
        raise ValueError("shared holds no parameter that requires a gradient")
    devices = sorted({str(p.device) for p in found})
    if len(devices) > 1:
        raise ValueError(
            f"shared parameters lie on several devices: {', '.join(devices)}; the rows need one"
        )
    return found


def checked_heads(
    heads: Mapping[str, Iterable[Parameter]] | None, shared: Sequence[Parameter]
) -> dict[str, list[Parameter]]:
    """Parameters of each head that take a gradient.

    Args:
        heads: As the user gave them.
        shared: The trunk's.

    Returns:
        Lists by the name of the task.

    Raises:
        TypeError: If ``heads`` is no mapping, or one parameter is no tensor or complex.
        ValueError: If a parameter occurs twice.
    """
    if heads is not None and not isinstance(heads, Mapping):
        raise TypeError(
            f"heads must map the name of each task to its parameters, got {type(heads).__name__}"
        )
    found = {
        str(name): [p for p in _tensors(params, f"head {name!r}") if p.requires_grad]
        for name, params in (heads or {}).items()
    }
    owner: dict[int, str] = {}
    for where, params in [("shared", shared), *((f"head {n!r}", p) for n, p in found.items())]:
        for param in params:
            first = owner.setdefault(id(param), where)
            if first != where or sum(q is param for q in params) > 1:
                places = where if first == where else f"{first} and {where}"
                raise ValueError(
                    f"a parameter of shape {tuple(param.shape)} occurs twice, in {places}; shared "
                    "and heads must not overlap"
                )
    return found


def named_losses(losses: Losses, heads: Mapping[str, object]) -> dict[str, Tensor]:
    """Losses by name.

    Args:
        losses: As the user gave them; a sequence takes the names of the heads, or its numbers.
        heads: The heads of the driver, by name.

    Returns:
        Scalars with a graph, in the order of the rows.

    Raises:
        TypeError: If a loss is no tensor, or ``losses`` is one.
        ValueError: If there is none, one is no scalar or has no graph, or their number is another
            than that of the heads, or two names are the same text.
    """
    given: object = losses
    if isinstance(given, Tensor) or not isinstance(given, Mapping | Sequence):
        raise TypeError(
            f"losses must be a list or a mapping of scalars, got {type(given).__name__}; "
            "a stacked tensor can be given as list(losses)"
        )
    if isinstance(losses, Mapping):
        named = {}
        for name, loss in losses.items():
            if str(name) in named:
                raise ValueError(f"two losses are called {str(name)!r}; names must differ as text")
            named[str(name)] = loss
    elif heads and len(losses):
        if len(losses) != len(heads):
            raise ValueError(
                f"{len(losses)} losses for {len(heads)} heads {_some(heads)}; give a mapping by "
                "the names of the tasks"
            )
        named = dict(zip(heads, losses))
    else:
        named = {str(i): loss for i, loss in enumerate(losses)}
    if not named:
        raise ValueError("losses is empty; give one scalar a task")
    for name, loss in named.items():
        if not isinstance(loss, Tensor):
            raise TypeError(f"loss {name!r} must be a tensor, got {type(loss).__name__}")
        if loss.numel() != 1:
            raise ValueError(f"loss {name!r} must be a scalar, got shape {tuple(loss.shape)}")
        if not loss.requires_grad:
            raise ValueError(
                f"loss {name!r} has no graph: it depends on no parameter that requires a gradient, "
                "or was computed under no_grad"
            )
    return named


def _some(names: Iterable[str]) -> str:
    """The first three names."""
    found = list(names)
    return ", ".join(map(repr, found[:3])) + (", ..." if len(found) > 3 else "")


def _tensors(params: Iterable[Parameter], what: str) -> list[Parameter]:
    """List parameters, refusing anything else."""
    if isinstance(params, Tensor):
        raise TypeError(f"{what} must be a list of tensors, got one tensor")
    found = list(params)
    for param in found:
        if not isinstance(param, Tensor):
            raise TypeError(f"{what} must hold tensors, got {type(param).__name__}")
        if param.dtype.is_complex:
            raise TypeError(f"{what} holds a complex tensor of shape {tuple(param.shape)}")
        if param.requires_grad and not param.is_leaf:
            raise ValueError(
                f"{what} holds a tensor of shape {tuple(param.shape)} that is computed from "
                "others; give the parameters themselves"
            )
    return found


def common_dtype(params: Sequence[Parameter]) -> torch.dtype:
    """The dtype that holds the gradients of all parameters."""
    found = params[0].dtype
    for param in params[1:]:
        found = torch.promote_types(found, param.dtype)
    return found
