"""LoLDU: golden values of the authors' code, closed forms, gradients, adapters, errors."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gradworks.layers.loldu import (
    BaseModelMismatchError,
    LoLDULinear,
    apply_loldu,
    ldu,
    load_loldu_state_dict,
    loldu_parameters,
    loldu_state_dict,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "loldu" / "loldu.npz")
CASES = {
    "sq": "lu",
    "tall": "lu",
    "wide": "lu",
    "ones": "ones",
    "zeros": "zeros",
    "const": "constant",
}
CLOSE = {"rtol": 2e-6, "atol": 2e-6}


def given_array(case: str, name: str) -> Tensor:
    return torch.from_numpy(np.array(GOLDEN[f"{case}_{name}"]))


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    out, inp = weight.shape
    layer = nn.Linear(inp, out, bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def draw(out: int, inp: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(out, inp, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("case", "init"), CASES.items())
def test_golden_of_the_authors_code(case: str, init: str) -> None:
    _, _, rank, alpha = given_array(case, "meta").tolist()
    base = linear(given_array(case, "W"), given_array(case, "b"))
    x, w = given_array(case, "x"), given_array(case, "w")
    torch.testing.assert_close(base(x), given_array(case, "y_base"), **CLOSE)
    residual = "lu" if init in ("ones", "zeros") else "exact"
    layer = LoLDULinear(base, rank, alpha, init=init, residual=residual)
    P, L = given_array(case, "P"), given_array(case, "L")
    torch.testing.assert_close(layer.A, P @ L, **CLOSE)
    torch.testing.assert_close(layer.B, given_array(case, "U"), **CLOSE)
    assert layer.scaling == pytest.approx(float(given_array(case, "sigma")))
    torch.testing.assert_close(layer(x), given_array(case, "y_init"), **CLOSE)
    (layer(x) * w).sum().backward()
    torch.testing.assert_close(layer.z.grad, given_array(case, "gz"), rtol=1e-5, atol=5e-6)
    with torch.no_grad():
        layer.z += 0.1 * torch.arange(1, rank + 1)
    torch.testing.assert_close(layer.z.detach(), given_array(case, "z"), **CLOSE)
    torch.testing.assert_close(layer(x), given_array(case, "y_after"), **CLOSE)
    torch.testing.assert_close(layer.to_dense(), given_array(case, "W_merged"), **CLOSE)
    torch.testing.assert_close(layer.to_linear()(x), given_array(case, "y_after"), **CLOSE)


@settings(max_examples=30, deadline=None)
@given(out=st.integers(1, 9), inp=st.integers(1, 9), seed=st.integers(0, 99))
def test_factors_multiply_to_the_weight(out: int, inp: int, seed: int) -> None:
    W = draw(out, inp, seed)
    f = ldu(W)
    torch.testing.assert_close(f.L @ torch.diag(f.d) @ f.U, W[f.row_perm])
    q = min(out, inp)
    torch.testing.assert_close(torch.tril(f.U[:, :q], -1), torch.zeros(q, q, dtype=W.dtype))
    torch.testing.assert_close(f.U.diagonal(), torch.ones(q, dtype=W.dtype))
    assert float(f.L.abs().max()) <= 1 + 1e-12


def test_singular_weights_keep_the_product() -> None:
    W = draw(5, 1) @ draw(1, 5, 1)
    f = ldu(W)
    torch.testing.assert_close(f.L @ torch.diag(f.d) @ f.U, W[f.row_perm])
    assert bool(torch.isfinite(f.U).all())
    assert float(f.U.abs().max()) < 1e6


@pytest.mark.parametrize("init", ["lu", "constant", "uniform", "normal", "ones", "zeros"])
def test_the_start_is_the_base_model(init: str) -> None:
    base = linear(draw(6, 4, dtype=torch.float32), torch.ones(6))
    x = draw(3, 4, 1, torch.float32)
    want = base(x)
    layer = LoLDULinear(base, 3, init=init, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(x), want)
    assert [n for n, p in layer.named_parameters() if p.requires_grad] == ["z"]


def test_closed_forms() -> None:
    diagonal = torch.tensor([3.0, -2.0, 1.5], dtype=torch.float64)
    layer = LoLDULinear(linear(torch.diag(diagonal)), 3, alpha=3.0)
    torch.testing.assert_close(layer.z.detach(), diagonal)
    with torch.no_grad():
        layer.z.copy_(torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(layer.to_dense(), torch.diag(layer.z))
    W = draw(5, 5)
    full, f = LoLDULinear(linear(W), 5, alpha=5.0), ldu(W)
    with torch.no_grad():
        full.z.mul_(2)
    torch.testing.assert_close(full.to_dense()[f.row_perm], f.L @ torch.diag(full.z) @ f.U)


def test_gradients() -> None:
    layer = LoLDULinear(linear(draw(5, 4), torch.ones(5, dtype=torch.float64)), 3, alpha=2.0)
    x, G = draw(6, 4, 1).requires_grad_(), draw(6, 5, 2)
    with torch.no_grad():
        layer.z += 0.3
    (layer(x) * G).sum().backward()
    want = layer.scaling * ((G @ layer.A) * (x @ layer.B.T)).sum(0)
    torch.testing.assert_close(layer.z.grad, want.detach())
    call = lambda z, x: torch.func.functional_call(layer, {"z": z}, (x,))  # noqa: E731
    torch.autograd.gradcheck(call, (layer.z, x))


def test_both_routes_and_merging_agree() -> None:
    layer = LoLDULinear(linear(draw(6, 5)), 4, alpha=2.0)
    with torch.no_grad():
        layer.z += torch.arange(4)
    x = draw(50, 5, 3)
    low_rank = layer(x)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), low_rank)
    before = layer.base.weight.clone()
    assert layer.merge_(safe=True).merged
    torch.testing.assert_close(layer.merge_()(x), low_rank)
    torch.testing.assert_close(layer.unmerge_().unmerge_().base.weight, before)
    torch.testing.assert_close(layer(x), low_rank)
    with torch.no_grad():
        layer.z.fill_(math.inf)
    with pytest.raises(ValueError, match="not finite"):
        layer.merge_(safe=True)


def test_half_precision_and_autocast() -> None:
    base = linear(draw(6, 4, dtype=torch.float32))
    layer = LoLDULinear(base, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(2, 4)).dtype == torch.bfloat16
    half = LoLDULinear(linear(draw(6, 4, dtype=torch.float32).bfloat16()), 3)
    assert half.z.dtype == torch.float32
    assert half(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    half(torch.ones(2, 4, dtype=torch.bfloat16)).sum().backward()
    assert half.z.grad is not None


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))


def test_an_adapter_trains_saves_and_loads() -> None:
    model, x = network(), torch.randn(32, 6)
    y = (x[:, 0] > 0).long()
    assert apply_loldu(model, rank=6, alpha=6.0, target_modules=["0", "2"]) == ["0", "2"]
    frozen = copy.deepcopy(model.state_dict())
    opt = torch.optim.AdamW(loldu_parameters(model), lr=5e-2, weight_decay=0)
    first = float(nn.functional.cross_entropy(model(x), y).detach())
    for _ in range(60):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
    assert float(loss.detach()) < 0.9 * first
    for name, value in model.state_dict().items():
        assert torch.equal(value, frozen[name]) != name.endswith(".z")
    state = loldu_state_dict(model)
    assert sum(v.numel() for k, v in state.items() if k.endswith("loldu_z")) == 12
    other = network()
    apply_loldu(other, rank=6, alpha=6.0, target_modules=lambda name, _: name in ("0", "2"))
    load_loldu_state_dict(other, state)
    assert torch.equal(other(x), model(x))
    stranger = network(1)
    apply_loldu(stranger, rank=6, alpha=6.0, target_modules=["0", "2"])
    with pytest.raises(BaseModelMismatchError, match="another base weight"):
        load_loldu_state_dict(stranger, state)
    assert torch.equal(stranger.get_submodule("0").z, stranger.get_submodule("0").z_init)
    load_loldu_state_dict(stranger, state, strict=False)
    other.get_submodule("0").merge_()
    with pytest.raises(RuntimeError, match="merged"):
        load_loldu_state_dict(other, state)
    thin = network()
    apply_loldu(thin, rank=2, target_modules=["0"])
    with pytest.raises(ValueError, match="rank 2"):
        load_loldu_state_dict(thin, state)


@pytest.mark.parametrize(
    ("call", "error", "fragment"),
    [
        (lambda b: LoLDULinear(b, 0), ValueError, "rank"),
        (lambda b: LoLDULinear(b, alpha=math.inf), ValueError, "alpha"),
        (lambda b: LoLDULinear(b, init="svd"), ValueError, "init"),
        (lambda b: LoLDULinear(b, residual="none"), ValueError, "residual"),
        (lambda b: LoLDULinear(nn.ReLU()), TypeError, r"nn\.Linear"),
        (lambda b: LoLDULinear(linear(torch.zeros(3, 3))), ValueError, "all zero"),
        (lambda b: ldu(torch.full((2, 2), math.nan)), ValueError, "NaN"),
        (lambda b: ldu(torch.ones(2, 2, dtype=torch.int8)), TypeError, "dequantise"),
        (lambda b: ldu(torch.ones(3)), ValueError, "2-D"),
        (lambda b: apply_loldu(nn.Sequential(b), target_modules=["x"]), ValueError, "fits no"),
        (
            lambda b: apply_loldu(nn.Sequential(b, nn.ReLU()), target_modules=["1"]),
            TypeError,
            "ReLU",
        ),
    ],
)
def test_bad_input(call: object, error: type[Exception], fragment: str) -> None:
    with pytest.raises(error, match=fragment):
        call(nn.Linear(4, 4))


def test_a_rank_above_the_size_is_cut() -> None:
    with pytest.warns(UserWarning, match="cut to min"):
        assert LoLDULinear(nn.Linear(3, 5), 9).rank == 3
