"""Methods side by side from one start: what the paper compares, and preconditioned descent.

Preconditioned gradient descent is a baseline of this page, not a method of the library:
``X <- X - eta E X (X^T X + lambda I)^{-1}`` with ``lambda = ||E||_F``, which keeps a linear rate
with too many columns.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gradworks.papers.matrix_sensing.presets import RANK

if TYPE_CHECKING:
    from torch import Tensor

    from gradworks.bench.trial import Trial
    from gradworks.papers.matrix_sensing.cells import Cells

__all__ = ["compared", "preconditioned"]

SOLVED = 1e-10
FLOOR = 1e-32


def preconditioned(M: Tensor, X: Tensor, lr: float, steps: int) -> Tensor:
    """Return the squared errors of preconditioned descent on ``X X^T``, full observation.

    Args:
        M: What is looked for.
        X: Start.
        lr: Step size.
        steps: How many.

    Returns:
        Error before each step and at the end.

    Raises:
        FloatingPointError: If it diverges.
    """
    import torch

    eye = torch.eye(X.shape[1], dtype=X.dtype, device=X.device)
    errors = []
    for t in range(steps + 1):
        E = torch.addmm(M, X, X.mT, beta=-1)
        errors.append(float(E.square().sum()))
        if not errors[-1] <= 1e6 * max(errors[0], FLOOR):
            raise FloatingPointError(
                f"preconditioned descent diverged: squared error {errors[-1]:.3g} at iteration {t} "
                f"with lr={lr:g}; take a smaller lr"
            )
        damping = max(math.sqrt(errors[-1]), 1e-15)
        X = X - lr * torch.linalg.solve(X.mT @ X + damping * eye, E @ X, left=False)
    return torch.tensor(errors, dtype=torch.float64)


def compared(cells: Cells) -> None:
    """Run one method with its step size on the matrix and the start that all methods get.

    Args:
        cells: Their trial's arm names the method.
    """
    import torch

    from gradworks.solvers.matrix_sensing import (
        MeasurementOperator,
        accelerated_gd,
        asymmetric_gd,
        random_low_rank,
        symmetric_gd,
    )

    trial = cells.trial
    spec, lr, form = trial.spec, float(trial.settings["lr"]), str(trial.settings["form"])
    n, k, steps = int(spec["n"]), int(spec["k"]), int(spec["steps"])
    source = cells.generator("problem")
    M = random_low_rank(n, rank=RANK, symmetric=True, generator=source)
    scale = float(spec["alpha"]) / math.sqrt(n)
    left, right = (scale * torch.randn(n, k, generator=source, dtype=M.dtype) for _ in range(2))
    op = MeasurementOperator.identity(n)
    y = op(M)
    settings: dict[str, Any] = {"lr": lr, "max_iter": steps, "target": M}
    if form == "preconditioned":
        errors: Tensor | None = preconditioned(M, left, lr, steps)
    elif form == "symmetric":
        errors = symmetric_gd(op, y, k, init=left, **settings).errors
    elif form == "accelerated":
        errors = accelerated_gd(op, y, k, init=(left, right / 3), **settings).errors
    else:
        small = right if form == "balanced" else right / 3
        errors = asymmetric_gd(op, y, k, init=(left, small), **settings).errors
    _report(trial, [] if errors is None else errors.tolist())


def _report(trial: Trial, errors: list[float]) -> None:
    """Final error, steps to a small one, and the mean of the log error, which tuning selects on."""
    logs = [math.log10(max(e, FLOOR)) for e in errors]
    steps = len(errors) - 1
    for t in sorted({round(steps * i / 100) for i in range(101)}):
        trial.log(t, split="train", error=10 ** logs[t])
    trial.result(
        "valid" if trial.kind == "tune" else "test",
        mean_log_error=sum(logs) / len(logs),
        log_error=logs[-1],
        steps_to_small=float(next((t for t, e in enumerate(errors) if e < SOLVED), steps)),
    )
