"""The contract of every optimizer: its paths agree, its state goes on and has the promised form."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from tests.optim.contract import (
    CONTRACT,
    PATHS,
    Line,
    parameters,
    set_gradients,
    settings_of,
    values,
)
from tests.optim.line import assert_near, assert_same
from torch import Tensor, nn

from gradworks.optim.precision import work_dtype

lines = pytest.mark.parametrize("line", CONTRACT, ids=str)
EVERY = [(line, path) for line in CONTRACT for path in line.paths]
slow_if_fused = {"fused": pytest.mark.slow}
on_each_path = pytest.mark.parametrize(
    ("line", "path"),
    [
        pytest.param(line, path, id=f"{line}-{path}", marks=slow_if_fused.get(path, ()))
        for line, path in EVERY
    ],
)
on_eager_paths = pytest.mark.parametrize(
    ("line", "path"),
    [pytest.param(line, path, id=f"{line}-{path}") for line, path in EVERY if path != "fused"],
)


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("line", "variant", "path"),
    [
        pytest.param(line, i, path, id=f"{line}-{i}-{path}", marks=slow_if_fused.get(path, ()))
        for line, path in EVERY
        if path != "single"
        for i in range(len(line.variants))
    ],
)
def test_paths_equal_the_oracle(line: Line, variant: int, path: str) -> None:
    runs = []
    for name in ("single", path):
        params = parameters()
        optimizer = line.on(params, **line.variants[variant], **PATHS[name])
        line.train(optimizer, params, range(9))
        runs.append((params, [optimizer.state[p] for p in params]))
    (want, want_state), (got, got_state) = runs
    assert_near(values(got), values(want))
    for a, b in zip(got_state, want_state, strict=True):
        assert a.keys() == b.keys()
        assert_near(list(a.values()), list(b.values()))
    assert all(not torch.equal(p, q) for p, q in zip(got, parameters()) if p.numel())


@lines
def test_the_oracle_is_the_default_here(line: Line) -> None:
    runs = []
    for settings in ({}, PATHS["single"]):
        params = parameters()
        line.train(line.on(params, **settings), params, range(4))
        runs.append(values(params))
    assert_same(*runs)


@on_each_path
def test_maximize_is_descent_on_the_negative(line: Line, path: str) -> None:
    up, down = parameters(), parameters()
    climber = line.on(up, maximize=True, **PATHS[path])
    walker = line.on(down, **PATHS[path])
    for step in range(3):
        set_gradients(down, step)
        for p, q in zip(up, down):
            p.grad = -q.grad
        line.step(climber)
        line.step(walker)
    assert_same(values(up), values(down))


@pytest.mark.parametrize("line", [line for line in CONTRACT if line.differentiable], ids=str)
def test_differentiable_equals_and_differentiates(line: Line) -> None:
    params = parameters()
    line.train(line.on(params), params, range(2))
    start = parameters()
    leaves = [p.detach().clone().requires_grad_() for p in start]
    stepped: Any = [leaf.clone() for leaf in leaves]
    line.train(line.on(stepped, differentiable=True), stepped, range(2))
    assert_near([p.detach() for p in stepped], values(params))
    torch.stack([p.sum() for p in stepped if p.numel()]).sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves[:-1])


@pytest.mark.parametrize("line", [line for line in CONTRACT if line.differentiable], ids=str)
def test_differentiable_gradient_of_lr(line: Line) -> None:
    """Two steps of a quadratic, loss after them as a function of lr and of the gradient's scale."""

    def after(lr: Tensor, scale: Tensor) -> Tensor:
        weight = parameters(((3, 4),))[0].detach().clone().requires_grad_() * 1.0
        optimizer = line.on([weight], **line.smooth, lr=lr, differentiable=True)
        for _ in range(2):
            weight.grad = scale * weight.clone() ** 2  # never zero: sqrt has no slope there
            line.step(optimizer)
        return (weight**3).sum()

    inputs = (
        torch.tensor(0.05, dtype=torch.float64, requires_grad=True),
        torch.tensor(0.7, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(after, inputs)


@pytest.mark.parametrize("line", [line for line in CONTRACT if line.capturable], ids=str)
@pytest.mark.parametrize("path", ["single", "foreach"])
def test_capturable_equals(line: Line, path: str) -> None:
    for variant in line.variants:
        runs = []
        for capturable in (False, True):
            params = parameters()
            settings = {**variant, **PATHS[path], "capturable": capturable}
            line.train(line.on(params, **settings), params, range(5))
            runs.append(values(params))
        assert_near(*runs)


@on_eager_paths
def test_no_value_is_read_off_an_accelerator(line: Line, path: str) -> None:
    """Tensors of the device ``meta`` have no values: a step that needs one fails on them."""
    for extra in [{}, {"capturable": True}] if line.capturable else [{}]:
        for variant in line.variants:
            params = [nn.Parameter(p.detach().to("meta")) for p in parameters()]
            optimizer = line.on(params, **variant, **PATHS[path], **extra)
            for param in params:
                param.grad = torch.empty_like(param)
            for _ in range(3):
                line.step(optimizer)


# ---------------------------------------------------------------- state


@on_each_path
def test_resume_is_bit_for_bit(line: Line, path: str) -> None:
    for variant in line.variants[-1:] if path == "fused" else line.variants:
        settings = {**variant, **PATHS[path]}
        whole = parameters()
        line.train(line.on(whole, **settings), whole, range(7))

        params = parameters()
        optimizer = line.on(params, **settings)
        line.train(optimizer, params, range(3))
        buffer = io.BytesIO()
        torch.save({"params": values(params), "optimizer": optimizer.state_dict()}, buffer)
        buffer.seek(0)
        saved = torch.load(buffer, weights_only=True)
        resumed = [nn.Parameter(x) for x in saved["params"]]
        # all else comes from the checkpoint
        second = line.make(resumed, **line.suits, **line.required, lr=0.5)
        second.load_state_dict(saved["optimizer"])
        assert settings_of(second) == settings_of(optimizer)
        line.train(second, resumed, range(3, 7))
        assert_same(values(resumed), values(whole))


@lines
def test_copies_and_pickles_go_on_alike(line: Line) -> None:
    params = parameters()
    optimizer = line.on(params, **line.variants[-1])
    line.train(optimizer, params, range(3))
    copies = [copy.deepcopy((optimizer, params)), pickle.loads(pickle.dumps((optimizer, params)))]
    line.train(optimizer, params, range(3, 6))
    for other, own in copies:
        assert other.param_groups[0]["params"][0] is own[0]
        line.train(other, own, range(3, 6))
        assert_same(values(own), values(params))


@lines
@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.complex64], ids=str
)
def test_state_is_like_the_parameter(line: Line, dtype: torch.dtype) -> None:
    if dtype.is_complex and line.complex:
        return  # refused: test_complex_is_refused
    conv = torch.randn(4, 3, 3, 3).to(dtype).to(memory_format=torch.channels_last)
    params = [nn.Parameter(x.to(dtype)) for x in (conv, torch.randn(5), torch.randn(6, 4))]
    optimizer = line.on(params)
    for step in (1, 2):
        for param in params:
            param.grad = torch.ones_like(param)
        line.step(optimizer)
        if step == 1:  # and so it comes back from a checkpoint
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for param in params:
        state = optimizer.state[param]
        like = {name: tuple(param.shape) for name in line.state}
        own = {2: line.matrix_state, 4: line.conv_state}.get(param.ndim)
        low_rank = own is not None and not dtype.is_complex
        shapes = dict(own or {}) if low_rank else like
        counted = line.counts and (line.counts_matrices or not low_rank)
        counts = ("step", *line.counters) if counted else ()
        assert set(state) == {*shapes, *counts}
        for name, shape in shapes.items():
            assert tuple(state[name].shape) == shape
            kept = work_dtype(dtype) if name in line.wide else dtype
            assert state[name].dtype == (torch.int64 if name in line.integers else kept)
            if not low_rank:
                assert state[name].stride() == param.stride()
        for name in counts:
            assert state[name].dtype == torch.float32
            assert state[name].shape == ()
            assert state[name] == 2
    assert params[0].is_contiguous(memory_format=torch.channels_last)


@lines
def test_nothing_without_a_gradient(line: Line) -> None:
    params = parameters()
    before = values(params)
    for path in line.paths:
        optimizer = line.on(params, **PATHS[path])
        optimizer.step()
        assert not optimizer.state
    optimizer = line.on(params, weight_decay=0.1)
    params[0].grad = torch.ones_like(params[0])
    line.step(optimizer)
    assert_same(values(params[1:]), before[1:])
    assert not torch.equal(params[0], before[0])
    assert list(optimizer.state) == [params[0]]


@on_eager_paths
def test_gradients_that_come_and_go(line: Line, path: str) -> None:
    """Each parameter is stepped as it would be alone, whenever the others have gradients."""
    for variant in line.variants:
        together, apart = parameters(), parameters()
        optimizer = line.on(together, **{**variant, **PATHS[path]})
        alone = [line.on([p], **{**variant, **PATHS["single"]}) for p in apart]
        for step in range(6):
            set_gradients(together, step)
            for i, (p, q) in enumerate(zip(together, apart)):
                p.grad = None if (i + step) % 3 == 0 else p.grad
                q.grad = None if p.grad is None else p.grad.clone()
                if q.grad is not None:
                    line.step(alone[i])
            line.step(optimizer)
        assert_near(values(together), values(apart))


@lines
@pytest.mark.parametrize("to_none", [True, False])
def test_zero_grad(line: Line, to_none: bool) -> None:
    params = parameters()
    optimizer = line.on(params)
    line.train(optimizer, params, range(1))
    optimizer.zero_grad(set_to_none=to_none)
    if to_none:
        assert all(p.grad is None for p in params)
    else:
        assert all(not p.grad.any() for p in params)
        line.step(optimizer)
        assert all(p.isfinite().all() for p in params)


@on_eager_paths
def test_gradients_are_left_alone(line: Line, path: str) -> None:
    for variant in line.variants:
        params = parameters()
        settings = {**variant, "maximize": True, "weight_decay": 0.1, **PATHS[path]}
        optimizer = line.on(params, **settings)
        set_gradients(params, 0)
        before = [p.grad.clone() for p in params]
        line.step(optimizer)
        assert_same([p.grad for p in params], before)
