"""AdaHessian without second derivatives, with scaled losses, what it refuses, and a peer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.optim.adahessian_cases import Net, f64
from torch import Tensor, nn

from gradworks.optim import AdaHessian
from gradworks.optim.adahessian.curvature import Probes

# ---------------------------------------------------------------- differences


@pytest.mark.parametrize("samples", [1, 3])
def test_differences_are_the_product(samples: int) -> None:
    net, other = Net(), Net()
    exact, near = (
        AdaHessian(n.parameters(), n_samples=samples, generator=torch.Generator().manual_seed(0))
        for n in (net, other)
    )
    exact.estimate(net.loss())
    loss = near.estimate_from(other.loss, h=1e-6)
    assert float(loss) == float(net.loss().detach())
    for p, q in zip(net.parameters(), other.parameters()):
        assert torch.equal(p, q)  # the weights are what they were
        torch.testing.assert_close(q.grad, p.grad)
        torch.testing.assert_close(near._pending[q], exact._pending[p], rtol=1e-3, atol=1e-5)


def test_differences_see_the_same_dropout_and_leave_running_statistics() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    model.double()
    twin = copy.deepcopy(model)
    x = torch.randn(16, 3, dtype=torch.float64)
    opt = AdaHessian(model.parameters(), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    opt.estimate_from(lambda: model(x).square().mean(), module=model, h=1e-5)
    after = torch.get_rng_state()
    torch.manual_seed(5)
    exact = AdaHessian(twin.parameters(), generator=torch.Generator().manual_seed(0))
    exact.estimate(twin(x).square().mean())
    assert torch.equal(after, torch.get_rng_state())  # one pass's worth of numbers was drawn
    for b, c in zip(model.buffers(), twin.buffers()):
        assert torch.equal(b, c)
    for p, q in zip(model.parameters(), twin.parameters()):
        torch.testing.assert_close(opt._pending[p], exact._pending[q], rtol=0.05, atol=1e-3)


def test_differences_survive_an_exception() -> None:
    w = nn.Parameter(f64([1.0]))
    w.grad = f64([7.0])
    calls: list[int] = []

    def closure() -> Tensor:
        calls.append(0)
        if len(calls) == 2:
            raise ValueError("data")
        return (w**4).sum()

    opt = AdaHessian([w])
    with pytest.raises(ValueError, match="data"):
        opt.estimate_from(closure)
    assert float(w.detach()) == 1.0


def test_what_differences_refuse() -> None:
    w = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    with pytest.raises(RuntimeError, match="needs float32 parameters"):
        AdaHessian([w]).estimate_from(lambda: (w**2).sum())
    v = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="h must be above 0"):
        AdaHessian([v]).estimate_from(lambda: (v**2).sum(), h=0.0)


def test_a_failed_difference_leaves_gradients_as_they_were() -> None:
    w = nn.Parameter(f64([1.0]))
    w.grad = f64([7.0])
    calls: list[int] = []

    def closure() -> Tensor:
        calls.append(0)
        if len(calls) == 2:
            raise ValueError("data")
        return (w**4).sum()

    opt = AdaHessian([w])
    with pytest.raises(ValueError, match="data"):
        opt.estimate_from(closure)
    assert float(w.grad) == 7.0
    opt.estimate_from(closure)  # tried again: once, not twice
    assert float(w.grad) == 11.0


# ---------------------------------------------------------------- loss scaling


class Scaler(torch.amp.GradScaler):
    """A scaler that works on CPU."""

    def __init__(self) -> None:
        super().__init__("cpu", init_scale=1024.0)


@pytest.mark.filterwarnings("ignore:Using backward")
def test_scaled_losses_must_be_unscaled() -> None:
    net, plain = Net(), Net()
    opt = AdaHessian(net.parameters(), generator=torch.Generator().manual_seed(0))
    want = AdaHessian(plain.parameters(), generator=torch.Generator().manual_seed(0))
    scaler = Scaler()
    scaler.scale(net.loss()).backward(create_graph=True)
    opt.unscale_hessian_(scaler.get_scale())
    scaler.step(opt)
    scaler.update()
    want.estimate(plain.loss())
    want.step()
    for p, q in zip(net.parameters(), plain.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11)
    opt.zero_grad()
    scaler.scale(net.loss()).backward(create_graph=True)
    with pytest.raises(RuntimeError, match="unscale_hessian_"):
        scaler.step(opt)
    opt.zero_grad()
    other = Scaler()
    other.scale(torch.ones(()))
    opt.estimate(net.loss())
    with pytest.raises(RuntimeError, match="takes the unscaled loss"):
        other.step(opt)


def test_infinite_gradients_skip_the_step() -> None:
    w = nn.Parameter(torch.ones(2))
    opt = AdaHessian([w])
    scaler = Scaler()
    scaler.scale(torch.ones(()))
    w.grad = torch.full((2,), float("inf"))
    opt.set_hessian([torch.ones(2)])
    scaler.step(opt)
    assert torch.equal(w.detach(), torch.ones(2))
    assert not opt.state[w]


# ---------------------------------------------------------------- what one step leaves to the next


def test_gradients_share_no_memory() -> None:
    a, b = nn.Parameter(f64([1.0, 2.0])), nn.Parameter(f64([3.0, 4.0]))
    opt = AdaHessian([a, b])
    for _ in range(2):  # autograd gives the two inputs of an addition one tensor
        opt.estimate((a + b).square().sum())
    want = f64([16.0, 24.0])
    for p in (a, b):
        assert p.grad is not None
        assert torch.equal(p.grad, want)
    nn.utils.clip_grad_norm_([a, b], float(want.norm()) / 2**0.5, foreach=False)
    for p in (a, b):
        torch.testing.assert_close(p.grad, want / 2, rtol=1e-6, atol=0)


def test_constant_gradients_can_be_added_to() -> None:
    a = nn.Parameter(f64([1.0, 2.0]))
    opt = AdaHessian([a], zero_curvature="allow")
    for _ in range(2):  # the gradient of a sum is one number, expanded
        opt.estimate(a.sum())
    assert a.grad is not None
    assert a.grad.tolist() == [2.0, 2.0]


def test_zero_grad_drops_the_estimate_of_the_gradients_it_drops() -> None:
    w = nn.Parameter(f64([1.0, 2.0]))
    opt = AdaHessian([w])
    opt.estimate((w**2).sum() * float("nan"))
    opt.zero_grad()  # a step skipped
    opt.estimate((w**2).sum())
    assert opt._pending[w].tolist() == [2.0, 2.0]
    opt.set_hessian([f64([3.0, 3.0])])
    opt.zero_grad()  # a closure that computes the gradients anew does this
    assert opt._pending[w].tolist() == [3.0, 3.0]


@pytest.mark.filterwarnings("ignore:Using backward")
def test_a_probe_of_other_parameters_is_drawn_again() -> None:
    a, b = nn.Parameter(f64([1.0, 2.0])), nn.Parameter(f64([3.0]))
    opt = AdaHessian([a, b], lr=0.1)
    with pytest.raises(RuntimeError, match="linear in it"):
        opt.estimate((a**2).sum() + b.sum())
    (a**2).sum().backward(create_graph=True)
    opt.step()
    torch.testing.assert_close(a.detach(), f64([0.9, 1.8]), rtol=1e-4, atol=0)
    late = AdaHessian([a], lr=0.1)
    late.estimate((a**2).sum())
    late.add_param_group({"params": [b]})
    late.estimate((a**2).sum() + (b**2).sum())
    assert late._pending[a].tolist() == [4.0, 4.0]
    assert late._pending[b].tolist() == [2.0]


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("foreach", [False, True])
def test_old_estimates_keep_their_bias_correction(foreach: bool, maximize: bool) -> None:
    w = nn.Parameter(f64([0.0]))
    opt = AdaHessian(
        [w], lr=1.0, betas=(0.0, 0.5), eps=0.0, update_each=3, foreach=foreach, maximize=maximize
    )
    w.grad = f64([1.0])
    opt.set_hessian([f64([-2.0])])
    for step in (1, 2, 3):
        opt.step()
        # v = 4 / 2 after the one estimate, and sqrt(v / (1 - 1/2)) = 2 until the next
        assert float(w.detach()) == pytest.approx((0.5 if maximize else -0.5) * step, rel=1e-14)


def test_two_steps_by_hand() -> None:
    # L = w^2, lr 1/4, betas 1/2, eps 1, k 1/2: g = D z = (4, 2); v = 2, sqrt(2 / (1/2)) = 2 = D
    w = nn.Parameter(f64([2.0]))
    opt = AdaHessian([w], lr=0.25, betas=(0.5, 0.5), eps=1.0, hessian_power=0.5, weight_decay=0.5)
    opt.estimate((w**2).sum())
    opt.step()
    first = 2 - 0.25 * (4 / (2**0.5 + 1) + 0.5 * 2)
    assert float(w.detach()) == pytest.approx(first, rel=1e-14)
    opt.zero_grad()
    opt.estimate((w**2).sum())
    opt.step()
    momentum = (0.5 * 2 + 0.5 * 2 * first) / 0.75  # m_1 = 2; v_2 / (3/4) = 4 again
    second = first - 0.25 * (momentum / (2**0.5 + 1) + 0.5 * first)
    assert float(w.detach()) == pytest.approx(second, rel=1e-14)


# ---------------------------------------------------------------- refusals and peers


def test_linear_losses() -> None:
    a, b = nn.Parameter(f64([1.0])), nn.Parameter(f64([[1.0]]))
    opt = AdaHessian([a, b])
    with pytest.raises(RuntimeError, match=r"parameter 1 of shape \(1, 1\).*linear in it"):
        opt.estimate((a**2).sum() + b.sum())
    allowed = AdaHessian([a, b], zero_curvature="allow", lr=1e-6)
    allowed.estimate((a**2).sum() + b.sum())
    assert float(allowed._pending[b]) == 0
    allowed.step()
    only = AdaHessian([b], zero_curvature="allow", lr=1e-6)
    b.grad = None
    only.estimate(b.sum())
    only.step()


def test_an_unused_parameter_is_left_alone() -> None:
    a, b = nn.Parameter(f64([1.0])), nn.Parameter(f64([1.0]))
    opt = AdaHessian([a, b])
    opt.estimate((a**2).sum())
    opt.step()
    assert float(b.detach()) == 1.0
    assert b.grad is None


def test_an_estimate_for_some_is_none_for_the_others() -> None:
    a, b = nn.Parameter(f64([1.0])), nn.Parameter(f64([1.0]))
    opt = AdaHessian([a, b])
    a.grad = f64([1.0])
    opt.set_hessian([f64([2.0])])
    b.grad = f64([1.0])  # a gradient that came after the diagonals
    with pytest.raises(RuntimeError, match=r"shape \(1,\) and there is none, though"):
        opt.step()
    assert float(a.detach()) == float(b.detach()) == 1.0


def test_given_diagonals_stay_the_callers() -> None:
    w = nn.Parameter(f64([1.0]))
    opt = AdaHessian([w])
    given = f64([2.0])
    w.grad = f64([1.0])
    opt.set_hessian([given])
    opt.estimate((w**2).sum())
    assert float(given) == 2.0
    assert float(opt._pending[w]) == 4.0


def test_operations_without_a_second_derivative_get_advice() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g * 2

    w = nn.Parameter(f64([1.0]))
    with pytest.raises(RuntimeError, match=r"hides its second derivative \(estimate_from"):
        AdaHessian([w]).estimate((Once.apply(w) ** 2).sum())
    x = nn.Parameter(torch.randn(1, 2, 4, 8, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(RuntimeError, match=r"sdpa_kernel.*estimate_from"):
        AdaHessian([x]).estimate(F.scaled_dot_product_attention(x, x, x).square().sum())
    near = AdaHessian([x])
    near.estimate_from(lambda: F.scaled_dot_product_attention(x, x, x).square().sum())
    near.step()


BAD = (
    ({"lr": -1.0}, ValueError, "lr must be at least 0"),
    ({"eps": -1e-4}, ValueError, "eps must be at least 0"),
    ({"betas": (1.0, 0.9)}, ValueError, "betas[0]"),
    ({"weight_decay": -1.0}, ValueError, "weight_decay must be at least 0"),
    ({"hessian_power": 1.1}, ValueError, "hessian_power must be in [0, 1]"),
    ({"hessian_power": "1"}, TypeError, "hessian_power must be a number"),
    ({"update_each": 0}, ValueError, "update_each must be at least 1"),
    ({"update_each": 1.5}, TypeError, "update_each must be an integer"),
    ({"n_samples": 0}, ValueError, "n_samples must be at least 1"),
    ({"n_samples": True}, TypeError, "n_samples must be an integer"),
    ({"averaging": "kernel"}, ValueError, "averaging must be one of spatial, row, none"),
    ({"averaging": 3}, TypeError, "averaging must be a name or a mapping"),
    ({"averaging": {2: 0}}, ValueError, "block sizes of at least 1"),
    ({"averaging": {2: 1.0}}, TypeError, "integers to integers"),
    ({"averaging": {2: 4}}, ValueError, "blocks of 4 does not divide a parameter of shape (2, 3)"),
    ({"zero_curvature": "skip"}, ValueError, "zero_curvature must be 'raise' or 'allow'"),
    ({"process_group": 3}, TypeError, "process_group must be a ProcessGroup or None"),
    ({"generator": 3}, TypeError, "generator must be a torch.Generator"),
    ({"foreach": 1}, TypeError, "foreach must be True, False or None"),
    ({"maximize": 1}, TypeError, "maximize must be True or False"),
)


@pytest.mark.parametrize(("arguments", "error", "fragment"), BAD)
def test_bad_arguments(arguments: Any, error: type[Exception], fragment: str) -> None:
    with pytest.raises(error) as caught:
        AdaHessian([nn.Parameter(torch.ones(2, 3))], **arguments)
    assert fragment in str(caught.value)


def test_bad_calls() -> None:
    w = nn.Parameter(torch.ones(2))
    opt = AdaHessian([w])
    with pytest.raises(RuntimeError, match="must be a scalar"):
        opt.estimate(w * 2)
    with pytest.raises(RuntimeError, match="no graph"):
        opt.estimate(torch.ones(()))
    with pytest.raises(TypeError, match="loss must be a tensor"):
        opt.estimate(3.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="vectors must be 1 tensors, got 2"):
        opt.estimate((w**2).sum(), vectors=[w, w])
    with pytest.raises(ValueError, match=r"vectors\[0\] must have shape \(2,\)"):
        opt.estimate((w**2).sum(), vectors=[torch.ones(3)])
    w.grad = torch.ones(2)
    with pytest.raises(ValueError, match=r"diagonals\[0\] must have shape"):
        opt.set_hessian([torch.ones(3)])
    with pytest.raises(TypeError, match=r"diagonals\[0\] must be a tensor"):
        opt.set_hessian([3.0])  # type: ignore[list-item]
    with pytest.raises(RuntimeError, match="due and the gradients have no graph"):
        opt.step()
    with pytest.raises(RuntimeError, match="due and the gradients have no graph"):
        opt.unscale_hessian_(2.0)
    with pytest.raises(RuntimeError, match="complex"):
        AdaHessian([nn.Parameter(torch.ones(2, dtype=torch.complex64))])


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_the_arithmetic_of_a_peer(power: float) -> None:
    peer = pytest.importorskip("pytorch_optimizer", reason="peer pytorch_optimizer not installed")
    g = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, generator=g, dtype=torch.float64)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    opt = AdaHessian([ours], lr=0.1, eps=1e-3, hessian_power=power, averaging="none")
    other = peer.AdaHessian([theirs], lr=0.1, eps=1e-3, hessian_power=power, weight_decay=0.0)
    for _ in range(5):
        grad = torch.randn(4, 3, generator=g, dtype=torch.float64)
        D = torch.randn(4, 3, generator=g, dtype=torch.float64)
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        opt.set_hessian([D])
        opt.step()
        other.step(hessian=[D.abs().clone()])
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_a_probe_follows_the_memory_format_and_draws_whole_words() -> None:
    w = nn.Parameter(torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last))
    b, half = nn.Parameter(torch.zeros(70)), nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    params = [w, b, half]
    together = Probes(params, torch.Generator().manual_seed(0), None).vectors(params)
    generator = torch.Generator().manual_seed(0)
    for p, z in zip(params, together):
        (alone,) = Probes([p], generator, None).vectors([p])
        assert torch.equal(z, alone)
        assert z.dtype == p.dtype
        assert z.stride() == p.stride()
        assert z.abs().eq(1).all()
