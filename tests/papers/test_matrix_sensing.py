"""The matrix-sensing paper: its predictions as tests, resumed trials, presets, figures of a run."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from gradworks import bench
from gradworks.bench.data import MissingData
from gradworks.bench.experiment import Arm, Workload
from gradworks.bench.result import Result
from gradworks.bench.trial import Diverged, Trial, TrialInterrupted
from gradworks.papers import matrix_sensing as paper
from gradworks.papers.matrix_sensing import runs
from gradworks.papers.matrix_sensing.cells import second_moments, slope, spaced
from gradworks.papers.matrix_sensing.methods import preconditioned
from gradworks.papers.matrix_sensing.presets import LR, RANK
from gradworks.papers.matrix_sensing.runs import pose
from gradworks.papers.matrix_sensing.trial import huge
from gradworks.papers.matrix_sensing.trial import trial as run
from gradworks.solvers.matrix_sensing import random_low_rank, symmetric_gd


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SHORT: dict[str, dict[str, Any]] = {
    "symmetric": {"n": 8, "steps": 2000, "window": [200, 2000]},
    "exact": {"n": 8, "steps": 700},
    "asymmetric": {"n": 8, "relaxations": 200.0, "alphas": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]},
    "one-step": {"n": 8, "steps": 900, "alphas": [0.6, 0.1]},
    "digits": {"steps": 2000, "window": [200, 2000]},
    "questions": {"n": 8, "steps": 400},
    "compared": {"n": 8, "steps": 200},
}


def chosen(name: str, arm: str = "descent", *, short: bool = True, **changes: Any) -> Any:
    """A workload of the full preset, made short, and an arm."""
    experiment = paper.build("full")
    workload = next(w for w in experiment.workloads if w.name == name)
    less = SHORT[workload.spec["kind"]] if short else {}
    found = next(a for a in experiment.arms if a.name == arm)
    return dataclasses.replace(workload, spec={**workload.spec, **less, **changes}), found


def figures_of(
    name: str, arm: str = "descent", seed: int = 500, **changes: Any
) -> dict[str, float]:
    """What one trial of the real size gives."""
    trial = Trial.offline(*chosen(name, arm, short=False, **changes), seed=seed)
    run(trial)
    return trial.results["test"]


# ---------------------------------------------------------------- the predictions


@pytest.mark.slow
def test_symmetric_slope_and_constant() -> None:
    """err eta^2 T^2 tends to (k - r)/4, with slope -2: three numbers of columns."""
    found = figures_of("symmetric")
    for k in (4, 5, 8):
        assert found[f"slope_k{k}"] == pytest.approx(-1.996, abs=0.003)
        assert found[f"constant_k{k}"] == pytest.approx(1.0, abs=0.005)
    assert found["slope_low"] <= found["slope_high"] < -1.9
    assert abs(found["constant"] - 1) == max(abs(found[f"constant_k{k}"] - 1) for k in (4, 5, 8))


def test_exact_rank_rates() -> None:
    for seed in (500, 501):
        found = figures_of("exact", seed=seed)
        assert found["rate_symmetric"] == pytest.approx(-2 * math.log(1 - LR), rel=1e-4)
        assert found["r2_symmetric"] > 0.9999
        assert found["over_predicted_asymmetric"] == pytest.approx(1.0, abs=0.05)
        assert found["r2_asymmetric"] > 0.999


@pytest.mark.slow
def test_asymmetric_rates_follow_alpha_and_the_prediction() -> None:
    found = figures_of("asymmetric")
    assert 1.9 < found["slope_low"] <= found["slope"] <= found["slope_high"] < 2.15
    assert found["ratio"] > 8
    ratios = [v for name, v in found.items() if name.startswith("over_predicted")]
    assert len(ratios) == 12
    assert 0.97 < min(ratios) <= max(ratios) < 1.02


def test_one_step_rates_do_not_know_alpha() -> None:
    found = figures_of("one-step")
    assert found["ratio"] < 1.2
    for alpha in (0.6, 0.3, 0.15, 0.05, 0.01):
        assert found[f"over_predicted_a{alpha:g}"] == pytest.approx(1.0, abs=0.12)


@pytest.mark.slow
def test_a_real_target_is_as_predicted() -> None:
    found = figures_of("digits")
    assert found["slope_low"] == found["slope_high"] == pytest.approx(-2.0, abs=0.02)
    assert found["constant"] == pytest.approx(1.0, abs=0.01)
    assert found["over_predicted_exact"] == pytest.approx(1.0, abs=0.02)
    assert found["r2_symmetric"] > 0.999


def test_balanced_starts_are_the_slow_ones() -> None:
    found = figures_of("questions", imbalances=[1.0, 3.0], noises=[1e-3, 1e-2], steps=3000)
    assert (found["solved_i1"], found["solved_i3"]) == (0.0, 1.0)
    for k in (3, 5):  # errors as the square of the noise; spare columns fit more of it
        assert found[f"best_noise0.01_k{k}"] / found[f"best_noise0.001_k{k}"] == pytest.approx(
            100, rel=0.1
        )
    assert found["error_noise0.01_k5"] > found["error_noise0.01_k3"]


def test_a_rate_that_was_not_reached_is_no_error() -> None:
    trial = Trial.offline(*chosen("asymmetric", relaxations=20.0), seed=0)
    run(trial)
    assert math.isnan(trial.results["test"]["slope"])
    assert math.isnan(trial.results["test"]["ratio"])


# ---------------------------------------------------------------- pieces


def test_second_moments_of_the_digits() -> None:
    M, smallest = second_moments(5)
    values = torch.linalg.eigvalsh(M)
    assert M.shape == (64, 64)
    assert float(values[-1]) == pytest.approx(1.0)
    assert float(values[-5]) == pytest.approx(smallest)
    assert float(values[:-5].abs().max()) < 1e-12


def test_measurements_are_compressed_but_not_changed() -> None:
    op, y, M = pose(gen(), 6, 4, factor=10, symmetric=True)
    assert op.shape == (21, 6, 6)
    assert float((op(M) - y).norm()) < 1e-12
    op, y, M = pose(gen(), 6, 4, factor=10, symmetric=False)
    assert op.shape == (36, 6, 6)
    assert float((op(M) - y).norm()) < 1e-12
    _, noisy, _ = pose(gen(), 6, 4, factor=1, symmetric=False, noise=0.1)
    _, clean, _ = pose(gen(), 6, 4, factor=1, symmetric=False)
    assert float((noisy - clean).norm() / clean.norm()) == pytest.approx(0.1)
    op, _, _ = pose(gen(), 6, 4, factor=None, symmetric=False)
    assert op.shape == (36, 6, 6)


def test_points_are_spaced_by_decades() -> None:
    rows = spaced(list(range(1001)), 10, 1000, 5)
    assert rows == [10, 32, 100, 317, 1000]
    assert spaced([0, 20, 40], 10, 40, 50) == [1, 2]


def test_slopes_need_a_target() -> None:
    op, y, _ = pose(gen(), 4, 4, factor=None, symmetric=True)
    result = symmetric_gd(op, y, 4, max_iter=10)
    with pytest.raises(ValueError, match="must come from a run with a target"):
        slope(result, 1, 10)


def test_preconditioned_descent() -> None:
    M = random_low_rank(10, rank=RANK, symmetric=True, generator=gen())
    X = 0.1 * torch.randn(10, 5, generator=gen(1), dtype=M.dtype)
    errors = preconditioned(M, X, 0.1, 3)
    eye = torch.eye(5, dtype=M.dtype)
    for t in range(3):  # line by line
        E = X @ X.T - M
        assert float(errors[t]) == pytest.approx(float(E.square().sum()), rel=1e-12)
        X = X - 0.1 * E @ X @ torch.linalg.inv(X.T @ X + E.norm() * eye)
    assert float(preconditioned(M, X, 0.3, 400)[-1]) < 1e-18  # linear with spare columns
    with pytest.raises(FloatingPointError, match="lr=50"):
        preconditioned(M, X, 50.0, 400)


# ---------------------------------------------------------------- trials


class Interrupting:
    """A record that stops after a number of ticks and keeps the checkpoint."""

    def __init__(self, after: int) -> None:
        self.after, self.saved = after, b""

    def progress(self, step: int) -> None:
        """Nobody watches."""

    def rows(self, rows: Any) -> None:
        """Not kept."""

    def checkpoint(self, step: int, data: bytes, rows: Any) -> None:
        """Keep the last one."""
        self.saved = data

    def stopping(self) -> bool:
        self.after -= 1
        return self.after == 0


@pytest.mark.parametrize("name", ["symmetric-gaussian", "exact", "asymmetric", "one-step"])
def test_trials_resume_bit_for_bit(name: str) -> None:
    workload, arm = chosen(name)
    whole = Trial.offline(workload, arm, seed=1)
    run(whole)
    given: dict[str, Any] = {"kind": "final", "number": 1, "seed": 1, "params": {}}
    for after in (1, 2):
        record = Interrupting(after)
        with pytest.raises(TrialInterrupted):
            run(Trial(workload, arm, **given, record=record))
        second = Trial(workload, arm, **given, record=Interrupting(10**9), saved=record.saved)
        run(second)
        assert second.results == whole.results


def test_a_resumed_trial_does_not_run_its_cells_again(monkeypatch: pytest.MonkeyPatch) -> None:
    workload, arm = chosen("exact")
    given: dict[str, Any] = {"kind": "final", "number": 1, "seed": 1, "params": {}}
    record = Interrupting(1)
    with pytest.raises(TrialInterrupted):
        run(Trial(workload, arm, **given, record=record))
    seen: list[str] = []
    original = runs._exact
    monkeypatch.setattr(
        runs, "_exact", lambda cells, form: seen.append(form) or original(cells, form)
    )
    run(Trial(workload, arm, **given, record=Interrupting(10**9), saved=record.saved))
    assert seen == ["asymmetric"]


def test_methods_start_from_the_same_point() -> None:
    firsts = set()
    for arm in ("accelerated", "asymmetric", "symmetric", "balanced", "preconditioned"):
        trial = Trial.offline(*chosen("compared", arm), seed=3)
        run(trial)
        curve = trial.curves["train"]["error"]
        if arm in ("symmetric", "preconditioned"):
            firsts.add(round(curve[0][1], 9))
        assert trial.results["test"]["log_error"] < 1
        assert curve[-1][0] == 200
    assert len(firsts) == 1


def test_tuning_does_not_open_the_test_split() -> None:
    trial = Trial.offline(*chosen("compared", "symmetric"), kind="tune", params={"lr": 0.2})
    run(trial)
    assert set(trial.results) == {"valid"}


def test_too_large_a_step_diverges() -> None:
    for arm in ("symmetric", "accelerated", "preconditioned"):
        workload, found = chosen("compared", arm)
        with pytest.raises(Diverged, match="lr=90"):
            run(Trial.offline(workload, found, params={"lr": 90.0}))


# ---------------------------------------------------------------- presets and figures


def test_methods_are_tuned_alike() -> None:
    for preset in ("quick", "full"):
        spaces = {arm.space for arm in paper.build(preset).arms if arm.space}
        assert len(spaces) == 1
        (knob,) = spaces.pop()
        assert (knob.low, knob.high, knob.default) == (0.025, 0.4, 0.1)


def test_full_decides_every_criterion() -> None:
    experiment = paper.build("full")
    assert [len(c.criteria) for c in experiment.claims] == [len(c.criteria) for c in paper.CLAIMS]
    assert experiment.final_seeds == 10
    # the smallest p of ten seeds survives Holm over the family
    tests = sum(c.kind != "exactness" for claim in paper.CLAIMS for c in claim.criteria)
    assert tests / 2**10 <= 0.05
    quick = paper.build("quick")
    assert {c.id for c in quick.claims} == {c.id for c in paper.CLAIMS}


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match=r"preset must be one of \['full', 'paper', 'quick'\]"):
        paper.build("half")


def test_the_published_scale_says_what_it_needs() -> None:
    experiment = paper.build("paper")
    with pytest.raises(MissingData, match=r"1,000,000 steps.*up to 20 and 6 scales.*float64"):
        huge(Trial.offline(experiment.workloads[0], experiment.arms[0]))


@pytest.mark.slow
def test_a_whole_run_is_judged_and_drawn(tmp_path: Path) -> None:
    experiment = paper.build("full")
    workloads = []
    for w in experiment.workloads:
        spec = {**w.spec, **SHORT[w.spec["kind"]]}
        workloads.append(dataclasses.replace(w, spec=spec, steps=spec["steps"] if w.steps else 0))
    tiny = dataclasses.replace(
        experiment,
        preset="quick",
        workloads=tuple(workloads),
        final_seeds=2,
        tune_trials=2,
    )
    result = bench.run(tiny, store=tmp_path / "runs.db", engine="serial")
    assert {c["id"] for c in result.claims} == {c.id for c in paper.CLAIMS}
    assert result.status == "indication"
    drawn = paper.figures(result)
    assert [f.id for f in drawn] == [
        "slow", "slopes", "exact-rank", "rates", "rates-gaussian", "digits", "compared",
        "imbalance", "noise",
    ]  # fmt: skip
    for figure in drawn:
        for series in figure.series:
            assert all(math.isfinite(v) for v in series.y), (figure.id, series.name)
    for figure in drawn[:6]:
        assert any(series.style == "reference" for series in figure.series), figure.id
    assert len(next(f for f in drawn if f.id == "compared").series) == 5


def test_figures_of_nothing() -> None:
    document: dict[str, Any] = {
        "format": 1, "paper": "matrix-sensing", "preset": "quick", "status": "indication",
        "claims": [], "workloads": [], "arms": [], "finals": [], "curves": [],
    }  # fmt: skip
    assert paper.figures(Result(document)) == []


def test_workloads_and_arms_are_data() -> None:
    experiment = paper.build("full")
    assert all(isinstance(w, Workload) for w in experiment.workloads)
    assert all(isinstance(a, Arm) for a in experiment.arms)
    data = {w.name: w.data for w in experiment.workloads if w.data}
    assert data == {"digits": ("digits",)}
