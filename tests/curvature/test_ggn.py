"""The Gauss-Newton matrix: golden values, closed forms, H = G + R, the Gram route."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curvature.nets import CASES, f64, golden, problem, vector
from torch import Tensor, nn

from gradworks.curvature.operators import GGNOperator, HessianOperator
from gradworks.curvature.spectrum import gauss_newton_split, gram_spectrum

METHODS = ("double_backward", "forward_over_reverse", "linearize", "finite_difference")
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cache", ["never", "auto"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_golden(case: dict, cache: str, method: str) -> None:
    model, loss_fn, data = golden(case)
    op = GGNOperator(model, loss_fn, data, method=method, cache=cache)
    exact = method != "finite_difference"
    tolerance = CLOSE if exact else {"rtol": 1e-5, "atol": 1e-7}
    for _ in range(2):
        torch.testing.assert_close(op @ f64(case["v"]), f64(case["Gv"]), **tolerance)
    if exact and (method, cache) != ("linearize", "never"):  # a trace a column takes seconds
        values = torch.linalg.eigvalsh(op.to_dense())
        torch.testing.assert_close(values, f64(case["ggn_eigenvalues"]), **CLOSE)


@given(
    n=st.integers(1, 13),
    seed=st.integers(0, 10_000),
    microbatch=st.sampled_from([None, 1, 3]),
    cut=st.integers(0, 12),
)
@settings(max_examples=25, deadline=None)
def test_properties(n: int, seed: int, microbatch: int | None, cut: int) -> None:
    model, loss_fn, (x, y) = problem(n, seed)
    whole = GGNOperator(model, loss_fn, (x, y))
    G = whole.to_dense()
    torch.testing.assert_close(G, G.T, **CLOSE)
    values = torch.linalg.eigvalsh(G)
    assert float(values[0]) > -1e-12
    assert float(G.trace()) >= 0
    # Softmax annihilates one direction an example.
    assert int((values > 1e-10).sum()) <= n * 2
    if 0 < cut < n:
        data = [(x[:cut], y[:cut]), (x[cut:], y[cut:])]
        op = GGNOperator(model, loss_fn, data, microbatch_size=microbatch)
        v = vector(len(G), seed)
        torch.testing.assert_close(op @ v, G @ v, **CLOSE)


@pytest.mark.parametrize("loss_name", ["cross_entropy", "mse"])
def test_transcription_of_the_definition(loss_name: str) -> None:
    model, loss_fn, (x, y) = problem(7)
    if loss_name == "mse":
        loss_fn, y = F.mse_loss, vector(21).reshape(7, 3)
    named = dict(model.named_parameters())

    def outputs(*params: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(named, params)), (x,)).reshape(-1)

    parts = torch.autograd.functional.jacobian(outputs, tuple(p.detach() for p in named.values()))
    J = torch.cat([part.reshape(21, -1) for part in parts], dim=1)
    f = outputs(*named.values()).detach()
    A = torch.autograd.functional.hessian(lambda o: loss_fn(o.view(7, 3), y), f)
    torch.testing.assert_close(GGNOperator(model, loss_fn, (x, y)).to_dense(), J.T @ A @ J, **CLOSE)


def test_linear_model_with_squared_error() -> None:
    # R = 0, G = 2 X^T X / (N C) for each output.
    X, Y = vector(24, 1).reshape(8, 3), vector(16, 2).reshape(8, 2)
    model = nn.Linear(3, 2, bias=False).double()
    split = gauss_newton_split(model, F.mse_loss, (X, Y))
    block = 2 * X.T @ X / 16
    torch.testing.assert_close(split.gauss_newton, torch.block_diag(block, block), **CLOSE)
    assert float(split.residual.abs().max()) < 1e-14


def test_the_residual_vanishes_at_a_perfect_fit() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    x = vector(30).reshape(10, 3)
    y = model(x).detach()
    for distance, bound in ((0.0, 1e-13), (1e-3, 1e-2)):
        split = gauss_newton_split(model, F.mse_loss, (x, y + distance))
        assert float(split.residual.norm() / split.gauss_newton.norm()) <= bound
    torch.testing.assert_close(
        split.hessian, HessianOperator(model, F.mse_loss, (x, y + distance)).to_dense(), **CLOSE
    )


def test_a_loss_linear_in_the_outputs_has_none() -> None:
    model, _, data = problem()
    op = GGNOperator(model, lambda o, t: o.mean(), data)
    assert float(op.to_dense().abs().max()) == 0


# ---------------------------------------------------------------- Gram matrix


@pytest.mark.parametrize("chunk_size", [1, 5, 64])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_gram_gives_the_nonzero_part(case: dict, chunk_size: int) -> None:
    model, loss_fn, data = golden(case)
    values = f64(case["ggn_eigenvalues"])
    gram = gram_spectrum(model, loss_fn, data, chunk_size=chunk_size)
    nonzero = values[values > 1e-12]
    torch.testing.assert_close(gram, nonzero, rtol=1e-8, atol=1e-13)


def test_gram_over_ragged_batches_and_more_outputs_than_parameters() -> None:
    model, loss_fn, (x, y) = problem(20)
    want = torch.linalg.eigvalsh(GGNOperator(model, loss_fn, (x, y)).to_dense())
    gram = gram_spectrum(model, loss_fn, [(x[:13], y[:13]), (x[13:], y[13:])])
    torch.testing.assert_close(gram, want[-len(gram) :], rtol=1e-8, atol=1e-12)
    assert float(want[: -len(gram)].abs().sum()) < 1e-12


def test_gram_spectrum_of_a_half_type() -> None:
    model = nn.Linear(3, 1, bias=False).bfloat16()
    data = (2 * torch.eye(3)[:2].bfloat16(), torch.ones(2, 1).bfloat16())
    torch.testing.assert_close(
        gram_spectrum(model, F.mse_loss, data), torch.tensor([4.0, 4.0]), rtol=1e-2, atol=0
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_size": 0}, "chunk_size"),
        ({"max_outputs": 10}, 'method="slq"'),
        ({"process_group": object()}, "all outputs in one process"),
        ({"loss_fn": lambda o, t: -o.square().mean()}, "not convex in the outputs"),
        ({"model": nn.Sequential(nn.Linear(3, 3), nn.Flatten(0)).double()}, "counts examples"),
    ],
)
def test_bad_gram(options: dict, message: str) -> None:
    model, loss_fn, data = problem()
    if "model" in options:
        options["loss_fn"] = lambda o, t: o.square().mean()
    model, loss_fn = options.pop("model", model), options.pop("loss_fn", loss_fn)
    with pytest.raises(ValueError, match=message):
        gram_spectrum(model, loss_fn, data, **options)


def test_a_model_must_return_one_tensor() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.layer(x), x

    _, _, data = problem()
    with pytest.raises(TypeError, match="returns one tensor, got tuple"):
        GGNOperator(Pair().double(), lambda o, t: o[0].sum(), data) @ vector(12)
