"""Trion: golden runs of the released code, tall and wide; paths, scales, state, errors."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from tests.optim.dct_cases import PATHS, golden, made, near, paths, train, values
from torch import nn

from gradworks.optim import Trion
from gradworks.optim.dct_adamw import dct_matrix, select_columns
from gradworks.optim.dct_adamw.orthogonal_momentum import newton_schulz


@pytest.mark.parametrize("kind", ["tall", "wide"])
@paths
def test_golden(kind: str, path: str) -> None:
    param = nn.Parameter(golden(f"trion_{kind}_p_init"))
    opt = Trion(
        [param], lr=0.02, momentum=0.95, weight_decay=0.1, rank=3, ns_dtype=torch.float64,
        **PATHS[path],
    )  # fmt: skip
    D = dct_matrix(6, dtype=torch.float64)
    for step in range(6):
        param.grad = golden(f"trion_{kind}_g")[step]
        M = opt.state[param].get("momentum_buffer", torch.zeros_like(param))
        B = M + param.grad
        found = select_columns(B @ D, 3) if kind == "tall" else select_columns(D @ B, 3, dim=0)
        assert found.tolist() == sorted(golden(f"trion_{kind}_idx")[step].tolist())
        opt.step()
        near(param, golden(f"trion_{kind}_p")[step])
        near(opt.state[param]["momentum_buffer"], golden(f"trion_{kind}_M")[step])


VARIANTS: tuple[dict[str, Any], ...] = (
    {"rank": 2},
    {"rank": 3, "scale": "dion", "weight_decay": 0.1, "side": "left"},
    {"rank": 0.5, "basis": "dct2", "norm": 2, "ns_steps": 3, "momentum": 0.8},
)
variants = pytest.mark.parametrize("settings", VARIANTS, ids=range(len(VARIANTS)))


@variants
def test_paths_agree(settings: dict[str, Any]) -> None:
    runs = []
    for path in PATHS.values():
        params = made()
        opt = Trion(params, lr=1e-2, **settings, **path)
        train(opt, params, range(7))
        runs.append((values(params), [opt.state[p] for p in params]))
    for a, b in zip(*(run[0] for run in runs)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    for one, two in zip(*(run[1] for run in runs)):
        torch.testing.assert_close(dict(one), dict(two), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5)])
def test_newton_schulz_by_its_singular_values(shape: tuple[int, int]) -> None:
    """Singular vectors stay; each value goes through the quintic by itself."""
    (param,) = made((shape,))
    U, sigma, V = torch.linalg.svd(param.detach(), full_matrices=False)
    sigma = sigma / (sigma.square().sum().sqrt() + 1e-7)
    for _ in range(5):
        sigma = 3.4445 * sigma - 4.7750 * sigma**3 + 2.0315 * sigma**5
    found = newton_schulz(param.detach(), 5)
    near(found, U @ torch.diag(sigma) @ V)
    assert 0.5 < sigma.min() < sigma.max() < 1.3


@pytest.mark.parametrize("size", [1e6, 1e-6])
@paths
def test_float16_takes_momentum_of_any_size(path: str, size: float) -> None:
    """Only what was scaled to norm 1 goes into the 16 bits."""
    steps = []
    for dtype in (torch.float16, None):
        (param,) = made(((8, 6),), dtype=torch.float32)
        opt = Trion([param], 1.0, rank=3, ns_dtype=dtype, **PATHS[path])
        before = param.detach().clone()
        param.grad = size * before
        opt.step()
        steps.append(param.detach() - before)
    torch.testing.assert_close(steps[0], steps[1], rtol=0, atol=2e-2)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_own_basis_is_taken_as_a_named_one(shape: tuple[int, int]) -> None:
    runs = []
    for basis in ("dct3", dct_matrix(4, dtype=torch.float64)):
        (param,) = made((shape,))
        train(Trion([param], rank=2, basis=basis), [param], range(3))
        runs.append(param.detach())
    near(*runs)


def test_own_basis_is_a_copy_on_both_sides() -> None:
    """What a user does with the tensor afterwards is not the optimizer's."""
    for shape in ((4, 6), (6, 4)):
        Q = dct_matrix(4, dtype=torch.float64)
        runs = []
        for spoilt in (False, True):
            (param,) = made((shape,))
            opt = Trion([param], rank=2, basis=Q)
            if spoilt:
                Q.zero_()
            train(opt, [param], range(2))
            runs.append(param.detach())
        assert torch.equal(*runs)


@pytest.mark.parametrize(
    ("scale", "want"),
    [("kj", (9 / 4) ** 0.5), ("none", 1.0), ("kimi", 0.2 * 3.0), ("dion", 1.5)],
)
def test_scales(scale: str, want: float) -> None:
    steps = []
    for name in (scale, "none"):
        param = nn.Parameter(torch.zeros(9, 4, dtype=torch.float64))
        param.grad = made(((9, 4),))[0].detach()
        Trion([param], rank=2, scale=name).step()
        steps.append(param.detach())
    near(steps[0], want * steps[1])


@pytest.mark.parametrize("shape", [(8, 6), (6, 8), (6, 6)])
def test_full_rank_is_muon(shape: tuple[int, int]) -> None:
    """At full rank Q drops out: Muon without Nesterov's look ahead, in bfloat16 both."""
    ours, theirs = made((shape,), dtype=torch.float32), made((shape,), dtype=torch.float32)
    opt = Trion(ours, 0.02, rank=6, ns_dtype=torch.bfloat16, basis="identity")
    muon = torch.optim.Muon(theirs, 0.02, momentum=0.95, nesterov=False, weight_decay=0.0)
    for step in range(3):
        train(opt, ours, range(step, step + 1))
        train(muon, theirs, range(step, step + 1))
    # torch's buffer is 0.05 of ours, which the norm cancels; bfloat16 rounds both differently
    moved = theirs[0] - made((shape,), dtype=torch.float32)[0]
    assert (ours[0] - theirs[0]).norm() < 0.1 * moved.norm()


def test_memory_is_muons() -> None:
    params = made(((6, 4), (4, 9), (7,)))
    opt = Trion(params, rank=2)
    train(opt, params, range(1))
    for param in params[:2]:
        assert set(opt.state[param]) == {"momentum_buffer"}
        assert opt.state[param]["momentum_buffer"].shape == param.shape
    assert set(opt.state[params[2]]) == {"step", "exp_avg", "exp_avg_sq"}


@paths
def test_other_parameters_are_adamws_and_scheduled(path: str) -> None:
    params, others = made(((7,), (3, 2, 3, 3))), made(((7,), (3, 2, 3, 3)))
    opt = Trion(params, 0.02, rank=2, weight_decay=0.1, **PATHS[path])
    reference = torch.optim.AdamW(others, 3e-4, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.1)
    for step in range(4):
        if step == 2:  # half the rate of matrices is half the rate of the others
            opt.param_groups[0]["lr"] /= 2
            reference.param_groups[0]["lr"] /= 2
        train(opt, params, range(step, step + 1))
        train(reference, others, range(step, step + 1))
    for a, b in zip(values(params), values(others)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@variants
@paths
def test_resume_bit_for_bit(settings: dict[str, Any], path: str) -> None:
    whole = made(dtype=torch.float32)
    train(Trion(whole, **settings, **PATHS[path]), whole, range(6))
    params = made(dtype=torch.float32)
    opt = Trion(params, **settings, **PATHS[path])
    train(opt, params, range(3))
    buffer = io.BytesIO()
    torch.save(opt.state_dict(), buffer)
    buffer.seek(0)
    resumed = [nn.Parameter(x) for x in values(params)]
    second = Trion(resumed, lr=0.5, rank=1)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    train(second, resumed, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(resumed, whole))


def test_state_of_another_kind_is_refused() -> None:
    params = made(((6, 4),))
    full = torch.optim.AdamW(params)
    train(full, params, range(1))
    with pytest.raises(ValueError, match=r"full state for a parameter of shape \(6, 4\)"):
        Trion(params, rank=2).load_state_dict(full.state_dict())


def test_bfloat16_parameters_follow_float32() -> None:
    exact = made(((6, 4), (7,)), dtype=torch.float32)
    rough = [nn.Parameter(p.detach().bfloat16()) for p in exact]
    train(Trion(exact, rank=2), exact, range(2))
    train(Trion(rough, rank=2), rough, range(2))
    for a, b in zip(exact, rough):
        assert b.dtype == torch.bfloat16
        torch.testing.assert_close(b.float(), a, rtol=2e-2, atol=2e-2)


BAD: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
    ({"rank": 0}, ValueError, "rank must be at least 1"),
    ({"rank": None}, TypeError, "rank is required"),
    ({"momentum": 1.0}, ValueError, "momentum must be in [0, 1), got 1.0"),
    ({"scale": "muon"}, ValueError, "scale must be one of kj, none, kimi, dion, got 'muon'"),
    ({"ns_steps": 0}, ValueError, "ns_steps must be at least 1, got 0"),
    ({"ns_steps": 2.5}, TypeError, "ns_steps must be an integer, got 2.5"),
    ({"ns_dtype": "bfloat16"}, TypeError, "ns_dtype must be a torch.dtype or None"),
    ({"ns_dtype": torch.int8}, ValueError, "ns_dtype must be a floating dtype, got torch.int8"),
    ({"adamw_lr": -1.0}, ValueError, "adamw_lr must be at least 0 and finite, got -1.0"),
    ({"adamw_lr": "1"}, TypeError, "adamw_lr must be a number, got str"),
    ({"adamw_lr": torch.tensor(1.0)}, TypeError, "adamw_lr must be a number, got a Tensor"),
    ({"adamw_betas": (0.9, 1.0)}, ValueError, "adamw_betas[1] must be in [0, 1), got 1.0"),
    ({"adamw_betas": 0.9}, TypeError, "adamw_betas must be a pair"),
    ({"adamw_eps": -1e-8}, ValueError, "adamw_eps must be at least 0"),
    ({"basis": "sine"}, ValueError, "got 'sine'"),
    ({"norm": 0}, ValueError, "norm must be 1 or 2, got 0"),
    ({"side": None}, ValueError, "got None"),
    ({"max_dim": -1}, ValueError, "max_dim must be at least 0, got -1"),
)


@pytest.mark.parametrize(("arguments", "error", "fragment"), BAD)
def test_bad_arguments(arguments: Any, error: type[Exception], fragment: str) -> None:
    with pytest.raises(error) as caught:
        Trion(made(((6, 4),)), **{"rank": 2, **arguments})
    assert fragment in str(caught.value)
