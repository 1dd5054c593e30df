"""Measuring changes nothing: modes, buffers, ``.grad``, random state, after errors too."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.nets import dense_hessian, problem, vector
from torch import Tensor, nn

from gradworks.curvature.hutchinson import trace
from gradworks.curvature.operators import FisherOperator, GGNOperator, HessianOperator

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def stochastic() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3)
    ).double()
    model.train()
    model[1].eval()  # a fine-tuner's frozen statistics: flags differ between submodules
    return model


def snapshot(model: nn.Module) -> tuple:
    return (
        [m.training for m in model.modules()],
        [b.clone() for b in model.buffers()],
        [p.detach().clone() for p in model.parameters()],
        torch.get_rng_state().clone(),
    )


def assert_same(before: tuple, after: tuple) -> None:
    assert before[0] == after[0]
    for old, new in zip((*before[1], *before[2], before[3]), (*after[1], *after[2], after[3])):
        assert torch.equal(old, new)


@pytest.mark.parametrize("mode", ["eval", "train", "keep"])
@pytest.mark.parametrize("kind", [HessianOperator, GGNOperator, FisherOperator])
@pytest.mark.parametrize(
    "method", ["double_backward", "forward_over_reverse", "linearize", "finite_difference"]
)
def test_everything_is_as_it_was(kind: type, mode: str, method: str) -> None:
    model = stochastic()
    _, _, data = problem(20)
    marked = model[0].weight.grad = torch.full_like(model[0].weight, 7.0)
    torch.rand(3)
    before = snapshot(model)
    op = kind(model, F.cross_entropy, data, mode=mode, method=method)
    v = vector(op.shape[0])
    first, second = op @ v, op @ v
    op.gradient()
    op.loss()
    trace(op, num_probes=2)
    assert_same(before, snapshot(model))
    assert model[0].weight.grad is marked
    assert bool((marked == 7).all())
    assert model[4].weight.grad is None
    assert torch.equal(first, second)  # equal dropout masks in every product


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_everything_is_as_it_was_after_an_error(mode: str) -> None:
    model = stochastic()
    _, _, data = problem(20)
    op = HessianOperator(model, F.cross_entropy, data, mode=mode)
    before = snapshot(model)

    def interrupt(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        raise KeyboardInterrupt

    hook = model[4].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        op @ vector(op.shape[0])
    with pytest.raises(KeyboardInterrupt):
        op.loss()
    hook.remove()
    assert_same(before, snapshot(model))
    assert torch.backends.mha.get_fastpath_enabled()
    assert bool(torch.isfinite(op @ vector(op.shape[0])).all())


def test_eval_mode_uses_running_statistics_and_no_dropout() -> None:
    model = stochastic()
    _, loss_fn, data = problem(20)
    H = HessianOperator(model, loss_fn, data).to_dense()
    model.eval()
    torch.testing.assert_close(H, dense_hessian(model, loss_fn, data), **CLOSE)


@pytest.mark.parametrize("cache", ["never", "always"])
@pytest.mark.parametrize(
    "method", ["double_backward", "forward_over_reverse", "linearize", "finite_difference"]
)
def test_train_mode_is_one_linear_operator(method: str, cache: str) -> None:
    model = stochastic()
    x, y = problem(24)[2]
    batches = [(x[:8], y[:8]), (x[8:], y[8:])]
    reference = HessianOperator(model, F.cross_entropy, batches, mode="train", cache="never")
    op = HessianOperator(model, F.cross_entropy, batches, mode="train", method=method, cache=cache)
    # The masks are those of the random state at construction.
    op._random, tolerance = reference._random, CLOSE
    if method == "finite_difference":
        tolerance = {"rtol": 1e-5, "atol": 1e-7}
    u, v = vector(op.shape[0], 1), vector(op.shape[0], 2)
    torch.testing.assert_close(op @ v, reference @ v, **tolerance)
    torch.testing.assert_close(u @ (op @ v), v @ (op @ u), **tolerance)
    assert not torch.allclose(op @ v, HessianOperator(model, F.cross_entropy, batches) @ v)


def test_train_mode_after_other_random_numbers_is_the_same_operator() -> None:
    model = stochastic()
    op = HessianOperator(model, F.cross_entropy, problem(20)[2], mode="train", cache="never")
    v = vector(op.shape[0])
    first = op @ v
    torch.rand(100)
    assert torch.equal(op @ v, first)


def test_microbatches_under_batch_norm_in_train_mode_warn() -> None:
    model = stochastic()
    with pytest.warns(UserWarning, match="depends on microbatch_size"):
        HessianOperator(model, F.cross_entropy, problem(20)[2], mode="train", microbatch_size=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HessianOperator(model, F.cross_entropy, problem(20)[2], microbatch_size=4)
        HessianOperator(model, F.cross_entropy, problem(20)[2], mode="train")


@pytest.mark.parametrize("kind", [HessianOperator, GGNOperator, FisherOperator])
@pytest.mark.parametrize("cache", ["never", "always"])
@pytest.mark.parametrize(
    "method", ["double_backward", "forward_over_reverse", "linearize", "finite_difference"]
)
def test_no_grad_and_inference_mode_around_it(kind: type, method: str, cache: str) -> None:
    model, loss_fn, data = problem()
    v = vector(31)
    options = {"method": method, "cache": cache}
    want = kind(model, loss_fn, data, **options) @ v
    assert float(want.norm()) > 0.1
    with torch.no_grad():
        op = kind(model, loss_fn, data, **options)
        torch.testing.assert_close(op @ v, want)
        torch.testing.assert_close((op @ v[:, None])[:, 0], want)
        if (method, cache) != ("linearize", "never"):  # a trace a column takes seconds
            torch.testing.assert_close(op.to_dense() @ v, want)
    op = kind(model, loss_fn, data, **options)
    with torch.inference_mode():
        torch.testing.assert_close(op @ v.clone(), want)


@pytest.mark.parametrize("fused", [True, False])
def test_attention_has_a_second_derivative(fused: bool) -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(
        8, 2, dim_feedforward=8, dropout=0.0, batch_first=True, norm_first=not fused
    ).double()
    x = vector(2 * 4 * 8).reshape(2, 4, 8)
    op = HessianOperator(model, F.mse_loss, (x, torch.zeros_like(x)), params="*norm*")
    H = op.to_dense()
    assert float(H.abs().max()) > 0
    torch.testing.assert_close(H, H.T, rtol=1e-8, atol=1e-10)
