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
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from gradworks.optim.precision import work_dtype

__all__ = [
    "GATHERED",
    "SMALL",
    "flat_views",
    "in_memory_order",
    "numbers_on_device",
    "run_kernel",
    "run_kernel_on_many",
]

SMALL = 1 << 15  # a step of a shorter vector, operation by operation: 30 us; a kernel's call: 70 us
TOGETHER = 4  # tensors a call: 10 us each instead of 23; with more, compiling takes too long
GATHERED = 1 << 13  # shorter vectors are copied into one, and back: 4 us each instead of 30
AT_ONCE = 1 << 18  # entries so gathered: the copies stay in the processor's cache


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
    dense: Sequence[Tensor] = tensors
    if not all(x.is_contiguous() for x in tensors):
        found = in_memory_order(*tensors)
        if found is None:
            return None
        dense = found[1]
    # detached from what they are views of: torch.compile would recompile for each base's shape
    return [x.view(-1).detach() for x in dense]


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
        compiled = _ready(kernel, variant, len(numbers), _kinds(views), 1)
        branch: Tensor | None = compiled(variant, numbers, *views)
    return branch


def run_kernel_on_many(
    kernel: Callable[..., Tensor | None],
    variant: Hashable,
    numbers: Tensor,
    members: Sequence[Sequence[Tensor]],
) -> None:
    """One step of many tensors of a dtype, each given by its vectors, with the same numbers.

    ``kernel(variant, numbers, *views)`` for each, ``TOGETHER`` in a call; for elementwise kernels
    that return nothing and leave their second vector, the gradient, as it is. What is shorter than
    ``GATHERED`` may come in any shape, contiguous.

    Raises:
        RuntimeError: If the kernel cannot be compiled here; nothing was changed then.
    """  # noqa: DOC502
    if not members:
        return
    parts = _parts([views[0].numel() for views in members])
    inside = {i for part in parts for i in part}
    vectors = [
        [x.view(-1).detach() for x in views] if len(views[0]) < GATHERED else views
        for i, views in enumerate(members)
        if i not in inside
    ]
    for part in parts:
        columns = list(zip(*(members[i] for i in part), strict=True))
        gathered = [_flatten_dense_tensors(column) for column in columns]  # type: ignore[no-untyped-call]
        _call(kernel, variant, numbers, [gathered])
        for k, (column, whole) in enumerate(zip(columns, gathered)):
            if k != 1:
                found = _unflatten_dense_tensors(whole, column)  # type: ignore[no-untyped-call]
                torch._foreach_copy_(list(column), list(found))
    _call(kernel, variant, numbers, vectors)


def _parts(lengths: Sequence[int]) -> list[list[int]]:
    """Which short vectors are gathered: lists of two or more, of ``AT_ONCE`` entries at most."""
    parts: list[list[int]] = [[]]
    room = AT_ONCE
    for i, length in enumerate(lengths):
        if length >= GATHERED:
            continue
        if length > room:
            parts.append([])
            room = AT_ONCE
        parts[-1].append(i)
        room -= length
    return [part for part in parts if len(part) > 1]


def _call(
    kernel: Callable[..., Tensor | None],
    variant: Hashable,
    numbers: Tensor,
    members: Sequence[Sequence[Tensor]],
) -> None:
    """``TOGETHER`` in a call; the last one is filled up with vectors of no account."""
    if not members:
        return
    like = members[0]
    with _explained():
        compiled = _ready(kernel, variant, len(numbers), _kinds(like), TOGETHER)
        for start in range(0, len(members), TOGETHER):
            called = [view for views in members[start : start + TOGETHER] for view in views]
            missing = TOGETHER - len(called) // len(like)
            # of their own each: torch.compile would compile anew where two are the same tensor
            called += [
                torch.zeros(2, dtype=x.dtype, device=x.device) for _ in range(missing) for x in like
            ]
            compiled(variant, numbers, *called)


Kinds = tuple[int, torch.device, tuple[torch.dtype, ...]]


def _kinds(views: Sequence[Tensor]) -> Kinds:
    """What a compilation depends on: dimensions, device and dtypes."""
    return views[0].ndim, views[0].device, tuple(x.dtype for x in views)


@lru_cache(maxsize=64)
def _ready(
    kernel: Callable[..., Tensor | None],
    variant: Hashable,
    numbers: int,
    kinds: Kinds,
    together: int,
) -> Callable[..., Any]:
    """A kernel, or a loop over it, compiled on tensors whose sizes all differ.

    Sizes that are equal at the first call would have to stay equal at all others.
    """
    ndim, device, dtypes = kinds
    compiled = _compiled(kernel, dtypes[0], ndim, variant, together)
    shapes = [range(16 * (i + 1), 16 * (i + 1) + ndim) for i in range(together)]
    views = [torch.zeros(*shape, dtype=x, device=device) for shape in shapes for x in dtypes]
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
