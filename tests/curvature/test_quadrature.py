"""Spectral measures: expectations, densities, error bars."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curvature.nets import f64, symmetric

from gradworks.curvature.lanczos import SpectralMeasure, slq
from gradworks.curvature.operators import DenseOperator


def measure(runs: int = 3, m: int = 5, seed: int = 0) -> SpectralMeasure:
    g = torch.Generator().manual_seed(seed)
    nodes = [torch.randn(m, generator=g, dtype=torch.float64).sort().values for _ in range(runs)]
    raw = [torch.rand(m, generator=g, dtype=torch.float64) + 0.01 for _ in range(runs)]
    return SpectralMeasure(nodes, [w / w.sum() for w in raw], 50)


@given(runs=st.integers(1, 4), m=st.integers(1, 6), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_expectations_by_hand(runs: int, m: int, seed: int) -> None:
    s = measure(runs, m, seed)

    def by_hand(f: object) -> list[float]:
        return [
            sum(float(w) * f(float(t)) for t, w in zip(nodes, weights))
            for nodes, weights in zip(s.nodes, s.weights)
        ]

    first = by_hand(lambda t: t)
    assert float(s.trace()) == pytest.approx(50 * sum(first) / runs)
    third = by_hand(lambda t: t**3)
    assert float(s.moment(3)) == pytest.approx(sum(third) / runs)
    assert float(s.moment(0)) == pytest.approx(1)
    below = by_hand(lambda t: float(t <= 0.2))
    assert float(s.cdf(0.2)) == pytest.approx(sum(below) / runs)
    if runs > 1:
        mean = sum(third) / runs
        sd = math.sqrt(sum((v - mean) ** 2 for v in third) / (runs - 1))
        assert float(s.stderr(lambda t: t**3)) == pytest.approx(sd / math.sqrt(runs))
    else:
        assert math.isnan(float(s.stderr(torch.abs)))


@given(seed=st.integers(0, 1000), sigma=st.sampled_from([None, 0.01, 0.3]))
@settings(max_examples=20, deadline=None)
def test_density_integrates_to_one(seed: int, sigma: float | None) -> None:
    s = measure(seed=seed)
    grid = s.default_grid(4000, sigma=sigma)
    density = s.density(grid, sigma)
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-4)
    assert bool((density >= 0).all())
    assert s.density_stderr(grid, sigma).shape == grid.shape
    assert s.density().shape == (1000,)


def test_default_sigma_is_a_hundredth_of_the_spread() -> None:
    s = SpectralMeasure([f64([0.0, 2.0])], [f64([0.5, 0.5])], 4)
    peak = float(s.density(f64([0.0]))[0])
    assert peak == pytest.approx(0.5 / (0.02 * math.sqrt(2 * math.pi)))
    point = SpectralMeasure([f64([3.0])], [f64([1.0])], 4)
    grid = point.default_grid()
    assert float(torch.trapezoid(point.density(grid), grid)) == pytest.approx(1, abs=1e-4)


def test_cdf_fraction_range_and_logdet() -> None:
    s = SpectralMeasure([f64([1.0, 2.0, 4.0])] * 2, [f64([0.5, 0.25, 0.25])] * 2, 8)
    torch.testing.assert_close(s.cdf(f64([0.0, 1.0, 3.0, 9.0])), f64([0, 0.5, 0.75, 1]))
    assert s.cdf_stderr(2.0).shape == ()
    assert float(s.cdf_stderr(2.0)) == 0
    assert s.range == (1.0, 4.0)
    assert s.fraction_small(1.5) == (0.5, 0.0)
    want = 8 * (0.25 * math.log(2) + 0.25 * math.log(4))
    assert float(s.logdet()) == pytest.approx(want)


def test_logdet_of_a_matrix() -> None:
    A = symmetric(12)
    A = A @ A + torch.eye(12, dtype=torch.float64)
    found = slq(DenseOperator(A), num_steps=12, num_probes=400)
    error = 12 * float(found.stderr(torch.log))
    assert abs(float(found.logdet()) - float(torch.logdet(A))) < 4 * error


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: SpectralMeasure([], [], 3), "same length of at least 1, got 0 and 0"),
        (lambda: SpectralMeasure([torch.ones(2)], [], 3), "got 1 and 0"),
        (lambda: SpectralMeasure([torch.ones(2)], [torch.ones(3)], 3), r"\(2,\) and \(3,\)"),
        (lambda: SpectralMeasure([torch.ones(0)], [torch.ones(0)], 3), "run 0"),
        (lambda: measure().moment(-1), "k must be an integer of at least 0"),
        (lambda: measure().moment(1.5), "k must be an integer"),
        (lambda: measure().density(sigma=0.0), "sigma must be positive"),
        (lambda: measure().density(sigma=math.inf), "sigma must be positive"),
        (lambda: measure().default_grid(1), "num_points must be at least 2"),
        (lambda: measure().fraction_small(0.0), "threshold must be positive"),
        (lambda: measure().logdet(), "logdet needs positive nodes"),
    ],
)
def test_bad_input(act: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()
