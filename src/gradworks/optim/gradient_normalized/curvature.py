"""From what a user gives as ``hessian`` to a matrix or an operator at one point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from gradworks.curvature.operators import FunctionOperator, SymmetricOperator
from gradworks.optim.gradient_normalized.solves import Curvature, LowRank

__all__ = ["DENSE", "SOLVERS", "HessianSpec", "Solver", "exact", "given"]

HessianSpec = (
    Literal["exact", "zero"]
    | SymmetricOperator
    | Callable[[Tensor], Tensor | LowRank | SymmetricOperator]
)
Solver = Literal["auto", "cholesky", "woodbury", "cg"]
SOLVERS = ("auto", "cholesky", "woodbury", "cg")
# Up to here an exact Hessian is written down; beyond it is multiplied (n^3 / 3 against products).
DENSE = 1000
_BATCH = 128  # products at a time


def exact(
    gradient: Sequence[Tensor], inputs: Sequence[Tensor], *, n: int, solver: Solver
) -> Tensor | SymmetricOperator:
    """The Hessian from a gradient that still has its graph.

    Args:
        gradient: Derivatives with their graph.
        inputs: What they were taken of.
        n: Entries in all.
        solver: ``"cg"`` asks for products, ``"cholesky"`` for the matrix.
    """
    like = inputs[0]
    shapes = [x.shape for x in inputs]
    sizes = [x.numel() for x in inputs]
    known = [(g, i) for i, g in enumerate(gradient) if g.requires_grad]

    def product(v: Tensor) -> Tensor:
        parts = [part.view(s) for part, s in zip(torch.split(v, sizes), shapes)]
        if not known:
            return torch.zeros_like(v)
        found = torch.autograd.grad(
            [g for g, _ in known],
            list(inputs),
            [parts[i] for _, i in known],
            retain_graph=True,
            allow_unused=True,
        )
        filled = [torch.zeros_like(x) if d is None else d for d, x in zip(found, inputs)]
        return torch.cat([x.reshape(-1) for x in filled])

    if solver == "cg" or (solver == "auto" and n > DENSE):
        return FunctionOperator(product, n, dtype=like.dtype, device=like.device)
    H = _columns(product, torch.eye(n, dtype=like.dtype, device=like.device))
    return (H + H.T) / 2


def _columns(product: Callable[[Tensor], Tensor], unit: Tensor) -> Tensor:
    """All products, batched where every operation of the user's function allows it."""
    try:
        parts = [torch.func.vmap(product)(rows) for rows in torch.split(unit, _BATCH)]
    except RuntimeError:
        return torch.stack([product(row) for row in unit])
    return torch.cat(parts)


def given(hessian: object, x: Tensor, solver: Solver) -> Curvature:
    """The user's curvature at x: an operator as it is, a function called.

    Args:
        hessian: An operator that follows the parameters, or a function of x.
        x: The point, ``(n,)``.
        solver: As given by the user.
    """
    if isinstance(hessian, SymmetricOperator):
        return _matched(hessian, x, solver)
    return _matched(hessian(x.detach()), x, solver)  # type: ignore[operator]


def _matched(found: object, x: Tensor, solver: Solver) -> Curvature:
    """What a Hessian function returned, in the form that the solver takes.

    Args:
        found: A matrix, a low-rank matrix or an operator.
        x: The point, ``(n,)``.
        solver: As given by the user.

    Raises:
        TypeError: If it is none of these.
        ValueError: If its shape does not fit, or the solver cannot take it.
    """
    n = x.numel()
    if isinstance(found, LowRank):
        if found.factors.shape[0] != n:
            raise ValueError(
                f"hessian has factors of shape {tuple(found.factors.shape)}; x has {n} entries"
            )
        found = LowRank(found.factors.detach().to(x), found.weights.detach().to(x))
        if solver in ("cholesky", "cg"):
            return _matched(found.to_dense(), x, solver)
        return found
    if isinstance(found, SymmetricOperator):
        if found.shape != (n, n):
            raise ValueError(f"hessian has shape {found.shape}, expected ({n}, {n})")
        if solver == "woodbury":
            raise ValueError("solver='woodbury' needs a LowRank hessian, got an operator")
        return found.to_dense().to(x) if solver == "cholesky" else found
    if isinstance(found, Tensor):
        if found.shape != (n, n):
            raise ValueError(f"hessian has shape {tuple(found.shape)}, expected ({n}, {n})")
        if solver == "woodbury":
            raise ValueError("solver='woodbury' needs a LowRank hessian, got a matrix")
        found = found.detach().to(x)
        if solver == "cg":
            matrix = found
            return FunctionOperator(lambda v: matrix @ v, n, dtype=x.dtype, device=x.device)
        return found
    raise TypeError(
        f"hessian must return a tensor (n, n), a LowRank or an operator, got {type(found).__name__}"
    )
