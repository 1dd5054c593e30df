"""AdamP's own trials: the toy, the watched norms, and the presets they are built from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gradworks.bench.data import MissingData
from gradworks.bench.experiment import Arm, Workload
from gradworks.bench.result import Result
from gradworks.bench.training import train
from gradworks.bench.trial import Trial, TrialInterrupted
from gradworks.papers.adamp import CLAIMS, PRESETS, build, figures
from gradworks.papers.adamp.trial import Watch, imagenet, invariant_weights, toy


def parts(preset: str, workload: str) -> tuple[Workload, dict[str, Arm]]:
    """A workload of a preset, and its arms."""
    experiment = build(preset)
    found = next(w for w in experiment.workloads if w.name == workload)
    return found, {arm.name: arm for arm in experiment.arms_of(found)}


# ---------------------------------------------------------------- the toy


@pytest.fixture(scope="module")
def toys() -> dict[str, dict[str, float]]:
    """Last figures of every arm on the toy, one start."""
    workload, arms = parts("quick", "toy")
    results = {}
    for name, arm in arms.items():
        trial = Trial.offline(workload, arm, seed=3)
        toy(trial)
        results[name] = trial.results["test"]
    return results


@pytest.mark.slow
def test_toy_norms_are_the_published_ones(toys: dict[str, dict[str, float]]) -> None:
    assert toys["toy-sgd-0.9"]["norm"] == pytest.approx(2.93, rel=0.02)
    assert toys["toy-sgd-0.99"]["norm"] == pytest.approx(27.87, rel=0.02)
    for momentum in ("0.9", "0.99"):  # the specification's 1.12 and 1.14
        assert toys[f"toy-sgdp-{momentum}"]["norm"] == pytest.approx(1.13, abs=0.03)


@pytest.mark.slow
def test_toy_arrives_first_with_projection(toys: dict[str, dict[str, float]]) -> None:
    steps = {name: found["steps_to_close"] for name, found in toys.items()}
    assert steps["toy-sgdp-0.99"] < steps["toy-sgdp-0.9"] < steps["toy-sgd-0.9"]
    assert steps["toy-sgd-0.9"] < steps["toy-gd"] < steps["toy-sgd-0.99"] < 2000
    # specification: 289, 115 and 63 steps from 0.9 pi, more from further away
    assert 289 <= steps["toy-gd"] <= 406
    assert 115 <= steps["toy-sgd-0.9"] <= 144
    assert 63 <= steps["toy-sgdp-0.9"] <= 86


class Interrupting:
    """A record that keeps one checkpoint."""

    def __init__(self, at: int) -> None:
        self.at, self.saved = at, b""
        self._stop = False

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


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["toy-sgd-0.99", "toy-sgdp-0.9"])
def test_toy_resumes_bit_for_bit(arm: str) -> None:
    workload, arms = parts("quick", "toy")
    whole = Trial.offline(workload, arms[arm], seed=1)
    toy(whole)
    given = {"kind": "final", "number": 1, "seed": 1, "params": {}}
    record = Interrupting(77)
    with pytest.raises(TrialInterrupted):
        toy(Trial(workload, arms[arm], **given, record=record))
    assert record.saved
    second = Trial(workload, arms[arm], **given, record=Interrupting(10**9), saved=record.saved)
    toy(second)
    assert second.results == whole.results


# ---------------------------------------------------------------- norms


def test_invariant_weights_are_those_before_a_normalization() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(),
        nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.LayerNorm(6)), nn.Linear(6, 2),
    )  # fmt: skip
    assert list(invariant_weights(model)) == ["0.weight", "5.1.weight"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plain", "projected"), [("plain-sgd", "plain-sgdp"), ("plain-adam", "plain-adamp")]
)
def test_projection_keeps_norms_short_at_the_same_rate(plain: str, projected: str) -> None:
    workload, arms = parts("quick", "norms")
    growth = {}
    for name in (plain, projected):
        trial = Trial.offline(workload, arms[name], seed=0)
        train(trial)
        growth[name] = trial.results["test"]["final_log_growth"]
        curves = trial.curves["train"]
        first, last = curves["norm 0.weight"][0][1], curves["norm 0.weight"][-1][1]
        assert last > first
        assert curves["effective_step 0.weight"][-1][1] < curves["effective_step 0.weight"][4][1]
    assert growth[plain] > 1.5 * growth[projected] > 0
    assert curves["share_channels"][-1][1] == 0.75  # three convolutions of four weights


def test_watch_remembers_the_first_norms() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    workload, arms = parts("quick", "norms")
    trial = Trial.offline(workload, arms["plain-sgd"])
    watch = Watch()
    assert watch(model, optimizer, 0, trial)["final_log_growth"] == 0
    with torch.no_grad():
        model[0].weight.mul_(2.0)
    resumed = Watch()
    resumed.load_state_dict(watch.state_dict())
    for one in (watch, resumed):
        found = one(model, optimizer, 1, trial)
        assert found["final_log_growth"] == pytest.approx(0.6931, abs=1e-4)
        square = found["norm 0.weight"] ** 2
        assert found["effective_step 0.weight"] == pytest.approx(0.5 / square)
        assert found["growth 0.weight"] == pytest.approx(2.0)
        assert "share_channels" not in found


# ---------------------------------------------------------------- presets


def test_arms_of_a_pair_are_tuned_alike() -> None:
    for preset in PRESETS:
        arms = {arm.name: arm for arm in build(preset).arms}
        for plain, projected in (("sgd", "sgdp"), ("adamw", "adamp")):
            one, two = arms[plain].space, arms[projected].space
            assert [(k.name, k.low, k.high) for k in one] == [(k.name, k.low, k.high) for k in two]
            assert {k: v for k, v in arms[plain].fixed.items() if k != "record_branches"} == {
                k: v for k, v in arms[projected].fixed.items() if k != "record_branches"
            }


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
    assert experiment.tune_trials == 8 * 2  # two searched knobs


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match=r"preset must be one of \['full', 'paper', 'quick'\]"):
        build("half")


def test_the_published_scale_says_what_it_needs() -> None:
    workload, arms = parts("paper", "resnet50")
    assert workload.batch_size == 256
    with pytest.raises(MissingData, match=r"ResNet-50 for 100 epochs on ImageNet.*8 GPUs"):
        imagenet(Trial.offline(workload, arms["adamp"]))


def test_figures_of_nothing() -> None:
    document: dict[str, Any] = {
        "format": 1, "paper": "adamp", "preset": "quick", "status": "indication", "claims": [],
        "workloads": [], "arms": [], "finals": [], "curves": [],
    }  # fmt: skip
    assert figures(Result(document)) == []
