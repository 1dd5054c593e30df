"""Descent on factors against the same loop in autograd, and against the bandwidth of its reads.

``python benchmarks/matrix_sensing.py``: 200 steps from one start, beside ``torch.einsum``, autograd
and ``torch.optim.SGD``; then steps on stored measurements beside the two matrix-vector products
that no step can do without.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from gradworks.bench.timing import compare
from gradworks.solvers.matrix_sensing import (
    MeasurementOperator,
    asymmetric_gd,
    random_low_rank,
    symmetric_gd,
)

LR = 0.1


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def start(n: int, k: int, scale: float, seed: int) -> Tensor:
    """A Gaussian factor."""
    return scale * torch.randn(n, k, generator=seeded(seed), dtype=torch.float64) / n**0.5


def sgd(parameters: list[Tensor], loss: Callable[[], Tensor], steps: int) -> None:
    """Autograd and ``torch.optim.SGD``."""
    optimizer = torch.optim.SGD(parameters, lr=LR)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def loops(
    n: int, k: int, steps: int, m: int | None, symmetric: bool
) -> tuple[Callable[[], object], Callable[[], object], float]:
    """Ours, theirs, and how far apart they end; ``m`` is None where every entry is seen."""
    M = random_low_rank(n, rank=3, symmetric=symmetric, generator=seeded())
    if m is None:
        op = MeasurementOperator.identity(n)
    else:
        op = MeasurementOperator.gaussian(m, n, symmetric=symmetric, generator=seeded())
    y, A = op(M), None if m is None else op.matrices
    F0, G0 = start(n, k, 0.3, 1), start(n, k, 0.1, 2)

    def ours() -> Tensor:
        if symmetric:
            result = symmetric_gd(op, y, k, lr=LR, init=F0, max_iter=steps, record_every=steps)
        else:
            result = asymmetric_gd(
                op, y, k, lr=LR, init=(F0, G0), max_iter=steps, record_every=steps
            )
        return result.estimate

    def theirs() -> Tensor:
        F = F0.clone().requires_grad_(True)
        G = F if symmetric else G0.clone().requires_grad_(True)

        def loss() -> Tensor:
            Z = torch.einsum("ik,jk->ij", F, G)
            seen = Z.flatten() if A is None else torch.einsum("mij,ij->m", A, Z)
            return (seen - y).square().sum() / (4 if symmetric else 2)

        sgd([F] if symmetric else [F, G], loss, steps)
        return (F @ G.mT).detach()

    apart = float((ours() - theirs()).abs().max())
    return ours, theirs, apart


def main() -> None:
    """Parse the command line and print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--m", type=int, default=5000, help="measurements of the bandwidth part")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = {
        "symmetric, all entries, n = 50, k = 5": (None, True, "   [target <= 0.333]"),
        "asymmetric, all entries, n = 50, k = 5": (None, False, "   [target <= 0.333]"),
        "symmetric, 500 measurements, n = 50, k = 5": (500, True, ""),
        "asymmetric, 500 measurements, n = 50, k = 5": (500, False, ""),
    }
    for name, (m, symmetric, target) in cases.items():
        ours, theirs, apart = loops(50, 5, options.steps, m, symmetric)
        found = compare(
            ours,
            theirs,
            name=name,
            peer_name="einsum, autograd, torch SGD",
            peer_version=torch.__version__,
            blocks=options.blocks,
            inner=1,
        )
        print(f"{found.line()}{target}   (ends {apart:.0e} apart)", flush=True)

    n, k, steps = 50, 5, 10
    op = MeasurementOperator.gaussian(options.m, n, generator=seeded())
    rows = op.matrices.flatten(1)
    y = op(random_low_rank(n, rank=3, generator=seeded()))
    z = torch.randn(n * n, generator=seeded(), dtype=torch.float64)
    init = (start(n, k, 0.3, 1), start(n, k, 0.1, 2))

    def descend() -> None:
        # one record at the start, one at the end: a forward pass more than there are steps
        asymmetric_gd(op, y, k, lr=LR, init=init, max_iter=steps, record_every=steps)

    def passes() -> None:
        for _ in range(steps):
            torch.mv(rows.T, torch.mv(rows, z))
        torch.mv(rows, z)

    found = compare(
        descend,
        passes,
        name=f"{steps} steps on {options.m} measurements, n = {n}",
        peer_name="two torch.mv a step",
        peer_version=torch.__version__,
        blocks=options.blocks,
        inner=1,
    )
    print(f"{found.line()}   [target <= 1.25]")


if __name__ == "__main__":
    main()
