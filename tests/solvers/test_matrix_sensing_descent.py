"""What the loops record, when they stop, what they draw and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.solvers.sensing_cases import normal, seeded
from torch import Tensor

from gradworks.solvers.matrix_sensing import (
    MeasurementOperator,
    accelerated_gd,
    asymmetric_gd,
    random_low_rank,
    symmetric_gd,
)

M = random_low_rank(6, rank=2, symmetric=True, generator=seeded())
OP = MeasurementOperator.identity(6)
Y = OP(M)
METHODS = {"symmetric": symmetric_gd, "asymmetric": asymmetric_gd, "accelerated": accelerated_gd}


def run(method: str = "symmetric", **kw: Any) -> Any:
    """A short run from a seed."""
    given: dict[str, Any] = {"generator": seeded(1), "target": M, "max_iter": 50, "alpha": 0.5}
    return METHODS[method](OP, Y, 3, **{**given, **kw})  # type: ignore[operator]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("every", "last", "expected"),
    [(1, 3, [0, 1, 2, 3]), (4, 8, [0, 4, 8]), (4, 10, [0, 4, 8, 10]), (9, 4, [0, 4]), (5, 0, [0])],
)
def test_records_are_the_points_before_the_updates(
    method: str, every: int, last: int, expected: list[int]
) -> None:
    seldom, often = run(method, record_every=every, max_iter=last), run(method, max_iter=last)
    assert seldom.iterations.tolist() == expected
    assert seldom.n_iter == last
    assert torch.equal(seldom.errors, often.errors[expected])
    assert torch.equal(seldom.residuals, often.residuals[expected])
    for a, b in zip(seldom.factors, often.factors, strict=True):
        assert torch.equal(a, b)
    off = seldom.estimate - M
    torch.testing.assert_close(seldom.errors[-1], off.square().sum())
    torch.testing.assert_close(seldom.residuals[-1], off.square().sum() / M.square().sum())


@pytest.mark.parametrize("method", METHODS)
def test_a_run_goes_on_from_its_factors(method: str) -> None:
    method = "asymmetric" if method == "accelerated" else method
    half, whole = run(method, max_iter=20), run(method, max_iter=40)
    init = half.factors if len(half.factors) == 2 else half.factors[0]
    rest = run(method, max_iter=20, init=init)
    for a, b in zip(rest.factors, whole.factors, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("method", METHODS)
def test_the_tolerance_ends_a_run(method: str) -> None:
    result = run(method, tol=1e-2, max_iter=5000)
    assert result.converged
    assert result.n_iter < 5000
    assert float(result.residuals[-1]) <= 1e-2 < float(result.residuals[-2])
    assert not run(method, tol=1e-2, max_iter=2).converged
    assert not run(method, max_iter=2).converged


def test_without_a_target_there_are_no_errors() -> None:
    result = run(target=None)
    assert result.errors is None
    assert len(result.residuals) == 51


def test_zero_measurements_leave_residuals_undivided() -> None:
    result = symmetric_gd(OP, torch.zeros_like(Y), 1, init=torch.ones(6, 1).double(), max_iter=1)
    assert float(result.residuals[0]) == 36.0
    assert result.lr == 0.1


def test_the_default_step_is_a_tenth_over_the_largest_singular_value() -> None:
    result = symmetric_gd(OP, 5 * Y, 3, generator=seeded(), max_iter=1)
    assert result.lr == pytest.approx(0.02)
    assert run(lr=0.07).lr == 0.07


@pytest.mark.parametrize("scale", ["unit", "entry"])
def test_the_start_has_the_scale_asked_for(scale: Any) -> None:
    op = MeasurementOperator.identity(400, 100)
    y = torch.zeros(40_000, dtype=torch.float64)
    F, G = asymmetric_gd(
        op, y, 50, alpha=0.2, scale=scale, imbalance=4.0, max_iter=0, generator=seeded()
    ).factors
    one, other = (1.0, 1.0) if scale == "entry" else (20.0, 10.0)
    assert float(F.std()) == pytest.approx(0.2 / one, rel=0.03)
    assert float(G.std()) == pytest.approx(0.05 / other, rel=0.03)


def test_the_default_imbalance_is_three() -> None:
    F, G = run("asymmetric", max_iter=0, scale="entry").factors
    drawn = seeded(1)
    for factor, scale in ((F, 0.5), (G, 0.5 / 3)):
        expected = scale * torch.randn(6, 3, generator=drawn, dtype=torch.float64)
        torch.testing.assert_close(factor, expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_is_a_run(method: str) -> None:
    assert torch.equal(run(method).estimate, run(method).estimate)
    assert not torch.equal(run(method).estimate, run(method, generator=seeded(2)).estimate)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_given_is_kept(method: str) -> None:
    X = normal(6, 3)
    y, target, kept = Y.clone(), M.clone(), X.clone()
    init = X if method == "symmetric" else (X, X)
    METHODS[method](OP, y, 3, init=init, target=target, max_iter=5)  # type: ignore[operator]
    assert torch.equal(X, kept)
    assert torch.equal(y, Y)
    assert torch.equal(target, M)


def test_one_step_by_hand() -> None:
    """Of one measurement that is not symmetric: A(1 1^T) is 4, and 1 too many."""
    op = MeasurementOperator(torch.tensor([[[1.0, 2.0], [0.0, 1.0]]], dtype=torch.float64))
    y, one = torch.tensor([3.0], dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    result = symmetric_gd(op, y, 1, lr=0.1, init=one, max_iter=1)
    torch.testing.assert_close(result.factors[0], 0.8 * one)  # half of E + E^T is all ones
    torch.testing.assert_close(result.residuals, torch.tensor([1.0, 0.1936]).double() / 9)
    result = asymmetric_gd(op, y, 1, lr=0.1, init=(one, one), max_iter=1)
    F, G = torch.tensor([[0.7], [0.9]]).double(), torch.tensor([[0.9], [0.7]]).double()
    torch.testing.assert_close(result.factors, (F, G))
    torch.testing.assert_close(result.residuals, torch.tensor([1.0, 0.5776]).double() / 9)


@pytest.mark.parametrize("method", METHODS)
def test_factors_have_memory_of_their_own(method: str) -> None:
    X = normal(6, 3)
    result = run(method, init=X if method == "symmetric" else (X, X), max_iter=0)
    for factor in result.factors:
        assert torch.equal(factor, X)
        assert factor.data_ptr() != X.data_ptr()


def test_integers_of_numpy_are_integers() -> None:
    result = symmetric_gd(OP, Y, np.int64(3), max_iter=np.int64(50), alpha=0.5, generator=seeded(1))
    assert torch.equal(result.estimate, run().estimate)


def test_factors_carry_no_graph() -> None:
    X = normal(6, 3).requires_grad_()
    assert not symmetric_gd(OP, Y, 3, init=X, max_iter=2).factors[0].requires_grad


def test_the_reset_comes_once_and_when_it_is_asked_for() -> None:
    assert run("asymmetric").reset_iter is None
    assert run("asymmetric", reset_at=7).reset_iter == 7
    assert run("asymmetric", reset_at=50).reset_iter is None  # no update follows
    early = run("accelerated", max_iter=500)
    assert early.reset_iter is not None
    below = (early.residuals <= 0.01).nonzero()[0]
    assert early.reset_iter == int(below)
    seldom = run("accelerated", max_iter=500, record_every=30)
    assert seldom.reset_iter == 30 * math.ceil(early.reset_iter / 30)
    assert run("accelerated", reset_at=3).reset_iter == 3
    assert run("accelerated", reset_tol=0.5, max_iter=500).reset_iter < early.reset_iter


def test_a_reset_leaves_the_error_of_its_iteration() -> None:
    plain, reset = run("asymmetric"), run("asymmetric", reset_at=20)
    torch.testing.assert_close(reset.errors[:21], plain.errors[:21])
    assert not torch.allclose(reset.errors[22:], plain.errors[22:])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("every", [1, 7])
def test_a_step_too_large_is_named(method: str, every: int) -> None:
    with pytest.raises(FloatingPointError, match=r"at iteration \d+ with lr=30; take a smaller lr"):
        run(method, lr=30.0, record_every=every, max_iter=400)


def test_the_iteration_that_is_named_is_the_first() -> None:
    """Against a loop of its own, from beside a solution that so large a step leaves slowly."""
    values, vectors = torch.linalg.eigh(M)
    X = vectors[:, -2:] * values[-2:].sqrt() + 1e-8 * normal(6, 2)
    start, t, first = X, 0, float((X @ X.mT - M).square().sum())
    while float((X @ X.mT - M).square().sum()) <= 1e6 * first:
        X, t = X - 1.5 * (X @ X.mT - M) @ X, t + 1
    with pytest.raises(FloatingPointError, match=rf"at iteration {t} with lr=1.5;"):
        symmetric_gd(OP, Y, 2, lr=1.5, init=start, target=M, max_iter=50)


def test_factors_that_explode_before_a_reset_are_refused() -> None:
    with pytest.raises(FloatingPointError, match="take a smaller lr"):
        run("asymmetric", lr=30.0, record_every=200, reset_at=100, max_iter=200)


def test_an_exact_start_does_not_count_as_an_explosion() -> None:
    values, vectors = torch.linalg.eigh(M)
    X = vectors[:, -2:] * values[-2:].sqrt()
    result = symmetric_gd(OP, Y, 2, init=X, target=M, max_iter=500)
    assert result.errors is not None
    assert float(result.errors.max()) < 1e-28


def test_noise_that_moves_an_exact_start_is_no_explosion() -> None:
    """The error rises from nothing while the residual, which is descended, falls."""
    values, vectors = torch.linalg.eigh(M)
    X = vectors[:, -2:] * values[-2:].sqrt()
    result = symmetric_gd(OP, Y + 0.01 * normal(36), 2, init=X, target=M, max_iter=100)
    assert result.errors is not None
    assert 1e6 * float(result.errors[0]) < float(result.errors[-1]) < 0.01
    assert float(result.residuals[-1]) < float(result.residuals[0])


@pytest.mark.parametrize("target", [M, None])
def test_an_infinite_start_is_named(target: Tensor | None) -> None:
    with pytest.raises(FloatingPointError, match="squared error inf at iteration 0"):
        symmetric_gd(OP, Y, 2, init=1e100 * normal(6, 2), target=target, max_iter=0)


def test_single_precision_ends_near_its_floor() -> None:
    op = MeasurementOperator.identity(6, dtype=torch.float32)
    result = symmetric_gd(op, Y.float(), 2, target=M.float(), max_iter=400, generator=seeded())
    assert result.factors[0].dtype == torch.float32
    assert result.errors is not None
    assert 0 < float(result.errors[-1]) < 1e-11


def test_noise_ends_at_the_least_squares_fit() -> None:
    op = MeasurementOperator.gaussian(200, 6, symmetric=True, generator=seeded())
    y = op(M) + 0.01 * normal(200)
    result = symmetric_gd(op, y, 2, alpha=1.0, max_iter=1000, generator=seeded())
    X = result.factors[0]
    gradient: Tensor = op.gradient(X, X, y) @ X
    assert float(gradient.norm()) < 1e-12
    assert float((result.estimate - M).norm()) < 0.1


ones = torch.ones
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"rank": 0}, ValueError, "rank must be at least 1, got 0"),
    ({"rank": 7}, ValueError, r"rank must be at most min\(n1, n2\) = 6, got 7"),
    ({"rank": 2.0}, TypeError, "rank must be an int"),
    ({"alpha": 0.0}, ValueError, "alpha must be .* got 0.0"),
    ({"alpha": math.inf}, ValueError, "alpha must be"),
    ({"lr": 0.0}, ValueError, "lr must be .* got 0.0"),
    ({"lr": -1.0}, ValueError, "lr must be"),
    ({"lr": math.nan}, ValueError, "lr must be"),
    ({"lr": "0.1"}, TypeError, "lr must be a number"),
    ({"tol": -1.0}, ValueError, "tol must be"),
    ({"max_iter": -1}, ValueError, "max_iter must be"),
    ({"max_iter": 1.5}, TypeError, "max_iter must be an int"),
    ({"record_every": 0}, ValueError, "record_every must be"),
    ({"scale": "row"}, ValueError, "scale must be one of unit, entry"),
    ({"y": ones(35).double()}, ValueError, r"y must have shape \(36,\), got \(35,\)"),
    ({"y": Y * math.nan}, ValueError, "y must be finite, got nan at position 0"),
    ({"y": Y / 0}, ValueError, "y must be finite"),
    ({"y": Y.float()}, ValueError, "dtype torch.float64"),
    ({"y": [1.0]}, TypeError, "y must be a tensor, got list"),
    ({"target": M * math.nan}, ValueError, "target must be finite, got nan at position 0"),
    ({"target": ones(5, 6).double()}, ValueError, r"target must have shape \(6, 6\)"),
]
PAIRS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"beta": 0.0}, ValueError, "beta must be"),
    ({"imbalance": 0.0}, ValueError, "imbalance must be"),
    ({"reset_at": -1}, ValueError, "reset_at must be"),
    ({"reset_tol": 0.0}, ValueError, "reset_tol must be"),
    ({"reset_at": 3, "reset_tol": 0.1}, ValueError, "not both: got 3 and 0.1"),
    ({"init": ones(6, 3).double()}, TypeError, r"init must be the pair \(F0, G0\)"),
    ({"init": (ones(6, 3).double(), ones(6, 2).double())}, ValueError, r"init\[1\] must have"),
    ({"init": (ones(5, 3).double(), ones(6, 3).double())}, ValueError, r"init\[0\] must have"),
]


def refused(method: Any, given: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"op": OP, "y": Y, "rank": 3, "max_iter": 2, **given}
    with pytest.raises(error, match=message):
        method(**arguments)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("given", "error", "message"), BAD)
def test_what_does_not_fit_is_refused(
    method: str, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    refused(METHODS[method], given, error, message)


@pytest.mark.parametrize(("given", "error", "message"), PAIRS)
def test_what_does_not_fit_two_factors_is_refused(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    refused(asymmetric_gd, given, error, message)


def test_one_factor_needs_square_measurements() -> None:
    op = MeasurementOperator.identity(3, 4)
    refused(symmetric_gd, {"op": op, "y": ones(12).double()}, ValueError, "square measurements")
    refused(symmetric_gd, {"init": ones(6, 2).double()}, ValueError, r"init must have shape")


def test_a_start_that_is_not_finite_is_refused() -> None:
    bad = normal(6, 3) * math.nan
    refused(symmetric_gd, {"init": bad}, ValueError, "init must be finite, got nan")
    for position in (0, 1):
        pair = [normal(6, 3), normal(6, 3)]
        pair[position] = bad
        message = rf"init\[{position}\] must be finite, got nan"
        refused(asymmetric_gd, {"init": tuple(pair)}, ValueError, message)
