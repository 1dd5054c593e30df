"""DiffGrad: golden steps of the authors' corrected code, transcription, limits, invariances."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.optim.contract import parameters, set_gradients
from tests.optim.diffgrad_cases import (
    CASES,
    EVERY_PATH,
    PATHS,
    STATE,
    follow,
    golden,
    gradients_of,
    naive,
)
from torch import nn

from gradworks.optim import DiffGrad

# ---------------------------------------------------------------- oracles


@pytest.mark.parametrize("case", CASES)
@EVERY_PATH
def test_golden_steps_of_the_released_code(case: str, path: str) -> None:
    stored = golden()
    tolerance = (
        {"rtol": 1e-12, "atol": 1e-14} if path == "single" else {"rtol": 1e-11, "atol": 1e-14}
    )
    params = [nn.Parameter(torch.tensor(stored[f"p{i}_init"])) for i in range(3)]
    optimizer = DiffGrad(params, **CASES[case], **PATHS[path])
    for step in range(12):
        for i, param in enumerate(params):
            param.grad = torch.tensor(stored[f"g{i}"][step])
        optimizer.step()
        for i, param in enumerate(params):
            want = torch.tensor(stored[f"{case}_p{i}"][step])
            torch.testing.assert_close(param.detach(), want, **tolerance)
    for i, param in enumerate(params):
        for name in STATE:
            want = torch.tensor(stored[f"{case}_{name}{i}"])
            torch.testing.assert_close(optimizer.state[param][name], want, rtol=1e-11, atol=1e-14)


shapes = st.lists(st.integers(1, 4), min_size=0, max_size=3).map(tuple)


@given(
    shape=shapes,
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([1e-4, 1.0, 30.0]),
    foreach=st.booleans(),
    rms=st.booleans(),
    lr=st.floats(1e-4, 0.3),
    betas=st.tuples(st.floats(0.0, 0.99), st.floats(0.5, 0.9999)),
    eps=st.sampled_from([1e-8, 1e-3]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    decoupled_weight_decay=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_transcription(
    shape: tuple[int, ...], seed: int, scale: float, foreach: bool, rms: bool, **given_: Any
) -> None:
    gradients = gradients_of(shape, 5, seed=seed, scale=scale)
    eps, beta2 = given_["eps"], given_["betas"][1]
    chosen: dict[str, Any] = {}
    if rms:
        chosen["friction"] = lambda change, v, t: (
            1 / (1 + math.exp(-change / (math.sqrt(v / (1 - beta2**t)) + eps)))
        )
    want = naive(parameters((shape,))[0].detach(), gradients, **given_, **chosen)
    kind = "rms" if rms else "absolute"
    found = follow(shape, gradients, foreach=foreach, friction_scale=kind, **given_)
    for one, other in zip(found, want):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@EVERY_PATH
@pytest.mark.parametrize("c", [0.7, -0.003])
def test_constant_gradient_in_closed_form(path: str, c: float) -> None:
    """A whole friction once, then a half: p - lr sign(c) (sigmoid(|c|) + (t - 1) / 2)."""
    lr, start = 0.01, parameters(((3, 2),))[0].detach()
    found = follow(
        (3, 2), [torch.full((3, 2), c, dtype=torch.float64)] * 6, lr=lr, eps=0.0, **PATHS[path]
    )
    for t, param in enumerate(found, 1):
        passed = 1 / (1 + math.exp(-abs(c))) + (t - 1) / 2
        torch.testing.assert_close(param, start - lr * math.copysign(passed, c), rtol=0, atol=1e-12)


@EVERY_PATH
def test_three_steps_by_hand(path: str) -> None:
    """betas (1/2, 3/4), eps 0, lr 1; the gradients with their decay are L, -L, -L, L = ln 3.

    1: m = L / 2, v = L^2 / 4, size 1, friction s(L) = 3/4: a step of 3/4.
    2: m = -L / 4, v = 7/16 L^2, size sqrt(7/16) / (3/4), friction s(2 L) = 9/10: a step of -3/10.
    3: m = -5/8 L, v = 37/64 L^2, size sqrt(37/64) / (7/8), no change, friction 1/2: -5/14.
    """
    param = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = DiffGrad(
        [param], lr=1.0, betas=(0.5, 0.75), eps=0.0, weight_decay=0.2, **PATHS[path]
    )
    for sign, want in ((1, -0.75), (-1, -0.45), (-1, -0.45 + 5 / 14)):
        param.grad = sign * math.log(3) - 0.2 * param.detach()
        optimizer.step()
        torch.testing.assert_close(param.detach(), torch.full_like(param, want).detach())


def test_large_changes_give_adam_and_small_ones_half_of_it() -> None:
    given_ = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 0.0}
    start = parameters(((4, 3),))[0].detach()
    for scale, share, tolerance in ((1e4, 1.0, 1e-9), (1e-9, 0.5, 1e-8)):
        gradients = gradients_of((4, 3), 8)
        gradients = [scale * g.sign() * (1 + g.abs()) for g in gradients]
        if share == 1.0:  # signs that alternate, so that every change is large
            gradients = [g.abs() * (-1) ** t for t, g in enumerate(gradients)]
        want = naive(start, gradients, friction=lambda *_: share, **given_)  # noqa: B023
        for one, other in zip(follow((4, 3), gradients, **given_), want):
            torch.testing.assert_close(one - start, other - start, rtol=tolerance, atol=1e-11)


def test_eps_is_not_that_of_torch() -> None:
    """Outside the root and not bias corrected: 31.6 times torch's in the first step."""
    gradients, beta2 = [torch.full((2,), 30.0, dtype=torch.float64)], 0.999
    start = parameters(((2,),))[0].detach()
    found = follow((2,), gradients, lr=1.0, eps=1.0)[0]
    root = 30 * math.sqrt(1 - beta2)
    torch.testing.assert_close(start - found, torch.full_like(start, root / (root + 1)))
    torchs = follow((2,), gradients, torch.optim.Adam, lr=1.0, eps=1.0)[0]
    assert (found - torchs).abs().min() > 0.4


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 1.0, 100.0]))
@settings(max_examples=30, deadline=None)
def test_every_step_is_between_half_of_adams_and_the_whole(seed: int, scale: float) -> None:
    gradients = gradients_of((5,), 6, seed=seed, scale=scale)
    start = parameters(((5,),))[0].detach()
    given_ = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8}
    ours = torch.stack([start, *follow((5,), gradients, **given_)]).diff(dim=0).abs()
    adams = torch.stack([start, *naive(start, gradients, friction=lambda *_: 1.0, **given_)])
    adams = adams.diff(dim=0).abs()
    assert (ours <= adams * (1 + 1e-9) + 1e-14).all()
    assert (ours >= adams * (0.5 - 1e-9) - 1e-14).all()


# ---------------------------------------------------------------- peers


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("decoupled", [False, True])
def test_equals_pytorch_optimizer(decoupled: bool) -> None:
    module = pytest.importorskip("pytorch_optimizer", reason="peer not installed")
    given_ = {"lr": 0.02, "weight_decay": 0.1, "eps": 1e-6}
    for shape in ((6, 4), (3, 2, 3, 3), (7,), ()):
        gradients = gradients_of(shape, 9)
        ours = follow(shape, gradients, decoupled_weight_decay=decoupled, **given_)
        theirs = follow(shape, gradients, module.DiffGrad, weight_decouple=decoupled, **given_)
        for a, b in zip(ours, theirs):  # it adds 1e-15 under the root
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


# ---------------------------------------------------------------- invariances


@EVERY_PATH
def test_permuting_coordinates_commutes(path: str) -> None:
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    gradients = gradients_of((12,), 5)
    runs = []
    for chosen in (torch.arange(12), order):
        param = nn.Parameter(parameters(((12,),))[0].detach()[chosen])
        optimizer = DiffGrad([param], lr=0.1, weight_decay=0.1, **PATHS[path])
        for gradient in gradients:
            param.grad = gradient[chosen].clone()
            optimizer.step()
        runs.append(param.detach())
    assert torch.equal(runs[0][order], runs[1])


def test_mirrored_problem_gives_the_mirrored_path() -> None:
    gradients = gradients_of((4, 3), 6)
    paths_ = []
    for sign in (1, -1):
        param = nn.Parameter(sign * parameters(((4, 3),))[0].detach())
        optimizer = DiffGrad([param], lr=0.1, weight_decay=0.2)
        for gradient in gradients:
            param.grad = sign * gradient
            optimizer.step()
        paths_.append(sign * param.detach())
    assert torch.equal(*paths_)


@EVERY_PATH
def test_only_the_rms_friction_does_not_see_the_scale_of_the_loss(path: str) -> None:
    """Whoever 'fixes' the paper's friction makes the first assertion fail."""
    gradients = gradients_of((4, 3), 6)
    for kind, moved in (("absolute", True), ("rms", False)):
        given_ = {"lr": 0.1, "eps": 0.0, "friction_scale": kind, **PATHS[path]}
        one = follow((4, 3), gradients, **given_)[-1]
        other = follow((4, 3), [1000 * g for g in gradients], **given_)[-1]
        assert bool((one - other).abs().max() > 1e-2) is moved
        if not moved:
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


@EVERY_PATH
def test_complex_is_a_trailing_axis_of_two(path: str) -> None:
    (real,) = parameters(((3, 2, 2),))
    pair = nn.Parameter(torch.view_as_complex(real.detach().clone()))
    given_ = {"lr": 0.1, "weight_decay": 0.1, **PATHS[path]}
    runs = [DiffGrad([p], **given_) for p in (real, pair)]
    for gradient in gradients_of((3, 2, 2), 5):
        real.grad, pair.grad = gradient, torch.view_as_complex(gradient)
        for optimizer in runs:
            optimizer.step()
    torch.testing.assert_close(torch.view_as_real(pair.detach()), real.detach(), rtol=1e-12, atol=0)
    assert all(runs[1].state[pair][name].is_complex() for name in STATE)


# ---------------------------------------------------------------- the stored gradient


@EVERY_PATH
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_gradients_zeroed_in_place_change_nothing(path: str, decay: float) -> None:
    """The released first version keeps the gradient itself: its difference is then always zero."""
    ends = []
    for to_none in (True, False):
        weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
        optimizer = DiffGrad([weight], lr=0.1, weight_decay=decay, **PATHS[path])
        for step in range(6):
            optimizer.zero_grad(set_to_none=to_none)
            ((weight - step) ** 2).sum().backward()
            optimizer.step()
        assert optimizer.state[weight]["previous_grad"].data_ptr() != weight.grad.data_ptr()
        ends.append(weight.detach())
    assert torch.equal(*ends)
    frozen = naive(
        torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64), [torch.ones(3)] * 1,
        friction=lambda *_: 0.5, lr=0.1, betas=(0.9, 0.999), eps=1e-8,
    )  # fmt: skip
    assert (ends[0] - frozen[-1]).abs().min() > 1e-3


def test_a_missing_gradient_leaves_everything() -> None:
    one, two = parameters(((3,), (3,)))
    optimizer = DiffGrad([one, two], lr=0.1)
    set_gradients([one, two], 0)
    optimizer.step()
    kept = {name: optimizer.state[two][name].clone() for name in (*STATE, "step")}
    before, two.grad = two.detach().clone(), None
    optimizer.step()
    assert torch.equal(two, before)
    assert all(torch.equal(kept[name], optimizer.state[two][name]) for name in kept)


@EVERY_PATH
def test_not_a_number_spoils_its_own_coordinate_only(path: str) -> None:
    params = parameters(((3, 4), (40,)))
    optimizer = DiffGrad(params, lr=0.1, weight_decay=0.1, **PATHS[path])
    for step in range(4):
        set_gradients(params, step)
        if step == 1:
            params[0].grad[1, 2] = math.nan
            params[1].grad[5] = math.inf
        optimizer.step()
    assert params[0].isfinite().sum() == 11
    assert params[1].isfinite().sum() == 39
    assert params[0][1, 2].isnan()
