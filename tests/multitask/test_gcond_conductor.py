"""The conductor: golden runs through a model, passes, freezing, mixed precision, state."""

from __future__ import annotations

import copy
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.multitask.gcond_cases import CASES, options_of
from torch import Tensor, nn

from gradworks.multitask import (
    SAMGS,
    Aggregator,
    Conductor,
    GCond,
    NonFiniteGradientError,
    from_torchjd,
)

SCRIPT = Path(__file__).with_name("gcond_processes.py")
LOSSES = {"l1": F.l1_loss, "l2": F.mse_loss}


class Linear(nn.Module):
    """Parameters a (4,) and b (2, 3); the losses are inner products with what comes in."""

    def __init__(self, a: list[float], b: list[float]) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor(b, dtype=torch.float64).view(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.cat([self.a, self.b.flatten()])


class Network(nn.Module):
    """Batch norm and dropout between two layers; it counts its forward passes."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.norm, self.dropout = nn.BatchNorm1d(6), nn.Dropout(0.5)
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.last(self.dropout(self.norm(self.first(x)).relu()))


def batches(count: int = 1000, seed: int = 0, rows: int = 8) -> Callable[[], tuple[Tensor, Tensor]]:
    """What ``next_batch`` is: the same sequence for the same seed."""
    g = torch.Generator().manual_seed(seed)
    made = (
        (torch.randn(rows, 3, generator=g), torch.randn(rows, 2, generator=g)) for _ in range(count)
    )
    return lambda: next(made)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()])


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


# ---------------------------------------------------------------- the step


@pytest.mark.parametrize("number", range(len(CASES)))
def test_golden_runs_of_the_authors_class(number: int) -> None:
    case = CASES[number]
    model = Linear(*case["theta0"])
    conductor = Conductor(
        model,
        {name: lambda out, k=k: out[k] for k, name in enumerate(case["names"])},
        dict(zip(case["names"], case["lambdas"], strict=True)),
        case["accumulation_steps"],
        mode="stochastic" if case["stochastic"] else "sequential",
        aggregator=GCond(**options_of(case)),
    )
    for step in case["steps"]:
        left = iter(step["batches"])
        stats = conductor.step(lambda left=left: (torch.tensor(next(left), dtype=torch.float64),))
        want = torch.tensor(step["grad"], dtype=torch.float64)
        torch.testing.assert_close(flat(model), want, rtol=1e-9, atol=1e-14)
        assert next(left, None) is None, "every micro-batch is used"
        assert stats.aggregator.rounds == step["proj_iters"]
        assert [case["names"][w] for w in conductor.aggregator.history] == step["history"]


@pytest.mark.parametrize("mode", ["stochastic", "sequential"])
def test_the_plain_sum_is_the_gradient_of_the_weighted_losses(mode: str) -> None:
    model, weights = small(), {"l1": 0.85, "l2": 0.15}
    conductor = Conductor(model, LOSSES, weights, 4, mode=mode, aggregator=Aggregator())
    for param in model.parameters():
        param.grad = torch.ones_like(param)  # is replaced
    stats = conductor.step(batches())
    found = flat(model)
    model.zero_grad()
    draw, share = batches(), 2 if mode == "stochastic" else 4
    means = dict.fromkeys(LOSSES, 0.0)
    for micro in range(4):
        x, y = draw()
        names = list(LOSSES) if mode == "sequential" else [list(LOSSES)[micro // 2]]
        for name in names:
            loss = LOSSES[name](model(x), y)
            (weights[name] * loss / share).backward()
            means[name] += float(loss.detach()) / share
    torch.testing.assert_close(found, flat(model))
    assert {k: float(v) for k, v in stats.losses.items()} == pytest.approx(means)
    assert stats.aggregator is None
    assert stats.gradients.tasks == ("l1", "l2")


def test_stochastic_mode_is_unbiased() -> None:
    draw = batches()
    pool = [draw() for _ in range(4)]

    def gradient(order: tuple[int, ...], mode: str) -> Tensor:
        model, left = small(), iter(order)
        Conductor(model, LOSSES, None, 4, mode=mode, aggregator=Aggregator()).step(
            lambda: pool[next(left)]
        )
        return flat(model)

    every = [gradient(order, "stochastic") for order in itertools.permutations(range(4))]
    torch.testing.assert_close(torch.stack(every).mean(0), gradient((0, 1, 2, 3), "sequential"))


@pytest.mark.parametrize(
    ("mode", "forward", "backward"), [("stochastic", 4, 4), ("sequential", 4, 8)]
)
def test_passes_of_a_step(mode: str, forward: int, backward: int) -> None:
    model, count = Network(), []
    model.last.weight.register_hook(lambda grad: count.append(1))
    Conductor(model, LOSSES, None, 4, mode=mode).step(batches())
    assert (model.calls, len(count)) == (forward, backward)


def test_one_loss_and_a_model_of_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
            return {"sum": (a + b) @ self.weight}

    model = Two()
    conductor = Conductor(model, {"only": lambda out: out["sum"]}, None, 3)
    stats = conductor.step(lambda: ((torch.ones(2), torch.ones(2)),))
    torch.testing.assert_close(model.weight.grad, torch.full((2,), 2.0))
    assert stats.aggregator.rounds == 0


@pytest.mark.parametrize(
    "name", ["SAMGS", pytest.param("PCGrad", marks=pytest.mark.slow), "function"]
)
def test_any_aggregator(name: str) -> None:
    if name == "PCGrad":
        pytest.importorskip("torchjd")
    made: dict[str, Callable[[], Any]] = {
        "SAMGS": SAMGS,
        "PCGrad": lambda: from_torchjd("PCGrad"),
        "function": lambda: lambda jacobian: jacobian.mean(0),
    }
    model = small()
    conductor = Conductor(model, LOSSES, None, 4, aggregator=made[name]())
    conductor.step(batches())
    assert bool(torch.isfinite(flat(model)).all())
    conductor.load_state_dict(conductor.state_dict())


def test_both_losses_fall() -> None:
    model, draw = small(), batches(100, rows=64)
    x, _ = draw()
    y = torch.stack([x[:, 0] * x[:, 1], x.sum(1).sin()], 1)
    conductor = Conductor(model, LOSSES, None, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    first = conductor.step(lambda: (x, y)).losses
    for _ in range(60):
        last = conductor.step(lambda: (x, y)).losses
        optimizer.step()
    assert all(last[name] < 0.7 * first[name] for name in LOSSES)


# ---------------------------------------------------------------- modes of the model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize(
    ("freeze", "norm", "dropout"),
    [("batch_norm", False, True), ("eval", False, False), ("none", True, True)],
)
def test_what_is_frozen(freeze: str, norm: bool, dropout: bool) -> None:
    model = Network()
    model.first.eval()  # a mode of its own, which comes back
    before, kept = modes(model), copy.deepcopy(model.norm.state_dict())
    seen = []
    model.last.register_forward_hook(
        lambda *_: seen.append((model.norm.training, model.dropout.training, model.last.training))
    )
    Conductor(model, LOSSES, None, 2, freeze=freeze).step(batches())
    assert set(seen) == {(norm, dropout, dropout)}
    assert modes(model) == before
    same = all(torch.equal(v, kept[k]) for k, v in model.norm.state_dict().items())
    assert same == (freeze != "none")
    with pytest.raises(ZeroDivisionError):
        Conductor(model, LOSSES, None, 2, freeze=freeze).step(lambda: 1 / 0)
    assert modes(model) == before


def test_autocast_and_no_grad() -> None:
    model, seen = small(), []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        seen.append(output.dtype)
        return F.mse_loss(output.float(), target)

    for autocast in (torch.bfloat16, torch.autocast("cpu", torch.bfloat16)):
        with torch.no_grad():
            Conductor(model, {"a": loss, "b": loss}, None, 2, autocast=autocast).step(batches())
        assert flat(model).dtype == torch.float32
    assert set(seen) == {torch.bfloat16}


def test_a_gradient_scaler_gets_scaled_gradients_and_skips_what_is_not_finite() -> None:
    plain, model = small(), small()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    Conductor(plain, LOSSES, None, 4).step(batches())
    conductor = Conductor(model, LOSSES, None, 4, scaler=scaler)
    conductor.step(batches())
    torch.testing.assert_close(flat(model) / 1024, flat(plain), rtol=1e-5, atol=1e-7)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler.step(optimizer)
    scaler.update()
    kept, weights = conductor.aggregator.step, model[0].weight.clone()
    stats = conductor.step(lambda: (torch.full((2, 3), math.inf), torch.zeros(2, 2)))
    assert stats.gradients.skipped
    assert stats.aggregator is None
    scaler.step(optimizer)
    assert torch.equal(model[0].weight, weights)
    assert conductor.aggregator.step == kept


# ---------------------------------------------------------------- what is not finite


def test_a_loss_that_is_not_finite_is_named_and_nothing_changes() -> None:
    model = small()
    conductor = Conductor(model, LOSSES, None, 4)
    conductor.step(batches(seed=1))
    kept, state = flat(model), copy.deepcopy(conductor.state_dict())
    draw, count = batches(seed=2), itertools.count()

    def third_is_bad() -> tuple[Tensor, Tensor]:
        x, y = draw()
        return x, y * math.nan if next(count) == 3 else y

    with pytest.raises(
        NonFiniteGradientError, match=r"loss of task 'l2' .* micro-batch 3"
    ) as caught:
        conductor.step(third_is_bad)
    assert (caught.value.tasks, caught.value.names) == ((1,), ("l2",))
    assert torch.equal(flat(model), kept)
    after = conductor.state_dict()["aggregator"]
    assert torch.equal(after["previous"], state["aggregator"]["previous"])
    assert after["_extra_state"] == state["aggregator"]["_extra_state"]
    other = Conductor(model, LOSSES, None, 4)
    other.load_state_dict(state)
    conductor.step(batches(seed=3))
    want = flat(model)
    other.step(batches(seed=3))
    assert torch.equal(flat(model), want), "no row of the step that failed is left"


def test_a_step_that_broke_off_leaves_nothing_behind() -> None:
    model, draw = small(), batches(3)  # of four: the last one is missing
    conductor = Conductor(model, LOSSES, None, 4)
    with pytest.raises(StopIteration):
        conductor.step(draw)
    assert all(p.grad is None for p in model.parameters())
    conductor.step(batches(seed=5))
    want = flat(model)
    Conductor(model, LOSSES, None, 4).step(batches(seed=5))
    assert torch.equal(flat(model), want)


def test_a_gradient_that_is_not_finite_under_a_finite_loss() -> None:
    model = small()
    losses = {"l1": F.l1_loss, "root": lambda out, y: (0 * out).abs().sum().sqrt()}
    with pytest.raises(NonFiniteGradientError, match="gradient of task 'root'"):
        Conductor(model, losses, None, 2).step(batches())
    assert all(p.grad is None for p in model.parameters())


# ---------------------------------------------------------------- state


def test_a_stopped_training_goes_on_bit_for_bit() -> None:
    def begin() -> tuple[nn.Module, Conductor, torch.optim.Optimizer]:
        model = small()
        optimizer = torch.optim.AdamW(model.parameters(), 0.05, betas=(0.0, 0.99))
        return model, Conductor(model, LOSSES, {"l1": 1.0, "l2": 0.5}, 2), optimizer

    def train(parts: Any, draw: Callable[[], Any], steps: int) -> None:
        for _ in range(steps):
            parts[1].step(draw)
            parts[2].step()

    whole, first, second = begin(), begin(), begin()
    draw = batches()
    train(whole, draw, 8)
    draw = batches()
    train(first, draw, 4)
    for mine, theirs in zip(second, first, strict=True):
        mine.load_state_dict(copy.deepcopy(theirs.state_dict()))
    train(second, draw, 4)
    for p, q in zip(whole[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(p, q)
    strange = Conductor(small(), dict(reversed(LOSSES.items())), None, 2)
    with pytest.raises(ValueError, match=r"the state has losses \['l1', 'l2'\], this conductor"):
        strange.load_state_dict(first[1].state_dict())


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "error", "fragment"),
    [
        ({"model": 3}, TypeError, "model must be a module, got int"),
        ({"model": nn.Flatten()}, ValueError, "no parameter that requires a gradient"),
        ({"losses": {}}, ValueError, "losses is empty"),
        ({"losses": [F.l1_loss]}, TypeError, "losses must map names"),
        ({"losses": {1: F.l1_loss, "1": F.l1_loss}}, ValueError, "two losses are called '1'"),
        ({"losses": {"l1": 3}}, TypeError, r"losses\['l1'\] must be a function, got int"),
        ({"weights": {"l1": 1.0}}, ValueError, r"names of the losses, \['l1', 'l2'\], got"),
        ({"weights": {"l1": -1.0, "l2": 1.0}}, ValueError, "at least 0, got {'l1': -1.0}"),
        ({"weights": {"l1": math.nan, "l2": 1.0}}, ValueError, "weights must be finite"),
        ({"weights": {"l1": 0.0, "l2": 0.0}}, ValueError, "weights sum to 0"),
        ({"weights": 1.0}, TypeError, "weights must map names"),
        ({"accumulation_steps": 0}, ValueError, "accumulation_steps must be at least 1, got 0"),
        ({"accumulation_steps": 2.0}, TypeError, "must be an integer, got float"),
        ({"accumulation_steps": 3}, ValueError, "multiple of the 2 losses .* the next is 4"),
        (
            {"mode": "random"},
            ValueError,
            "mode must be one of stochastic, sequential, got 'random'",
        ),
        ({"freeze": "all"}, ValueError, "freeze must be one of batch_norm, eval, none"),
        ({"sync": "never"}, ValueError, "sync must be one of before, after"),
        ({"aggregator": 3}, TypeError, "aggregator must be callable, got int"),
        ({"autocast": "bf16"}, TypeError, "autocast must be a dtype"),
        ({"scaler": 3}, TypeError, "scaler must be a torch.amp.GradScaler"),
    ],
)
def test_bad_settings(arguments: dict, error: type[Exception], fragment: str) -> None:
    good = {"model": small(), "losses": LOSSES, "weights": None, "accumulation_steps": 2}
    with pytest.raises(error, match=fragment):
        Conductor(**{**good, **arguments})


@pytest.mark.parametrize(
    ("losses", "batch", "error", "fragment"),
    [
        (LOSSES, lambda: torch.ones(2, 3), TypeError, r"next_batch must return a tuple \(input"),
        (LOSSES, tuple, TypeError, "next_batch must return a tuple"),
        ({"a": lambda out, y: 1.0}, batches(), TypeError, "loss 'a' must be a tensor, got float"),
        ({"a": lambda out, y: out}, batches(), ValueError, "loss 'a' must be a scalar"),
        ({"a": lambda out, y: y.sum()}, batches(), ValueError, "loss 'a' has no graph"),
    ],
)
def test_bad_batches_and_losses(
    losses: dict, batch: Any, error: type[Exception], fragment: str
) -> None:
    model = small()
    with pytest.raises(error, match=fragment):
        Conductor(model, losses, None, 2).step(batch)
    assert all(p.grad is None for p in model.parameters())


def test_a_zero_weight_is_a_loss_that_is_only_watched() -> None:
    model = small()
    conductor = Conductor(model, LOSSES, {"l1": 1.0, "l2": 0.0}, 2, mode="sequential")
    stats = conductor.step(batches())
    assert stats.gradients.unreached == ("l2",)
    assert float(stats.losses["l2"]) > 0


# ---------------------------------------------------------------- processes


@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="torch was built without gloo",
)
@pytest.mark.slow
def test_two_replicas(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(SCRIPT), str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    try:
        outputs = [p.communicate(timeout=120) for p in processes]
    finally:
        for p in processes:
            if p.poll() is None:
                p.kill()
                p.wait()
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, err[-3000:]
        assert out == "done\n"
