"""Is an operator one: equal products of equal vectors, and symmetry."""

from __future__ import annotations

import torch

from gradworks.curvature.operators.algebra import SymmetricOperator

__all__ = ["self_check"]

# Agreement asked of check=True, relative to the size of the products.
_CHECK_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def self_check(op: SymmetricOperator) -> None:
    """Two equal products, and u.Av = v.Au."""
    generator = torch.Generator().manual_seed(0)
    u, v = (
        torch.randn(op.shape[0], generator=generator, dtype=torch.float64).to(op.device, op.dtype)
        for _ in range(2)
    )
    u, v = op.synchronize(u), op.synchronize(v)
    first, second, other = op.matvec(v), op.matvec(v), op.matvec(u)
    tolerance = _CHECK_TOLERANCE.get(op.dtype, 1e-2)
    size = float(op.reduce(first.double() @ first.double()).sqrt())
    norm = float(op.reduce(u.double() @ u.double()).sqrt())
    difference = (first - second).double()
    repeat = float(op.reduce(difference @ difference).sqrt())
    if repeat > tolerance * max(size, 1e-30):
        raise RuntimeError(
            f"two products with the same vector differ by {repeat:.3g} (|Av| = {size:.3g}); "
            "the model, the loss or the data is not deterministic"
        )
    left = op.reduce(u.double() @ first.double())
    right = op.reduce(v.double() @ other.double())
    gap = float((left - right).abs())
    if gap > tolerance * max(size * norm, 1e-30):
        raise RuntimeError(
            f"the operator is not symmetric: u.Av and v.Au differ by {gap:.3g} "
            f"(|u||Av| = {size * norm:.3g}); look for operations with a wrong derivative"
        )
