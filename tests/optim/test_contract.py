"""The contract of every optimizer: paths, resume, groups, schedules, dtypes, errors."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
from tests.optim.contract import (
    CONTRACT,
    Line,
    parameters,
    set_gradients,
    settings_of,
    train,
    values,
)
from torch import Tensor, nn
from torch.optim import lr_scheduler

lines = pytest.mark.parametrize("line", CONTRACT, ids=str)
PATHS = {"single": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
paths = pytest.mark.parametrize(
    "path", ["single", "foreach", pytest.param("fused", marks=pytest.mark.slow)]
)
EVERY = [(line, i) for line in CONTRACT for i in range(len(line.variants))]
variants = pytest.mark.parametrize(
    ("line", "variant"), EVERY, ids=[f"{line}-{i}" for line, i in EVERY]
)


def assert_same(got: list[Tensor], want: list[Tensor]) -> None:
    """The same bits."""
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def assert_near(got: list[Tensor], want: list[Tensor]) -> None:
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


# ---------------------------------------------------------------- paths


@variants
@pytest.mark.parametrize("path", ["foreach", pytest.param("fused", marks=pytest.mark.slow)])
def test_paths_equal_the_oracle(line: Line, variant: int, path: str) -> None:
    runs = []
    for name in ("single", path):
        params = parameters()
        optimizer = line.on(params, **line.variants[variant], **PATHS[name])
        train(optimizer, params, range(9))
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
        train(line.on(params, **settings), params, range(4))
        runs.append(values(params))
    assert_same(*runs)


@lines
@paths
def test_maximize_is_descent_on_the_negative(line: Line, path: str) -> None:
    up, down = parameters(), parameters()
    climber = line.on(up, maximize=True, **PATHS[path])
    walker = line.on(down, **PATHS[path])
    for step in range(3):
        set_gradients(down, step)
        for p, q in zip(up, down):
            p.grad = -q.grad
        climber.step()
        walker.step()
    assert_same(values(up), values(down))


@lines
def test_differentiable_equals_and_differentiates(line: Line) -> None:
    params = parameters()
    train(line.on(params), params, range(2))
    start = parameters()
    leaves = [p.detach().clone().requires_grad_() for p in start]
    stepped = [leaf.clone() for leaf in leaves]
    optimizer = line.on(stepped, differentiable=True)
    for step in range(2):
        set_gradients(stepped, step)
        optimizer.step()
    assert_near([p.detach() for p in stepped], values(params))
    torch.stack([p.sum() for p in stepped if p.numel()]).sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves[:-1])


@lines
def test_differentiable_gradient_of_lr(line: Line) -> None:
    """Two steps of a quadratic, loss after them as a function of lr and of the gradient's scale."""

    def after(lr: Tensor, scale: Tensor) -> Tensor:
        weight = parameters(((3, 4),))[0].detach().clone().requires_grad_()
        weight = weight * 1.0
        settings = {**line.settings, "lr": lr, "differentiable": True, "delta": 100.0}
        optimizer = line.make([weight], **settings)
        for _ in range(2):
            weight.grad = scale * weight.clone() ** 2  # never zero: sqrt has no slope there
            optimizer.step()
        return (weight**3).sum()

    inputs = (
        torch.tensor(0.05, dtype=torch.float64, requires_grad=True),
        torch.tensor(0.7, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(after, inputs)


@pytest.mark.parametrize("line", [line for line in CONTRACT if line.capturable], ids=str)
@pytest.mark.parametrize("path", ["single", "foreach"])
def test_capturable_equals(line: Line, path: str) -> None:
    runs = []
    for capturable in (False, True):
        params = parameters()
        train(line.on(params, capturable=capturable, **PATHS[path]), params, range(5))
        runs.append(values(params))
    assert_near(*runs)


@lines
@pytest.mark.parametrize("path", ["single", "foreach"])
def test_no_value_is_read_off_an_accelerator(line: Line, path: str) -> None:
    """Tensors of the device ``meta`` have no values: a step that needs one fails on them."""
    for extra in [{}, {"capturable": True}] if line.capturable else [{}]:
        for variant in line.variants:
            params = [nn.Parameter(p.detach().to("meta")) for p in parameters()]
            optimizer = line.on(params, **variant, **PATHS[path], **extra)
            for param in params:
                param.grad = torch.empty_like(param)
            optimizer.step()
            optimizer.step()


# ---------------------------------------------------------------- state


@lines
@paths
def test_resume_is_bit_for_bit(line: Line, path: str) -> None:
    settings = {**line.variants[-1], **PATHS[path]}
    whole = parameters()
    train(line.on(whole, **settings), whole, range(7))

    params = parameters()
    optimizer = line.on(params, **settings)
    train(optimizer, params, range(3))
    buffer = io.BytesIO()
    torch.save({"params": values(params), "optimizer": optimizer.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    resumed = [nn.Parameter(x) for x in saved["params"]]
    second = line.make(resumed, lr=0.5)  # every setting comes from the checkpoint
    second.load_state_dict(saved["optimizer"])
    assert settings_of(second) == settings_of(optimizer)
    train(second, resumed, range(3, 7))
    assert_same(values(resumed), values(whole))


@lines
def test_copies_and_pickles_go_on_alike(line: Line) -> None:
    params = parameters()
    optimizer = line.on(params, **line.variants[-1])
    train(optimizer, params, range(3))
    copies = [copy.deepcopy((optimizer, params)), pickle.loads(pickle.dumps((optimizer, params)))]
    train(optimizer, params, range(3, 6))
    for other, own in copies:
        assert other.param_groups[0]["params"][0] is own[0]
        train(other, own, range(3, 6))
        assert_same(values(own), values(params))


@lines
@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.complex64], ids=str
)
def test_state_is_like_the_parameter(line: Line, dtype: torch.dtype) -> None:
    weight = torch.randn(4, 3, 3, 3).to(dtype).to(memory_format=torch.channels_last)
    params = [nn.Parameter(weight), nn.Parameter(torch.randn(5).to(dtype))]
    optimizer = line.on(params)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    for param in params:
        state = optimizer.state[param]
        assert set(state) == {*line.state, *(["step"] if line.counts else [])}
        for name in line.state:
            assert state[name].dtype == dtype
            assert state[name].stride() == param.stride()
        if line.counts:
            assert state["step"].dtype == torch.float32
            assert state["step"].shape == ()
            assert state["step"] == 1
    assert params[0].is_contiguous(memory_format=torch.channels_last)


@lines
def test_nothing_without_a_gradient(line: Line) -> None:
    params = parameters()
    before = values(params)
    for path in ("single", "foreach", "fused"):
        optimizer = line.on(params, **PATHS[path])
        optimizer.step()
        assert not optimizer.state
    optimizer = line.on(params, weight_decay=0.1)
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    assert_same(values(params[1:]), before[1:])
    assert not torch.equal(params[0], before[0])
    assert list(optimizer.state) == [params[0]]


@lines
@pytest.mark.parametrize("to_none", [True, False])
def test_zero_grad(line: Line, to_none: bool) -> None:
    params = parameters()
    optimizer = line.on(params)
    train(optimizer, params, range(1))
    optimizer.zero_grad(set_to_none=to_none)
    if to_none:
        assert all(p.grad is None for p in params)
    else:
        assert all(not p.grad.any() for p in params)
        optimizer.step()
        assert all(p.isfinite().all() for p in params)


@lines
def test_gradients_are_left_alone(line: Line) -> None:
    for path in ("single", "foreach"):
        params = parameters()
        optimizer = line.on(params, maximize=True, weight_decay=0.1, **PATHS[path])
        set_gradients(params, 0)
        before = [p.grad.clone() for p in params]
        optimizer.step()
        assert_same([p.grad for p in params], before)


# ---------------------------------------------------------------- what a training loop does


@lines
def test_closure(line: Line) -> None:
    (weight,) = parameters(((3, 4),))
    optimizer = line.on([weight])
    calls = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        calls.append(torch.is_grad_enabled())
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert calls == [True]
    assert loss is not None
    assert (weight**2).sum() < loss
    assert optimizer.step() is None


@lines
@paths
def test_groups_are_independent(line: Line, path: str) -> None:
    both = parameters(((6, 4), (5, 8)))
    groups = [{"params": [both[0]]}, {"params": [both[1]], "lr": 0.3, "weight_decay": 0.1}]
    optimizer = line.on(groups, **PATHS[path])
    apart = parameters(((6, 4), (5, 8)))
    singles = [
        line.on([apart[0]], **PATHS[path]),
        line.on([apart[1]], lr=0.3, weight_decay=0.1, **PATHS[path]),
    ]
    for step in range(3):
        set_gradients(both, step)
        set_gradients(apart, step)
        optimizer.step()
        for single in singles:
            single.step()
    assert_same(values(both), values(apart))


@lines
def test_late_group(line: Line) -> None:
    first, late = parameters(((6, 4), (5, 8)))
    alone = parameters(((6, 4), (5, 8)))[1]
    optimizer = line.on([first])
    train(optimizer, [first], range(3))
    optimizer.add_param_group({"params": [late], "weight_decay": 0.1})
    single = line.on([alone], weight_decay=0.1)
    g = torch.Generator().manual_seed(7)
    for _ in range(3):
        late.grad = torch.randn(5, 8, generator=g, dtype=torch.float64)
        alone.grad = late.grad.clone()
        optimizer.step()
        single.step()
    assert torch.equal(late, alone)
    with pytest.raises(ValueError, match="lr must be at least 0"):
        optimizer.add_param_group({"params": parameters(((2,),)), "lr": -1.0})
    assert len(optimizer.param_groups) == 2


@lines
@paths
def test_lr_as_tensor(line: Line, path: str) -> None:
    plain, moved, shaped = parameters(), parameters(), parameters()
    lr = line.settings["lr"]
    held = torch.tensor(lr, dtype=torch.float64)
    runs = [
        (line.on(plain, weight_decay=0.1, **PATHS[path]), plain),
        (line.on(moved, weight_decay=0.1, **{**PATHS[path], "lr": held}), moved),
        (line.on(shaped, weight_decay=0.1, **{**PATHS[path], "lr": held.view(1).clone()}), shaped),
    ]
    for step in range(4):
        for optimizer, params in runs:
            if step == 2:  # in place, as schedulers do with a tensor
                group = optimizer.param_groups[0]
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(lr / 4)
                else:
                    group["lr"] = lr / 4
            train(optimizer, params, range(step, step + 1))
    assert_near(values(moved), values(plain))
    assert_near(values(shaped), values(plain))


@lines
@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=6),
        lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=6),  # cycles momentum too
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, 0.1, total_iters=2), lr_scheduler.ExponentialLR(o, 0.5)],
            [2],
        ),
    ],
    ids=["cosine", "lambda", "one cycle", "sequential"],
)
def test_schedules_act(line: Line, schedule: Any) -> None:
    """Scheduled, and with the same numbers written into the group by hand: the same bits."""
    params, others = parameters(), parameters()
    optimizer, by_hand = line.on(params, weight_decay=0.05), line.on(others, weight_decay=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR warns about itself
        scheduler = schedule(optimizer)
    rates = []
    for step in range(5):
        for name in ("lr", "betas", "momentum"):
            if name in optimizer.param_groups[0]:
                by_hand.param_groups[0][name] = optimizer.param_groups[0][name]
        rates.append(optimizer.param_groups[0]["lr"])
        train(optimizer, params, range(step, step + 1))
        train(by_hand, others, range(step, step + 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler.step()
    assert len(set(rates)) > 3
    assert_same(values(params), values(others))


def test_numpy_numbers_are_numbers() -> None:
    import numpy as np

    for line in CONTRACT:
        params = parameters()
        optimizer = line.on(params, lr=np.float32(0.125), weight_decay=np.float64(0.5))
        assert type(optimizer.param_groups[0]["lr"]) is float
        train(optimizer, params, range(2))


# ---------------------------------------------------------------- precision


@lines
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 5e-3)],
    ids=str,
)
@pytest.mark.parametrize("path", ["single", "foreach"])
def test_low_precision_follows_float64(
    line: Line, dtype: torch.dtype, tolerance: float, path: str
) -> None:
    exact = parameters(((6, 4), (3, 2, 3, 3), (7,)))
    exact = [nn.Parameter(p.detach().to(dtype).double()) for p in exact]
    rough = [nn.Parameter(p.detach().to(dtype)) for p in exact]
    runs = [(line.on(params, **PATHS[path]), params) for params in (exact, rough)]
    g = torch.Generator().manual_seed(3)
    for _ in range(4):
        for p, q in zip(exact, rough):
            q.grad = torch.randn(p.shape, generator=g).to(dtype)
            p.grad = q.grad.double()
        for optimizer, _ in runs:
            optimizer.step()
    for p, q in zip(exact, rough):
        assert q.dtype == dtype
        torch.testing.assert_close(q.double(), p, rtol=tolerance, atol=tolerance)


@lines
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.slow
def test_fused_in_low_precision(line: Line, dtype: torch.dtype) -> None:
    runs = []
    for path in ("single", "fused"):
        params = parameters(((6, 4), (3, 2, 3, 3), (7,)), dtype=dtype)
        train(line.on(params, weight_decay=0.1, **PATHS[path]), params, range(4))
        runs.append(values(params))
    for got, want in zip(*runs):
        # one unit in the last place may fall on the other side
        torch.testing.assert_close(got, want)


@lines
@pytest.mark.slow
def test_fused_long_vectors(line: Line) -> None:
    """Short vectors are stepped operation by operation; these take a kernel."""
    runs = []
    for path in ("single", "fused"):
        params = parameters(((40_000,),))
        train(line.on(params, **line.variants[-1], **PATHS[path]), params, range(3))
        runs.append(values(params))
    assert_near(*runs)


@lines
def test_many_dtypes_in_one_group(line: Line) -> None:
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.complex128, torch.float64)
    runs = []
    for path in ("single", "foreach"):
        params = [
            nn.Parameter(p.detach().to(dtype))
            for p, dtype in zip(parameters(((6, 4),) * 5), dtypes)
        ]
        train(line.on(params, weight_decay=0.1, **PATHS[path]), params, range(4))
        runs.append(values(params))
    for got, want in zip(*runs):
        torch.testing.assert_close(got, want)


@lines
@pytest.mark.parametrize("path", ["single", "foreach"])
def test_grad_scaler_skips_infinite_gradients(line: Line, path: str) -> None:
    scaled, plain = parameters(((6, 4), (7,)), dtype=torch.float32), None
    plain = [nn.Parameter(p.detach().clone()) for p in scaled]
    optimizer = line.on(scaled, **PATHS[path])
    other = line.on(plain, **PATHS[path])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        set_gradients(plain, step)
        loss = sum((p * q.grad).sum() for p, q in zip(scaled, plain))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if step == 2:
            scaled[0].grad[0, 0] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        if step != 2:
            other.step()
    assert_same(values(scaled), values(plain))
    assert scaler.get_scale() == 512.0


@lines
def test_trains_a_network_with_autocast(line: Line) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        )
        x, y = torch.randn(48, 1, 8, 8), torch.arange(48) % 3
    optimizer = line.on(model.parameters(), weight_decay=1e-3)
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


# ---------------------------------------------------------------- layouts


@lines
@paths
def test_memory_formats_agree(line: Line, path: str) -> None:
    shapes = ((4, 3, 3, 3), (2, 4, 3, 2, 2))
    runs = []
    for formats in (
        (torch.contiguous_format, torch.contiguous_format),
        (torch.channels_last, torch.channels_last_3d),
    ):
        params = parameters(shapes)
        params = [
            nn.Parameter(p.detach().contiguous(memory_format=f)) for p, f in zip(params, formats)
        ]
        # gradients stay contiguous: their format need not be the weight's
        train(line.on(params, weight_decay=0.1, **PATHS[path]), params, range(6))
        runs.append(values(params))
    assert_near(*runs)


@lines
@pytest.mark.parametrize("path", ["single", "foreach", "fused"])
def test_weights_with_gaps(line: Line, path: str) -> None:
    """Views into a larger tensor have no dense form; every path takes them."""
    room = torch.zeros(6, 9, dtype=torch.float64)
    plain = parameters(((6, 4),))
    room[:, ::2][:, :4] = plain[0].detach()
    view = nn.Parameter(room[:, ::2][:, :4])
    assert view.data_ptr() == room.data_ptr()
    train(line.on([view], **PATHS[path]), [view], range(4))
    train(line.on(plain), plain, range(4))
    assert_near([view.detach()], values(plain))
    assert not room[:, 1::2].any()


@lines
@pytest.mark.parametrize("path", ["single", "foreach"])
def test_complex_is_pairs_of_reals(line: Line, path: str) -> None:
    real = parameters(((3, 4, 2), (2, 3, 5, 2)))
    paired = [nn.Parameter(torch.view_as_complex(p.detach().clone())) for p in real]
    settings = {**line.variants[-1], **PATHS[path]}
    runs = [line.on(real, **settings), line.on(paired, **settings)]
    for step in range(6):
        set_gradients(real, step)
        for p, q in zip(real, paired):
            q.grad = torch.view_as_complex(p.grad)
        for optimizer in runs:
            optimizer.step()
    assert_near([torch.view_as_real(p.detach()) for p in paired], values(real))


# ---------------------------------------------------------------- compile


@lines
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", ["single", "foreach"])
def test_compiled_step(line: Line, path: str) -> None:
    shapes = ((6, 4), (3, 2, 3, 3), (7,))
    runs = []
    for compiled in (False, True):
        params = parameters(shapes, dtype=torch.float32)
        lr = torch.tensor(line.settings["lr"])
        optimizer = line.on(params, weight_decay=0.1, **{**PATHS[path], "lr": lr})
        step = torch.compile(optimizer.step) if compiled else optimizer.step
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        graphs = []
        for i in range(6):
            set_gradients(params, i)
            lr.fill_(line.settings["lr"] / (1 + i))
            step()
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"] - before)
        runs.append(values(params))
    torch.testing.assert_close(*runs)
    assert graphs[0] >= 1
    assert graphs[-1] == graphs[1]  # a schedule on a tensor compiles nothing again


# ---------------------------------------------------------------- errors


BAD = [(line, *row) for line in CONTRACT for row in line.bad]


@pytest.mark.parametrize(
    ("line", "arguments", "error", "fragment"),
    BAD,
    ids=[f"{line}-{'-'.join(arguments)}-{i}" for i, (line, arguments, _, _) in enumerate(BAD)],
)
def test_bad_arguments(line: Line, arguments: Any, error: type[Exception], fragment: str) -> None:
    with pytest.raises(error) as caught:
        line.on(parameters(((6, 4),)), **arguments)
    assert fragment in str(caught.value)
    # and in a group of its own
    optimizer = line.on(parameters(((2, 2),)))
    with pytest.raises(error) as caught:
        optimizer.add_param_group({"params": parameters(((6, 4),)), **arguments})
    assert fragment in str(caught.value)
    assert len(optimizer.param_groups) == 1


@lines
def test_bad_parameters(line: Line) -> None:
    with pytest.raises(ValueError, match="empty parameter list"):
        line.on([])
    with pytest.raises(TypeError, match="should be an iterable"):
        line.on(torch.ones(2))
    with pytest.raises(TypeError, match="can only optimize Tensors"):
        line.on([1.0])


@lines
def test_sparse_gradients_are_refused(line: Line) -> None:
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = line.on(embedding.parameters())
    embedding(torch.tensor([1, 2])).sum().backward()
    before = embedding.weight.detach().clone()
    with pytest.raises(RuntimeError, match=r"does not take sparse gradients.*\(5, 3\)"):
        optimizer.step()
    assert torch.equal(embedding.weight, before)


@lines
def test_hooks_are_called(line: Line) -> None:
    params = parameters()
    optimizer = line.on(params)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    train(optimizer, params, range(1))
    assert calls == ["pre", "post"]
