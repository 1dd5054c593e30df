"""Estimate, interval, p-value and power of one criterion, before any decision.

Everything is computed on the tested scale (logarithms where a ratio is asked for) and turned so
that a gain is positive; :class:`Measure` shows it on the scale of the criterion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradworks.bench import statistics
from gradworks.bench.claims import Criterion
from gradworks.bench.verdicts.units import Units, on_log_scale

__all__ = ["ALPHA", "TESTED", "Measure", "floor_of", "margin_of", "measure", "shown_floor"]

ALPHA = 0.05
COMPARES = ("superiority", "speed", "threshold")
TESTED = (*COMPARES, "equivalence")  # the kinds that have a p-value and so belong to the family
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """What the runs say about one criterion.

    Attributes:
        estimate: Mean effect on the criterion's scale; for ``threshold``, ``exactness`` and
            ``rate`` the mean value itself.
        lo: Lower end of its interval (or range) on the same scale.
        hi: Upper end.
        level: Confidence of the interval, None for a range.
        p: One-sided p-value of the claim, None for ``exactness`` and ``rate``.
        reverse_p: The p-value of the opposite claim.
        gain: Mean gain on the tested scale, positive on the claimed side.
        gain_lo: Lower end of the gain's interval.
        gain_hi: Upper end.
        sd: Standard deviation of the gain over units; None below two units.
        deviation: Largest deviation from the reference over all runs (``exactness``).
        effect_size: Mean difference in pooled standard deviations of the units.
        holds_on: Workloads on which the claim holds by itself, as (name, p after Holm).
        reversed_on: Workloads on which it is significantly reversed.
    """

    estimate: float
    lo: float
    hi: float
    level: float | None
    p: float | None = None
    reverse_p: float | None = None
    gain: float = math.nan
    gain_lo: float = math.nan
    gain_hi: float = math.nan
    sd: float | None = None
    deviation: float | None = None
    effect_size: float | None = None
    holds_on: tuple[tuple[str, float], ...] = ()
    reversed_on: tuple[str, ...] = ()


def floor_of(criterion: Criterion) -> float:
    """Return the smallest effect worth having as a gain on the tested scale, 0 for none.

    The side is taken from ``direction``: a published ratio of 1.3 and one of 1/1.3 mean the same
    gain, so do differences of 0.2 and -0.2.
    """
    if criterion.kind not in COMPARES:
        return 0.0
    least, published = criterion.min_effect, criterion.published
    if criterion.scale == "difference":
        if least is not None:
            return abs(least)
        # The figure published beside a threshold is a level, not an effect.
        return 0.0 if published is None or criterion.kind == "threshold" else abs(published) / 3
    if least is None:
        if published is None or criterion.kind == "threshold" or published <= 0:
            return 0.0
        least = 1 + (_claimed_side(published, criterion) - 1) / 3
    return abs(math.log(least)) if least > 0 else 0.0


def _claimed_side(ratio: float, criterion: Criterion) -> float:
    wrong = ratio < 1 if criterion.direction == "higher" else ratio > 1
    return 1 / ratio if wrong else ratio


def shown_floor(criterion: Criterion) -> float | None:
    """Return the smallest effect worth having on the criterion's scale, with its sign."""
    floor = floor_of(criterion)
    if floor == 0:
        return None
    signed = floor if criterion.direction == "higher" else -floor
    return math.exp(signed) if on_log_scale(criterion) else signed


def margin_of(criterion: Criterion) -> float:
    """Return the margin of an equivalence on the tested scale.

    On the ratio scale 0.05 and 1.05 both mean from 1/1.05 to 1.05.
    """
    margin = abs(criterion.margin or 0.0)
    if not on_log_scale(criterion):
        return margin
    return math.log(margin) if margin > 1 else math.log1p(margin)


def measure(criterion: Criterion, units: Units, rng: np.random.Generator) -> Measure | None:
    """Measure one criterion; None where there is no unit to measure.

    Args:
        criterion: What is tested.
        units: Its sample.
        rng: Source of resamples.

    Returns:
        The figures, before correction for many tests.
    """
    if not units.n or units.trouble:
        return None
    if criterion.kind == "exactness":
        return _exactness(criterion, units)
    if not np.isfinite(units.arm).all():  # a slope of a diverged run
        known = units.arm[np.isfinite(units.arm)]
        if not known.size:
            return None
        return Measure(float(known.mean()), float(known.min()), float(known.max()), None)
    if criterion.kind == "rate":
        lo, hi, level = statistics.bootstrap_interval(units.arm, rng=rng)
        return Measure(float(units.arm.mean()), lo, hi, level, sd=_sd(units.arm))
    if criterion.kind == "equivalence":
        return _equivalence(criterion, units, rng)
    return _comparison(criterion, units, rng)


def _sd(values: Vector) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _exactness(criterion: Criterion, units: Units) -> Measure:
    """Every single run counts: averaging over workloads could hide two deviations."""
    reference = criterion.reference or 0.0
    runs = np.concatenate([arm for arm, _ in units.cells.values()])
    known = runs[np.isfinite(runs)]
    off = np.abs(runs - reference) / (abs(reference) or 1.0)
    worst = float(off.max()) if known.size == runs.size else math.inf
    if not known.size:
        return Measure(math.nan, math.nan, math.nan, None, deviation=math.inf)
    return Measure(
        float(known.mean()), float(known.min()), float(known.max()), None, deviation=worst
    )


def _equivalence(criterion: Criterion, units: Units, rng: np.random.Generator) -> Measure:
    d = units.arm - _paired(units)
    p, lo, hi, level = statistics.equivalence(d, margin_of(criterion), rng=rng)
    back = math.exp if on_log_scale(criterion) else float
    mean = float(d.mean())
    return Measure(
        back(mean),
        back(lo),
        back(hi),
        level,
        p=p,
        gain=mean,
        gain_lo=lo,
        gain_hi=hi,
        sd=_sd(d),
        effect_size=statistics.effect_size(units.arm, _paired(units)),
    )


def _paired(units: Units) -> Vector:
    if units.baseline is None:
        raise RuntimeError("a criterion that compares two arms was gathered without a baseline")
    return units.baseline


def _comparison(criterion: Criterion, units: Units, rng: np.random.Generator) -> Measure:
    log = on_log_scale(criterion)
    sign = 1.0 if criterion.direction == "higher" else -1.0
    if criterion.kind == "threshold":
        level = criterion.reference or 0.0
        offset = math.log(level) if log and level > 0 else level
        shift, other = offset, np.full_like(units.arm, offset)
        size = None
    else:
        shift, other = 0.0, _paired(units)
        size = statistics.effect_size(units.arm, other)
    d = units.arm - other
    test = statistics.wilcoxon if criterion.unit == "workload" else statistics.sign_flip
    lo, hi, confidence = statistics.bootstrap_interval(d, rng=rng)
    ends = sorted((sign * lo, sign * hi))

    def back(x: float) -> float:
        return math.exp(x + shift) if log else x + shift

    holds_on, reversed_on = _by_workload(criterion, units)
    return Measure(
        back(float(d.mean())),
        back(lo),
        back(hi),
        confidence,
        p=test(sign * d),
        reverse_p=test(-sign * d),
        gain=sign * float(d.mean()),
        gain_lo=ends[0],
        gain_hi=ends[1],
        sd=_sd(d),
        effect_size=size,
        holds_on=holds_on,
        reversed_on=reversed_on,
    )


def _by_workload(
    criterion: Criterion, units: Units
) -> tuple[tuple[tuple[str, float], ...], tuple[str, ...]]:
    """Test each workload by itself, seeds as units, Holm over the workloads.

    Only where seeds are the unit: on a panel of data sets, one set is one unit and proves nothing
    by itself.
    """
    if criterion.unit != "seed" or criterion.kind == "threshold" or len(units.cells) < 2:
        return (), ()
    sign = 1.0 if criterion.direction == "higher" else -1.0
    floor = floor_of(criterion)
    gains = {w: sign * (a - b) for w, (a, b) in units.cells.items() if b is not None}
    adjusted = statistics.holm([statistics.sign_flip(g) for g in gains.values()])
    holds, reversed_on = [], []
    for (w, g), p in zip(gains.items(), adjusted):
        lo, hi, _ = statistics.bootstrap_interval(g)
        if p <= ALPHA and lo > 0 and float(g.mean()) >= floor * (1 - 1e-12):
            holds.append((w, p))
        if hi < 0 and statistics.sign_flip(-g) <= ALPHA:
            reversed_on.append(w)
    return tuple(holds), tuple(reversed_on)
