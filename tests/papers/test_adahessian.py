"""AdaHessian's own trials and presets: paths, prices, curvature while training, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gradworks.bench.data import MissingData
from gradworks.bench.experiment import Arm, Workload
from gradworks.bench.result import Result
from gradworks.bench.training import train
from gradworks.bench.trial import Trial
from gradworks.papers.adahessian import PRESETS, build, figures
from gradworks.papers.adahessian.trial import FUNCTIONS, cifar, cost, gallery


def parts(preset: str, workload: str) -> tuple[Workload, dict[str, Arm]]:
    """A workload of a preset, and its arms."""
    experiment = build(preset)
    found = next(w for w in experiment.workloads if w.name == workload)
    return found, {arm.name: arm for arm in experiment.arms_of(found)}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_have_their_minima(function: str) -> None:
    f, start, minimum = FUNCTIONS[function]
    at = torch.tensor(minimum, dtype=torch.float64, requires_grad=True)
    f(at).backward()
    assert float(f(at).detach()) == pytest.approx(0, abs=1e-12)
    assert float(at.grad.abs().max()) < 1e-12
    assert float(f(torch.tensor(start, dtype=torch.float64))) > 1


@pytest.mark.parametrize("arm", ["path-adahessian", "path-adam", "path-sgd"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_paths_go_down(function: str, arm: str) -> None:
    workload, arms = parts("quick", function)
    trial = Trial.offline(workload, arms[arm])
    gallery(trial)
    height = dict(trial.curves["train"]["height"])
    assert trial.results["test"]["height"] < height[0]
    assert trial.results["test"]["height"] == height[workload.steps]


def test_a_path_resumes_with_its_probes() -> None:
    workload, arms = parts("quick", "rosenbrock")
    whole = Trial.offline(workload, arms["path-adahessian"], seed=3)
    gallery(whole)
    again = Trial.offline(workload, arms["path-adahessian"], seed=3)
    gallery(again)
    assert whole.results == again.results
    other = Trial.offline(workload, arms["path-adahessian"], seed=4)
    gallery(other)
    assert other.results != whole.results


@pytest.mark.slow
def test_training_estimates_with_the_trials_own_probes() -> None:
    workload, arms = parts("quick", "digits")
    results = []
    for _ in range(2):
        torch.manual_seed(len(results))  # the global generator has no part in it
        trial = Trial.offline(workload, arms["published-adahessian"], seed=0)
        train(trial)
        results.append(trial.results)
    assert results[0] == results[1]
    assert results[0]["test"]["error"] < 0.2


def test_the_price_is_a_ratio() -> None:
    workload, arms = parts("quick", "cost")
    spec: Any = {**workload.spec, "blocks": 2}
    small = Workload(name="cost", label="", trial=workload.trial, spec=spec, batch_size=64)
    trial = Trial.offline(small, arms["cost-adahessian"])
    cost(trial)
    assert 1.0 < trial.results["test"]["step_ratio"] < 30.0


def test_presets() -> None:
    quick, full, paper = (build(name) for name in ("quick", "full", "paper"))
    assert {c.id for c in quick.claims} == {"cifar10", "cifar10-logs", "cost"}
    assert {c.id for c in full.claims} == {"cifar10", "cifar10-logs", "language", "cost"}
    assert [w.steps for w in paper.workloads] == [31_360, 31_360, 0]
    tuned = [arm for arm in full.arms if arm.space]
    assert {len(arm.space) for arm in tuned} == {1}  # equal budgets for equal spaces
    assert {round(arm.space[0].high / arm.space[0].low) for arm in tuned} == {1000}
    assert set(PRESETS) == {"quick", "full", "paper"}


def test_the_published_scale_says_what_it_needs() -> None:
    workload, arms = parts("paper", "resnet20")
    with pytest.raises(MissingData, match=r"ResNet-20 for 160 epochs.*GPU of 8 GB"):
        cifar(Trial.offline(workload, arms["published-adam"]))


def test_curves_by_time_end_when_the_training_did() -> None:
    def run(arm: str, seed: int, seconds: float) -> dict[str, Any]:
        found = {"workload": "digits", "arm": arm, "seed": seed, "seconds": seconds}
        return {**found, "status": "done", "metrics": {"test": {"error": 0.1}}}

    grid = {"step": [0, 10, 20], "mean": [0.9, 0.5, 0.1], "lo": [0.9] * 3, "hi": [0.9] * 3}
    names = ("adahessian", "adamw")
    document = {
        "arms": [{"name": name, "label": name} for name in names],
        "workloads": [{"name": "digits", "label": "digits"}],
        "studies": [],
        "finals": [run("adahessian", s, 4.0 + 2 * s) for s in (0, 1)] + [run("adamw", 0, 1.0)],
        "curves": [
            {"workload": "digits", "arm": a, "split": "valid", "metric": "error", **grid}
            for a in names
        ],
    }
    drawn = {figure.id: figure for figure in figures(Result({"format": 1, **document}))}
    ours, theirs = drawn["time-digits"].series
    assert [list(s.x) for s in (ours, theirs)] == [[0, 2.5, 5.0], [0, 0.5, 1.0]]
    assert list(ours.y) == grid["mean"]


def test_figures_of_an_empty_result_are_left_out() -> None:
    empty = {"format": 1, "arms": [], "workloads": [], "studies": [], "finals": [], "curves": []}
    assert figures(Result(empty)) == []
