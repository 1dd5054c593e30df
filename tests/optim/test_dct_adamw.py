"""DCTAdamW: golden runs of the released code, a transcription, identities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.optim.dct_cases import (
    CASES,
    NAMES,
    PATHS,
    arrays,
    golden,
    made,
    near,
    paths,
    train,
    values,
    variants,
)
from torch import Tensor, nn

from gradworks.optim import DCTAdamW
from gradworks.optim.dct_adamw import dct_matrix


@pytest.mark.parametrize("case", CASES)
@paths
@pytest.mark.parametrize("transform", ["matmul", "fft"])
def test_golden(case: str, path: str, transform: str) -> None:
    given = CASES[case]
    settings = {ours: given[theirs] for theirs, ours in NAMES.items() if theirs in given}
    basis = "dct2" if given.get("sim_type") == "makhoul" else "dct3"
    params = [nn.Parameter(golden(f"p{i}_init")) for i in range(4)]
    opt = DCTAdamW(params, basis=basis, transform=transform, **settings, **PATHS[path])
    for step in range(9):
        for i, param in enumerate(params):
            param.grad = golden(f"g{i}")[step]
        opt.step()
        for i, param in enumerate(params):
            near(param, golden(f"{case}_p{i}")[step])
            if i < 3:
                assert opt.state[param]["indices"].tolist() == (
                    golden(f"{case}_idx{i}")[step].tolist()
                )
    for i, param in enumerate(params[:3]):
        state = opt.state[param]
        near(state["exp_avg"], golden(f"{case}_m{i}"))
        near(state["exp_avg_sq"], golden(f"{case}_v{i}"))
        if settings.get("error_feedback"):
            assert f"{case}_ef{i}" in arrays() or i == 2  # the square's was not kept
            if i < 2:
                near(state["error"], golden(f"{case}_ef{i}"))


# ---------------------------------------------------------------- transcription and identities


def test_transcription() -> None:
    """The published step with the rotation as a product of bases, in plain matrix algebra."""
    R, C, r, lr, b1, b2, eps, wd = 5, 4, 2, 0.03, 0.9, 0.99, 1e-6, 0.1
    for side in ("right", "left"):
        (param,) = made(((R, C) if side == "right" else (C, R),))
        opt = DCTAdamW(
            [param], lr, (b1, b2), eps, wd, rank=r, error_feedback=True, side=side, update_gap=2
        )
        p = param.detach().clone() if side == "right" else param.detach().T.clone()
        Q = dct_matrix(C, dtype=torch.float64)
        m = v = torch.zeros(R, r, dtype=torch.float64)
        E = torch.zeros(R, C, dtype=torch.float64)
        columns: list[int] = []
        entered = 0
        for t in range(1, 12):
            train(opt, [param], range(t, t + 1))
            G = param.grad if side == "right" else param.grad.T
            A = G + E
            if t == 1 or t % 2 == 0:
                lengths = (A @ Q).abs().sum(0)
                new = sorted(sorted(range(C), key=lambda j: -float(lengths[j]))[:r])
                if columns:
                    turn = Q[:, columns].T @ Q[:, new]
                    m, v = m @ turn, (v @ turn).abs()
                    entered += len(set(new) - set(columns))
                columns = new
            a = A @ Q[:, columns]
            E = A - a @ Q[:, columns].T
            m, v = b1 * m + (1 - b1) * a, b2 * v + (1 - b2) * a * a
            u = m / (v.sqrt() + eps * (1 - b2**t) ** 0.5)
            size = lr * (1 - b2**t) ** 0.5 / (1 - b1**t)
            p = (1 - lr * wd) * p - size * u @ Q[:, columns].T
            near(param if side == "right" else param.T, p)
        assert entered > 2


@variants
@pytest.mark.parametrize("capturable", [False, True])
def test_paths_agree(settings: dict[str, Any], capturable: bool) -> None:
    runs = []
    for path in ({"foreach": False}, {"foreach": True, "capturable": capturable}):
        params = made()
        opt = DCTAdamW(params, lr=1e-2, **settings, **path)
        train(opt, params, range(9))
        runs.append((values(params), [opt.state[p] for p in params]))
    for a, b in zip(*(run[0] for run in runs)):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)
    for one, two in zip(*(run[1] for run in runs)):
        assert one.keys() == two.keys()
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-11, atol=1e-13)


@paths
def test_full_rank_identity_is_adamw(path: str) -> None:
    params, others = made(), made()
    opt = DCTAdamW(params, 1e-2, weight_decay=0.1, rank=1.0 - 1e-9, basis="identity", **PATHS[path])
    reference = torch.optim.AdamW(others, 1e-2, weight_decay=0.1)
    for step in range(6):
        train(opt, params, range(step, step + 1))
        train(reference, others, range(step, step + 1))
    assert opt.state[params[0]]["indices"].numel() == 4
    for a, b in zip(values(params), values(others)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("basis", ["dct3", "dct2", "hadamard", "own"])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_full_rank_is_adamw_in_other_coordinates(basis: Any, shape: tuple[int, int]) -> None:
    (param,) = made((shape,))
    if basis == "own":
        g = torch.Generator().manual_seed(3)
        basis = torch.linalg.qr(torch.randn(4, 4, generator=g, dtype=torch.float64))[0]
    Q = basis if isinstance(basis, Tensor) else dct_matrix(4, basis=basis, dtype=torch.float64)
    turned = nn.Parameter(param.detach() @ Q if shape[1] == 4 else Q.T @ param.detach())
    opt = DCTAdamW([param], 1e-2, rank=4, basis=basis)
    reference = torch.optim.AdamW([turned], 1e-2, weight_decay=0.0)
    for step in range(5):
        train(opt, [param], range(step, step + 1))
        turned.grad = param.grad @ Q if shape[1] == 4 else Q.T @ param.grad
        reference.step()
        near(param @ Q if shape[1] == 4 else Q.T @ param, turned.detach())


def test_gradient_in_the_span_of_columns_selects_them() -> None:
    Q = dct_matrix(9, dtype=torch.float64)
    for columns in ([0, 4, 8], [1, 2, 3]):
        (param,) = made(((11, 9),))
        g = torch.Generator().manual_seed(1)
        param.grad = torch.randn(11, 3, generator=g, dtype=torch.float64) @ Q[:, columns].T
        opt = DCTAdamW([param], rank=3, error_feedback=True)
        opt.step()
        assert opt.state[param]["indices"].tolist() == columns
        assert opt.state[param]["error"].abs().max() < 1e-13


def test_error_feedback_loses_nothing() -> None:
    """What was stepped with, and what is kept, add up to all gradients."""
    (param,) = made(((7, 5),))
    Q = dct_matrix(5, dtype=torch.float64)
    opt = DCTAdamW([param], lr=1e-3, betas=(0.0, 0.0), rank=2, error_feedback=True)
    total = torch.zeros(7, 5, dtype=torch.float64)
    stepped = torch.zeros_like(total)
    for step in range(8):
        train(opt, [param], range(step, step + 1))
        total += param.grad
        state = opt.state[param]
        stepped += state["exp_avg"] @ Q[:, state["indices"]].T  # betas 0: the moment is a
    near(stepped + opt.state[param]["error"], total)
    assert opt.state[param]["error"].abs().max() > 0.1


def test_a_column_that_enters_late() -> None:
    """First step 3.16 lr as published, 1 lr with ages."""
    for aged, want in ((False, 0.1 / 0.001**0.5), (True, 1.0)):
        param = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
        opt = DCTAdamW([param], 1.0, rank=1, basis="identity", column_age=aged)
        param.grad = torch.tensor([[3.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
        opt.step()
        opt.state[param]["step"].fill_(20_000)  # late in a run
        before = param.detach().clone()
        param.grad = torch.tensor([[0.0, 3.0], [0.0, 3.0]], dtype=torch.float64)
        opt.step()
        moved = (param.detach() - before)[:, 1].abs()
        assert opt.state[param]["indices"].tolist() == [1]
        torch.testing.assert_close(moved, torch.full_like(moved, want), rtol=5e-3, atol=0)


def test_moments_follow_their_column() -> None:
    (param,) = made(((1, 4),))
    opt = DCTAdamW([param], rank=2, basis="identity", column_age=True)

    def step(*grad: float) -> dict[str, Any]:
        param.grad = torch.tensor([grad], dtype=torch.float64)
        opt.step()
        return opt.state[param]

    # rank 2 of a row: no, its smaller dimension is 1
    assert "indices" not in step(1.0, 2.0, 3.0, 4.0)
    (param,) = made(((2, 4),))
    opt = DCTAdamW([param], rank=2, basis="identity", side="right", column_age=True)
    param.grad = torch.tensor([[0.0, 5.0, 4.0, 0.0]] * 2, dtype=torch.float64)
    opt.step()
    state = opt.state[param]
    assert state["indices"].tolist() == [1, 2]
    param.grad = torch.tensor([[9.0, 5.0, 0.0, 0.0]] * 2, dtype=torch.float64)
    opt.step()
    assert state["indices"].tolist() == [0, 1]
    near(state["exp_avg"][0], torch.tensor([0.9, 0.95], dtype=torch.float64))
    assert state["age"].tolist() == [1, 2]


def test_refresh_only_at_its_steps() -> None:
    (param,) = made(((6, 5),))
    opt = DCTAdamW([param], rank=2, update_gap=4)
    seen = []
    for step in range(12):
        train(opt, [param], range(step, step + 1))
        seen.append(opt.state[param]["indices"].tolist())
    changes = [t for t in range(2, 13) if seen[t - 1] != seen[t - 2]]
    assert changes
    assert set(changes) <= {4, 8, 12}


@paths
def test_two_steps_by_hand(path: str) -> None:
    """2 x 2, one column, betas 1/2, eps 0: which column, what is left, what enters.

    Times sqrt(2), S_1 is [[4, 2], [2, 2]]: column 0, and E_1 = [[1, -1], [1, -1]]. Then A_2 is
    [[2, -4], [2, -2]], S_2 [[-2, 6], [0, 4]]: column 1 enters with zero moments at the bias
    correction 3/4, a step of sqrt(2/3), and E_2 = [[-1, -1], [0, 0]].
    """
    param = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    opt = DCTAdamW([param], 1.0, (0.5, 0.5), 0.0, 0.0, rank=1, error_feedback=True, **PATHS[path])
    wanted = []
    for grad in ([[3.0, 1.0], [2.0, 0.0]], [[1.0, -3.0], [1.0, -1.0]]):
        param.grad = torch.tensor(grad, dtype=torch.float64)
        opt.step()
        wanted.append((param.detach().clone(), opt.state[param]["error"].clone()))
    h, t = 0.5**0.5, 3.0**-0.5
    near(wanted[0][0], torch.full((2, 2), -h, dtype=torch.float64))
    near(wanted[0][1], torch.tensor([[1.0, -1.0], [1.0, -1.0]], dtype=torch.float64))
    near(wanted[1][0], torch.tensor([[-h - t, -h + t]] * 2, dtype=torch.float64))
    near(wanted[1][1], torch.tensor([[-1.0, -1.0], [0.0, 0.0]], dtype=torch.float64))
    assert opt.state[param]["indices"].tolist() == [1]
