"""The langevin paper: stacked problems, resumed chains, fits, presets, figures of a whole run."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gradworks import bench
from gradworks.bench.data import MissingData
from gradworks.bench.experiment import Arm, Workload
from gradworks.bench.result import Result
from gradworks.bench.trial import Diverged, Trial, TrialInterrupted
from gradworks.optim.langevin import SingleIndex, TensorPCA, langevin_step, partial_trace
from gradworks.papers import langevin as paper
from gradworks.papers.langevin import trial as module
from gradworks.papers.langevin.landscapes import Samples, Tensors, chance, draw, predicted
from gradworks.papers.langevin.trial import half_way, huge
from gradworks.papers.langevin.trial import trial as run


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(name: str, arm: str = "langevin", **changes: Any) -> tuple[Workload, Arm]:
    """A workload of the full preset, made short, and an arm."""
    experiment = paper.build("full")
    workload = next(w for w in experiment.workloads if w.name == name)
    spec = {
        **workload.spec, "sizes": [6, 8], "problems": 2, "steps": 256, "sgd_steps": 256,
        "smoothing_steps": 5, "draws": 8, **changes,
    }  # fmt: skip
    found = next(a for a in experiment.arms if a.name == arm)
    return dataclasses.replace(workload, spec=spec), found


# ---------------------------------------------------------------- problems in stacks


@pytest.mark.parametrize("order", [3, 4])
def test_stacked_tensors_are_single_ones(order: int) -> None:
    spec = {"model": "tensor", "order": order, "problems": 2}
    stack = draw(spec, 5, [0.5, 1.0], gen())
    assert isinstance(stack, Tensors)
    assert stack.n.tolist() == pytest.approx([0.5 * 5 ** (order / 2)] * 2 + [5 ** (order / 2)] * 2)
    theta = torch.randn(4, 5, generator=gen(1))
    each = [TensorPCA(T, float(n)) for T, n in zip(stack.T, stack.n)]
    rows = torch.stack([p.gradient(t) for p, t in zip(each, theta)])
    torch.testing.assert_close(stack.gradient(theta), rows)
    torch.testing.assert_close(
        stack.reference(), torch.stack([p.reference() for p in each]), rtol=1e-4, atol=1e-5
    )
    refined = torch.stack([p.refine(t) for p, t in zip(each, theta)])
    torch.testing.assert_close(stack.refine(theta), refined, rtol=1e-3, atol=1e-3)


def test_stacked_samples_are_single_ones() -> None:
    stack = draw({"model": "single-index", "order": 3, "problems": 3}, 5, [2.0], gen())
    assert isinstance(stack, Samples)
    theta = torch.randn(3, 5, generator=gen(1))
    each = [SingleIndex(X, y, 3) for X, y in zip(stack.X, stack.y)]
    rows = torch.tensor([[0, 4], [1, 1], [5, 2]])
    for which in (None, rows):
        want = [p.gradient(t, None if which is None else r) for p, t, r in zip(each, theta, rows)]
        torch.testing.assert_close(stack.gradient(theta, which), torch.stack(want))
    torch.testing.assert_close(stack.reference(), torch.stack([p.reference() for p in each]))
    assert stack.refine(theta).shape == (3, 5)


def test_what_is_predicted() -> None:
    x = torch.nn.functional.normalize(torch.randn(200_000, 7, generator=gen()), dim=1)
    assert chance(7) == pytest.approx(float(x[:, 0].abs().mean()), rel=0.01)
    assert chance(400) == pytest.approx(0.8 / 20, rel=0.01)
    # the exact line of the partial trace, order 3 (ratio of mean squares; 200 tensors)
    d, factor = 12, 0.5
    spec = {"model": "tensor", "order": 3, "problems": 200}
    stack = draw(spec, d, [factor], gen(3))
    assert isinstance(stack, Tensors)
    traces = torch.stack([partial_trace(T) for T in stack.T])
    signal = (traces * stack.star).sum(1)
    noise = traces - stack.star
    assert float(signal.mean()) == pytest.approx(1.0, abs=0.15)
    per_sample = float(noise.square().sum(1).mean()) * factor * d**1.5
    assert per_sample == pytest.approx(d * (d + 2) / 3, rel=0.05)
    assert predicted(d, factor) == pytest.approx(
        (1 + per_sample / (factor * d**1.5)) ** -0.5, rel=0.03
    )


def test_chains_in_units_of_the_temperature_are_the_same_chains() -> None:
    workload, arm = small("half", sizes=[6], steps=64, problems=1)
    seen: list[Tensor] = []
    original = module.draw

    def drawn(*args: Any) -> Any:
        seen.append(original(*args))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "draw", drawn)
        trial = Trial.offline(workload, arm, seed=2)
        run(trial)
    problems = seen[0]
    d, n, cs = 6, float(problems.n[0]), 0.2
    eps = 8.0 / math.sqrt(n * d)
    walk = module.Walk(Trial.offline(workload, arm, seed=2))
    theta = torch.nn.functional.normalize(
        torch.randn(1, d, generator=walk.generator("start d6")), dim=-1
    )
    noise, total = walk.generator("noise d6"), torch.zeros(1, d, dtype=torch.float64)
    for size, counts in ((50, False), (64, True)):
        for xi in torch.randn(size, 1, d, generator=noise):
            grad = problems.gradient(theta)
            theta = langevin_step(theta, grad, xi, cs / (eps * d), eps)
            total += theta * counts
    overlap = float((total @ problems.star[0].double()).abs() / total.norm())
    assert trial.results["test"]["overlap"] == pytest.approx(overlap, rel=1e-4)


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


@pytest.mark.parametrize(
    ("name", "arm"),
    [("half", "langevin"), ("order-4", "langevin"), ("single-index", "langevin"),
     ("single-index", "sgd-4"), ("single-index", "online"), ("sizes", "smoothing"),
     ("sizes", "power")],
)  # fmt: skip
def test_trials_resume_bit_for_bit(name: str, arm: str) -> None:
    workload, chosen = small(name, arm)
    params = {knob.name: knob.default for knob in chosen.space}
    whole = Trial.offline(workload, chosen, seed=1)
    run(whole)
    given: dict[str, Any] = {"kind": "final", "number": 1, "seed": 1, "params": params}
    for after in (1, 3, 7) if arm in ("langevin", "sgd-4") else (1,):
        record = Interrupting(after)
        with pytest.raises(TrialInterrupted):
            run(Trial(workload, chosen, **given, record=record))
        second = Trial(workload, chosen, **given, record=Interrupting(10**9), saved=record.saved)
        run(second)
        assert second.results == whole.results
    found = whole.results["test"]
    assert 0 <= found["overlap"] <= 1
    assert found["overlap"] == pytest.approx((found["overlap_d6"] + found["overlap_d8"]) / 2)


def test_tuning_trials_do_not_open_the_test_split() -> None:
    workload, arm = small("single-index", "sgd-1")
    trial = Trial.offline(workload, arm, kind="tune", params={"lr": 0.2})
    run(trial)
    assert set(trial.results) == {"valid"}
    assert "overlap" in trial.results["valid"]


def test_arms_of_a_seed_see_the_same_problems() -> None:
    references = []
    for arm in ("langevin", "sgd-1", "sgd-32"):
        trial = Trial.offline(*small("single-index", arm), seed=4)
        run(trial)
        references.append(trial.results["test"]["reference"])
    assert len(set(references)) == 1


def test_a_chain_that_is_lost_diverges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensors, "gradient", lambda self, theta: theta * math.nan)
    with pytest.raises(Diverged, match="iteration 1 is not finite at lr="):
        run(Trial.offline(*small("half")))


def test_minibatches_and_smoothing_need_their_problems() -> None:
    _, sgd = small("single-index", "sgd-1")
    _, smoothing = small("sizes", "smoothing")
    with pytest.raises(TypeError, match="minibatches are of samples, got Tensors"):
        run(Trial.offline(small("half")[0], sgd))
    with pytest.raises(TypeError, match="smoothing is for tensors, got Samples"):
        run(Trial.offline(small("single-index")[0], smoothing))


@pytest.mark.slow
def test_the_average_shows_what_the_last_iterate_does_not() -> None:
    """The specification's first look: average 0.5, last iterate near chance, cosine above 0.9."""
    workload, arm = small("half", sizes=[16], problems=10, c=4.0, steps=12000)
    found = []
    for seed in (1, 2):
        trial = Trial.offline(workload, arm, seed=seed)
        run(trial)
        found.append(trial.results["test"])
    mean = {name: sum(f[name] for f in found) / 2 for name in found[0]}
    assert 0.4 < mean["overlap"] < 0.62
    assert mean["gap"] > -0.05
    assert mean["cosine"] > 0.93
    assert mean["last_excess"] < 0.06


# ---------------------------------------------------------------- fits


def test_half_way_points_of_logistic_curves() -> None:
    factors = [0.125, 0.18, 0.25, 0.35, 0.5, 0.71, 1.0]
    at, steep = [0.2, 0.4, 0.6], 5.0
    shares = [
        [1 / (1 + math.exp(-steep * (math.log(f) - math.log(a)))) for f in factors] for a in at
    ]
    assert half_way(factors, shares, 1000) == pytest.approx(at, rel=0.03)
    # successes and failures apart, all, and none: finite, in order, near the grid
    shares = [[1.0] * 7, [0.0] * 3 + [1.0] * 4, [0.0] * 7]
    low, middle, high = half_way(factors, shares, 4)
    assert 0.01 < low < middle < high < 10
    assert 0.25 < middle < 0.35


def test_slopes_are_those_of_the_cells() -> None:
    workload, arm = small("samples", sizes=[4, 5, 6, 7, 8, 9], steps=128)
    trial = Trial.offline(workload, arm)
    run(trial)
    found = trial.results["test"]
    counts = [found[f"half_d{d}"] for d in (4, 5, 6, 7, 8, 9)]
    assert found["half_slope"] == pytest.approx(
        bench.statistics.fit_slope([4, 5, 6, 7, 8, 9], counts)
    )
    assert 0 <= found["won_0_d4"] <= 1
    workload, arm = small("sizes", sizes=[4, 5, 6, 7, 8, 9], steps=128)
    trial = Trial.offline(workload, arm)
    run(trial)
    found = trial.results["test"]
    scaled = [found[f"overlap_d{d}"] * d**0.25 for d in (4, 5, 6, 7, 8, 9)]
    assert found["overlap_slope"] == pytest.approx(
        bench.statistics.fit_slope([4, 5, 6, 7, 8, 9], scaled)
    )


# ---------------------------------------------------------------- presets and figures


def test_batches_are_tuned_alike() -> None:
    for preset in ("quick", "full"):
        experiment = paper.build(preset)
        spaces = {arm.space for arm in experiment.arms if arm.space}
        assert len(spaces) == 1
        (knob,) = spaces.pop()
        assert knob.high / knob.low == pytest.approx(1000)


def test_full_decides_every_criterion() -> None:
    experiment = paper.build("full")
    assert [len(c.criteria) for c in experiment.claims] == [len(c.criteria) for c in paper.CLAIMS]
    assert experiment.final_seeds == 10
    assert experiment.tune_trials == 8  # one searched knob
    specs = {w.name: w.spec for w in experiment.workloads}
    assert len(specs["sizes"]["sizes"]) >= 6
    assert len(specs["samples"]["sizes"]) >= 6


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match=r"preset must be one of \['full', 'paper', 'quick'\]"):
        paper.build("half")


def test_the_published_scale_says_what_it_needs() -> None:
    experiment = paper.build("paper")
    workload = experiment.workloads[0]
    with pytest.raises(MissingData, match=r"order 3 with d up to 200.*one GPU of 80 GB"):
        huge(Trial.offline(workload, experiment.arms[0]))


@pytest.mark.slow
def test_a_whole_run_is_judged_and_drawn(tmp_path: Path) -> None:
    experiment = paper.build("full")
    short = {"half": [6, 8], "sizes": [4, 5, 6, 7, 8, 9], "samples": [4, 5, 6, 7, 8, 9],
             "order-4": [4, 5], "single-index": [5, 6]}  # fmt: skip
    workloads = tuple(
        dataclasses.replace(
            w,
            spec={**w.spec, "sizes": short[w.name], "problems": 2, "steps": 128, "sgd_steps": 128,
                  "smoothing_steps": 3, "draws": 4},
            steps=128 * len(short[w.name]),
        )
        for w in experiment.workloads
    )  # fmt: skip
    tiny = dataclasses.replace(
        experiment, preset="quick", workloads=workloads, final_seeds=2, tune_trials=2
    )
    result = bench.run(tiny, store=tmp_path / "runs.db", engine="serial")
    assert {c["id"] for c in result.claims} == {c.id for c in paper.CLAIMS}
    assert result.status in {"indication", "undecided"}
    drawn = paper.figures(result)
    assert [f.id for f in drawn] == [
        "overlap-half", "overlap-sizes", "cosine", "samples", "single-index",
    ]  # fmt: skip
    for figure in drawn:
        assert any(series.style == "reference" for series in figure.series)
        for series in figure.series:
            assert len(series.x) >= 2
            assert all(math.isfinite(v) for v in series.y)
    names = {series.name for series in drawn[1].series}
    assert {"average iterate", "partial trace", "last iterate", "smoothing", "chance"} <= names


def test_figures_of_nothing() -> None:
    document: dict[str, Any] = {
        "format": 1, "paper": "langevin", "preset": "quick", "status": "indication", "claims": [],
        "workloads": [], "arms": [], "finals": [], "curves": [],
    }  # fmt: skip
    assert paper.figures(Result(document)) == []
