"""Langevin in a training loop: paths, layouts, state, schedules, scalers, NaN."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
from tests.optim.langevin_cases import (
    PATHS,
    assert_same,
    gen,
    give,
    manifolds,
    naive,
    parameters,
    paths,
    values,
    walk,
)
from torch import Tensor, nn

from gradworks.optim.langevin import (
    Langevin,
    langevin_step,
)

# ---------------------------------------------------------------- paths and layouts


@manifolds
def test_paths_agree(manifold: str) -> None:
    runs = []
    for path in PATHS.values():
        params = parameters()
        walk(Langevin(params, 0.1, 0.3, manifold=manifold, generator=gen(), **path), params,
             range(5))  # fmt: skip
        runs.append(values(params))
    for a, b in zip(*runs):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


@manifolds
@paths
def test_many_dtypes_in_one_group(manifold: str, path: str) -> None:
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float64)
    params = [
        nn.Parameter(p.detach().to(dtype)) for p, dtype in zip(parameters(((4, 6),) * 5), dtypes)
    ]
    exact = [nn.Parameter(p.detach().double()) for p in params]
    # each alone, with noise of its own dtype, in float64 arithmetic
    optimizer = Langevin(params, 0.1, 0.2, manifold=manifold, generator=gen(3), **PATHS[path])
    source = gen(3)
    for step in range(2):
        give(params, step)
        for p, q in zip(params, exact):
            work = torch.float32 if p.element_size() == 2 else p.dtype
            xi = torch.empty(p.shape, dtype=work).normal_(generator=source).double()
            q.data = langevin_step(q.data, p.grad.double(), xi, 0.1, 0.2, manifold)
        optimizer.step()
    for p, q, dtype in zip(params, exact, dtypes):
        assert p.dtype == dtype
        tolerance = {torch.bfloat16: 2e-2, torch.float16: 3e-3, torch.float32: 1e-5}.get(
            dtype, 1e-12
        )
        torch.testing.assert_close(p.detach().double(), q.detach(), rtol=tolerance, atol=tolerance)


@manifolds
@paths
def test_complex_is_pairs_of_reals(manifold: str, path: str) -> None:
    paired = [nn.Parameter(torch.randn(3, 4, generator=gen(8), dtype=torch.complex128))]
    real = [nn.Parameter(torch.view_as_real(paired[0].detach()).flatten(-2).clone())]
    for params in (paired, real):
        optimizer = Langevin(params, 0.1, 0.3, manifold=manifold, generator=gen(), **PATHS[path])
        for step in range(3):
            grad = torch.randn(3, 8, generator=gen(step), dtype=torch.float64)
            if params is paired:
                grad = torch.view_as_complex(grad.view(3, 4, 2))
            params[0].grad = grad
            optimizer.step()
    torch.testing.assert_close(
        torch.view_as_real(paired[0].detach()).flatten(-2), real[0].detach(), rtol=1e-13, atol=0
    )
    scalar = nn.Parameter(torch.tensor(1.0 + 2.0j))
    scalar.grad = torch.tensor(0.5 + 0.0j)
    Langevin([scalar], 0.1, 0.0, manifold="euclidean").step()
    assert complex(scalar.detach()) == pytest.approx(0.95 + 2.0j)


@paths
def test_memory_formats_and_gaps_agree(path: str) -> None:
    plain = parameters(((4, 3, 3, 3),))
    last = [nn.Parameter(plain[0].detach().contiguous(memory_format=torch.channels_last))]
    room = torch.zeros(4, 3, 3, 6, dtype=torch.float64)
    room[..., ::2] = plain[0].detach()
    gaps = [nn.Parameter(room[..., ::2])]
    for params in (plain, last, gaps):
        walk(Langevin(params, 0.1, 0.3, generator=gen(), **PATHS[path]), params, range(3))
    for other in (last, gaps):
        torch.testing.assert_close(other[0].detach(), plain[0].detach(), rtol=1e-13, atol=1e-14)
    assert last[0].is_contiguous(memory_format=torch.channels_last)
    assert not room[..., 1::2].any()


@manifolds
@paths
@pytest.mark.parametrize("temperature", [0.0, 0.4])
def test_no_value_is_read_off_an_accelerator(manifold: str, path: str, temperature: float) -> None:
    """Tensors of the device ``meta`` have no values: a step that needs one fails on them."""
    params = [nn.Parameter(p.detach().to("meta")) for p in parameters()]
    for source in (None, gen()):
        optimizer = Langevin(
            params, 0.1, temperature, manifold=manifold, generator=source, **PATHS[path]
        )
        for param in params:
            param.grad = torch.empty_like(param)
        optimizer.step()


def test_empty_and_scalar_parameters_in_space() -> None:
    params = [nn.Parameter(torch.randn(s)) for s in ((), (1,), (0, 3), (5, 1))]
    optimizer = Langevin(params, 0.1, 0.2, manifold="euclidean", generator=gen())
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert all(p.isfinite().all() for p in params)
    on_sphere = nn.Parameter(torch.randn(0, 3))
    on_sphere.grad = torch.zeros(0, 3)
    Langevin([on_sphere], 0.1, 0.2).step()


# ---------------------------------------------------------------- state


@paths
@manifolds
def test_resume_is_bit_for_bit(manifold: str, path: str) -> None:
    whole = parameters()
    walk(Langevin(whole, 0.1, 0.3, manifold=manifold, generator=gen(), **PATHS[path]), whole,
         range(7))  # fmt: skip
    params = parameters()
    optimizer = Langevin(params, 0.1, 0.3, manifold=manifold, generator=gen(), **PATHS[path])
    walk(optimizer, params, range(3))
    buffer = io.BytesIO()
    torch.save({"params": values(params), "optimizer": optimizer.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    for source in (None, gen(77)):  # one is made where there is none
        resumed = [nn.Parameter(x.clone()) for x in saved["params"]]
        second = Langevin(resumed, 0.5, 9.0, generator=source)
        second.load_state_dict(saved["optimizer"])
        assert second.param_groups[0]["temperature"] == 0.3
        walk(second, resumed, range(3, 7))
        assert_same(values(resumed), values(whole))


def test_copies_and_pickles_go_on_alike() -> None:
    params = parameters()
    optimizer = Langevin(params, 0.1, 0.3, generator=gen())
    walk(optimizer, params, range(2))
    copies = [copy.deepcopy((optimizer, params)), pickle.loads(pickle.dumps((optimizer, params)))]
    walk(optimizer, params, range(2, 4))
    for other, own in copies:
        assert other.generator is not optimizer.generator
        walk(other, own, range(2, 4))
        assert_same(values(own), values(params))


def test_without_a_generator_torch_is_asked() -> None:
    runs = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(11)
            params = parameters()
            optimizer = Langevin(params, 0.1, 0.3)
            walk(optimizer, params, range(2))
            runs.append(values(params))
    assert_same(*runs)
    assert "generator" not in optimizer.state_dict()


@paths
def test_groups_schedules_and_skipped_parameters(path: str) -> None:
    first, second, unused = parameters(((4, 6), (5, 8), (3, 3)))
    groups = [{"params": [first]}, {"params": [second, unused], "lr": 0.3, "temperature": 0.0}]
    source = gen(2)
    optimizer = Langevin(groups, 0.1, 0.5, generator=source, **PATHS[path])
    want = [p.detach().clone() for p in (first, second, unused)]
    by_hand = gen(2)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for step in range(3):
        give([first, second], step)
        optimizer.param_groups[0]["temperature"] = 0.5 / (1 + step)
        xi = torch.empty_like(first).normal_(generator=by_hand)  # none for the cold and the unused
        want[0] = naive(want[0], first.grad, xi, 0.1 * 0.5**step, 0.5 / (1 + step), True)
        want[1] = naive(want[1], second.grad, torch.zeros_like(want[1]), 0.3 * 0.5**step, 0.0, True)
        optimizer.step()
        schedule.step()
    for p, q in zip((first, second, unused), want):
        torch.testing.assert_close(p.detach(), q, rtol=1e-12, atol=1e-13)
    assert torch.equal(source.get_state(), by_hand.get_state())


@paths
@manifolds
def test_lr_as_tensor(manifold: str, path: str) -> None:
    runs = []
    for lr in (
        0.1,
        torch.tensor(0.1, dtype=torch.float64),
        torch.tensor([0.1], dtype=torch.float64),
    ):
        params = parameters()
        optimizer = Langevin(params, lr, 0.3, manifold=manifold, generator=gen(), **PATHS[path])
        walk(optimizer, params, range(3))
        runs.append(values(params))
    for run in runs[1:]:
        for a, b in zip(run, runs[0]):
            torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


# ---------------------------------------------------------------- what a training loop does


@paths
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_without_a_finite_gradient_rests(path: str, bad: float) -> None:
    theta = nn.Parameter(torch.randn(3, 5, generator=gen(), dtype=torch.float64))
    before = theta.detach().clone()
    clean = nn.Parameter(before.clone())
    for param in (theta, clean):
        param.grad = torch.ones(3, 5, dtype=torch.float64)
        if param is theta:
            param.grad[1, 2] = bad
        Langevin([param], 0.1, 0.3, generator=gen(1), **PATHS[path]).step()
    assert torch.equal(theta[1], before[1])
    assert torch.equal(theta[::2], clean[::2])
    flat = nn.Parameter(before.clone())
    flat.grad = torch.full_like(flat, 0.5)
    flat.grad[1, 2] = bad
    Langevin([flat], 0.1, 0.0, manifold="euclidean", **PATHS[path]).step()
    want = before - 0.05
    want[1, 2] = before[1, 2]
    torch.testing.assert_close(flat.detach(), want)


@paths
@pytest.mark.parametrize(("size", "spike"), [(1.0, 1e22), (1e20, 1e20), (1e-15, 1e19)])
def test_a_row_whose_squares_overflow_rests(path: str, size: float, spike: float) -> None:
    """Its norm cannot be kept: it would go to zero, and to NaN with the next step."""
    theta = nn.Parameter(torch.tensor([[size, 2 * size, 3 * size], [1.0, 1.0, 1.0]]))
    before = theta.detach().clone()
    theta.grad = torch.tensor([[spike, -spike, spike], [1.0, 0.0, 0.0]])
    function = langevin_step(theta.detach(), theta.grad, None, 0.1, 0.0)
    assert bool(function[0].isnan().all())  # the function says so
    optimizer = Langevin([theta], 0.1, 0.0, **PATHS[path])
    for _ in range(2):
        optimizer.step()
        assert torch.equal(theta[0], before[0])
        assert not torch.equal(theta[1], before[1])
    assert float(theta[1].detach().norm()) == pytest.approx(3**0.5, rel=1e-6)


def test_grad_scaler_skips_infinite_gradients() -> None:
    theta = nn.Parameter(torch.randn(4, 6, generator=gen()))
    source = gen(1)  # not the numbers that theta is made of
    optimizer = Langevin([theta], 0.1, 0.3, generator=source)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before, state = theta.detach().clone(), source.get_state()
    scaler.scale((theta * math.inf).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(theta, before)
    assert torch.equal(source.get_state(), state)  # a skipped step draws nothing
    optimizer.zero_grad()
    scaler.scale((theta**2).sum()).backward()
    scaler.step(optimizer)
    assert not torch.equal(theta, before)


def test_closure_hooks_and_late_groups() -> None:
    theta = nn.Parameter(torch.randn(3, 5, generator=gen()))
    optimizer = Langevin([theta], 0.01, 0.0)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (theta**3).sum()
        loss.backward()
        calls.append(str(torch.is_grad_enabled()))
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert calls == ["pre", "True", "post"]
    assert float((theta.detach() ** 3).sum()) < float(loss.detach())
    with pytest.raises(ValueError, match="row of norm 0"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2, 3))]})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group(
        {"params": [nn.Parameter(torch.zeros(2, 3))], "manifold": "euclidean", "temperature": 1.0}
    )
    assert optimizer.step() is None


def test_maximize_negates_the_gradient_only() -> None:
    runs = []
    for sign, maximize in ((1.0, True), (-1.0, False)):
        params = parameters()
        optimizer = Langevin(params, 0.1, 0.3, generator=gen(), maximize=maximize)
        give(params, 0)
        for p in params:
            p.grad *= sign
        kept = [p.grad.clone() for p in params]
        optimizer.step()
        assert_same([p.grad for p in params], kept)
        runs.append(values(params))
    assert_same(*runs)


def test_a_network_with_spherical_rows_trains() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16, bias=False), nn.LayerNorm(16), nn.Linear(16, 3))
        x, y = torch.randn(60, 6), torch.arange(60) % 3
    groups = [
        {"params": [model[0].weight]},
        {"params": [*model[1].parameters(), *model[2].parameters()], "manifold": "euclidean"},
    ]
    norms = model[0].weight.detach().norm(dim=1)
    optimizer = Langevin(groups, 0.5, 1e-5, generator=gen())
    losses = []
    for _ in range(150):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    torch.testing.assert_close(model[0].weight.detach().norm(dim=1), norms)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_compiled_cold_step_on_the_sphere() -> None:
    runs = []
    for compiled in (False, True):
        params = parameters(((4, 6), (7,)), torch.float32)
        lr = torch.tensor(0.1)
        optimizer = Langevin(params, lr, 0.0)
        step = torch.compile(optimizer.step) if compiled else optimizer.step
        for i in range(4):
            give(params, i)
            lr.fill_(0.1 / (1 + i))
            step()
        runs.append(values(params))
    torch.testing.assert_close(*runs)
