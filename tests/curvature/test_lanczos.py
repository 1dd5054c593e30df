"""Lanczos' recurrence: golden coefficients, no ghosts, breakdown, resume, memory."""

from __future__ import annotations

import io
import warnings
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curvature.nets import CASES, f64, golden, load, problem, symmetric, vector
from torch import Tensor

from gradworks.curvature import lanczos, recurrence
from gradworks.curvature.lanczos import Tridiagonal, slq, tridiagonalize
from gradworks.curvature.operators import DenseOperator, FunctionOperator, HessianOperator

CLOSE = {"rtol": 1e-10, "atol": 1e-12}
OUTLIERS = load("lanczos_outliers.json")


def outliers() -> tuple[DenseOperator, Tensor]:
    d = torch.cat(
        [torch.linspace(-0.01, 0.05, 394, dtype=torch.float64), f64([1, 2, 4, 8, 16, 32])]
    )
    return DenseOperator(torch.diag(d)), f64(OUTLIERS["start"])


# ---------------------------------------------------------------- golden


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_golden_coefficients(case: dict) -> None:
    op = HessianOperator(*golden(case))
    t = tridiagonalize(op, 8, start=f64(case["lanczos_start"]))
    torch.testing.assert_close(t.alpha, f64(case["lanczos_alpha"]), **CLOSE)
    torch.testing.assert_close(t.beta, f64(case["lanczos_beta"]), **CLOSE)
    nodes, weights = t.quadrature()
    torch.testing.assert_close(nodes, f64(case["quadrature_nodes"]), **CLOSE)
    torch.testing.assert_close(weights, f64(case["quadrature_weights"]), **CLOSE)


def test_golden_outliers_have_no_ghosts() -> None:
    op, start = outliers()
    t = tridiagonalize(op, OUTLIERS["steps"], start=start)
    nodes, weights = t.quadrature()
    top = nodes[nodes > 0.06]
    torch.testing.assert_close(top, f64([1, 2, 4, 8, 16, 32]), rtol=0, atol=1e-9)
    torch.testing.assert_close(
        weights[nodes > 0.06], torch.full((6,), 1 / 400).double(), rtol=1e-6, atol=0
    )
    # Coefficients beyond step 15 are sensitive; the first ones and the moments are not.
    torch.testing.assert_close(t.alpha[:12], f64(OUTLIERS["alpha"])[:12], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(t.beta[:12], f64(OUTLIERS["beta"])[:12], rtol=1e-8, atol=1e-10)
    golden_nodes, golden_weights = f64(OUTLIERS["nodes"]), f64(OUTLIERS["weights"])
    for k in range(10):
        torch.testing.assert_close(
            (weights * nodes**k).sum(), (golden_weights * golden_nodes**k).sum(), rtol=1e-9, atol=0
        )
    gram = t.basis.T @ t.basis
    torch.testing.assert_close(gram, torch.eye(60).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("how", ["none", 3])
def test_less_reorthogonalisation_gives_ghosts(how: object) -> None:
    # The reason for the default: copies of the largest values appear.
    op, start = outliers()
    t = tridiagonalize(op, 60, start=start, reorthogonalize=how)
    nodes, _ = t.quadrature()
    assert int((nodes > 0.06).sum()) > 6
    assert (t.basis is None) == (how == "none")


# ---------------------------------------------------------------- properties


@given(size=st.integers(1, 25), steps=st.integers(1, 30), seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_relation_moments_and_transcription(size: int, steps: int, seed: int) -> None:
    A = symmetric(size, seed)
    start = vector(size, seed + 1)
    t = tridiagonalize(DenseOperator(A), steps, start=start)
    m = len(t.alpha)
    assert m <= min(size, steps)
    assert t.beta.shape == (m - 1,)
    assert t.basis.shape == (size, m)
    Q, T = t.basis, t.matrix()
    scale = float(A.norm()) + 1
    # A Q = Q T + beta_m q_{m+1} e_m^T
    residual = A @ Q - Q @ T
    if t.next_vector is not None:
        residual[:, -1] -= t.residual_norm * t.next_vector
    assert float(residual.abs().max()) < 1e-10 * scale
    assert float((Q.T @ Q - torch.eye(m).double()).abs().max()) < 1e-12
    torch.testing.assert_close(Q[:, 0], start / start.norm(), **CLOSE)
    # e_1^T T^k e_1 = q_0^T A^k q_0 for k <= 2m - 1
    q = Q[:, 0]
    Tk, Akq = torch.eye(m).double(), q.clone()
    for k in range(2 * m):
        torch.testing.assert_close(Tk[0, 0], q @ Akq, rtol=1e-8, atol=1e-9 * scale**k)
        Tk, Akq = Tk @ T, A @ Akq
    nodes, weights = t.quadrature()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    assert bool((nodes.diff() >= 0).all())


def test_bare_recurrence_is_the_textbook_one() -> None:
    A, start = symmetric(30), vector(30, 1)
    t = tridiagonalize(DenseOperator(A), 8, start=start, reorthogonalize="none")
    q, previous, beta = start / start.norm(), torch.zeros(30).double(), 0.0
    for j in range(8):
        w = A @ q - beta * previous
        alpha = float(w @ q)
        w = w - alpha * q
        assert float(t.alpha[j]) == pytest.approx(alpha, abs=1e-10)
        beta = float(w.norm())
        if j < 7:
            assert float(t.beta[j]) == pytest.approx(beta, abs=1e-10)
        q, previous = w / beta, q
    assert t.residual_norm == pytest.approx(beta, abs=1e-10)


@given(kind=st.sampled_from(["zero", "identity", "projector", "two"]), seed=st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_breakdown_stops_with_the_invariant_space(kind: str, seed: int) -> None:
    n = 20
    Q = torch.linalg.qr(vector(n * n, seed).reshape(n, n)).Q
    d = {
        "zero": torch.zeros(n),
        "identity": torch.ones(n),
        "projector": (torch.arange(n) < 5).float(),
        "two": torch.where(torch.arange(n) < 3, 2.0, -1.0),
    }[kind].double()
    t = tridiagonalize(DenseOperator(Q @ torch.diag(d) @ Q.T), 15, start=vector(n, seed + 1))
    distinct = len(d.unique())
    assert len(t.alpha) == distinct
    assert t.broken_down
    assert t.residual_norm == 0.0
    assert t.next_vector is None
    nodes, weights = t.quadrature()
    torch.testing.assert_close(nodes, d.unique(), rtol=0, atol=1e-10)
    assert float(weights.sum()) == pytest.approx(1)
    # Exact for that start: tr f is q f(A) q.
    assert tridiagonalize(DenseOperator(torch.eye(n)), 30, resume=t) is t


def test_scale_does_not_matter_for_breakdown() -> None:
    A, start = symmetric(10), vector(10, 1)
    for scale in (1e-12, 1.0, 1e12):
        t = tridiagonalize(DenseOperator(scale * A), 10, start=start)
        assert len(t.alpha) == 10
    rank_one = torch.outer(start, start)
    for scale in (1e-12, 1.0, 1e12):
        t = tridiagonalize(DenseOperator(scale * rank_one), 10, start=vector(10, 2))
        assert len(t.alpha) == 2
    loose = tridiagonalize(DenseOperator(A), 10, start=start, breakdown_tol=0.9)
    assert len(loose.alpha) < 10


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_squares_outside_float32_change_nothing(scale: float) -> None:
    A = symmetric(6).float()
    plain = tridiagonalize(DenseOperator(A), 6, start=torch.ones(6))
    scaled = tridiagonalize(DenseOperator(scale * A), 6, start=torch.full((6,), scale))
    torch.testing.assert_close(scaled.alpha / scale, plain.alpha, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scaled.beta / scale, plain.beta, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- resume, memory, start


@pytest.mark.parametrize("how", ["full", "none", 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_resume_equals_uninterrupted_bit_for_bit(how: object, dtype: torch.dtype) -> None:
    op = HessianOperator(*problem(30, dtype=dtype))
    options = {"reorthogonalize": how, "generator": torch.Generator().manual_seed(4)}
    whole = tridiagonalize(op, 20, **options)
    options["generator"].manual_seed(4)
    part = tridiagonalize(op, 7, **options)
    buffer = io.BytesIO()
    torch.save(part.state_dict(), buffer)
    buffer.seek(0)
    part = Tridiagonal.from_state_dict(torch.load(buffer, weights_only=True))
    resumed = tridiagonalize(op, 20, reorthogonalize=how, resume=part)
    assert torch.equal(resumed.alpha, whole.alpha)
    assert torch.equal(resumed.beta, whole.beta)
    assert resumed.residual_norm == whole.residual_norm
    if whole.basis is not None:
        assert torch.equal(resumed.basis, whole.basis)
    assert torch.equal(resumed.next_vector, whole.next_vector)
    assert tridiagonalize(op, 5, resume=part) is part


def test_bad_resume() -> None:
    op = DenseOperator(symmetric(10))
    bare = tridiagonalize(op, 3, reorthogonalize="none")
    with pytest.raises(ValueError, match="resume has no basis"):
        tridiagonalize(op, 6, resume=bare)
    with pytest.raises(ValueError, match="operator of size 12"):
        tridiagonalize(DenseOperator(symmetric(12)), 6, resume=tridiagonalize(op, 3))
    state = tridiagonalize(op, 3).state_dict()
    del state["alpha"]
    with pytest.raises(ValueError, match="alpha, beta and residual_norm"):
        Tridiagonal.from_state_dict(state)
    lost = tridiagonalize(op, 3)
    lost = Tridiagonal(lost.alpha, lost.beta, lost.basis, lost.residual_norm, lost.next_vector)
    with pytest.raises(ValueError, match="no next vector"):
        tridiagonalize(op, 6, resume=lost)


def test_the_default_start_is_signs_and_repeats() -> None:
    op = DenseOperator(symmetric(16))
    state = torch.get_rng_state()
    first = tridiagonalize(op, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(first.basis[:, 0].abs(), torch.full((16,), 0.25).double())
    assert torch.equal(tridiagonalize(op, 3).alpha, first.alpha)
    other = tridiagonalize(op, 3, generator=torch.Generator().manual_seed(9))
    assert not torch.equal(other.alpha, first.alpha)
    start = vector(16)
    kept = start.clone()
    tridiagonalize(op, 3, start=start)
    assert torch.equal(start, kept)


def test_half_precision_operators_run_in_float32() -> None:
    A = torch.diag(torch.tensor([1.0, 2.0, 4.0, 8.0]))
    op = FunctionOperator(lambda v: (A @ v.float()).bfloat16(), 4, dtype=torch.bfloat16)
    t = tridiagonalize(op, 4)
    assert t.basis.dtype == torch.float32
    assert t.alpha.dtype == torch.float64
    assert float(t.quadrature()[0][-1]) == pytest.approx(8, rel=0.02)


def test_a_large_basis_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    op = DenseOperator(symmetric(100))
    monkeypatch.setattr(recurrence, "free_bytes", lambda device: 100 * 100 * 8)
    with pytest.warns(RuntimeWarning, match="use fewer steps"):
        tridiagonalize(op, 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tridiagonalize(op, 20)
        tridiagonalize(op, 50, reorthogonalize="none")
    monkeypatch.undo()
    assert recurrence.free_bytes(torch.device("cpu")) > 0


def test_free_memory_counts_what_the_system_would_give_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / "meminfo"
    known.write_text("MemTotal: 900 kB\nMemFree: 10 kB\nMemAvailable:     500 kB\n")
    monkeypatch.setattr(recurrence, "_MEMINFO", known)
    assert recurrence.free_bytes(torch.device("cpu")) == 500 * 1024
    monkeypatch.setattr(recurrence, "_MEMINFO", tmp_path / "absent")
    assert recurrence.free_bytes(torch.device("cpu")) != 500 * 1024
    assert recurrence.free_bytes(torch.device("meta")) is None


def test_one_basis_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several probes take the memory of one."""
    alive: list[weakref.ref] = []
    real = lanczos.tridiagonalize

    def watched(*args: object, **options: object) -> object:
        assert all(ref() is None for ref in alive)
        t = real(*args, **options)
        alive.append(weakref.ref(t.basis))
        return t

    monkeypatch.setattr(lanczos, "tridiagonalize", watched)
    slq(DenseOperator(symmetric(12)), num_steps=5, num_probes=3)
    assert len(alive) == 3


def test_basis_on_the_host_is_the_same() -> None:
    op = DenseOperator(symmetric(20))
    a = tridiagonalize(op, 10)
    b = tridiagonalize(op, 10, basis_device="cpu")
    assert torch.equal(a.alpha, b.alpha)


# ---------------------------------------------------------------- slq


def test_slq_runs_are_tridiagonalisations() -> None:
    op = DenseOperator(symmetric(20))
    measure = slq(op, num_steps=6, num_probes=3, generator=torch.Generator().manual_seed(2))
    g = torch.Generator().manual_seed(2)
    for nodes, weights in zip(measure.nodes, measure.weights):
        want = tridiagonalize(op, 6, generator=g).quadrature()
        assert torch.equal(nodes, want[0])
        assert torch.equal(weights, want[1])
    assert measure.dimension == 20
    assert len(measure.nodes) == 3


def test_slq_standard_error_covers() -> None:
    # 400 repetitions of 8 runs: within 2 standard errors as often as Student's t says, 91.4 %.
    A = symmetric(40)
    op = DenseOperator(A)
    inside = 0
    for seed in range(400):
        m = slq(op, num_steps=3, num_probes=8, generator=torch.Generator().manual_seed(seed))
        error = 40 * float(m.stderr(lambda t: t))
        inside += abs(float(m.trace() - A.trace())) < 2 * error
    assert 0.86 < inside / 400 < 0.96


def test_slq_of_a_spectrum_with_outliers() -> None:
    op, _ = outliers()
    measure = slq(op, num_steps=60, num_probes=4)
    # Runs share the six outliers, with weights of 1/400 each for sign vectors on a diagonal.
    for nodes, weights in zip(measure.nodes, measure.weights):
        assert float(weights[nodes > 0.06].sum()) == pytest.approx(6 / 400, rel=1e-6)
    true = op.matrix.diagonal()
    assert float(measure.trace()) == pytest.approx(float(true.sum()), rel=1e-9)
    assert float(measure.moment(2) * 400) == pytest.approx(float(true.square().sum()), rel=1e-9)


def test_progress_counts_every_product() -> None:
    op = DenseOperator(symmetric(30))
    seen: list[tuple[int, int]] = []
    slq(op, num_steps=5, num_probes=2, progress=lambda d, t: seen.append((d, t)))
    assert seen[-1] == (10, 10)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    seen.clear()
    # A breakdown ends a run early; the total is reached all the same.
    slq(
        DenseOperator(torch.eye(30)),
        num_steps=5,
        num_probes=2,
        progress=lambda d, t: seen.append((d, t)),
    )
    assert seen[-1] == (10, 10)
    seen.clear()
    tridiagonalize(op, 4, progress=lambda d, t: seen.append((d, t)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


# ---------------------------------------------------------------- errors

EYE = DenseOperator(torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps must be an integer of at least 1, got 0"),
        ({"num_steps": 1.5}, "num_steps"),
        ({"start": torch.zeros(4)}, "start is the zero vector"),
        ({"start": torch.tensor([1.0, torch.nan, 0, 0])}, "start has NaN"),
        ({"start": torch.ones(3)}, r"start must have shape \(4,\), got \(3,\)"),
        ({"start": [1.0] * 4}, "got list"),
        ({"reorthogonalize": "twice"}, "reorthogonalize must be 'full', 'none' or a number"),
        ({"reorthogonalize": 0}, "reorthogonalize"),
        ({"reorthogonalize": True}, "reorthogonalize"),
        ({"breakdown_tol": -1.0}, "breakdown_tol must be in"),
        ({"breakdown_tol": 1.0}, "breakdown_tol must be in"),
    ],
)
def test_bad_tridiagonalize(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tridiagonalize(EYE, **{"num_steps": 2, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"num_probes": 0}, "num_probes must be an integer of at least 1, got 0"),
        ({"reorthogonalize": None}, "reorthogonalize"),
    ],
)
def test_bad_slq(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        slq(EYE, **options)


def test_products_that_are_not_finite_raise() -> None:
    calls = 0

    def failing(v: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return v.roll(1) + v.roll(-1) + (torch.nan if calls > 3 else 0)

    op = FunctionOperator(failing, 9, dtype=torch.float64)
    with pytest.raises(FloatingPointError, match="not finite"):
        tridiagonalize(op, 8, start=vector(9))
    for act in (lambda: tridiagonalize(torch.eye(3), 2), lambda: slq(torch.eye(3))):
        with pytest.raises(TypeError, match="wrap a matrix in DenseOperator"):
            act()
