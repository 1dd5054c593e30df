"""Extreme eigenpairs by Lanczos' method; exported by :mod:`gradworks.curvature.lanczos`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gradworks.curvature.operators.algebra import SymmetricOperator
from gradworks.curvature.probes import check_count, check_operator, random_vector
from gradworks.curvature.recurrence import Recurrence, start_vector

__all__ = ["Eigenpairs", "eigsh"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Eigenpairs:
    """Some eigenpairs.

    Attributes:
        values: ``(k,)``.
        vectors: Unit columns ``(P, k)``.
        residuals: True ``|A v - theta v|``, ``(k,)``.
        matvecs: Products used.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    matvecs: int


def _order(values: Tensor, which: str) -> Tensor:
    """Indices of ascending values, the wanted ones first."""
    n = len(values)
    if which == "SA":
        return torch.arange(n)
    if which == "LA":
        return torch.arange(n - 1, -1, -1)
    if which == "LM":
        return torch.argsort(values.abs(), descending=True, stable=True)
    high, low = list(range(n - 1, -1, -1)), list(range(n))
    both = [i for pair in zip(high, low) for i in pair][:n]
    return torch.tensor(both)


_SMALL = 25  # steps up to which looking at every one is cheap beside a product


def eigsh(
    op: SymmetricOperator,
    k: int = 1,
    *,
    which: Literal["LA", "SA", "LM", "BE"] = "LA",
    tol: float = 1e-6,
    max_steps: int = 300,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
    basis_device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Eigenpairs:
    r"""Extreme eigenpairs by Lanczos' method with full reorthogonalisation.

    Args:
        op: The operator.
        k: How many, 1..P.
        which: ``"LA"`` largest (descending), ``"SA"`` smallest (ascending), ``"LM"`` largest in
            magnitude (descending in it), ``"BE"`` both ends in turn, largest first.
        tol: A pair is accepted when its residual bound :math:`\beta_m |s_{mi}|` is at most
            ``tol`` times the largest Ritz value in magnitude. Default 1e-6.
        max_steps: Largest Krylov dimension; cut to P. Default 300.
        start: First vector ``(P,)``; default: random signs.
        generator: Source of random vectors; ``None`` for a fresh one with seed 0.
        basis_device: Where the vectors are kept.
        progress: Called with (steps done, ``max_steps``).

    Returns:
        Values, unit vectors and true residuals.

    Raises:
        FloatingPointError: A product is not finite.
        TypeError: ``op`` is not an operator.
        ValueError: ``k`` outside 1..P, an unknown ``which``, ``tol`` or ``max_steps`` out of range,
            a start as for :func:`tridiagonalize`.

    Warns:
        RuntimeWarning: Not converged in ``max_steps``; the residuals say how far.

    Note:
        Memory for the vectors is taken as the steps need it.

        A Krylov space that closes on itself is continued by a random direction, so that repeated
        eigenvalues are found; copies that only rounding separates may be missed, as in ARPACK.

    Example:
        >>> import torch
        >>> from gradworks.curvature.lanczos import eigsh
        >>> from gradworks.curvature.operators import DenseOperator
        >>> pairs = eigsh(DenseOperator(torch.diag(torch.tensor([1.0, 5.0, 3.0]))), k=2)
        >>> [round(x, 4) for x in pairs.values.tolist()]
        [5.0, 3.0]
    """  # noqa: DOC502
    op = check_operator(op)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= op.dimension:
        raise ValueError(f"k must be an integer in 1..{op.dimension}, got {k!r}")
    if which not in {"LA", "SA", "LM", "BE"}:
        raise ValueError(f"which must be one of LA, SA, LM, BE, got {which!r}")
    if not 0 < tol < 1:
        raise ValueError(f"tol must be in (0, 1), got {tol}")
    max_steps = min(max(check_count("max_steps", max_steps), k), op.dimension)
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    run = Recurrence(op, max_steps, basis_device=basis_device, grow=True)
    run.begin(start_vector(op, start, generator))
    block = 0  # first step of the present Krylov space
    converged = False

    def stride(steps: int) -> int:
        # A look costs an eigendecomposition of the steps so far, and on a GPU a wait.
        return 1 if op.device.type == "cpu" and steps <= _SMALL else 5

    while not converged and run.steps < max_steps:
        run.step()
        if progress is not None:
            progress(run.steps, max_steps)
        due = run.broken_down or run.steps == max_steps or run.steps % stride(run.steps) == 0
        if not due:
            continue
        run.settle()
        converged = _converged(run, k, which, tol, block)
        if run.broken_down and not converged and run.steps < max_steps:
            block = run.steps
            run.restart(op.synchronize(random_vector(op, "gaussian", generator)))
    values, vectors = torch.linalg.eigh(run.matrix())
    pick = _order(values, which)[:k]
    ritz = run.combine(vectors[:, pick])
    ritz = ritz / op.reduce((ritz * ritz).sum(0)).sqrt()
    chosen = values[pick].to(op.device, op.accumulate_dtype)
    gap = op.matmat(ritz).to(op.accumulate_dtype) - ritz * chosen
    residuals = op.reduce((gap * gap).sum(0)).sqrt()
    if not converged:
        worst = ", ".join(f"{r:.2g}" for r in sorted(residuals.tolist(), reverse=True)[:8])
        warnings.warn(
            f"eigsh has not converged in {max_steps} steps (largest residuals {worst}); "
            "raise max_steps or tol",
            RuntimeWarning,
            stacklevel=2,
        )
    return Eigenpairs(chosen, ritz, residuals, run.products + k)


def _converged(run: Recurrence, k: int, which: str, tol: float, block: int) -> bool:
    """All k wanted Ritz pairs are accurate, and the last Krylov space has none better to give."""
    if run.steps == run.op.dimension:
        return True
    if run.steps < k:
        return False
    values, vectors = torch.linalg.eigh(run.matrix())
    scale = max(float(values.abs().max()), torch.finfo(torch.float64).tiny)
    bound = 0.0 if run.broken_down else float(run.beta()[-1])
    order = _order(values, which)[:k]
    if bool((bound * vectors[-1, order].abs() > tol * scale).any()):
        return False
    if block == 0:
        # A closed space may hide further copies of what was found: look once more outside it.
        return not run.broken_down
    own, inside = torch.linalg.eigh(run.matrix()[block:, block:])
    ends = _order(own, which)[: 2 if which == "BE" else 1]
    if bool((bound * inside[-1, ends].abs() > tol * scale).any()):
        return False
    return not _improves(run, k, which, tol * scale, block)


def _improves(run: Recurrence, k: int, which: str, slack: float, block: int) -> bool:
    """Whether the present Krylov space has a value among the wanted k, beyond rounding."""
    T = run.matrix()
    old = torch.linalg.eigvalsh(T[:block, :block])
    new = torch.linalg.eigvalsh(T[block:, block:])
    ends = ("LA", "SA") if which == "BE" else (which,)
    counts = ((k + 1) // 2, k // 2) if which == "BE" else (k,)
    for end, count in zip(ends, counts):
        if count == 0:
            continue

        def key(t: Tensor, end: str = end) -> Tensor:
            return {"LA": t, "SA": -t, "LM": t.abs()}[end]

        kept = key(old).sort(descending=True).values
        if len(kept) < count or float(key(new).max()) > float(kept[count - 1]) + slack:
            return True
    return False
