"""The statistics behind the verdicts: small functions of plain numbers, each one named test.

``paired`` holds tests and intervals of paired differences and the power behind them, ``families``
the corrections for many tests, ``aggregate`` the summaries over several workloads, ``targets`` the
times to reach a target (with misses), ``scaling`` slopes on log-log axes, ``search`` what a tuning
study is worth. What the library scipy has is called there, never rewritten.
"""

from __future__ import annotations

from gradworks.bench.statistics.aggregate import (
    iqm,
    iqm_interval,
    probability_of_improvement,
    stratified_bootstrap,
)
from gradworks.bench.statistics.families import (
    Ranking,
    benjamini_hochberg,
    holm,
    rank_methods,
)
from gradworks.bench.statistics.paired import (
    bootstrap_interval,
    effect_size,
    equivalence,
    n_needed,
    power,
    sign_flip,
    wilcoxon,
)
from gradworks.bench.statistics.scaling import MIN_SIZES, fit_slope, slope_interval
from gradworks.bench.statistics.search import expected_best
from gradworks.bench.statistics.targets import (
    Profile,
    TimeRatio,
    censored_median,
    median_interval,
    performance_profile,
    rmst,
    running_median,
    steps_to_target,
    time_ratio,
)

__all__ = [
    "MIN_SIZES",
    "Profile",
    "Ranking",
    "TimeRatio",
    "benjamini_hochberg",
    "bootstrap_interval",
    "censored_median",
    "effect_size",
    "equivalence",
    "expected_best",
    "fit_slope",
    "holm",
    "iqm",
    "iqm_interval",
    "median_interval",
    "n_needed",
    "performance_profile",
    "power",
    "probability_of_improvement",
    "rank_methods",
    "rmst",
    "running_median",
    "sign_flip",
    "slope_interval",
    "steps_to_target",
    "stratified_bootstrap",
    "time_ratio",
    "wilcoxon",
]
