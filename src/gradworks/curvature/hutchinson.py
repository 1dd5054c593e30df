"""Traces, diagonals and norms of operators from random probes, with standard errors.

References:
    Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989. Bekas,
    Kokiopoulou, Saad, "An estimator for the diagonal of a matrix", 2007. Meyer, Musco, Musco,
    Woodruff, "Hutch++: optimal stochastic trace estimation", 2021, arXiv:2010.09649.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gradworks.curvature.operators.algebra import SymmetricOperator
from gradworks.curvature.probes import (
    check_count,
    check_operator,
    hessian_vector_product,
    rademacher_like,
    random_vector,
    vector_norm,
)

__all__ = [
    "DiagonalEstimate",
    "NormEstimate",
    "TraceEstimate",
    "diagonal",
    "frobenius_norm",
    "hessian_vector_product",
    "rademacher_like",
    "trace",
]

Distribution = Literal["rademacher", "gaussian"]
Progress = Callable[[int, int], None]

# Products between two looks for NaN on an accelerator, each of which waits for it.
_CHECK_EVERY = 8
# Fewer probes say too little about their own spread to stop on it.
_MIN_PROBES = 10


@dataclass(frozen=True)
class TraceEstimate:
    """An estimate of a trace.

    Attributes:
        value: The estimate.
        stderr: Its standard error; NaN for one sample.
        samples: Single estimates, float64 on CPU.
        num_matvecs: Products used.
    """

    value: float
    stderr: float
    samples: Tensor
    num_matvecs: int


@dataclass(frozen=True)
class NormEstimate:
    """An estimate of a Frobenius norm; the same fields as :class:`TraceEstimate`.

    Attributes:
        value: The estimate.
        stderr: Its standard error; NaN for one sample.
        samples: Squared norms of single products, float64 on CPU.
        num_matvecs: Products used.
    """

    value: float
    stderr: float
    samples: Tensor
    num_matvecs: int


@dataclass(frozen=True)
class DiagonalEstimate:
    """An estimate of a diagonal.

    Attributes:
        diagonal: ``(P,)``.
        stderr: Standard error of each element, ``(P,)``; NaN for one probe.
        num_matvecs: Products used.
    """

    diagonal: Tensor
    stderr: Tensor
    num_matvecs: int


def _check(op: object, num_probes: object, distribution: object) -> None:
    """What all estimators ask for."""
    check_operator(op)
    check_count("num_probes", num_probes)
    if distribution not in {"rademacher", "gaussian"}:
        raise ValueError(f"distribution must be rademacher or gaussian, got {distribution!r}")


def _generator(generator: torch.Generator | None) -> torch.Generator:
    """The caller's, or a fresh one, so that torch's global state stays as it is."""
    return torch.Generator().manual_seed(0) if generator is None else generator


def _product(op: SymmetricOperator, z: Tensor) -> Tensor:
    """A z in the accumulation type."""
    return op.matvec(z).to(op.accumulate_dtype)


def _look_every(device: torch.device) -> int:
    """Products between two looks."""
    return 1 if device.type == "cpu" else _CHECK_EVERY


class _Products:
    """Products with random probes, looked at now and then; a bad one's probe is drawn again."""

    def __init__(self, op: SymmetricOperator, distribution: str, source: torch.Generator) -> None:
        self._op, self._distribution, self._source = op, distribution, source
        self._every = _look_every(op.device)
        self._pending: list[tuple[Tensor, Tensor]] = []

    def _probe(self, source: torch.Generator) -> Tensor:
        return self._op.synchronize(random_vector(self._op, self._distribution, source))

    def next(self) -> tuple[Tensor, Tensor]:
        """A probe z and A z in the accumulation type."""
        state = self._source.get_state()
        z = self._probe(self._source)
        product = self._op.apply(z.to(self._op.dtype)).to(self._op.accumulate_dtype)
        self._pending.append((state, torch.isfinite(product).all()))
        if len(self._pending) >= self._every:
            self.settle()
        return z, product

    def settle(self) -> None:
        """Look at the products since the last look."""
        pending, self._pending = self._pending, []
        fine = torch.stack([ok for _, ok in pending]).tolist() if pending else []
        if not all(fine):
            again = torch.Generator(device=self._source.device)
            again.set_state(pending[fine.index(False)][0])
            self._op.diagnose(self._probe(again).to(self._op.dtype))


def _stderr(samples: Tensor) -> float:
    """Standard error of a mean; NaN for one sample."""
    n = len(samples)
    return float(samples.std() / math.sqrt(n)) if n > 1 else math.nan


def trace(
    op: SymmetricOperator,
    *,
    num_probes: int = 100,
    tol: float | None = None,
    distribution: Distribution = "rademacher",
    method: Literal["hutchinson", "hutch++"] = "hutchinson",
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> TraceEstimate:
    r"""Estimate the trace of an operator from random probes.

    .. math:: \operatorname{tr} A \approx \frac1n \sum_{i=1}^n z_i^\top A z_i, \qquad
        \operatorname{Var}(z^\top A z) = 2\,\big(\|A\|_F^2 - \textstyle\sum_i a_{ii}^2\big)

    for random signs z (the variance; for Gaussian z it is :math:`2\|A\|_F^2`). ``"hutch++"`` spends
    a third of the products on a basis of the dominant directions, whose part of the trace is then
    exact: better for spectra with outliers, exact for rank at most ``num_probes // 3`` as long as
    that many probes are independent (Gaussian ones are; a few signs in few dimensions may not be).

    Args:
        op: The operator.
        num_probes: Products to spend, at least 1 (3 for Hutch++). Default 100.
        tol: Stop once the standard error is at most ``tol`` times the estimate's magnitude, after
            at least 10 probes (``"hutchinson"`` only).
        distribution: ``"rademacher"`` (default, least variance) or ``"gaussian"``.
        method: ``"hutchinson"`` (default) or ``"hutch++"``.
        generator: Source of the probes; ``None`` for a fresh one with seed 0.
        progress: Called with (products done, ``num_probes``).

    Returns:
        Estimate, standard error, samples.

    Raises:
        FloatingPointError: A product is not finite.
        TypeError: ``op`` is not an operator.
        ValueError: ``num_probes`` too small, an unknown ``distribution`` or ``method``, ``tol`` not
            positive or given for Hutch++.

    Example:
        >>> import torch
        >>> from gradworks.curvature.hutchinson import trace
        >>> from gradworks.curvature.operators import DenseOperator
        >>> trace(DenseOperator(torch.diag(torch.arange(4.0))), num_probes=1).value
        6.0
    """  # noqa: DOC502
    _check(op, num_probes, distribution)
    if method not in {"hutchinson", "hutch++"}:
        raise ValueError(f"method must be hutchinson or hutch++, got {method!r}")
    if tol is not None and (method != "hutchinson" or not tol > 0):
        raise ValueError(f"tol must be positive and goes with method='hutchinson', got {tol}")
    source = _generator(generator)
    if method == "hutch++":
        return _hutch_plus_plus(op, num_probes, distribution, source, progress)
    samples: list[Tensor] = []
    products = _Products(op, distribution, source)
    for i in range(num_probes):
        z, product = products.next()
        samples.append(op.reduce(torch.dot(z, product)))
        if progress is not None:
            progress(i + 1, num_probes)
        if tol is not None and i + 1 >= _MIN_PROBES:
            seen = torch.stack(samples).cpu().double()
            if _stderr(seen) <= tol * abs(float(seen.mean())):
                break
    products.settle()
    drawn = torch.stack(samples).cpu().double()
    return TraceEstimate(float(drawn.mean()), _stderr(drawn), drawn, len(drawn))


def _orthonormal(op: SymmetricOperator, Y: Tensor) -> Tensor:
    """Orthonormal columns that span the range of Y; of shards by its Gram matrix, one sum."""
    if op.shape[0] == op.dimension:
        Q: Tensor = torch.linalg.qr(Y).Q
        return Q
    # Two rounds: the first leaves errors of the Gram matrix's squared condition.
    for _ in range(2):
        values, vectors = torch.linalg.eigh(op.reduce(Y.T @ Y).double().cpu())
        keep = values > values[-1].clamp_min(0) * len(values) * torch.finfo(Y.dtype).eps
        if not bool(keep.any()) or float(values[-1]) <= 0:
            return Y[:, :0]
        Y = Y @ (vectors[:, keep] / values[keep].sqrt()).to(Y)
    return Y


def _hutch_plus_plus(
    op: SymmetricOperator,
    num_probes: int,
    distribution: str,
    source: torch.Generator,
    progress: Progress | None,
) -> TraceEstimate:
    """Meyer et al. 2021, Algorithm 1."""
    if num_probes < 3:
        raise ValueError(f"num_probes must be at least 3 for method='hutch++', got {num_probes}")
    k = min(num_probes // 3, op.dimension)
    S = _synchronized(op, random_vector(op, distribution, source, k))
    Q = _orthonormal(op, op.matmat(S).to(S.dtype))
    if progress is not None:
        progress(k, num_probes)
    exact = 0.0
    if Q.shape[1]:
        exact = float(op.reduce((Q * op.matmat(Q).to(Q.dtype)).sum().double()))
    used = k + Q.shape[1]
    if progress is not None:
        progress(used, num_probes)
    samples = []
    for _ in range(max(1, num_probes - 2 * k)):
        g = op.synchronize(random_vector(op, distribution, source))
        for _ in range(2):
            g = g - Q @ op.reduce(Q.T @ g)
        samples.append(op.reduce(torch.dot(g, _product(op, g))))
        used += 1
        if progress is not None:
            progress(min(used, num_probes), num_probes)
    drawn = torch.stack(samples).cpu().double() + exact
    return TraceEstimate(float(drawn.mean()), _stderr(drawn), drawn, used)


def _synchronized(op: SymmetricOperator, block: Tensor) -> Tensor:
    """Each column as on process 0."""
    return torch.stack([op.synchronize(column.contiguous()) for column in block.unbind(1)], dim=1)


def diagonal(
    op: SymmetricOperator,
    *,
    num_probes: int = 100,
    distribution: Distribution = "rademacher",
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> DiagonalEstimate:
    r"""Estimate the diagonal of an operator from random probes.

    .. math:: d = \sum_i z_i \odot A z_i \Big/ \sum_i z_i \odot z_i

    Unbiased for random signs, where one probe's element has variance
    :math:`\sum_{j \ne i} a_{ij}^2`.

    Args:
        op: The operator.
        num_probes: At least 1. Default 100.
        distribution: ``"rademacher"`` (default) or ``"gaussian"``.
        generator: Source of the probes; ``None`` for a fresh one with seed 0.
        progress: Called with (products done, ``num_probes``).

    Returns:
        Estimate and standard error of each element.

    Raises:
        FloatingPointError: A product is not finite.
        TypeError: ``op`` is not an operator.
        ValueError: ``num_probes`` below 1 or an unknown ``distribution``.

    Example:
        >>> import torch
        >>> from gradworks.curvature.hutchinson import diagonal
        >>> from gradworks.curvature.operators import DenseOperator
        >>> diagonal(DenseOperator(torch.diag(torch.arange(3.0))), num_probes=1).diagonal
        tensor([0., 1., 2.])
    """  # noqa: DOC502
    _check(op, num_probes, distribution)
    source = _generator(generator)
    zero = torch.zeros(op.shape[0], dtype=op.accumulate_dtype, device=op.device)
    total, mean, spread = zero.clone(), zero.clone(), zero.clone()
    products = _Products(op, distribution, source)
    for i in range(num_probes):
        z, product = products.next()
        weight = z * z
        # Welford's recurrence with weights: no cancellation where the estimate is exact.
        # A Gaussian entry of zero says nothing of its row.
        ratio = torch.where(weight == 0, mean, product / z)
        total += weight
        step = ratio - mean
        mean += step * weight / total.clamp_min(torch.finfo(total.dtype).tiny)
        spread += weight * weight * step * (ratio - mean)
        if progress is not None:
            progress(i + 1, num_probes)
    products.settle()
    n = num_probes
    if n == 1:
        return DiagonalEstimate(mean, torch.full_like(mean, math.nan), 1)
    stderr = (spread.clamp_min(0) * n / (n - 1)).sqrt() / total
    return DiagonalEstimate(mean, stderr, n)


def frobenius_norm(
    op: SymmetricOperator,
    *,
    num_probes: int = 100,
    distribution: Distribution = "rademacher",
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> NormEstimate:
    r"""Estimate the Frobenius norm: :math:`\|A\|_F^2 = \mathbb E\, |A z|^2`.

    Args:
        op: The operator.
        num_probes: At least 1. Default 100.
        distribution: ``"rademacher"`` (default) or ``"gaussian"``.
        generator: Source of the probes; ``None`` for a fresh one with seed 0.
        progress: Called with (products done, ``num_probes``).

    Returns:
        The root of the mean square, and its standard error to first order.

    Raises:
        FloatingPointError: A product is not finite.
        TypeError: ``op`` is not an operator.
        ValueError: ``num_probes`` below 1 or an unknown ``distribution``.

    Example:
        >>> import torch
        >>> from gradworks.curvature.hutchinson import frobenius_norm
        >>> from gradworks.curvature.operators import DenseOperator
        >>> frobenius_norm(DenseOperator(torch.diag(torch.tensor([3.0, 4.0]))), num_probes=1).value
        5.0
    """  # noqa: DOC502
    _check(op, num_probes, distribution)
    source = _generator(generator)
    norms = []
    products = _Products(op, distribution, source)
    for i in range(num_probes):
        _, product = products.next()
        norms.append(vector_norm(op, product))
        if progress is not None:
            progress(i + 1, num_probes)
    products.settle()
    drawn = torch.stack(norms).cpu().double().square()
    value = math.sqrt(float(drawn.mean()))
    stderr = _stderr(drawn) / (2 * value) if value > 0 else 0.0
    return NormEstimate(value, stderr, drawn, len(drawn))
