"""The projection as a function, the diagnostics, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.optim.contract import gradient
from tests.optim.naive import cosine, project
from torch import Tensor

from gradworks.optim.adamp import effective_step, project_radial, scale_invariance


def drawn(shape: tuple[int, ...], kind: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, gradient of a kind, update."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=g, dtype=torch.float64)
    grad = gradient(weight, kind, g)
    return weight, grad, torch.randn(shape, generator=g, dtype=torch.float64)


@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple),
    kind=st.integers(0, 3),
    seed=st.integers(0, 10_000),
    delta=st.sampled_from([0.0, 0.1, 0.9, math.inf]),
    eps=st.sampled_from([1e-8, 1e-2]),
)
@settings(max_examples=80, deadline=None)
def test_equals_the_transcription(
    shape: tuple[int, ...], kind: int, seed: int, delta: float, eps: float
) -> None:
    weight, grad, update = drawn(shape, kind, seed)
    kept = update.clone()
    new, ratio = project_radial(weight, grad, update, delta=delta, wd_ratio=0.3, eps=eps)
    rows, branch = project(
        *(x.flatten(1).tolist() for x in (weight, grad, update)), delta=delta, eps=eps
    )
    want = torch.tensor(rows, dtype=torch.float64).reshape(shape)
    torch.testing.assert_close(new, want, rtol=1e-10, atol=1e-12)
    assert ratio.shape == ()
    assert ratio.dtype == torch.float64
    assert float(ratio) == (0.3 if branch else 1.0)
    assert torch.equal(update, kept)


@given(seed=st.integers(0, 1000), kind=st.sampled_from([0, 1]), scale=st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_orthogonal_idempotent_and_blind_to_scale(seed: int, kind: int, scale: float) -> None:
    weight, grad, update = drawn((4, 3, 2), kind, seed)
    new, ratio = project_radial(weight, grad, update, eps=1e-16)
    assert ratio == 0.1
    along = (weight * new).flatten(1).sum(1) if kind == 0 else (weight * new).sum()
    assert along.abs().max() < 1e-12
    again, _ = project_radial(weight, grad, new, eps=1e-16)
    torch.testing.assert_close(again, new, rtol=1e-12, atol=1e-13)
    scaled, same = project_radial(scale * weight, grad / scale, update, eps=1e-16)
    torch.testing.assert_close(scaled, new, rtol=1e-10, atol=1e-12)
    assert same == ratio


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    weight, grad, update = (x.to(dtype) for x in drawn((8, 64), 0))
    new, ratio = project_radial(weight, grad, update, delta=1.0)
    assert new.dtype == dtype
    assert ratio.dtype == torch.float32
    wide, _ = project_radial(*(x.double() for x in (weight, grad, update)), delta=1.0)
    torch.testing.assert_close(new.double(), wide, rtol=1e-2, atol=1e-2)
    # sums of 64 squares of 300: beyond what float16 holds
    large, _ = project_radial(300 * weight, grad, update, delta=1.0)
    assert large.isfinite().all()


def test_complex_is_pairs_of_reals() -> None:
    weight, grad, update = drawn((3, 4, 2), 0)
    new, ratio = project_radial(*map(torch.view_as_complex, (weight, grad, update)))
    want, same = project_radial(weight, grad, update)
    torch.testing.assert_close(torch.view_as_real(new), want)
    assert ratio == same == 0.1
    # the threshold counts pairs twice: cosine 0.6 against delta / sqrt 4
    weight, grad = torch.tensor([[1.0, 0]]), torch.tensor([[3.0 + 4.0j, 0]])
    for delta, share in ((1.19, 1.0), (1.21, 0.1)):
        _, ratio = project_radial(weight + 0j, grad, grad, delta=delta)
        assert float(ratio) == pytest.approx(share)
    weight, grad, _ = drawn((3, 4, 2), 0)
    conjugate = torch.view_as_complex(weight).conj()
    assert project_radial(conjugate, conjugate, conjugate)[0].shape == (3, 4)


@pytest.mark.parametrize("shape", [(), (7,), (0, 3), (3, 0)])
def test_nothing_to_project(shape: tuple[int, ...]) -> None:
    weight, grad, update = (torch.randn(shape) for _ in range(3))
    new, ratio = project_radial(weight, grad, update)
    assert torch.equal(new, update)
    assert new is not update
    assert ratio == 1


def test_differentiable_and_without_branches() -> None:
    weight, grad, update = drawn((3, 4), 2)

    def projected(w: Tensor, u: Tensor) -> Tensor:
        return project_radial(w, grad, u, delta=math.inf)[0]

    assert torch.autograd.gradcheck(projected, (weight.requires_grad_(), update.requires_grad_()))
    with torch.no_grad():
        weight[1] = 0.0  # a zero row: the root of its square has no slope
    for delta in (0.0, math.inf):
        new, _ = project_radial(weight, grad, update, delta=delta)
        (slope,) = torch.autograd.grad(new.sum(), weight)
        assert slope.isfinite().all()
        assert not slope[1].any()
    # a graph can be made without a value in sight, so nothing is synchronized
    with torch.device("meta"):
        shapes = [torch.empty(3, 4) for _ in range(3)]
    assert project_radial(*shapes)[0].shape == (3, 4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_in_one_graph() -> None:
    compiled = torch.compile(project_radial, fullgraph=True)
    for kind in range(3):
        tensors = drawn((3, 4), kind)
        got, ratio = compiled(*tensors)
        want, same = project_radial(*tensors)
        torch.testing.assert_close(got, want)
        assert ratio == same


def test_vmap_over_weights() -> None:
    weights, grads, updates = (torch.stack(x) for x in zip(*(drawn((3, 4), k) for k in range(4))))
    new, ratios = torch.vmap(project_radial)(weights, grads, updates)
    for i in range(4):
        one, ratio = project_radial(weights[i], grads[i], updates[i])
        torch.testing.assert_close(new[i], one)
        assert ratios[i] == ratio
    assert ratios.tolist() == [0.1, 0.1, 1.0, 0.1]


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 2), (5,), ()])
def test_scale_invariance(shape: tuple[int, ...]) -> None:
    weight, grad, _ = drawn(shape, 2)
    rows, whole = scale_invariance(weight, grad)
    p = weight.reshape(1, -1) if weight.ndim < 2 else weight.flatten(1)
    g = grad.reshape(p.shape)
    want = [cosine(a, b, 1e-8) for a, b in zip(g.tolist(), p.tolist())]
    torch.testing.assert_close(rows, torch.tensor(want, dtype=torch.float64))
    expected = cosine(g.flatten().tolist(), p.flatten().tolist(), 1e-8)
    assert float(whole) == pytest.approx(expected)


def test_a_normalized_layer_is_scale_invariant() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv, norm = torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)
        norm(conv(torch.randn(4, 3, 9, 9))).square().mean(1).exp().sum().backward()
    rows, whole = scale_invariance(conv.weight, conv.weight.grad)
    assert rows.shape == (8,)
    assert rows.max() < 1e-3
    assert whole < 1e-3
    assert not rows.requires_grad or rows.grad_fn is not None


def test_effective_step() -> None:
    weight = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert effective_step(weight, 0.5) == pytest.approx(0.02)
    assert effective_step(weight.bfloat16(), 0.5) == pytest.approx(0.02)
    assert effective_step(torch.complex(weight, weight), torch.tensor(0.5)) == pytest.approx(0.01)
    assert effective_step(torch.zeros(2, 2), 0.5) == math.inf


ONES = torch.ones(2, 3)
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"grad": torch.ones(3, 2)}, ValueError, "grad must have the shape of param (2, 3), got (3, 2"),
    ({"update": torch.ones(1, 3)}, ValueError, "update must have the shape of param (2, 3)"),
    ({"grad": ONES.to_sparse()}, RuntimeError, "grad is sparse; pass grad.to_dense()"),
    ({"delta": -1.0}, ValueError, "delta must be at least 0, got -1.0"),
    ({"eps": -1.0}, ValueError, "eps must be at least 0, got -1.0"),
    ({"wd_ratio": 2.0}, ValueError, "wd_ratio must be in [0, 1], got 2.0"),
    ({"wd_ratio": "x"}, TypeError, "wd_ratio must be a number, got str"),
]


@pytest.mark.parametrize(("change", "error", "fragment"), BAD)
def test_bad_input(change: dict[str, Any], error: type[Exception], fragment: str) -> None:
    with pytest.raises(error) as caught:
        project_radial(**{"param": ONES, "grad": ONES, "update": ONES, **change})
    assert fragment in str(caught.value)


def test_bad_input_of_the_diagnostic() -> None:
    with pytest.raises(ValueError, match="grad must have the shape of param"):
        scale_invariance(ONES, torch.ones(3, 2))
