"""AdaHessian: the authors' steps, closed forms, averaging, refreshes, accumulation and state."""

from __future__ import annotations

import copy
import gc
import io
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.optim.adahessian_cases import ARGUMENTS, NAMES, STEPS, Net, f64, probe
from torch import Tensor, nn

from gradworks.optim import AdaHessian
from gradworks.optim.adahessian.averaging import smoothed


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("way", ["estimate", "backward", "given"])
@pytest.mark.parametrize("case", ARGUMENTS)
def test_golden_steps(case: str, way: str, foreach: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    opt = AdaHessian(net.parameters(), foreach=foreach, **ARGUMENTS[case])
    for t in range(8):
        opt.zero_grad()
        loss = net.loss()
        assert float(loss.detach()) == pytest.approx(float(STEPS[f"{case}_loss"][t]), rel=1e-9)
        if way == "estimate":
            opt.estimate(loss, vectors=probe(t))
        elif way == "backward":
            monkeypatch.setattr(opt, "_samples", lambda *_, t=t: [probe(t)])
            loss.backward(create_graph=True)
        else:
            loss.backward()
            grads = torch.autograd.grad(net.loss(), list(net.parameters()), create_graph=True)
            products = torch.autograd.grad(grads, list(net.parameters()), probe(t))
            opt.set_hessian([z * h for z, h in zip(probe(t), products)])
            if case == "default":
                for name, h in zip(NAMES, products):
                    want = f64(STEPS[f"default_hz_{name}"][t])
                    torch.testing.assert_close(h, want, rtol=1e-9, atol=1e-11)
        opt.step()
        assert all(p.grad is None or not p.grad.requires_grad for p in net.parameters())
        for name in NAMES:
            want = f64(STEPS[f"{case}_{name}"][t])
            torch.testing.assert_close(getattr(net, name).detach(), want, rtol=1e-9, atol=1e-11)


@given(seed=st.integers(0, 1000), negative=st.booleans())
@settings(max_examples=20)
def test_a_diagonal_quadratic_takes_one_step(seed: int, negative: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    a = torch.rand(6, generator=g, dtype=torch.float64) + 0.1
    start = torch.randn(6, generator=g, dtype=torch.float64)
    w = nn.Parameter(start.clone())
    opt = AdaHessian([w], lr=1.0, betas=(0.0, 0.0), eps=0.0, generator=g)
    opt.estimate(0.5 * ((-a if negative else a) * w * w).sum())
    opt.step()
    # with negative curvature the absolute value makes it ascend from the maximum: w doubles
    torch.testing.assert_close(w.detach(), 2 * start if negative else 0 * start)


def test_power_zero_is_sgd_with_momentum() -> None:
    w = nn.Parameter(f64([1.0, -2.0]))
    opt = AdaHessian([w], lr=0.1, betas=(0.9, 0.99), eps=0.5, hessian_power=0.0)
    want, m = w.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for t in range(1, 6):
        opt.zero_grad()
        opt.estimate((w**4).sum())
        m = 0.9 * m + 0.1 * 4 * want**3
        want = want - 0.1 / 1.5 * m / (1 - 0.9**t)
        opt.step()
        torch.testing.assert_close(w.detach(), want)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 64])
def test_one_probe_estimates_rows_and_many_the_diagonal(samples: int) -> None:
    g = torch.Generator().manual_seed(0)
    A = torch.randn(5, 5, generator=g, dtype=torch.float64)
    H = (A + A.T) / 2
    w = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    w.grad = torch.zeros_like(w)
    opt = AdaHessian([w], lr=0.0, betas=(0.9, 0.9999))
    refreshes = 20_000 if samples == 1 else 2_000
    z = torch.randint(0, 2, (refreshes, samples, 5), generator=g).double() * 2 - 1
    estimates = (z * (z @ H)).mean(1)
    for D in estimates:
        opt.set_hessian([D])
        opt.step()
    state = opt.state[w]
    found = (state["exp_hessian_diag_sq"] / (1 - 0.9999**refreshes)).sqrt()
    if samples == 1:
        torch.testing.assert_close(found, H.norm(dim=1), rtol=0.02, atol=0)
    else:
        off = (H.square().sum(1) - H.diagonal() ** 2) / samples
        torch.testing.assert_close(found, (H.diagonal() ** 2 + off).sqrt(), rtol=0.05, atol=0)


def test_many_samples_are_averaged_with_their_sign() -> None:
    H = f64([[1.0, 5.0], [5.0, 2.0]])
    w = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    opt = AdaHessian([w], n_samples=256, generator=torch.Generator().manual_seed(0))
    opt.estimate(0.5 * w @ H @ w)
    found = opt._pending[w]
    torch.testing.assert_close(found, H.diagonal(), rtol=0, atol=1.0)
    with pytest.raises(ValueError, match="n_samples=1"):
        opt.estimate(0.5 * w @ H @ w, vectors=[torch.ones_like(w)])


def test_the_product_is_joint() -> None:
    a, b = (nn.Parameter(f64(2.0)), nn.Parameter(f64(3.0)))
    opt = AdaHessian([a, b], lr=0.1)
    opt.estimate(a * b)
    # H is off the diagonal: a product of each parameter alone would be zero
    assert [abs(float(opt._pending[p])) for p in (a, b)] == [1.0, 1.0]


def test_the_sign_of_the_probe_does_not_matter() -> None:
    def run(sign: float) -> list[Tensor]:
        net = Net()
        opt = AdaHessian(net.parameters())
        for t in range(3):
            opt.zero_grad()
            opt.estimate(net.loss(), vectors=[sign * z for z in probe(t)])
            opt.step()
        return [p.detach() for p in net.parameters()]

    for p, q in zip(run(1.0), run(-1.0)):
        assert torch.equal(p, q)


@pytest.mark.parametrize(
    ("mode", "shape", "dims"),
    [
        ("spatial", (4, 3), ()), ("spatial", (4, 3, 5), (2,)), ("spatial", (4, 3, 5, 2), (2, 3)),
        ("spatial", (2, 3, 2, 2, 2), (2, 3, 4)), ("spatial", (7,), ()), ("row", (4, 3), (1,)),
        ("row", (4, 3, 5), (2,)), ("row", (6,), ()), ("none", (4, 3, 5, 2), ()), ("row", (), ()),
    ],
)  # fmt: skip
def test_averaging(mode: str, shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    D = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want = D.abs().mean(dims, keepdim=True).expand_as(D) if dims else D.abs()
    torch.testing.assert_close(smoothed(D, mode).abs(), want)


def test_averaging_in_blocks_takes_absolute_values_first() -> None:
    D = f64([[1.0, -3.0, 2.0], [2.0, -4.0, 0.0]])
    want = f64([[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]])
    torch.testing.assert_close(smoothed(D, {2: 2}), want)
    assert torch.equal(smoothed(D, {3: 2}), D)


# ---------------------------------------------------------------- refreshes, accumulation, state


def test_refreshes_are_counted_apart() -> None:
    net = Net()
    opt = AdaHessian(net.parameters(), update_each=3)
    seen = []
    for _ in range(7):
        seen.append(opt.needs_hessian)
        opt.zero_grad()
        opt.estimate(net.loss())
        before = opt.state[net.w1].get("exp_hessian_diag_sq")
        before = None if before is None else before.clone()
        opt.step()
        after = opt.state[net.w1]["exp_hessian_diag_sq"]
        assert (before is not None and torch.equal(before, after)) != seen[-1]
    assert seen == [True, False, False, True, False, False, True]
    state = opt.state[net.w1]
    assert (state["step"], state["hessian_step"]) == (7, 3)


def test_between_refreshes_no_graph_is_needed() -> None:
    net = Net()
    opt = AdaHessian(net.parameters(), update_each=2)
    opt.estimate(net.loss())
    opt.step()
    opt.zero_grad()
    net.loss().backward()
    opt.step()
    opt.zero_grad()
    net.loss().backward()
    with pytest.raises(RuntimeError, match=r"estimate\(loss\).*create_graph=True"):
        opt.step()


def test_a_late_group_is_due_at_its_first_step() -> None:
    a, b = nn.Parameter(f64([1.0])), nn.Parameter(f64([1.0]))
    opt = AdaHessian([a], update_each=2)
    opt.estimate((a**4).sum())
    opt.step()
    opt.add_param_group({"params": [b]})
    assert opt.needs_hessian
    opt.zero_grad()
    opt.estimate((a**4 + b**4).sum())
    opt.step()
    assert (opt.state[a]["hessian_step"], opt.state[b]["hessian_step"]) == (1, 1)


def test_halves_add_up_to_the_whole() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, generator=g, dtype=torch.float64)

    def run(parts: list[Tensor]) -> list[Tensor]:
        model = nn.Linear(3, 2).double()
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(0.3)
        opt = AdaHessian(model.parameters(), generator=torch.Generator().manual_seed(1))
        for _ in range(3):
            opt.zero_grad()
            for part in parts:
                opt.estimate(model(part).exp().mean() * (len(part) / 8))
            opt.step()
        return [p.detach() for p in model.parameters()]

    for p, q in zip(run([x]), run([x[:4], x[4:]])):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_gradients_add_to_what_is_there() -> None:
    w = nn.Parameter(f64([2.0]))
    w.grad = f64([1.0])
    AdaHessian([w]).estimate((w**2).sum())
    assert float(w.grad) == 5.0


@pytest.mark.parametrize("way", ["estimate", "backward", "difference"])
@pytest.mark.filterwarnings("ignore:Using backward")
def test_no_graph_is_left_behind(way: str) -> None:
    net = Net()
    opt = AdaHessian(net.parameters())

    def count() -> int:
        return sum(issubclass(type(o), Tensor) for o in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        counts = []
        for step in range(50):
            opt.zero_grad()
            if way == "estimate":
                opt.estimate(net.loss())
            elif way == "backward":
                net.loss().backward(create_graph=True)
            else:
                opt.estimate_from(net.loss)
            opt.step()
            if step in (5, 20, 35, 49):
                counts.append(count())
    finally:
        gc.enable()
    assert len(set(counts)) == 1, counts


@pytest.mark.parametrize("way", ["estimate", "backward"])
@pytest.mark.filterwarnings("ignore:Using backward")
def test_a_dropped_network_is_freed_without_zero_grad(way: str) -> None:
    net = Net()
    opt = AdaHessian(net.parameters())
    if way == "estimate":
        opt.estimate(net.loss())
    else:
        net.loss().backward(create_graph=True)
    opt.step()
    last = weakref.ref(net.w1)
    del net, opt
    gc.collect()
    assert last() is None  # a graph on .grad would hold the weight, and the weight its .grad


def test_resume_is_bit_for_bit_with_the_generator() -> None:
    def start(seed: int) -> tuple[Net, AdaHessian]:
        net = Net()
        generator = torch.Generator().manual_seed(seed)
        return net, AdaHessian(net.parameters(), update_each=2, generator=generator)

    def go(net: Net, opt: AdaHessian, steps: int) -> None:
        for _ in range(steps):
            opt.zero_grad()
            opt.estimate(net.loss())
            opt.step()

    net, opt = start(3)
    go(net, opt, 5)
    buffer = io.BytesIO()
    torch.save((net.state_dict(), opt.state_dict()), buffer)
    buffer.seek(0)
    weights, state = torch.load(buffer, weights_only=True)
    other, resumed = start(99)
    other.load_state_dict(weights)
    resumed.load_state_dict(state)
    copied_net, copied = copy.deepcopy((net, opt))
    for n, o in ((net, opt), (other, resumed), (copied_net, copied)):
        go(n, o, 5)
    for p, q, r in zip(net.parameters(), other.parameters(), copied_net.parameters()):
        assert torch.equal(p, q)
        assert torch.equal(p, r)
    assert resumed.state[other.w1]["hessian_step"] == 5


def test_state_of_half_parameters_keeps_its_counts() -> None:
    w = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    opt = AdaHessian([w])
    w.grad = torch.ones_like(w)
    opt.set_hessian([torch.ones_like(w)])
    opt.step()
    opt.state[w]["hessian_step"].fill_(1001)  # not a bfloat16
    opt.state[w]["step"].fill_(1001)
    other = AdaHessian([nn.Parameter(w.detach().clone())])
    other.load_state_dict(opt.state_dict())
    (state,) = other.state.values()
    assert (state["hessian_step"], float(state["step"])) == (1001, 1001.0)


def test_a_hook_may_load_another_checkpoint() -> None:
    """Counts of estimates come from the state that is loaded, not from that which was given."""
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    old = AdaHessian(params)
    loss = (params[0] ** 4).sum() + (params[1] ** 4).sum()
    old.estimate(loss)
    old.step()
    saved = old.state_dict()
    saved["state"][0]["hessian_step"] = torch.tensor(7.0)
    other = AdaHessian(params)
    other.register_load_state_dict_pre_hook(
        lambda _, given: {**given, "state": {0: given["state"][1], 1: given["state"][0]}}
    )
    other.load_state_dict(saved)
    assert [float(other.state[p]["hessian_step"]) for p in params] == [1.0, 7.0]
