"""diffGrad's own trials: functions of one variable, watched frictions, scaled losses, presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gradworks.bench import workloads
from gradworks.bench.data import MissingData
from gradworks.bench.experiment import Arm, Workload
from gradworks.bench.result import Result
from gradworks.bench.training import train
from gradworks.bench.trial import Trial, TrialInterrupted
from gradworks.papers.diffgrad import CLAIMS, PRESETS, build, figures
from gradworks.papers.diffgrad.claims import FUNCTIONS
from gradworks.papers.diffgrad.trial import BASINS, cifar, curve, slope

GOLDEN = Path(__file__).parents[1] / "golden" / "diffgrad" / "synthetic_1d.json"


def parts(preset: str, workload: str) -> tuple[Workload, dict[str, Arm]]:
    """A workload of a preset, and its arms."""
    experiment = build(preset)
    found = next(w for w in experiment.workloads if w.name == workload)
    return found, {arm.name: arm for arm in experiment.arms_of(found)}


def run(preset: str, workload: str, arm: str, seed: int = 0) -> Trial:
    """A trial that is done."""
    found, arms = parts(preset, workload)
    trial = Trial.offline(found, arms[arm], seed=seed)
    (curve if workload in FUNCTIONS else train)(trial)
    return trial


# ---------------------------------------------------------------- functions of one variable


@pytest.mark.parametrize("function", FUNCTIONS)
def test_basins_are_those_of_the_lowest_minimum(function: str) -> None:
    x = torch.linspace(-1.5, 1.5, 300_001, dtype=torch.float64)
    d = slope(function, x)
    f = torch.cat([torch.zeros(1), torch.cumsum((d[1:] + d[:-1]) / 2 * 1e-5, 0)])
    minimum = int(f.argmin())
    tops = x[:-1][(d[:-1] > 0) & (d[1:] <= 0)]
    below, above = tops[tops < x[minimum]], tops[tops > x[minimum]]
    low, high = BASINS[function]
    assert (low == -torch.inf) if len(below) == 0 else abs(low - below.max()) < 2e-5
    assert abs(high - above.min()) < 2e-5


GOLDEN_ARMS = {
    "curve-adam": "adam_lr0.1",
    "curve-diffgrad": "diffgrad_lr0.1",
    "curve-half": "adam_lr0.05",
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("arm", GOLDEN_ARMS)
def test_paths_are_those_of_the_notebooks(function: str, arm: str) -> None:
    """eps sits elsewhere in theirs: near, not equal; after a kink paths may part for a while."""
    theirs = json.loads(GOLDEN.read_text())["traces"][function.upper()][GOLDEN_ARMS[arm]]
    trial = run("quick", function, arm)
    ours = dict(trial.curves["train"]["end"])
    assert ours[0] == theirs[0] == -1.0
    for step in (5, 10, 15):
        assert ours[step] == pytest.approx(theirs[step], abs=1e-5)
    assert trial.results["test"]["end"] == pytest.approx(theirs[-1], abs=5e-3)


def test_first_release_is_adam_at_half_the_rate() -> None:
    first, half = (run("quick", "f3", arm).curves["train"] for arm in ("curve-first", "curve-half"))
    whole = run("quick", "f3", "curve-diffgrad").curves["train"]
    for step, end in first["end"][:6]:
        # its first step has the friction sigmoid(2), not a half
        assert end == pytest.approx(dict(half["end"])[step], abs=0.05)
    assert abs(first["end"][-1][1] - whole["end"][-1][1]) > 1e-6


def test_shares_count_the_starts_of_the_seed() -> None:
    one, two = (run("quick", "f1", "curve-adam", seed=s).results["test"] for s in (1, 2))
    again = run("quick", "f1", "curve-half", seed=1)
    for found in (one, two):
        rates = [found[f"share_{rate}"] for rate in ("0.02", "0.05", "0.1", "0.2")]
        assert found["share"] == pytest.approx(sum(rates) / 4)
        assert all(41 * rate == pytest.approx(round(41 * rate)) for rate in rates)
    # before the first step: half of [-1.5, 1.5] lies in the basin
    first = dict(again.curves["train"]["share"])[0]
    assert first == pytest.approx(0.5, abs=1 / 41)


class Interrupting:
    """A record that keeps one checkpoint."""

    def __init__(self, at: int) -> None:
        self.at, self.saved = at, b""

    def progress(self, step: int) -> None:
        """Nobody watches."""

    def rows(self, rows: Any) -> None:
        """Not kept."""

    def checkpoint(self, step: int, data: bytes, rows: Any) -> None:
        """Keep the first one after ``at`` steps."""
        if step >= self.at and not self.saved:
            self.saved = data

    def stopping(self) -> bool:
        """Stop at a step that no grid knows."""
        self.at -= 1
        return self.at == 0


@pytest.mark.parametrize("arm", ["curve-diffgrad", "curve-first", "curve-half"])
def test_curves_resume_bit_for_bit(arm: str) -> None:
    workload, arms = parts("quick", "f2")
    whole = Trial.offline(workload, arms[arm], seed=1)
    curve(whole)
    given = {"kind": "final", "number": 1, "seed": 1, "params": {}}
    record = Interrupting(77)
    with pytest.raises(TrialInterrupted):
        curve(Trial(workload, arms[arm], **given, record=record))
    assert record.saved
    second = Trial(workload, arms[arm], **given, record=Interrupting(10**9), saved=record.saved)
    curve(second)
    assert second.results == whole.results


# ---------------------------------------------------------------- frictions, scales


@pytest.mark.slow
def test_friction_grows_with_the_loss_and_adam_does_not_see_it() -> None:
    small, plain, large = (
        run("full", f"loss-x{factor}", "scale-diffgrad") for factor in ("0.001", "1", "1000")
    )
    ends = [trial.results["test"]["final_friction"] for trial in (small, plain, large)]
    assert ends[0] == pytest.approx(0.5, abs=1e-3)
    assert 0.5 < ends[1] < 0.6
    assert ends[2] > 0.8
    layers = [name for name in plain.curves["train"] if name.startswith("friction ")]
    assert layers == [f"friction {i}.weight" for i in (0, 3, 6, 11)]
    assert plain.curves["train"]["final_friction"][0][0] > 0  # nothing to see before a step
    for arm, same in (("scale-adam", True), ("scale-rms", True), ("scale-diffgrad", False)):
        # half-way: eps and rounding alone part the paths later
        losses = [
            run("full", f"loss-x{c}", arm).curves["valid"]["loss"][19][1] / c for c in (1, 1000)
        ]
        assert (losses[0] == pytest.approx(losses[1], rel=0.03)) is same, losses


def test_watched_frictions_are_those_of_the_step() -> None:
    from gradworks.papers.diffgrad.watched import WatchedDiffGrad, frictions

    model = torch.nn.Linear(2, 1)
    optimizer = WatchedDiffGrad(model.parameters(), lr=0.1)
    trial = run("quick", "f1", "curve-adam")
    assert frictions(model, optimizer, 0, trial) == {}
    for gradient in (torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])):
        model.weight.grad, model.bias.grad = gradient, torch.zeros(1)
        optimizer.step()
    found = frictions(model, optimizer, 2, trial)
    two = torch.tensor(2.0).sigmoid().item()
    assert found["friction weight"] == pytest.approx((two + 0.5) / 2)
    assert found["final_friction"] == pytest.approx((two + 0.5 + 0.5) / 3)
    assert set(found) == {"friction weight", "final_friction"}


@pytest.mark.parametrize("name", ["elu", "selu", "gelu"])
def test_other_activations_are_the_same_network(name: str) -> None:
    made = workloads.problem(f"gradworks.papers.diffgrad.networks:{name}", 3)
    plain = workloads.problem("digits-cnn", 3)
    one, two = (p.model(torch.Generator().manual_seed(0)) for p in (made, plain))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert type(one[2]).__name__ == name.upper()
    assert torch.equal(made.train[0], plain.train[0])


# ---------------------------------------------------------------- presets


def test_arms_are_tuned_alike() -> None:
    for preset in PRESETS:
        for arm in build(preset).arms:
            if arm.space:
                (knob,) = arm.space
                assert knob.name == "lr"
                assert knob.high / knob.low == pytest.approx(1000)
    arms = {arm.name: arm for arm in build("full").arms}
    assert arms["diffgrad"].space == arms["adam"].space == arms["amsgrad"].space


def test_full_decides_every_criterion() -> None:
    experiment = build("full")
    assert [len(c.criteria) for c in experiment.claims] == [len(c.criteria) for c in CLAIMS]
    names = {w.name: {a.name for a in experiment.arms_of(w)} for w in experiment.workloads}
    for claim in experiment.claims:
        for criterion in claim.criteria:
            for workload in criterion.workloads:
                assert criterion.arm in names[workload]
                if criterion.baseline is not None:
                    assert set(criterion.baseline.split("|")) <= names[workload]
    assert experiment.final_seeds == 10
    assert experiment.tune_trials == 8


def test_quick_and_paper_keep_what_they_can_decide() -> None:
    quick = {c.id: len(c.criteria) for c in build("quick").claims}
    assert quick == {"cifar": 4, "synthetic": 2, "friction": 1}
    paper = {c.id: [k.baseline for k in c.criteria] for c in build("paper").claims}
    assert len(paper["cifar"]) == 8
    assert "activations" not in paper
    assert len({w.name for w in build("paper").workloads}) == 9


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match=r"preset must be one of \['full', 'paper', 'quick'\]"):
        build("half")


def test_the_published_scale_says_what_it_needs() -> None:
    workload, arms = parts("paper", "cifar100-batch32")
    assert workload.batch_size == 32
    assert workload.steps == 100 * 1563
    with pytest.raises(MissingData, match=r"ResNet-50 for 100 epochs on CIFAR-100.*GPU of 16 GB"):
        cifar(Trial.offline(workload, arms["diffgrad"]))


def test_figures_of_nothing() -> None:
    document: dict[str, Any] = {
        "format": 1, "paper": "diffgrad", "preset": "quick", "status": "indication", "claims": [],
        "workloads": [], "arms": [], "finals": [], "curves": [],
    }  # fmt: skip
    assert figures(Result(document)) == []
