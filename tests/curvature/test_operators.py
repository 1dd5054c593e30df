"""The Hessian by products: golden values, algebra, methods, surroundings, errors."""

from __future__ import annotations

import gc
import itertools
import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curvature.nets import CASES, dense_hessian, f64, golden, problem, symmetric, vector
from torch import Tensor, nn

from gradworks.curvature.operators import (
    DenseOperator,
    FunctionOperator,
    HessianOperator,
    SymmetricOperator,
)

METHODS = ("double_backward", "forward_over_reverse", "linearize", "finite_difference")
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


# ---------------------------------------------------------------- golden


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_golden_hessian(case: dict) -> None:
    model, loss_fn, data = golden(case)
    op = HessianOperator(model, loss_fn, data)
    assert op.shape == (len(case["v"]),) * 2
    assert op.dtype == torch.float64
    torch.testing.assert_close(op.loss(), f64(case["loss_value"]), **CLOSE)
    torch.testing.assert_close(op.gradient(), f64(case["gradient"]), **CLOSE)
    torch.testing.assert_close(op @ f64(case["v"]), f64(case["Hv"]), **CLOSE)
    H = op.to_dense()
    torch.testing.assert_close(H, f64(case["hessian"]), **CLOSE)
    torch.testing.assert_close(H.trace(), f64(case["trace"]), **CLOSE)
    torch.testing.assert_close(H.diagonal(), f64(case["diagonal"]), **CLOSE)
    eigenvalues = torch.linalg.eigvalsh((H + H.T) / 2)
    torch.testing.assert_close(eigenvalues, f64(case["hessian_eigenvalues"]), **CLOSE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_every_method_gives_the_same_product(case: dict, method: str) -> None:
    model, loss_fn, data = golden(case)
    op = HessianOperator(model, loss_fn, data, method=method, cache="never")
    tolerance = {"rtol": 1e-5, "atol": 1e-7} if method == "finite_difference" else CLOSE
    torch.testing.assert_close(op @ f64(case["v"]), f64(case["Hv"]), **tolerance)
    kept = HessianOperator(model, loss_fn, data, method=method)
    for _ in range(2):
        torch.testing.assert_close(kept @ f64(case["v"]), f64(case["Hv"]), **tolerance)


# ---------------------------------------------------------------- properties


@given(
    n=st.integers(1, 17),
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.integers(1, 16), max_size=3),
    microbatch=st.sampled_from([None, 1, 2, 5]),
    reduction=st.sampled_from(["mean", "sum"]),
)
@settings(max_examples=40, deadline=None)
def test_how_data_is_cut_changes_nothing(
    n: int, seed: int, cuts: list[int], microbatch: int | None, reduction: str
) -> None:
    model, _, (x, y) = problem(n, seed)

    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, reduction=reduction)

    edges = sorted({0, n, *(c for c in cuts if c < n)})
    batches = [(x[a:b], y[a:b]) for a, b in itertools.pairwise(edges)]
    whole = HessianOperator(model, loss_fn, (x, y), reduction=reduction)
    cut = HessianOperator(model, loss_fn, batches, reduction=reduction, microbatch_size=microbatch)
    v = vector(whole.shape[0], seed)
    torch.testing.assert_close(cut @ v, whole @ v, **CLOSE)
    torch.testing.assert_close(cut.gradient(), whole.gradient(), **CLOSE)
    torch.testing.assert_close(cut.loss(), whole.loss(), **CLOSE)


@given(seed=st.integers(0, 10_000), a=st.floats(-3, 3), b=st.floats(-3, 3))
@settings(max_examples=25, deadline=None)
def test_linear_and_symmetric(seed: int, a: float, b: float) -> None:
    op = HessianOperator(*problem(seed=seed))
    P = op.shape[0]
    u, v = vector(P, seed + 1), vector(P, seed + 2)
    torch.testing.assert_close(op @ (a * u + b * v), a * (op @ u) + b * (op @ v), **CLOSE)
    torch.testing.assert_close(u @ (op @ v), v @ (op @ u), **CLOSE)


@given(seed=st.integers(0, 10_000), hidden=st.integers(1, 6), chunk=st.integers(1, 70))
@settings(max_examples=15, deadline=None)
def test_dense_equals_torch(seed: int, hidden: int, chunk: int) -> None:
    model, loss_fn, data = problem(seed=seed, hidden=hidden)
    H = HessianOperator(model, loss_fn, data).to_dense(chunk_size=chunk)
    torch.testing.assert_close(H, dense_hessian(model, loss_fn, data), **CLOSE)


def test_scaling_the_loss_scales_the_operator() -> None:
    model, loss_fn, data = problem()
    op = HessianOperator(model, loss_fn, data)
    scaled = HessianOperator(model, lambda o, t: 3.5 * loss_fn(o, t), data)
    v = vector(op.shape[0])
    torch.testing.assert_close(scaled @ v, 3.5 * (op @ v), **CLOSE)


def test_permuting_examples_changes_nothing_and_units_permute() -> None:
    model, loss_fn, (x, y) = problem()
    H = HessianOperator(model, loss_fn, (x, y)).to_dense()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        HessianOperator(model, loss_fn, (x[order], y[order])).to_dense(), H, **CLOSE
    )
    units = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias):
            tensor.copy_(tensor[units])
        model[2].weight.copy_(model[2].weight[:, units])
    permuted = HessianOperator(model, loss_fn, (x, y)).to_dense()
    torch.testing.assert_close(
        torch.linalg.eigvalsh(permuted), torch.linalg.eigvalsh(H), rtol=1e-9, atol=1e-12
    )


def test_logistic_regression_in_closed_form() -> None:
    g = torch.Generator().manual_seed(0)
    X = torch.randn(20, 4, generator=g, dtype=torch.float64)
    y = (torch.rand(20, 1, generator=g) < 0.5).double()
    model = nn.Linear(4, 1, bias=False).double()
    p = torch.sigmoid(X @ model.weight.detach().T)
    op = HessianOperator(model, F.binary_cross_entropy_with_logits, (X, y))
    torch.testing.assert_close(op.to_dense(), X.T @ (p * (1 - p) * X) / 20, **CLOSE)


def test_relu_scaling_symmetry_gives_a_zero_at_a_critical_point() -> None:
    # y = relu(w x) v at a perfect fit: moving along (w, -v) changes nothing to second order.
    model = nn.Sequential(
        nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False)
    ).double()
    with torch.no_grad():
        model[0].weight.fill_(2.0)
        model[2].weight.fill_(0.5)
    x = f64([[1.0], [2.0]])
    H = HessianOperator(model, F.mse_loss, (x, x)).to_dense()
    values = torch.linalg.eigvalsh(H)
    assert abs(float(values[0])) < 1e-12
    assert float(values[1]) > 1


# ---------------------------------------------------------------- the interface


def test_dict_matrix_and_vector_forms() -> None:
    model, loss_fn, data = problem()
    op = HessianOperator(model, loss_fn, data)
    v = vector(op.shape[0])
    assert op.names == [name for name, _ in model.named_parameters()]
    as_dict = op.unflatten(v)
    assert {k: t.shape for k, t in as_dict.items()} == {
        k: p.shape for k, p in model.named_parameters()
    }
    torch.testing.assert_close(op.flatten(as_dict), v)
    torch.testing.assert_close(op.flatten(op @ as_dict), op @ v)
    V = torch.stack([v, 2 * v, vector(len(v), 3)], dim=1)
    torch.testing.assert_close((op @ V)[:, 2], op @ V[:, 2], **CLOSE)
    torch.testing.assert_close(op.matmat(V), op.to_dense() @ V, **CLOSE)
    assert op.matmat(V[:, :0]).shape == (len(v), 0)


@pytest.mark.parametrize("chunk", [1, 2, 64])
def test_probe_chunk_multiplies_in_blocks(chunk: int) -> None:
    model, loss_fn, data = problem()
    plain = HessianOperator(model, loss_fn, data)
    batched = HessianOperator(model, loss_fn, data, probe_chunk=chunk)
    V = vector(5 * plain.shape[0]).reshape(-1, 5)
    torch.testing.assert_close(batched @ V, plain @ V, **CLOSE)


def test_algebra_of_operators() -> None:
    A, B = symmetric(5, 1), symmetric(5, 2)
    a, b = DenseOperator(A), DenseOperator(B)
    v = vector(5)
    eye = torch.eye(5, dtype=torch.float64)
    for op, M in (
        (a + b, A + B),
        (a - b, A - B),
        (2 * a, 2 * A),
        (a * 2, 2 * A),
        (-a, -A),
        (a.shift(0.5), A + 0.5 * eye),
        ((2 * a - b).shift(-1.0), 2 * A - B - eye),
    ):
        torch.testing.assert_close(op @ v, M @ v)
        torch.testing.assert_close(op.to_dense(), M)
        torch.testing.assert_close(op.matmat(eye), M)
    model, loss_fn, data = problem()
    h = HessianOperator(model, loss_fn, data)
    d = h.unflatten(vector(h.shape[0]))
    torch.testing.assert_close(
        h.flatten((2 * h).shift(1.0) @ d), 2 * (h @ h.flatten(d)) + h.flatten(d)
    )


def test_to_scipy() -> None:
    from scipy.sparse.linalg import eigsh

    model, loss_fn, data = problem()
    op = HessianOperator(model, loss_fn, data)
    H = op.to_dense()
    linear = op.to_scipy()
    assert linear.shape == op.shape
    values = eigsh(linear, k=3, which="LA", return_eigenvectors=False)
    torch.testing.assert_close(
        torch.as_tensor(values).sort().values, torch.linalg.eigvalsh(H)[-3:], rtol=1e-8, atol=1e-10
    )
    block = vector(2 * op.shape[0]).reshape(-1, 2)
    torch.testing.assert_close(torch.as_tensor(linear @ block.numpy()), H @ block, **CLOSE)


def test_to_scipy_keeps_a_block_of_one_column() -> None:
    linear = DenseOperator(symmetric(3)).to_scipy()
    assert linear.matmat(vector(3)[:, None].numpy()).shape == (3, 1)
    assert linear.matvec(vector(3)[:, None].numpy()).shape == (3, 1)


def test_a_device_may_be_named_with_or_without_its_number() -> None:
    op = FunctionOperator(lambda v: 2 * v, 3, device="cpu:0")
    assert (op @ torch.ones(3)).tolist() == [2.0, 2.0, 2.0]


def test_function_operator() -> None:
    A = symmetric(4)
    op = FunctionOperator(lambda v: A @ v, 4, dtype=torch.float64)
    torch.testing.assert_close(op.to_dense(), A)
    bad = FunctionOperator(lambda v: v[:2], 4, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"must return shape \(4,\), got \(2,\)"):
        bad @ vector(4)


def test_half_types_accumulate_in_float32() -> None:
    op = FunctionOperator(lambda v: 2 * v, 8, dtype=torch.bfloat16)
    assert op.accumulate_dtype == torch.float32
    assert (op @ torch.ones(8)).dtype == torch.bfloat16


# ---------------------------------------------------------------- parameters


def test_frozen_and_tied_parameters() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3, bias=False)
            self.outer = nn.Linear(3, 3, bias=False)
            self.outer.weight = self.inner.weight
            self.frozen = nn.Linear(3, 3)
            self.frozen.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.frozen(self.outer(torch.tanh(self.inner(x))))

    torch.manual_seed(0)
    model = Tied().double()
    _, loss_fn, data = problem()
    op = HessianOperator(model, loss_fn, data)
    assert op.names == ["inner.weight"]
    assert op.shape == (9, 9)
    torch.testing.assert_close(op.to_dense(), dense_hessian(model, loss_fn, data), **CLOSE)
    for method in METHODS[1:3]:
        other = HessianOperator(model, loss_fn, data, method=method)
        torch.testing.assert_close(other.to_dense(), op.to_dense(), **CLOSE)


@pytest.mark.parametrize(
    ("params", "names"),
    [
        (["2.bias", "0.weight"], ["0.weight", "2.bias"]),
        (("0.bias",), ["0.bias"]),
        ("2.*", ["2.weight", "2.bias"]),
        ("0.weight", ["0.weight"]),
        (lambda name, p: p.dim() == 1, ["0.bias", "2.bias"]),
    ],
)
def test_selections_are_blocks(params: object, names: list[str]) -> None:
    model, loss_fn, data = problem()
    whole = HessianOperator(model, loss_fn, data)
    part = HessianOperator(model, loss_fn, data, params=params)
    assert part.names == names
    index = whole.flatten(
        {n: torch.full_like(p, float(n in names)) for n, p in model.named_parameters()}
    ).bool()
    want = whole.to_dense()[index][:, index]
    torch.testing.assert_close(part.to_dense(), want, **CLOSE)
    torch.testing.assert_close(whole.block(params).to_dense(), want, **CLOSE)


def test_a_parameter_that_does_not_matter_gives_zeros() -> None:
    # The last bias under squared error of a linear net, and one that is not used at all.
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Linear(3, 1)
            self.unused = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    model = Unused().double()
    x = vector(12).reshape(4, 3)
    for method in METHODS:
        op = HessianOperator(model, F.mse_loss, (x, torch.zeros(4, 1).double()), method=method)
        product = op.unflatten(op @ torch.ones(6, dtype=torch.float64))
        assert float(product["unused"].abs().max()) == 0
        assert float(product["used.weight"].abs().max()) > 0
    linear = HessianOperator(model, lambda o, t: o.mean(), (x, x))
    assert float((linear @ vector(6)).abs().max()) == 0


# ---------------------------------------------------------------- kept graphs


class Counting(nn.Module):
    """Counts its forward passes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x)


def counted(**options: object) -> tuple[HessianOperator, Counting]:
    model, loss_fn, (x, y) = problem(40)
    wrapped = Counting(model)
    batches = [(x[i : i + 10], y[i : i + 10]) for i in range(0, 40, 10)]
    return HessianOperator(wrapped, loss_fn, batches, **options), wrapped


def forwards(op: HessianOperator, model: Counting, products: int = 3) -> int:
    before = model.calls
    for seed in range(products):
        op @ vector(op.shape[0], seed)
    return model.calls - before


def test_graphs_are_kept_within_the_limit_only() -> None:
    assert forwards(*counted()) == 5  # one more to weigh the first batch
    assert forwards(*counted(cache="always")) == 4
    assert forwards(*counted(cache="never")) == 12
    # Weighed once, refused for good.
    assert forwards(*counted(cache_bytes=10)) == 13
    one = HessianOperator(Counting(problem()[0]), *problem()[1:])
    assert forwards(one, one._model) == 1


def test_release_and_the_context_manager_drop_the_graphs() -> None:
    op, model = counted(cache="always")
    forwards(op, model)
    op.release()
    assert forwards(op, model) == 4
    with op:
        op @ vector(op.shape[0])
    assert op._kept is None
    ref = weakref.ref(model)
    del op, model
    gc.collect()
    assert ref() is None  # no reference cycle keeps the graph alive


def test_an_optimizer_step_between_products_is_seen() -> None:
    model, loss_fn, data = problem()
    op = HessianOperator(model, loss_fn, data)
    op @ vector(op.shape[0])
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)
    torch.testing.assert_close(op.to_dense(), dense_hessian(model, loss_fn, data), **CLOSE)


def test_a_switch_of_mode_is_seen_under_keep() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    _, loss_fn, data = problem()
    op = HessianOperator(model, loss_fn, data, mode="keep")
    v = vector(op.shape[0])
    model.train()
    train = op @ v
    model.eval()
    evaluated = op @ v
    torch.testing.assert_close(evaluated, HessianOperator(model, loss_fn, data) @ v, **CLOSE)
    assert not torch.allclose(train, evaluated)


# ---------------------------------------------------------------- from_closure


@given(size=st.integers(1, 8), seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_closure_of_a_quadratic_is_its_matrix(size: int, seed: int) -> None:
    M = symmetric(size, seed)
    x = vector(size, seed).requires_grad_()
    op = HessianOperator.from_closure(lambda: 0.5 * x @ M @ x, x)
    torch.testing.assert_close(op.to_dense(), M, **CLOSE)
    torch.testing.assert_close(op.gradient(), M @ x.detach(), **CLOSE)


def test_closure_of_a_physics_informed_loss() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    at = torch.linspace(0, 1, 7, dtype=torch.float64)[:, None]

    def loss() -> Tensor:
        t = at.clone().requires_grad_()
        (slope,) = torch.autograd.grad(net(t).sum(), t, create_graph=True)
        return ((slope + net(t)) ** 2).mean()

    op = HessianOperator.from_closure(loss, dict(net.named_parameters()))
    assert op.names[0] == "0.weight"
    H = op.to_dense()
    torch.testing.assert_close(H, H.T, **CLOSE)
    flat = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    e = 1e-5 * vector(len(flat))
    gradients = []
    for sign in (1, -1):
        torch.nn.utils.vector_to_parameters(flat + sign * e, net.parameters())
        gradients.append(op.gradient())
    torch.testing.assert_close(H @ (2 * e), gradients[0] - gradients[1], rtol=1e-5, atol=1e-10)
    block = op.block(["2.weight"])
    torch.nn.utils.vector_to_parameters(flat, net.parameters())
    torch.testing.assert_close(block.to_dense(), H[8:12, 8:12], **CLOSE)


# ---------------------------------------------------------------- errors


def test_check_finds_what_is_not_an_operator() -> None:
    model, loss_fn, data = problem()
    HessianOperator(model, loss_fn, data, check=True)
    HessianOperator(*problem(dtype=torch.float32), check=True)
    noise = iter(range(1, 1000))
    with pytest.raises(RuntimeError, match="two products with the same vector differ"):
        HessianOperator(
            model, lambda o, t: next(noise) * loss_fn(o, t), data, cache="never", check=True
        )

    class Skewed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return (x[0] * x[1]).clone()

        @staticmethod
        def backward(ctx: object, g: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return g * torch.stack([x[1], 3 * x[0]])  # wrong: the second should be x[0]

    w = f64([1.0, 2.0]).requires_grad_()
    with pytest.raises(RuntimeError, match="not symmetric"):
        HessianOperator.from_closure(lambda: Skewed.apply(w), w, check=True)


def test_a_product_that_is_not_finite_names_its_batch() -> None:
    model, loss_fn, (x, y) = problem(30)
    spoiled = x.clone()
    spoiled[25, 0] = torch.nan
    batches = [(spoiled[i : i + 10], y[i : i + 10]) for i in range(0, 30, 10)]
    op = HessianOperator(model, loss_fn, batches)
    for act in (
        lambda: op @ vector(op.shape[0]),
        lambda: op.matmat(vector(2 * op.shape[0]).reshape(-1, 2)),
        op.to_dense,
        op.loss,
        op.gradient,
    ):
        with pytest.raises(FloatingPointError, match="batch 2"):
            act()
    micro = HessianOperator(model, loss_fn, batches, microbatch_size=4)
    with pytest.raises(FloatingPointError, match="batch 2, microbatch 1"):
        micro @ vector(op.shape[0])
    good = HessianOperator(*problem())
    with pytest.raises(FloatingPointError, match="vector itself is not finite"):
        good @ torch.full((good.shape[0],), torch.inf, dtype=torch.float64)


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return x


class Mixed(nn.Module):
    def __init__(self, other: torch.Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(2))
        self.b = nn.Parameter(other)


def _bad(**changes: object) -> object:
    model, loss_fn, data = problem()
    wanted = {"model": model, "loss_fn": loss_fn, "data": data, **changes}
    return HessianOperator(wanted.pop("model"), wanted.pop("loss_fn"), wanted.pop("data"), **wanted)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: _bad(model=3), TypeError, "model must be a torch.nn.Module, got int"),
        (lambda: _bad(loss_fn=3), TypeError, "loss_fn must be callable"),
        (lambda: _bad(data=[]), ValueError, "data is empty"),
        (lambda: _bad(data=iter([1])), TypeError, "one-shot"),
        (lambda: _bad(data=(b for b in ())), TypeError, "one-shot generator"),
        (lambda: _bad(data=torch.ones(3)), TypeError, "re-iterable"),
        (lambda: _bad(data=7), TypeError, "got int"),
        (lambda: _bad(model=nn.ReLU()), ValueError, "no trainable parameter"),
        (
            lambda: _bad(model=nn.Linear(3, 3).requires_grad_(False)),
            ValueError,
            "no trainable parameter",
        ),
        (lambda: _bad(model=Complex()), ValueError, "complex"),
        (lambda: _bad(model=Mixed(torch.ones(2).double())), ValueError, "mixed types"),
        (lambda: _bad(model=Mixed(torch.ones(2, device="meta"))), ValueError, "mixed devices"),
        (lambda: _bad(params="none.*"), ValueError, "selects no trainable parameter"),
        (lambda: _bad(params=["0.weigth"]), ValueError, "0.weigth"),
        (lambda: _bad(params=[]), ValueError, "selects no"),
        (lambda: _bad(params=3), TypeError, "params must be None, names"),
        (lambda: _bad(params=[3]), TypeError, "params must be None, names"),
        (lambda: _bad(method="magic"), ValueError, "method must be one of double_backward"),
        (lambda: _bad(mode="test"), ValueError, "mode must be one of eval, train, keep"),
        (lambda: _bad(reduction="none"), ValueError, "reduction must be one of mean, sum"),
        (lambda: _bad(cache="maybe"), ValueError, "cache must be one of auto"),
        (lambda: _bad(cache_bytes=-1), ValueError, "cache_bytes must be an integer of at least 0"),
        (lambda: _bad(cache_bytes=1.5), ValueError, "cache_bytes"),
        (lambda: _bad(microbatch_size=0), ValueError, "microbatch_size"),
        (lambda: _bad(microbatch_size=2.5), ValueError, "microbatch_size"),
        (lambda: _bad(probe_chunk=0), ValueError, "probe_chunk"),
        (lambda: _bad().matvec(torch.ones(3)), ValueError, r"shape \(31,\), got \(3,\)"),
        (lambda: _bad().matvec([1.0]), TypeError, "must be a torch.Tensor, got list"),
        (lambda: _bad().matvec(torch.ones(31, dtype=torch.int64)), ValueError, "real floating"),
        (lambda: _bad().matvec(torch.ones(31, dtype=torch.cfloat)), ValueError, "real floating"),
        (lambda: _bad().matvec(torch.ones(31, device="meta")), ValueError, "must be on cpu"),
        (lambda: _bad().matmat(torch.ones(31)), ValueError, r"shape \(31, k\)"),
        (lambda: _bad() @ {"0.weight": torch.ones(4, 3)}, ValueError, "missing 0.bias"),
        (lambda: _bad().flatten({"nope": torch.ones(1)}), ValueError, "unknown nope"),
        (lambda: _bad().unflatten(torch.ones(3)), ValueError, r"shape \(31,\)"),
        (lambda: _bad().to_dense(chunk_size=0), ValueError, "chunk_size"),
        (lambda: _bad().block("9.*"), ValueError, "selects no"),
        (lambda: _bad(params="0.*").block("2.*"), ValueError, "none of this operator's"),
        (
            lambda: _bad(loss_fn=lambda o, t: o) @ vector(31),
            ValueError,
            r"one number, got shape \(12, 3\) for batch 0",
        ),
        (lambda: _bad(loss_fn=lambda o, t: 1.0) @ vector(31), TypeError, "must return a tensor"),
        (
            lambda: _bad(loss_fn=lambda o, t: o.detach().sum()) @ vector(31),
            ValueError,
            "does not depend on any selected parameter",
        ),
        (lambda: DenseOperator([[1.0]]), TypeError, "matrix must be a torch.Tensor"),
        (lambda: DenseOperator(torch.ones(2, 3)), ValueError, r"square, got shape \(2, 3\)"),
        (lambda: DenseOperator(torch.ones(2, 2).int()), ValueError, "real floating"),
        (lambda: FunctionOperator(3, 2), TypeError, "matvec must be callable"),
        (lambda: FunctionOperator(lambda v: v, 0), ValueError, "size must be an integer"),
        (
            lambda: DenseOperator(torch.eye(2)) + DenseOperator(torch.eye(3)),
            ValueError,
            "agree in shape",
        ),
        (
            lambda: DenseOperator(torch.eye(2)) @ {"w": torch.ones(2)},
            TypeError,
            "no parameter names",
        ),
        (lambda: DenseOperator(torch.eye(2)) + 1, TypeError, "unsupported operand"),
        (lambda: HessianOperator.from_closure(3, torch.ones(1)), TypeError, "must be callable"),
        (lambda: HessianOperator.from_closure(lambda: 0, []), ValueError, "params is empty"),
        (lambda: HessianOperator.from_closure(lambda: 0, [3]), TypeError, "must be a tensor"),
        (
            lambda: HessianOperator.from_closure(lambda: 0, torch.ones(2)),
            ValueError,
            "does not require a gradient",
        ),
        (
            lambda: HessianOperator.from_closure(lambda: 0, torch.ones(2, dtype=torch.int64)),
            ValueError,
            "only floating point",
        ),
        (
            lambda: (
                HessianOperator.from_closure(
                    lambda: torch.ones(()), torch.ones(2, requires_grad=True)
                )
                @ torch.ones(2)
            ),
            ValueError,
            "through autograd",
        ),
        (
            lambda: HessianOperator.from_closure(
                lambda: None, torch.ones(2, requires_grad=True)
            ).loss(),
            ValueError,
            "closure must return one number",
        ),
    ],
)
def test_bad_input(act: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        act()


def test_the_interface_is_abstract() -> None:
    with pytest.raises(TypeError):
        SymmetricOperator(3, dtype=torch.float32, device="cpu")
