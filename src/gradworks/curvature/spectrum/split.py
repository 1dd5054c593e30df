"""Outliers and bulk of a spectrum by three rules, and what the bulk looks like in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

__all__ = ["BulkSplit", "Rule", "bulk_statistics", "marchenko_pastur_edge", "split_bulk_outliers"]

Rule = Literal["gap", "threshold", "mp"]

# Fractions |t| < c t_1 that are reported.
SMALL = (1e-3, 1e-2, 5e-2)
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Fewer positive eigenvalues say too little about the shape of a bulk.
_MIN_BULK = 20


@dataclass(frozen=True)
class BulkSplit:
    """Eigenvalues in two parts.

    Attributes:
        num_outliers: k.
        outliers: The k largest, descending.
        bulk: The others, ascending.
        gap_ratio: Largest ratio of neighbours among the leading values; NaN below two positive
            ones.
        rule: The rule that gave k.
        threshold: Value above which an eigenvalue counts as an outlier; NaN where there is none.
    """

    num_outliers: int
    outliers: Tensor
    bulk: Tensor
    gap_ratio: float
    rule: str = "gap"
    threshold: float = math.nan


def _checked(eigenvalues: object) -> Tensor:
    """A non-empty real vector without NaN, descending, float64 on CPU."""
    if not isinstance(eigenvalues, Tensor):
        raise TypeError(f"eigenvalues must be a torch.Tensor, got {type(eigenvalues).__name__}")
    if eigenvalues.dim() != 1 or len(eigenvalues) == 0:
        raise ValueError(
            f"eigenvalues must be a vector of at least one, got shape {tuple(eigenvalues.shape)}"
        )
    if eigenvalues.is_complex():
        raise ValueError("eigenvalues must be real; use eigvalsh on a symmetric matrix")
    values = eigenvalues.detach().cpu().double()
    if not bool(torch.isfinite(values).all()):
        raise ValueError("eigenvalues has NaN or infinite entries; look at the operator's loss")
    return values.sort(descending=True).values


def split_bulk_outliers(
    eigenvalues: Tensor,
    *,
    rule: Rule = "gap",
    max_outliers: int = 40,
    min_gap: float = 1.3,
    threshold: float | None = None,
) -> BulkSplit:
    r"""Count the eigenvalues that stand out above the bulk.

    With eigenvalues sorted descending, ``"gap"`` takes

    .. math:: k = \arg\max_{t_{k+1} > 0} \; t_k / t_{k+1}

    among the first ``max_outliers`` positive values (the first maximum), and 0 when that ratio is
    below ``min_gap``. ``"threshold"`` counts those above a value. ``"mp"`` counts those above the
    edge of a Marchenko-Pastur law fitted to the quartiles of the positive part, for spectra of
    hundreds of values. A count from one rule is not a fact: look at all three and at the spectrum.

    Args:
        eigenvalues: ``(P,)``, in any order.
        rule: ``"gap"``, ``"threshold"`` or ``"mp"``.
        max_outliers: Leading positive values the gap is looked for in, at least 2. Default 40.
        min_gap: Smallest ratio that counts, at least 1. Default 1.3.
        threshold: For ``"threshold"``.

    Returns:
        The split.

    Raises:
        TypeError: ``eigenvalues`` is not a tensor.
        ValueError: Empty, NaN or complex eigenvalues, an unknown rule, a missing threshold, or
            ``max_outliers`` or ``min_gap`` out of range.

    Note:
        Positive means above rounding, :math:`t_1 P \epsilon`: the zeros of a matrix that lacks
        rank come out as 1e-17 and would make the largest gap of all.

    Example:
        >>> import torch
        >>> from gradworks.curvature.spectrum import split_bulk_outliers
        >>> split_bulk_outliers(torch.tensor([9.0, 7.0, 0.5, 0.4, 0.3])).num_outliers
        2

    References:
        Sagun, Evci, Guney, Dauphin, Bottou, "Empirical analysis of the Hessian of
        over-parametrized neural networks", 2017, arXiv:1706.04454 (counted by eye there).
    """  # noqa: DOC502
    if rule not in {"gap", "threshold", "mp"}:
        raise ValueError(f"rule must be one of gap, threshold, mp, got {rule!r}")
    if isinstance(max_outliers, bool) or not isinstance(max_outliers, int) or max_outliers < 2:
        raise ValueError(f"max_outliers must be an integer of at least 2, got {max_outliers!r}")
    if not min_gap >= 1:
        raise ValueError(f"min_gap must be at least 1, got {min_gap}")
    if rule == "threshold" and threshold is None:
        raise ValueError("threshold is missing: rule='threshold' counts the eigenvalues above it")
    if threshold is not None and math.isnan(threshold):
        raise ValueError("threshold is NaN")
    t = _checked(eigenvalues)
    k, ratio = _largest_gap(t, max_outliers, min_gap)
    edge = math.nan
    if rule == "gap":
        if k:
            edge = float((t[k - 1] * t[k]).sqrt())
    else:
        if rule == "threshold" and threshold is not None:
            edge = float(threshold)
        elif rule == "mp":
            edge = marchenko_pastur_edge(t)
        k = 0 if math.isnan(edge) else int((t > edge).sum())
    return BulkSplit(k, t[:k], t[k:].flip(0), ratio, rule, edge)


def _largest_gap(t: Tensor, max_outliers: int, min_gap: float) -> tuple[int, float]:
    """K and the ratio of the gap rule, of descending values."""
    floor = float(t[0]) * len(t) * torch.finfo(t.dtype).eps
    leading = t[t > max(floor, 0.0)][:max_outliers]
    if len(leading) < 2:
        return 0, math.nan
    ratios = leading[:-1] / leading[1:]
    best = int(ratios.argmax())
    ratio = float(ratios[best])
    return (best + 1 if ratio >= min_gap else 0), ratio


@lru_cache(maxsize=1)
def _law() -> tuple[Tensor, Tensor, Tensor]:
    """Aspect ratios, and quartiles (25, 50, 75 %) of their Marchenko-Pastur laws of variance 1."""
    ratios = torch.linspace(0.01, 1.0, 100, dtype=torch.float64)
    quartiles = []
    for q in ratios.tolist():
        low, high = (1 - math.sqrt(q)) ** 2, (1 + math.sqrt(q)) ** 2
        # x = midpoint - half-width cos(angle) takes the roots at both edges out of the integral.
        angle = torch.linspace(0, math.pi, 4001, dtype=torch.float64)
        x = (low + high) / 2 - (high - low) / 2 * angle.cos()
        density = ((high - low) / 2 * angle.sin()) ** 2 / x.clamp_min(1e-300)
        steps = (density[1:] + density[:-1]) / 2
        cdf = torch.cat([torch.zeros(1, dtype=torch.float64), steps.cumsum(0)])
        cdf /= cdf[-1].clone()
        at = torch.searchsorted(cdf, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
        quartiles.append(x[at])
    table = torch.stack(quartiles)
    return ratios, table, (table[:, 2] - table[:, 0]) / table[:, 1]


def _quantiles(t: Tensor, weights: Tensor | None, at: tuple[float, ...]) -> Tensor:
    """Weighted quantiles of values in any order."""
    order = t.argsort()
    w = torch.ones_like(t) if weights is None else weights
    below = w[order].cumsum(0) - w[order] / 2
    place = torch.searchsorted(below / w.sum(), torch.tensor(at, dtype=t.dtype))
    return t[order][place.clamp_max(len(t) - 1)]


def marchenko_pastur_edge(eigenvalues: Tensor, weights: Tensor | None = None) -> float:
    r"""Upper edge of the Marchenko-Pastur law whose quartiles are those of the positive values.

    .. math:: \lambda_+ = \sigma^2 (1 + \sqrt q)^2

    q from the ratio of interquartile range and median, :math:`\sigma^2` from the median: both are
    blind to a few outliers.

    Args:
        eigenvalues: ``(P,)``; those at or below rounding are left out.
        weights: Shares of the eigenvalues, e.g. of a spectral measure.

    Returns:
        The edge; NaN below 20 positive values, whose shape says nothing.

    Raises:
        ValueError: Not a vector, or an empty one.

    Example:
        >>> import torch
        >>> from gradworks.curvature.spectrum import marchenko_pastur_edge
        >>> X = torch.randn(400, 100, generator=torch.Generator().manual_seed(0))
        >>> edge = marchenko_pastur_edge(torch.linalg.eigvalsh(X.T @ X / 400))
        >>> abs(edge - (1 + 0.5) ** 2) < 0.1  # variance 1, aspect ratio 1/4
        True
    """
    if eigenvalues.dim() != 1 or len(eigenvalues) == 0:
        raise ValueError(
            f"eigenvalues must be a vector of at least one, got shape {tuple(eigenvalues.shape)}"
        )
    t = eigenvalues.detach().cpu().double()
    floor = float(t.max()) * len(t) * torch.finfo(t.dtype).eps
    positive = t > max(floor, 0.0)
    if int(positive.sum()) < _MIN_BULK:
        return math.nan
    w = None if weights is None else weights.detach().cpu().double()[positive]
    low, middle, high = _quantiles(t[positive], w, (0.25, 0.5, 0.75)).tolist()
    ratios, table, shapes = _law()
    i = int((shapes - (high - low) / middle).abs().argmin())
    variance = middle / float(table[i, 1])
    return float(variance * (1 + math.sqrt(float(ratios[i]))) ** 2)


def bulk_statistics(eigenvalues: Tensor, *, num_outliers: int = 0) -> dict[str, float]:
    r"""Numbers that describe a spectrum.

    Args:
        eigenvalues: ``(P,)``, in any order.
        num_outliers: Left out of the bulk's quantiles.

    Returns:
        ``largest``, ``smallest``, ``trace``, ``frobenius_norm``; ``fraction_small_c``, the share
        with :math:`|t| < c\,t_1`; ``negative_mass``, the share of :math:`\sum|t|` below zero;
        ``effective_rank`` :math:`(\sum|t|)^2/\sum t^2`; ``bulk_quantile_q`` over :math:`t_1`.

    Raises:
        TypeError: ``eigenvalues`` is not a tensor.
        ValueError: Empty, NaN or complex eigenvalues.

    Example:
        >>> import torch
        >>> from gradworks.curvature.spectrum import bulk_statistics
        >>> bulk_statistics(torch.tensor([4.0, 0.0, 0.0, 0.0]))["fraction_small_0.01"]
        0.75
    """  # noqa: DOC502
    t = _checked(eigenvalues)
    top, size = float(t[0]), t.abs().sum()
    summary = {
        "largest": top,
        "smallest": float(t[-1]),
        "trace": float(t.sum()),
        "frobenius_norm": float(t.norm()),
        "negative_mass": float(-t[t < 0].sum() / size) if size > 0 else 0.0,
        "effective_rank": float(size**2 / (t @ t)) if size > 0 else 0.0,
    }
    for c in SMALL:
        summary[f"fraction_small_{c:g}"] = float((t.abs() < c * top).double().mean())
    bulk = t[num_outliers:]
    if len(bulk):
        values = torch.quantile(bulk, torch.tensor(_QUANTILES, dtype=t.dtype))
        for q, value in zip(_QUANTILES, values.tolist()):
            summary[f"bulk_quantile_{q:g}"] = value / top if top > 0 else math.nan
    return summary
