"""Loss weightings: each formula by hand or against the optimizer it names; state; bad input."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradworks.multitask import NonFiniteGradientError
from gradworks.multitask.loss_weighting import (
    FAMO,
    DynamicWeightAverage,
    GradNorm,
    LossWeighting,
    UncertaintyWeighting,
)

MAKE: dict[str, Callable[[], LossWeighting]] = {
    "equal": LossWeighting,
    "uncertainty": lambda: UncertaintyWeighting(2),
    "average": lambda: DynamicWeightAverage(period=2),
    "gradnorm": GradNorm,
    "famo": FAMO,
}
EVERY = pytest.mark.parametrize("name", MAKE)


def f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def drive(weighting: LossWeighting, w: Tensor, start: int, steps: int) -> list[float]:
    """Two losses of one vector, of very different scale, and plain descent."""
    targets, found = f64([[1.0, 2.0], [-1.0, 0.5]]), []

    def losses() -> Tensor:
        return (w - targets).square().sum(1) * f64([1.0, 100.0]) + 0.1

    for _ in range(start, start + steps):
        w.grad = None
        loss = weighting(losses(), [w] if weighting.uses_shared else None)
        loss.backward()
        with torch.no_grad():
            w -= 1e-3 * w.grad
            weighting.update(losses())
        found += [*weighting.weights.tolist(), float(loss.detach())]
    return found


def test_uncertainty_by_hand() -> None:
    weighting = UncertaintyWeighting(2, initial=-0.5)
    losses = torch.tensor([2.0, 3.0], requires_grad=True)
    loss = weighting(losses)
    loss.backward()
    half = 0.5 * math.exp(0.5)
    assert loss.item() == pytest.approx(half * 5 - 0.5)
    torch.testing.assert_close(losses.grad, torch.full((2,), half))
    torch.testing.assert_close(
        weighting.log_variances.grad, torch.tensor([0.5 - half * 2, 0.5 - half * 3])
    )
    # At the minimum in s the variance is the loss, whatever its scale.
    with torch.no_grad():
        weighting.log_variances.copy_(torch.tensor([2.0, 3.0]).log())
    weighting.log_variances.grad = None
    weighting(torch.tensor([2.0, 3.0])).backward()
    assert float(weighting.log_variances.grad.abs().max()) < 1e-6


def test_average_over_two_periods_by_hand() -> None:
    weighting = DynamicWeightAverage(temperature=2.0, period=2)
    rows = f64([[4, 1], [2, 1], [1, 3], [2, 1], [5, 5]])
    seen = [weighting(row) and weighting.weights for row in rows]
    for weights in seen[:4]:
        assert weights.tolist() == [1.0, 1.0]
    # Means 3 and 1, then 1.5 and 2: ratios 0.5 and 2.
    want = 2 * torch.softmax(f64([0.5, 2.0]) / 2, 0)
    torch.testing.assert_close(seen[4], want)
    assert float(seen[4].sum()) == pytest.approx(2.0)


def test_gradnorm_by_hand() -> None:
    w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    weighting = GradNorm(alpha=1.5, lr=0.1)
    first = weighting([w.sum(), 10 * w.square().sum()], [w])
    assert first.item() == pytest.approx(22.0)  # the weights of a call are those before it
    torch.testing.assert_close(weighting.loss_weights, f64([1.1, 0.9]))
    # Second call: ratios 2 and 0.5 of the first losses; rates 1.6 and 0.4.
    lengths = weighting.loss_weights * f64([2 * math.sqrt(2), math.sqrt(8) * 2.5])
    target = lengths.mean() * f64([1.6, 0.4]) ** 1.5
    param = torch.nn.Parameter(f64([1.0, 1.0]))
    adam = torch.optim.Adam([param], lr=0.1)
    for grad in (
        f64([-math.sqrt(2), 20 * math.sqrt(2)]),
        torch.sign(lengths - target) * f64([2 * math.sqrt(2), math.sqrt(8) * 2.5]),
    ):
        param.grad = grad
        adam.step()
        with torch.no_grad():
            param *= 2 / param.sum()
    used = weighting.loss_weights.clone()
    weighting([2 * w.sum(), 2.5 * w.square().sum() + 5.0], [w])
    torch.testing.assert_close(weighting.weights, used)
    torch.testing.assert_close(weighting.loss_weights, param.detach())


def test_gradnorm_is_the_gradient_of_its_own_loss() -> None:
    """The closed form against a second derivative, as the paper states it."""
    w = torch.randn(4, dtype=torch.float64, requires_grad=True)
    net = [lambda x: x.square().sum() + 1, lambda x: (3 * x).exp().sum(), lambda x: x.cosh().sum()]
    weights = f64([0.5, 1.5, 1.0]).requires_grad_()
    losses = [f(w) for f in net]
    ratios = torch.stack([loss.detach() for loss in losses]) / f64([2.0, 3.0, 4.0])
    lengths = torch.stack(
        [
            torch.autograd.grad(c * loss, w, create_graph=True)[0].norm()
            for c, loss in zip(weights, losses)
        ]
    )
    target = (lengths.mean() * (ratios / ratios.mean()) ** 1.5).detach()
    (want,) = torch.autograd.grad((lengths - target).abs().sum(), weights)
    weighting = GradNorm(lr=0.0)
    weighting([f(w) for f in net], [w])
    weighting.initial_losses.copy_(f64([2.0, 3.0, 4.0]))
    weighting.loss_weights.copy_(weights.detach())
    weighting.moments.zero_()
    weighting([f(w) for f in net], [w])
    torch.testing.assert_close(weighting.moments[0], 0.1 * want)


def test_gradnorm_weights_stay_positive_and_sum_to_the_tasks() -> None:
    w = torch.ones(3, requires_grad=True)
    weighting = GradNorm(lr=0.9)
    for _ in range(20):
        weighting([w.sum(), 1e4 * w.sum(), w.square().sum()], [w])
    assert float(weighting.loss_weights.min()) > 0
    assert float(weighting.loss_weights.sum()) == pytest.approx(3.0)


def test_gradnorm_finds_the_balance_of_two_scales() -> None:
    w = torch.ones(3, requires_grad=True)
    weighting = GradNorm(lr=0.01)
    for _ in range(300):
        weighting([w.sum(), 4 * w.sum()], [w])
    torch.testing.assert_close(weighting.loss_weights, torch.tensor([1.6, 0.4]), rtol=0.05, atol=0)


def test_famo_by_hand_and_its_logits_against_adam() -> None:
    weighting = FAMO(gamma=0.01, lr=0.025, min_losses=[-1.0, 0.0])
    logits = torch.nn.Parameter(f64([0.0, 0.0]))
    adam = torch.optim.Adam([logits], lr=0.025, weight_decay=0.01)
    before = f64([1.0, 4.0])
    for after in (f64([0.5, 3.9]), f64([0.4, 2.0]), f64([0.3, 1.9])):
        losses = before.clone().requires_grad_()
        loss = weighting(losses)
        loss.backward()
        z = torch.softmax(logits.detach(), 0)
        d = before + f64([1.0, 0.0]) + 1e-8
        c = (z / d).sum()
        assert loss.item() == pytest.approx(float((z / c * d.log()).sum()))
        torch.testing.assert_close(losses.grad, z / d / c)
        torch.testing.assert_close(weighting.weights, losses.grad)
        weighting.update(after)
        fall = d.log() - (after + f64([1.0, 0.0]) + 1e-8).log()
        (logits.grad,) = torch.autograd.grad(torch.softmax(logits, 0), logits, fall)
        adam.step()
        torch.testing.assert_close(weighting.logits, logits.detach(), rtol=1e-7, atol=1e-12)
        before = after
    with pytest.raises(RuntimeError, match="call first"):
        weighting.update(before)


@EVERY
def test_resume_is_bit_for_bit_and_reset_forgets(name: str) -> None:
    def vector() -> Tensor:
        return torch.zeros(2, dtype=torch.float64, requires_grad=True)

    whole, w = MAKE[name](), vector()
    want = drive(whole, w, 0, 10)
    half, v = MAKE[name](), vector()
    first = drive(half, v, 0, 5)
    fresh = MAKE[name]()
    fresh.load_state_dict(copy.deepcopy(half.state_dict()))
    u = v.detach().clone().requires_grad_()
    assert first + drive(copy.deepcopy(half), v, 5, 5) == want
    assert first + drive(fresh, u, 5, 5) == want
    fresh.reset()
    assert drive(fresh, vector(), 0, 5) == first
    empty = MAKE[name]()
    half.load_state_dict(empty.state_dict())
    assert drive(half, vector(), 0, 5) == first


@EVERY
def test_what_is_not_finite_names_the_task_and_leaves_the_state(name: str) -> None:
    weighting, w = MAKE[name](), torch.ones(2, requires_grad=True)
    weighting([w.sum(), w.square().sum()], [w])
    before = copy.deepcopy(weighting.state_dict())
    with pytest.raises(NonFiniteGradientError, match="loss of task 'b' is not finite"):
        weighting({"a": w.sum(), "b": w.sum() * math.nan}, [w])
    after = weighting.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@EVERY
def test_bad_losses(name: str) -> None:
    weighting = MAKE[name]()
    w = torch.ones(2, requires_grad=True)
    for bad, error, fragment in (
        ([], ValueError, "empty"),
        ([w.sum(), 1.0], TypeError, "must be a tensor"),
        ([w.sum(), w], ValueError, "scalar"),
        (torch.ones(2, 2), ValueError, "1-D"),
    ):
        with pytest.raises(error, match=fragment):
            weighting(bad, [w])
    weighting([w.sum(), w.sum()], [w])
    if name != "equal":
        with pytest.raises(ValueError, match=r"3 tasks, the state 2.*reset"):
            weighting([w.sum()] * 3, [w])


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        (lambda: UncertaintyWeighting(0), "num_tasks"),
        (lambda: UncertaintyWeighting(2, initial=math.nan), "initial"),
        (lambda: DynamicWeightAverage(0.0), "temperature"),
        (lambda: DynamicWeightAverage(period=0), "period"),
        (lambda: GradNorm(-1.0), "alpha"),
        (lambda: GradNorm(lr=-1.0), "lr"),
        (lambda: FAMO(-1.0), "gamma"),
        (lambda: FAMO(lr=math.inf), "lr"),
    ],
)
def test_bad_settings(make: Callable[[], object], fragment: str) -> None:
    with pytest.raises(ValueError, match=fragment):
        make()


def test_losses_out_of_a_methods_range() -> None:
    w = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="shared is missing"):
        GradNorm()([w.sum(), w.sum()])
    gradnorm = GradNorm()
    with pytest.raises(ValueError, match=r"task 1 is 0\.0"):
        gradnorm([w.sum(), 0 * w.sum()], [w])
    assert gradnorm.loss_weights is None
    with pytest.raises(NonFiniteGradientError, match="gradient of task 1"):
        gradnorm([w.sum(), (w - 1).norm() + 1 + (w - 1).abs().sum().sqrt()], [w])
    assert gradnorm.loss_weights is None
    with pytest.raises(ValueError, match="below its bound"):
        FAMO()([w.sum(), -w.sum()])
    with pytest.raises(ValueError, match="1 numbers for 2"):
        FAMO(min_losses=[0.0])([w.sum(), w.sum()])
    average = DynamicWeightAverage(period=1)
    for _ in range(2):
        average([w.sum(), 0 * w.sum()])
    with pytest.raises(ValueError, match="was 0 on average"):
        average([w.sum(), w.sum()])


def test_a_task_that_does_not_reach_the_layer() -> None:
    w, v = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    weighting = GradNorm()
    weighting([w.sum(), v.sum()], [w])
    assert bool(torch.isfinite(weighting.loss_weights).all())
