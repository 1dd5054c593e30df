"""How fast it is: every prediction of the theory, and the properties the theory rests on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.solvers.sensing_cases import normal, seeded
from torch import Tensor

from gradworks.solvers.matrix_sensing import (
    MeasurementOperator,
    accelerated_gd,
    asymmetric_gd,
    fit_rate,
    predicted_rate,
    random_low_rank,
    rebalance,
    symmetric_gd,
)

LR = 0.1


def problem(
    n: int = 20, r: int = 2, symmetric: bool = False
) -> tuple[MeasurementOperator, Tensor, Tensor]:
    """Full observation of a random matrix with equal singular values."""
    M = random_low_rank(n, rank=r, symmetric=symmetric, generator=seeded())
    op = MeasurementOperator.identity(n)
    return op, op(M), M


def solve(method: Any, op: Any, y: Tensor, M: Tensor, k: int, **kw: Any) -> Any:
    """One run with a seed."""
    kw = {"alpha": 0.6, **kw}
    return method(op, y, k, lr=LR, target=M, generator=seeded(1), **kw)


def test_the_exact_rank_converges_at_the_rate_of_the_smallest_singular_value() -> None:
    result = solve(symmetric_gd, *problem(symmetric=True), 2, max_iter=400)
    found = result.observed_rate()
    assert found.rate == pytest.approx(-2 * math.log(1 - LR), rel=1e-4)
    assert found.r_squared > 0.99999


@pytest.mark.parametrize("spare", [1, 2, 4])
def test_spare_columns_leave_an_error_that_falls_with_the_square_of_time(spare: int) -> None:
    op, y, M = problem(symmetric=True)
    steps = 40_000
    result = solve(symmetric_gd, op, y, M, 2 + spare, max_iter=steps, record_every=100)
    late = result.iterations >= steps // 10
    t, err = result.iterations[late].double(), result.errors[late]
    x, z = t.log() - t.log().mean(), err.log() - err.log().mean()
    assert float(x.dot(z) / x.dot(x)) == pytest.approx(-2, abs=0.01)
    assert float(err[-1]) * (LR * steps) ** 2 == pytest.approx(spare / 4, rel=0.01)


def test_a_spare_column_alone_is_a_recursion_of_one_number() -> None:
    op = MeasurementOperator.identity(1)
    zero = torch.zeros(1, dtype=torch.float64)
    start = torch.tensor([[0.7]], dtype=torch.float64)
    result = symmetric_gd(op, zero, 1, lr=LR, init=start, max_iter=50, target=zero.view(1, 1))
    s = 0.7
    assert result.errors is not None
    for err in result.errors.tolist():
        assert err == pytest.approx(s**4, rel=1e-13)
        s -= LR * s**3


def test_one_number_is_the_scalar_recursion() -> None:
    op = MeasurementOperator.identity(1)
    y = torch.tensor([2.0], dtype=torch.float64)
    start = torch.tensor([[0.1]], dtype=torch.float64)
    result = symmetric_gd(op, y, 1, lr=LR, init=start, max_iter=40, target=y.view(1, 1))
    x = 0.1
    assert result.errors is not None
    for err in result.errors.tolist():
        assert err == pytest.approx((x * x - 2) ** 2, rel=1e-11, abs=1e-28)
        x -= LR * (x * x - 2) * x


@pytest.mark.parametrize(("alpha", "k"), [(0.6, 3), (0.3, 3), (0.6, 4)])
def test_the_asymmetric_rate_is_predicted(alpha: float, k: int) -> None:
    op, y, M = problem()
    steps = int(400 / alpha**2)
    result = solve(asymmetric_gd, op, y, M, k, alpha=alpha, max_iter=steps, record_every=10)
    tail = max(float(result.errors[-1]) * 10, 1e-24)
    found = result.observed_rate(low=tail, high=min(1e-4, tail * 1e6))
    coupled = predicted_rate(*result.factors, rank_true=2, lr=LR, coupled=True)
    assert found.rate == pytest.approx(coupled, rel=0.002)
    assert found.rate == pytest.approx(predicted_rate(*result.factors, 2, LR), rel=0.08)
    assert found.r_squared > 0.999


def test_the_first_order_is_the_eigenvalue_where_the_right_factor_fades() -> None:
    F = normal(6, 3)
    fading = normal(5, 3, seed=1)
    U, S, Vh = torch.linalg.svd(fading, full_matrices=False)
    S[2] = 1e-9
    v = Vh[2]
    found = predicted_rate(F, U * S @ Vh, 2, LR)
    assert found == pytest.approx(2 * LR * float((F @ v).square().sum()), rel=1e-9)
    # without spare columns the slower of both factors
    assert predicted_rate(F[:, :2] / 9, U[:, :2], 2, LR) == pytest.approx(
        2 * LR * float(torch.linalg.svdvals(F[:, :2] / 9)[-1]) ** 2, rel=1e-12
    )


def test_the_asymmetric_rate_goes_with_the_square_of_the_scale() -> None:
    op, y, M = problem()
    rates = [
        predicted_rate(
            *solve(asymmetric_gd, op, y, M, 3, alpha=a, max_iter=int(200 / a**2)).factors, 2, LR
        )
        for a in (0.3, 0.15)
    ]
    assert rates[0] / rates[1] == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("alpha", [0.6, 0.1, 0.01])
def test_the_modified_rate_is_free_of_the_scale(alpha: float) -> None:
    op, y, M = problem()
    result = solve(accelerated_gd, op, y, M, 4, alpha=alpha, max_iter=1500)
    found = result.observed_rate()
    assert found.rate == pytest.approx(-2 * math.log(1 - LR * 0.25), rel=0.12)
    assert found.r_squared > 0.99
    assert result.reset_iter is not None
    assert float(result.residuals[result.reset_iter]) <= 0.01
    assert float(result.residuals[result.reset_iter - 1]) > 0.01
    assert float(result.errors[-1]) < 1e-20


def test_a_balanced_start_is_sublinear() -> None:
    op, y, M = problem(symmetric=True)
    balanced = normal(20, 4, seed=3) * 0.1
    slow = solve(asymmetric_gd, op, y, M, 4, init=(balanced, balanced), max_iter=4000)
    fast = solve(asymmetric_gd, op, y, M, 4, alpha=0.6, max_iter=4000)
    assert float(slow.errors[-1]) > 1e6 * float(fast.errors[-1])


def test_symmetrised_measurements_hide_a_part_of_the_asymmetric_model() -> None:
    M = random_low_rank(8, rank=1, symmetric=True, generator=seeded())
    ends = {}
    for symmetric in (False, True):
        op = MeasurementOperator.gaussian(300, 8, symmetric=symmetric, generator=seeded())
        result = asymmetric_gd(
            op, op(M), 3, lr=LR, alpha=0.6, max_iter=3000, target=M, generator=seeded()
        )
        assert result.errors is not None
        ends[symmetric] = float(result.errors[-1])
    assert ends[False] < 1e-14
    assert ends[True] > 1e-4


@settings(max_examples=40, deadline=None)
@given(
    n1=st.integers(3, 8),
    n2=st.integers(1, 8),
    k=st.integers(1, 3),
    beta=st.floats(0.1, 3.0),
    batch=st.sampled_from([(), (2,), (2, 3)]),
    seed=st.integers(0, 100),
)
def test_rescaling_keeps_the_product(
    n1: int, n2: int, k: int, beta: float, batch: tuple[int, ...], seed: int
) -> None:
    F, G = normal(*batch, n1, k, seed=seed), normal(*batch, n2, k, seed=seed + 1)
    new_F, new_G = rebalance(F, G, beta)
    scale = float((F @ G.mT).abs().max())
    torch.testing.assert_close(new_F @ new_G.mT, F @ G.mT, rtol=1e-12, atol=1e-12 * scale)
    eye = torch.eye(k, dtype=torch.float64).expand(*batch, k, k)
    torch.testing.assert_close(new_F.mT @ new_F, beta**2 * eye, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rescaling_takes_half_precision(dtype: torch.dtype) -> None:
    """As trained adapters come."""
    F, G = normal(9, 2).to(dtype), normal(7, 2, seed=1).to(dtype)
    new_F, new_G = rebalance(F, G)
    assert new_F.dtype == new_G.dtype == dtype
    exact_F, exact_G = rebalance(F.double(), G.double())
    eps = torch.finfo(dtype).eps
    product = exact_F @ exact_G.mT
    torch.testing.assert_close(new_F.double() @ new_G.double().mT, product, rtol=0, atol=8 * eps)
    eye = torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(new_F.double().mT @ new_F.double(), eye / 4, rtol=0, atol=eps)


def rotation(n: int, seed: int) -> Tensor:
    """A random orthogonal matrix."""
    made: Tensor = torch.linalg.qr(normal(n, n, seed=seed)).Q
    return made


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100))
def test_descent_commutes_with_rotations(seed: int) -> None:
    op, y, M = problem(6, 2, symmetric=True)
    X, P, Q = 0.3 * normal(6, 4, seed=seed), rotation(4, seed), rotation(6, seed + 1)

    def run(values: Tensor, start: Tensor) -> Tensor:
        return symmetric_gd(op, values, 4, lr=LR, init=start, max_iter=30).factors[0]

    plain = run(y, X)
    torch.testing.assert_close(run(y, X @ P), plain @ P, rtol=1e-9, atol=1e-11)
    turned = run(op(Q @ M @ Q.mT), Q @ X)
    torch.testing.assert_close(turned, Q @ plain, rtol=1e-9, atol=1e-11)


def test_the_imbalance_changes_with_the_square_of_the_step() -> None:
    op, y, _ = problem(8)
    F, G = 0.6 * normal(8, 3), 0.2 * normal(8, 3, seed=1)

    def drift(lr: float) -> float:
        a, b = asymmetric_gd(op, y, 3, lr=lr, init=(F, G), max_iter=1).factors
        return float((a.mT @ a - b.mT @ b - F.mT @ F + G.mT @ G).norm())

    assert drift(0.02) / drift(0.01) == pytest.approx(4, rel=1e-6)


def test_the_rate_with_as_many_columns_as_the_rank() -> None:
    op, y, M = problem()
    result = solve(asymmetric_gd, op, y, M, 2, max_iter=600)
    found = result.observed_rate(low=1e-24, high=1e-18)
    predicted = predicted_rate(*result.factors, rank_true=2, lr=LR, coupled=True)
    assert found.r_squared > 0.999
    assert found.rate == pytest.approx(predicted, rel=0.002)


def test_a_line_is_fitted_between_the_bounds_alone() -> None:
    t = torch.arange(200)
    curve = torch.exp(-0.5 * t.double())
    curve[:10] = 5.0
    curve[150:] = 1e-30
    assert fit_rate(t, curve).rate == pytest.approx(0.5)
    assert math.isnan(fit_rate(t, torch.ones(200)).rate)
    assert fit_rate(t, torch.ones(200)).points == 0


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: rebalance(normal(3, 2), normal(3, 2), 0.0), ValueError, "beta must be .* got 0.0"),
    (lambda: rebalance(normal(3, 2), normal(3, 2), math.nan), ValueError, "beta must be"),
    (lambda: rebalance(normal(3, 2), normal(3, 1)), ValueError, "must have shapes"),
    (lambda: rebalance(normal(3), normal(3)), ValueError, "must have shapes"),
    (lambda: rebalance(normal(2, 3, 2), normal(3, 2)), ValueError, "must have shapes"),
    (lambda: rebalance(normal(2, 3), normal(4, 3)), ValueError, "between 1 and n1 columns"),
    (lambda: rebalance(torch.ones(3, 2), normal(3, 2)), RuntimeError, "has lost rank"),
    (lambda: rebalance(torch.zeros(3, 2), torch.ones(3, 2)), RuntimeError, "has lost rank"),
    (lambda: predicted_rate(normal(3, 2), normal(3, 2), 3, LR), ValueError, "rank_true must be"),
    (lambda: predicted_rate(normal(3, 2), normal(3, 2), 0, LR), ValueError, "rank_true must be"),
    (lambda: predicted_rate(normal(3, 2), normal(3, 2), 1, 0.0), ValueError, "lr must be"),
    (lambda: predicted_rate(normal(3, 2), normal(3, 1), 1, LR), ValueError, "must have shapes"),
    (lambda: fit_rate(torch.arange(3), torch.ones(4)), ValueError, "of one length"),
    (lambda: fit_rate(torch.arange(3), torch.ones(3), low=1.0), ValueError, "low must be"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_what_does_not_fit_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
