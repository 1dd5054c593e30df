"""Gradient descent on the factors of a matrix that is seen through linear measurements.

"How Over-Parameterization Slows Down Gradient Descent in Matrix Sensing: The Curses of Symmetry
and Initialization", 2023, arXiv:2310.01769. No authors' code was found. Our choices: the start's
``1/sqrt(n)``, the default step, and when the one modified step is taken (a residual that can be
observed; the paper says "near the solution").
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from gradworks.solvers.matrix_sensing import arguments as check
from gradworks.solvers.matrix_sensing.balance import rebalance
from gradworks.solvers.matrix_sensing.operator import MeasurementOperator
from gradworks.solvers.matrix_sensing.recording import Record
from gradworks.solvers.matrix_sensing.result import SensingResult

__all__ = ["accelerated_gd", "asymmetric_gd", "symmetric_gd"]

LR = 0.1  # over the largest singular value of A*(y); our choice
RESET_TOL = 0.01  # of ||y||^2; our choice


def symmetric_gd(
    op: MeasurementOperator,
    y: Tensor,
    rank: int,
    *,
    lr: float | None = None,
    alpha: float = 0.1,
    scale: Literal["unit", "entry"] = "unit",
    init: Tensor | None = None,
    max_iter: int = 10_000,
    tol: float = 0.0,
    target: Tensor | None = None,
    record_every: int = 1,
    generator: torch.Generator | None = None,
) -> SensingResult:
    r"""Recover a positive semi-definite matrix as :math:`X X^\top` by gradient descent.

    .. math:: E = A^*(A(X X^\top) - y), \qquad X \leftarrow X - \eta E X

    on the loss :math:`\tfrac14 \|A(X X^\top) - y\|^2`, with :math:`\eta` ``lr``. With as many
    columns as the rank of the matrix it converges linearly; with more, its squared error falls as
    ``(k - r) / (2 lr T)^2`` and no faster: take :func:`accelerated_gd` there. Where the ``A_i`` are
    not symmetric, the gradient takes the symmetric part of ``E``.

    Args:
        op: The measurements, square.
        y: Their values, shape ``(m,)``.
        rank: Columns of X, at least 1 and at most ``n``; at least the rank that is looked for.
        lr: Step size, positive; by default 0.1 over the largest singular value of ``A*(y)``.
        alpha: Scale of the start, positive; 0.1.
        scale: "unit" draws the start from N(0, alpha^2 / n), "entry" from N(0, alpha^2).
        init: The start itself, shape ``(n, rank)``.
        max_iter: Most updates; 10,000.
        tol: Stop once ``||A(X X^T) - y||^2`` is at most ``tol ||y||^2``, looked at every
            ``record_every`` iterations; 0.0.
        target: The matrix itself, for ``errors``.
        record_every: Iterations from one record to the next; 1. Between records the loop waits for
            nothing on an accelerator.
        generator: Draws the start; torch's default one otherwise.

    Returns:
        Factors, residuals and errors.

    Raises:
        ValueError: If a number is out of range, a shape does not fit, ``op`` is not square, or
            ``y``, ``init`` or ``target`` is not finite.
        TypeError: If an argument has a wrong type.
        FloatingPointError: If the residual explodes: ``lr`` is too large.

    Note:
        A step costs ``4 n^2 k`` FLOPs and two passes over the stored measurements, in their dtype.
        Keep float64 where rates are measured: float32 ends near 1e-12.

    Example:
        >>> M = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64))
        >>> op = MeasurementOperator.identity(4)
        >>> seeded = torch.Generator().manual_seed(0)
        >>> result = symmetric_gd(op, op(M), rank=2, target=M, tol=1e-20, generator=seeded)
        >>> result.converged, bool(result.errors[-1] < 1e-19)
        (True, True)

    References:
        arXiv:2310.01769, Section 1 and Theorem on the lower bound.
    """  # noqa: DOC502
    _, n1, n2 = op.shape
    if n1 != n2:
        raise ValueError(
            f"symmetric_gd needs square measurements, got n1={n1} and n2={n2}: take asymmetric_gd"
        )
    y = _measurements(op, y)
    rank = _rank(op, rank)
    if init is None:
        X = _start(op, n1, rank, check.positive("alpha", alpha), scale, generator)
    else:
        X = _given("init", init, (n1, rank), op)
    step = _step_size(op, y, lr)
    record = Record(op, y, step, max_iter, tol, target, record_every)
    for t in range(max_iter + 1):
        off, kept = op._off(X, X, y)
        if record.due(t):
            record.write(t, off, X, X)
        if record.converged or t == max_iter:
            break
        X, _ = op._descend(X, X, off, kept, step, True)
    return record.result((X,), None)


def asymmetric_gd(
    op: MeasurementOperator,
    y: Tensor,
    rank: int,
    *,
    lr: float | None = None,
    alpha: float = 0.1,
    imbalance: float = 3.0,
    scale: Literal["unit", "entry"] = "unit",
    init: tuple[Tensor, Tensor] | None = None,
    max_iter: int = 10_000,
    tol: float = 0.0,
    target: Tensor | None = None,
    reset_at: int | None = None,
    reset_tol: float | None = None,
    beta: float = 0.5,
    record_every: int = 1,
    generator: torch.Generator | None = None,
) -> SensingResult:
    r"""Recover a matrix as :math:`F G^\top` by gradient descent on both factors at once.

    .. math:: E = A^*(A(F G^\top) - y), \qquad
              F \leftarrow F - \eta E G, \quad G \leftarrow G - \eta E^\top F

    on the loss :math:`\tfrac12 \|A(F G^\top) - y\|^2`; both right sides use the old factors. With
    more columns than the rank it converges linearly, at a rate of order ``alpha^2``: see
    :func:`~gradworks.solvers.matrix_sensing.predicted_rate`. Rescaling the factors at one iteration
    (``reset_at`` or ``reset_tol``) makes the rate that of ``beta``.

    Args:
        op: The measurements. Not symmetrised ones: they do not see the antisymmetric part.
        y: Their values, shape ``(m,)``.
        rank: Columns of each factor, at least 1 and at most ``min(n1, n2)``.
        lr: Step size, positive; by default 0.1 over the largest singular value of ``A*(y)``.
        alpha: Scale of the start of F, positive; 0.1.
        imbalance: F starts so many times as large as G, positive; 3.0 (the paper). A balanced
            start, 1, converges sub-linearly.
        scale: "unit" draws ``F_0 / alpha`` from N(0, 1/n1) and G's from N(0, 1/n2); "entry" both
            from N(0, 1).
        init: The start itself, ``(F_0, G_0)``.
        max_iter: Most updates; 10,000.
        tol: Stop once ``||A(F G^T) - y||^2`` is at most ``tol ||y||^2``; 0.0.
        target: The matrix itself, for ``errors``.
        reset_at: Iteration before whose update the factors are rescaled.
        reset_tol: Rescale once the residual is at most so much of ``||y||^2``. Like ``tol``, it is
            looked at every ``record_every`` iterations.
        beta: Singular values of F after it, positive; 0.5 (our choice).
        record_every: Iterations from one record to the next; 1.
        generator: Draws the start; torch's default one otherwise.

    Returns:
        Factors, residuals and errors.

    Raises:
        ValueError: If a number is out of range, a shape does not fit, ``y``, ``init`` or ``target``
            is not finite, or both ``reset_at`` and ``reset_tol`` are given.
        TypeError: If an argument has a wrong type.
        RuntimeError: If F has lost rank when it is rescaled.
        FloatingPointError: If the residual explodes: ``lr`` is too large.

    Note:
        A step costs ``6 n1 n2 k`` FLOPs and two passes over the stored measurements.

    Example:
        >>> M = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64))
        >>> op = MeasurementOperator.identity(4)
        >>> seeded = torch.Generator().manual_seed(0)
        >>> result = asymmetric_gd(op, op(M), 3, target=M, reset_tol=0.01, generator=seeded)
        >>> result.reset_iter is not None, bool(result.errors[-1] < 1e-25)
        (True, True)

    References:
        arXiv:2310.01769, Sections 4 and 5.
    """  # noqa: DOC502
    _, n1, n2 = op.shape
    y = _measurements(op, y)
    rank = _rank(op, rank)
    check.positive("beta", beta)
    if reset_at is not None and reset_tol is not None:
        raise ValueError(
            f"give reset_at or reset_tol, not both: got {reset_at} and {reset_tol}; the factors "
            "are rescaled once"
        )
    if reset_at is not None:
        check.count("reset_at", reset_at)
    if reset_tol is not None:
        check.positive("reset_tol", reset_tol)
    if init is None:
        large = check.positive("alpha", alpha)
        small = large / check.positive("imbalance", imbalance)
        F = _start(op, n1, rank, large, scale, generator)
        G = _start(op, n2, rank, small, scale, generator)
    else:
        F, G = _pair(op, init, rank)
    step = _step_size(op, y, lr)
    record = Record(op, y, step, max_iter, tol, target, record_every, reset_tol)
    reset: int | None = None
    for t in range(max_iter + 1):
        off, kept = op._off(F, G, y)
        if record.due(t):
            record.write(t, off, F, G)
        if record.converged or t == max_iter:
            break
        if reset is None and (t == reset_at or record.wanted):
            record.guard(t, off)
            F, G = rebalance(F, G, beta)
            reset = t
            record.unwatch()
            off, kept = op._off(F, G, y)
        F, G = op._descend(F, G, off, kept, step, False)
    return record.result((F, G), reset)


def accelerated_gd(op: MeasurementOperator, y: Tensor, rank: int, **kw: Any) -> SensingResult:
    """Recover a matrix at a rate that neither spare columns nor a small start slow down.

    :func:`asymmetric_gd` whose factors are rescaled once, when the residual is down to 0.01 of
    ``||y||^2``. For an unknown rank take twice a guess of it.

    Args:
        op: The measurements.
        y: Their values, shape ``(m,)``.
        rank: Columns of each factor.
        **kw: As for :func:`asymmetric_gd`; ``reset_at`` or ``reset_tol`` replace the 0.01.

    Returns:
        Factors, residuals and errors.

    Example:
        >>> M = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64))
        >>> op = MeasurementOperator.identity(4)
        >>> seeded = torch.Generator().manual_seed(0)
        >>> result = accelerated_gd(op, op(M), 4, tol=1e-24, generator=seeded)
        >>> result.converged
        True
    """
    if kw.get("reset_at") is None and kw.get("reset_tol") is None:
        kw["reset_tol"] = RESET_TOL
    return asymmetric_gd(op, y, rank, **kw)


def _measurements(op: MeasurementOperator, y: Tensor) -> Tensor:
    y = check.shaped("y", y, op.shape[:1], op.dtype, op.device)
    check.finite("y", y)
    return y.contiguous()


def _rank(op: MeasurementOperator, rank: int) -> int:
    most = min(op.shape[1:])
    if check.positive_int("rank", rank) > most:
        raise ValueError(f"rank must be at most min(n1, n2) = {most}, got {rank}")
    return rank


def _start(
    op: MeasurementOperator,
    n: int,
    rank: int,
    alpha: float,
    scale: str,
    generator: torch.Generator | None,
) -> Tensor:
    """A Gaussian factor; the first process's, where several hold measurements."""
    check.one_of("scale", scale, ("unit", "entry"))
    device = op.device if generator is None else generator.device
    drawn = torch.randn(n, rank, generator=generator, dtype=op.dtype, device=device)
    drawn *= alpha / math.sqrt(n) if scale == "unit" else alpha
    return op.agree(drawn.to(op.device))


def _pair(op: MeasurementOperator, init: object, rank: int) -> tuple[Tensor, Tensor]:
    if not isinstance(init, tuple | list) or len(init) != 2:
        raise TypeError(f"init must be the pair (F0, G0), got {type(init).__name__}")
    _, n1, n2 = op.shape
    return _given("init[0]", init[0], (n1, rank), op), _given("init[1]", init[1], (n2, rank), op)


def _given(name: str, value: object, shape: tuple[int, int], op: MeasurementOperator) -> Tensor:
    """A factor to start from, in memory of its own: a run of no updates returns it."""
    factor = check.shaped(name, value, shape, op.dtype, op.device)
    check.finite(name, factor)
    return factor.clone()


def _step_size(op: MeasurementOperator, y: Tensor, lr: float | None) -> float:
    if lr is not None:
        return check.positive("lr", lr)
    largest = float(torch.linalg.matrix_norm(op.adjoint(y), 2))
    return LR / largest if largest > 0 else LR
