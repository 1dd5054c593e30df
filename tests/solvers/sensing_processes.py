"""What two processes do in ``test_matrix_sensing_sharded.py``: ``python … RANK STORE OUT``."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gradworks.solvers.matrix_sensing import (
    MeasurementOperator,
    accelerated_gd,
    asymmetric_gd,
    random_low_rank,
    symmetric_gd,
)

M = 61  # processes cannot share them evenly


def seeded(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    """Gaussian entries in float64."""
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def operators(part: slice, shared: bool) -> dict[str, MeasurementOperator]:
    """Some of the measurements of each kind."""
    rows, cols = torch.arange(M) % 5, torch.arange(M) * 7 % 5
    return {
        "stored": MeasurementOperator(normal(M, 5, 5, seed=0)[part] / M**0.5, distributed=shared),
        "entries": MeasurementOperator.entries(
            rows[part], cols[part], 5, 5, distributed=shared, total=M
        ),
        "rank one": MeasurementOperator.rank_one(
            normal(M, 5, seed=1)[part] / M**0.5, normal(M, 5, seed=2)[part], distributed=shared
        ),
    }


def outcome(part: slice, shared: bool, seed: int) -> dict[str, dict[str, Any]]:
    """Everything that is summed over processes."""
    target = random_low_rank(5, rank=2, symmetric=True, generator=seeded(3))
    X, Z = normal(5, 3, seed=4), normal(5, 5, seed=5)
    made = {}
    for kind, op in operators(part, shared).items():
        y = op(target)
        kw: dict[str, Any] = {"target": target, "alpha": 0.6, "max_iter": 60}
        found = {
            "adjoint": op.adjoint(y),
            "normal": op.normal(Z),
            "gradient": op.gradient(X, X, y),
            "residual": op.residual(X, X, y),
            "rip": op.rip_estimate(2, 5, seeded(seed)),  # of the first process's matrices
            "shape": op.shape,
        }
        for method in (symmetric_gd, asymmetric_gd, accelerated_gd):
            # a start that only the first process draws so: the others have to take it
            result = method(op, y, 3, generator=seeded(seed), **kw)
            found[method.__name__] = (
                result.estimate, result.residuals, result.errors, result.reset_iter, result.lr
            )  # fmt: skip
        stopped = accelerated_gd(op, y, 3, generator=seeded(seed), **{**kw, "tol": 1e-3})
        found["stopped"] = stopped.n_iter
        made[kind] = found
    return made


def main() -> None:
    """Sum over two processes, and alone."""
    rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    whole = slice(None)
    alone = outcome(whole, True, 7)  # no group yet: distributed=True changes nothing
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    both = outcome(slice(rank, None, 2), True, 7 + rank)
    apart = operators(slice(rank, None, 2), False)["stored"].normal(normal(5, 5, seed=5))
    torch.save({"alone": alone, "both": both, "apart": apart}, f"{out}{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
