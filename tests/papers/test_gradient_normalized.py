"""Gradient-normalised Newton's own trials: problems as posed, rates as fitted, presets."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from gradworks.bench.experiment import Arm, Workload
from gradworks.bench.result import Result
from gradworks.bench.trial import Trial
from gradworks.papers.gradient_normalized import ARMS, build, figures
from gradworks.papers.gradient_normalized.problems import pose
from gradworks.papers.gradient_normalized.trial import _line, descend, solve, solves


def parts(preset: str, workload: str) -> tuple[Workload, Arm]:
    """A workload of a preset, and its arm."""
    experiment = build(preset)
    found = next(w for w in experiment.workloads if w.name == workload)
    return found, experiment.arms_of(found)[0]


@pytest.mark.parametrize("name", ["lse-0.5", "linear-p4", "chebyshev", "breast-cancer"])
def test_problems_are_posed_with_their_hessians(name: str) -> None:
    workload, arm = parts("quick", name)
    spec: Any = {**workload.spec, "m": 12, "n": 6}
    posed = pose(spec, Trial.offline(workload, arm))
    x = posed.x0 + 0.1 * torch.randn(
        posed.x0.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    want = torch.autograd.functional.hessian(posed.fun, x)
    torch.testing.assert_close(posed.exact(x), want, rtol=1e-8, atol=1e-9)
    assert float(posed.fun(x)) > posed.f_star
    again = pose(spec, Trial.offline(workload, arm))
    assert torch.equal(posed.x0, again.x0)


def test_a_problem_is_solved_by_all_and_logged() -> None:
    workload, arm = parts("quick", "lse-1")
    spec: Any = {**workload.spec, "m": 30, "n": 10, "limit": 100}
    small = Workload(name="lse-1", label="", trial=workload.trial, spec=spec, steps=100)
    trial = Trial.offline(small, arm)
    solve(trial)
    found = trial.results["test"]
    assert found["solved_exact"] == found["solved_approximate"] == 1.0
    assert found["over_exact"] == found["iterations_approximate"] / found["iterations_exact"]
    gaps = dict(trial.curves["train"]["gap_approximate"])
    assert gaps[found["iterations_approximate"]] < 1e-8
    assert gaps[found["iterations_approximate"] - 1] >= 1e-8
    assert found["slope_approximate"] < 0 < found["r2_approximate"] <= 1


def test_descent_decreases() -> None:
    workload, arm = parts("quick", "rosenbrock-p2")
    posed = pose(dict(workload.spec), Trial.offline(workload, arm))
    gaps = descend(posed, 50)
    assert all(b < a for a, b in itertools.pairwise(gaps))


def test_lines() -> None:
    r2, slope = _line([math.exp(-0.5 * k) for k in range(60)])
    assert (round(r2, 9), round(slope, 9)) == (1.0, -0.5)
    assert _line([1.0, 0.9, 0.8])[0] == 0.0  # never got there
    assert _line([1.0, 1e-12])[0] == 1.0  # faster than a line
    assert _line([1.0 / (1 + k) ** 4 for k in range(2000)])[0] < 0.95  # not linear


def test_a_rank_one_solve_is_cheaper() -> None:
    workload, arm = parts("quick", "solves")
    trial = Trial.offline(workload, arm)
    solves(trial)
    assert trial.results["test"]["dense_over_rank_one"] > 2


def test_presets() -> None:
    quick, full, paper = (build(name) for name in ("quick", "full", "paper"))
    assert len(full.claims) == 5
    assert {c.id for c in quick.claims} == {c.id for c in full.claims}
    assert not any(w.name == "digits" for w in (*quick.workloads, *paper.workloads))
    assert {arm.name for arm in ARMS} == {"gradient-normalized", "solves"}


def test_figures_of_an_empty_result_are_left_out() -> None:
    empty: Any = {"arms": [], "workloads": [], "studies": [], "finals": [], "curves": []}
    assert figures(Result({"format": 1, **empty})) == []
