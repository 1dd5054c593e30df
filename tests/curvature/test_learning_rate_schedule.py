"""The schedule: its rules on quadratics, its brakes, its state, its manners."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.nets import dense_hessian, f64, problem, vector
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LRScheduler, SequentialLR

from gradworks.curvature import learning_rate as lr
from gradworks.curvature.learning_rate import (
    CurvatureSchedule,
    NoiseModel,
    NonPositiveCurvatureError,
    learn_step_sizes,
)

FREE: dict[str, Any] = {
    "smoothing": 0.0,
    "max_change": math.inf,
    "lr_bounds": (1e-9, 1e9),
    "momentum_bounds": (0.0, 0.999),
}


def quadratic(*curvatures: float) -> tuple[nn.Module, Any, tuple[Tensor, Tensor]]:
    """A loss whose Hessian is the diagonal of these."""
    n = len(curvatures)
    x = torch.diag(f64(curvatures).sqrt() * math.sqrt(n / 2))
    model = nn.Linear(n, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(vector(n, 3))
    return model, F.mse_loss, (x, torch.zeros(n, 1, dtype=torch.float64))


def sgd(model: nn.Module, rate: float = 0.1, **options: Any) -> SGD:
    return SGD(model.parameters(), lr=rate, **options)


def values(optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    group = optimizer.param_groups[0]
    return float(group["lr"]), group["momentum"]


# ---------------------------------------------------------------- the rules


def test_heavy_ball_on_a_quadratic_converges_at_its_rate() -> None:
    model, loss_fn, data = quadratic(50.0, 10.0, 0.5)
    optimizer = sgd(model)
    found = CurvatureSchedule(optimizer, model, loss_fn, data, **FREE).step()
    best = lr.heavy_ball(50.0, 0.5)
    assert found is not None
    assert found.lr == pytest.approx(best.lr, rel=1e-9)
    assert found.momentum == pytest.approx(best.momentum, rel=1e-9)
    assert values(optimizer) == (found.lr, pytest.approx(found.momentum))
    start = float(loss_fn(model(data[0]), data[1]).detach())
    steps = 120
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(model(data[0]), data[1]).backward()
        optimizer.step()
    fall = float(loss_fn(model(data[0]), data[1]).detach()) / start
    # (n r^n)^2 of a double root r = sqrt(momentum), with a constant
    assert fall < 100 * steps**2 * best.momentum**steps


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("account", [False, True])
def test_rmt_takes_its_share_of_the_bound(momentum: float, account: bool) -> None:
    model, loss_fn, data = quadratic(8.0, 1.0)
    optimizer = sgd(model, momentum=momentum)
    schedule = CurvatureSchedule(
        optimizer, model, loss_fn, data, rule="rmt", account_momentum=account, **FREE
    )
    found = schedule.step()
    assert found is not None
    wider = 1 + momentum if account else 1
    assert found.lr == pytest.approx(0.5 * 2 * wider / 8.0, rel=1e-9)
    assert found.momentum == momentum


def test_cauchy_is_exact_line_search_on_all_data() -> None:
    model, loss_fn, data = quadratic(8.0, 2.0, 1.0)
    H, w = dense_hessian(model, loss_fn, data), model.weight.detach()[0]
    g = H @ w
    found = learn_step_sizes(model, loss_fn, data, rule="cauchy", momentum=0.3)
    assert found.lr == pytest.approx(float(g @ g / (g @ H @ g)), rel=1e-9)
    assert (found.momentum, found.rule) == (0.3, "cauchy")
    batches = [(data[0][:2], data[1][:2]), (data[0][2:], data[1][2:])]
    assert learn_step_sizes(model, loss_fn, batches, rule="cauchy").lr == pytest.approx(found.lr)


@pytest.mark.parametrize("rule", ["heavy_ball", "rmt", "cauchy"])
def test_weight_decay_is_curvature(rule: Any) -> None:
    model, loss_fn, data = quadratic(8.0, 1.0)
    plain = learn_step_sizes(model, loss_fn, data, rule=rule)
    optimizer = sgd(model, weight_decay=1.5)
    decayed = CurvatureSchedule(optimizer, model, loss_fn, data, rule=rule, **FREE).step()
    assert decayed is not None
    if rule == "heavy_ball":
        assert decayed.lr == pytest.approx(lr.heavy_ball(9.5, 2.5).lr)
    elif rule == "rmt":
        assert decayed.lr == pytest.approx(1 / 9.5)
    else:
        assert 1 / decayed.lr == pytest.approx(1 / plain.lr + 1.5)


def test_safety_scales_every_rule() -> None:
    model, loss_fn, data = quadratic(8.0, 1.0)
    for rule, usual in (("heavy_ball", 1.0), ("rmt", 0.5), ("cauchy", 1.0)):
        one = learn_step_sizes(model, loss_fn, data, rule=rule)  # type: ignore[arg-type]
        two = learn_step_sizes(model, loss_fn, data, rule=rule, safety=usual / 4)  # type: ignore[arg-type]
        assert two.lr == pytest.approx(one.lr / 4)


def test_the_smallest_curvature_that_matters() -> None:
    """Light nodes and negative ones are left out; a floor; or a quantile of the weight."""
    found = learn_step_sizes(*quadratic(100.0, 4.0, 1.0))
    assert found.lambda_min == pytest.approx(1.0)
    rare = learn_step_sizes(*quadratic(100.0, 0.5, *[4.0] * 150), statistics=200)
    assert rare.lambda_min == pytest.approx(4.0)  # 0.5 has 1/152 of the weight
    tiny = learn_step_sizes(*quadratic(100.0, 1e-5))
    assert tiny.lambda_min == pytest.approx(100 * 1e-4)  # the floor
    median = learn_step_sizes(*quadratic(100.0, 4.0, 1.0), bulk_quantile=0.5)
    assert median.lambda_min == pytest.approx(4.0)
    top = learn_step_sizes(*quadratic(100.0, 4.0, 1.0), bulk_quantile=1.0)
    assert (top.momentum, top.lr) == (pytest.approx(0, abs=1e-12), pytest.approx(0.01))


def test_the_extreme_is_carried_over_to_the_training_batch() -> None:
    model, loss_fn, data = problem(400, hidden=6)
    here = learn_step_sizes(model, loss_fn, data, rule="rmt")
    assert here.lambda_max is not None
    noise = 3.0
    moved = learn_step_sizes(model, loss_fn, data, rule="rmt", batch_size=16, noise=noise)
    lam = lr.full_eigenvalue(here.lambda_max, noise, 128, 400)
    want = lr.batch_extreme_eigenvalue(lam, noise, 16, 400)
    assert moved.lambda_max == pytest.approx(want)
    measured = NoiseModel(lam, -1.0, noise, dataset_size=400)
    again = learn_step_sizes(model, loss_fn, data, rule="rmt", batch_size=16, noise=measured)
    assert again == moved
    same = learn_step_sizes(model, loss_fn, data, rule="rmt", batch_size=128, noise=noise)
    assert same.lambda_max == pytest.approx(here.lambda_max)
    # on all data there is nothing to carry back from
    every = learn_step_sizes(
        model, loss_fn, data, rule="rmt", statistics=400, batch_size=16, noise=noise, num_steps=60
    )
    top = float(torch.linalg.eigvalsh(dense_hessian(model, loss_fn, data))[-1])
    assert every.lambda_max == pytest.approx(lr.batch_extreme_eigenvalue(top, noise, 16, 400))


def test_without_a_noise_the_pieces_tell_it() -> None:
    """Smaller training batches are given smaller rates."""
    model, loss_fn, data = problem(400, hidden=6)
    rates = [
        learn_step_sizes(model, loss_fn, data, rule="rmt", batch_size=B).lr for B in (4, 16, 64)
    ]
    assert rates == sorted(rates)
    assert rates[0] < 0.9 * rates[-1]
    schedule = CurvatureSchedule(sgd(model), model, loss_fn, data, batch_size=16)
    schedule.step()
    assert schedule.history[0]["noise"] > 0


# ---------------------------------------------------------------- the brakes


def test_a_change_is_limited_averaged_and_bounded() -> None:
    model, loss_fn, data = quadratic(1.0, 1.0)  # rmt proposes 1
    for start, options, want in (
        (0.1, {}, 0.2),  # a factor of two
        (0.7, {}, math.sqrt(0.7)),  # the geometric mean
        (0.7, {"smoothing": 0.0}, 1.0),
        (0.7, {"smoothing": 0.0, "lr_bounds": (1e-3, 0.8)}, 0.8),
        (0.1, {"smoothing": 0.0, "max_change": math.inf}, 1.0),
        (64.0, {}, 32.0),  # falling is limited too
        (0.0, {}, 1.0),  # from nothing there is nothing to average with
    ):
        optimizer = sgd(model, start)
        schedule = CurvatureSchedule(
            optimizer, model, loss_fn, data, rule="rmt", **{"lr_bounds": (1e-6, 100.0), **options}
        )
        schedule.step()
        assert values(optimizer)[0] == pytest.approx(want, rel=1e-9), (start, options)
        assert schedule.history[0]["proposed_lr"] == pytest.approx(1.0)


def test_momentum_moves_in_the_logarithm_of_its_memory() -> None:
    model, loss_fn, data = quadratic(100.0, 0.01)
    optimizer = sgd(model, 0.01)
    schedule = CurvatureSchedule(optimizer, model, loss_fn, data)
    for step in range(1, 12):
        before = values(optimizer)
        found = schedule.step()
        assert found is not None
        after = values(optimizer)
        assert 0.5 - 1e-12 <= (1 - after[1]) / (1 - before[1]) <= 1.0
        assert 0.5 - 1e-12 <= after[0] / before[0] <= 2 + 1e-12
        assert after[1] <= 0.99
        assert after[0] < 2 * (1 + after[1]) / 100, step  # every pair that is set is stable
    assert after[1] == pytest.approx(lr.heavy_ball(100, 0.01).momentum, abs=2e-3)


def test_a_stale_momentum_does_not_make_the_pair_unstable() -> None:
    """The rate is where it should be at once, the momentum only half way."""
    model, loss_fn, data = quadratic(100.0, 0.01)
    optimizer = sgd(model, lr.heavy_ball(100.0, 0.01).lr)
    CurvatureSchedule(optimizer, model, loss_fn, data).step()
    rate, momentum = values(optimizer)
    assert momentum == pytest.approx(0.5)
    assert rate == pytest.approx(2 * 1.5 / 100.01, rel=1e-6)


def test_groups_keep_their_ratios_and_tensor_rates_their_identity() -> None:
    model, loss_fn, data = problem(20)
    layers = list(model.children())
    rate = torch.tensor(0.1)
    optimizer = SGD(
        [
            {"params": layers[0].parameters(), "lr": 0.025},
            {"params": layers[2].parameters(), "lr": rate},
        ],
        lr=0.1,
    )
    schedule = CurvatureSchedule(optimizer, model, loss_fn, data, rule="rmt")
    found = schedule.step()
    assert found is not None
    assert optimizer.param_groups[1]["lr"] is rate
    assert float(rate) == pytest.approx(found.lr)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(found.lr / 4)
    assert schedule.get_last_lr() == [pytest.approx(found.lr / 4), pytest.approx(found.lr)]


def test_groups_that_join_later_keep_their_ratio_too() -> None:
    model, loss_fn, data = problem(20)
    layers = list(model.children())

    def make(rate: float) -> tuple[SGD, CurvatureSchedule]:
        optimizer = SGD(layers[0].parameters(), lr=rate)
        return optimizer, CurvatureSchedule(optimizer, model, loss_fn, data)

    def join(optimizer: SGD, rate: float) -> None:
        optimizer.add_param_group({"params": list(layers[2].parameters()), "lr": rate})

    optimizer, schedule = make(0.1)
    schedule.step()
    join(optimizer, 4 * values(optimizer)[0])
    found = schedule.step()
    assert found is not None
    first, second = optimizer.param_groups
    assert second["lr"] == found.lr  # the largest gets the value
    assert first["lr"] == pytest.approx(found.lr / 4)
    assert first["momentum"] == second["momentum"] == found.momentum
    # a state knows of it
    state = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
    other, resumed = make(0.5)
    join(other, 0.5)
    other.load_state_dict(state[0])
    resumed.load_state_dict(state[1])
    assert resumed.step() == schedule.step()
    assert resumed.get_last_lr() == schedule.get_last_lr()


def test_when_it_measures() -> None:
    model, loss_fn, data = quadratic(1.0, 1.0)
    for every, warm_start, calls in ((1, 1, [1, 2, 3, 4, 5, 6]), (2, 0, [1, 3, 5]), (3, 2, [2, 5])):
        schedule = CurvatureSchedule(
            sgd(model), model, loss_fn, data, every=every, warm_start=warm_start
        )
        found = [schedule.step() is not None for _ in range(6)]
        assert [i + 1 for i, measured in enumerate(found) if measured] == calls
        assert [row["call"] for row in schedule.history] == calls


@pytest.mark.parametrize("rule", ["heavy_ball", "rmt", "cauchy"])
def test_no_positive_curvature_changes_nothing_and_is_counted(rule: Any) -> None:
    model, _, data = quadratic(2.0, 1.0)

    def downwards(output: Tensor, target: Tensor) -> Tensor:
        return -((output - target) ** 2).mean()

    optimizer = sgd(model, momentum=0.5)
    schedule = CurvatureSchedule(optimizer, model, downwards, data, rule=rule)
    assert schedule.step() is None
    assert values(optimizer) == (0.1, 0.5)
    assert schedule.skipped == 1
    assert schedule.history[0]["skipped"]
    with pytest.raises(NonPositiveCurvatureError):
        learn_step_sizes(model, downwards, data, rule=rule)


# ---------------------------------------------------------------- training with it


def train(schedule_of: Any, *, epochs: int = 8) -> tuple[float, CurvatureSchedule]:
    """Final loss of a small classifier, full batches, and the schedule."""
    model, loss_fn, data = problem(60)
    optimizer = sgd(model, 0.01)
    schedule = schedule_of(optimizer, model, loss_fn, data)
    for _ in range(epochs):
        for _ in range(5):
            optimizer.zero_grad()
            loss_fn(model(data[0]), data[1]).backward()
            optimizer.step()
        schedule.step()
    return float(loss_fn(model(data[0]), data[1]).detach()), schedule


@pytest.mark.parametrize("rule", ["heavy_ball", "rmt", "cauchy"])
def test_training_from_a_rate_far_too_small(rule: Any) -> None:
    constant, _ = train(lambda *a: CurvatureSchedule(*a, warm_start=100))
    learned, schedule = train(lambda *a: CurvatureSchedule(*a, rule=rule))
    assert learned < constant - 0.02
    assert 0 < schedule.share < 1


def test_adam_has_rmt_and_cauchy() -> None:
    model, loss_fn, data = quadratic(8.0, 1.0)
    optimizer = Adam(model.parameters(), lr=0.1, weight_decay=5.0)
    found = CurvatureSchedule(optimizer, model, loss_fn, data, rule="rmt", **FREE).step()
    assert found is not None
    assert (found.lr, found.momentum) == (pytest.approx(1 / 8), 0.9)
    assert "momentum" not in optimizer.param_groups[0]
    assert CurvatureSchedule(optimizer, model, loss_fn, data, rule="cauchy").step() is not None


def test_it_stands_in_torchs_containers() -> None:
    model, loss_fn, data = quadratic(1.0, 1.0)
    optimizer = sgd(model, 0.8)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.5, total_iters=2)
    schedule = CurvatureSchedule(optimizer, model, loss_fn, data, rule="rmt")
    assert isinstance(schedule, LRScheduler)
    both = SequentialLR(optimizer, [warm_up, schedule], milestones=[2])
    rates = []
    for _ in range(4):
        optimizer.step()
        both.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert len(schedule.history) == 3
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(1.0, abs=0.1)


def test_model_and_random_state_are_as_they_were() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))
    model = model.double().train()
    model[1].eval()
    _, _, (x, y) = problem(40)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [m.training for m in model.modules()]
    random = torch.get_rng_state()
    for rule in ("heavy_ball", "rmt", "cauchy"):
        schedule = CurvatureSchedule(
            sgd(model),
            model,
            F.cross_entropy,
            (x, y),
            rule=rule,  # type: ignore[arg-type]
            statistics=20,
        )
        schedule.step()
        broken = CurvatureSchedule(sgd(model), model, F.cross_entropy, (x * math.nan, y), rule=rule)  # type: ignore[arg-type]
        with pytest.raises(FloatingPointError):
            broken.step()
    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())


# ---------------------------------------------------------------- state


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    model, loss_fn, data = problem(60)

    def make(net: nn.Module) -> tuple[SGD, CurvatureSchedule]:
        optimizer = sgd(net, 0.05, momentum=0.1)
        return optimizer, CurvatureSchedule(
            optimizer, net, loss_fn, data, every=2, statistics=20, batch_size=10
        )

    def epoch(net: nn.Module, optimizer: SGD, schedule: CurvatureSchedule) -> None:
        optimizer.zero_grad()
        loss_fn(net(data[0]), data[1]).backward()
        optimizer.step()
        schedule.step()

    optimizer, schedule = make(model)
    for _ in range(3):
        epoch(model, optimizer, schedule)
    state = (model.state_dict(), optimizer.state_dict(), schedule.state_dict())
    torch.save(state, tmp_path / "run.pt")
    other = copy.deepcopy(model)
    for _ in range(4):
        epoch(model, optimizer, schedule)
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    optimizer2, schedule2 = make(other)
    for target, part in zip((other, optimizer2, schedule2), saved):
        target.load_state_dict(part)
    for _ in range(4):
        epoch(other, optimizer2, schedule2)
    assert schedule2.history == schedule.history
    assert len(schedule.history) == 4
    assert values(optimizer2) == values(optimizer)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))
    json.dumps(schedule.history, allow_nan=False)
    assert schedule2.get_last_lr() == schedule.get_last_lr() == schedule.get_lr()
    assert schedule2.last_epoch == 7


# ---------------------------------------------------------------- two processes

SCRIPT = """
import json, os, sys
import torch, torch.distributed as dist
import torch.nn.functional as F
from gradworks.curvature.learning_rate import learn_step_sizes
from tests.curvature.nets import problem

rank, where = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{where}", rank=rank, world_size=2)
model, loss_fn, (x, y) = problem(60)
mine = (x[:25], y[:25]) if rank == 0 else (x[25:], y[25:])
out = {}
for rule in ("heavy_ball", "rmt", "cauchy"):
    found = learn_step_sizes(model, loss_fn, mine, rule=rule, process_group=dist.group.WORLD)
    out[rule] = [found.lr, found.momentum]
carried = learn_step_sizes(
    model, loss_fn, mine, rule="rmt", batch_size=8, process_group=dist.group.WORLD
)
out["carried"] = [carried.lr, 0.0]
dist.barrier()
dist.destroy_process_group()
print(json.dumps(out), flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="torch was built without gloo",
)
def test_two_processes_equal_one(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": str(root),
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(rank), str(tmp_path / "meet")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    try:
        spoken = [p.communicate(timeout=120) for p in running]
    finally:
        for p in running:
            if p.poll() is None:
                p.kill()
                p.wait()
    assert all(p.returncode == 0 for p in running), spoken[0][1][-2000:] + spoken[1][1][-2000:]
    first, second = (json.loads(out) for out, _ in spoken)
    assert first == second
    model, loss_fn, data = problem(60)
    for rule in ("heavy_ball", "rmt", "cauchy"):
        alone = learn_step_sizes(model, loss_fn, data, rule=rule, statistics=60)  # type: ignore[arg-type]
        assert first[rule] == pytest.approx([alone.lr, alone.momentum], rel=1e-8)
    assert first["carried"][0] < first["rmt"][0]


# ---------------------------------------------------------------- bad input

SMALL = problem(20)


@pytest.mark.parametrize(
    ("options", "kind", "fragment"),
    [
        ({"optimizer": "sgd"}, TypeError, "torch.optim.Optimizer, got str"),
        ({"model": "net"}, TypeError, "model must be a torch.nn.Module"),
        ({"data": iter([SMALL[2]])}, TypeError, "one-shot"),
        ({"rule": "guess"}, ValueError, "heavy_ball, rmt, cauchy"),
        ({"optimizer": Adam(SMALL[0].parameters())}, ValueError, "Adam has none; use rule='rmt'"),
        ({"every": 0}, ValueError, "every"),
        ({"warm_start": -1}, ValueError, "warm_start"),
        ({"num_steps": 0}, ValueError, "num_steps"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"batch_size": 21}, ValueError, "at most dataset_size 20"),
        ({"dataset_size": 0}, ValueError, "dataset_size"),
        ({"statistics": 0}, ValueError, "statistics"),
        ({"lr_bounds": (0.0, 1.0)}, ValueError, "lr_bounds must be ascending"),
        ({"lr_bounds": (1.0, 0.5)}, ValueError, "lr_bounds must be ascending"),
        ({"lr_bounds": 1.0}, ValueError, "lr_bounds must be two numbers"),
        ({"momentum_bounds": (0.0, 1.0)}, ValueError, "momentum_bounds must be ascending"),
        ({"smoothing": 1.0}, ValueError, "smoothing"),
        ({"max_change": 0.5}, ValueError, "max_change"),
        ({"max_change": math.nan}, ValueError, "max_change"),
        ({"safety": 0.0}, ValueError, "safety"),
        ({"noise": -1.0}, ValueError, "noise"),
        ({"bulk_quantile": 2.0}, ValueError, "bulk_quantile"),
    ],
)
def test_bad_input(options: dict[str, Any], kind: type[Exception], fragment: str) -> None:
    model, loss_fn, data = SMALL
    given = {"optimizer": sgd(model), "model": model, "loss_fn": loss_fn, "data": data}
    with pytest.raises(kind, match=fragment):
        CurvatureSchedule(**{**given, **options})


def test_bad_input_of_one_call_and_of_the_state() -> None:
    with pytest.raises(ValueError, match="momentum must be in"):
        learn_step_sizes(*SMALL, momentum=1.0)
    with pytest.raises(ValueError, match="weight_decay must be at least 0"):
        learn_step_sizes(*SMALL, weight_decay=-1.0)
    schedule = CurvatureSchedule(sgd(SMALL[0]), *SMALL)
    with pytest.raises(ValueError, match="state_dict has no"):
        schedule.load_state_dict({})
