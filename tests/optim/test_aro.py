"""ARO: maps, rotations, and identities of the step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradworks.optim import ARO
from gradworks.optim.aro import (
    descent_rate,
    rotation_update,
    shifted_cholesky_qr,
    sinkhorn,
    transformer_groups,
)
from gradworks.optim.aro.directions import Settings, directions
from gradworks.optim.aro.maps import base_map, rows_of
from gradworks.optim.aro.rotations import signed_qr

BASES = ("sinkhorn", "sign", "row")


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def orthogonal(m: int, seed: int = 3) -> Tensor:
    return torch.linalg.qr(drawn(m, m, seed=seed)).Q


def along(M: Tensor, R: Tensor, base: str = "sinkhorn") -> Tensor:
    settings = Settings(base_map(base, 5, "simultaneous"), "qr", 1e-6, 0.2, 0.95, 1e-8)
    return directions([M], R, None, settings, True).along[0]


def run(weights: list[Tensor], grads: Any, **settings: Any) -> tuple[list[Tensor], ARO]:
    params = [nn.Parameter(w.clone()) for w in weights]
    optimizer = ARO(params, **settings)
    for step in grads:
        for param, grad in zip(params, step, strict=True):
            param.grad = grad.clone()
        optimizer.step()
    return [p.detach() for p in params], optimizer


# ---------------------------------------------------------------- maps and rotations


def test_sinkhorn_on_the_matrix_itself() -> None:
    """Factors of rows and columns give what dividing the matrix gives."""
    for alternating in (False, True):
        X = drawn(3, 6, 9)
        want = X.clone()
        for _ in range(4):
            rows = want.norm(dim=-1, keepdim=True)
            want = want / rows if alternating else want
            want = want / want.norm(dim=-2, keepdim=True) / (1 if alternating else rows)
        want *= (54**0.5) / torch.linalg.matrix_norm(want, keepdim=True)
        got = sinkhorn(X, 4, "alternating" if alternating else "simultaneous")
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_simultaneous_rounds_of_a_diagonal_swing() -> None:
    d = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    for steps in range(1, 6):
        found = sinkhorn(torch.diag(d), steps).diagonal()
        want = 1 / d if steps % 2 else d
        torch.testing.assert_close(found, want * (9**0.5 / want.norm()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sinkhorn_of_extremes(dtype: torch.dtype) -> None:
    for scale in (1e-6, 1e4):
        X = (drawn(5, 8) * scale).to(dtype)
        found = sinkhorn(X)
        assert found.dtype == dtype
        assert found.float().square().mean().sqrt().item() == pytest.approx(1, abs=1e-2)
    X[2], X[:, 3] = 0, 0
    found = sinkhorn(X)
    assert found.isfinite().all()
    assert not found[2].any()
    assert not found[:, 3].any()
    assert not sinkhorn(torch.zeros(2, 3)).any()


def test_sinkhorn_lets_autograd_through() -> None:
    X = drawn(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(sinkhorn, (X,))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sinkhorn(torch.ones(2, 2), 0), "steps must be an integer of at least 1, got 0"),
        (lambda: sinkhorn(torch.ones(2, 2), mode="both"), "mode must be one of"),
        (lambda: sinkhorn(torch.ones(3)), "must be a matrix"),
        (lambda: shifted_cholesky_qr(torch.eye(2), 0.0), "eps must be above 0"),
        (lambda: shifted_cholesky_qr(torch.eye(2), passes=3), "passes must be 1 or 2"),
        (lambda: rotation_update(torch.ones(2, 3), torch.eye(3), torch.sign), "rotate the rows"),
        (lambda: rotation_update(torch.ones(2, 3), torch.eye(2), torch.sign, "svd"), "rotation"),
        (lambda: descent_rate(torch.ones(2, 3), torch.eye(3), torch.sign), "rotate the rows"),
        (lambda: transformer_groups(nn.Linear(2, 2)), "no nn.Embedding"),
        (lambda: transformer_groups(nn.Linear(2, 2), d_model=0), "d_model must be at least 1"),
    ],
)
def test_functions_refuse(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_two_passes_restore_orthogonality() -> None:
    U, V = orthogonal(64), orthogonal(64, 4)
    A = U * torch.logspace(0, -2.867, 64, dtype=torch.float64) @ V  # condition 736
    eye = torch.eye(64, dtype=torch.float64)
    errors = []
    for passes in (1, 2):
        Q = shifted_cholesky_qr(A, 1e-4, passes)
        errors.append(float((Q.mT @ Q - eye).abs().max()))
    assert errors[0] > 1e-2
    assert errors[1] < 1e-12
    fine = shifted_cholesky_qr(A, 1e-12, 2)  # triangular on the right: equal to QR's
    torch.testing.assert_close(fine, signed_qr(A), rtol=1e-7, atol=1e-7)


def test_where_cholesky_fails_householder_steps_in() -> None:
    """Two columns are one: the second, unshifted pass has no factor in float32."""
    M = torch.zeros(3, 5)
    M[0, 0] = 1.0
    f = lambda X: torch.stack([M[0], M[0], M[0]])  # noqa: E731
    for rotation in ("scqr", "scqr2"):
        R = rotation_update(M, torch.eye(3), f, rotation, 1e-30)
        torch.testing.assert_close(R.mT @ R, torch.eye(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rotation", ["qr", "scqr2", "polar"])
def test_identity_is_orthogonal_iteration(rotation: str) -> None:
    U, V = orthogonal(5), orthogonal(9, 4)[:5]
    M = U * torch.tensor([16.0, 8.0, 4.0, 2.0, 1.0], dtype=torch.float64) @ V
    R = torch.eye(5, dtype=torch.float64)
    for _ in range(60):
        R = rotation_update(M, R, lambda X: X, rotation)
    if rotation == "polar":  # M M^T R: symmetric as it is, the identity stays
        torch.testing.assert_close(R, torch.eye(5, dtype=torch.float64))
    else:
        torch.testing.assert_close((R.mT @ U).abs(), torch.eye(5, dtype=torch.float64))


def test_rows_of_equal_norm_are_muon() -> None:
    M = drawn(5, 9)
    R = torch.eye(5, dtype=torch.float64)
    for _ in range(200):
        R = rotation_update(M, R, rows_of)
    U, _, Vh = torch.linalg.svd(M, full_matrices=False)
    cosine = nn.functional.cosine_similarity((R @ rows_of(R.mT @ M)).ravel(), (U @ Vh).ravel(), 0)
    assert cosine > 1 - 1e-6
    assert float(descent_rate(M, R, rows_of)) == pytest.approx(
        float(torch.linalg.svdvals(M).sum()) / 5**0.5
    )


def test_bases_differ_from_muon_as_said() -> None:
    """At a fixed momentum after 200 turns: row 1, Sinkhorn and sign genuinely less."""
    M = drawn(5, 9)
    U, _, Vh = torch.linalg.svd(M, full_matrices=False)
    found = {}
    for base in BASES:
        f = base_map(base, 5, "simultaneous")
        R = torch.eye(5, dtype=torch.float64)
        for _ in range(200):
            R = rotation_update(M, R, f)
        D = R @ f(R.mT @ M)
        found[base] = float(nn.functional.cosine_similarity(D.ravel(), (U @ Vh).ravel(), 0))
    assert found["row"] > 0.999999
    assert 0.9 < found["sinkhorn"] < 0.9999
    assert 0.7 < found["sign"] < found["sinkhorn"]


@pytest.mark.parametrize("base", ["sinkhorn", "row", "sign"])
def test_no_rotation_aligns_more_than_a_frame_by_strength(base: str) -> None:
    """What the decrease does not do: exceed its value without a rotation."""
    f = base_map(base, 5, "simultaneous")
    scales = torch.logspace(0, -2, 16, dtype=torch.float64)
    plain, eigen, ours = [], [], []
    for seed in range(6):
        U, V = orthogonal(16, seed), orthogonal(40, seed + 50)[:16]
        M = U * scales @ V
        R = torch.eye(16, dtype=torch.float64)
        plain.append(float(descent_rate(M, R, f) / M.norm()))
        eigen.append(float(descent_rate(M, U, f) / M.norm()))
        for _ in range(30):
            R = rotation_update(M, R, f)
        ours.append(float(descent_rate(M, R, f) / M.norm()))
    means = [sum(x) / len(x) for x in (plain, eigen, ours)]
    want = {"sinkhorn": (0.904, 0.627, 0.625), "row": (0.947, 0.636, 0.636)}
    want["sign"] = (0.762, 0.511, 0.530)
    assert means == pytest.approx(want[base], abs=0.03)


# ---------------------------------------------------------------- invariances


@pytest.mark.parametrize("base", BASES)
def test_signs_of_the_frame_are_a_gauge(base: str) -> None:
    M, R = drawn(6, 30), orthogonal(6)
    signs = torch.tensor([1.0, -1, 1, -1, -1, 1], dtype=torch.float64)
    torch.testing.assert_close(along(M, R * signs, base), along(M, R, base), rtol=0, atol=1e-12)


@pytest.mark.parametrize("base", BASES)
def test_turning_momentum_and_frame_turns_the_step(base: str) -> None:
    M, R, Q = drawn(6, 30), orthogonal(6), orthogonal(6, 9)
    torch.testing.assert_close(along(Q @ M, Q @ R, base), Q @ along(M, R, base), rtol=0, atol=1e-12)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("base", [*BASES, "adam"])
def test_scale_of_gradients_does_not_matter(base: str, foreach: bool) -> None:
    weights = [drawn(4, 24), drawn(4, 24, seed=1)]
    grads = [[drawn(4, 24, seed=10 * t + i) for i in range(2)] for t in range(6)]
    settings = {"lr": 0.1, "weight_decay": 0.0, "base": base, "foreach": foreach, "eps": 0.0}
    want, _ = run(weights, grads, **settings)
    for scale in (2.0**-20, 2.0**20):
        got, _ = run(weights, [[scale * g for g in step] for step in grads], **settings)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rms", [0.2, 0.7])
def test_the_update_has_its_size(rms: float) -> None:
    weights = [drawn(5, 9), drawn(9, 5), drawn(4, 3, 2, 2)]
    for base in (*BASES, "adam"):
        grads = [[drawn(*w.shape, seed=7) for w in weights]]
        got, _ = run(weights, grads, lr=0.1, weight_decay=0.0, update_rms=rms, base=base)
        for w, p in zip(weights, got, strict=True):
            assert float((w - p).square().mean().sqrt()) == pytest.approx(0.1 * rms, rel=1e-12)


def test_a_row_takes_the_map_itself() -> None:
    """A weight of one row has no frame to turn: +-1."""
    M = drawn(1, 9)
    (got,), optimizer = run([torch.zeros(1, 9).double()], [[M]], lr=1.0, base="sign")
    torch.testing.assert_close(got, -0.2 * M.sign())
    assert optimizer.state[optimizer.param_groups[0]["params"][0]]["rotation"].abs().item() == 1


def test_a_turned_step_by_hand() -> None:
    """M = [[2, 1], [1, 2]], base row: A ~ M M^T = [[5, 4], [4, 5]], so R = [[5, -4], [4, 5]] / s.

    With s = sqrt(41) the rows of R^T M are [14, 13] / s and [-3, 6] / s.
    """
    M = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    (got,), optimizer = run([torch.zeros_like(M)], [[M]], lr=1.0, base="row")
    s, a, b = 41**0.5, 365**0.5, 5**0.5
    R = torch.tensor([[5.0, -4.0], [4.0, 5.0]], dtype=torch.float64) / s
    torch.testing.assert_close(next(iter(optimizer.state.values()))["rotation"], R)
    D = torch.tensor(
        [[70 / a + 4 / b, 65 / a - 8 / b], [56 / a - 5 / b, 52 / a + 10 / b]], dtype=torch.float64
    )
    torch.testing.assert_close(got, -0.2 * 2**0.5 / s * D)


def test_equivariant_maps_do_not_see_the_frame() -> None:
    M = drawn(4, 7)
    polar = lambda X: torch.linalg.svd(X, full_matrices=False)[0] @ torch.linalg.svd(X, False)[2]  # noqa: E731
    D = [R @ polar(R.mT @ M) for R in (torch.eye(4, dtype=torch.float64), orthogonal(4))]
    torch.testing.assert_close(*D)


@pytest.mark.slow
def test_rotations_stay_orthogonal() -> None:
    param = nn.Parameter(drawn(12, 20, dtype=torch.float32))
    optimizer = ARO([param], lr=0.01)
    for step in range(1000):
        param.grad = drawn(12, 20, seed=step, dtype=torch.float32)
        optimizer.step()
    R = optimizer.state[param]["rotation"]
    torch.testing.assert_close(R.mT @ R, torch.eye(12), rtol=0, atol=1e-5)
