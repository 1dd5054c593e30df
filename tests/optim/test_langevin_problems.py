"""Planted directions: golden values, autograd, linear response, partial traces, recovery."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.optim.langevin_cases import GOLDEN, gen
from torch import Tensor

from gradworks.optim.langevin import (
    Problem,
    SingleIndex,
    TensorPCA,
    hermite,
    partial_trace,
    power_iteration,
    recover,
    single_index,
    spiked_tensor,
    tensor_gradient,
    tensor_value,
)


def golden(name: str) -> Tensor:
    with np.load(GOLDEN) as stored:
        return torch.tensor(stored[name])


def near(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- golden values


def test_golden_tensors() -> None:
    T, x = golden("t3.T"), golden("x")
    near(tensor_value(T, x), golden("val3"))
    near(tensor_gradient(T, x), golden("grad3"))
    near(partial_trace(T), golden("pt3"))
    near(partial_trace(golden("t4.T")), golden("pt4"))


def test_golden_single_index() -> None:
    X, y, u = golden("sim_X"), golden("sim_y"), golden("sim_u")
    near(y, hermite(X @ u, 3))
    problem = SingleIndex(X, y, 3)
    theta = golden("sim_theta")
    near(problem.value(theta), golden("sim_loss"))
    near(problem.gradient(theta), golden("sim_grad"))
    # the response is proportional to the golden estimator: 3 / (d sqrt(6)) of it
    near(-problem.response(), golden("sim_pt") * 3 / (5 * math.sqrt(6)))
    near(problem.reference(), golden("sim_pt") / golden("sim_pt").norm())


# ---------------------------------------------------------------- against definitions


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_gradient_is_that_of_autograd_and_chains_are_rows(order: int) -> None:
    T, _ = spiked_tensor(4, order, 3.0, generator=gen(order))
    theta = torch.randn(6, 4, generator=gen(1), dtype=torch.float64, requires_grad=True)
    letters = "abcdefg"[:order]
    operands = [theta] * order
    value = torch.einsum(f"{letters},{','.join('z' + s for s in letters)}->z", T, *operands)
    (grad,) = torch.autograd.grad(value.sum(), theta)
    near(tensor_value(T, theta.detach()), value.detach())
    near(tensor_gradient(T, theta.detach()), grad)
    near(tensor_gradient(T, theta.detach()[2]), grad[2])
    near(tensor_value(T, theta.detach()[2]), value.detach()[2])


def test_noise_is_symmetric_and_has_the_variance_of_the_symmetrized_normal() -> None:
    n, d = 4.0, 12
    T, theta = spiked_tensor(d, 3, n, generator=gen())
    assert float(theta.norm()) == pytest.approx(1.0)
    for index in itertools.permutations(range(3)):
        near(T, T.permute(index))
    noise = (T - torch.einsum("i,j,k->ijk", theta, theta, theta)) * math.sqrt(n)
    # E |Z|^2 is the dimension of the symmetric tensors
    free = math.comb(d + 2, 3)
    assert float(noise.square().sum()) == pytest.approx(free, rel=4 * math.sqrt(2 / free))
    i, j, k = torch.meshgrid(*[torch.arange(d)] * 3, indexing="ij")
    apart = noise[(i != j) & (j != k) & (i != k)]
    assert float(apart.square().mean()) == pytest.approx(1 / 6, rel=0.2)


def test_direction_dtype_and_generator() -> None:
    given = torch.tensor([3.0, 0.0, 4.0])
    T, theta = spiked_tensor(3, 3, 1e12, direction=given, generator=gen(), dtype=torch.float32)
    assert T.dtype == torch.float32
    torch.testing.assert_close(theta, given / 5)
    torch.testing.assert_close(
        T, torch.einsum("i,j,k->ijk", theta, theta, theta), atol=1e-5, rtol=0
    )
    again = spiked_tensor(3, 3, 2.0, generator=gen(3))[0]
    assert torch.equal(again, spiked_tensor(3, 3, 2.0, generator=gen(3))[0])
    assert not torch.equal(again, spiked_tensor(3, 3, 2.0, generator=gen(4))[0])
    X, y, star = single_index(5, 4000, 4, direction=torch.ones(5), noise=0.5, generator=gen())
    torch.testing.assert_close(star, torch.full((5,), 5**-0.5, dtype=torch.float64))
    assert float((y - hermite(X @ star, 4)).std()) == pytest.approx(0.5, rel=0.05)


def test_hermite_polynomials_are_orthonormal() -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    x, w = torch.tensor(nodes), torch.tensor(weights) / math.sqrt(2 * math.pi)
    values = torch.stack([hermite(x, k) for k in range(6)])
    near((values * w) @ values.T, torch.eye(6, dtype=torch.float64))


@pytest.mark.parametrize("loss", ["correlation", "square"])
@pytest.mark.parametrize("degree", [2, 3, 4])
def test_single_index_gradient_is_that_of_autograd(loss: str, degree: int) -> None:
    X, y, _ = single_index(4, 30, degree, noise=0.1, generator=gen())
    problem = SingleIndex(X, y, degree, loss)
    theta = torch.randn(5, 4, generator=gen(1), dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([3, 3, 17, 4])
    for part in (None, rows):
        (grad,) = torch.autograd.grad(problem.value(theta, part).sum(), theta)
        near(problem.gradient(theta.detach(), part), grad)
    near(problem.gradient(theta.detach()[1]), problem.gradient(theta.detach())[1])


# ---------------------------------------------------------------- linear response


def uniform(d: int, count: int = 200_000) -> Tensor:
    """Points on the sphere, each with its antipode."""
    x = torch.randn(count // 2, d, generator=gen(8), dtype=torch.float64)
    x = torch.nn.functional.normalize(x, dim=1)
    return torch.cat([x, -x])


PROBLEMS: dict[str, Any] = {
    "order 2": lambda: TensorPCA(spiked_tensor(5, 2, 20.0, generator=gen(1))[0]),
    "order 3": lambda: TensorPCA(spiked_tensor(6, 3, 200.0, generator=gen(1))[0]),
    "order 4": lambda: TensorPCA(spiked_tensor(5, 4, 200.0, generator=gen(1))[0]),
    "order 5": lambda: TensorPCA(spiked_tensor(4, 5, 400.0, generator=gen(1))[0]),
    "single index 3": lambda: SingleIndex(*single_index(5, 30, 3, generator=gen(1))[:2], 3),
    "single index 4": lambda: SingleIndex(*single_index(5, 30, 4, generator=gen(1))[:2], 4),
    "single index 5": lambda: SingleIndex(*single_index(4, 30, 5, generator=gen(1))[:2], 5),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_linear_response_by_uniform_sampling(name: str) -> None:
    """E[theta L] or Cov(theta theta', L) over the sphere, 200,000 points, 3 %."""
    problem = PROBLEMS[name]()
    theta = uniform(problem.dimension)
    loss = problem.value(theta)
    if problem.order % 2:
        sampled = (theta * loss.unsqueeze(1)).mean(0)
    else:
        loss = loss - loss.mean()
        sampled = theta.T @ (theta * loss.unsqueeze(1)) / len(theta)
    response = problem.response()
    tolerance = 0.06 if "5" in name else 0.03  # polynomials of degree 5 vary more
    assert float((sampled - response).norm() / response.norm()) < tolerance
    # and the direction read off it is the reference
    found = -response if problem.order % 2 else torch.linalg.eigh(-response).eigenvectors[:, -1]
    cosine = float(problem.reference() @ found / found.norm())
    assert abs(cosine) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["order 3", "order 4", "single index 3"])
def test_hot_chains_average_to_the_response(name: str) -> None:
    """The chain itself, hot: mean -response / eps, second moment I / d - response / eps."""
    problem = PROBLEMS[name]()
    mirrored = (
        TensorPCA(-problem.T)
        if isinstance(problem, TensorPCA)
        else SingleIndex(problem.X, -problem.y, problem.degree)
    )
    eps, pair = 1.5, []
    for one in (problem, mirrored):  # half of the difference: odd powers of 1 / eps only
        found = recover(
            one, temperature=eps, cs=0.05, steps=800, chains=1500, refine=False, generator=gen(2)
        )
        pair.append(found.mean if problem.order % 2 else found.second_moment)
    got, want = (pair[0] - pair[1]) / 2, -problem.response() / eps
    assert float((got - want).norm() / want.norm()) < 0.08
    assert float((got * want).sum() / (got.norm() * want.norm())) > 0.997


def test_formulas_of_the_table() -> None:
    d = 6
    T = PROBLEMS["order 3"]().T
    near(PROBLEMS["order 3"]().response(), -3 * partial_trace(T) / (d * (d + 2)))
    d, problem = 5, PROBLEMS["order 4"]()
    trace = partial_trace(problem.T)
    eye = torch.eye(d, dtype=torch.float64)
    whole = (12 * trace + 3 * torch.trace(trace) * eye) / (d * (d + 2) * (d + 4))
    mean = 3 * torch.trace(trace) / (d * (d + 2))  # of <T, theta^4>
    near(problem.response(), -(whole - mean * eye / d))


# ---------------------------------------------------------------- recovery


def test_power_iteration_finds_a_strong_spike() -> None:
    for order in (2, 3, 4):
        T, theta = spiked_tensor(6, order, 1e4, generator=gen(order))
        start = theta + 0.5 * torch.randn(3, 6, generator=gen(), dtype=torch.float64)
        found = power_iteration(T, start)
        assert float((found @ theta).abs().min()) > 0.99
        assert power_iteration(T, start, steps=0).shape == (3, 6)


def test_no_chain_and_tensors_of_any_scale() -> None:
    T, theta = spiked_tensor(6, 3, 1e4, generator=gen())
    none = torch.zeros(0, 6, dtype=torch.float64)
    assert tensor_gradient(T, none).shape == (0, 6)
    assert tensor_value(T, none).shape == (0,)
    near(power_iteration(T * 1e-20, theta * 1e-20), power_iteration(T, theta))
    near(power_iteration(T, theta * 1e-20, steps=0), theta)
    X, y, star = single_index(5, 100, 3, generator=gen())
    near(SingleIndex(X, y * 1e-20, 3).refine(star * 1e-20), SingleIndex(X, y, 3).refine(star))
    assert not power_iteration(T * 0, theta).any()  # no direction at all


@pytest.mark.parametrize("order", [3, 4])
def test_recover_finds_what_no_iterate_shows(order: int) -> None:
    d = 10
    overlaps, lasts, refined = [], [], []
    for seed in range(4):
        g = gen(seed)
        T, theta = spiked_tensor(d, order, 1.0 * d ** (order / 2), generator=g)
        found = recover(TensorPCA(T, d ** (order / 2)), cs=0.2, chains=4, steps=1500, generator=g)
        assert found.odd == (order == 3)
        assert found.mean.shape == (d,)
        assert found.last.shape == (4, d)
        overlaps.append(abs(float(found.estimate @ theta)))
        lasts.append(float((found.last @ theta).abs().mean()))
        refined.append(abs(found.overlap(theta)))
        assert found.overlap(2 * theta) == pytest.approx(found.overlap(theta))
    assert sum(overlaps) > 4 * 0.6
    assert sum(lasts) < 4 * 0.5
    assert sum(refined) > sum(overlaps)


def test_recover_without_knowing_the_order() -> None:
    class Unknown:
        """A landscape whose order nobody tells."""

        def __init__(self, T: Tensor) -> None:
            self._T = T
            self.dimension, self.n_samples, self.order = T.shape[0], 2000.0, None
            self.like = T

        def gradient(self, theta: Tensor) -> Tensor:
            return -tensor_gradient(self._T, theta)

        def refine(self, theta: Tensor) -> Tensor:
            return power_iteration(self._T, theta)

    for order in (3, 4):
        T, theta = spiked_tensor(8, order, 2000.0, generator=gen())
        problem = Unknown(T)
        assert isinstance(problem, Problem)
        found = recover(problem, c=8.0, cs=0.2, chains=16, steps=800, generator=gen(1))
        assert found.odd == (order == 3)
        assert abs(found.overlap(theta)) > 0.95
        if order == 3:
            assert found.mean_norm > 3 * found.noise_level
        else:
            assert found.eigenvalue_gap > 0.2


def test_recover_estimates_the_number_of_samples() -> None:
    T, _ = spiked_tensor(20, 3, 50.0, generator=gen())
    assert TensorPCA(T).n_samples == pytest.approx(50.0, rel=0.15)
    g = gen(2)
    found = recover(T, steps=10, generator=g)
    assert found.temperature == pytest.approx(4 / math.sqrt(50 * 20), rel=0.1)
    assert found.lr == pytest.approx(0.1 / (found.temperature * 20))


def test_recover_is_reproducible_and_default_steps_grow() -> None:
    T, _ = spiked_tensor(5, 3, 30.0, generator=gen())
    one, two = (recover(T, steps=50, chains=2, generator=gen(4)) for _ in range(2))
    assert torch.equal(one.direction, two.direction)
    assert torch.equal(one.last, two.last)
    X, y, theta = single_index(6, 400, 3, generator=gen())
    problem = SingleIndex(X, y, 3)
    found = recover(problem, cs=0.2, steps=2000, chains=4, generator=gen(1))
    best = problem.refine(theta)  # the optimum of these samples near the hidden direction
    assert float(found.direction @ best) > 0.999
    assert found.overlap(theta) > 0.9


# ---------------------------------------------------------------- errors


def test_bad_input() -> None:
    T = spiked_tensor(4, 3, 10.0, generator=gen())[0]
    X, y, _ = single_index(4, 10, 3, generator=gen())
    ones = torch.ones(4, dtype=torch.float64)
    nan = TensorPCA(T.clone().fill_(math.nan), 10.0)
    table: list[tuple[Any, type[Exception], str]] = [
        (lambda: spiked_tensor(0, 3, 1.0), ValueError, "d must be at least 1, got 0"),
        (lambda: spiked_tensor(4, 1, 1.0), ValueError, "order must be at least 2, got 1"),
        (lambda: spiked_tensor(4, 3, 0), ValueError, "n_samples must be above 0"),
        (lambda: spiked_tensor(4, 3, -1.0), ValueError, "n_samples must be above 0"),
        (lambda: spiked_tensor(4, 3, 1.0, direction=torch.zeros(4)), ValueError, "norm above 0"),
        (lambda: spiked_tensor(4, 3, 1.0, direction=torch.ones(3)), ValueError, "shape (4,)"),
        (lambda: tensor_value(torch.ones(2, 3), ones), ValueError, "dimensions of one size"),
        (lambda: tensor_value(torch.ones(3), ones), ValueError, "at least 2 dimensions"),
        (lambda: tensor_gradient(T, torch.ones(3)), ValueError, "theta must have shape (4,) or"),
        (lambda: tensor_gradient(T, torch.ones(2, 2, 4)), ValueError, "got (2, 2, 4)"),
        (lambda: partial_trace(torch.ones(2, 3, 2)), ValueError, "got (2, 3, 2)"),
        (lambda: power_iteration(T, ones, steps=-1), ValueError, "steps must be at least 0"),
        (lambda: TensorPCA(T, 0.0), ValueError, "n_samples must be above 0"),
        (lambda: single_index(4, 0, 3), ValueError, "n must be at least 1, got 0"),
        (lambda: single_index(4, 5, 1), ValueError, "degree must be at least 2, got 1"),
        (lambda: single_index(4, 5, 3, noise=-1.0), ValueError, "noise must be at least 0"),
        (lambda: hermite(y, -1), ValueError, "degree must be at least 0"),
        (lambda: SingleIndex(X, y[:5], 3), ValueError, "got (10, 4) and (5,)"),
        (lambda: SingleIndex(X, y, 1), ValueError, "degree must be at least 2"),
        (lambda: SingleIndex(X, y, 3, "hinge"), ValueError, "loss must be one of"),
        (lambda: recover("T"), TypeError, "problem must be a tensor"),
        (lambda: recover(T, c=0.0), ValueError, "c must be above 0 and finite, got 0.0"),
        (lambda: recover(T, cs=-1.0), ValueError, "cs must be above 0"),
        (lambda: recover(T, temperature=0.0), ValueError, "temperature must be above 0"),
        (lambda: recover(T, temperature=-1.0), ValueError, "temperature must be at least 0"),
        (lambda: recover(T, steps=0), ValueError, "steps must be at least 1"),
        (lambda: recover(T, chains=0), ValueError, "chains must be at least 1"),
        (lambda: recover(T, order=1), ValueError, "order must be at least 2"),
        (lambda: recover(torch.ones(1, 1, 1)), ValueError, "at least 2 entries, got 1"),
        (lambda: recover(nan), RuntimeError, "iteration 1 is not finite at lr=0.0395"),
    ]
    for call, error, fragment in table:
        with pytest.raises(error) as caught:
            call()
        assert fragment in str(caught.value)
