"""Bases, transforms, selection and quantization behind DCTAdamW."""

from __future__ import annotations

import gc
import itertools
import math
from typing import Any

import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.optim.dct_cases import golden, near
from torch import Tensor

from gradworks.optim.dct_adamw import captured_energy, dct, dct_matrix, select_columns
from gradworks.optim.dct_adamw.basis import basis_for
from gradworks.optim.dct_adamw.feedback import dequantize, packed_length, quantize
from gradworks.optim.dct_adamw.selection import BLOCK, norms_of

SIZES = (1, 2, 3, 5, 8, 17, 64, 512)
HOST = torch.device("cpu")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


# ---------------------------------------------------------------- bases


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("basis", ["dct3", "dct2", "identity", "hadamard"])
def test_orthogonal(n: int, basis: str) -> None:
    if basis == "hadamard" and n & (n - 1):
        with pytest.raises(ValueError, match=f"power of 2, got {n}"):
            dct_matrix(n, basis=basis)
        return
    Q = dct_matrix(n, basis=basis, dtype=torch.float64)
    assert Q.is_contiguous()
    assert (Q @ Q.T - torch.eye(n, dtype=torch.float64)).abs().max() < 1e-13


def test_float32_basis_is_rounded_not_built_in_float32() -> None:
    """The released code's basis is off by 1e-5 at this size, and more at others."""
    Q = dct_matrix(512).double()
    assert (Q @ Q.T - torch.eye(512, dtype=torch.float64)).abs().max() < 5e-7


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_golden_matrix(n: int) -> None:
    near(dct_matrix(n, dtype=torch.float64), golden(f"dct3_{n}"))


def test_first_vectors() -> None:
    """Columns of dct2 are cosines of rising frequency, the first constant."""
    Q = dct_matrix(6, basis="dct2", dtype=torch.float64)
    torch.testing.assert_close(Q[:, 0], torch.full((6,), 6**-0.5, dtype=torch.float64))
    changes = [(Q[1:, j].sign() != Q[:-1, j].sign()).sum().item() for j in range(6)]
    assert changes == list(range(6))
    assert torch.equal(Q.T, dct_matrix(6, basis="dct3", dtype=torch.float64))


def test_one_basis_for_all_and_none_when_unused() -> None:
    one = basis_for("dct3", 37, "fft", torch.float32, HOST)
    two = basis_for("dct3", 37, "matmul", torch.float32, HOST)
    assert one.rows is two.rows
    again = basis_for("dct3", 37, "fft", torch.float32, HOST)
    assert one.turn is again.turn is not None
    assert dct_matrix(37).data_ptr() != one.rows.data_ptr()  # the caller's own
    from gradworks.optim.dct_adamw.basis import _ROWS
    from gradworks.optim.dct_adamw.fourier import _TURNS

    del one, two, again
    gc.collect()
    assert "dct3/37/torch.float32/cpu" not in _ROWS
    assert "dct3/37/torch.float32/cpu" not in _TURNS


def test_transform_by_size() -> None:
    assert basis_for("dct3", 511, "auto", torch.float32, HOST).turn is None
    assert basis_for("dct3", 512, "auto", torch.float32, HOST).turn is not None
    assert basis_for("identity", 512, "auto", torch.float32, HOST).turn is None


# ---------------------------------------------------------------- transforms


@pytest.mark.parametrize("n", [*SIZES, 6, 7, 9, 31, 100, 513])
@pytest.mark.parametrize("basis", ["dct2", "dct3"])
def test_fft_equals_matmul_and_scipy(n: int, basis: str) -> None:
    x = drawn(3, n, seed=n)
    by_fft, by_matmul = dct(x, basis, "fft"), dct(x, basis, "matmul")
    torch.testing.assert_close(by_fft, by_matmul, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(by_matmul, x @ dct_matrix(n, basis=basis, dtype=x.dtype))
    theirs = scipy.fft.dct(x.numpy(), type=int(basis[-1]), norm="ortho")
    torch.testing.assert_close(by_fft, torch.tensor(theirs), rtol=1e-12, atol=1e-12)
    back = dct(by_fft, "dct3" if basis == "dct2" else "dct2", "fft")
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-12)


def test_golden_transform() -> None:
    near(dct(golden("dct2_in"), "dct2", "fft"), golden("dct2_out"))


@pytest.mark.parametrize("shape", [(6,), (2, 3, 6), (0, 6)])
def test_shapes_and_gradients(shape: tuple[int, ...]) -> None:
    x = drawn(*shape).requires_grad_()
    y = dct(x, "dct2", "fft")
    assert y.shape == shape
    weight = drawn(*shape, seed=1)
    (y * weight).sum().backward()
    torch.testing.assert_close(x.grad, dct(weight, "dct3", "matmul"))  # the transpose


@pytest.mark.parametrize("basis", ["dct2", "dct3"])
def test_large_matrices_go_in_blocks(basis: str) -> None:
    """More rows than a block, on either side, equal those transformed at once."""
    n = 100
    x = drawn(2 * BLOCK // n + 7, n)
    want = x @ dct_matrix(n, basis=basis, dtype=x.dtype)
    found = basis_for(basis, n, "fft", x.dtype, HOST)
    torch.testing.assert_close(found.project(x), want, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found.project_columns(x.mT), want.mT, rtol=1e-11, atol=1e-11)
    for norm in (1, 2):
        lengths = want.abs().pow(norm).sum(0)
        torch.testing.assert_close(norms_of(want, norm, -1), lengths)
        torch.testing.assert_close(norms_of(want.mT, norm, -2), lengths)
        torch.testing.assert_close(norms_of(want.mT.contiguous(), norm, -2), lengths)


def test_calls_do_not_build_the_basis_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradworks.optim.dct_adamw import basis

    x = drawn(2, 23)
    dct(x, "dct3", "matmul")
    dct(drawn(1, 3000), "dct3", "fft")

    def refused(n: int, name: str) -> Tensor:
        raise AssertionError(f"{name} of size {n} was built")

    monkeypatch.setattr(basis, "_built", refused)
    dct(x, "dct3", "matmul")
    dct(drawn(1, 3001), "dct2", "fft")  # an FFT needs no matrix at all


@pytest.mark.parametrize("transform", ["matmul", "fft"])
def test_what_calls_keep_serves_autograd(transform: str) -> None:
    """A first call without autograd must not leave tensors that autograd refuses."""
    with torch.inference_mode():
        dct(drawn(2, 26), "dct3", transform)
    x = drawn(2, 26).requires_grad_()
    dct(x, "dct3", transform)[0, 0].backward()
    torch.testing.assert_close(x.grad[0], dct_matrix(26, dtype=torch.float64)[:, 0])


@pytest.mark.parametrize("transform", ["matmul", "fft"])
def test_default_device_does_not_matter(transform: str) -> None:
    x = drawn(2, 27)
    with torch.device("meta"):
        found = dct(x, "dct2", transform)
    near(found, x @ dct_matrix(27, basis="dct2", dtype=torch.float64))


def test_identity_is_a_copy_and_bf16_stays() -> None:
    x = drawn(2, 4)
    y = dct(x, "identity")
    assert torch.equal(x, y)
    assert x.data_ptr() != y.data_ptr()
    assert dct(x.bfloat16(), "dct2").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "error", "fragment"),
    [
        (lambda: dct_matrix(0), ValueError, "n must be at least 1, got 0"),
        (lambda: dct_matrix(2.0), TypeError, "n must be an integer, got 2.0"),
        (lambda: dct_matrix(True), TypeError, "n must be an integer"),
        (lambda: dct_matrix(4, basis="dct4"), ValueError, "got 'dct4'"),
        (lambda: dct_matrix(4, dtype=torch.int64), ValueError, "floating dtype, got torch.int64"),
        (lambda: dct(torch.ones(3, dtype=torch.int64)), TypeError, "real floating tensor"),
        (lambda: dct(torch.ones(3, dtype=torch.complex64)), TypeError, "got torch.complex64"),
        (lambda: dct([1.0]), TypeError, "real floating tensor"),
        (lambda: dct(torch.tensor(1.0)), ValueError, r"got shape ()"),
        (lambda: dct(torch.ones(2, 0)), ValueError, "got shape (2, 0)"),
        (lambda: dct(torch.ones(3), transform="fast"), ValueError, "got 'fast'"),
        (lambda: dct(torch.ones(4), "hadamard", "fft"), ValueError, "needs basis 'dct2' or 'dct3'"),
        (lambda: dct(torch.ones(2), torch.eye(2)), ValueError, "x @ Q"),
        (lambda: select_columns(torch.ones(3), 1), ValueError, "got shape (3,)"),
        (lambda: select_columns(torch.ones(3, 2), 3), ValueError, "[1, 2], got 3"),
        (lambda: select_columns(torch.ones(3, 2), 0), ValueError, "got 0"),
        (lambda: select_columns(torch.ones(3, 2), 1, norm=3), ValueError, "norm must be 1 or 2"),
        (lambda: select_columns(torch.ones(3, 2), 1, dim=2), ValueError, "got 2"),
        (lambda: captured_energy(torch.ones(3, 2), torch.eye(3), 1), ValueError, "(3, 2) and"),
    ],
)
def test_bad_arguments(call: Any, error: type[Exception], fragment: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert fragment in str(caught.value)


# ---------------------------------------------------------------- selection


@pytest.mark.parametrize("rank", [1, 3, 5, 8])
def test_norm_2_is_the_best_choice(rank: int) -> None:
    """Of all subsets of 8 columns none leaves less."""
    G, Q = drawn(5, 8), dct_matrix(8, dtype=torch.float64)
    S = G @ Q

    def left(columns: Any) -> float:
        picked = Q[:, list(columns)]
        return float((G - G @ picked @ picked.T).square().sum())

    best = min(left(subset) for subset in itertools.combinations(range(8), rank))
    found = left(select_columns(S, rank, norm=2).tolist())
    assert found == pytest.approx(best, abs=1e-12)
    share = captured_energy(G, Q, rank)
    assert share == pytest.approx(1 - found / float(G.square().sum()), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 7), n=st.integers(1, 9), seed=st.integers(0, 10**6), data=st.data())
def test_contractive(rows: int, n: int, seed: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, n))
    G = drawn(rows, n, seed=seed)
    S = dct(G, "dct3")
    a = S[:, select_columns(S, rank, norm=2)]
    assert G.square().sum() - a.square().sum() <= (1 - rank / n) * G.square().sum() + 1e-12


def test_ties_fall_to_the_lower_index() -> None:
    assert select_columns(torch.zeros(3, 50), 4).tolist() == [0, 1, 2, 3]
    S = torch.tensor([[1.0, 2.0, 2.0, 1.0, 2.0]])
    assert select_columns(S, 2).tolist() == [1, 2]
    assert select_columns(S, 4).tolist() == [0, 1, 2, 4]


def test_rows_batches_and_norms() -> None:
    S = drawn(4, 6, 5)
    for dim in (-1, -2):
        batched = select_columns(S, 3, dim=dim)
        assert batched.shape == (4, 3)
        for one, found in zip(S, batched):
            assert torch.equal(select_columns(one, 3, dim=dim), found)
            assert torch.equal(select_columns(one.T, 3, dim=-3 - dim), found)
    # many small against one large: the norms disagree
    S = torch.tensor([[3.0, 1.5], [0.0, 1.6], [0.0, 0.5]])
    assert select_columns(S, 1, norm=1).tolist() == [1]
    assert select_columns(S, 1, norm=2).tolist() == [0]


def test_captured_energy_of_everything_and_nothing() -> None:
    Q = dct_matrix(4, dtype=torch.float64)
    assert captured_energy(drawn(3, 4), Q, 4) == pytest.approx(1.0)
    assert captured_energy(torch.zeros(3, 4), Q, 1) == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_captured_energy_of_what_is_not_finite(value: float) -> None:
    G = drawn(3, 4)
    G[1, 2] = value
    assert math.isnan(captured_energy(G, torch.eye(4), 2))


# ---------------------------------------------------------------- errors in few bits


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 5),
    n=st.integers(1, 9),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["int8", "int4"]),
    dim=st.sampled_from([-1, -2]),
    exponent=st.integers(-6, 6),
)
def test_round_trip_within_half_a_step(
    rows: int, n: int, seed: int, kind: str, dim: int, exponent: int
) -> None:
    x = drawn(rows, n, seed=seed) * 10.0**exponent
    x[0] = 0.7  # a constant row comes back exactly
    x = x if dim == -1 else x.T.contiguous()
    q, low, high = quantize(x, kind, dim)
    assert q.dtype == torch.uint8
    assert q.shape[dim] == packed_length(n, kind)
    back = dequantize(q, low, high, kind, n, dim)
    step = (high - low) / (255 if kind == "int8" else 15)
    assert ((back - x).abs() <= step / 2 * (1 + 1e-9) + 1e-15 * x.abs()).all()
    first = back[0] if dim == -1 else back[:, 0]
    assert (first == 0.7).all()


def test_levels_and_order() -> None:
    """255 and 15 steps, neighbours in one byte, the first in its high half."""
    x = torch.arange(256.0).unsqueeze(0)
    q, low, high = quantize(x, "int8", -1)
    assert torch.equal(q[0].float(), x[0])
    assert torch.equal(dequantize(q, low, high, "int8", 256, -1), x)
    x = torch.tensor([[0.0, 15.0, 1.0, 2.0, 9.0]])
    q, low, high = quantize(x, "int4", -1)
    assert q.tolist() == [[0x0F, 0x12, 0x90]]
    assert torch.equal(dequantize(q, low, high, "int4", 5, -1), x)
