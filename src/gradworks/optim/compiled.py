"""``fused=True``: one kernel a tensor, compiled once for all shapes.

``torch.compile`` turns the arithmetic of a step into a few loops over the tensor. Sizes are dynamic
and all numbers come in one small tensor, so that no schedule compiles again, and so that powers of
the betas are not computed anew for each entry.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from gradworks.optim.precision import work_dtype

__all__ = [
    "SMALL",
    "flat_views",
    "in_memory_order",
    "numbers_on_device",
    "run_kernel",
    "run_kernel_on_many",
]

SMALL = 1 << 15  # a step of a shorter vector, operation by operation: 30 us; a kernel's call: 70 us
TOGETHER = 4  # tensors a call: 10 us each instead of 23; with more, compiling takes too long


def in_memory_order(*tensors: Tensor) -> tuple[list[int], list[Tensor]] | None:
    """Dimensions by falling stride of the first tensor, the parameter, and all tensors so permuted.

    The second tensor, its gradient, is copied if its strides differ; None if any other's do, or if
    the parameter has gaps.
    """
    param = tensors[0]
    strides = param.stride()
    order = sorted(range(param.ndim), key=lambda d: (-strides[d], d))
    permuted = []
    for i, tensor in enumerate(tensors):
        if tensor.stride() != strides:
            if i != 1:
                return None
            tensor = torch.empty_like(param, dtype=tensor.dtype).copy_(tensor)
        tensor = tensor.permute(order)
        if not tensor.is_contiguous():
            return None
        permuted.append(tensor)
    return order, permuted


def flat_views(*tensors: Tensor, small: int = SMALL) -> list[Tensor] | None:
    """Vectors that share the tensors' memory, as elementwise kernels see them.

    None where the parameter, the first, has gaps, or is so small that on a CPU the call of a kernel
    costs more than its step: fewer than ``small`` entries.
    """
    param = tensors[0]
    # torch.compile treats sizes 0 and 1 apart
    if param.numel() < 2 or (param.is_cpu and param.numel() < small):
        return None
    if all(x.is_contiguous() for x in tensors):
        return [x.view(-1) for x in tensors]
    found = in_memory_order(*tensors)
    return None if found is None else [x.view(-1) for x in found[1]]


@lru_cache(maxsize=1024)
def _constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Settings on the device: copied there once, not at every step."""
    return torch.tensor(values, dtype=dtype, device=device)


def numbers_on_device(
    constant: tuple[float, ...],
    moving: Sequence[float | Tensor],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """The vector of a kernel where the step count lies on the device."""
    values = [
        x.to(device, dtype, non_blocking=True)
        if isinstance(x, Tensor)
        else torch.full((), x, dtype=dtype, device=device)
        for x in moving
    ]
    return torch.cat([_constants(constant, dtype, device), torch.stack(values)])


@lru_cache(maxsize=64)
def _compiled(
    kernel: Callable[..., Tensor | None],
    dtype: torch.dtype,
    ndim: int,
    variant: Hashable,
    together: int = 1,
) -> Callable[..., Any]:
    """A compiled copy of a kernel, or of a loop over ``together`` calls, with code of its own.

    torch counts recompilations by code object (8 at most): sharing one, a run over many dtypes
    would use them up.
    """
    with warnings.catch_warnings():  # torch warns of itself while it loads its compiler
        warnings.simplefilter("ignore")
        importlib.import_module("torch._inductor.compile_fx")
    looped = kernel if together == 1 else _loop(kernel, together)
    kind = str(dtype).removeprefix("torch.")
    name = f"{kernel.__name__}_{ndim}d_{kind}_{variant}_{together}"
    code = looped.__code__.replace(co_name=name)
    copied = FunctionType(code, looped.__globals__, name, None, looped.__closure__)
    return torch.compile(copied, dynamic=True)


def _loop(kernel: Callable[..., Tensor | None], together: int) -> Callable[..., None]:
    """The kernel on several tensors, whose views come one after another."""

    def loop(variant: Hashable, numbers: Tensor, *views: Tensor) -> None:
        each = len(views) // together
        for i in range(0, len(views), each):
            kernel(variant, numbers, *views[i : i + each])

    return loop


def run_kernel(
    kernel: Callable[..., Tensor | None],
    variant: Hashable,
    numbers: Tensor,
    views: Sequence[Tensor],
) -> Tensor | None:
    """One step of one tensor: ``kernel(variant, numbers, *views)``.

    Each variant is compiled apart; its ``str`` must be part of a name.

    Raises:
        RuntimeError: If the kernel cannot be compiled here; nothing was changed then.
    """  # noqa: DOC502
    with _explained():
        compiled = _compiled(kernel, views[0].dtype, views[0].ndim, variant)
        branch: Tensor | None = compiled(variant, numbers, *views)
    return branch


def run_kernel_on_many(
    kernel: Callable[..., Tensor | None],
    variant: Hashable,
    numbers: Tensor,
    members: Sequence[Sequence[Tensor]],
) -> None:
    """One step of many tensors of a dtype, each given by its vectors, with the same numbers.

    ``kernel(variant, numbers, *views)`` for each, ``TOGETHER`` in a call; for kernels that return
    nothing.

    Raises:
        RuntimeError: If the kernel cannot be compiled here; nothing was changed then.
    """  # noqa: DOC502
    if not members:
        return
    like = members[0]
    with _explained():
        compiled = _ready(
            kernel, variant, len(numbers), tuple(x.dtype for x in like), like[0].device
        )
        for start in range(0, len(members), TOGETHER):
            called = [view for views in members[start : start + TOGETHER] for view in views]
            missing = TOGETHER - len(called) // len(like)
            called += [torch.zeros(2, dtype=x.dtype, device=x.device) for x in like] * missing
            compiled(variant, numbers, *called)


@lru_cache(maxsize=64)
def _ready(
    kernel: Callable[..., Tensor | None],
    variant: Hashable,
    numbers: int,
    dtypes: tuple[torch.dtype, ...],
    device: torch.device,
) -> Callable[..., Any]:
    """A loop compiled on vectors of different lengths.

    Lengths that are equal at the first call would have to stay equal at all others.
    """
    compiled = _compiled(kernel, dtypes[0], 1, variant, TOGETHER)
    lengths = range(1024, 1024 + 16 * TOGETHER, 16)
    views = [torch.zeros(n, dtype=dtype, device=device) for n in lengths for dtype in dtypes]
    compiled(variant, torch.ones(numbers, dtype=work_dtype(dtypes[0]), device=device), *views)
    return compiled


@contextmanager
def _explained() -> Iterator[None]:
    """Say what to do where a kernel does not compile."""
    try:
        yield
    except Exception as error:
        raise RuntimeError(
            "fused=True compiles its kernel with torch.compile, which failed here "
            f"({type(error).__name__}); it needs a supported Python and, on CPU, a C++ compiler "
            "(g++ or clang++, or the one named by CXX). Use fused=None"
        ) from error
