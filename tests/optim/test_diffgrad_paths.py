"""DiffGrad's paths: chunks, compiled kernels, checkpoints, arguments, as a function."""

from __future__ import annotations

import copy
import io
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.optim.contract import parameters, set_gradients, train, values
from tests.optim.diffgrad_cases import EVERY_PATH, PATHS, STATE, follow, gradients_of
from torch import nn

from gradworks.optim import DiffGrad
from gradworks.optim.diffgrad import diffgrad, paths

slow = pytest.mark.slow


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize("chunk", [1, 8, 40])
@pytest.mark.parametrize("rms", [False, True])
def test_chunks_of_the_multi_tensor_path(
    chunk: int, rms: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "CHUNK", chunk)
    one, two = parameters(), parameters()
    kind = {"friction_scale": "rms"} if rms else {}
    train(DiffGrad(one, lr=0.1, weight_decay=0.1, **kind), one, range(5))
    train(DiffGrad(two, lr=0.1, weight_decay=0.1, foreach=True, **kind), two, range(5))
    for a, b in zip(one, two):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-12, atol=1e-14)


def test_chunks_hold_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "CHUNK", 10)
    sizes = [3, 7, 1, 25, 0, 4, 5, 2]
    tensors = paths.DiffGradTensors(*([torch.empty(n) for n in sizes] for _ in range(6)))
    found = [[p.numel() for p in chunk.params] for chunk in paths._chunks(tensors)]
    assert found == [[3, 7], [1], [25], [0, 4, 5], [2]]


@slow
@pytest.mark.parametrize(
    ("dtype", "decoupled", "tolerance"),
    [(torch.float32, False, 2e-6), (torch.bfloat16, True, 2e-2)],
)
@pytest.mark.parametrize("count", [1, 4, 11])
def test_fused_takes_any_number_of_tensors(
    count: int, dtype: torch.dtype, decoupled: bool, tolerance: float
) -> None:
    """Several share a call, of any lengths; what has no dense view goes another way."""
    made = ((7,), (7,), (40_000,), (2, 3), (), (1,), (0, 3), (5, 1), (33, 3), (6, 4), (9,))
    one, two = (parameters(made[:count], dtype=dtype) for _ in range(2))
    if count == 11:  # in columns, and with gaps
        for params in (one, two):
            params[8] = nn.Parameter(params[8].detach().t().contiguous().t())
            params[9] = nn.Parameter(params[9].detach()[:, ::2])
    given_ = {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": decoupled}
    train(DiffGrad(one, **given_), one, range(4))
    train(DiffGrad(two, fused=True, **given_), two, range(4))
    for a, b in zip(one, two):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=tolerance, atol=tolerance)


@slow
def test_fused_compiles_once_for_all_lengths() -> None:
    params = parameters(tuple((n,) for n in range(2, 14)), dtype=torch.float32)
    optimizer = DiffGrad(params, weight_decay=0.1, fused=True)
    train(optimizer, params, range(1))
    with torch._dynamo.config.patch(error_on_recompile=True):
        train(optimizer, params, range(1, 3))
        other = parameters(((50, 7), (3,), (2, 2), (99,)), dtype=torch.float32)
        schedule = DiffGrad(other, lr=0.5, betas=(0.8, 0.9), weight_decay=0.2, fused=True)
        for step in range(3):
            schedule.param_groups[0]["lr"] = 0.1 / (1 + step)
            train(schedule, other, range(step, step + 1))


def test_a_kernel_that_does_not_compile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradworks.optim import compiled

    def broken(*_: Any) -> None:
        raise OSError("no compiler")

    compiled._ready.cache_clear()
    monkeypatch.setattr(compiled, "_compiled", lambda *_: broken)
    params = parameters(((6, 4), (3,)))
    before = values(params)
    optimizer = DiffGrad(params, fused=True)
    set_gradients(params, 0)
    with pytest.raises(RuntimeError, match=r"fused=True compiles.*C\+\+ compiler.*Use fused=None"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(params, before))
    assert all(optimizer.state[p]["step"] == 0 for p in params)


def test_where_no_kernel_compiles_nothing_is_stepped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has gaps needs no kernel; stepped first, it would step again with fused=None."""
    from gradworks.optim import compiled

    def broken(*_: Any) -> None:
        raise OSError("no compiler")

    monkeypatch.setattr(compiled, "_ready", lambda *_: broken)
    params = parameters(((4, 6), (5,)))
    params[0] = nn.Parameter(params[0].detach()[:, ::2])
    before = values(params)
    optimizer = DiffGrad(params, fused=True)
    set_gradients(params, 0)
    with pytest.raises(RuntimeError, match="Use fused=None"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(params, before))


def test_half_precision_takes_its_friction_in_float32() -> None:
    """Changes of 0.01 are lost in a bfloat16 sigmoid near 0.5, whose digits are 0.002 apart."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = DiffGrad([weight], lr=1.0, eps=0.0)
    weight.grad = torch.full_like(weight, 1.5)
    optimizer.step()
    want = torch.tensor(-1 / (1 + math.exp(-1.5))).to(torch.bfloat16)
    assert weight.detach() == want
    assert all(optimizer.state[weight][name].dtype == torch.bfloat16 for name in STATE)


# ---------------------------------------------------------------- checkpoints


def resumed(
    kind: str, optimizer: DiffGrad, params: list[nn.Parameter]
) -> tuple[Any, list[nn.Parameter]]:
    """The optimizer and its parameters, gone through a kind of copy."""
    if kind == "deepcopy":
        return copy.deepcopy((optimizer, params))
    copies = [nn.Parameter(x) for x in values(params)]
    other = DiffGrad(copies, lr=9.0)
    state = optimizer.state_dict()
    if kind == "file":
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    other.load_state_dict(copy.deepcopy(state))
    return other, copies


@EVERY_PATH
@pytest.mark.parametrize("kind", ["state_dict", "file", "deepcopy"])
def test_resumes_bit_for_bit(path: str, kind: str) -> None:
    params = parameters()
    optimizer = DiffGrad(params, lr=0.05, weight_decay=0.1, **PATHS[path])
    train(optimizer, params, range(4))
    other, copies = resumed(kind, optimizer, params)
    train(optimizer, params, range(4, 9))
    train(other, copies, range(4, 9))
    assert all(torch.equal(a, b) for a, b in zip(params, copies))


def test_distributed_checkpoints_hold_the_whole_state() -> None:
    from torch.distributed.checkpoint.state_dict import (
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer, fresh = DiffGrad(model.parameters(), lr=0.1), DiffGrad(other.parameters())
    train(optimizer, list(model.parameters()), range(3))
    other.load_state_dict(model.state_dict())
    state = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
    assert set(state["state"]["weight"]) == {*STATE, "step"}
    set_optimizer_state_dict(other, fresh, state)
    for made, net in ((optimizer, model), (fresh, other)):
        train(made, list(net.parameters()), range(3, 6))
    assert torch.equal(model.weight, other.weight)


def test_loads_checkpoints_of_the_released_code_and_of_adam() -> None:
    ours = parameters(((6, 4), (7,)))
    optimizer = DiffGrad(ours, lr=0.02, weight_decay=0.1)
    train(optimizer, ours, range(3))
    state = copy.deepcopy(optimizer.state_dict())
    for found in state["state"].values():
        found["step"] = int(found["step"])  # a number there
    keep = ("params", "lr", "betas", "eps", "weight_decay")
    state["param_groups"] = [{k: group[k] for k in keep} for group in state["param_groups"]]
    other = [nn.Parameter(x) for x in values(ours)]
    loaded = DiffGrad(other, lr=0.5)
    loaded.load_state_dict(state)
    train(optimizer, ours, range(3, 6))
    train(loaded, other, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(ours, other))

    adam = torch.optim.Adam(ours, lr=0.02, foreach=False)
    train(adam, ours, range(2))
    loaded.load_state_dict(copy.deepcopy(adam.state_dict()))
    assert all(not found["previous_grad"].any() for found in loaded.state.values())
    train(loaded, other, range(2, 4))
    assert [float(found["step"]) for found in loaded.state.values()] == [4.0, 4.0]


# ---------------------------------------------------------------- arguments, as a function


@pytest.mark.parametrize(
    ("given_", "error", "message"),
    [
        ({"friction_scale": "mean"}, ValueError, r"one of \('absolute', 'rms'\), got 'mean'"),
        ({"friction_scale": None}, TypeError, "friction_scale must be one of .* got NoneType"),
        ({"decoupled_weight_decay": 1}, TypeError, "decoupled_weight_decay must be True or False"),
        ({"betas": (1.0, 0.9)}, ValueError, r"betas\[0\] must be in \[0, 1\), got 1.0"),
        ({"foreach": True, "fused": True}, RuntimeError, "exclude each other"),
        ({"foreach": True, "fused": True}, ValueError, "exclude each other"),
        ({"lr": torch.tensor(0.1), "foreach": True}, ValueError, "needs capturable=True"),
    ],
)
def test_bad_input(given_: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DiffGrad(parameters(((2, 2),)), **given_)


def test_partial_sums_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DTensor that is still to be reduced; a stand-in, as a real one needs a process group."""
    from gradworks.optim import sharded

    class Pending(nn.Parameter):
        placements = (SimpleNamespace(is_partial=lambda: True),)

    monkeypatch.setattr(sharded, "is_sharded", lambda x: isinstance(x, Pending))
    with pytest.raises(RuntimeError, match=r"shape \(2, 3\) has a Partial placement"):
        DiffGrad([Pending(torch.ones(2, 3))])


def test_conjugate_parameters_are_refused() -> None:
    """They have no real view: steps would go into a copy, and the parameter would stay."""
    conjugate = nn.Parameter(torch.ones(2, 3, dtype=torch.complex64).conj())
    with pytest.raises(RuntimeError, match=r"shape \(2, 3\) is conjugated lazily.*resolve_conj"):
        DiffGrad([conjugate])
    DiffGrad([nn.Parameter(conjugate.detach().resolve_conj())])


def test_sparse_gradients_name_what_takes_them() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = DiffGrad(table.parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match=r"torch\.optim\.SparseAdam"):
        optimizer.step()


def test_tensor_lr_is_followed() -> None:
    lr = torch.tensor(0.1, dtype=torch.float64)
    gradients = gradients_of((3,), 4)
    for given_ in ({}, {"capturable": True, "foreach": True}):
        for one, other in zip(
            follow((3,), gradients, lr=lr, **given_), follow((3,), gradients, lr=0.1)
        ):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_functional_form() -> None:
    params = parameters(((6, 4), (7,)))
    others = [p.detach().clone() for p in params]
    grads = [torch.ones_like(p) for p in others]
    buffers = [[torch.zeros_like(p) for p in others] for _ in range(3)]
    steps = [torch.zeros(()) for _ in others]
    found = diffgrad(
        others, grads, *buffers, steps, lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.1,
        decoupled_weight_decay=False, maximize=True, foreach=None, fused=None, capturable=False,
        differentiable=False,
    )  # fmt: skip
    assert found is None
    for param, grad in zip(params, grads):
        param.grad = grad
    DiffGrad(params, lr=0.1, betas=(0.9, 0.99), weight_decay=0.1, maximize=True).step()
    assert all(torch.equal(a, b) for a, b in zip(params, others))
    assert [float(s) for s in steps] == [1.0, 1.0]
    with pytest.raises(ValueError, match="friction_scale"):
        diffgrad([], [], [], [], [], [], lr=0.1, beta1=0.9, beta2=0.9, eps=0.0, weight_decay=0.0,
                 decoupled_weight_decay=False, maximize=False, friction_scale="x")  # fmt: skip


def test_autograd_follows_the_step_into_the_learning_rate() -> None:
    start = torch.tensor([1.0, 2.0], dtype=torch.float64)
    lr = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    param = start.clone().requires_grad_()
    moved = param.clone()
    optimizer = DiffGrad([param], lr=0.1, differentiable=True)
    optimizer.param_groups[0].update(params=[moved], lr=lr)
    moved.retain_grad()
    moved.grad = torch.tensor([0.3, -4.0], dtype=torch.float64)
    optimizer.step()
    (slope,) = torch.autograd.grad(moved.sum(), lr)
    friction = torch.tensor([0.3, 4.0], dtype=torch.float64).sigmoid()
    want = -(friction * torch.tensor([1.0, -1.0], dtype=torch.float64)).sum()
    torch.testing.assert_close(slope, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("kind", ["absolute", "rms"])
def test_a_step_that_autograd_follows_is_the_same(kind: str, decoupled: bool) -> None:
    runs = []
    for differentiable in (False, True):
        param = parameters(((4, 3),))[0].detach()
        buffers = [torch.zeros_like(param) for _ in STATE]
        step = torch.zeros(())
        for grad in gradients_of((4, 3), 3):
            diffgrad(
                [param], [grad], *([x] for x in buffers), [step], lr=0.1, beta1=0.8, beta2=0.9,
                eps=1e-2, weight_decay=0.3, decoupled_weight_decay=decoupled, maximize=False,
                friction_scale=kind, differentiable=differentiable,
            )  # fmt: skip
        runs.append((param, *buffers))
    for one, other in zip(*runs):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_one_compilation_serves_all_shapes() -> None:
    def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
        params = [nn.Parameter(torch.randn(shape)) for shape in shapes]
        for p in params:
            p.grad = torch.randn_like(p)
        return params

    DiffGrad(parameters((300, 300)), fused=True).step()
    sets: list[list[tuple[int, ...]]] = [
        [(70_000,)],
        [(300, 300), (300, 300), (2, 300, 400)],
        [(7,), (3, 4), (300, 250), (11, 5, 3, 3), (9,)],
        [(256, 256)] * 9 + [(5,)] * 9,
        [(512, 512), (512,), (256, 512)],
    ]
    with torch.compiler.set_stance("fail_on_recompile"):
        for shapes in sets:
            torch.manual_seed(0)
            ours = parameters(*shapes)
            torch.manual_seed(0)
            oracle = parameters(*shapes)
            for params, fused in ((ours, True), (oracle, False)):
                opt = DiffGrad(params, fused=fused, foreach=False)
                opt.step()
                opt.step()
            for p, q in zip(ours, oracle, strict=True):
                torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


def test_a_group_s_step_is_a_count_for_each_parameter() -> None:
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    old = DiffGrad(params, lr=0.1)
    for p in params:
        p.grad = torch.ones(2)
    old.step()
    saved = old.state_dict()
    for state in saved["state"].values():
        del state["step"]
    saved["param_groups"][0]["step"] = torch.tensor(1.0)
    new = DiffGrad(params, lr=0.1)
    new.load_state_dict(saved)
    new.step()
    assert [float(new.state[p]["step"]) for p in params] == [2.0, 2.0]
