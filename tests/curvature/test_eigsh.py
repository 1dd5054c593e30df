"""Extreme eigenpairs against dense solvers."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curvature.nets import CASES, f64, golden, symmetric, vector

from gradworks.curvature import recurrence
from gradworks.curvature.lanczos import eigsh
from gradworks.curvature.operators import DenseOperator, FunctionOperator, HessianOperator


def wanted(values: torch.Tensor, which: str, k: int) -> torch.Tensor:
    if which == "SA":
        return values[:k]
    if which == "LA":
        return values.flip(0)[:k]
    if which == "LM":
        return values[values.abs().argsort(descending=True)][:k]
    both = [v for pair in zip(values.flip(0), values) for v in pair]
    return torch.stack(both)[:k]


@given(
    size=st.integers(1, 40),
    which=st.sampled_from(["LA", "SA", "LM", "BE"]),
    seed=st.integers(0, 10_000),
    data=st.data(),
)
@settings(max_examples=50, deadline=None)
def test_equals_dense(size: int, which: str, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, size))
    A = symmetric(size, seed)
    found = eigsh(DenseOperator(A), k, which=which, tol=1e-10)
    values = torch.linalg.eigvalsh(A)
    scale = float(values.abs().max())
    torch.testing.assert_close(
        found.values, wanted(values, which, k), rtol=0, atol=1e-8 * scale + 1e-14
    )
    assert found.vectors.shape == (size, k)
    true = (A @ found.vectors - found.vectors * found.values).norm(dim=0)
    torch.testing.assert_close(found.residuals, true, rtol=1e-3, atol=1e-12)
    assert float(true.max()) <= 1e-8 * scale + 1e-12
    torch.testing.assert_close(
        found.vectors.norm(dim=0), torch.ones(k).double(), rtol=1e-10, atol=0
    )
    assert found.matvecs >= k


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
@pytest.mark.parametrize("which", ["LA", "SA", "LM"])
def test_golden(case: dict, which: str) -> None:
    found = eigsh(HessianOperator(*golden(case)), 4, which=which, tol=1e-12)
    want = wanted(f64(case["hessian_eigenvalues"]), which, 4)
    torch.testing.assert_close(found.values, want, rtol=1e-10, atol=1e-10)


def test_repeated_eigenvalues_and_low_rank() -> None:
    Q = torch.linalg.qr(vector(900).reshape(30, 30)).Q
    d = torch.zeros(30, dtype=torch.float64)
    d[:4] = f64([5.0, 5.0, 5.0, 2.0])
    op = DenseOperator(Q @ torch.diag(d) @ Q.T)
    found = eigsh(op, 5, tol=1e-9)
    torch.testing.assert_close(found.values, f64([5, 5, 5, 2, 0]), rtol=0, atol=1e-8)
    gram = found.vectors.T @ found.vectors
    torch.testing.assert_close(gram, torch.eye(5).double(), rtol=0, atol=1e-8)
    zero = eigsh(DenseOperator(torch.zeros(6, 6, dtype=torch.float64)), 3)
    torch.testing.assert_close(zero.values, torch.zeros(3).double())


def test_few_products_suffice_for_outliers() -> None:
    d = torch.cat(
        [torch.linspace(-0.01, 0.05, 394, dtype=torch.float64), f64([1, 2, 4, 8, 16, 32])]
    )
    found = eigsh(DenseOperator(torch.diag(d)), 6)
    torch.testing.assert_close(found.values, f64([32, 16, 8, 4, 2, 1]), rtol=0, atol=1e-5)
    assert found.matvecs < 60


@pytest.mark.parametrize("which", ["LA", "BE"])
def test_memory_is_taken_as_steps_need_it(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op = DenseOperator(symmetric(60, 3))
    want = eigsh(op, 4, which=which)
    taken: list[int] = []
    real = recurrence.Recurrence._allocate

    def watched(run: recurrence.Recurrence) -> None:
        real(run)
        taken.append(len(run._blocks[-1]))

    monkeypatch.setattr(recurrence.Recurrence, "_allocate", watched)
    monkeypatch.setattr(recurrence, "_GROW_BYTES", 1)
    monkeypatch.setattr(recurrence, "_GROW_ROWS", 7)
    found = eigsh(op, 4, which=which)
    assert set(taken[:-1]) == {7}
    assert sum(taken) < found.matvecs - 4 + 7  # the steps, and at most one block more
    torch.testing.assert_close(found.values, want.values, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.vectors.abs(), want.vectors.abs(), rtol=1e-6, atol=1e-6)
    # A space that closes on itself is left through the same blocks.
    taken.clear()
    twice = DenseOperator(torch.diag(torch.tensor([3.0] * 9 + [1.0] * 20, dtype=torch.float64)))
    assert eigsh(twice, 8).values.tolist() == pytest.approx([3.0] * 8)
    assert len(taken) > 1


def test_a_growing_basis_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrence, "_GROW_BYTES", 1)
    monkeypatch.setattr(recurrence, "_GROW_ROWS", 4)
    monkeypatch.setattr(recurrence, "free_bytes", lambda device: 4 * 60 * 8 * 8)
    with pytest.warns(RuntimeWarning, match="the Lanczos basis takes 0 MiB of") as seen:
        eigsh(DenseOperator(symmetric(60, 3)), 4)
    assert len(seen) == 1


@pytest.mark.parametrize("scale", [1e-24, 1e25])
def test_eigenvalues_whose_squares_float32_cannot_hold(scale: float) -> None:
    A = scale * torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    found = eigsh(DenseOperator(A), 2).values / scale
    torch.testing.assert_close(found, torch.tensor([5.0, 4.0]))


def test_not_converged_warns_with_residuals() -> None:
    op = DenseOperator(symmetric(200))
    with pytest.warns(RuntimeWarning, match=r"not converged in 10 steps \(largest residuals"):
        found = eigsh(op, 3, max_steps=10, tol=1e-10)
    assert float(found.residuals.max()) > 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eigsh(op, 3, tol=1e-10)


def test_start_generator_and_progress() -> None:
    op = DenseOperator(symmetric(30))
    a = eigsh(op, 2, start=vector(30))
    b = eigsh(op, 2, generator=torch.Generator().manual_seed(8))
    torch.testing.assert_close(a.values, b.values, rtol=1e-5, atol=1e-6)
    seen: list[tuple[int, int]] = []
    eigsh(op, 2, progress=lambda d, t: seen.append((d, t)))
    assert [d for d, _ in seen] == list(range(1, len(seen) + 1))
    assert {t for _, t in seen} == {30}


EYE = DenseOperator(torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, r"k must be an integer in 1..4, got 0"),
        ({"k": 5}, r"k must be an integer in 1..4, got 5"),
        ({"k": 1.0}, "k must be an integer"),
        ({"which": "LR"}, "which must be one of LA, SA, LM, BE"),
        ({"tol": 0.0}, "tol must be in"),
        ({"tol": 1.0}, "tol must be in"),
        ({"max_steps": 0}, "max_steps must be an integer of at least 1"),
        ({"start": torch.zeros(4)}, "zero vector"),
        ({"start": torch.ones(5)}, "start must have shape"),
        ({"start": torch.full((4,), torch.nan)}, "start has NaN"),
    ],
)
def test_bad_input(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        eigsh(EYE, **options)


def test_bad_operators() -> None:
    with pytest.raises(TypeError, match="wrap a matrix"):
        eigsh(torch.eye(3))
    with pytest.raises(FloatingPointError, match="not finite"):
        eigsh(FunctionOperator(lambda v: v * torch.inf, 5))
