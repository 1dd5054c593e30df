"""Compare optimizers: equal tuning budgets, paired seeds, time to target, on one or more workloads.

The first optimizer is the baseline: on each workload the target is the median of its final
validation metric, and differences, ratios and intervals are paired with it seed by seed.
:func:`shared` is the comparison of all optimizers on the workloads that all their papers share.
"""

from __future__ import annotations

from gradworks.bench.compare.design import (
    SHARED,
    SHARED_OPTIMIZERS,
    SHARED_WORKLOADS,
    experiment,
    shared,
)
from gradworks.bench.compare.drawings import figures, ratios
from gradworks.bench.compare.rows import ratio_of, summaries, summary

__all__ = [
    "SHARED",
    "SHARED_OPTIMIZERS",
    "SHARED_WORKLOADS",
    "experiment",
    "figures",
    "ratio_of",
    "ratios",
    "shared",
    "summaries",
    "summary",
]
