"""Whole spectra: exact where the matrix can be written down, by quadrature where it cannot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gradworks.curvature.lanczos import SpectralMeasure, eigsh, slq
from gradworks.curvature.operators.algebra import SymmetricOperator
from gradworks.curvature.probes import check_count
from gradworks.curvature.spectrum.split import (
    SMALL,
    BulkSplit,
    bulk_statistics,
    marchenko_pastur_edge,
    split_bulk_outliers,
)

__all__ = ["Spectrum", "SpectrumReport", "exact_spectrum", "spectrum"]

Progress = Callable[[int, int], None]

# Up to here method="auto" takes the exact route: about a minute on one core.
AUTO_EXACT = 3000
# Accuracy of the ends over the largest eigenvalue; the lower end lies in the bulk, where more costs
# hundreds of steps.
_END_TOL = 1e-4
# Share of t_1 that the report's threshold rule uses.
_THRESHOLD = 5e-2


@dataclass(frozen=True)
class Spectrum:
    """All eigenvalues of an operator.

    Attributes:
        eigenvalues: Ascending, ``(P,)``, float64.
        eigenvectors: Columns ``(P, P)``, or ``None``.
        asymmetry: ``max |A - A^T|`` before the matrix was symmetrised: noise of that size is not
            spectrum.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor | None = None
    asymmetry: float = 0.0


@dataclass(frozen=True)
class SpectrumReport:
    """A spectrum with its split and its summary.

    Attributes:
        spectrum: All eigenvalues, by the exact route; else ``None``.
        measure: Nodes and weights, by quadrature; else ``None``.
        top: Leading eigenvalues, descending.
        bottom: Lowest eigenvalues, ascending.
        split: Outliers by the gap rule.
        splits: Outliers by all three rules, by name.
        summary: Numbers by name, see
            :func:`~gradworks.curvature.spectrum.bulk_statistics`; with standard errors
            (``…_stderr``) where they were estimated.
        method: ``"exact"`` or ``"slq"``.
        dimension: P.
    """

    spectrum: Spectrum | None
    measure: SpectralMeasure | None
    top: Tensor
    bottom: Tensor
    split: BulkSplit
    splits: dict[str, BulkSplit]
    summary: dict[str, float]
    method: str
    dimension: int

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON.

        Returns:
            Everything but eigenvectors.
        """
        return {
            "method": self.method,
            "dimension": self.dimension,
            "top": self.top.tolist(),
            "bottom": self.bottom.tolist(),
            "summary": dict(self.summary),
            "splits": {
                rule: {
                    "num_outliers": s.num_outliers,
                    "outliers": s.outliers.tolist(),
                    "gap_ratio": s.gap_ratio,
                    "threshold": s.threshold,
                }
                for rule, s in self.splits.items()
            },
            "eigenvalues": None if self.spectrum is None else self.spectrum.eigenvalues.tolist(),
            "nodes": None if self.measure is None else [t.tolist() for t in self.measure.nodes],
            "weights": None if self.measure is None else [w.tolist() for w in self.measure.weights],
        }


def exact_spectrum(
    op: SymmetricOperator,
    *,
    eigenvectors: bool = False,
    max_parameters: int = 20_000,
    chunk_size: int = 64,
    progress: Progress | None = None,
) -> Spectrum:
    """All eigenvalues of an operator, by writing it down.

    For up to a few thousand parameters; P products, then :math:`O(P^3)`. Work in float64: in
    float32 the noise of the products looks like a bulk.

    Args:
        op: The operator.
        eigenvectors: Also give the eigenvectors.
        max_parameters: Refuse larger operators. Default 20,000 (3.2 GB a copy).
        chunk_size: Columns in one batched product.
        progress: Called with (columns done, P).

    Returns:
        Eigenvalues ascending, in float64.

    Raises:
        FloatingPointError: A product is not finite.
        TypeError: ``op`` is not an operator.
        ValueError: P above ``max_parameters``, or a NaN in the matrix.

    Example:
        >>> import torch
        >>> from gradworks.curvature.operators import DenseOperator
        >>> from gradworks.curvature.spectrum import exact_spectrum
        >>> exact_spectrum(DenseOperator(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))).eigenvalues
        tensor([1., 3.], dtype=torch.float64)
    """  # noqa: DOC502
    if not isinstance(op, SymmetricOperator):
        raise TypeError(f"op must be a SymmetricOperator, got {type(op).__name__}")
    P = op.dimension
    if max_parameters < P:
        raise ValueError(
            f"op has {P} parameters, max_parameters is {max_parameters}; "
            'use spectrum(op, method="slq") or raise max_parameters'
        )
    dense = op.to_dense(chunk_size=chunk_size, progress=progress).double()
    asymmetry = float((dense - dense.T).abs().max())
    if not math.isfinite(asymmetry):
        raise ValueError("the matrix has NaN or infinite entries; look at the operator's loss")
    symmetric = (dense + dense.T).mul_(0.5)
    if eigenvectors:
        values, vectors = torch.linalg.eigh(symmetric)
        return Spectrum(values, vectors, asymmetry)
    return Spectrum(torch.linalg.eigvalsh(symmetric), None, asymmetry)


def spectrum(
    op: SymmetricOperator,
    *,
    method: Literal["auto", "exact", "slq"] = "auto",
    num_steps: int = 100,
    num_probes: int = 10,
    top: int = 20,
    generator: torch.Generator | None = None,
    max_steps: int = 300,
    basis_device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> SpectrumReport:
    """Measure a spectrum, split it into outliers and bulk, and summarise it.

    Args:
        op: The operator.
        method: ``"exact"``, ``"slq"`` (stochastic Lanczos quadrature for the density, Lanczos for
            the ends), or ``"auto"``: exact up to 3,000 parameters.
        num_steps: Lanczos steps a probe, default 100.
        num_probes: Probes, default 10; at least 2 for standard errors.
        top: Eigenvalues at the upper end, default 20; half as many at the lower.
        generator: Source of the probes; ``None`` for a fresh one with seed 0.
        max_steps: Lanczos steps for each end of the spectrum at most, default 300.
        basis_device: Where Lanczos vectors are kept, e.g. ``"cpu"`` for a model that fills its GPU.
        progress: Called with (products done, products in all).

    Returns:
        The report.

    Raises:
        FloatingPointError: A product is not finite.
        TypeError: ``op`` is not an operator.
        ValueError: An unknown ``method``, a count below 1, or P above 20,000 with ``"exact"``.

    Example:
        >>> import torch
        >>> from gradworks.curvature.operators import DenseOperator
        >>> from gradworks.curvature.spectrum import spectrum
        >>> d = torch.cat([torch.linspace(0.1, 0.2, 50), torch.tensor([3.0, 5.0])])
        >>> spectrum(DenseOperator(torch.diag(d))).split.num_outliers
        2
    """  # noqa: DOC502
    if not isinstance(op, SymmetricOperator):
        raise TypeError(f"op must be a SymmetricOperator, got {type(op).__name__}")
    if method not in {"auto", "exact", "slq"}:
        raise ValueError(f"method must be one of auto, exact, slq, got {method!r}")
    for name, value in (
        ("num_steps", num_steps),
        ("num_probes", num_probes),
        ("top", top),
        ("max_steps", max_steps),
    ):
        check_count(name, value)
    if method == "exact" or (method == "auto" and op.dimension <= AUTO_EXACT):
        return _exact_report(exact_spectrum(op, progress=progress), top)
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    return _quadrature_report(
        op, num_steps, num_probes, top, generator, max_steps, basis_device, progress
    )


def _exact_report(found: Spectrum, top: int) -> SpectrumReport:
    """Everything from all eigenvalues."""
    t = found.eigenvalues.cpu()
    largest = float(t[-1])
    splits = {
        "gap": split_bulk_outliers(t),
        "threshold": split_bulk_outliers(t, rule="threshold", threshold=_THRESHOLD * largest),
        "mp": split_bulk_outliers(t, rule="mp"),
    }
    summary = bulk_statistics(t, num_outliers=splits["gap"].num_outliers)
    summary["asymmetry"] = found.asymmetry
    _count(summary, splits)
    return SpectrumReport(
        spectrum=found,
        measure=None,
        top=t.flip(0)[:top],
        bottom=t[: max(1, top // 2)],
        split=splits["gap"],
        splits=splits,
        summary=summary,
        method="exact",
        dimension=len(t),
    )


def _count(summary: dict[str, float], splits: dict[str, BulkSplit]) -> None:
    """The three counts beside the other numbers."""
    for rule, split in splits.items():
        summary[f"num_outliers_{rule}"] = float(split.num_outliers)
    summary["gap_ratio"] = splits["gap"].gap_ratio


def _quadrature_report(
    op: SymmetricOperator,
    num_steps: int,
    num_probes: int,
    top: int,
    generator: torch.Generator,
    max_steps: int,
    basis_device: torch.device | str | None,
    progress: Progress | None,
) -> SpectrumReport:
    """Density by quadrature, ends by Lanczos."""
    P = op.dimension
    top, low = min(top, P), min(max(1, top // 2), P)
    products = num_probes * min(num_steps, P)
    ends = 2 * min(max_steps, P)
    total = products + ends

    def shifted(start: int) -> Progress | None:
        if progress is None:
            return None
        return lambda done, _: progress(start + done, total)

    measure = slq(
        op,
        num_steps=num_steps,
        num_probes=num_probes,
        generator=generator,
        basis_device=basis_device,
        progress=shifted(0),
    )
    ends_options: dict[str, Any] = {
        "tol": _END_TOL,
        "max_steps": max_steps,
        "generator": generator,
        "basis_device": basis_device,
    }
    upper = eigsh(op, top, which="LA", progress=shifted(products), **ends_options)
    lower = eigsh(op, low, which="SA", progress=shifted(products + ends // 2), **ends_options)
    if progress is not None:
        progress(total, total)
    t = upper.values.detach().cpu().double()
    bottom = lower.values.detach().cpu().double()
    nodes = torch.cat([n.double() for n in measure.nodes])
    weights = torch.cat([w.double() for w in measure.weights]) / len(measure.nodes)
    edge = marchenko_pastur_edge(nodes, weights)
    largest = float(t[0])
    splits = {
        "gap": split_bulk_outliers(t),
        "threshold": split_bulk_outliers(t, rule="threshold", threshold=_THRESHOLD * largest),
        "mp": split_bulk_outliers(
            t, rule="threshold", threshold=math.inf if math.isnan(edge) else edge
        ),
    }
    return SpectrumReport(
        spectrum=None,
        measure=measure,
        top=t,
        bottom=bottom,
        split=splits["gap"],
        splits=splits,
        summary=_estimated(measure, largest, float(bottom[0]), splits, upper.residuals),
        method="slq",
        dimension=P,
    )


def _estimated(
    measure: SpectralMeasure,
    largest: float,
    smallest: float,
    splits: dict[str, BulkSplit],
    residuals: Tensor,
) -> dict[str, float]:
    """The numbers of ``bulk_statistics`` from a spectral measure, with standard errors."""
    P = measure.dimension

    def identity(t: Tensor) -> Tensor:
        return t

    magnitude = float(measure.expectation(torch.abs))
    square = float(measure.expectation(torch.square))
    negative = float(measure.expectation(lambda t: (-t).clamp_min(0)))
    summary = {
        "largest": largest,
        "smallest": smallest,
        "trace": float(measure.trace()),
        "trace_stderr": P * float(measure.stderr(identity)),
        "frobenius_norm": math.sqrt(P * square),
        "negative_mass": negative / magnitude if magnitude > 0 else 0.0,
        "effective_rank": P * magnitude**2 / square if square > 0 else 0.0,
        "largest_residual": float(residuals.max()),
    }
    for c in SMALL:
        if largest > 0:
            share, error = measure.fraction_small(c * largest)
            summary[f"fraction_small_{c:g}"] = share
            summary[f"fraction_small_{c:g}_stderr"] = error
    _count(summary, splits)
    return summary
