"""What a tuning study is worth: the best that k trials would have found."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradworks.bench.claims import Direction

__all__ = ["expected_best"]


def expected_best(values: Sequence[float | None], direction: Direction = "lower") -> list[float]:
    """Return the expected best value after 1, 2, ..., n trials of a study, in closed form.

    The expectation runs over all orders in which the n trials could have come: with the values
    sorted from best to worst, the i-th is the best of k with probability
    ``C(n - i, k - 1) / C(n, k)``. A flat curve is a method that needs no tuning.

    Args:
        values: One value a trial; None or a value that is not finite (a diverged trial) counts
            as the worst finite one.
        direction: Which way is better.

    Returns:
        As many expectations as trials; empty where no trial has a finite value.

    Example:
        >>> expected_best([3.0, 1.0, 2.0])  # mean; (1 + 1 + 2) / 3; best
        [2.0, 1.3333333333333333, 1.0]
    """
    finite = [float(v) for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return []
    worst = max(finite) if direction == "lower" else min(finite)
    filled = finite + [worst] * (len(values) - len(finite))
    ranked = sorted(filled, reverse=direction == "higher")
    n = len(ranked)
    curve = []
    for k in range(1, n + 1):
        total = math.comb(n, k)
        curve.append(
            math.fsum(v * (math.comb(n - i, k - 1) / total) for i, v in enumerate(ranked, start=1))
        )
    return curve
