"""Outliers and bulk: golden splits, the three rules, the numbers of a bulk."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curvature.nets import f64, load

from gradworks.curvature.spectrum import (
    BulkSplit,
    bulk_statistics,
    marchenko_pastur_edge,
    split_bulk_outliers,
)


@pytest.mark.parametrize("case", load("split.json"), ids=lambda c: c["name"])
def test_golden(case: dict) -> None:
    t = f64(case["eigenvalues"])
    for values in (t, t.flip(0)):
        split = split_bulk_outliers(values, min_gap=case["min_gap"])
        assert split.num_outliers == case["num_outliers"]
        assert split.gap_ratio == pytest.approx(case["gap_ratio"], rel=1e-12)
        k = split.num_outliers
        torch.testing.assert_close(split.outliers, t.sort(descending=True).values[:k])
        torch.testing.assert_close(split.bulk, t.sort().values[: len(t) - k])


def naive(values: list[float], max_outliers: int, min_gap: float) -> tuple[int, float]:
    """Sec. 3 of the specification, word by word."""
    positive = [v for v in sorted(values, reverse=True) if v > 0][:max_outliers]
    if len(positive) < 2:
        return 0, math.nan
    ratios = [a / b for a, b in itertools.pairwise(positive)]
    best = max(ratios)
    k = ratios.index(best) + 1
    return (k if best >= min_gap else 0), best


@given(
    values=st.lists(st.floats(-2, 10).filter(lambda v: v < 0 or v > 1e-6), min_size=1, max_size=60),
    max_outliers=st.integers(2, 45),
    min_gap=st.floats(1, 4),
)
@settings(max_examples=150, deadline=None)
def test_equals_the_rule_word_by_word(
    values: list[float], max_outliers: int, min_gap: float
) -> None:
    split = split_bulk_outliers(f64(values), max_outliers=max_outliers, min_gap=min_gap)
    k, ratio = naive(values, max_outliers, min_gap)
    assert split.num_outliers == k
    assert split.gap_ratio == pytest.approx(ratio, nan_ok=True)
    assert len(split.outliers) + len(split.bulk) == len(values)


@given(
    outliers=st.lists(st.floats(5, 100), min_size=1, max_size=6, unique=True),
    bulk=st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=30),
    shift=st.floats(0, 0.4),
)
@settings(max_examples=60, deadline=None)
def test_shifting_the_bulk_below_the_gap_changes_nothing(
    outliers: list[float], bulk: list[float], shift: float
) -> None:
    # A gap that stays the widest: outliers within a factor 20 of 5, the bulk below 1.
    spread = sorted(outliers)
    values = [5 + 0.1 * i for i, _ in enumerate(spread)]
    before = split_bulk_outliers(f64([*values, 0.5, 0.49, 0.48]))
    after = split_bulk_outliers(f64([*values, *(v + shift for v in (0.5, 0.49, 0.48))]))
    assert before.num_outliers == after.num_outliers == len(values)


def test_first_maximum_wins_and_zeros_of_a_rank_are_no_values() -> None:
    assert split_bulk_outliers(f64([8.0, 4.0, 2.0, 1.0])).num_outliers == 1
    # Rounding leaves 1e-17 where the matrix lacks rank: not the largest gap of all.
    found = split_bulk_outliers(f64([9.0, 8.0, 1.0, 0.9, 1e-17, -1e-17]))
    assert found.num_outliers == 2
    assert split_bulk_outliers(f64([-1.0, -2.0])).num_outliers == 0
    assert math.isnan(split_bulk_outliers(f64([3.0, -2.0])).gap_ratio)
    assert split_bulk_outliers(f64([3.0])).num_outliers == 0


def test_threshold_rule() -> None:
    t = f64([5.0, 3.0, 0.2, 0.1, -4.0])
    split = split_bulk_outliers(t, rule="threshold", threshold=0.15)
    assert (split.num_outliers, split.rule, split.threshold) == (3, "threshold", 0.15)
    torch.testing.assert_close(split.outliers, f64([5.0, 3.0, 0.2]))
    assert split_bulk_outliers(t, rule="threshold", threshold=9.0).num_outliers == 0


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0])
def test_marchenko_pastur_edge(ratio: float) -> None:
    n = 2000
    p = int(ratio * n)
    g = torch.Generator().manual_seed(0)
    X = 1.7 * torch.randn(n, p, generator=g, dtype=torch.float64)
    values = torch.linalg.eigvalsh(X.T @ X / n)
    edge = marchenko_pastur_edge(values)
    assert edge == pytest.approx(1.7**2 * (1 + math.sqrt(ratio)) ** 2, rel=0.06)
    spiked = torch.cat([values, f64([40.0, 60.0, 80.0])])
    split = split_bulk_outliers(spiked, rule="mp")
    assert 3 <= split.num_outliers <= 3 + 0.02 * p
    weights = torch.full((p,), 1 / p, dtype=torch.float64)
    assert marchenko_pastur_edge(values, weights) == pytest.approx(edge, rel=1e-9)


def test_marchenko_pastur_needs_values() -> None:
    few = torch.linspace(0.1, 1, 10)
    assert math.isnan(marchenko_pastur_edge(few))
    assert split_bulk_outliers(few, rule="mp").num_outliers == 0


def test_bulk_statistics_by_hand() -> None:
    t = f64([10.0, 4.0, 0.3, 0.05, 0.005, 0.0, -0.02, -1.0])
    s = bulk_statistics(t, num_outliers=2)
    size = 15.375
    assert s["largest"] == 10
    assert s["smallest"] == -1
    assert s["trace"] == pytest.approx(13.335)
    assert s["fraction_small_0.001"] == pytest.approx(2 / 8)
    assert s["fraction_small_0.01"] == pytest.approx(4 / 8)
    assert s["fraction_small_0.05"] == pytest.approx(5 / 8)
    assert s["negative_mass"] == pytest.approx(1.02 / size)
    assert s["effective_rank"] == pytest.approx(size**2 / float(t @ t))
    assert s["frobenius_norm"] == pytest.approx(float(t.norm()))
    assert s["bulk_quantile_0.5"] == pytest.approx((0.0 + 0.005) / 2 / 10)
    zero = bulk_statistics(torch.zeros(4))
    assert (zero["effective_rank"], zero["negative_mass"]) == (0, 0)


def test_a_split_needs_four_fields_only() -> None:
    split = BulkSplit(1, f64([2.0]), f64([0.1]), 20.0)
    assert split.rule == "gap"


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: split_bulk_outliers([1.0]), TypeError, "must be a torch.Tensor, got list"),
        (lambda: split_bulk_outliers(torch.ones(0)), ValueError, "at least one"),
        (lambda: split_bulk_outliers(torch.ones(2, 2)), ValueError, r"got shape \(2, 2\)"),
        (lambda: split_bulk_outliers(torch.tensor([1, torch.nan])), ValueError, "NaN"),
        (lambda: split_bulk_outliers(torch.tensor([1, torch.inf])), ValueError, "infinite"),
        (lambda: split_bulk_outliers(torch.ones(2, dtype=torch.cfloat)), ValueError, "real"),
        (lambda: split_bulk_outliers(torch.ones(2), rule="eye"), ValueError, "gap, threshold, mp"),
        (lambda: split_bulk_outliers(torch.ones(2), rule="threshold"), ValueError, "missing"),
        (
            lambda: split_bulk_outliers(torch.ones(2), rule="threshold", threshold=math.nan),
            ValueError,
            "threshold is NaN",
        ),
        (lambda: split_bulk_outliers(torch.ones(2), max_outliers=1), ValueError, "max_outliers"),
        (lambda: split_bulk_outliers(torch.ones(2), max_outliers=2.5), ValueError, "max_outliers"),
        (lambda: split_bulk_outliers(torch.ones(2), min_gap=0.5), ValueError, "min_gap"),
        (lambda: split_bulk_outliers(torch.ones(2), min_gap=math.nan), ValueError, "min_gap"),
        (lambda: bulk_statistics(torch.ones(0)), ValueError, "at least one"),
        (lambda: marchenko_pastur_edge(torch.ones(0)), ValueError, "at least one"),
        (lambda: marchenko_pastur_edge(torch.ones(2, 2)), ValueError, r"got shape \(2, 2\)"),
    ],
)
def test_bad_input(act: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        act()
