"""From the tensors a user holds to those the arithmetic runs on, and which path they take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradworks.optim.sharded import is_sharded, local

__all__ = ["choose_path", "refuse_conjugate", "refuse_flat", "refuse_sparse", "to_real"]

# Where torch's own optimizers take the multi-tensor path by default.
_FOREACH_DEVICES = frozenset({"cuda", "xpu", "mtia"})


def to_real(params: list[Tensor], *others: list[Tensor]) -> None:
    """Replace tensors by local, real ones that share their memory."""
    for i, param in enumerate(params):
        for tensors in (*others, params):
            tensor = local(tensors[i], param)
            if tensor.is_complex():
                tensor = torch.view_as_real(tensor.resolve_conj())
            tensors[i] = tensor


def choose_path(
    params: Sequence[Tensor], *, foreach: bool | None, fused: bool | None, differentiable: bool
) -> str:
    """One of "single", "foreach", "fused".

    Sharded weights always take the multi-tensor path: it reduces once for all of them.
    """
    if any(is_sharded(param) for param in params):
        if differentiable:
            raise RuntimeError(
                "differentiable=True does not work for sharded parameters (DTensor); call "
                "full_tensor() first"
            )
        return "foreach"
    if foreach is None and not fused and not differentiable:
        foreach = len(params) > 0 and all(p.device.type in _FOREACH_DEVICES for p in params)
    if torch.compiler.is_compiling() and len({(p.device, p.dtype) for p in params}) > 1:
        return "single"  # nothing sorts tensors by device and dtype there
    if foreach:
        return "foreach"
    return "fused" if fused and not torch.compiler.is_compiling() else "single"


def refuse_sparse(name: str, param: Tensor) -> None:
    """No method here steps rows that are not all there."""
    if param.grad is not None and param.grad.layout != torch.strided:
        raise RuntimeError(
            f"{name} does not take sparse gradients, got one for a parameter of shape "
            f"{tuple(param.shape)}; use sparse=False in the embedding, or torch.optim.SparseAdam"
        )


def refuse_conjugate(param: Tensor) -> None:
    """Of a lazy conjugate real views are copies: what is written to them is lost."""
    if param.is_complex() and param.is_conj():
        raise RuntimeError(
            f"a parameter of shape {tuple(param.shape)} is conjugated lazily and cannot be "
            "stepped in place; make it of its resolve_conj()"
        )


def refuse_flat(param: Tensor) -> None:
    """FSDP1's flat parameters have lost the shape of their weights."""
    if getattr(param, "_is_flat_param", False):
        raise RuntimeError(
            f"a flat parameter of FSDP1 (shape {tuple(param.shape)}) holds many weights, whose "
            "shapes are no longer known; shard with torch.distributed.fsdp.fully_shard"
        )
