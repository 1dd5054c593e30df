"""The gcond paper: problems as described, controls that differ by one thing, trials."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gradworks.bench import data
from gradworks.bench.data import MissingData
from gradworks.bench.experiment import Arm, Workload
from gradworks.bench.result import Result
from gradworks.bench.trial import Diverged, Trial, TrialInterrupted
from gradworks.multitask.gcond import GCond
from gradworks.papers import gcond as paper
from gradworks.papers.gcond.cost import Repeated
from gradworks.papers.gcond.cost import trial as cost
from gradworks.papers.gcond.methods import PassCounter, Smoothed, make_optimizer, make_step
from gradworks.papers.gcond.problems import Problem, hidden, pose
from gradworks.papers.gcond.trial import Batches, probe, published
from gradworks.papers.gcond.trial import trial as run

FULL = paper.build("full")
WORKLOADS = {w.name: w for w in FULL.workloads}
ARMS = {a.name: a for a in FULL.arms}
TRAINED = [name for name in WORKLOADS if not name.startswith("cost")]
HERE = {row["name"] for row in data.installed() if row["here"]}
PEERS = {"pcgrad": "torchjd", "imtlg": "torchjd", "cagrad": "cvxpy"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(name: str) -> Problem:
    if not set(WORKLOADS[name].data) <= HERE:
        pytest.skip(f"needs: gradworks data install {' '.join(WORKLOADS[name].data)}")
    return pose(WORKLOADS[name].spec["problem"])


def short(name: str, steps: int = 4, **changes: Any) -> Workload:
    """A workload of the full preset in a few small steps."""
    workload = WORKLOADS[name]
    spec = {**workload.spec, "micro": 2, **changes}
    if "probe" in spec["problem"]:
        spec["problem"] = {**spec["problem"], "held": 10, "probe": 50}
    return dataclasses.replace(workload, spec=spec, steps=steps)


def runs(arm: str) -> None:
    if arm in PEERS:
        pytest.importorskip("torchjd")
        pytest.importorskip(PEERS[arm])


# ---------------------------------------------------------------- presets


def test_budgets_are_equal_and_claims_can_be_decided() -> None:
    assert FULL.final_seeds == 10
    for name in TRAINED:
        arms = FULL.arms_of(WORKLOADS[name])
        # a study of one knob, three decades wide, for every method
        for arm in arms:
            (knob,) = arm.space
            assert knob.name == "lr"
            assert math.log10(knob.high / knob.low) == pytest.approx(3)
        # the control goes where GCond goes
        assert {"gcond-stochastic", "sum-stochastic"} <= {a.name for a in arms}
    for preset, ids in {
        "quick": {"speed", "losses", "top1"},
        "full": {c.id for c in paper.CLAIMS},
        "paper": {"speed", "losses", "top1"},
    }.items():
        assert {c.id for c in paper.build(preset).claims} == ids
    asked = {(c.id, k.name): k for c in FULL.claims for k in c.criteria}
    assert len(asked) == sum(len(c.criteria) for c in paper.CLAIMS)
    tests = [k for k in asked.values() if k.kind != "exactness"]
    assert 2.0**-FULL.final_seeds * len(tests) <= 0.05  # Holm can be passed
    with pytest.raises(ValueError, match="preset must be one of"):
        paper.build("huge")


def test_the_same_samples_whatever_the_accumulation() -> None:
    taken = {
        name: w.steps * w.spec["accumulation"] * w.spec["micro"] for name, w in WORKLOADS.items()
    }
    assert taken["digits"] == taken["digits-8"]
    for name in TRAINED:
        spec = WORKLOADS[name].spec
        losses = 14 if name == "genes" else 2
        assert spec["accumulation"] % losses == 0
    assert {WORKLOADS[n].spec["accumulation"] for n in ("digits", "digits-8", "digits-24")} == {
        4,
        8,
        24,
    }


def test_the_published_scale_is_refused_with_what_it_needs() -> None:
    experiment = paper.build("paper")
    trial = Trial.offline(experiment.workloads[0], experiment.arms[0])
    with pytest.raises(MissingData, match=r"MobileNetV3-Small on ImageNet-1K .* a GPU of 24 GB"):
        published(trial)


# ---------------------------------------------------------------- problems


@pytest.mark.parametrize("patch", [4, 7, 14])
def test_half_of_the_patches_are_hidden(patch: int) -> None:
    images = torch.rand(5, 3, 28, 28, generator=seeded()) + 0.1
    found = hidden(images, patch, seeded(1))
    black = (found == 0).view(5, 3, 28 // patch, patch, 28 // patch, patch)
    whole = black.permute(0, 1, 2, 4, 3, 5).flatten(4)
    assert torch.equal(whole.all(-1), whole.any(-1))  # a patch as a whole, in all channels
    assert torch.equal(whole[:, 0], whole[:, 2])
    count = whole.any(-1)[:, 0].flatten(1).sum(1)
    assert set(count.tolist()) == {round(0.5 * (28 // patch) ** 2)}
    assert torch.equal(found[found != 0], images[found != 0])
    assert not torch.equal(found, hidden(images, patch, seeded(2)))


def test_problems_are_as_described() -> None:
    digits = problem("digits")
    assert digits.rows == 3000
    assert digits.weights == {"l1": 0.85, "ssim": 0.15}
    inputs, target = digits.held["test"]
    assert inputs.shape == target.shape == (200, 1, 20, 20)
    assert 0 <= float(target.min()) < float(target.max()) <= 1
    assert [float(f(target, target)) for f in digits.losses.values()] == pytest.approx(
        [0.0, 0.0], abs=1e-6
    )
    model = digits.model(seeded())
    judged = digits.judge(model, "test")
    assert judged["loss"] == pytest.approx(0.85 * judged["l1"] + 0.15 * judged["dssim"], rel=1e-6)
    assert model(inputs[:2]).shape == (2, 1, 20, 20)
    pair = problem("pair")
    scores, image = pair.model(seeded())(pair.held["valid"][0][:3])
    assert scores.shape == (3, 10)
    assert image.shape == (3, 1, 20, 20)
    wide, narrow = (sum(p.numel() for p in problem(n).model(seeded()).parameters()) for n in
                    ("wide", "digits"))  # fmt: skip
    assert 14 < wide / narrow < 16


def test_problems_of_the_bench_are_taken_as_they_are() -> None:
    made = problem("photographs")
    inputs, targets = made.held["test"]
    judged = made.judge(made.model(seeded()), "test")
    assert judged["loss"] == pytest.approx(0.85 * judged["l1"] + 0.15 * judged["dssim"], rel=1e-6)
    assert judged["error"] == pytest.approx((judged["l1"] + judged["dssim"]) / 2, rel=1e-6)
    masked, clean = made.batch(torch.arange(4), seeded())
    assert masked.shape == clean["l1"].shape == (4, *inputs.shape[1:])
    assert torch.equal(targets["l1"], targets["dssim"])
    genes = problem("genes")
    assert len(genes.losses) == 14
    model = genes.model(seeded())
    inputs, targets = genes.held["test"]
    output = model(inputs)
    whole = F.binary_cross_entropy_with_logits(
        torch.stack([output[task] for task in genes.losses], 1),
        torch.stack([targets[task] for task in genes.losses], 1),
    )
    torch.testing.assert_close(genes.loss(output, targets), whole)
    assert set(genes.judge(model, "valid")) == {"loss", "error"}


def test_every_example_comes_once_before_any_comes_again() -> None:
    digits = problem("digits")
    seen: list[torch.Tensor] = []
    watched = dataclasses.replace(
        digits,
        rows=10,
        batch=lambda rows, g: (seen.append(rows), None),  # type: ignore[arg-type,return-value]
    )
    batches = Batches(watched, 4, seeded())
    for _ in range(5):
        batches()
    drawn = torch.cat(seen).tolist()
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))


# ---------------------------------------------------------------- controls


def test_the_control_is_gcond_where_nothing_conflicts() -> None:
    ours, control = GCond(), Smoothed()
    for i in range(4):
        rows = torch.rand(2, 6, generator=seeded(i), dtype=torch.float64)  # cosines above zero
        torch.testing.assert_close(control(rows), ours(rows), rtol=1e-12, atol=0)
    opposed = torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=torch.float64)
    ours, control = GCond(), Smoothed()
    assert not torch.allclose(control(opposed), ours(opposed))


def test_a_control_that_was_saved_goes_on_as_if_it_was_not() -> None:
    rows = [torch.randn(2, 5, generator=seeded(i)) for i in range(4)]
    whole, first, second = Smoothed(), Smoothed(), Smoothed()
    want = [whole(r) for r in rows]
    for r in rows[:2]:
        first(r)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(second(r), w) for r, w in zip(rows[2:], want[2:], strict=True))
    whole.reset()
    assert torch.equal(whole(rows[0]), want[0])


def graded(settings: dict[str, Any], accumulation: int = 4) -> tuple[list[torch.Tensor], int]:
    """Gradients and backward passes of one step on the digits."""
    made = problem("digits")
    model = made.model(seeded(3))
    step, passes = make_step(settings, made, model, accumulation), PassCounter(model)
    step.step(Batches(made, 4, seeded(4)))
    return [p.grad.clone() for p in model.parameters() if p.grad is not None], passes.count


def test_the_plain_sum_is_one_pass_of_the_weighted_loss() -> None:
    made = problem("digits")
    model = made.model(seeded(3))
    batches = Batches(made, 4, seeded(4))
    for _ in range(4):
        inputs, target = batches()
        (made.loss(model(inputs), target) / 4).backward()
    found, passes = graded({"method": "sum"})
    assert passes == 4
    for param, grad in zip(model.parameters(), found, strict=True):
        torch.testing.assert_close(grad, param.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({"method": "sum", "mode": "stochastic", "smoothing": 0.85}, 4),
        ({"method": "gcond", "mode": "stochastic"}, 4),
        ({"method": "gcond", "mode": "sequential"}, 8),
    ],
)
def test_backward_passes_are_counted(settings: dict[str, Any], passes: int) -> None:
    assert graded(settings)[1] == passes


def test_the_released_way_gives_the_sequential_modes_gradient() -> None:
    made = problem("digits")
    model = made.model(seeded(3))
    passes = PassCounter(model)
    Repeated(made, model, 4).step(Batches(made, 4, seeded(4)))
    assert passes.count == 8
    found, _ = graded({"method": "gcond", "mode": "sequential"})
    for param, grad in zip(model.parameters(), found, strict=True):
        torch.testing.assert_close(grad, param.grad, rtol=1e-4, atol=1e-7)


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match=r"method must be 'sum'.*got 'mgda'"):
        graded({"method": "mgda"})


def test_optimizers() -> None:
    model = torch.nn.Linear(2, 2)
    ours = make_optimizer({"lr": 0.1, "beta1": 0.0}, model).defaults
    assert ours["betas"] == (0.0, 0.95)
    assert make_optimizer({"lr": 0.1}, model).defaults["betas"] == (0.9, 0.95)
    assert isinstance(make_optimizer({"lr": 1, "optimizer": "sgd"}, model), torch.optim.SGD)


# ---------------------------------------------------------------- trials


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "photographs", "pair", "genes"])
def test_every_arm_gives_the_figures_that_criteria_ask_for(name: str) -> None:
    problem(name)
    workload = short(name, steps=2)
    for arm in FULL.arms_of(workload):
        if arm.name in PEERS or (name != "digits" and "stochastic" not in arm.name):
            continue
        asked = {c.metric for claim in FULL.claims for c in claim.criteria if name in c.workloads}
        trial = Trial.offline(workload, arm, seed=1)
        run(trial)
        found = trial.results["test"]
        assert asked <= set(found)
        assert all(math.isfinite(v) for v in found.values())
        assert trial.steps_done == workload.steps
        assert trial.curves["valid"]["loss"]


@pytest.mark.parametrize("arm", ["pcgrad", "cagrad", "imtlg"])
def test_peers_take_a_pass_for_every_loss(arm: str) -> None:
    runs(arm)
    problem("digits")
    trial = Trial.offline(short("digits", steps=2), ARMS[arm])
    run(trial)
    assert trial.results["test"]["passes"] == 8


def test_trials_are_paired_repeatable_and_blind_while_tuning() -> None:
    problem("digits")
    names = ("sum", "gcond-stochastic", "gcond-sequential", "gradnorm")
    first = {}
    for name in names:
        trial = Trial.offline(short("digits", steps=3), ARMS[name], seed=2, params={"lr": 0.0})
        run(trial)
        first[name] = trial.results["valid"]
    assert all(found == first["sum"] for found in first.values())  # the same start and batches
    workload, arm = short("digits"), ARMS["gcond-stochastic"]
    made = [Trial.offline(workload, arm, seed=3, kind=k) for k in ("final", "final", "tune")]
    for trial in made:
        run(trial)
    kept = [
        {k: v for k, v in trial.results["test"].items() if "wall" not in k and "seconds" not in k}
        for trial in made[:2]
    ]
    assert kept[0] == kept[1]
    assert set(made[2].results) == {"valid"}
    assert made[2].results["valid"] == made[0].results["valid"]
    assert made[0].results["valid"] != first["sum"]


def test_equal_passes_are_the_end_of_one_pass_methods_and_half_way_of_others() -> None:
    problem("digits")
    found = {}
    for name, steps in (("gcond-stochastic", 4), ("gcond-sequential", 4), ("gcond-sequential", 2)):
        trial = Trial.offline(short("digits", steps=steps), ARMS[name], seed=5)
        run(trial)
        found[name, steps] = trial.results["test"]
    one, two = found["gcond-stochastic", 4], found["gcond-sequential", 4]
    assert one["l1_passes"] == one["l1"]
    assert (one["passes"], two["passes"]) == (4, 8)
    assert two["l1_passes"] == found["gcond-sequential", 2]["l1"] != two["l1"]
    assert two["l1_wall_time"] != 0


class Stops:
    """A record that stops a trial after some steps and keeps its checkpoint."""

    def __init__(self, after: int) -> None:
        self.after, self.ticks, self.data = after, 0, b""

    def progress(self, step: int) -> None:
        """Not shown."""

    def rows(self, rows: list) -> None:
        """Not kept."""

    def checkpoint(self, step: int, data: bytes, rows: list) -> None:
        self.data = data

    def stopping(self) -> bool:
        self.ticks += 1
        return self.ticks >= self.after


@pytest.mark.parametrize("name", ["gcond-stochastic", "sum-stochastic", "gradnorm", "sum"])
def test_a_trial_that_was_stopped_ends_where_it_would_have(name: str) -> None:
    problem("digits")
    workload, arm = short("digits", steps=5), ARMS[name]
    common: dict[str, Any] = {"kind": "tune", "number": 0, "seed": 4, "params": {"lr": 1e-2}}
    whole = Trial(workload, arm, record=Stops(99), **common)
    run(whole)
    stops = Stops(3)
    with pytest.raises(TrialInterrupted):
        run(Trial(workload, arm, record=stops, **common))
    resumed = Trial(workload, arm, record=Stops(99), saved=stops.data, **common)
    run(resumed)
    assert resumed.results == whole.results


def test_a_run_that_leaves_the_finite_numbers_has_diverged() -> None:
    problem("digits")
    with pytest.raises(Diverged):
        run(Trial.offline(short("digits", steps=30), ARMS["sum"], params={"lr": 1e30}))


def test_the_probe_is_right_where_codes_can_be_told_apart() -> None:
    labels = torch.arange(40) % 4
    images = F.one_hot(labels, 6).float() + 0.1 * torch.rand(40, 6, generator=seeded())
    sets = {"train": (images[:30], labels[:30]), "test": (images[30:], labels[30:])}
    assert probe(torch.nn.Identity(), sets) == 1.0
    assert probe(torch.zeros_like, sets) < 0.5


@pytest.mark.slow
def test_costs_are_counted() -> None:
    problem("genes")
    arm = Arm(name="cost", label="cost", method="word")
    trial = Trial.offline(WORKLOADS["cost-genes"], arm)
    cost(trial)
    assert trial.results["test"] == {"passes_stochastic": 14.0, "passes_sequential": 14.0}
    pytest.importorskip("torchjd")
    workload = short("cost", blocks=1)
    trial = Trial.offline(workload, arm)
    cost(trial)
    found = trial.results["test"]
    assert (found["passes_sequential"], found["passes_released"]) == (2, 2)
    assert (found["passes_pcgrad"], found["passes_sum"]) == (2, 1)
    asked = {c.metric for c in FULL.claims[0].criteria if c.arm == "cost"}
    assert asked <= set(found)


# ---------------------------------------------------------------- figures


def test_figures() -> None:
    empty: dict[str, Any] = {"arms": [], "workloads": [], "studies": [], "finals": [], "curves": []}
    assert paper.figures(Result({"format": 1, **empty})) == []
    problem("digits")
    finals, curves = [], []
    for name, arm in (
        ("digits", "sum"), ("digits", "gcond-stochastic"), ("digits-8", "gcond-stochastic"),
    ):  # fmt: skip
        trial = Trial.offline(short(name), ARMS[arm])
        run(trial)
        finals.append(
            {"arm": arm, "workload": name, "seed": 0, "status": "done", "metrics": trial.results}
        )
        for split, metrics in trial.curves.items():
            for metric, points in metrics.items():
                step, mean = (list(column) for column in zip(*points))
                curve = {"workload": name, "arm": arm, "split": split, "metric": metric}
                curve |= {"step": step, "mean": mean, "lo": mean, "hi": mean}
                if (split, metric) == ("valid", "loss"):
                    curve |= {"evals": step, "seconds": step}
                curves.append(curve)
    document = {**empty, "finals": finals, "curves": curves}
    drawn = {f.id: f for f in paper.figures(Result({"format": 1, **document}))}
    assert set(drawn) == {
        "ratio-l1", "ratio-dssim", "digits-passes", "digits-time", "conflicts", "accumulation",
    }  # fmt: skip
    assert [s.name for s in drawn["ratio-l1"].series] == ["GCond, stochastic"]
    assert list(drawn["accumulation"].series[0].x) == [4, 8]
