"""The generic trial: pairing, budgets, divergence, resume bit for bit, optimizers by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gradworks.bench import (
    Arm,
    Diverged,
    Knob,
    Problem,
    Trial,
    TrialInterrupted,
    Workload,
    training,
)
from gradworks.bench import optimizers as by_name
from gradworks.bench.optimizers import UnknownOptimizer
from gradworks.bench.schedules import Schedule, evaluation_grid

HERE = "tests.bench.test_training"
NET: dict[str, Any] = {}  # what the problem of a test is made of


class Watch:
    """An observer with a state."""

    made: list[Watch] = []

    def __init__(self) -> None:
        self.calls = 0
        Watch.made.append(self)

    def __call__(self, model, optimizer, step, trial) -> dict[str, float]:
        self.calls += 1
        norm = next(iter(model.parameters())).detach().norm()
        return {"norm": float(norm), "final_calls": self.calls, "step_seen": step}

    def state_dict(self) -> dict[str, int]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]


def observe(model, optimizer, step, trial) -> dict[str, float]:
    return {"lr": float(optimizer.param_groups[0]["lr"]), "final_step": step}


class Recorder(nn.Module):
    """A linear model that remembers what it was shown in training mode, with dropout."""

    shown: list[torch.Tensor] = []

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            Recorder.shown.append(x.clone())
        return self.line(self.drop(x))


def line(seed: int) -> Problem:
    """A regression with two of its splits easy to tell apart."""
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(60, 3, generator=generator)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.1 * torch.randn(60, 1, generator=generator)

    def model(generator: torch.Generator) -> nn.Module:
        made = Recorder(NET.get("dropout", 0.0))
        with torch.no_grad():
            for p in made.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
        return made

    return Problem(
        name="line",
        model=model,
        train=(x[:40], y[:40]),
        valid=(x[40:50], y[40:50]),
        test=(x[50:], y[50:]),
        loss_fn=NET.get("loss", nn.functional.mse_loss),
        metric=nn.functional.mse_loss,
        metric_name="mse",
        batch_size=8,
        steps=60,
    )


@pytest.fixture(autouse=True)
def _clean():
    NET.clear()
    Recorder.shown.clear()
    Watch.made.clear()
    yield
    torch.set_rng_state(torch.Generator().manual_seed(0).get_state())


def trial(
    method: str = "sgd",
    *,
    problem: str = f"{HERE}:line",
    steps: int = 60,
    kind: str = "final",
    seed: int = 0,
    spec: dict[str, Any] | None = None,
    **settings: Any,
) -> Trial:
    arm = Arm(name=method, label=method, method=method, fixed={"lr": 0.05, **settings})
    return Trial.offline(workload(problem, steps, **(spec or {})), arm, kind=kind, seed=seed)


def workload(problem: str = f"{HERE}:line", steps: int = 60, **spec: Any) -> Workload:
    return Workload(
        name="w", label="w", trial=training.TRIAL, spec={"problem": problem, **spec}, steps=steps
    )


# -- a whole trial ---------------------------------------------------------------------------------


def test_a_trial_trains_logs_and_gives_its_figures() -> None:
    made = trial("adamw", lr=0.1)
    training.train(made)
    assert set(made.results) == {"train", "valid", "test"}
    assert made.results["test"]["mse"] < 0.05 < made.curves["valid"]["mse"][0][1]
    assert made.results["test"]["mse"] == made.results["test"]["loss"]
    steps = [step for step, _ in made.curves["valid"]["mse"]]
    assert steps == evaluation_grid(60, 40)
    assert len(steps) == 41
    assert {"loss", "grad_norm", "update_norm", "update_ratio"} <= set(made.curves["train"])
    assert made.state_bytes == 2 * 4 * 4 + 2 * 4  # two moments of 3 + 1 weights, two counters
    assert made.results["train"]["evals"] == 60
    last = made.curves["valid"]["mse"][-1][1]
    assert made.results["valid"]["mse"] == last
    area = [value for _, value in made.curves["valid"]["mse"]]
    assert made.results["valid"]["area_mse"] == pytest.approx(sum(area) / len(area))
    assert made.elapsed > 0


def test_tuning_never_opens_the_test_split() -> None:
    made = trial(kind="tune")
    training.train(made)
    assert set(made.results) == {"train", "valid"}


def test_norms_are_those_of_plain_gradient_descent() -> None:
    made = trial("sgd", lr=0.1, spec={"schedule": "constant", "warmup": 0.0})
    training.train(made)
    grads, updates = made.curves["train"]["grad_norm"], made.curves["train"]["update_norm"]
    for (_, grad), (_, update) in zip(grads, updates, strict=True):
        assert update == pytest.approx(0.1 * grad, rel=1e-3)
    weights = made.curves["train"]["weight_norm"]
    for (_, update), (_, weight), (_, ratio) in zip(
        updates, weights, made.curves["train"]["update_ratio"]
    ):
        assert ratio == pytest.approx(update / weight)


def test_train_loss_is_the_mean_of_the_batches_since_the_last_evaluation() -> None:
    losses: list[float] = []

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        value = nn.functional.mse_loss(output, target)
        if value.requires_grad:
            losses.append(value.item())
        return value

    NET["loss"] = loss
    made = trial("sgd", steps=12, spec={"evals": 3})
    training.train(made)
    logged = [value for _, value in made.curves["train"]["loss"]]
    assert logged == pytest.approx([sum(losses[i : i + 4]) / 4 for i in (0, 4, 8)])


def test_evaluation_leaves_training_mode_and_counts_no_time() -> None:
    made = trial("sgd", steps=6)
    training.train(made)
    assert len(Recorder.shown) == 6  # evaluation ran in eval mode


# -- pairing ---------------------------------------------------------------------------------------


def weights_and_batches(method: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    Recorder.shown.clear()
    made = trial(method, seed=seed)
    run = training._Run(made)
    first = torch.cat([p.detach().ravel().clone() for p in run.model.parameters()])
    training.train(trial(method, seed=seed))
    return first, torch.cat(Recorder.shown)


def test_arms_share_initial_weights_and_batches_for_a_seed() -> None:
    weights, batches = weights_and_batches("sgd", 3)
    other_weights, other_batches = weights_and_batches("adamw", 3)
    assert torch.equal(weights, other_weights)
    assert torch.equal(batches, other_batches)
    third_weights, third_batches = weights_and_batches("sgd", 4)
    assert not torch.equal(weights, third_weights)
    assert not torch.equal(batches, third_batches)


def test_an_epoch_shows_every_example_once() -> None:
    training.train(trial("sgd", steps=10))
    for epoch in (Recorder.shown[:5], Recorder.shown[5:10]):
        shown = torch.cat(epoch)
        assert len(torch.unique(shown, dim=0)) == 40
    assert not torch.equal(Recorder.shown[0], Recorder.shown[5])


def test_the_same_trial_twice_is_the_same_trial() -> None:
    NET["dropout"] = 0.5
    first, second = trial("adamw", seed=2), trial("adamw", seed=2)
    training.train(first)
    torch.rand(5)  # what others draw does not matter
    training.train(second)
    assert first.results == second.results
    assert first.curves == second.curves


# -- resume ----------------------------------------------------------------------------------------


class Stop:
    """A record that stops the trial after a step and keeps its checkpoint."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.saved: bytes | None = None
        self.at = -1
        self.ticks = 0

    def progress(self, step: int) -> None: ...

    def rows(self, rows: list[Any]) -> None: ...

    def checkpoint(self, step: int, data: bytes, rows: list[Any]) -> None:
        self.saved, self.at = data, step

    def stopping(self) -> bool:
        self.ticks += 1
        return self.ticks == self.after


RESUMED = {
    "sgd": {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-2},
    "adamw": {"weight_decay": 1e-2},
    "adamp": {"weight_decay": 1e-2},
    "sgdp": {"momentum": 0.9},
    "nadam": {},
    "adafactor": {},
    "lbfgs": {"max_iter": 3},
    "adahessian": {"update_each": 2},
}


def interrupted(made: Trial, work: Workload, after: int) -> Trial:
    """Run a copy of a trial, stop it, and go on in a new one."""
    record = Stop(after)
    options = {"kind": "final", "number": 0, "seed": made.seed, "params": {}, "record": record}
    first = Trial(work, made.arm, **options)
    with pytest.raises(TrialInterrupted):
        training.train(first)
    assert record.at == after
    torch.manual_seed(99)  # a new process has another global state
    record.after = -1
    second = Trial(work, made.arm, **options, saved=record.saved)
    training.train(second)
    return second


@pytest.mark.parametrize("after", [1, 23, 59])
@pytest.mark.parametrize("method", RESUMED)
def test_resumed_equals_uninterrupted_bit_for_bit(method: str, after: int) -> None:
    NET["dropout"] = 0.2
    spec = {"observer": f"{HERE}:Watch"}
    work = workload(**spec)
    whole = trial(method, seed=5, spec=spec, **RESUMED[method])
    training.train(whole)
    resumed = interrupted(whole, work, after)
    assert resumed.results == whole.results
    for split, metrics in resumed.curves.items():
        for name, points in metrics.items():
            assert points == [p for p in whole.curves[split][name] if p[0] > after], (split, name)


@pytest.mark.parametrize("after", [17, 60])
def test_resumed_network_with_batch_norm_equals_uninterrupted(after: int) -> None:
    whole = trial("adamp", problem="digits-cnn", steps=80, weight_decay=1e-2)
    training.train(whole)
    resumed = interrupted(whole, workload("digits-cnn", 80), after)
    assert resumed.results == whole.results


# -- divergence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tune", "final"])
def test_exploding_training_diverges(kind: str) -> None:
    made = trial("sgd", lr=50.0, kind=kind)
    with pytest.raises(Diverged, match=r"step \d+"):
        training.train(made)
    assert "test" not in made.results


def test_a_loss_that_is_not_finite_diverges_at_once() -> None:
    NET["loss"] = lambda output, target: nn.functional.mse_loss(output, target) * math.nan
    with pytest.raises(Diverged, match="loss nan"):  # the evaluation before the first step
        training.train(trial())
    NET["loss"] = lambda output, target: (
        nn.functional.mse_loss(output, target) * (math.inf if output.requires_grad else 1.0)
    )
    with pytest.raises(Diverged, match="the loss is inf at step 1"):
        training.train(trial())


def spiky(height: float, at: set[int]) -> None:
    """Make the training loss 1, and ``height`` at some steps."""
    seen = {"step": 0}

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if not output.requires_grad:
            return torch.tensor(1.0)
        seen["step"] += 1
        return output.sum() * 0 + (height if seen["step"] in at else 1.0)

    NET["loss"] = loss


def test_a_high_loss_diverges_only_if_it_lasts_one_percent_of_the_budget() -> None:
    spiky(10.5, {50, 51, 60})
    training.train(trial(steps=300))  # two steps in a row are less than 1 % of 300
    spiky(10.5, {50, 51, 52})
    with pytest.raises(Diverged, match=r"above 10 times its initial 1 for 1% .* step 52"):
        training.train(trial(steps=300))
    spiky(9.5, set(range(2, 300)))
    training.train(trial(steps=300))


# -- schedule and grid -----------------------------------------------------------------------------


def test_schedule_by_hand() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = Schedule(optimizer, 100, "cosine", 0.05)
    assert [schedule.factor(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert schedule.factor(5) == 1.0
    halfway = 5 + 95 / 2
    assert schedule.factor(halfway) == pytest.approx(0.55)  # type: ignore[arg-type]
    assert schedule.factor(99) == pytest.approx(0.1, abs=1e-3)
    schedule.set(1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.8)
    constant = Schedule(optimizer, 100, "constant", 0.0)
    assert {constant.factor(step) for step in range(100)} == {1.0}


def test_schedule_sets_tensor_rates_in_place_and_skips_groups_without_rates() -> None:
    rate = torch.tensor(0.5)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=rate, foreach=False)
    Schedule(optimizer, 10, "cosine", 0.2).set(0)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.25)

    class Rateless(torch.optim.Optimizer):
        def step(self):
            return None

    rateless = Rateless([nn.Parameter(torch.zeros(1))], {})
    Schedule(rateless, 10, "cosine", 0.2).set(0)
    assert "lr" not in rateless.param_groups[0]


def test_schedule_is_followed() -> None:
    made = trial("sgd", lr=0.1, spec={"observer": f"{HERE}:observe"})
    training.train(made)
    rates = dict(made.curves["train"]["lr"])
    reference = Schedule(
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), 60, "cosine", 0.05
    )
    for step, rate in rates.items():
        if step:
            assert rate == pytest.approx(0.1 * reference.factor(step - 1))


@pytest.mark.parametrize(("steps", "evals"), [(100, 40), (1000, 40), (7, 40), (41, 40), (1, 1)])
def test_grid_begins_and_ends_and_is_dense(steps: int, evals: int) -> None:
    grid = evaluation_grid(steps, evals)
    assert grid[0] == 0
    assert grid[-1] == steps
    assert len(grid) == min(steps, evals) + 1
    assert grid == sorted(set(grid))


# -- observers, closures, weight decay -------------------------------------------------------------


def test_observer_is_called_on_the_grid_and_its_final_figures_kept() -> None:
    made = trial(spec={"observer": f"{HERE}:Watch", "evals": 4})
    training.train(made)
    assert made.curves["train"]["step_seen"] == [(s, s) for s in (0, 15, 30, 45, 60)]
    assert made.results["test"]["final_calls"] == made.results["valid"]["final_calls"] == 5
    assert "norm" not in made.results["test"]


def test_lbfgs_counts_its_gradient_evaluations() -> None:
    made = trial("lbfgs", lr=0.5, steps=10, max_iter=4)
    training.train(made)
    assert 10 < made.results["train"]["evals"] <= 10 * 5
    assert made.results["test"]["mse"] < 0.05


class NoClosure(torch.optim.Optimizer):
    """Takes no closure in its step."""

    def __init__(self, params, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad)


def test_an_optimizer_whose_step_takes_no_closure_works() -> None:
    ours, torchs = trial(f"{HERE}:NoClosure"), trial("sgd")
    training.train(ours)
    training.train(torchs)
    assert ours.results["test"]["mse"] == pytest.approx(torchs.results["test"]["mse"], rel=1e-4)


class Asks(torch.optim.SGD):
    """Wants the loss with its graph, as optimizers with curvature do."""

    given: list[tuple[float, bool]] = []

    @property
    def needs_hessian(self) -> bool:
        return False

    def estimate(self, loss: torch.Tensor) -> None:
        Asks.given.append(
            (float(loss.detach()), all(p.grad is None for p in self.param_groups[0]["params"]))
        )
        loss.backward()


class HalfAsks(torch.optim.SGD):
    """Has an ``estimate`` of another meaning."""

    def estimate(self) -> float:
        raise ValueError("not that one")


def test_an_optimizer_that_asks_for_the_loss_is_given_it() -> None:
    Asks.given.clear()
    asks, plain = trial(f"{HERE}:Asks", steps=20), trial("sgd", steps=20)
    for made in (asks, plain):
        training.train(made)
    assert len(Asks.given) == 20
    assert all(clean for _, clean in Asks.given)  # in place of backward, not after it
    assert asks.results == plain.results


def test_an_estimate_of_another_meaning_is_left_alone() -> None:
    half, plain = trial(f"{HERE}:HalfAsks", steps=20), trial("sgd", steps=20)
    for made in (half, plain):
        training.train(made)
    assert half.results == plain.results


def test_adahessian_is_trained_with_its_estimates() -> None:
    made = trial("adahessian", lr=0.15)
    training.train(made)
    assert made.results["test"]["mse"] < 0.05 < made.curves["valid"]["mse"][0][1]


@pytest.mark.parametrize("method", ["adamw", "sgd", "adamp", "sgdp", "adam"])
def test_weight_decay_acts_on_the_same_parameters_for_every_arm(method: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    made = by_name.make_optimizer(method, model, {"lr": 0.1, "weight_decay": 0.5})
    decayed = {
        id(p) for group in made.param_groups if group["weight_decay"] for p in group["params"]
    }
    assert decayed == {id(model[0].weight), id(model[3].weight)}
    everything = by_name.make_optimizer(
        method, model, {"lr": 0.1, "weight_decay": 0.5}, decay="all"
    )
    assert len(everything.param_groups) == 1
    without = by_name.make_optimizer(method, model, {"lr": 0.1})
    assert len(without.param_groups[0]["params"]) == 6


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("adamw", "torch.optim.AdamW"),
        ("AdamW", "torch.optim.AdamW"),
        ("torch.optim.RAdam", "torch.optim.RAdam"),
        ("radam", "torch.optim.RAdam"),
        ("nadam", "torch.optim.NAdam"),
        ("adagrad", "torch.optim.Adagrad"),
        ("lbfgs", "torch.optim.LBFGS"),
    ],
)
def test_names_of_torch(name: str, path: str) -> None:
    assert by_name.resolve_optimizer(name) is getattr(torch.optim, path.rpartition(".")[2])


def test_names_of_ours_and_of_others(tmp_path: Path) -> None:
    from gradworks.optim import SGDP, AdamP

    assert by_name.resolve_optimizer("adamp") is AdamP
    assert by_name.resolve_optimizer("gradworks.optim.SGDP") is SGDP
    assert by_name.resolve_optimizer("gradworks.optim.adamp.AdamP") is AdamP
    assert by_name.resolve_optimizer(f"{HERE}.NoClosure") is NoClosure
    (tmp_path / "mine.py").write_text("from torch.optim import SGD as Mine", encoding="utf-8")
    assert by_name.resolve_optimizer(f"{tmp_path}/mine.py:Mine") is torch.optim.SGD


@pytest.mark.parametrize(
    ("name", "error", "fragment"),
    [
        ("adanw", UnknownOptimizer, "did you mean .*adamw"),
        ("zzz", UnknownOptimizer, "no optimizer is called 'zzz'. Known: adadelta"),
        ("torch.optim.AdanW", UnknownOptimizer, "did you mean AdamW"),
        ("no_such_package.Opt", UnknownOptimizer, "no module 'no_such_package'"),
        ("torch.nn.Linear", TypeError, r"must be a torch\.optim\.Optimizer class"),
        ("math.pi", TypeError, r"must be a torch\.optim\.Optimizer class"),
    ],
)
def test_wrong_names(name: str, error: type[Exception], fragment: str) -> None:
    with pytest.raises(error, match=fragment):
        by_name.resolve_optimizer(name)


def test_wrong_settings_name_what_is_taken() -> None:
    with pytest.raises(TypeError, match="'adamw' takes no setting 'momentum'; it takes lr, betas"):
        training.train(trial("adamw", momentum=0.9))
    with pytest.raises(TypeError, match="needs a value for lr"):
        by_name.check_settings("mine", NoClosure, {})


def test_usual_spaces_are_three_decades_around_the_default() -> None:
    for name, lr, decay in (
        ("adamw", 1e-3, 1e-2),
        ("adamp", 1e-3, 1e-2),
        ("sgd", 0.1, 5e-4),
        ("sgdp", 0.1, 5e-4),
        ("adam", 1e-3, 1e-4),
        ("nadam", 1e-3, 1e-4),
    ):
        knobs = {knob.name: knob for knob in by_name.arm(name).space}
        assert knobs["lr"].default == lr
        assert knobs["weight_decay"].default == decay
        for knob in knobs.values():
            assert math.log10(knob.high / knob.low) == pytest.approx(3)
            assert math.sqrt(knob.high * knob.low) == pytest.approx(knob.default)
    assert [knob.name for knob in by_name.arm("lbfgs").space] == ["lr"]
    assert isinstance(by_name.arm("lbfgs").space[0], Knob)


@pytest.mark.parametrize(
    ("spec", "fragment"),
    [
        ({"schedule": "linear"}, "schedule must be one of"),
        ({"warmup": 1.0}, "warmup must be in"),
        ({"evals": 0}, "evals must be at least 1"),
        ({"decay": "none"}, "decay must be one of"),
        ({"epochs": 3}, "spec has no 'epochs'"),
    ],
)
def test_wrong_specs(spec: dict[str, Any], fragment: str) -> None:
    with pytest.raises(ValueError, match=fragment):
        training.train(trial(spec=spec))


def test_a_spec_must_name_its_problem() -> None:
    work = Workload(name="w", label="w", trial=training.TRIAL, spec={}, steps=1)
    with pytest.raises(ValueError, match="spec must name a 'problem'"):
        training.train(Trial.offline(work, Arm(name="a", label="a", method="sgd")))
