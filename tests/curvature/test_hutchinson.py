"""Traces, diagonals, norms and the primitives that optimizers share."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curvature.nets import CASES, f64, golden, problem, symmetric, vector
from torch import Tensor

from gradworks.curvature import hutchinson
from gradworks.curvature.hutchinson import (
    diagonal,
    frobenius_norm,
    hessian_vector_product,
    rademacher_like,
    trace,
)
from gradworks.curvature.operators import DenseOperator, FunctionOperator, HessianOperator
from gradworks.curvature.probes import random_signs


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- trace


def test_one_probe_is_exact_on_a_diagonal() -> None:
    d = vector(30)
    for seed in range(3):
        found = trace(DenseOperator(torch.diag(d)), num_probes=1, generator=gen(seed))
        assert found.value == pytest.approx(float(d.sum()), abs=1e-12)
        assert math.isnan(found.stderr)
        assert found.num_matvecs == 1


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_variance_is_the_closed_form(distribution: str) -> None:
    A = symmetric(12)
    found = trace(DenseOperator(A), num_probes=4000, distribution=distribution, generator=gen())
    full = 2 * A.square().sum()
    want = full if distribution == "gaussian" else full - 2 * A.diagonal().square().sum()
    assert float(found.samples.var()) == pytest.approx(float(want), rel=0.12)
    assert found.stderr == pytest.approx(float(found.samples.std()) / math.sqrt(4000))
    assert abs(found.value - float(A.trace())) < 4 * found.stderr
    assert found.samples.dtype == torch.float64
    assert len(found.samples) == found.num_matvecs == 4000


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_golden_trace_and_diagonal(case: dict) -> None:
    op = HessianOperator(*golden(case))
    found = trace(op, num_probes=400, generator=gen())
    assert abs(found.value - case["trace"]) < 4 * found.stderr
    estimate = diagonal(op, num_probes=400, generator=gen(1))
    error = (estimate.diagonal - f64(case["diagonal"])).abs()
    assert float((error / estimate.stderr.clamp_min(1e-12)).square().mean()) < 2


def test_tol_stops_by_the_standard_error_after_ten_probes() -> None:
    d = torch.linspace(1, 2, 50, dtype=torch.float64)
    A = torch.diag(d)
    assert trace(DenseOperator(A), num_probes=100, tol=0.1).num_matvecs == 10
    noisy = DenseOperator(A + symmetric(50))
    loose = trace(noisy, num_probes=3000, tol=0.1, generator=gen())
    tight = trace(noisy, num_probes=3000, tol=0.02, generator=gen())
    assert 10 <= loose.num_matvecs < tight.num_matvecs < 3000
    assert tight.stderr <= 0.02 * abs(tight.value)
    # A negative trace does not stop at once, as a signed mean in the rule would.
    negative = trace(-noisy, num_probes=3000, tol=0.02, generator=gen())
    assert negative.num_matvecs == tight.num_matvecs
    assert negative.value == pytest.approx(-tight.value)


@given(size=st.integers(4, 30), rank=st.integers(0, 4), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_hutch_plus_plus_is_exact_up_to_a_third(size: int, rank: int, seed: int) -> None:
    V = vector(size * max(rank, 1), seed).reshape(size, -1)[:, :rank]
    signs = torch.sign(vector(max(rank, 1), seed + 1))[:rank]
    A = (V * signs) @ V.T
    found = trace(
        DenseOperator(A),
        num_probes=12,
        method="hutch++",
        distribution="gaussian",  # signs can repeat a direction: 4 of them in 5 dimensions often do
        generator=gen(seed),
    )
    assert found.value == pytest.approx(float(A.trace()), abs=1e-7 * (1 + float(A.norm())))
    assert found.num_matvecs <= 12


def test_hutch_plus_plus_beats_hutchinson_with_outliers() -> None:
    A = torch.diag(torch.cat([f64([50.0, 40.0, 30.0]), torch.full((97,), 0.01).double()]))
    Q = torch.linalg.qr(vector(10_000).reshape(100, 100)).Q
    op = DenseOperator(Q @ A @ Q.T)
    plain = [trace(op, num_probes=30, generator=gen(s)).value for s in range(20)]
    plus = [trace(op, num_probes=30, method="hutch++", generator=gen(s)) for s in range(20)]
    truth = float(A.trace())
    error = sum((p.value - truth) ** 2 for p in plus)
    assert error < 1e-3 * sum((v - truth) ** 2 for v in plain)
    assert all(len(p.samples) == 10 for p in plus)


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_hutch_plus_plus_is_unbiased(seed: int) -> None:
    A = symmetric(8, seed)
    values = [
        trace(DenseOperator(A), num_probes=6, method="hutch++", generator=gen(s)).value
        for s in range(300)
    ]
    t = torch.tensor(values, dtype=torch.float64)
    assert abs(float(t.mean() - A.trace())) < 5 * float(t.std()) / math.sqrt(300)


# ---------------------------------------------------------------- diagonal, norm


def test_diagonal_is_the_weighted_mean() -> None:
    # The transcription: sum z*(Az) / sum z*z.
    A = symmetric(7)
    for distribution in ("rademacher", "gaussian"):
        found = diagonal(
            DenseOperator(A), num_probes=9, distribution=distribution, generator=gen(3)
        )
        g, top, bottom = gen(3), torch.zeros(7).double(), torch.zeros(7).double()
        for _ in range(9):
            if distribution == "gaussian":
                z = torch.randn(7, generator=g, dtype=torch.float64)
            else:
                z = torch.randint(0, 2, (7,), generator=g, dtype=torch.int8).double() * 2 - 1
            top, bottom = top + z * (A @ z), bottom + z * z
        torch.testing.assert_close(found.diagonal, top / bottom, rtol=1e-10, atol=1e-12)


def test_diagonal_variance_is_the_closed_form() -> None:
    A = symmetric(6)
    estimates = torch.stack(
        [diagonal(DenseOperator(A), num_probes=1, generator=gen(s)).diagonal for s in range(3000)]
    )
    want = A.square().sum(1) - A.diagonal().square()
    torch.testing.assert_close(estimates.var(0), want, rtol=0.15, atol=0.05)
    found = diagonal(DenseOperator(A), num_probes=3000, generator=gen())
    torch.testing.assert_close(found.stderr, (want / 3000).sqrt(), rtol=0.1, atol=1e-3)
    assert bool(diagonal(DenseOperator(A), num_probes=1).stderr.isnan().all())


def test_standard_error_of_a_gaussian_diagonal() -> None:
    op, g = DenseOperator(symmetric(40)), gen()
    found = [diagonal(op, num_probes=60, distribution="gaussian", generator=g) for _ in range(20)]
    spread = torch.stack([e.diagonal for e in found]).var(0).mean().sqrt()
    claimed = torch.stack([e.stderr for e in found]).square().mean().sqrt()
    assert float(claimed / spread) == pytest.approx(1.0, abs=0.2)


def test_a_gaussian_probe_may_hold_a_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    # float32 has about one in 10^7
    probes = iter([torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0])])
    monkeypatch.setattr(hutchinson, "random_vector", lambda *_: next(probes))
    A = torch.tensor([[1.0, 2.0], [2.0, -1.0]])
    found = diagonal(DenseOperator(A), num_probes=3, distribution="gaussian")
    # sums of z (A z) over sums of z z: (1 + 8) / 5 and (-1 + 3) / 2
    torch.testing.assert_close(found.diagonal, torch.tensor([1.8, 1.0]))
    assert bool(found.stderr.isfinite().all())


@pytest.mark.parametrize("scale", [1e-24, 1e25])
def test_frobenius_norm_whose_square_float32_cannot_hold(scale: float) -> None:
    op = DenseOperator(scale * torch.diag(torch.tensor([3.0, 4.0])))
    assert frobenius_norm(op, num_probes=2).value == pytest.approx(5 * scale, rel=1e-6, abs=0)


def test_frobenius_norm() -> None:
    A = symmetric(15)
    found = frobenius_norm(DenseOperator(A), num_probes=2000, generator=gen())
    assert found.value == pytest.approx(float(A.norm()), rel=0.05)
    assert abs(found.value - float(A.norm())) < 4 * found.stderr
    assert frobenius_norm(DenseOperator(torch.zeros(3, 3)), num_probes=3).value == 0.0


def test_the_global_random_state_is_left_alone_and_probes_repeat() -> None:
    op = DenseOperator(symmetric(9))
    state = torch.get_rng_state()
    first = trace(op, num_probes=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(trace(op, num_probes=5).samples, first.samples)
    g = gen()
    a, b = trace(op, num_probes=5, generator=g), trace(op, num_probes=5, generator=g)
    assert not torch.equal(a.samples, b.samples)


@pytest.mark.parametrize("estimate", [trace, diagonal, frobenius_norm])
def test_progress_and_bad_input(estimate: object) -> None:
    op = DenseOperator(symmetric(5))
    seen: list[tuple[int, int]] = []
    estimate(op, num_probes=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for options, error, message in (
        ({"num_probes": 0}, ValueError, "num_probes must be an integer of at least 1, got 0"),
        ({"num_probes": 2.5}, ValueError, "num_probes"),
        ({"num_probes": True}, ValueError, "num_probes"),
        ({"distribution": "uniform"}, ValueError, "distribution must be rademacher or gaussian"),
    ):
        with pytest.raises(error, match=message):
            estimate(op, **options)
    with pytest.raises(TypeError, match="wrap a matrix in DenseOperator"):
        estimate(torch.eye(3))
    nan = FunctionOperator(lambda v: v * torch.nan, 3)
    with pytest.raises(FloatingPointError, match="not finite"):
        estimate(nan, num_probes=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "xtrace"}, "method must be hutchinson or hutch"),
        ({"method": "hutch++", "num_probes": 2}, "at least 3"),
        ({"method": "hutch++", "tol": 0.1}, "tol must be positive and goes with"),
        ({"tol": 0.0}, "tol must be positive"),
        ({"tol": math.nan}, "tol must be positive"),
    ],
)
def test_bad_trace(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace(DenseOperator(torch.eye(3)), **options)


# ---------------------------------------------------------------- primitives


@pytest.mark.parametrize("estimate", [trace, diagonal, frobenius_norm])
def test_an_accelerator_is_waited_for_now_and_then(
    estimate: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad product is found at the next look, and its own probe is what is diagnosed."""
    seen: list[Tensor] = []
    diagnosed: list[Tensor] = []

    class Failing(DenseOperator):
        def apply(self, v: Tensor) -> Tensor:
            seen.append(v)
            return super().apply(v) * (float("nan") if len(seen) == 3 else 1.0)

        def diagnose(self, v: Tensor) -> None:
            diagnosed.append(v)
            super().diagnose(v)

    monkeypatch.setattr(hutchinson, "_look_every", lambda device: 4)
    op = Failing(torch.eye(6, dtype=torch.float64))
    with pytest.raises(FloatingPointError):
        estimate(op, num_probes=9, generator=torch.Generator().manual_seed(2))
    assert len(seen) == 4
    assert torch.equal(diagnosed[0], seen[2])
    seen.clear()
    with pytest.raises(FloatingPointError):  # at the end, where no look is due
        estimate(op, num_probes=3, generator=torch.Generator().manual_seed(2))


def test_rademacher_like() -> None:
    params = [
        torch.zeros(200, 3, dtype=torch.float64),
        torch.zeros(4, 5, dtype=torch.bfloat16).T,
        torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.nn.Parameter(torch.zeros(())),
    ]
    signs = rademacher_like(params, generator=gen())
    for z, p in zip(signs, params):
        assert (z.shape, z.dtype, z.stride()) == (p.shape, p.dtype, p.stride())
        assert bool((z.abs() == 1).all())
        assert not z.requires_grad
    assert abs(float(signs[0].mean())) < 0.15
    again = rademacher_like(params, generator=gen())
    assert all(torch.equal(a, b) for a, b in zip(signs, again))
    (one,) = rademacher_like(params[0], generator=gen())
    assert torch.equal(one, signs[0])
    torch.manual_seed(3)
    first = rademacher_like(params)[0]
    assert not torch.equal(first, rademacher_like(params)[0])
    assert rademacher_like([]) == []
    for bad in (torch.zeros(2, dtype=torch.cfloat), torch.zeros(2, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"params\[0\] must be real floating point"):
            rademacher_like(bad)


def test_hessian_vector_product_is_the_hessian() -> None:
    model, loss_fn, (x, y) = problem()
    params = list(model.parameters())
    grads = torch.autograd.grad(loss_fn(model(x), y), params, create_graph=True)
    vectors = rademacher_like(params, generator=gen())
    products = hessian_vector_product(grads, params, vectors, retain_graph=True)
    op = HessianOperator(model, loss_fn, (x, y))
    flat = torch.cat([v.reshape(-1) for v in vectors])
    got = torch.cat([p.reshape(-1) for p in products])
    torch.testing.assert_close(got, op @ flat, rtol=1e-10, atol=1e-12)
    again = hessian_vector_product(grads, params, vectors)
    assert all(torch.equal(a, b) for a, b in zip(products, again))
    with pytest.raises(RuntimeError, match="second time"):
        hessian_vector_product(grads, params, vectors)


def test_hessian_vector_product_of_unused_parameters_is_zero() -> None:
    w, u, c = (torch.ones(2, requires_grad=True) for _ in range(3))
    grads = torch.autograd.grad(
        (w**3).sum() + c.sum(), [w, u, c], create_graph=True, allow_unused=True
    )
    assert grads[1] is None
    assert not grads[2].requires_grad
    ones = [torch.ones(2)] * 3
    out = hessian_vector_product(grads, [w, u, c], ones)
    assert [o.tolist() for o in out] == [[6, 6], [0, 0], [0, 0]]


def test_hessian_vector_product_errors() -> None:
    w = torch.ones(2, requires_grad=True)

    def graph(power: float) -> tuple[Tensor, ...]:
        return torch.autograd.grad((w**power).sum(), [w], create_graph=True)

    with pytest.raises(ValueError, match="same length, got 1, 1 and 2"):
        hessian_vector_product(graph(3), [w], [torch.ones(2)] * 2)
    with pytest.raises(ValueError, match=r"vectors\[0\] must have shape \(2,\), got \(3,\)"):
        hessian_vector_product(graph(3), [w], [torch.ones(3)])
    with pytest.raises(ValueError, match="carry no graph"):
        hessian_vector_product([torch.ones(2)], [w], [torch.ones(2)])
    inf = torch.full((2,), torch.inf)
    with pytest.raises(FloatingPointError, match=r"params \[0\] is not finite"):
        hessian_vector_product(graph(3), [w], [inf])
    out = hessian_vector_product(graph(3), [w], [inf], check_finite=False)
    assert not bool(torch.isfinite(out[0]).any())


def test_signs_are_fair_and_independent() -> None:
    signs = random_signs(64 * 4096, torch.device("cpu"), torch.float64, gen())
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    by_bit = signs.view(-1, 64)
    assert float(by_bit.mean(0).abs().max()) < 5 / 4096**0.5  # every bit of a word
    products = by_bit.T @ by_bit / 4096 - torch.eye(64, dtype=torch.float64)
    assert float(products.abs().max()) < 6 / 4096**0.5  # and no two of them alike
    assert float((signs[1:] * signs[:-1]).mean().abs()) < 5 / len(signs) ** 0.5


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65])
def test_any_number_of_signs(count: int) -> None:
    found = random_signs(count, torch.device("cpu"), torch.int8, gen())
    assert found.shape == (count,)
    assert found.abs().eq(1).all()
