"""SGDP: golden steps, transcription, the norm identities of scale-invariant losses, checkpoints."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.optim import golden
from tests.optim.contract import parameters, set_gradients, train, values
from tests.optim.naive import Naive
from torch import Tensor, nn

from gradworks.optim import SGDP
from gradworks.optim.adamp import sgdp

PATHS = {"single": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}
slow = pytest.mark.slow


@pytest.mark.parametrize("case", golden.cases("SGDP"))
@pytest.mark.parametrize("path", ["single", "foreach", pytest.param("fused", marks=slow)])
def test_golden_steps_of_the_released_code(case: str, path: str) -> None:
    golden.follow(SGDP, case, **PATHS[path])


shapes = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)


@given(
    shapes=st.lists(shapes, min_size=1, max_size=4),
    seed=st.integers(0, 10_000),
    lr=st.floats(1e-4, 0.3),
    momentum=st.sampled_from([0.0, 0.5, 0.99]),
    dampening=st.sampled_from([0.0, 0.3, 1.0]),
    nesterov=st.booleans(),
    weight_decay=st.sampled_from([0.0, 0.01]),
    delta=st.sampled_from([0.0, 0.1, 0.9, math.inf]),
    wd_ratio=st.floats(0.0, 1.0),
    foreach=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_transcription(
    shapes: list[tuple[int, ...]],
    seed: int,
    momentum: float,
    dampening: float,
    nesterov: bool,
    foreach: bool,
    **given_: Any,
) -> None:
    nesterov = nesterov and momentum > 0 and dampening == 0
    params = parameters(tuple(shapes), seed=seed)
    naive = [Naive(p.detach().clone(), nesterov=nesterov, **given_) for p in params]
    optimizer = SGDP(
        params,
        momentum=momentum,
        dampening=dampening,
        nesterov=nesterov,
        foreach=foreach,
        record_branches=True,
        **given_,
    )
    for step in range(4):
        set_gradients(params, step, seed=seed)
        for one, param in zip(naive, params):
            one.sgdp(param.grad.clone(), momentum, dampening)
        optimizer.step()
    for i, (one, param) in enumerate(zip(naive, params)):
        torch.testing.assert_close(param.detach(), one.value, rtol=1e-9, atol=1e-11)
        assert int(optimizer.last_branch[f"0.{i}"]) == one.branches[-1]


@pytest.mark.parametrize("nesterov", [False, True])
def test_without_a_threshold_it_is_sgd_with_decoupled_decay(nesterov: bool) -> None:
    ours, theirs = parameters(), parameters()
    given_ = {"lr": 0.05, "momentum": 0.9, "nesterov": nesterov}
    optimizer = SGDP(ours, delta=0.0, weight_decay=0.01, **given_)
    sgd = torch.optim.SGD(theirs, foreach=False, **given_)
    for step in range(6):
        set_gradients(ours, step)
        for p, q in zip(ours, theirs):
            q.grad = p.grad.clone()
        optimizer.step()
        with torch.no_grad():
            for q in theirs:
                q.mul_(1 - 0.05 * 0.01 / (1 - 0.9))
        sgd.step()
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-12, atol=1e-14)


def test_dampening_acts_from_step_one() -> None:
    (weight,) = parameters(((7,),))
    before = weight.detach().clone()
    optimizer = SGDP([weight], lr=1.0, momentum=0.5, dampening=0.25)
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    # buffers 0.75 and 0.5 * 0.75 + 0.75 (torch.optim.SGD would start with 1)
    torch.testing.assert_close(weight.detach(), before - 0.75 - 1.125)


@pytest.mark.parametrize("path", ["single", "foreach", pytest.param("fused", marks=slow)])
def test_the_buffer_is_never_projected(path: str) -> None:
    """The released code projects it in place with nesterov=False."""
    params = parameters(((6, 4),))
    optimizer = SGDP(params, lr=0.1, momentum=0.9, delta=math.inf, **PATHS[path])
    want = torch.zeros(6, 4, dtype=torch.float64)
    for step in range(4):
        set_gradients(params, step)
        want = 0.9 * want + params[0].grad
        optimizer.step()
        buffer = optimizer.state[params[0]]["momentum_buffer"]
        torch.testing.assert_close(buffer, want, rtol=1e-12, atol=1e-14)
        along = (params[0].detach() * buffer).sum(1)
        assert along.abs().max() > 1e-3 or step == 0


# ---------------------------------------------------------------- scale-invariant losses


def loss(weight: Tensor) -> Tensor:
    """f(w / |w|) by row: a smooth function of directions."""
    n = weight / weight.norm(dim=1, keepdim=True)
    return (n @ torch.tensor([1.0, -2.0, 0.5, 0.3], dtype=torch.float64)).exp().sum()


def run(make: Callable[[list[nn.Parameter]], Any], steps: int) -> list[tuple[Tensor, Tensor]]:
    """Weights before each step and the gradients there; the last has no gradient."""
    (weight,) = parameters(((3, 4),))
    optimizer = make([weight])
    seen = []
    for _ in range(steps):
        (weight.grad,) = torch.autograd.grad(loss(weight), weight)
        seen.append((weight.detach().clone(), weight.grad.clone()))
        optimizer.step()
    return [*seen, (weight.detach().clone(), torch.zeros(3, 4))]


def squares(x: Tensor) -> Tensor:
    return (x * x).sum(1)


def assert_exact(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)


def test_gradient_descent_lengthens_by_pythagoras() -> None:
    lr = 0.3
    seen = run(lambda p: SGDP(p, lr=lr, delta=0.0), 8)
    for (before, grad), (after, _) in pairwise(seen):
        assert (before * grad).sum(1).abs().max() < 1e-14
        assert_exact(squares(after), squares(before) + lr**2 * squares(grad))


def test_momentum_lengthens_by_the_formula_of_the_paper() -> None:
    """|w_{t+1}|^2 = |w_t|^2 + lr^2 |p_t|^2 + 2 lr^2 sum_{k<t} beta^{t-k} |p_k|^2."""
    lr, beta = 0.2, 0.9
    seen = run(lambda p: SGDP(p, lr=lr, momentum=beta, delta=0.0), 12)
    buffers: list[Tensor] = []
    for (before, grad), (after, _) in pairwise(seen):
        buffers.append(grad if not buffers else beta * buffers[-1] + grad)
        t = len(buffers) - 1
        past = sum((beta ** (t - k) * squares(b) for k, b in enumerate(buffers[:-1])), 0.0)
        want = squares(before) + lr**2 * squares(buffers[-1]) + 2 * lr**2 * past
        assert_exact(squares(after), want)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgdp_lengthens_by_pythagoras_alone(nesterov: bool) -> None:
    lr = 0.2
    make = lambda p: SGDP(p, lr=lr, momentum=0.9, nesterov=nesterov, eps=1e-16)  # noqa: E731
    seen = run(make, 12)
    for (before, _), (after, _) in pairwise(seen):
        step = (after - before) / lr
        assert_exact(squares(after), squares(before) + lr**2 * squares(step))
    plain = run(lambda p: SGDP(p, lr=lr, momentum=0.9, delta=0.0, nesterov=nesterov), 12)
    assert (squares(seen[-1][0]) < squares(plain[-1][0])).all()


@given(seed=st.integers(0, 1000), momentum=st.sampled_from([0.0, 0.9]), foreach=st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_projected_step_never_shortens(seed: int, momentum: float, foreach: bool) -> None:
    params = parameters(((5, 3), (2, 2, 2)), seed=seed)
    optimizer = SGDP(params, lr=0.1, momentum=momentum, delta=math.inf, foreach=foreach, eps=1e-12)
    for step in range(4):
        before = [p.detach().flatten(1).clone() for p in params]
        set_gradients(params, step, seed=seed)
        optimizer.step()
        for old, param in zip(before, params):
            new = param.detach().flatten(1)
            moved = new - old
            assert (new.norm(dim=1) >= old.norm(dim=1) * (1 - 1e-12)).all()
            along = (old * moved).sum(1).abs()
            assert (along <= 1e-7 * old.norm(dim=1) * moved.norm(dim=1) + 1e-15).all()


def test_momentum_lengthens_far_faster_than_descent() -> None:
    """Under noise momentum beta lengthens |w|^2 by 1 / (1 - beta)^2 of what descent does.

    The buffers' squares are 1 / (1 - beta^2) times the gradients', and the formula above turns
    that into (1 + 2 beta / (1 - beta)) / (1 - beta^2).
    """

    def growth(beta: float) -> float:
        noise = torch.Generator().manual_seed(0)
        (weight,) = parameters(((1, 50),), seed=3)
        start = squares(weight.detach())
        optimizer = SGDP([weight], lr=1e-4, momentum=beta, delta=0.0)
        for _ in range(800):
            g = torch.randn(1, 50, dtype=torch.float64, generator=noise)
            w = weight.detach()
            weight.grad = g - w * (g * w).sum() / squares(w)
            optimizer.step()
        return float(squares(weight.detach()) - start)

    assert growth(0.9) / growth(0.0) == pytest.approx(100.0, rel=0.1)


# ---------------------------------------------------------------- peers, checkpoints


def peer(module: str, name: str) -> Any:
    return getattr(pytest.importorskip(module, reason=f"peer {module} not installed"), name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_authors_package_agrees_with_nesterov_only(nesterov: bool) -> None:
    theirs_class = peer("adamp", "SGDP")
    given_ = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "nesterov": nesterov}
    shapes = ((6, 4), (3, 2, 3, 3), (7,))
    ours, theirs = parameters(shapes), parameters(shapes)
    train(SGDP(ours, **given_), ours, range(9))
    train(theirs_class(theirs, **given_), theirs, range(9))
    apart = max(float((a - b).abs().max()) for a, b in zip(ours, theirs))
    assert apart < 1e-12 if nesterov else apart > 1e-3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("nesterov", [False, True])
def test_equals_pytorch_optimizer(nesterov: bool) -> None:
    theirs_class = peer("pytorch_optimizer", "SGDP")
    given_ = {"lr": 0.05, "momentum": 0.9, "nesterov": nesterov}
    shapes = ((6, 4), (3, 2, 3, 3), (7,))
    ours, theirs = parameters(shapes), parameters(shapes)
    train(SGDP(ours, **given_), ours, range(9))
    train(theirs_class(theirs, **given_), theirs, range(9))
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-11, atol=1e-12)


def test_loads_checkpoints_of_the_released_code() -> None:
    ours = parameters(((6, 4), (7,)))
    optimizer = SGDP(ours, lr=0.05, momentum=0.9, nesterov=True)
    train(optimizer, ours, range(3))
    state = copy.deepcopy(optimizer.state_dict())
    for found in state["state"].values():
        found["momentum"] = found.pop("momentum_buffer")
    for group in state["param_groups"]:
        for name in ("foreach", "fused", "maximize", "differentiable", "channel_dim"):
            del group[name]
    other = [nn.Parameter(x) for x in values(ours)]
    loaded = SGDP(other, lr=0.5)
    loaded.load_state_dict(state)
    train(optimizer, ours, range(3, 6))
    train(loaded, other, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(ours, other))


def test_functional_form() -> None:
    params = parameters(((6, 4), (7,)))
    others = [p.detach().clone() for p in params]
    grads = [torch.ones_like(p) for p in others]
    buffers = [torch.zeros_like(p) for p in others]
    branches = sgdp(
        others, grads, buffers, lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.1,
        nesterov=True, eps=1e-8, delta=0.1, wd_ratio=0.1,
    )  # fmt: skip
    for param, grad in zip(params, grads):
        param.grad = grad
    SGDP(params, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True).step()
    assert all(torch.equal(a, b) for a, b in zip(params, others))
    assert branches == [0, -1]
