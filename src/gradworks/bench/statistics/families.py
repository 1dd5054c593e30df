"""Many tests at once: Holm in a paper, Benjamini-Hochberg over the catalogue, mean ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gradworks.bench.claims import Direction
from gradworks.bench.statistics.paired import wilcoxon

__all__ = ["Ranking", "benjamini_hochberg", "holm", "rank_methods"]


def _checked(ps: Sequence[float]) -> list[float]:
    found = [float(p) for p in ps]
    for p in found:
        if not 0 <= p <= 1:
            raise ValueError(f"p-values must be in [0, 1], got {p}")
    return found


def holm(ps: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p-values, in the order given.

    Rejecting where the adjusted value is at most 0.05 keeps the chance of one or more false
    claims in the family at 0.05, whatever the dependence between the tests.

    Args:
        ps: The p-values of the whole family.

    Returns:
        As many adjusted p-values.

    Raises:
        ValueError: If a value is outside [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.02])
        [0.03, 0.04, 0.04]
    """  # noqa: DOC502
    found = _checked(ps)
    adjusted = [1.0] * len(found)
    floor = 0.0
    for place, index in enumerate(sorted(range(len(found)), key=found.__getitem__)):
        floor = max(floor, min(1.0, (len(found) - place) * found[index]))
        adjusted[index] = floor
    return adjusted


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for the false discovery rate over the whole catalogue.

    Args:
        ps: One p-value a claim.

    Returns:
        As many adjusted p-values.

    Raises:
        ValueError: If a value is outside [0, 1].

    Example:
        >>> [round(p, 3) for p in benjamini_hochberg([0.01, 0.04, 0.02])]
        [0.03, 0.04, 0.03]
    """  # noqa: DOC502
    found = _checked(ps)
    if not found:
        return []
    from scipy import stats

    return [float(p) for p in stats.false_discovery_control(found)]


@dataclass(frozen=True)
class Ranking:
    """Several methods on several data sets.

    Attributes:
        ranks: Mean rank of each method, 1 is best.
        p: Friedman's p-value: are the methods different at all; None below three methods.
        pairs: Two-sided Wilcoxon p-values of every pair, adjusted by Holm.
    """

    ranks: Mapping[str, float]
    p: float | None
    pairs: Mapping[tuple[str, str], float]


def rank_methods(values: Mapping[str, Sequence[float]], direction: Direction = "higher") -> Ranking:
    """Rank methods over data sets: Friedman's test, then all pairs with Holm.

    Args:
        values: One value a data set for each method, in the same order of data sets.
        direction: Which way is better.

    Returns:
        The ranking, as a critical-difference diagram shows it.

    Raises:
        ValueError: If there are fewer than two methods or two data sets, lengths differ, or a
            value is not finite.

    Example:
        >>> found = rank_methods({"a": [3, 4, 5], "b": [2, 3, 4], "c": [1, 2, 3]})
        >>> found.ranks["a"], round(found.p, 3), found.pairs["a", "b"]
        (1.0, 0.05, 0.75)
    """
    names = list(values)
    if len(names) < 2:
        raise ValueError(f"ranking needs at least two methods, got {names}")
    lengths = {len(values[name]) for name in names}
    if len(lengths) != 1 or lengths.pop() < 2:
        raise ValueError("every method needs a value on the same data sets, at least two")
    table = np.asarray([list(values[name]) for name in names], dtype=np.float64)
    if not np.isfinite(table).all():
        raise ValueError("values must be finite")
    from scipy import stats

    ranks = stats.rankdata(-table if direction == "higher" else table, axis=0).mean(axis=1)
    p: float | None = None
    if len(names) >= 3:
        same = bool((np.ptp(table, axis=0) == 0).all())
        p = 1.0 if same else float(stats.friedmanchisquare(*table).pvalue)
        p = 1.0 if math.isnan(p) else p
    pairs = list(combinations(range(len(names)), 2))
    raw = []
    for a, b in pairs:
        d = table[a] - table[b]
        raw.append(min(1.0, 2 * min(wilcoxon(d, "higher"), wilcoxon(d, "lower"))))
    return Ranking(
        ranks={name: float(rank) for name, rank in zip(names, ranks)},
        p=p,
        pairs={(names[a], names[b]): q for (a, b), q in zip(pairs, holm(raw))},
    )
