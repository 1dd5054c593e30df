"""The contract of every optimizer: what training loops do to it, in each precision."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from tests.optim.contract import CONTRACT, PATHS, Line, parameters, set_gradients, values
from tests.optim.line import assert_near, assert_same
from tests.optim.test_contract import lines, on_each_path, on_eager_paths
from torch import Tensor, nn
from torch.optim import lr_scheduler


@lines
def test_closure(line: Line) -> None:
    (weight,) = parameters(((3, 4),))
    optimizer = line.on([weight])
    calls = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weight**2).sum()
        line.backward(optimizer, loss)
        calls.append(torch.is_grad_enabled())
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert calls == [True]
    assert loss is not None
    assert (weight**2).sum() < loss
    optimizer.zero_grad()
    assert optimizer.step() is None


@lines
def test_hooks_are_called(line: Line) -> None:
    params = parameters()
    optimizer = line.on(params)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    line.train(optimizer, params, range(1))
    assert calls == ["pre", "post"]


@on_each_path
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
        line.step(optimizer)
        for single in singles:
            line.step(single)
    assert_same(values(both), values(apart))


@lines
def test_late_group(line: Line) -> None:
    first, late = parameters(((6, 4), (5, 8)))
    alone = parameters(((6, 4), (5, 8)))[1]
    optimizer = line.on([first])
    line.train(optimizer, [first], range(3))
    optimizer.add_param_group({"params": [late], "weight_decay": 0.1})
    single = line.on([alone], weight_decay=0.1)
    g = torch.Generator().manual_seed(7)
    for _ in range(3):
        late.grad = torch.randn(5, 8, generator=g, dtype=torch.float64)
        alone.grad = late.grad.clone()
        line.step(optimizer)
        line.step(single)
    assert torch.equal(late, alone)
    with pytest.raises(ValueError, match="lr must be at least 0"):
        optimizer.add_param_group({"params": parameters(((2,),)), "lr": -1.0})
    assert len(optimizer.param_groups) == 2


@on_each_path
def test_lr_as_tensor(line: Line, path: str) -> None:
    plain, moved, shaped = parameters(), parameters(), parameters()
    lr = line.settings["lr"]
    held = torch.tensor(lr, dtype=torch.float64)
    runs = [
        (line.on(plain, weight_decay=0.1, **line.asked(path)), plain),
        (line.on(moved, weight_decay=0.1, **line.asked(path, held)), moved),
        (line.on(shaped, weight_decay=0.1, **line.asked(path, held.view(1).clone())), shaped),
    ]
    for step in range(4):
        for optimizer, params in runs:
            if step == 2:  # in place, as schedulers do with a tensor
                group = optimizer.param_groups[0]
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(lr / 4)
                else:
                    group["lr"] = lr / 4
            line.train(optimizer, params, range(step, step + 1))
    assert_near(values(moved), values(plain))
    assert_near(values(shaped), values(plain))


@lines
@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=6),
        lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
        lambda o: lr_scheduler.OneCycleLR(  # cycles momentum too, where there is one
            o,
            max_lr=0.1,
            total_steps=6,
            cycle_momentum="betas" in o.defaults or "momentum" in o.defaults,
        ),
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
        line.train(optimizer, params, range(step, step + 1))
        line.train(by_hand, others, range(step, step + 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler.step()
    assert len(set(rates)) > 3
    assert_same(values(params), values(others))


@lines
def test_a_learning_rate_of_zero_moves_nothing(line: Line) -> None:
    """Every parameter is under the schedule, also those of a second rule inside a method."""
    params = parameters()
    optimizer = line.on(params, weight_decay=0.1)
    line.train(optimizer, params, range(2))
    before = values(params)
    optimizer.param_groups[0]["lr"] = 0.0
    line.train(optimizer, params, range(2, 4))
    assert_same(values(params), before)


@lines
def test_numpy_numbers_are_numbers(line: Line) -> None:
    params = parameters()
    optimizer = line.on(params, lr=np.float32(0.125), weight_decay=np.float64(0.5))
    assert type(optimizer.param_groups[0]["lr"]) is float
    line.train(optimizer, params, range(2))


# ---------------------------------------------------------------- precision


@on_eager_paths
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 5e-3)],
    ids=str,
)
def test_low_precision_follows_float64(
    line: Line, path: str, dtype: torch.dtype, tolerance: float
) -> None:
    tolerance = line.tolerance.get(dtype, tolerance)
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
            line.step(optimizer)
    for p, q in zip(exact, rough):
        assert q.dtype == dtype
        torch.testing.assert_close(q.double(), p, rtol=tolerance, atol=tolerance)


FUSED = pytest.mark.parametrize(
    "line", [line for line in CONTRACT if "fused" in line.paths], ids=str
)


@FUSED
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.slow
def test_fused_in_low_precision(line: Line, dtype: torch.dtype) -> None:
    runs = []
    for path in ("single", "fused"):
        params = parameters(((6, 4), (3, 2, 3, 3), (7,)), dtype=dtype)
        line.train(line.on(params, weight_decay=0.1, **PATHS[path]), params, range(4))
        runs.append(values(params))
    for got, want in zip(*runs):
        # one unit in the last place may fall on the other side
        torch.testing.assert_close(got, want)


@FUSED
@pytest.mark.slow
def test_fused_long_vectors(line: Line) -> None:
    """Short vectors are stepped operation by operation; these take a kernel."""
    runs = []
    for path in ("single", "fused"):
        params = parameters(((40_000,),))
        line.train(line.on(params, **line.variants[-1], **PATHS[path]), params, range(3))
        runs.append(values(params))
    assert_near(*runs)


@lines
def test_many_dtypes_in_one_group(line: Line) -> None:
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.complex128, torch.float64]
    dtypes = [dtype for dtype in dtypes if not (line.complex and dtype.is_complex)]
    runs = []
    for path in ("single", "foreach"):
        params = [
            nn.Parameter(p.detach().to(dtype))
            for p, dtype in zip(parameters(((6, 4),) * len(dtypes)), dtypes)
        ]
        line.train(line.on(params, weight_decay=0.1, **PATHS[path]), params, range(4))
        runs.append(values(params))
    for got, want in zip(*runs):
        torch.testing.assert_close(got, want)


@on_eager_paths
def test_grad_scaler_skips_infinite_gradients(line: Line, path: str) -> None:
    scaled = parameters(((6, 4), (7,)), dtype=torch.float32)
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
        if line.before is not None:
            scaler.unscale_(optimizer)
            line.before(optimizer)
        scaler.step(optimizer)
        scaler.update()
        if step != 2:
            line.step(other)
    assert_same(values(scaled), values(plain))
    assert scaler.get_scale() == 512.0


@on_eager_paths
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_a_gradient_that_is_not_finite_spoils_what_is_documented(
    line: Line, path: str, value: float
) -> None:
    """It is stepped with, as in torch.optim: no other parameter sees it, and it does not heal."""
    runs = []
    for bad in (False, True):
        params = parameters(((6, 4), (5, 8), (7,)))
        optimizer = line.on(params, **PATHS[path])
        for step in range(3):
            set_gradients(params, 4 + step)
            if bad and step == 1:
                params[0].grad[2, 1] = value
            line.step(optimizer)
        runs.append(values(params))
    (clean, *others), (spoiled, *same) = runs
    assert_same(same, others)
    assert clean.isfinite().all()
    broken = ~spoiled.isfinite()
    assert broken[2, 1] == (line.spoiled != "nothing")
    allowed = torch.zeros_like(broken)
    if line.spoiled != "nothing":
        allowed[{"entry": (2, 1), "row": 2, "tensor": ...}[line.spoiled]] = True
    assert not (broken & ~allowed).any()
    assert "NaN or infinity" in " ".join((line.make.__doc__ or "").split())


@lines
def test_trains_a_network_with_autocast(line: Line) -> None:
    losses = []
    with torch.random.fork_rng():  # around the steps too: some draw numbers
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        )
        x, y = torch.randn(48, 1, 8, 8), torch.arange(48) % 3
        optimizer = line.on(model.parameters(), weight_decay=1e-3)
        for _ in range(30):
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            line.backward(optimizer, loss)
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
