"""DCTAdamW: who has low-rank state, how large, what a checkpoint keeps, what is refused."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
import torch
from tests.optim.dct_cases import PATHS, VARIANTS, made, near, paths, train, values, variants
from torch import nn

from gradworks.optim import DCTAdamW
from gradworks.optim.dct_adamw import state_bytes

# ---------------------------------------------------------------- which parameters


@pytest.mark.parametrize(
    ("shape", "settings", "small"),
    [
        ((6, 4), {"rank": 3}, (6, 3)),
        ((4, 6), {"rank": 3}, (3, 6)),
        ((5, 5), {"rank": 3}, (5, 3)),
        ((6, 4), {"rank": 3, "side": "left"}, (3, 4)),
        ((4, 6), {"rank": 3, "side": "right"}, (4, 3)),
        ((6, 4), {"rank": 4}, (6, 4)),
        ((6, 4), {"rank": 5}, None),
        ((6, 4), {"rank": 0.5}, (6, 2)),
        ((6, 4), {"rank": 0.01}, (6, 1)),
        ((6, 4), {"rank": 2, "max_dim": 6}, None),
        ((6, 4), {"rank": 2, "max_dim": 7}, (6, 2)),
        ((6, 4), {"rank": 2, "max_dim": 0}, None),
        ((6, 2, 2), {"rank": 1}, None),
        ((6,), {"rank": 1}, None),
        ((0, 3), {"rank": 1}, None),
    ],
)
def test_who_has_low_rank_state(shape: Any, settings: Any, small: Any) -> None:
    (param,) = made((shape,))
    opt = DCTAdamW([param], **settings)
    train(opt, [param], range(1))
    state = opt.state[param]
    assert ("indices" in state) == (small is not None)
    assert state["exp_avg"].shape == (shape if small is None else small)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(6, 5), (5, 6), (7,), (64, 64)])
@variants
def test_state_bytes(settings: dict[str, Any], shape: Any, dtype: torch.dtype) -> None:
    """The documented formula, written out, and what lies in memory."""
    (param,) = made((shape,), dtype=dtype)
    opt = DCTAdamW([param], **settings)
    train(opt, [param], range(2))
    found = sum(x.numel() * x.element_size() for x in opt.state[param].values())
    names = ("rank", "side", "error_feedback", "ef_dtype", "column_age")
    given = {name: settings[name] for name in names if name in settings}
    assert state_bytes(shape, dtype=dtype, **given) == found
    size = dtype.itemsize
    if len(shape) == 1:
        assert found == 2 * shape[0] * size + 4
    elif settings == VARIANTS[0]:
        assert found == 2 * max(shape) * 2 * size + 8 * 2 + 4
    elif settings == VARIANTS[2]:
        assert found == 2 * max(shape) * 2 * size + 8 * 2 + 4 + shape[0] * shape[1] * max(size, 2)


def test_saving_against_adamw() -> None:
    assert state_bytes((512, 512), 64) / (2 * 512 * 512 * 4) == pytest.approx(0.125, rel=0.003)


def test_complex_and_channels_last_are_adamw() -> None:
    params = [nn.Parameter(torch.ones(3, 3, dtype=torch.complex64))]
    opt = DCTAdamW(params, rank=1)
    params[0].grad = torch.ones(3, 3, dtype=torch.complex64) * (1 + 1j)
    opt.step()
    assert "indices" not in opt.state[params[0]]
    want = torch.full((3, 3), 0.999 - 0.001j)
    torch.testing.assert_close(params[0].detach(), want)


def test_transposed_weight_in_memory() -> None:
    weight = torch.randn(5, 6, dtype=torch.float64)
    params = [nn.Parameter(weight.clone()), nn.Parameter(weight.T.contiguous().T)]
    assert not params[1].is_contiguous()
    opt = DCTAdamW(params, rank=2, error_feedback=True)
    for step in range(3):
        train(opt, params[:1], range(step, step + 1))
    other = DCTAdamW(params[1:], rank=2, error_feedback=True)
    for step in range(3):
        train(other, params[1:], range(step, step + 1))
    near(params[0], params[1].detach())


# ---------------------------------------------------------------- state


@variants
@paths
def test_resume_bit_for_bit(settings: dict[str, Any], path: str) -> None:
    whole = made(dtype=torch.float32)
    train(DCTAdamW(whole, **settings, **PATHS[path]), whole, range(7))
    params = made(dtype=torch.float32)
    opt = DCTAdamW(params, **settings, **PATHS[path])
    train(opt, params, range(3))
    buffer = io.BytesIO()
    torch.save(opt.state_dict(), buffer)
    buffer.seek(0)
    resumed = [nn.Parameter(x) for x in values(params)]
    second = DCTAdamW(resumed, lr=0.5, rank=1)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    for p, q in zip(params, resumed):
        for name, value in opt.state[p].items():
            got = second.state[q][name]
            assert got.dtype == value.dtype
            assert torch.equal(got, value)
            assert got.data_ptr() != value.data_ptr() or value.numel() == 0
    train(second, resumed, range(3, 7))
    assert all(torch.equal(a, b) for a, b in zip(resumed, whole))


def test_large_indices_survive_half_precision() -> None:
    """As bfloat16, which torch casts state to, 301 would come back as 302."""
    param = nn.Parameter(torch.zeros(400, 400, dtype=torch.bfloat16))
    opt = DCTAdamW([param], rank=2, basis="identity")
    param.grad = torch.zeros_like(param)
    param.grad[:, [301, 399]] = 1.0
    opt.step()
    other = DCTAdamW([param], rank=2, basis="identity")
    other.load_state_dict(opt.state_dict())
    assert other.state[param]["indices"].tolist() == [301, 399]
    assert other.state[param]["indices"].dtype == torch.int64


def test_state_of_another_kind_is_refused() -> None:
    params = made(((6, 4),))
    full = torch.optim.AdamW(params)
    train(full, params, range(1))
    with pytest.raises(ValueError, match=r"full state for a parameter of shape \(6, 4\)"):
        DCTAdamW(params, rank=2).load_state_dict(full.state_dict())
    low = DCTAdamW(params, rank=2)
    train(low, params, range(1))
    saved = low.state_dict()
    saved["param_groups"][0]["max_dim"] = 0
    with pytest.raises(ValueError, match=r"low-rank state .*\(6, 4\).*max_dim=0"):
        DCTAdamW(params, rank=2).load_state_dict(saved)


def test_rank_of_state_stays() -> None:
    params = made(((6, 4),))
    opt = DCTAdamW(params, rank=2)
    train(opt, params, range(2))
    opt.param_groups[0]["rank"] = 3
    train(opt, params, range(2, 4))
    assert opt.state[params[0]]["exp_avg"].shape == (6, 2)


def test_feedback_and_ages_switched_on_late() -> None:
    params = made()
    opt = DCTAdamW(params, rank=2)
    train(opt, params, range(2))
    opt.param_groups[0].update(error_feedback=True, ef_dtype="int8", column_age=True)
    train(opt, params, range(2, 4))
    assert {"age", "error_q"} <= opt.state[params[0]].keys()


@paths
def test_ages_switched_on_late_are_the_runs(path: str) -> None:
    """Moments of 60 steps are not corrected as if they were of one."""
    param = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    opt = DCTAdamW([param], 1.0, eps=0.0, rank=1, basis="identity", **PATHS[path])
    param.grad = torch.tensor([[3.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    for _ in range(60):
        opt.step()
    opt.param_groups[0]["column_age"] = True
    before = param.detach().clone()
    opt.step()
    assert opt.state[param]["age"].tolist() == [61]
    near((before - param.detach())[:, 0], torch.ones(2, dtype=torch.float64))


def test_a_hook_may_load_another_checkpoint() -> None:
    """Indices come from the state that is loaded, not from that which was given."""
    params = made(((6, 6), (6, 6)))
    opt = DCTAdamW(params, rank=2)
    train(opt, params, range(3))
    other = DCTAdamW(params[::-1], rank=2)

    def turned_round(_: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {**given, "state": {0: given["state"][1], 1: given["state"][0]}}

    other.register_load_state_dict_pre_hook(turned_round)
    other.load_state_dict(opt.state_dict())
    found = [opt.state[p]["indices"].tolist() for p in params]
    assert found[0] != found[1]
    assert [other.state[p]["indices"].tolist() for p in params] == found


def test_float16_error_does_not_overflow() -> None:
    param = nn.Parameter(torch.zeros(4, 4, dtype=torch.float16))
    opt = DCTAdamW([param], rank=1, basis="identity", error_feedback=True)
    for _ in range(3):
        param.grad = torch.eye(4, dtype=torch.float16) * 40_000
        opt.step()
    error = opt.state[param]["error"]
    assert error.dtype == torch.bfloat16
    assert error.isfinite().all()
    assert error.abs().max() > 65_504
    other = DCTAdamW([param], rank=1)
    other.load_state_dict(opt.state_dict())
    assert torch.equal(other.state[param]["error"], error)


def test_bases_are_never_in_a_checkpoint() -> None:
    params = made(((6, 4),))
    opt = DCTAdamW(params, rank=2)
    train(opt, params, range(1))
    buffer = io.BytesIO()
    torch.save(opt.state_dict(), buffer)
    large = made(((6, 64),))
    big = DCTAdamW(large, rank=2)
    train(big, large, range(1))
    shapes = [x.shape for x in big.state_dict()["state"][0].values()]
    assert (64, 64) not in shapes
    assert (6, 6) not in shapes
    copied = pickle.loads(pickle.dumps((big, large)))
    train(copied[0], copied[1], range(1, 2))
    train(big, large, range(1, 2))
    assert torch.equal(copied[1][0], large[0])


def test_own_basis_is_shared_and_per_group() -> None:
    g = torch.Generator().manual_seed(0)
    first, second = (
        torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64))[0] for n in (4, 5)
    )
    params = made(((6, 4), (8, 4), (7, 5)))
    opt = DCTAdamW(
        [{"params": params[:2], "basis": first}, {"params": params[2:], "basis": second}], rank=2
    )
    train(opt, params, range(3))
    assert opt._held[params[0]].rows is opt._held[params[1]].rows
    assert torch.equal(opt._held[params[2]].rows, second.T)


# ---------------------------------------------------------------- trouble


def test_skipped_step_keeps_the_error() -> None:
    """GradScaler leaves a step with infinities out: nothing moves, error feedback included."""
    model = nn.Linear(4, 6)
    opt = DCTAdamW(model.parameters(), rank=2, error_feedback=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(model(torch.randn(3, 4)).square().sum()).backward()
    scaler.step(opt)
    scaler.update()
    before = [x.clone() for state in opt.state.values() for x in state.values()]
    opt.zero_grad()
    scaler.scale(model(torch.randn(3, 4)).square().sum() * float("inf")).backward()
    scaler.step(opt)
    scaler.update()
    after = [x for state in opt.state.values() for x in state.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after))
    assert scaler.get_scale() == 2.0


@paths
def test_nan_is_stepped_with(path: str) -> None:
    params = made(((6, 4), (6, 4)))
    opt = DCTAdamW(params, rank=2, error_feedback=True, **PATHS[path])
    train(opt, params, range(1))
    params[0].grad[0, 0] = float("nan")
    opt.step()
    assert params[0].isnan().any()
    assert opt.state[params[0]]["error"].isnan().any()
    assert params[1].isfinite().all()
    assert opt.state[params[0]]["indices"].tolist() == sorted(
        opt.state[params[0]]["indices"].tolist()
    )


BAD: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
    ({"rank": 0}, ValueError, "rank must be at least 1, or a fraction in (0, 1), got 0"),
    ({"rank": -1}, ValueError, "got -1"),
    ({"rank": 1.0}, ValueError, "rank as a fraction must be in (0, 1), got 1.0"),
    ({"rank": 0.0}, ValueError, "got 0.0"),
    ({"rank": float("nan")}, ValueError, "got nan"),
    ({"rank": None}, TypeError, "rank is required"),
    ({"rank": "2"}, TypeError, "rank must be an integer or a fraction, got '2'"),
    ({"rank": True}, TypeError, "got True"),
    ({"update_gap": 0}, ValueError, "update_gap must be at least 1, got 0"),
    ({"update_gap": 2.0}, TypeError, "update_gap must be an integer, got 2.0"),
    ({"rotate": 1}, TypeError, "rotate must be True or False, got 1"),
    ({"norm": 3}, ValueError, "norm must be 1 or 2, got 3"),
    ({"norm": "l1"}, ValueError, "norm must be 1 or 2, got 'l1'"),
    ({"norm": True}, ValueError, "norm must be 1 or 2, got True"),
    ({"basis": "dct"}, ValueError, "got 'dct'"),
    ({"basis": 3}, TypeError, "square orthogonal tensor, got int"),
    ({"basis": torch.ones(4, 4)}, ValueError, "orthogonal to 0.0001, got an error of"),
    ({"basis": torch.ones(4, 3)}, ValueError, "square, real and floating, got shape (4, 3)"),
    ({"basis": torch.eye(4, dtype=torch.int64)}, ValueError, "got shape (4, 4) of torch.int64"),
    ({"basis": torch.eye(5)}, ValueError, "has size 5, a weight of shape (6, 4) needs 4"),
    ({"basis": "hadamard", "side": "left"}, ValueError, "a weight of shape (6, 4) has 6"),
    ({"basis": "identity", "transform": "fft"}, ValueError, "got 'identity'"),
    ({"basis": torch.eye(4), "transform": "fft"}, ValueError, "got a tensor"),
    ({"transform": "slow"}, ValueError, "auto, matmul, fft, got 'slow'"),
    ({"side": "top"}, ValueError, "auto, left, right, got 'top'"),
    ({"error_feedback": 1}, TypeError, "error_feedback must be True or False"),
    ({"ef_dtype": "int8"}, ValueError, "ef_dtype='int8' needs error_feedback=True"),
    ({"ef_dtype": "int2", "error_feedback": True}, ValueError, "'int8' or 'int4', got 'int2'"),
    ({"column_age": 0}, TypeError, "column_age must be True or False"),
    ({"max_dim": -1}, ValueError, "max_dim must be at least 0, got -1"),
    ({"max_dim": 1e4}, TypeError, "max_dim must be an integer"),
    ({"betas": (1.0, 0.9)}, ValueError, "betas[0] must be in [0, 1), got 1.0"),
    ({"capturable": 1}, TypeError, "capturable must be True or False"),
)


@pytest.mark.parametrize(("arguments", "error", "fragment"), BAD)
def test_bad_arguments(arguments: Any, error: type[Exception], fragment: str) -> None:
    with pytest.raises(error) as caught:
        DCTAdamW(made(((6, 4),)), **{"rank": 2, **arguments})
    assert fragment in str(caught.value)
    opt = DCTAdamW(made(((2, 2),)), rank=2)
    with pytest.raises(error) as caught:
        opt.add_param_group({"params": made(((6, 4),)), **arguments})
    assert fragment in str(caught.value)
    assert len(opt.param_groups) == 1


def test_rank_has_no_default() -> None:
    with pytest.raises(TypeError, match="rank"):
        DCTAdamW(made(((6, 4),)))  # type: ignore[call-arg]
