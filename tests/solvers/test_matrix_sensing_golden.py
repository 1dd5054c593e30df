"""Descent against the golden run, autograd, and a transcription of the equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.solvers.sensing_cases import KINDS, SQUARE, golden, normal
from torch import Tensor

from gradworks.solvers.matrix_sensing import MeasurementOperator, asymmetric_gd, symmetric_gd

G = golden()
LR = float(G["sym_eta"])
TIGHT: dict[str, Any] = {"rtol": 1e-9, "atol": 0.0}
SENSED: dict[str, Any] = {"rtol": 1e-8, "atol": 0.0}
POINT: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-10}


def errors(result: Any, steps: int) -> Tensor:
    """The first records."""
    return result.errors[:steps]


def test_symmetric_full_observation() -> None:
    op = MeasurementOperator.identity(6)
    y = op(G["sym_M"])
    result = symmetric_gd(op, y, 4, lr=LR, init=G["sym_X0"], max_iter=200, target=G["sym_M"])
    torch.testing.assert_close(errors(result, 201), G["sym_err"], **TIGHT)
    torch.testing.assert_close(result.factors[0], G["sym_X_final"], **POINT)
    for steps, expected in enumerate(G["sym_X_first"]):
        X = symmetric_gd(op, y, 4, lr=LR, init=G["sym_X0"], max_iter=steps).factors[0]
        torch.testing.assert_close(X, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("compressed", [False, True])
def test_symmetric_sensing(compressed: bool) -> None:
    op, y = MeasurementOperator(G["sens_A"]), G["sens_y"]
    if compressed:
        op, y = op.compressed(y)
    result = symmetric_gd(op, y, 4, lr=LR, init=G["sym_X0"], max_iter=100, target=G["sym_M"])
    torch.testing.assert_close(errors(result, 100), G["sens_err"], **SENSED)
    torch.testing.assert_close(result.factors[0], G["sens_X_final"], **POINT)


def asymmetric(compressed: bool = False, **kw: Any) -> Any:
    """The rectangular golden run."""
    op, y = MeasurementOperator(G["asym_A"]), G["asym_y"]
    if compressed:
        op, y = op.compressed(y)
    init = (G["asym_F0"], G["asym_G0"])
    return asymmetric_gd(op, y, 3, lr=LR, init=init, target=G["asym_M"], **{"max_iter": 100, **kw})


@pytest.mark.parametrize("compressed", [False, True])
def test_asymmetric_sensing(compressed: bool) -> None:
    result = asymmetric(compressed)
    torch.testing.assert_close(errors(result, 100), G["asym_err"], **SENSED)
    torch.testing.assert_close(result.factors[0], G["asym_F_final"], **POINT)
    torch.testing.assert_close(result.factors[1], G["asym_G_final"], **POINT)


@pytest.mark.parametrize("compressed", [False, True])
def test_one_rescaled_step(compressed: bool) -> None:
    step, beta = int(G["mod_step"]), float(G["mod_beta"])
    result = asymmetric(compressed, reset_at=step, beta=beta)
    assert result.reset_iter == step
    torch.testing.assert_close(errors(result, 100), G["mod_err"], **SENSED)
    torch.testing.assert_close(result.estimate, G["mod_product_final"], **POINT)
    before = asymmetric(compressed, max_iter=step).estimate
    torch.testing.assert_close(before, G["mod_FG_before"], **POINT)
    torch.testing.assert_close(before, G["mod_FG_after"], **POINT)
    torch.testing.assert_close(G["mod_FtF"], beta**2 * torch.eye(3, dtype=torch.float64), **POINT)


def step_size(op: MeasurementOperator) -> float:
    """Stable for entries of order one."""
    return 0.02 / float(torch.linalg.matrix_norm(op.matrices.flatten(1), 2).square())


@pytest.mark.parametrize("kind", SQUARE)
def test_a_symmetric_step_is_one_of_sgd_on_a_quarter_of_the_loss(kind: str) -> None:
    op = KINDS[kind]()
    m, n, _ = op.shape
    y, X0 = normal(m, seed=3), 0.3 * normal(n, 2, seed=4)
    X = X0.clone().requires_grad_(True)
    lr = step_size(op)
    optimizer = torch.optim.SGD([X], lr=lr)
    for _ in range(3):
        optimizer.zero_grad()
        seen = torch.einsum("mij,ik,jk->m", op.matrices, X, X)
        ((seen - y).square().sum() / 4).backward()
        optimizer.step()
    ours = symmetric_gd(op, y, 2, lr=lr, init=X0, max_iter=3).factors[0]
    torch.testing.assert_close(ours, X.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_an_asymmetric_step_is_one_of_sgd_on_half_the_loss(kind: str) -> None:
    op = KINDS[kind]()
    m, n1, n2 = op.shape
    y, F0, G0 = normal(m, seed=3), 0.3 * normal(n1, 2, seed=4), 0.1 * normal(n2, 2, seed=5)
    F, G = (x.clone().requires_grad_(True) for x in (F0, G0))
    lr = step_size(op)
    optimizer = torch.optim.SGD([F, G], lr=lr)
    for _ in range(3):
        optimizer.zero_grad()
        seen = torch.einsum("mij,ik,jk->m", op.matrices, F, G)
        ((seen - y).square().sum() / 2).backward()
        optimizer.step()
    ours = asymmetric_gd(op, y, 2, lr=lr, init=(F0, G0), max_iter=3).factors
    for a, b in zip(ours, (F, G), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-10, atol=1e-12)


def naive(
    A: Tensor, y: Tensor, F: Tensor, G: Tensor, lr: float, steps: int, reset_at: int, beta: float
) -> tuple[Tensor, list[float]]:
    """Sections 3.3 and 3.4 of our specification, line for line."""
    found = []
    for t in range(steps + 1):
        found.append(float((torch.einsum("mij,ik,jk->m", A, F, G) - y).square().sum()))
        if t == steps:
            break
        if t == reset_at:
            U, S, Vh = torch.linalg.svd(F, full_matrices=False)
            F, G = beta * U, G @ Vh.T @ torch.diag(S / beta)
        E = torch.einsum("m,mij->ij", torch.einsum("mij,ik,jk->m", A, F, G) - y, A)
        F, G = F - lr * E @ G, G - lr * E.T @ F
    return F @ G.T, found


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    rank=st.integers(1, 4),
    reset_at=st.integers(0, 12),
    beta=st.floats(0.2, 1.0),
    seed=st.integers(0, 100),
)
def test_the_loop_is_the_equations(
    kind: str, rank: int, reset_at: int, beta: float, seed: int
) -> None:
    op = KINDS[kind]()
    m, n1, n2 = op.shape
    y = normal(m, seed=seed)
    F, G = 0.3 * normal(n1, rank, seed=seed + 1), 0.1 * normal(n2, rank, seed=seed + 2)
    lr = step_size(op)
    kw: dict[str, Any] = {"lr": lr, "init": (F, G), "max_iter": 10, "beta": beta}
    result = asymmetric_gd(op, y, rank, reset_at=reset_at, **kw)
    product, losses = naive(op.matrices, y, F, G, lr, 10, reset_at, beta)
    torch.testing.assert_close(result.estimate, product, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(
        result.residuals * (y @ y), torch.tensor(losses, dtype=torch.float64), rtol=1e-8, atol=1e-10
    )
    assert result.reset_iter == (reset_at if reset_at < 10 else None)
