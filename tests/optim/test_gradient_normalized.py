"""Gradient-normalized Newton: the authors' traces, its inequality, its invariances, its solvers."""

from __future__ import annotations

import copy
import io
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gradworks.curvature.operators import DenseOperator
from gradworks.optim.gradient_normalized import (
    GradientNormalizedNewton,
    LowRank,
    chebyshev,
    ggn,
    linear_power,
    log_sum_exp,
    minimize,
    power_residual,
    rosenbrock,
    weighted_gauss_newton,
)

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden/gradient-normalized/golden.json").read_text()
)


def f64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def problem_of(case: str) -> tuple[Any, Tensor, Tensor | None]:
    """Problem, start and metric of a golden case."""
    if case.startswith("logsumexp"):
        d = GOLDEN["logsumexp"]
        A, b = f64(d["A"]), f64(d["b"])
        metric = A.T @ A if "/gram/" in case else None
        return log_sum_exp(A, b, d["mu"], recentre=True), f64(d["x0"]), metric
    if case.startswith("rosenbrock"):
        d = GOLDEN["rosenbrock"]
        p = 5.0 if "_p5" in case else None
        return rosenbrock(d["a"], d["b"], p), f64(d["x0"]), None
    if case.startswith("linear"):
        d = GOLDEN["linear_p4"]
        return linear_power(f64(d["A"]), f64(d["b"]), d["p"]), f64(d["x0"]), f64(d["B"])
    d = GOLDEN["chebyshev"]
    return chebyshev(len(d["x0"]), d["p"]), f64(d["x0"]), None


def hessian_of(problem: Any, kind: str) -> Any:
    if kind in ("exact", "zero_hessian"):
        return problem.hessian if kind == "exact" else "zero"
    return problem.approximations["fisher" if kind in ("cho", "wsm") else kind]


CASES = [c for c in GOLDEN["cases"] if not c.endswith(("gradient_method", "super_newton"))]


@pytest.mark.parametrize("case", CASES)
def test_golden_traces(case: str) -> None:
    want = GOLDEN["cases"][case]
    problem, x0, metric = problem_of(case)
    kind = case.rsplit("/", 1)[1]
    found = minimize(
        problem.fun,
        x0,
        hessian=hessian_of(problem, kind),
        metric=metric,
        max_iter=len(want["func"]) - 1,
        strict=True,
        solver="cholesky" if kind == "cho" else "auto",
        store_x=True,
    )
    norms = want["grad_norm"]
    compared = next(
        (i for i, n in enumerate(norms) if n <= 1e-7 * norms[0]), len(norms)
    )  # beyond it rounding decides what is accepted
    assert compared >= 6
    history = found.history
    assert history["gamma"][:compared] == want["gamma"][:compared]
    torch.testing.assert_close(
        f64(history["fun"][:compared]), f64(want["func"][:compared]), rtol=1e-7, atol=1e-13
    )
    torch.testing.assert_close(
        f64(history["grad_norm"][:compared]), f64(norms[:compared]), rtol=1e-6, atol=1e-12
    )
    if "x_iters" in want:
        upto = min(compared, len(want["x_iters"]))
        torch.testing.assert_close(
            torch.stack(history["x"][:upto]), f64(want["x_iters"][:upto]), rtol=1e-7, atol=1e-10
        )
    if "grad_calls" in want:
        assert history["n_grad"][:compared] == want["grad_calls"][:compared]
        assert history["n_solve"][:compared] == want["solves"][:compared]


PROBLEMS = {
    "lse": (log_sum_exp(f64([[1.0, 2.0], [-1.0, 0.5], [0.3, -2.0]]), f64([0.1, 0.2, 0.3]), 0.7), 2),
    "rosenbrock": (rosenbrock(), 2),
    "rosenbrock_p5": (rosenbrock(p=5), 2),
    "chebyshev": (chebyshev(4, 4), 4),
    "linear": (linear_power(f64([[1.0, 2.0, 0.0], [0.5, -1.0, 3.0]]), f64([1.0, -1.0]), 4), 3),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_hessians_of_the_problems(name: str) -> None:
    problem, n = PROBLEMS[name]
    x = torch.linspace(-0.7, 0.9, n, dtype=torch.float64)
    want = torch.autograd.functional.hessian(problem.fun, x)
    torch.testing.assert_close(problem.hessian(x), want, rtol=1e-10, atol=1e-10)
    assert torch.autograd.gradcheck(problem.fun, (x.clone().requires_grad_(True),))


def test_what_the_approximations_leave_out() -> None:
    problem, _ = PROBLEMS["lse"]
    x = f64([0.3, -0.2])
    g = torch.func.grad(problem.fun)(x)
    approximate = problem.approximations["weighted_gauss_newton"](x)
    torch.testing.assert_close(approximate - torch.outer(g, g) / 0.7, problem.hessian(x))
    A, b = f64([[1.0, 2.0], [0.5, -1.0]]), f64([1.0, -1.0])
    linear = linear_power(A, b, 5)  # nothing is left out of a linear residual
    both = linear.approximations["gauss_newton_fisher"](x)
    torch.testing.assert_close(both, linear.hessian(x))
    fisher = linear.approximations["fisher"](x)
    g, f = torch.func.grad(linear.fun)(x), linear.fun(x)
    torch.testing.assert_close(fisher.to_dense(), 3 * torch.outer(g, g) / (5 * f))


def test_curvature_where_the_residual_is_zero() -> None:
    zero = torch.zeros(2, dtype=torch.float64)
    for p, want in ((2, 1.0), (3, 0.0), (4, 0.0)):
        H = power_residual(lambda x: x, p)(zero)
        torch.testing.assert_close(H, want * torch.eye(2, dtype=torch.float64))
        fisher = power_residual(lambda x: x, p, "fisher")(zero)
        assert float(fisher.to_dense().abs().max()) == 0
    # p = 2 has no Fisher term, also where the residual's power -2 overflows
    near = f64([1e-160, 0.0])
    torch.testing.assert_close(power_residual(lambda x: x, 2)(near), torch.eye(2).double())
    assert float(power_residual(lambda x: x, 2, "fisher")(near).to_dense().abs().max()) == 0
    torch.testing.assert_close(
        linear_power(torch.eye(2).double(), zero, 2).hessian(near), torch.eye(2).double()
    )


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("hessian", ["exact", "zero"])
def test_every_step_obeys_its_inequality(name: str, hessian: Any) -> None:
    problem, n = PROBLEMS[name]
    x0 = torch.linspace(-1.2, 1.1, n, dtype=torch.float64)
    found = minimize(problem.fun, x0, hessian=hessian, max_iter=40, strict=True)
    h = found.history
    assert len(h["fun"]) == found.n_iter + 1
    for k in range(found.n_iter):
        gamma = h["gamma"][k + 1] / 2  # doubled after the trial it was accepted with
        promised = gamma * h["grad_norm"][k + 1] ** 2 / (8 * h["grad_norm"][k])
        assert h["fun"][k] - h["fun"][k + 1] >= promised * (1 - 1e-6)
    assert found.fun == h["fun"][-1] <= h["fun"][0]


@given(seed=st.integers(0, 100))
@settings(max_examples=10)
def test_a_change_of_coordinates_changes_nothing(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    A = torch.rand(12, 4, generator=g, dtype=torch.float64) * 2 - 1
    b = torch.rand(12, generator=g, dtype=torch.float64)
    C = torch.eye(4, dtype=torch.float64) + 0.3 * torch.randn(4, 4, generator=g).double()
    problem, mapped = log_sum_exp(A, b, 0.5), log_sum_exp(A @ torch.linalg.inv(C), b, 0.5)
    inverse = torch.linalg.inv(C)
    x0 = torch.ones(4, dtype=torch.float64)
    plain = minimize(problem.fun, x0, max_iter=6, strict=True, store_x=True)
    moved = minimize(
        mapped.fun, C @ x0, metric=inverse.T @ inverse, max_iter=6, strict=True, store_x=True
    )
    before_rounding = [n > 1e-6 for n in plain.history["grad_norm"]]
    assert sum(before_rounding) >= 3
    for x, y, kept in zip(plain.history["x"], moved.history["x"], before_rounding):
        if kept:
            torch.testing.assert_close(C @ x, y, rtol=1e-7, atol=1e-9)


def test_a_multiple_of_the_function_has_the_same_path() -> None:
    problem, _ = PROBLEMS["rosenbrock"]
    x0 = f64([-1.2, 1.0])
    one = minimize(problem.fun, x0, max_iter=15, strict=True, store_x=True, eps=1e-14)
    many = minimize(
        lambda x: 1e3 * problem.fun(x), x0, max_iter=15, strict=True, store_x=True, eps=1e-14
    )
    for x, y in zip(one.history["x"], many.history["x"], strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)
    assert one.history["gamma"] == many.history["gamma"]


def test_without_curvature_the_step_has_length_gamma() -> None:
    problem, _ = PROBLEMS["lse"]
    x0 = f64([2.0, -1.0])
    found = minimize(problem.fun, x0, hessian="zero", gamma0=0.3, max_iter=1, store_x=True)
    g = torch.func.grad(problem.fun)(x0)
    gamma = found.history["gamma"][1] / 2
    torch.testing.assert_close(found.x - x0, -gamma * g / g.norm(), rtol=1e-6, atol=0)


def test_a_quadratic_is_solved_superlinearly() -> None:
    a = f64([1.0, 10.0, 100.0])
    found = minimize(lambda x: 0.5 * (a * x * x).sum(), f64([1.0, 1.0, 1.0]), max_iter=12)
    norms = [n for n in found.history["grad_norm"] if n > 1e-13]
    ratios = [b / a for a, b in itertools.pairwise(norms)]
    assert ratios[-1] < 0.05 * ratios[1]


@given(seed=st.integers(0, 200), rank=st.integers(1, 5), which=st.sampled_from([None, 1, 2]))
@settings(max_examples=20)
def test_woodbury_is_cholesky(seed: int, rank: int, which: int | None) -> None:
    g = torch.Generator().manual_seed(seed)
    n = 6
    U = torch.randn(n, rank, generator=g, dtype=torch.float64)
    w = torch.rand(rank, generator=g, dtype=torch.float64)
    S = torch.randn(n, n, generator=g, dtype=torch.float64)
    dense = S @ S.T + torch.eye(n, dtype=torch.float64)
    metric = {None: None, 1: dense.diagonal().clone(), 2: dense}[which]
    center = torch.randn(n, generator=g, dtype=torch.float64)

    def run(solver: Any) -> Tensor:
        return minimize(
            lambda x: torch.logsumexp(x - center, 0) + 0.5 * ((x @ U) ** 2 * w).sum(),
            torch.zeros(n, dtype=torch.float64),
            hessian=lambda _: LowRank(U, w),
            metric=metric,
            solver=solver,
            max_iter=3,
        ).x

    for solver in ("woodbury", "cg"):
        options = (
            {"rtol": 1e-8, "atol": 1e-9} if solver == "woodbury" else {"rtol": 1e-3, "atol": 1e-4}
        )
        torch.testing.assert_close(run(solver), run("cholesky"), **options)


def test_low_rank_with_negative_weights_fails_until_it_is_regular() -> None:
    H = LowRank(f64([[1.0], [0.0]]), f64([-5.0]))
    found = minimize(
        lambda x: (x**4).sum() + x.sum(), f64([1.0, 1.0]), hessian=lambda _: H, max_iter=5
    )
    dense = minimize(
        lambda x: (x**4).sum() + x.sum(),
        f64([1.0, 1.0]),
        hessian=lambda _: H.to_dense(),
        max_iter=5,
    )
    torch.testing.assert_close(found.x, dense.x, rtol=1e-9, atol=1e-12)
    assert found.history["n_solve"] == dense.history["n_solve"]
    assert found.n_trials > found.n_iter


def test_conjugate_gradients_reach_the_same_minimum_by_products_alone() -> None:
    d = GOLDEN["logsumexp"]
    problem = log_sum_exp(f64(d["A"]), f64(d["b"]), d["mu"], recentre=True)
    found = minimize(problem.fun, f64(d["x0"]), solver="cg", grad_tol=1e-9)
    assert found.success
    assert float(found.x.norm()) < 1e-7
    operator = minimize(
        problem.fun,
        f64(d["x0"]),
        hessian=lambda x: DenseOperator(problem.hessian(x)),
        grad_tol=1e-9,
    )
    assert operator.success


@pytest.mark.slow
def test_a_hundred_thousand_parameters() -> None:
    n = 100_000
    g = torch.Generator().manual_seed(0)
    scale = 10 ** (2 * torch.rand(n, generator=g, dtype=torch.float64))
    center = torch.randn(n, generator=g, dtype=torch.float64)

    def fun(x: Tensor) -> Tensor:
        z = x - center
        return (scale * (torch.cosh(0.1 * z) - 1)).sum() * 100 + (z[1:] - z[:-1]).square().sum()

    found = minimize(fun, torch.zeros(n, dtype=torch.float64), grad_tol=1e-6, max_iter=100)
    assert found.success
    torch.testing.assert_close(found.x, center, rtol=0, atol=1e-6)


def test_peers() -> None:
    from scipy.optimize import minimize as scipy_minimize
    from scipy.optimize import rosen, rosen_hess

    problem = rosenbrock()
    x = f64([0.3, -0.4])
    assert float(problem.fun(x)) == pytest.approx(rosen(x.numpy()))
    torch.testing.assert_close(problem.hessian(x), f64(rosen_hess(x.numpy())))
    d = GOLDEN["logsumexp"]
    lse = log_sum_exp(f64(d["A"]), f64(d["b"]), d["mu"])
    ours = minimize(lse.fun, f64(d["x0"]), grad_tol=1e-10)
    theirs = scipy_minimize(
        lambda x: float(lse.fun(f64(x))),
        d["x0"],
        jac=lambda x: torch.func.grad(lse.fun)(f64(x)).numpy(),
        hess=lambda x: lse.hessian(f64(x)).numpy(),
        method="trust-exact",
        options={"gtol": 1e-10},
    )
    torch.testing.assert_close(ours.x, f64(theirs.x), rtol=1e-6, atol=1e-8)


def test_stops_and_says_why() -> None:
    problem, x0 = rosenbrock(), f64([-1.2, 1.0])
    assert minimize(problem.fun, x0, max_iter=0).status == "max_iter"
    assert minimize(problem.fun, x0, f_star=0.0).fun < 1e-8
    seen: list[int] = []

    def third(result: Any) -> bool:
        seen.append(result.n_iter)
        assert result.status == "running"
        return len(seen) == 3

    stopped = minimize(problem.fun, x0, callback=third)
    assert (stopped.status, seen) == ("stopped", [1, 2, 3])
    assert "callback" in stopped.message

    def ends(_: Any) -> None:
        raise StopIteration

    assert minimize(problem.fun, x0, callback=ends).n_iter == 1
    still = minimize(lambda x: (x * x).sum(), torch.zeros(2, dtype=torch.float64))
    assert still.status == "success"
    assert still.n_trials == 0
    # a gradient that points up: no trial can be accepted, the start is returned
    wrong = minimize(
        lambda x: ((x * x).sum().detach(), -2 * x.detach()), f64([1.0]), hessian="zero"
    )
    assert (wrong.status, wrong.n_trials) == ("search_failed", 41)
    assert torch.equal(wrong.x, f64([1.0]))


def test_trials_that_are_not_finite_have_failed() -> None:
    # beyond 1 the function is NaN: the first steps would leap there
    found = minimize(lambda x: -torch.log(1 - x).sum() - x.sum() * 3, f64([0.0]), gamma0=100.0)
    assert 0.6 < float(found.x) < 1
    assert found.n_trials > found.n_iter


def test_a_trial_whose_gradient_is_too_large_to_square_has_failed() -> None:
    # the first trial lands on 395, where the gradient is e^395 and its square overflows
    found = minimize(
        lambda x: (torch.exp(x) - x).sum(), f64([-5.0]), hessian="zero", gamma0=400.0, max_iter=60
    )
    assert abs(float(found.x)) < 1e-3
    assert found.n_trials > found.n_iter


def test_a_regulariser_below_the_smallest_number() -> None:
    # log(1 + e^-x) has its minimum at infinity: lambda underflows long before the gradient does
    far = minimize(lambda x: torch.log1p(torch.exp(-x)).sum(), f64([700.0]), gamma0=1e30)
    assert far.success
    for strict in (False, True):
        tiny = minimize(
            lambda x: (x * x).sum() / 2, f64([1e-320]), gamma0=1e10, strict=strict, max_iter=5
        )
        assert tiny.grad_norm == 0


def test_one_step_by_hand() -> None:
    """f = 2 x^2 + y^2 / 2 in the metric diag(4, 1) from (1, 2), radius 1 - eps.

    g = (4, 2), its dual norm sqrt(16 / 4 + 4) = sqrt 8 = lambda; the step is
    (-4 / (4 + 4 lambda), -2 / (1 + lambda)), hence x+ = lambda / (1 + lambda) (1, 2).
    """
    found = minimize(
        lambda x: 2 * x[0] ** 2 + x[1] ** 2 / 2,
        f64([1.0, 2.0]),
        metric=f64([4.0, 1.0]),
        gamma0=1 - 1e-8,
        max_iter=1,
    )
    lam = 8**0.5
    torch.testing.assert_close(found.x, lam / (1 + lam) * f64([1.0, 2.0]), rtol=1e-14, atol=0)
    # twice 1 - eps: 4 (1 - r^2) = 1.82 is at least 8 r^2 / (8 lambda) = 0.19, r = 0.739
    assert found.history["gamma"] == [1 - 1e-8, 2 - 2e-8]
    assert found.grad_norm == pytest.approx(8 / (1 + lam), rel=1e-14)


def test_a_gradient_that_the_function_writes_into_one_buffer() -> None:
    problem, x0 = rosenbrock(), f64([-1.2, 1.0])
    buffer = torch.zeros(2, dtype=torch.float64)

    def shared(x: Tensor) -> tuple[Tensor, Tensor]:
        buffer.copy_(torch.func.grad(problem.fun)(x.detach()))
        return problem.fun(x).detach(), buffer

    found = minimize(shared, x0, hessian=problem.hessian, max_iter=8)
    want = minimize(problem.fun, x0, hessian=problem.hessian, max_iter=8)
    assert want.n_trials > want.n_iter  # a failed trial has overwritten the buffer
    torch.testing.assert_close(found.x, want.x, rtol=1e-10, atol=0)
    narrow = minimize(
        lambda x: ((x * x).sum().detach(), 2 * x.detach().float()),
        f64([1.0, 2.0]),
        hessian=lambda _: 2 * torch.eye(2),
        max_iter=3,
    )
    assert narrow.x.dtype == torch.float64


def test_a_hessian_that_asks_for_gradients_leaves_no_graph() -> None:
    def hessian(x: Tensor) -> Tensor:
        x.requires_grad_(True)
        return 2 * torch.eye(2, dtype=torch.float64)

    found = minimize(lambda x: (x**4).sum(), f64([1.0, 2.0]), hessian=hessian, max_iter=3)
    assert not found.x.requires_grad


def test_a_float32_metric_is_symmetric_up_to_its_rounding() -> None:
    g = torch.Generator().manual_seed(0)
    A = torch.randn(40, 30, generator=g)
    metric = torch.linalg.inv(A.T @ A + torch.eye(30))
    assert not torch.equal(metric, metric.T)
    for x0 in (torch.ones(30), torch.ones(30).double()):
        found = minimize(square, x0, metric=metric, max_iter=2)
        assert found.fun < 30
    lopsided = metric.clone()
    lopsided[0, 1] += 1e-3 * metric.abs().max()
    with pytest.raises(ValueError, match="metric must be symmetric"):
        minimize(square, torch.ones(30), metric=lopsided)


def test_edges_of_the_search() -> None:
    found = minimize(square, f64([1.0, 2.0]), gamma0=0.01, gamma_min=0.5, max_iter=1)
    assert found.history["gamma"] == [0.01, 0.5]  # twice 0.01 is below the least radius
    # no decrease, and a gradient that does not get smaller: rounding is no excuse
    level = minimize(
        lambda x: (torch.ones(()), torch.ones_like(x.detach())), f64([1.0]), hessian="zero"
    )
    assert level.status == "search_failed"
    # conjugate gradients stop at the root of the gradient's norm where it is below cg_tol
    a = f64([1.0, 10.0, 100.0, 1000.0])
    found = minimize(
        lambda x: (a * x * x).sum() / 2, torch.full_like(a, 1e-8), adaptive=False, gamma0=1e12,
        solver="cg", cg_tol=0.5, max_iter=1,
    )  # fmt: skip
    before, after = found.history["grad_norm"]
    assert after <= 1.001 * before**0.5 * before


def test_rounding_is_not_a_failure_unless_strict() -> None:
    d = GOLDEN["logsumexp"]
    problem = log_sum_exp(f64(d["A"]), f64(d["b"]), d["mu"], recentre=True)
    loose = minimize(problem.fun, f64(d["x0"]), grad_tol=1e-14, max_iter=60)
    strict = minimize(problem.fun, f64(d["x0"]), grad_tol=1e-14, max_iter=60, strict=True)
    assert loose.success
    assert strict.status == "search_failed"


def test_one_fixed_step() -> None:
    problem, x0 = rosenbrock(), f64([-1.2, 1.0])
    found = minimize(problem.fun, x0, adaptive=False, gamma0=0.5, max_iter=3)
    assert set(found.history["gamma"]) == {0.5}
    assert found.n_trials == found.n_iter == 3


X0 = f64([1.0, 2.0])


def square(x: Tensor) -> Tensor:
    return (x * x).sum()


@pytest.mark.parametrize(
    ("arguments", "error", "fragment"),
    [
        ({"gamma0": 0.0}, ValueError, "gamma0 must be above 0"),
        ({"gamma0": float("nan")}, ValueError, "gamma0 must be at least 0"),
        ({"gamma0": "1"}, TypeError, "gamma0 must be a number"),
        ({"gamma_min": -1.0}, ValueError, "gamma_min must be at least 0"),
        ({"eps": 0.0}, ValueError, "eps must be above 0"),
        ({"max_trials": 0}, ValueError, "max_trials must be at least 1, got 0"),
        ({"max_trials": 2.0}, TypeError, "max_trials must be an integer"),
        ({"max_iter": -1}, ValueError, "max_iter must be at least 0"),
        ({"adaptive": 1}, TypeError, "adaptive must be True or False"),
        ({"solver": "lu"}, ValueError, "solver must be one of auto"),
        ({"cg_tol": 1.0}, ValueError, "cg_tol must be in"),
        ({"cg_max_iter": 0}, ValueError, "cg_max_iter must be at least 1"),
        ({"hessian": "diagonal"}, ValueError, "hessian must be 'exact', 'zero'"),
        ({"hessian": 3}, TypeError, "hessian must be 'exact', 'zero'"),
        ({"hessian": lambda _: torch.eye(3)}, ValueError, "expected (2, 2)"),
        ({"hessian": lambda _: 3.0}, TypeError, "hessian must return a tensor"),
        ({"hessian": lambda _: torch.eye(2), "solver": "woodbury"}, ValueError, "LowRank"),
        ({"metric": torch.ones(3)}, ValueError, "metric must have shape (2,) or (2, 2)"),
        ({"metric": f64([1.0, -1.0])}, ValueError, "positive definite"),
        ({"metric": f64([[1.0, 2.0], [2.0, 1.0]])}, ValueError, "positive definite"),
        ({"metric": f64([[1.0, 2.0], [0.0, 1.0]])}, ValueError, "symmetric"),
        ({"metric": "I"}, TypeError, "metric must be None or a tensor"),
        ({"x0": torch.tensor([1, 2])}, TypeError, "x0 must be real floating point"),
        ({"x0": torch.tensor([1j, 2])}, TypeError, "x0 must be real floating point"),
        ({"x0": torch.ones(1, 2)}, ValueError, "x0 must be a vector"),
        ({"x0": [1.0]}, TypeError, "x0 must be a tensor"),
        ({"fun": lambda x: x}, ValueError, "fun must return a scalar, got shape (2,)"),
        ({"fun": lambda _: 3.0}, TypeError, "fun must return a tensor"),
        ({"fun": lambda x: (square(x), x[:1])}, ValueError, "gradient of shape (1,)"),
        ({"fun": lambda x: (square(x).detach(), x)}, ValueError, "needs a fun that returns"),
        ({"fun": lambda x: square(x) / 0}, FloatingPointError, "must be finite at x0"),
        ({"callback": 3}, TypeError, "callback must be callable"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments: Any, error: type[Exception], fragment: str) -> None:
    call = {"fun": square, "x0": X0, **arguments}
    with pytest.raises(error) as caught:
        minimize(call.pop("fun"), call.pop("x0"), **call)
    assert fragment in str(caught.value)


def test_bad_pieces() -> None:
    with pytest.raises(ValueError, match="p must be at least 2"):
        power_residual(lambda x: x, 1.5)
    with pytest.raises(ValueError, match="kind must be"):
        power_residual(lambda x: x, 3, "newton")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mu must be above 0"):
        weighted_gauss_newton(torch.eye(2), torch.zeros(2), 0.0)
    with pytest.raises(ValueError, match=r"A must be \(m, n\)"):
        log_sum_exp(torch.eye(2), torch.zeros(3), 1.0)
    with pytest.raises(ValueError, match="b must be above 0"):
        rosenbrock(b=0.0)
    with pytest.raises(ValueError, match="n must be at least 2"):
        chebyshev(1, 4)
    with pytest.raises(ValueError, match=r"factors must be \(n, r\)"):
        LowRank(torch.ones(3), torch.ones(1))
    with pytest.raises(TypeError, match="weights must be a tensor"):
        LowRank(torch.ones(3, 1), 1.0)  # type: ignore[arg-type]


# ---------------------------------------------------------------- the optimizer


def network() -> tuple[nn.Module, Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) / 2)
    x = torch.randn(30, 4, generator=g, dtype=torch.float64)
    return model, x, (x[:, 0] * x[:, 1] > 0).long()


def test_the_optimizer_is_minimize() -> None:
    problem, x0 = rosenbrock(), f64([-1.2, 1.0])
    want = minimize(problem.fun, x0, max_iter=10, store_x=True)
    first, second = nn.Parameter(x0[:1].clone()), nn.Parameter(x0[1:].clone())
    opt = GradientNormalizedNewton([first, second])
    for k in range(10):
        loss = opt.step(lambda: problem.fun(torch.cat([first, second])))
        assert float(loss) == pytest.approx(want.history["fun"][k], rel=1e-12)
        torch.testing.assert_close(
            torch.cat([first, second]).detach(), want.history["x"][k + 1], rtol=1e-11, atol=1e-13
        )
    state = opt.state[first]
    assert state["gamma"] == want.history["gamma"][10]
    assert state["n_trials"] == want.n_trials
    assert first.grad is None


@pytest.mark.parametrize("kind", ["ggn", "exact", "cg", "zero"])
def test_trains_a_network(kind: str) -> None:
    model, x, y = network()
    loss_fn = nn.CrossEntropyLoss()
    opt = GradientNormalizedNewton(model.parameters(), solver="cg" if kind == "cg" else "auto")
    hessian: Any = {"ggn": ggn(model, loss_fn, (x, y)), "zero": "zero"}.get(kind, "exact")
    losses = [float(opt.step(lambda: loss_fn(model(x), y), hessian=hessian)) for _ in range(15)]
    assert all(b <= a for a, b in itertools.pairwise(losses))
    assert losses[-1] < (0.65 if kind == "zero" else 0.45) < losses[0]


def test_ggn_solves_at_the_start_of_the_step_not_at_a_trial() -> None:
    model, x, y = network()
    loss_fn = nn.CrossEntropyLoss()
    other = copy.deepcopy(model)
    opt = GradientNormalizedNewton(model.parameters(), gamma0=1e4, cg_tol=1e-12)
    dense = GradientNormalizedNewton(other.parameters(), gamma0=1e4)
    H, G = ggn(model, loss_fn, (x, y)), ggn(other, loss_fn, (x, y))
    opt.step(lambda: loss_fn(model(x), y), hessian=H)
    dense.step(lambda: loss_fn(other(x), y), hessian=lambda _: G.to_dense())
    state = opt.state[next(model.parameters())]
    assert state["n_trials"] > 1  # the first trial leapt too far
    for p, q in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)


def test_resume_is_bit_for_bit() -> None:
    def start() -> tuple[nn.Module, GradientNormalizedNewton]:
        model, _, _ = network()
        return model, GradientNormalizedNewton(model.parameters(), gamma0=0.1)

    _, x, y = network()
    model, opt = start()
    steps = [lambda m=m: nn.functional.cross_entropy(m(x), y) for m in (model,)]
    for _ in range(3):
        opt.step(steps[0])
    buffer = io.BytesIO()
    torch.save((model.state_dict(), opt.state_dict()), buffer)
    buffer.seek(0)
    other, resumed = start()
    weights, state = torch.load(buffer)
    other.load_state_dict(weights)
    resumed.load_state_dict(state)
    for m, o in ((model, opt), (other, resumed)):
        for _ in range(3):
            o.step(lambda m=m: nn.functional.cross_entropy(m(x), y))
    for p, q in zip(model.parameters(), other.parameters()):
        assert torch.equal(p, q)
    copied = copy.deepcopy(opt)
    assert copied.state_dict()["state"] == opt.state_dict()["state"]


def test_what_the_optimizer_refuses() -> None:
    p = nn.Parameter(torch.ones(2))
    opt = GradientNormalizedNewton([p])
    with pytest.raises(TypeError, match="needs a closure"):
        opt.step()
    with pytest.raises(TypeError, match="closure must return the loss"):
        opt.step(lambda: 3.0)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="scalar loss"):
        opt.step(lambda: p * 2)
    with pytest.raises(RuntimeError, match="does not depend on the parameters"):
        opt.step(lambda: torch.zeros(()))

    def backwards() -> Tensor:
        loss = (p * p).sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="without calling backward"):
        opt.step(backwards)
    with pytest.raises(FloatingPointError, match="were not changed"):
        opt.step(lambda: (p * float("nan")).sum())
    assert torch.equal(p.detach(), torch.ones(2))
    with pytest.raises(ValueError, match="exactly one parameter group"):
        GradientNormalizedNewton([{"params": [p]}, {"params": [nn.Parameter(torch.ones(1))]}])
    with pytest.raises(ValueError, match="at least one parameter"):
        GradientNormalizedNewton([{"params": []}])
    with pytest.raises(TypeError, match="real floating point"):
        GradientNormalizedNewton([nn.Parameter(torch.ones(1, dtype=torch.complex64))])
    with pytest.raises(TypeError, match="one dtype and device"):
        GradientNormalizedNewton([p, nn.Parameter(torch.ones(1).double())])
    with pytest.raises(ValueError, match="gamma0 must be above 0"):
        GradientNormalizedNewton([p], gamma0=0)
    with pytest.raises(ValueError, match="metric must have shape"):
        GradientNormalizedNewton([p], metric=torch.ones(3))


def test_an_exception_in_a_trial_leaves_the_parameters() -> None:
    p = nn.Parameter(f64([1.0]))
    calls: list[int] = []

    def closure() -> Tensor:
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return (p**4).sum()

    opt = GradientNormalizedNewton([p])
    with pytest.raises(KeyboardInterrupt):
        opt.step(closure)
    assert torch.equal(p.detach(), f64([1.0]))
