"""The decision: one status for one criterion, and the reason in words.

The order of the questions matters and is the same for every kind: has everything run; does it hold;
is it significantly reversed; would a better tuned arm or more units have told more. "Undecided" is
given only where the answer could still change.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from gradworks.bench import statistics
from gradworks.bench.claims import Criterion, Status
from gradworks.bench.verdicts.measures import ALPHA, Measure, floor_of, margin_of
from gradworks.bench.verdicts.units import Units, baselines

__all__ = ["Ruling", "rule"]

SLACK = 1e-12  # rounding of a logarithm must not decide between two statuses


@dataclass(frozen=True)
class Ruling:
    """A status with its reason, and the units it would take to be sure (None: no such number)."""

    status: Status
    reason: str
    n_needed: int | None = None


def rule(
    criterion: Criterion,
    units: Units,
    found: Measure | None,
    p_adj: float | None,
    family: int,
    edges: Collection[str],
) -> Ruling:
    """Decide one criterion.

    Args:
        criterion: What was claimed.
        units: Its sample.
        found: Its figures, None where there are none.
        p_adj: Its p-value after Holm over the family.
        family: Number of tests of the paper.
        edges: Arms whose best point stayed on the border of the space.

    Returns:
        The status and why.
    """
    arm_edge = criterion.arm in edges
    base_edge = any(name in edges for name in baselines(criterion))
    if found is not None and criterion.kind == "exactness":
        return _exactness(criterion, units, found)
    if units.trouble and not (units.hopeless and units.lacking):
        return Ruling("not reproduced" if units.hopeless else "undecided", units.trouble)
    if units.lacking:
        return Ruling("undecided", "not everything has run (" + "; ".join(units.lacking[:3]) + ")")
    if found is None:
        return Ruling("not reproduced", "every run diverged")
    if criterion.kind == "rate":
        return _rate(criterion, units, found, arm_edge)
    if criterion.kind == "equivalence":
        return _equivalence(criterion, units, found, p_adj, family, arm_edge or base_edge)
    return _comparison(criterion, units, found, p_adj, family, arm_edge, base_edge)


def _exactness(criterion: Criterion, units: Units, found: Measure) -> Ruling:
    tolerance = criterion.tolerance or 0.0
    if found.deviation is not None and found.deviation > tolerance:
        return Ruling("not reproduced", "a run is outside the tolerance")
    if units.lacking:
        return Ruling("undecided", "not everything has run (" + "; ".join(units.lacking[:3]) + ")")
    return Ruling("reproduced", "every run is within the tolerance")


def _rate(criterion: Criterion, units: Units, found: Measure, edge: bool) -> Ruling:
    if units.diverged:
        return Ruling("not reproduced", "a run gave no slope")
    reference, rival = criterion.reference or 0.0, criterion.rival
    inside = found.lo <= reference <= found.hi
    apart = rival is None or not found.lo <= rival <= found.hi
    needed = None
    if rival is not None and rival != reference and found.sd is not None:
        needed = statistics.n_needed(found.sd, abs(rival - reference), alpha=ALPHA / 2)
    if found.level is None:
        least = max(6, needed or 0)
        return Ruling("undecided", f"{units.n} units carry no interval", least)
    if edge:
        return Ruling(
            "undecided", f"{criterion.arm} stayed on the edge of its search space", needed
        )
    if inside and apart:
        return Ruling("reproduced", "the claimed slope is inside the interval", needed)
    if not inside:
        return Ruling("not reproduced", "the claimed slope is outside the interval", needed)
    if needed is not None and needed > units.n:
        return Ruling("undecided", "the interval holds the rival slope too", needed)
    return Ruling("not reproduced", "the interval holds the rival slope too", needed)


def _equivalence(
    criterion: Criterion,
    units: Units,
    found: Measure,
    p_adj: float | None,
    family: int,
    edge: bool,
) -> Ruling:
    margin = margin_of(criterion)
    needed = None
    if found.sd is not None:  # both one-sided tests must pass: each misses half of the 20 %
        needed = statistics.n_needed(found.sd, margin, alpha=ALPHA / family, target=0.9)
    inside = -margin < found.gain_lo and found.gain_hi < margin
    if edge:
        return Ruling("undecided", "an arm stayed on the edge of its search space", needed)
    if inside and p_adj is not None and p_adj <= ALPHA:
        return Ruling("reproduced", "the interval lies inside the margin", needed)
    if found.level is not None and (found.gain_lo >= margin or found.gain_hi <= -margin):
        return Ruling("not reproduced", "the whole interval lies outside the margin", needed)
    short = _short(units.n, family, needed)
    if short:
        return Ruling("undecided", short, needed)
    return Ruling("not reproduced", "the interval is not inside the margin", needed)


def _comparison(
    criterion: Criterion,
    units: Units,
    found: Measure,
    p_adj: float | None,
    family: int,
    arm_edge: bool,
    base_edge: bool,
) -> Ruling:
    floor = floor_of(criterion)
    needed = None
    if floor > 0 and found.sd is not None:
        needed = statistics.n_needed(found.sd, floor, alpha=ALPHA / family)
    significant = p_adj is not None and p_adj <= ALPHA and found.gain_lo > 0
    large = found.gain >= floor * (1 - SLACK)
    baseline_tuned = f"{criterion.baseline} stayed on the edge of its search space"
    arm_tuned = f"{criterion.arm} stayed on the edge of its search space"
    if significant and large:
        # The arm's own edge does not matter here: better tuned it could only do better.
        if base_edge:
            return Ruling("undecided", baseline_tuned, needed)
        reason = "significant on the claimed side"
        return Ruling("reproduced", reason + (" and large enough" if floor > 0 else ""), needed)
    if arm_edge:
        return Ruling("undecided", arm_tuned, needed)
    if significant:
        if base_edge:
            return Ruling("undecided", baseline_tuned, needed)
        return Ruling("partly", "significant, but below the smallest effect worth having", needed)
    if found.gain_hi < 0 and found.reverse_p is not None and found.reverse_p <= ALPHA:
        return Ruling("not reproduced", "significantly the other way", needed)
    # Several workloads: it may hold on some of them.
    here = [w for w, p in found.holds_on if min(1.0, p * family) <= ALPHA]
    if here and not found.reversed_on:
        if base_edge:
            return Ruling("undecided", baseline_tuned, needed)
        return Ruling("partly", "it holds on " + ", ".join(here) + ", not overall", needed)
    if floor > 0 and found.level is not None and found.gain_hi < floor:
        reason = "the interval leaves the smallest effect worth having out"
        return Ruling("not reproduced", reason, needed)
    short = _short(units.n, family, needed)
    if short:
        return Ruling("undecided", short, needed)
    return Ruling("not reproduced", "no significant effect on the claimed side", needed)


def _short(n: int, family: int, needed: int | None) -> str:
    """Return why ``n`` units are too few to decide, or ''."""
    least = math.ceil(math.log2(family / ALPHA) - 1e-9)
    if n < least:
        return f"{n} units cannot pass {family} tests, {least} could"
    if needed is not None and needed > n:
        return f"power below 80 % at the smallest effect worth having; {needed} units would do"
    return ""
