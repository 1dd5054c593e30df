"""The hessian-spectrum paper: its studies in small, resumed trials, figures, data."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from gradworks import bench
from gradworks.bench.data import MissingData
from gradworks.bench.experiment import Experiment, Workload
from gradworks.bench.trial import Trial, TrialInterrupted
from gradworks.papers import hessian_spectrum as paper
from gradworks.papers.hessian_spectrum.examples import draw
from gradworks.papers.hessian_spectrum.networks import network
from gradworks.papers.hessian_spectrum.trial import trial as run

SMALL: dict[str, dict[str, Any]] = {
    "widths": {"hidden": [3, 6], "steps": 30},
    "classes": {"classes": [2, 3], "hidden": 4, "steps": 30},
    "separations": {"separation": [1.0, 4.0], "hidden": 4, "steps": 30},
    "batches": {"hidden": 4, "steps": 30},
    "basin-digits": {"network": {"kind": "mlp", "hidden": 6}, "steps": 25, "num_points": 5},
}


def small(workload: Workload, **changes: Any) -> Workload:
    """A workload of the quick preset, reduced to well under a second."""
    spec = {**workload.spec, "examples": 120, **SMALL[workload.name], **changes}
    trainings = {"widths": 2, "classes": 2, "separations": 2, "batches": 1}
    steps = spec["steps"] * trainings.get(workload.name, 5)
    return dataclasses.replace(workload, spec=spec, steps=steps)


def quick(name: str, **changes: Any) -> tuple[Workload, Any]:
    experiment = paper.build("quick")
    workload = next(w for w in experiment.workloads if w.name == name)
    return small(workload, **changes), experiment.arms_of(workload)[0]


@pytest.mark.parametrize("preset", ["quick", "full", "paper"])
def test_presets_are_experiments_whose_claims_can_be_decided(preset: str) -> None:
    experiment = paper.build(preset)
    assert experiment.final_seeds == {"quick": 5, "full": 10, "paper": 3}[preset]
    names = {w.name for w in experiment.workloads}
    arms = {a.name for a in experiment.arms}
    assert sum(c.primary for c in experiment.claims) == 1
    for claim in experiment.claims:
        assert claim.criteria
        for criterion in claim.criteria:
            assert set(criterion.workloads) <= names
            assert criterion.arm in arms
            assert criterion.baseline is None or criterion.baseline in arms
    if preset != "paper":
        assert {c.id for c in experiment.claims} == {c.id for c in paper.CLAIMS}
    with pytest.raises(ValueError, match="preset must be one of"):
        paper.build("huge")


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_study_gives_every_figure_that_its_criteria_ask_for(name: str) -> None:
    workload, arm = quick(name)
    trial = Trial.offline(workload, arm, seed=1)
    run(trial)
    assert trial.steps_done == workload.steps
    found = trial.results["test"]
    asked = {c.metric for claim in paper.CLAIMS for c in claim.criteria if name in c.workloads}
    assert asked
    assert asked <= set(found)
    assert all(math.isfinite(found[metric]) for metric in asked)
    again = Trial.offline(workload, arm, seed=1)
    run(again)
    assert again.results == trial.results
    other = Trial.offline(workload, arm, seed=2)
    run(other)
    assert other.results != trial.results


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


@pytest.mark.parametrize("name", ["widths", "basin-digits"])
@pytest.mark.parametrize("after", [1, 17, 40, 59])
def test_a_trial_that_was_stopped_ends_where_it_would_have(name: str, after: int) -> None:
    workload, arm = quick(name)
    whole = Trial.offline(workload, arm, seed=3)
    run(whole)
    stops = Stops(after)
    common: dict[str, Any] = {"kind": "final", "number": 0, "seed": 3, "params": {}}
    with pytest.raises(TrialInterrupted):
        run(Trial(workload, arm, record=stops, **common))
    resumed = Trial(workload, arm, record=Stops(10**9), saved=stops.data, **common)
    run(resumed)
    assert resumed.results == whole.results


def test_batch_arms_start_from_the_same_weights_and_data() -> None:
    experiment = paper.build("quick")
    workload = next(w for w in experiment.workloads if w.name == "batches")
    found = {}
    for arm in experiment.arms_of(workload):
        trial = Trial.offline(small(workload, steps=0), arm, seed=0)
        run(trial)
        found[arm.name] = trial.results["test"]
    assert len(found) == 3
    first, *others = found.values()
    assert all(one == first for one in others)


@pytest.mark.parametrize("norm", [False, True])
def test_convolutional_paths(norm: bool) -> None:
    workload, arm = quick(
        "basin-digits", network={"kind": "conv", "channels": [2, 3], "norm": norm}
    )
    trial = Trial.offline(workload, arm)
    run(trial)
    assert ("climb_interpolated_ab" in trial.results["test"]) == norm
    assert len(trial.curves["train"]["path_ad"]) == 5
    assert set(trial.results["test"]) >= {"same_basin", "control_ratio", "climb_ab_fast"}


def tiny() -> Experiment:
    experiment = paper.build("quick")
    return dataclasses.replace(
        experiment,
        workloads=tuple(small(w) for w in experiment.workloads),
        final_seeds=2,
    )


@pytest.mark.slow
def test_a_whole_run_is_judged_and_drawn(tmp_path: Path) -> None:
    result = bench.run(tiny(), store=tmp_path / "runs.db", engine="serial")
    assert {c["id"] for c in result.claims} == {c.id for c in paper.CLAIMS}
    assert result.status in {"indication", "undecided"}
    drawn = paper.figures(result)
    assert [f.id for f in drawn] == [
        "spectrum",
        "outliers-classes",
        "outliers-width",
        "bulk-width",
        "separation",
        "path-digits",
    ]
    for figure in drawn:
        assert figure.caption
        for series in figure.series:
            assert len(series.x) >= 2
    document = dict(result.document)
    document["workloads"], document["curves"], document["finals"] = [], [], []
    assert paper.figures(bench.Result(document)) == []


# ---------------------------------------------------------------- data and networks


def test_examples_are_balanced_and_apart() -> None:
    spec = {"data": "digits", "examples": 100}
    (x, y), (held, labels) = draw(spec, 1, classes=10, held_out=50)
    assert x.shape == (100, 1, 8, 8)
    assert y.bincount().tolist() == [10] * 10
    assert (len(held), len(labels)) == (50, 50)
    rows = {tuple(r) for r in x.flatten(1).tolist()}
    assert not rows & {tuple(r) for r in held.flatten(1).tolist()}
    (same, _), _ = draw(spec, 1, classes=10, held_out=50)
    assert torch.equal(same, x)
    (other, _), _ = draw(spec, 2, classes=10)
    assert not torch.equal(other, x)
    (_, two), _ = draw(spec, 1, classes=2)
    assert two.bincount().tolist() == [50, 50]


def test_cifar_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import numpy as np

    monkeypatch.delenv("GRADWORKS_CIFAR10", raising=False)
    spec = {"data": "cifar10", "examples": 20}
    with pytest.raises(MissingData, match="GRADWORKS_CIFAR10"):
        draw(spec, 0, classes=10)
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "c.npz",
        X=rng.integers(0, 256, (60, 3, 32, 32)).astype(np.uint8),
        y=np.arange(60) % 10,
    )
    monkeypatch.setenv("GRADWORKS_CIFAR10", str(tmp_path / "c.npz"))
    (x, y), _ = draw(spec, 0, classes=10)
    assert x.shape == (20, 3, 32, 32)
    assert float(x.max()) <= 1
    assert y.bincount().tolist() == [2] * 10


def test_networks_of_a_seed_leave_the_global_state_alone() -> None:
    shape = {"kind": "mlp", "hidden": 4}
    state = torch.get_rng_state()
    a, b = (network(shape, (3,), 2, seed=5, dtype=torch.float64) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    sizes = [m.weight.shape for m in a if isinstance(m, torch.nn.Linear)]
    assert sizes == [(4, 3), (4, 4), (2, 4)]
    conv = {"kind": "conv", "channels": [2, 3], "norm": True}
    out = network(conv, (1, 14, 14), 10, seed=0, dtype=torch.float32)(torch.ones(2, 1, 14, 14))
    assert out.shape == (2, 10)
