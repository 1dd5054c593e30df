"""Random probes and single Hessian-vector products: what estimators and optimizers share.

``rademacher_like`` and ``hessian_vector_product`` are exported by
:mod:`gradworks.curvature.hutchinson`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gradworks.curvature.operators.algebra import SymmetricOperator

__all__ = [
    "check_count",
    "check_operator",
    "hessian_vector_product",
    "rademacher_like",
    "random_signs",
    "random_vector",
    "shaped_like",
    "vector_norm",
]


def check_count(name: str, value: object) -> int:
    """An integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return value


def check_operator(op: object) -> SymmetricOperator:
    """Everything here takes an operator."""
    if not isinstance(op, SymmetricOperator):
        raise TypeError(
            f"op must be a SymmetricOperator, got {type(op).__name__}; wrap a matrix in "
            "DenseOperator or a function in FunctionOperator"
        )
    return op


def random_vector(
    op: SymmetricOperator, distribution: str, generator: torch.Generator, count: int | None = None
) -> Tensor:
    """A probe ``(P,)``, or ``(P, count)``, in the accumulation type on the operator's device."""
    shape = op.shape[:1] if count is None else (count, op.shape[0])
    generator = op.stream(generator)
    where = generator.device
    if distribution == "gaussian":
        z = torch.randn(shape, generator=generator, dtype=op.accumulate_dtype, device=where)
    else:
        z = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8, device=where)
        z = z.to(op.accumulate_dtype).mul_(2).sub_(1)
    z = z.to(op.device)
    return z if count is None else z.T


def vector_norm(op: SymmetricOperator, v: Tensor) -> Tensor:
    """``|v|`` over all shards, also where float32 cannot hold the squares."""
    square = op.reduce(torch.dot(v, v))
    limits = torch.finfo(v.dtype)
    if v.dtype == torch.float64:
        return square.sqrt()
    inside = (square > limits.tiny / limits.eps) & torch.isfinite(square)
    if v.device.type == "cpu" and bool(inside):
        return square.sqrt()
    scale = op.reduce(v.abs().max()).clamp_min(limits.tiny)
    unit = v / scale
    return torch.where(inside, square.sqrt(), scale * op.reduce(torch.dot(unit, unit)).sqrt())


def rademacher_like(
    params: Tensor | Sequence[Tensor],
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> list[Tensor]:
    """Random signs shaped like tensors.

    Args:
        params: A tensor or a sequence of them, real.
        generator: On the tensors' device; ``None`` for torch's global one, which advances.
        dtype: Of the signs; ``None`` for each tensor's own. ``torch.int8`` keeps them small.

    Returns:
        One tensor of +1 and -1 for each, of its device and memory format.

    Raises:
        ValueError: A complex or integer tensor.

    Example:
        >>> import torch
        >>> from gradworks.curvature.hutchinson import rademacher_like
        >>> (z,) = rademacher_like(torch.zeros(2, 3), generator=torch.Generator().manual_seed(0))
        >>> bool((z.abs() == 1).all()), z.shape
        (True, torch.Size([2, 3]))
    """
    tensors = [params] if isinstance(params, Tensor) else list(params)
    for i, p in enumerate(tensors):
        if p.is_complex() or not p.is_floating_point():
            raise ValueError(f"params[{i}] must be real floating point, got {p.dtype}")
    return [
        shaped_like(random_signs(p.numel(), p.device, dtype or p.dtype, generator), p)
        for p in tensors
    ]


def random_signs(
    count: int, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None
) -> Tensor:
    """``count`` signs in a vector, each one bit of a random word: no draw a sign.

    Args:
        count: How many, 0 or more.
        device: Where, the generator's.
        dtype: Of the signs.
        generator: None for torch's global one.
    """
    words = torch.empty((count + 63) // 64, dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=generator)  # all 64 bits
    numbers = torch.arange(256, device=device, dtype=torch.int32)
    bits = numbers.unsqueeze(1) >> torch.arange(8, device=device, dtype=torch.int32) & 1
    eight_signs = bits.mul_(2).sub_(1).to(dtype)  # of each byte
    signs = eight_signs.index_select(0, words.view(torch.uint8).to(torch.int32))
    return signs.view(-1)[:count]


def shaped_like(flat: Tensor, param: Tensor) -> Tensor:
    """A vector's entries in the shape and memory format of a tensor, without a copy."""
    if param.is_contiguous():
        return flat.view(param.shape)
    plan = torch.empty_like(param, device="meta", memory_format=torch.preserve_format)
    return flat.as_strided(plan.shape, plan.stride(), flat.storage_offset())


def hessian_vector_product(
    grads: Sequence[Tensor | None],
    params: Sequence[Tensor],
    vectors: Sequence[Tensor],
    *,
    retain_graph: bool = False,
    check_finite: bool = True,
    unused: Callable[[list[int]], None] | None = None,
) -> list[Tensor]:
    """Differentiate gradients once more, along vectors: one ``autograd.grad``.

    For code that has its own graph, such as an optimizer's step; whole operators are in
    :mod:`gradworks.curvature.operators`.

    Args:
        grads: First derivatives made with ``create_graph=True``; ``None`` and constants give zeros.
        params: What to differentiate by.
        vectors: One for each gradient, in its shape.
        retain_graph: Keep the graph for another product.
        check_finite: Look for NaN and infinities; on an accelerator this waits for it.
        unused: Called with the positions of parameters that no gradient depends on, if there are
            any: their zeros are exact, unless an operation hides its second derivative.

    Returns:
        One tensor for each parameter; zeros where nothing depends on it.

    Raises:
        FloatingPointError: A product is not finite; the message names which.
        ValueError: Lengths or shapes differ, or no gradient has a graph.

    Example:
        >>> import torch
        >>> from gradworks.curvature.hutchinson import hessian_vector_product
        >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> g = torch.autograd.grad((w**3).sum(), [w], create_graph=True)
        >>> hessian_vector_product(g, [w], [torch.ones(2)])
        [tensor([ 6., 12.])]
    """
    if not len(grads) == len(params) == len(vectors):
        raise ValueError(
            "grads, params and vectors must have the same length, got "
            f"{len(grads)}, {len(params)} and {len(vectors)}"
        )
    for i, (g, v) in enumerate(zip(grads, vectors)):
        if g is not None and g.shape != v.shape:
            raise ValueError(f"vectors[{i}] must have shape {tuple(g.shape)}, got {tuple(v.shape)}")
    pairs = [(g, v) for g, v in zip(grads, vectors) if g is not None and g.requires_grad]
    if not pairs:
        raise ValueError(
            "grads carry no graph; compute them with torch.autograd.grad(..., create_graph=True)"
        )
    found = torch.autograd.grad(
        [g for g, _ in pairs],
        list(params),
        [v for _, v in pairs],
        retain_graph=retain_graph,
        allow_unused=True,
    )
    missing = [i for i, p in enumerate(found) if p is None]
    if missing and unused is not None:
        unused(missing)
    products = [torch.zeros_like(p) if h is None else h for h, p in zip(found, params)]
    if check_finite:
        fine = torch.stack([torch.isfinite(p).all() for p in products])
        if not bool(fine.all()):
            bad = [i for i, ok in enumerate(fine.tolist()) if not ok]
            raise FloatingPointError(
                f"Hessian-vector product of params {bad[:3]} is not finite; check the loss"
            )
    return products
