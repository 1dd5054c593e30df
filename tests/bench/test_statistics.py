"""Statistics: naive transcriptions, published formulas, values worked by hand, invariances."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gradworks.bench import statistics as gw

SMALL = st.integers(-6, 6)
PROBABILITIES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- naive transcriptions -----------------------------------------------------------------------


def naive_sign_flip(d: list[int]) -> Fraction:
    """Count the sign patterns whose sum is at least the one observed."""
    patterns = list(itertools.product((1, -1), repeat=len(d)))
    as_large = sum(sum(s * x for s, x in zip(signs, d)) >= sum(d) for signs in patterns)
    return Fraction(as_large, len(patterns))


def naive_wilcoxon(d: list[int]) -> Fraction:
    """Pratt: rank with the zeros, drop them, count the sign patterns of the ranks that stay."""
    order = sorted(abs(x) for x in d)
    rank = {
        size: Fraction(sum(i + 1 for i, x in enumerate(order) if x == size), order.count(size))
        for size in set(order)
    }
    ranks = [rank[abs(x)] for x in d if x]
    observed = sum(rank[abs(x)] for x in d if x > 0)
    patterns = list(itertools.product((1, 0), repeat=len(ranks)))
    as_large = sum(sum(s * r for s, r in zip(signs, ranks)) >= observed for signs in patterns)
    return Fraction(as_large, len(patterns))


def naive_holm_rejects(ps: list[float], alpha: float) -> list[bool]:
    """Step down through the sorted values and stop at the first that does not pass."""
    rejected = [False] * len(ps)
    left = len(ps)
    for index in sorted(range(len(ps)), key=lambda i: ps[i]):
        if left * ps[index] > alpha:
            break
        rejected[index] = True
        left -= 1
    return rejected


@settings(deadline=None, max_examples=60)
@given(st.lists(SMALL, min_size=1, max_size=7))
def test_sign_flip_counts_patterns(d: list[int]) -> None:
    scaled = [x / 7 for x in d]  # ties must survive rounding
    assert gw.sign_flip(scaled) == pytest.approx(float(naive_sign_flip(d)), abs=1e-12)
    flipped = [-x for x in d]
    assert gw.sign_flip(scaled, "lower") == pytest.approx(float(naive_sign_flip(flipped)))


def test_the_interval_of_a_median_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = []
    for row in rng.exponential(size=(4000, 9)):
        lo, hi, level = gw.median_interval(row.tolist())
        hits.append(hi is not None and lo <= math.log(2) <= hi)
    assert level == pytest.approx(1 - 2 * 10 / 2**9)  # the second and the eighth of nine
    assert np.mean(hits) == pytest.approx(level, abs=0.012)


def test_the_interval_of_a_median_with_misses() -> None:
    assert gw.median_interval([None, 1.0, 2.0]) == (1.0, None, None)
    assert gw.median_interval([None] * 6) == (math.inf, None, 0.96875)
    with pytest.raises(ValueError, match="at least one run"):
        gw.median_interval([])
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), got 1"):
        gw.median_interval([1.0], level=1)


def test_budgets_of_their_own_are_what_a_miss_counts_as() -> None:
    found = gw.time_ratio([None, 2.0], [4.0, None], [8.0, 12.0], arm_budget=[20.0, 20.0])
    assert found.ratio == pytest.approx((20.0 + 2.0) / (4.0 + 12.0))
    assert found.missed == (1, 1)
    with pytest.raises(ValueError, match="arm has 2 runs, but budgets for 1"):
        gw.time_ratio([1.0, 2.0], [1.0, 2.0], 9.0, arm_budget=[9.0])
    with pytest.raises(ValueError, match="budget must be finite and above 0, got 0"):
        gw.time_ratio([1.0], [1.0], [0.0])


@settings(deadline=None, max_examples=100)
@given(st.lists(SMALL, min_size=1, max_size=8))
def test_wilcoxon_counts_patterns_with_ties_and_zeros(d: list[int]) -> None:
    assert gw.wilcoxon(d) == pytest.approx(float(naive_wilcoxon(d)), abs=1e-12)
    assert gw.wilcoxon([-x for x in d], "lower") == pytest.approx(gw.wilcoxon(d))


@pytest.mark.parametrize("n", [4, 11, 24])
def test_wilcoxon_is_scipys_exact_one_without_ties(n: int) -> None:
    d = rng(n).normal(0.3, size=n)
    theirs = stats.wilcoxon(d, alternative="greater", method="exact").pvalue
    assert gw.wilcoxon(d) == pytest.approx(theirs, rel=1e-9)


@settings(deadline=None)
@given(PROBABILITIES, st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_the_step_down_rejects(ps: list[float], alpha: float) -> None:
    adjusted = gw.holm(ps)
    near = any(abs(k * p - alpha) < 1e-12 for k in range(1, 9) for p in ps)
    if not near:
        assert [p <= alpha for p in adjusted] == naive_holm_rejects(ps, alpha)
    assert all(p <= q <= min(1.0, p * len(ps)) + 1e-15 for p, q in zip(ps, adjusted))


@settings(deadline=None)
@given(PROBABILITIES, st.randoms())
def test_holm_does_not_depend_on_the_order(ps: list[float], random: object) -> None:
    order = list(range(len(ps)))
    random.shuffle(order)
    adjusted = gw.holm(ps)
    assert gw.holm([ps[i] for i in order]) == [adjusted[i] for i in order]


def test_holm_by_hand() -> None:
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 lifted to what came before.
    assert gw.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert gw.holm([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_that_of_statsmodels(seed: int) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    ps = rng(seed).uniform(size=12) ** 3
    assert gw.holm(ps) == pytest.approx(multitest.multipletests(ps, method="holm")[1])


def test_benjamini_hochberg_by_hand() -> None:
    # Sorted p n / i: 0.02, 0.02, 0.04, 0.04: from the right, each at most its successor.
    assert gw.benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx(
        [0.02, 0.04, 0.04, 0.02]
    )
    assert gw.benjamini_hochberg([]) == []


@settings(deadline=None, max_examples=40)
@given(st.lists(SMALL, min_size=1, max_size=6), st.sampled_from(["lower", "higher"]))
def test_expected_best_averages_over_all_choices(values: list[int], direction: str) -> None:
    best = min if direction == "lower" else max
    for k, found in enumerate(gw.expected_best(values, direction), start=1):
        choices = [best(c) for c in itertools.combinations(values, k)]
        assert found == pytest.approx(sum(choices) / len(choices))


def test_expected_best_counts_divergence_as_the_worst() -> None:
    assert gw.expected_best([1.0, None, 3.0]) == gw.expected_best([1.0, 3.0, 3.0])
    assert gw.expected_best([1.0, math.nan, 3.0], "higher") == gw.expected_best([1, 1, 3], "higher")
    assert gw.expected_best([None, math.inf]) == []


def rliable_improvement(x: np.ndarray, y: np.ndarray) -> float:
    """rliable 1.2.0, metrics.probability_of_improvement."""
    found = []
    for task in range(x.shape[1]):
        if np.array_equal(x[:, task], y[:, task]):
            found.append(0.5)
        else:
            u, _ = stats.mannwhitneyu(x[:, task], y[:, task], alternative="greater")
            found.append(u / (len(x) * len(y)))
    return float(np.mean(found))


@pytest.mark.parametrize("seed", range(4))
def test_aggregates_are_those_of_rliable(seed: int) -> None:
    x = rng(seed).integers(0, 5, (7, 3)).astype(float)
    y = rng(seed + 10).integers(0, 5, (5, 3)).astype(float)
    assert gw.probability_of_improvement(x, y) == pytest.approx(rliable_improvement(x, y))
    assert gw.probability_of_improvement(x, x) == 0.5
    assert gw.iqm(x) == pytest.approx(stats.trim_mean(x, 0.25, axis=None))


def test_iqm_is_the_mean_of_the_middle_half() -> None:
    table = rng().permutation(16).reshape(4, 4).astype(float)
    assert gw.iqm(table) == np.mean(range(4, 12))


def test_stratified_bootstrap_draws_inside_each_task() -> None:
    constant = np.tile([[1.0, 50.0, 900.0]], (4, 1))  # mixing tasks would give these variance
    assert gw.stratified_bootstrap(gw.iqm, constant, resamples=50) == (gw.iqm(constant),) * 2
    assert gw.iqm_interval(constant) == (gw.iqm(constant),) * 3
    x = rng(1).normal(size=(10, 4))
    few = {"resamples": 200}
    lo, hi = gw.stratified_bootstrap(gw.iqm, x, rng=rng(), **few)
    assert lo < gw.iqm(x) < hi
    assert (lo, hi) == gw.stratified_bootstrap(gw.iqm, x, rng=rng(), **few)
    both = gw.stratified_bootstrap(gw.probability_of_improvement, x, x + 1, **few)
    assert 0 < both[0] < both[1] < 0.5


# --- intervals, equivalence, power --------------------------------------------------------------


def test_few_units_give_their_range_and_equal_ones_the_point() -> None:
    assert gw.bootstrap_interval([3.0, 1.0, 2.0, 5.0, 4.0]) == (1.0, 5.0, None)
    assert gw.bootstrap_interval([0.1 + 0.2] * 5 + [0.3]) == (0.1 + 0.2, 0.1 + 0.2, 0.95)
    assert gw.bootstrap_interval([0.0] * 8, level=0.9) == (0.0, 0.0, 0.9)


@settings(deadline=None, max_examples=12)
@given(
    st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=6, max_size=12),
    st.floats(0.1, 10),
    st.floats(-3, 3),
)
def test_bootstrap_interval_moves_with_the_data(d: list[float], a: float, b: float) -> None:
    lo, hi, level = gw.bootstrap_interval(d)
    assert min(d) - 1e-9 <= lo <= hi <= max(d) + 1e-9
    moved = gw.bootstrap_interval([a * x + b for x in d])
    assert moved == pytest.approx((a * lo + b, a * hi + b, level), abs=1e-8)


@pytest.mark.slow
def test_bootstrap_interval_covers_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        lo, hi, _ = gw.bootstrap_interval(rng(seed).normal(1.0, 2.0, size=20), rng=rng(seed))
        covered += lo <= 1.0 <= hi
    assert 178 <= covered <= 198  # 95 % of 200 is 190; twenty units cover slightly less


def test_sign_flip_floor_and_large_samples() -> None:
    assert gw.sign_flip(np.arange(1.0, 11)) == 2**-10
    assert gw.sign_flip([0.0, 0.0]) == 1.0
    assert gw.sign_flip([1e-30] * 5) == pytest.approx(1 / 32)
    d = rng(3).normal(0.4, size=40)
    assert gw.sign_flip(d) == pytest.approx(
        stats.ttest_1samp(d, 0, alternative="greater").pvalue, abs=0.01
    )


def test_equivalence_is_two_sign_flips_and_a_90_percent_interval() -> None:
    d = np.array([0.02, -0.01, 0.03, 0.0, 0.01, -0.02, 0.015])
    p, lo, hi, level = gw.equivalence(d, 0.025)
    assert p == max(gw.sign_flip(d + 0.025), gw.sign_flip(d - 0.025, "lower"))
    assert (lo, hi, level) == gw.bootstrap_interval(d, level=0.9)
    assert gw.equivalence(d, 10.0)[0] == 2**-7
    assert gw.equivalence(d + 1, 0.5)[0] > 0.9


def test_effect_size_by_hand() -> None:
    # Both variances 2, mean difference 3.
    assert gw.effect_size([4.0, 6.0], [1.0, 3.0]) == pytest.approx(3 / math.sqrt(2))
    assert gw.effect_size([1.0], [0.0]) is None
    assert gw.effect_size([1.0, 1.0], [0.0, 0.0]) is None


@pytest.mark.parametrize(("effect", "n"), [(0.2, 156), (0.5, 27), (0.8, 12), (1.0, 8)])
def test_n_needed_is_that_of_the_tables(effect: float, n: int) -> None:
    assert gw.n_needed(1.0, effect) == n  # one-sided paired t, 5 %, 80 %
    assert gw.power(n, 1.0, effect) >= 0.8 > gw.power(n - 1, 1.0, effect)


def test_n_needed_knows_the_floor_of_the_test_and_its_own_end() -> None:
    assert gw.n_needed(0.0, 1.0) == 5  # 2**-5 is the first below 0.05
    assert gw.n_needed(1e-9, 1.0, alpha=0.05 / 8) == 8
    assert gw.n_needed(1.0, 1e-9) == 1_000_000


def test_power_agrees_with_simulation() -> None:
    d = rng().normal(0.6, 1.0, size=(4000, 12))
    t = d.mean(axis=1) / (d.std(axis=1, ddof=1) / math.sqrt(12))
    seen = (t > stats.t.isf(0.05, 11)).mean()
    assert gw.power(12, 1.0, 0.6) == pytest.approx(seen, abs=0.025)


# --- targets ------------------------------------------------------------------------------------


def test_one_lucky_evaluation_is_no_crossing() -> None:
    steps, curve = [0, 1, 2, 3, 4, 5], [9.0, 1.0, 9.0, 9.0, 2.0, 2.0]
    assert gw.steps_to_target(steps, curve, 2.5) == 4
    assert gw.steps_to_target(steps, [-v for v in curve], -2.5, "higher") == 4
    assert gw.steps_to_target(steps, [9, 9, 9, 9, 9, 1], 2.5) is None  # the last one alone
    assert gw.steps_to_target(steps, [1, 9, 9, 9, 9, 9], 2.5) is None  # the first one alone
    assert gw.steps_to_target(steps, [9, 1, None, math.nan, 1, 1], 2.5) == 4
    assert gw.steps_to_target([], [], 2.5) is None
    assert gw.steps_to_target([0, 7], [1.0, 1.0], 2.5) == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=3, max_size=12), st.integers(0, 50))
def test_crossing_is_the_naive_one(curve: list[int], target: int) -> None:
    found = gw.steps_to_target(range(len(curve)), curve, target)
    naive = None
    for i in range(len(curve)):
        near = curve[max(0, i - 1) : i + 2]
        if sum(v <= target for v in near) >= 2:
            naive = i
            break
    assert found == naive


def naive_rmst(times: list[float | None], budget: float) -> float:
    """Area under the Kaplan-Meier curve up to the budget."""
    area, alive, at = 0.0, len(times), 0.0
    for time in sorted(t for t in times if t is not None):
        area += alive / len(times) * (time - at)
        alive, at = alive - 1, time
    return area + alive / len(times) * (budget - at)


@settings(deadline=None)
@given(st.lists(st.none() | st.floats(0, 100), min_size=1, max_size=9))
def test_rmst_is_the_area_under_the_curve(times: list[float | None]) -> None:
    assert gw.rmst(times, 100.0) == pytest.approx(naive_rmst(times, 100.0))


def test_censored_median() -> None:
    assert gw.censored_median([3.0, None, 1.0]) == 3.0
    assert gw.censored_median([1.0, 3.0, 5.0, None]) == 4.0
    assert gw.censored_median([1.0, None, None]) is None
    assert gw.censored_median([1.0, 2.0, None, None]) is None  # the middle two: 2 and a miss


def test_time_ratio_is_geometric_until_a_run_misses() -> None:
    found = gw.time_ratio([10, 40], [20, 20], budget=100)
    assert (found.ratio, found.method) == (pytest.approx(1.0), "geometric mean")
    assert (found.lo, found.hi, found.level) == (pytest.approx(0.5), pytest.approx(2.0), None)
    found = gw.time_ratio([10, None], [20, 40], budget=100)
    assert found.ratio == pytest.approx(110 / 60)
    assert (found.method, found.missed) == ("restricted mean", (1, 0))
    many = gw.time_ratio([10.0] * 7 + [None], [20.0] * 8, budget=100, rng=rng())
    assert many.lo < many.ratio < many.hi
    assert many.level == 0.95


@settings(deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda n: st.dictionaries(
            st.sampled_from("abc"),
            st.lists(st.none() | st.integers(1, 9), min_size=n, max_size=n),
            min_size=1,
        )
    )
)
def test_performance_profile_is_the_naive_one(times: dict[str, list[int | None]]) -> None:
    found = gw.performance_profile(times)
    workloads = len(next(iter(times.values())))

    def share(arm: str, tau: float) -> float:
        within = 0
        for w in range(workloads):
            known = [row[w] for row in times.values() if row[w] is not None]
            mine = times[arm][w]
            within += mine is not None and mine / min(known) <= tau
        return within / workloads

    best = [
        min((row[w] for row in times.values() if row[w] is not None), default=None)
        for w in range(workloads)
    ]
    for arm, curve in found.fractions.items():
        assert list(curve) == [share(arm, tau) for tau in found.ratios]
        # A workload within the ratio r < 4 adds 4 - r to the area, of 3 at most.
        area = sum(
            max(0.0, 4 - mine / best[w]) / 3
            for w, mine in enumerate(times[arm])
            if mine is not None
        )
        assert found.scores[arm] == pytest.approx(area / workloads)


# --- slopes and ranks ---------------------------------------------------------------------------


def test_slope_recovers_a_power_law_and_polyfit() -> None:
    sizes = [1, 2, 4, 8, 16, 32]
    assert gw.fit_slope(sizes, [5 * s**1.5 for s in sizes]) == pytest.approx(1.5)
    noisy = np.exp(rng().normal(size=6))
    assert gw.fit_slope(sizes, noisy) == pytest.approx(
        np.polyfit(np.log(sizes), np.log(noisy), 1)[0]
    )


def test_slope_interval_has_seeds_as_units() -> None:
    sizes = np.array([1, 2, 4, 8, 16, 32])
    seeds = np.array([3 * sizes ** (1 + 0.01 * k) for k in range(-3, 4)])
    slope, lo, hi, level = gw.slope_interval(sizes, seeds)
    assert slope == pytest.approx(1.0)
    assert 0.97 < lo < 1.0 < hi < 1.03
    assert level == 0.95


def test_ranks_of_methods() -> None:
    sets = rng().normal(size=9)
    found = gw.rank_methods({"worst": sets, "best": sets + 2, "middle": sets + 1}, "higher")
    assert found.ranks == {"worst": 3.0, "best": 1.0, "middle": 2.0}
    assert found.p == pytest.approx(math.exp(-9))  # chi-square 18 with two degrees of freedom
    assert all(p == pytest.approx(3 * 2 * 2**-9) for p in found.pairs.values())
    same = gw.rank_methods({"a": [1, 2], "b": [1, 2], "c": [1, 2]})
    assert (same.p, set(same.pairs.values())) == (1.0, {1.0})
    assert gw.rank_methods({"a": [1, 2], "b": [2, 3]}, "lower").ranks["a"] == 1.0


BAD = [
    (lambda: gw.bootstrap_interval([]), "values must be a non-empty list"),
    (lambda: gw.bootstrap_interval([1.0, math.nan]), "values must be finite, got nan"),
    (lambda: gw.bootstrap_interval([1.0], level=95), "level must be in (0, 1), got 95"),
    (lambda: gw.sign_flip([math.inf]), "d must be finite, got inf"),
    (lambda: gw.wilcoxon([]), "d must be a non-empty list"),
    (lambda: gw.equivalence([1.0], 0.0), "margin must be finite and above 0, got 0.0"),
    (lambda: gw.effect_size([1.0], [1.0, 2.0]), "must be paired, got 1 and 2"),
    (lambda: gw.power(1, 1.0, 1.0), "n must be at least 2, got 1"),
    (lambda: gw.power(9, -1.0, 1.0), "sd must be finite and at least 0, got -1.0"),
    (lambda: gw.n_needed(1.0, 0.0), "effect must be finite and above 0, got 0.0"),
    (lambda: gw.power(9, 1.0, 1.0, alpha=5), "alpha must be in (0, 1), got 5"),
    (lambda: gw.holm([1.2]), "p-values must be in [0, 1], got 1.2"),
    (lambda: gw.benjamini_hochberg([math.nan]), "p-values must be in [0, 1], got nan"),
    (lambda: gw.rank_methods({"a": [1, 2]}), "at least two methods"),
    (lambda: gw.rank_methods({"a": [1, 2], "b": [1]}), "same data sets"),
    (lambda: gw.rank_methods({"a": [1, 2], "b": [1, math.nan]}), "values must be finite"),
    (lambda: gw.iqm([1.0, 2.0]), "scores must be a table (runs, tasks), got shape (2,)"),
    (lambda: gw.iqm([[math.nan]]), "scores must be finite"),
    (lambda: gw.iqm_interval([[1.0]], level=0), "level must be in (0, 1), got 0"),
    (lambda: gw.probability_of_improvement([[1, 2]], [[1]]), "same tasks, got 2 and 1"),
    (lambda: gw.fit_slope([1, 2, 3, 4, 5], [1] * 5), "at least 6 different sizes, got 5"),
    (lambda: gw.fit_slope(range(6), [1] * 6), "sizes must be finite and above 0"),
    (lambda: gw.fit_slope(range(1, 7), [1] * 5 + [0]), "values must be finite and above 0"),
    (lambda: gw.fit_slope([1, 2], [1]), "must pair up, got shapes (2,) and (1,)"),
    (lambda: gw.steps_to_target([1], [1, 2], 0), "must pair up, got 1 and 2"),
    (lambda: gw.steps_to_target([1], [1], math.nan), "target must be finite, got nan"),
    (lambda: gw.rmst([], 1.0), "times must hold at least one run"),
    (lambda: gw.rmst([1.0], 0.0), "budget must be finite and above 0, got 0.0"),
    (lambda: gw.rmst([-1.0], 1.0), "times of at least 0 or None, got -1.0"),
    (lambda: gw.censored_median([]), "times must hold at least one run"),
    (lambda: gw.time_ratio([1], [1, 2], 5), "must be paired, got 1 and 2"),
    (lambda: gw.time_ratio([1, 1], [0, 0], 5), "a ratio has no meaning"),
    (lambda: gw.performance_profile({"a": [1], "b": []}), "same workloads"),
    (lambda: gw.performance_profile({"a": [0.0]}), "times must be above 0"),
    (lambda: gw.performance_profile({"a": [1.0]}, max_ratio=1), "max_ratio must be above 1, got 1"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[m for _, m in BAD])
def test_bad_input_says_what_was_found_and_allowed(call: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert message in str(caught.value)
