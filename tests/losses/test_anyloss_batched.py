"""Many models in one program: the paper's paths, and each model as if it were trained alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch import Tensor

from gradworks.losses.anyloss import (
    METRICS,
    BatchedMetricLoss,
    BatchedNet,
    FoldStack,
    anyloss,
    batched_bce,
    batched_confusion,
    batched_focal,
    batched_squared_error,
    batched_weighted_bce,
    best_threshold,
    fit_batched,
    focal_loss,
    hard_confusion,
    join_stacks,
    soft_confusion,
    stack_folds,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "anyloss" / "logits_and_paths.json"
SLP = json.loads(GOLDEN.read_text())["slp"]
NAMES = {"fbeta_1": "f1", "fbeta_0.5": "f0.5", "fbeta_2": "f2"}
LOSSES = {
    "f1": BatchedMetricLoss("f1"),
    "gmean": BatchedMetricLoss("gmean", threshold=0.4, amplification=20.0),
    "balanced_accuracy": BatchedMetricLoss("balanced_accuracy"),
    "accuracy": BatchedMetricLoss("accuracy"),
    "mcc": BatchedMetricLoss("mcc"),
    "sol": BatchedMetricLoss("f1", surrogate="sol"),
    "sol_elsewhere": BatchedMetricLoss("balanced_accuracy", surrogate="sol", threshold=0.45),
    "linear": BatchedMetricLoss("f1", surrogate="linear"),
    "bce": batched_bce,
    "weighted_bce": batched_weighted_bce,
    "mse": batched_squared_error,
    "focal": focal_loss(),
}


def f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def tables(n: int = 60, features: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, features)) * [3.0, 1.0, 0.5, 10.0][:features] + 2.0
    y = (X[:, 0] - X[:, 1] + rng.normal(size=n) > 3.0).astype(np.float64)
    return X, y


def theta(net: BatchedNet) -> Tensor:
    """Bias first, as the released code has it."""
    return torch.cat([net.biases[0], net.weights[0]], dim=-1).squeeze(2)


# ---------------------------------------------------------------- golden


@pytest.mark.parametrize("name", sorted(SLP["paths"]))
def test_golden_gradient_descent_paths(name: str) -> None:
    path = SLP["paths"][name]
    X, y = f64(SLP["X"])[None, :, 1:], f64(SLP["y"])[None]
    seen = {}

    def watch(epoch: int, net: BatchedNet) -> bool:
        if str(epoch + 1) in path["theta"]:
            seen[str(epoch + 1)] = theta(net).flatten().clone()
        return False

    loss = BatchedMetricLoss(NAMES.get(name, name), amplification=SLP["L"])
    fit = fit_batched(X, y, loss, lr=path["lr"], epochs=1000, stop=watch)
    assert sorted(seen) == sorted(path["theta"])
    for step, want in path["theta"].items():
        torch.testing.assert_close(seen[step], f64(want), rtol=1e-10, atol=1e-14)
    assert (fit.net.logits(X) > 0).int().flatten().tolist() == path["predicted"]
    # The same path through the recorded graph, which other metrics take.
    loss.bind = lambda target, weight: None
    again = fit_batched(X, y, loss, lr=path["lr"], epochs=100)
    torch.testing.assert_close(theta(again.net).flatten(), seen["100"], rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(again.losses, fit.losses[:100], rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- each model as if alone


@pytest.mark.parametrize("solver", ["gd", "adam"])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_folds_and_rates_do_not_see_each_other(name: str, solver: str) -> None:
    """Against a plain loop with torch.optim, one model at a time, labels and all."""
    X, y = tables()
    rates = [0.01, 0.1]
    folds = [np.arange(0, 40), np.arange(10, 60), np.arange(5, 35)]
    stack = stack_folds(X, y, folds)
    fit = fit_batched(
        stack.X,
        stack.y,
        LOSSES[name],
        weight=stack.weight,
        lr=f64(rates),
        epochs=25,
        solver=solver,
    )
    assert fit.losses.shape == (25, 3, 2)
    for f, rows in enumerate(folds):
        part = torch.from_numpy((X[rows] - X[rows].mean(0)) / X[rows].std(0))
        design = torch.cat([torch.ones(len(rows), 1, dtype=torch.float64), part], dim=1)
        label = torch.from_numpy(y[rows])
        for v, rate in enumerate(rates):
            alone = torch.zeros(5, dtype=torch.float64, requires_grad=True)
            optimizer = {"gd": torch.optim.SGD, "adam": torch.optim.Adam}[solver]([alone], lr=rate)
            for epoch in range(25):
                optimizer.zero_grad()
                value = LOSSES[name](design @ alone, label, torch.ones_like(label))
                torch.testing.assert_close(fit.losses[epoch, f, v], value.detach())
                value.backward()
                optimizer.step()
            tolerance = 1e-10 if solver == "gd" else 1e-7  # Adam divides by tiny gradients
            torch.testing.assert_close(
                theta(fit.net)[f, v], alone.detach(), rtol=1e-8, atol=tolerance
            )


def test_variants_with_labels_of_their_own() -> None:
    X, y = tables()
    stack = stack_folds(X, y, [np.arange(60)])
    both = torch.stack([stack.y, 1 - stack.y], dim=1)
    fit = fit_batched(stack.X, both, BatchedMetricLoss("gmean"), lr=0.05, epochs=40)
    torch.testing.assert_close(theta(fit.net)[0, 0], -theta(fit.net)[0, 1], rtol=1e-9, atol=1e-12)
    for v in range(2):
        one = fit_batched(stack.X, both[:, v], BatchedMetricLoss("gmean"), lr=0.05, epochs=40)
        torch.testing.assert_close(theta(one.net)[0, 0], theta(fit.net)[0, v])


def test_rows_of_weight_zero_do_not_exist() -> None:
    X, y = tables()
    keep = np.arange(60) % 3 > 0
    whole = stack_folds(X, y, [np.arange(60)], sample_weight=keep.astype(float))
    part = stack_folds(X[keep], y[keep], [np.arange(int(keep.sum()))])
    torch.testing.assert_close(whole.mean, part.mean)
    torch.testing.assert_close(whole.scale, part.scale)
    for loss in LOSSES.values():
        a = fit_batched(whole.X, whole.y, loss, weight=whole.weight, epochs=30)
        b = fit_batched(part.X, part.y, loss, weight=part.weight, epochs=30)
        torch.testing.assert_close(theta(a.net), theta(b.net), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_batch_of_padding_alone_is_no_step(name: str) -> None:
    X, y = tables()
    stack = join_stacks([stack_folds(X, y, [np.arange(n)]) for n in (60, 8)])
    fit = fit_batched(
        stack.X, stack.y, LOSSES[name], weight=stack.weight, epochs=2, batch_size=10, lr=0.01
    )
    assert theta(fit.net).isfinite().all()
    assert fit.losses.isfinite().all()


def test_joined_sets_train_as_they_do_apart() -> None:
    X, y = tables()
    X2, y2 = tables(40, 2, seed=1)
    one = stack_folds(X, y, [np.arange(50), np.arange(20, 60)])
    two = stack_folds(X2, y2, [np.arange(40)])
    joint = join_stacks([one, two])
    fit = fit_batched(joint.X, joint.y, LOSSES["f1"], weight=joint.weight, epochs=50)
    first = fit_batched(one.X, one.y, LOSSES["f1"], weight=one.weight, epochs=50)
    second = fit_batched(two.X, two.y, LOSSES["f1"], weight=two.weight, epochs=50)
    torch.testing.assert_close(theta(fit.net)[:2], theta(first.net), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(theta(fit.net)[2:, :, :3], theta(second.net), rtol=1e-9, atol=1e-12)
    assert (theta(fit.net)[2:, :, 3:] == 0).all()


def test_hidden_layers_and_batches() -> None:
    X, y = tables(120)
    stack = stack_folds(X, y, [np.arange(120), np.arange(60, 120)])
    arguments = {"weight": stack.weight, "lr": 0.02, "hidden": (6,), "solver": "adam"}

    def run(seed: int, batch_size: int | None) -> Tensor:
        g = torch.Generator().manual_seed(seed)
        fit = fit_batched(
            stack.X,
            stack.y,
            batched_bce,
            epochs=60,
            batch_size=batch_size,
            generator=g,
            activation="tanh",
            **arguments,
        )
        return fit.losses

    assert torch.equal(run(0, 30), run(0, 30))
    assert not torch.equal(run(0, 30), run(1, 30))
    for batch_size in (None, 30):
        losses = run(0, batch_size)
        assert (losses[-1] < 0.6 * losses[0]).all()


def test_hidden_layers_match_a_plain_network() -> None:
    X, y = tables()
    stack = stack_folds(X, y, [np.arange(60)])
    g = torch.Generator().manual_seed(5)
    fit = fit_batched(
        stack.X, stack.y, LOSSES["f1"], hidden=(3, 2), epochs=20, lr=0.05, generator=g
    )
    start = BatchedNet.zeros(1, 1, 4, (3, 2), generator=torch.Generator().manual_seed(5))
    params = [p[0, 0].clone().requires_grad_() for p in start.parameters]
    optimizer = torch.optim.SGD(params, lr=0.05)
    for _ in range(20):
        h = stack.X[0].T
        for k in range(3):
            h = params[k] @ (h if k == 0 else torch.relu(h)) + params[3 + k]
        optimizer.zero_grad()
        anyloss(h[0], stack.y[0], "f1").backward()
        optimizer.step()
    for got, want in zip(fit.net.parameters, params):
        torch.testing.assert_close(got[0, 0], want.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("hidden", [(), (3,), (4, 2)])
def test_the_chain_rule_written_out(activation: str, hidden: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(2)
    X = torch.randn(2, 7, 4, dtype=torch.float64, generator=g)
    net = BatchedNet.zeros(2, 3, 4, hidden, activation=activation, generator=g)
    for p in net.parameters:
        p.add_(torch.randn(p.shape, dtype=p.dtype, generator=g))
    slope = torch.randn(2, 3, 7, dtype=torch.float64, generator=g)
    leaves = net.clone()
    for p in leaves.parameters:
        p.requires_grad_()
    want = torch.autograd.grad((leaves.logits(X) * slope).sum(), leaves.parameters)
    for a, b in zip(net.gradients(X, net.layers(X), slope), want):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("hidden", [(), (3,)])
@pytest.mark.parametrize("name", ["f1", "bce", "mcc"])
def test_training_without_the_curve(name: str, hidden: tuple[int, ...]) -> None:
    X, y = tables()
    stack = stack_folds(X, y, [np.arange(60)])
    a = fit_batched(stack.X, stack.y, LOSSES[name], hidden=hidden, epochs=5)
    b = fit_batched(stack.X, stack.y, LOSSES[name], hidden=hidden, epochs=5, curve=False)
    assert all(torch.equal(p, q) for p, q in zip(a.net.parameters, b.net.parameters))
    assert a.losses.shape == (5, 1, 1)
    assert b.losses.shape == (0, 1, 1)
    assert a.epochs == b.epochs == 5


@pytest.mark.parametrize("name", ["f1", "bce", "mcc"])
def test_networks_with_and_without_a_recorded_graph(name: str) -> None:
    X, y = tables()
    stack = stack_folds(X, y, [np.arange(40), np.arange(20, 60)])
    same = {"hidden": (3,), "activation": "sigmoid", "solver": "adam", "epochs": 15, "lr": 0.05}
    fast = fit_batched(stack.X, stack.y, LOSSES[name], **same)
    labels = stack.y[:, None].repeat(1, 1, 1)  # two variants with labels of their own: recorded
    slow = fit_batched(stack.X, torch.cat([labels, 1 - labels], dim=1), LOSSES[name], **same)
    for a, b in zip(fast.net.parameters, slow.net.parameters):
        torch.testing.assert_close(a[:, 0], b[:, 0], rtol=1e-9, atol=1e-12)


def test_lbfgs_reaches_the_minimum_of_a_convex_loss() -> None:
    X, y = tables(200)
    stack = stack_folds(X, y, [np.arange(200), np.arange(150)])
    fit = fit_batched(
        stack.X, stack.y, batched_bce, weight=stack.weight, lr=1.0, epochs=60, solver="lbfgs"
    )
    assert fit.epochs < 60
    leaf = BatchedNet(
        [w.clone().requires_grad_() for w in fit.net.weights],
        [b.clone().requires_grad_() for b in fit.net.biases],
    )
    value = batched_bce(leaf.logits(stack.X), stack.y[:, None], stack.weight[:, None])
    for grad in torch.autograd.grad(value.sum(), leaf.parameters):
        assert grad.abs().max() < 1e-5


def test_init_is_copied_and_stop_ends() -> None:
    X, y = tables()
    stack = stack_folds(X, y, [np.arange(60)])
    first = fit_batched(stack.X, stack.y, LOSSES["f1"], epochs=30)
    before = theta(first.net).clone()
    more = fit_batched(stack.X, stack.y, LOSSES["f1"], epochs=30, init=first.net)
    whole = fit_batched(stack.X, stack.y, LOSSES["f1"], epochs=60)
    torch.testing.assert_close(theta(more.net), theta(whole.net), rtol=1e-10, atol=1e-13)
    assert torch.equal(theta(first.net), before)
    stopped = fit_batched(stack.X, stack.y, LOSSES["f1"], epochs=30, stop=lambda e, _: e == 4)
    assert stopped.epochs == len(stopped.losses) == 5


def test_amplification_schedule_counts_steps() -> None:
    X, y = tables()
    stack = stack_folds(X, y, [np.arange(60)])
    seen: list[int] = []
    loss = BatchedMetricLoss("f1", amplification=lambda step: seen.append(step) or 5.0)
    fit = fit_batched(stack.X, stack.y, loss, epochs=4)
    constant = fit_batched(stack.X, stack.y, BatchedMetricLoss("f1", amplification=5.0), epochs=4)
    assert seen == [0, 1, 2, 3]
    rising = BatchedMetricLoss("f1", amplification=lambda step: 5.0 + step)
    z, row = torch.linspace(-1, 1, 4, dtype=torch.float64).view(1, 1, 4), stack.y[:, None, :4]
    bound = rising.bind(row, torch.ones_like(row))
    for step in range(3):
        now = BatchedMetricLoss("f1", amplification=5.0 + step)(z, row, torch.ones_like(row))
        torch.testing.assert_close(bound(z)[0], now)
    torch.testing.assert_close(theta(fit.net), theta(constant.net))


# ---------------------------------------------------------------- losses and counts


@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(LOSSES)))
@settings(max_examples=60, deadline=None)
def test_closed_form_derivatives(seed: int, name: str) -> None:
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(2, 3, 11, dtype=torch.float64, generator=g)
    y = (torch.rand(2, 1, 11, generator=g) < 0.4).double()
    w = torch.rand(2, 1, 11, dtype=torch.float64, generator=g)
    loss = LOSSES[name]
    bound = loss.bind(y, w) if hasattr(loss, "bind") else None
    if bound is None:
        assert name in {"mcc", "linear"}
        return
    values, slope = bound(z)
    leaf = z.clone().requires_grad_()
    expected = loss(leaf, y, w)
    (grad,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(values, expected.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(slope, grad, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("name", ["f1", "gmean", "balanced_accuracy", "accuracy"])
def test_closed_forms_of_one_class_are_finite(name: str, label: float) -> None:
    z = torch.linspace(-3, 3, 7, dtype=torch.float64).expand(1, 1, 7)
    y = torch.full((1, 1, 7), label, dtype=torch.float64)
    values, slope = LOSSES[name].bind(y, torch.ones_like(y))(z)
    leaf = z.clone().requires_grad_()
    expected = LOSSES[name](leaf, y, torch.ones_like(y))
    (grad,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(values, expected.detach(), rtol=0, atol=1e-8)
    torch.testing.assert_close(slope, grad, rtol=1e-8, atol=1e-12)


def test_baselines_by_their_definitions() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(20, dtype=torch.float64, generator=g)
    y = (torch.rand(20, generator=g) < 0.3).double()
    w = torch.rand(20, dtype=torch.float64, generator=g)
    one = torch.ones_like(z)
    torch.testing.assert_close(
        batched_bce(z, y, w), (F.binary_cross_entropy_with_logits(z, y, w) * 20 / w.sum())
    )
    torch.testing.assert_close(batched_squared_error(z, y, one), F.mse_loss(z, 2 * y - 1))
    balance = torch.where(y == 1, 20 / (2 * y.sum()), 20 / (2 * (20 - y.sum())))
    torch.testing.assert_close(
        batched_weighted_bce(z, y, one), F.binary_cross_entropy_with_logits(z, y, balance)
    )
    p = torch.sigmoid(z)
    p_t = torch.where(y == 1, p, 1 - p)
    alpha = torch.where(y == 1, 0.25, 0.75)
    torch.testing.assert_close(
        batched_focal(z, y, one), (-alpha * (1 - p_t) ** 2 * p_t.log()).mean()
    )


def test_batched_counts_equal_single_ones() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(3, 2, 9, dtype=torch.float64, generator=g)
    y = (torch.rand(9, generator=g) < 0.5).double()
    counts = batched_confusion(z, y)
    for i in range(3):
        for j in range(2):
            for many, one in zip(counts, soft_confusion(z[i, j], y)):
                torch.testing.assert_close(many[i, j], one)


def test_hard_counts_are_scikit_learns() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(2, 30, dtype=torch.float64, generator=g)
    y = (torch.rand(30, generator=g) < 0.5).double()
    w = torch.rand(30, dtype=torch.float64, generator=g)
    counts = hard_confusion(z, y, w, f64([0.0, 0.5]))
    for row, cut in ((0, 0.0), (1, 0.5)):
        want = sk.confusion_matrix(y, z[row] > cut, sample_weight=w).ravel()
        got = [counts[k][row].item() for k in (3, 2, 1, 0)]
        assert got == pytest.approx(list(want))


@given(seed=st.integers(0, 10_000), metric=st.sampled_from(["f1", "balanced_accuracy", "mcc"]))
@settings(max_examples=60, deadline=None)
def test_best_threshold_beats_every_other(seed: int, metric: str) -> None:
    g = torch.Generator().manual_seed(seed)
    z = torch.randint(-4, 5, (2, 15), generator=g).double()  # with ties
    y = (torch.rand(15, generator=g) < 0.4).double()
    w = torch.randint(0, 3, (15,), generator=g).double()
    w[0] = 1.0
    cut = best_threshold(z, y, w, metric)
    assert torch.isfinite(cut).all()
    best = METRICS[metric](hard_confusion(z, y, w, cut))
    for other in torch.arange(-6, 6.5, 0.5, dtype=torch.float64):
        tried = METRICS[metric](hard_confusion(z, y, w, other.expand(2)))
        assert (best >= tried - 1e-9).all()


def test_of_equal_thresholds_the_nearest_to_zero() -> None:
    z, y = f64([-3.0, -1.0, 4.0]), f64([0.0, 1.0, 0.0])
    assert best_threshold(z, y, torch.ones_like(z), "accuracy").item() == -2.0  # as good: 6


def test_rows_of_weight_zero_have_no_vote_on_the_threshold() -> None:
    z, y = f64([-3.0, -2.0, -1.0, -2.4, 9.0]), f64([0, 1, 1, 0, 0])
    cut = best_threshold(z, y, f64([1, 1, 1, 0, 0]), "f1")
    assert cut.item() == -2.5 == best_threshold(z[:3], y[:3], torch.ones(3), "f1").item()


# ---------------------------------------------------------------- stacks


def test_stack_standardises_each_fold_on_its_own_rows() -> None:
    X, y = tables()
    X[:, 2] = 7.0  # a constant feature keeps its scale
    folds = [np.arange(0, 40), np.arange(30, 60)]
    stack = stack_folds(X, y, folds)
    assert isinstance(stack, FoldStack)
    for f, rows in enumerate(folds):
        own = stack.X[f, : len(rows)]
        torch.testing.assert_close(own.mean(0), torch.zeros(4, dtype=torch.float64))
        spread = own.std(0, correction=0)
        torch.testing.assert_close(spread, f64([1.0, 1.0, 0.0, 1.0]))
        assert stack.weight[f].tolist() == [1.0] * len(rows) + [0.0] * (40 - len(rows))
        torch.testing.assert_close(stack.transform(X)[f, rows], own)
    plain = stack_folds(X, y, folds, standardize=False)
    torch.testing.assert_close(plain.X[0], torch.from_numpy(X[:40]))


def test_read_only_arrays_are_copied() -> None:
    X, y = tables()
    X.setflags(write=False)
    y.setflags(write=False)
    stack = stack_folds(X, y, [np.arange(60)], standardize=False)
    stack.X.zero_()
    assert X.any()


X3, Y2 = torch.zeros(1, 4, 2, dtype=torch.float64), f64([[0, 1, 0, 1]])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"solver": "sgd"}, "solver must be one of gd, adam, lbfgs"),
        ({"X": X3[0]}, "X must be (folds, rows, features)"),
        ({"y": Y2[:, :3]}, "(1, 3)"),
        ({"epochs": 0}, "at least 1, got 0"),
        ({"batch_size": 0}, "at least 1"),
        ({"solver": "lbfgs", "batch_size": 2}, "full batch only"),
        ({"hidden": (3,), "activation": "gelu"}, "activation must be one of relu"),
        ({"hidden": (0,)}, "at least 1, got (0,)"),
    ],
)
def test_bad_fits(change: dict, text: str) -> None:
    arguments = {"X": X3, "y": Y2, "loss": batched_bce, **change}
    with pytest.raises(ValueError) as caught:
        fit_batched(**arguments)
    assert text in str(caught.value)


@pytest.mark.parametrize("folds", [[], [np.arange(0)]])
def test_bad_stacks(folds: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="non-empty"):
        stack_folds(np.eye(3), np.arange(3) % 2, folds)
    with pytest.raises(ValueError, match="at least one"):
        join_stacks([])


def test_a_fold_without_weight_is_refused() -> None:
    folds, weight = [np.arange(3), np.arange(2)], np.array([0.0, 0.0, 1.0])
    with pytest.raises(ValueError, match=r"sample_weight is 0 for every row of folds \[1\]"):
        stack_folds(np.eye(3), np.arange(3) % 2, folds, sample_weight=weight)
