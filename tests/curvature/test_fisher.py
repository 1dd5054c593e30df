"""Fisher matrices: exact equals Gauss-Newton, drawn labels estimate it, empirical differs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.nets import CASES, f64, golden, problem, vector
from torch import Tensor, nn

from gradworks.curvature.operators import FisherOperator, GGNOperator

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


@pytest.mark.parametrize("method", ["double_backward", "forward_over_reverse", "linearize"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_golden(case: dict, method: str) -> None:
    model, loss_fn, data = golden(case)
    v = f64(case["v"])
    exact = FisherOperator(model, loss_fn, data, method=method)
    torch.testing.assert_close(exact @ v, f64(case["Gv"]), **CLOSE)
    empirical = FisherOperator(model, loss_fn, data, kind="empirical", method=method)
    torch.testing.assert_close(empirical @ v, f64(case["empirical_fisher_v"]), **CLOSE)


def _bernoulli() -> tuple:
    model, _, (x, _) = problem(9, classes=2)
    return model, nn.BCEWithLogitsLoss(), (x, (vector(18) > 0).double().reshape(9, 2))


def _gaussian() -> tuple:
    model, _, (x, _) = problem(9, classes=2)
    return model, nn.MSELoss(), (x, vector(18).reshape(9, 2))


def _categorical() -> tuple:
    model, _, data = problem(9)
    return model, nn.CrossEntropyLoss(), data


def _dense_labels() -> tuple:
    """A label a pixel: (n, classes, 2)."""
    model, _, (x, _) = problem(9, classes=6)
    return (
        nn.Sequential(model, nn.Unflatten(1, (3, 2))),
        F.cross_entropy,
        (x, torch.arange(18).reshape(9, 2) % 3),
    )


MAKERS = [_bernoulli, _gaussian, _categorical, _dense_labels]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_exact_equals_gauss_newton(make: object, reduction: str) -> None:
    model, loss_fn, data = make()
    if reduction == "sum":
        mean = loss_fn

        def loss_fn(o: Tensor, t: Tensor) -> Tensor:
            return mean(o, t) * len(o)

    likelihood = {
        "_bernoulli": "bernoulli",
        "_gaussian": "gaussian",
    }.get(make.__name__, "categorical")
    options = {"reduction": reduction}
    exact = FisherOperator(model, loss_fn, data, likelihood=likelihood, **options)
    v = vector(exact.shape[0])
    torch.testing.assert_close(exact @ v, GGNOperator(model, loss_fn, data, **options) @ v, **CLOSE)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("ignored", [-100, 1, None])
def test_summed_losses_and_ignored_labels(reduction: str, ignored: int | None) -> None:
    model, _, (x, y) = _dense_labels()
    y = y.clone()
    if ignored is not None:
        y[2:5, 1] = ignored
        y[7] = ignored
    loss_fn = nn.CrossEntropyLoss(
        reduction=reduction, ignore_index=-100 if ignored is None else ignored
    )
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    exact = FisherOperator(model, loss_fn, batches, reduction=reduction)
    want = GGNOperator(model, loss_fn, batches, reduction=reduction).to_dense()
    torch.testing.assert_close(exact.to_dense(), want, **CLOSE)
    drawn = FisherOperator(
        model, loss_fn, batches, reduction=reduction, kind="mc", num_samples=3000
    ).to_dense()
    assert float((drawn - want).norm() / want.norm()) < 0.08


@pytest.mark.parametrize("make", [_bernoulli, _gaussian])
def test_summed_losses_over_several_outputs(make: object) -> None:
    model, loss_fn, data = make()
    loss_fn = type(loss_fn)(reduction="sum")
    exact = FisherOperator(model, loss_fn, data, reduction="sum").to_dense()
    want = GGNOperator(model, loss_fn, data, reduction="sum").to_dense()
    torch.testing.assert_close(exact, want, **CLOSE)


@pytest.mark.parametrize("make", MAKERS)
def test_drawn_labels_estimate_the_exact_one(make: object) -> None:
    model, loss_fn, data = make()
    exact = FisherOperator(model, loss_fn, data).to_dense()
    errors = []
    for samples in (50, 5000):
        op = FisherOperator(model, loss_fn, data, kind="mc", num_samples=samples)
        F1 = op.to_dense()
        assert torch.equal(op.to_dense(), F1)  # the same labels in every product
        errors.append(float((F1 - exact).norm() / exact.norm()))
    assert errors[1] < 0.06
    assert errors[1] < errors[0]


def test_ignored_labels_draw_nothing() -> None:
    model = nn.Conv1d(2, 3, 1).double()
    y = torch.arange(8).reshape(2, 4) % 3
    y[0, 1:] = -100
    data = (vector(16).reshape(2, 2, 4), y)
    drawn = FisherOperator(model, F.cross_entropy, data, kind="mc", num_samples=3).to_dense()
    torch.testing.assert_close(drawn, drawn.T, **CLOSE)
    assert float(torch.linalg.eigvalsh(drawn)[0]) > -1e-12


def test_labels_come_from_the_generator() -> None:
    model, loss_fn, data = problem(9)
    v = vector(31)

    def product(seed: int) -> Tensor:
        g = torch.Generator().manual_seed(seed)
        return FisherOperator(model, loss_fn, data, kind="mc", generator=g) @ v

    assert torch.equal(product(1), product(1))
    assert not torch.equal(product(1), product(2))
    g = torch.Generator().manual_seed(1)
    ops = [FisherOperator(model, loss_fn, data, kind="mc", generator=g) for _ in range(2)]
    assert not torch.equal(ops[0] @ v, ops[1] @ v)
    state = torch.get_rng_state()
    FisherOperator(model, loss_fn, data, kind="mc") @ v
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["exact", "mc", "empirical"])
def test_blocks_share_the_labels(kind: str) -> None:
    model, loss_fn, data = problem(9)
    g = torch.Generator().manual_seed(5)
    op = FisherOperator(model, loss_fn, data, kind=kind, num_samples=2, generator=g)
    state = g.get_state()
    block = op.block("2.*")
    assert torch.equal(g.get_state(), state)
    torch.testing.assert_close(block.to_dense(), op.to_dense()[-15:, -15:], **CLOSE)


def test_empirical_is_the_mean_outer_product_of_single_gradients() -> None:
    model, loss_fn, (x, y) = problem(9)
    rows = []
    for i in range(9):
        grads = torch.autograd.grad(loss_fn(model(x[i : i + 1]), y[i : i + 1]), model.parameters())
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    want = torch.stack(rows).T @ torch.stack(rows) / 9
    op = FisherOperator(model, loss_fn, [(x[:4], y[:4]), (x[4:], y[4:])], kind="empirical")
    torch.testing.assert_close(op.to_dense(), want, **CLOSE)
    exact = FisherOperator(model, loss_fn, (x, y)).to_dense()
    assert float((want - exact).norm() / exact.norm()) > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "true"}, "kind must be one of exact, mc, empirical"),
        ({"likelihood": "poisson"}, "likelihood must be one of"),
        ({"num_samples": 0}, "num_samples must be an integer of at least 1"),
        ({"num_samples": True}, "num_samples"),
        ({"loss_fn": F.l1_loss}, "likelihood of loss_fn is unknown"),
        ({"loss_fn": nn.CrossEntropyLoss(label_smoothing=0.1)}, "likelihood of loss_fn is unknown"),
        ({"loss_fn": nn.CrossEntropyLoss(weight=torch.ones(3))}, "is unknown"),
    ],
)
def test_bad_input(options: dict, message: str) -> None:
    model, loss_fn, data = problem()
    with pytest.raises(ValueError, match=message):
        FisherOperator(model, options.pop("loss_fn", loss_fn), data, **options)


def test_outputs_must_count_examples() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Flatten(0)).double()
    _, _, data = problem()
    for kind in ("mc", "empirical"):
        op = FisherOperator(
            model, lambda o, t: o.square().mean(), data, kind=kind, likelihood="gaussian"
        )
        with pytest.raises(ValueError, match="first dimension counts examples"):
            op @ vector(12)
