"""Second derivatives that torch lacks or has wrong: right, or an error that says what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.nets import dense_hessian, problem, vector
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrizations

from gradworks.curvature.operators import FisherOperator, GGNOperator, HessianOperator
from gradworks.curvature.operators.twice import SecondDerivativeError, recurrent_kernels

CLOSE = {"rtol": 1e-10, "atol": 1e-12}
METHODS = ["double_backward", "forward_over_reverse", "linearize"]


class Flat(nn.Module):
    """A layer between a linear or convolutional one and a bounded output."""

    def __init__(self, first: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(self.first(x))
        return torch.sin((out[0] if isinstance(out, tuple) else out).flatten(1))


def curved(output: Tensor, target: Tensor) -> Tensor:
    return (output * torch.linspace(0.5, 1.5, output[0].numel()).to(output)).sum() / len(target)


FLAT, SERIES, IMAGE = (3, 6), (2, 3, 6), (2, 2, 5, 5)
LAYERS: dict[str, tuple[tuple[int, ...], Any]] = {
    "gelu": (FLAT, nn.GELU),
    "silu": (FLAT, nn.SiLU),
    "softplus": (FLAT, nn.Softplus),
    "elu": (FLAT, nn.ELU),
    "prelu": (FLAT, nn.PReLU),
    "glu": (FLAT, nn.GLU),
    "log_softmax": (FLAT, lambda: nn.LogSoftmax(1)),
    "layer_norm": (FLAT, lambda: nn.LayerNorm(6)),
    "rms_norm": (FLAT, lambda: nn.RMSNorm(6)),
    "group_norm": (FLAT, lambda: nn.GroupNorm(2, 6)),
    "batch_norm": (FLAT, lambda: nn.BatchNorm1d(6)),
    "spectral_norm": (FLAT, lambda: parametrizations.spectral_norm(nn.Linear(6, 3))),
    "weight_norm": (FLAT, lambda: parametrizations.weight_norm(nn.Linear(6, 3))),
    "weight_norm_columns": (FLAT, lambda: parametrizations.weight_norm(nn.Linear(6, 3), dim=1)),
    "weight_norm_whole": (FLAT, lambda: parametrizations.weight_norm(nn.Linear(6, 3), dim=None)),
    "lstm": (SERIES, lambda: nn.LSTM(6, 2, batch_first=True)),
    "gru": (SERIES, lambda: nn.GRU(6, 2, batch_first=True)),
    "encoder": (SERIES, lambda: nn.TransformerEncoderLayer(6, 2, 4, batch_first=True)),
    "conv": (IMAGE, lambda: nn.Conv2d(2, 2, 3)),
    "weight_norm_conv": (IMAGE, lambda: parametrizations.weight_norm(nn.Conv2d(2, 2, 3))),
    "transposed": (IMAGE, lambda: nn.ConvTranspose2d(2, 1, 2)),
    "instance_norm": (IMAGE, lambda: nn.InstanceNorm2d(2, affine=True)),
    "max_pool": (IMAGE, lambda: nn.MaxPool2d(2)),
    "bilinear": (IMAGE, lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
}


@pytest.mark.parametrize("name", LAYERS)
def test_products_are_differences_of_gradients(name: str) -> None:
    shape, make = LAYERS[name]
    torch.manual_seed(0)
    first = nn.Conv2d(2, 2, 2) if shape is IMAGE else nn.Linear(6, 6)
    model = Flat(first, make()).double()
    x = vector(torch.Size(shape).numel()).reshape(shape)
    data = (x, torch.zeros(shape[0]))
    op = HessianOperator(model, curved, data)
    differences = HessianOperator(model, curved, data, method="finite_difference")
    for seed in range(3):
        v = vector(op.shape[0], seed)
        want = differences @ v
        torch.testing.assert_close(op @ v, want, rtol=1e-6, atol=1e-7 * float(want.abs().max()))


# ---------------------------------------------------------------- weight normalisation


def plain_weight_norm(v: Tensor, g: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return x @ (v * g / v.norm(dim=1, keepdim=True)).T + bias


@pytest.mark.parametrize("make", [parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_weight_norm_in_every_method_and_matrix(make: Any) -> None:
    _, loss_fn, (x, y) = problem()
    torch.manual_seed(0)
    layer = make(nn.Linear(3, 3)).double()
    found = dict(layer.named_parameters())
    v = next(p for n, p in found.items() if n.endswith(("original1", "weight_v")))
    g = next(p for n, p in found.items() if n.endswith(("original0", "weight_g")))
    order = [next(i for i, p in enumerate((v, g, layer.bias)) if p is q) for q in found.values()]
    sizes = [(3, 3), (3, 1), (3,)]

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [torch.Size(sizes[i]).numel() for i in order])
        mine = {i: part.view(sizes[i]) for i, part in zip(order, parts)}
        return loss_fn(plain_weight_norm(mine[0], mine[1], mine[2], x), y)

    flat = torch.cat([p.detach().reshape(-1) for p in found.values()])
    want = torch.autograd.functional.hessian(loss, flat)
    for method in METHODS:
        op = HessianOperator(layer, loss_fn, (x, y), method=method)
        torch.testing.assert_close(op.to_dense(), want, **CLOSE)
    closure = HessianOperator.from_closure(lambda: loss_fn(layer(x), y), found)
    torch.testing.assert_close(closure.to_dense(), want, **CLOSE)
    u = vector(len(flat))
    exact = FisherOperator(layer, loss_fn, (x, y)) @ u
    for method in METHODS:
        torch.testing.assert_close(
            GGNOperator(layer, loss_fn, (x, y), method=method) @ u, exact, **CLOSE
        )


# ---------------------------------------------------------------- none at all


class Cube(torch.autograd.Function):
    """Differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * grad


class Once(nn.Module):
    """The cube of a linear map; ``smooth`` takes torch's."""

    def __init__(self, smooth: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(3, 3).double()
        self.smooth = smooth

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        return h**3 if self.smooth else Cube.apply(h)


@pytest.mark.parametrize("kind", [HessianOperator, GGNOperator])
@pytest.mark.parametrize("cache", ["auto", "never"])
def test_a_function_differentiable_once_is_refused_not_zero(kind: type, cache: str) -> None:
    _, loss_fn, data = problem()
    op = kind(Once(), loss_fn, data, cache=cache)
    for _ in range(2):  # the second product is no more silent than the first
        with pytest.raises(SecondDerivativeError, match="once_differentiable; pass method='finite"):
            op @ vector(12)
    with pytest.raises(SecondDerivativeError):
        op.to_dense()
    differences = kind(Once(), loss_fn, data, method="finite_difference")
    want = kind(Once(smooth=True), loss_fn, data) @ vector(12)
    torch.testing.assert_close(differences @ vector(12), want, rtol=1e-6, atol=1e-7)


def test_closures_differ_too() -> None:
    model, (x, y) = Once(), problem()[2]
    before = [p.detach().clone() for p in model.parameters()]
    op = HessianOperator.from_closure(lambda: F.cross_entropy(model(x), y), model.parameters())
    with pytest.raises(SecondDerivativeError):
        op @ vector(12)
    differences = HessianOperator.from_closure(
        lambda: F.cross_entropy(model(x), y), model.parameters(), method="finite_difference"
    )
    want = dense_hessian(Once(smooth=True), F.cross_entropy, (x, y))
    torch.testing.assert_close(differences.to_dense(), want, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        differences.block("0").to_dense(), want[:9, :9], rtol=1e-6, atol=1e-7
    )
    for p, old in zip(model.parameters(), before):
        assert torch.equal(p, old)
    with pytest.raises(ValueError, match="method must be one of double_backward, finite"):
        HessianOperator.from_closure(lambda: x.sum(), model.parameters(), method="linearize")


def test_a_closure_that_fails_leaves_its_tensors_alone() -> None:
    w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    calls: list[int] = []

    def closure() -> Tensor:
        calls.append(1)
        if len(calls) > 1:
            raise KeyError("second")
        return (w**2).sum()

    op = HessianOperator.from_closure(closure, w, method="finite_difference")
    with pytest.raises(KeyError):
        op @ torch.ones(2, dtype=torch.float64)
    assert torch.equal(w, torch.ones(2, dtype=torch.float64))


MISSING: dict[str, Any] = {
    "cdist": lambda o, t: torch.cdist(o, o.flip(0)).mean(),
    "multi_margin": F.multi_margin_loss,
    "ctc": lambda o, t: F.ctc_loss(o.log_softmax(1)[:, None], torch.tensor([[1, 2]]), (12,), (2,)),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_torch_cannot_differentiate_twice_is_said(name: str) -> None:
    model, _, data = problem()
    with pytest.raises(SecondDerivativeError, match="not implemented; pass method='finite"):
        HessianOperator(model, MISSING[name], data) @ vector(31)
    found = HessianOperator(model, MISSING[name], data, method="finite_difference") @ vector(31)
    assert bool(torch.isfinite(found).all())
    assert float(found.abs().max()) > 0


def test_other_errors_stay_as_they_are() -> None:
    model, _, (x, y) = problem()

    def wrong(output: Tensor, target: Tensor) -> Tensor:
        raise RuntimeError("of my own")

    with pytest.raises(RuntimeError, match=r"^of my own$"):
        HessianOperator(model, wrong, (x, y)) @ vector(31)


# ---------------------------------------------------------------- compiled, recurrent


@pytest.mark.slow
@pytest.mark.parametrize("how", ["whole", "part", "in place"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_models_are_multiplied_as_they_were_written(how: str) -> None:
    model, loss_fn, data = problem()
    want = dense_hessian(model, loss_fn, data)
    names = [n for n, _ in model.named_parameters()]
    if how == "whole":
        compiled: Any = torch.compile(model, backend="aot_eager")
    elif how == "part":
        compiled = nn.Sequential(torch.compile(model, backend="aot_eager"))
    else:
        compiled = model
        model.compile(backend="aot_eager")
    compiled(data[0])
    op = HessianOperator(compiled, loss_fn, data)
    torch.testing.assert_close(op.to_dense(), want, **CLOSE)
    if how != "part":
        assert op.names == names


def test_recurrent_layers_leave_cudnn_alone_on_a_gpu() -> None:
    gpu = torch.device("cuda")
    before = torch.backends.cudnn.enabled
    with recurrent_kernels(nn.Sequential(nn.LSTM(2, 2)), gpu):
        assert not torch.backends.cudnn.enabled
    assert torch.backends.cudnn.enabled == before
    with recurrent_kernels(nn.Linear(2, 2), gpu):
        assert torch.backends.cudnn.enabled == before


# ---------------------------------------------------------------- unusual parameters


def test_a_parameter_without_a_dimension() -> None:
    class Tempered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.temperature = nn.Parameter(torch.tensor(0.7))
            self.inner = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * self.temperature.exp()

    torch.manual_seed(0)
    model = Tempered().double()
    _, loss_fn, data = problem()
    want = dense_hessian(model, loss_fn, data)
    for method in METHODS:
        op = HessianOperator(model, loss_fn, data, method=method)
        torch.testing.assert_close(op.to_dense(), want, **CLOSE)
    assert op.unflatten(vector(13))["temperature"].shape == ()


def test_sparse_gradients_and_lazy_parameters_are_refused() -> None:
    sparse = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Flatten(), nn.Linear(6, 3))
    data = (torch.tensor([[0, 1], [2, 3]]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"gradient of 0.weight is sparse; build its layer"):
        HessianOperator(sparse, F.cross_entropy, data).to_dense()
    with pytest.raises(ValueError, match=r"0.weight, 0.bias have no shape yet; call the model"):
        HessianOperator(nn.Sequential(nn.LazyLinear(3)), F.cross_entropy, data)


def test_an_operation_without_forward_mode_names_the_method_that_works() -> None:
    class Sampled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image = torch.nn.Parameter(torch.randn(1, 1, 3, 4, dtype=torch.float64))

        def forward(self, at: torch.Tensor) -> torch.Tensor:
            found = torch.nn.functional.grid_sample(self.image.tanh(), at, align_corners=False)
            return found.square()

    at = torch.rand(1, 2, 2, 2, dtype=torch.float64)
    data = (at, torch.zeros(1, dtype=torch.float64))

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return output.mean() + target.sum()

    model, v = Sampled(), torch.ones(12, dtype=torch.float64)
    forward = HessianOperator(model, loss, data, method="forward_over_reverse")
    with pytest.raises(RuntimeError, match=r"grid_sampler.*Use method='double_backward'") as caught:
        forward.matvec(v)
    assert type(caught.value) is RuntimeError
    assert HessianOperator(model, loss, data).matvec(v).isfinite().all()
