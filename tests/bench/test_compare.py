"""The comparison of optimizers: the experiment, the rows of its table, its plots."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from gradworks import bench
from gradworks.bench import compare, workloads
from gradworks.bench.optimizers import UnknownOptimizer
from gradworks.bench.result import Result

# -- the experiment --------------------------------------------------------------------------------


def test_experiment_is_fair_and_complete() -> None:
    made = compare.experiment("digits-mlp", ["adamw", "adamp", "sgd"], trials=8, seeds=6)
    assert [arm.name for arm in made.arms] == ["adamw", "adamp", "sgd"]
    assert [arm.is_baseline for arm in made.arms] == [True, False, False]
    assert made.arms[1].method == "gradworks.optim.AdamP"
    assert (made.tune_trials, made.final_seeds) == (8, 6)
    work = made.workloads[0]
    assert (work.name, work.steps, work.batch_size) == ("digits-mlp", 170, 64)
    assert (work.select_on, work.select_direction) == ("error", "lower")
    assert work.data == ("digits",)
    assert made.trial_seconds > 0
    shorter = compare.experiment("digits-mlp", ["adamw"], steps=17)
    assert shorter.workloads[0].steps == 17
    assert shorter.trial_seconds == pytest.approx(made.trial_seconds / 10)


@pytest.mark.parametrize(
    ("arguments", "error", "fragment"),
    [
        ({"optimizers": []}, ValueError, "at least one"),
        ({"optimizers": ["adamw", "adamw"]}, ValueError, "more than once"),
        ({"optimizers": ["adanw"]}, UnknownOptimizer, "did you mean .*adamw"),
        ({"workload": "digits-cn"}, workloads.UnknownTarget, "did you mean digits-cnn"),
        ({"trials": 0}, ValueError, "trials must be at least 1, got 0"),
        ({"seeds": 0}, ValueError, "seeds must be at least 1, got 0"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
    ],
)
def test_experiment_refuses(
    arguments: dict[str, Any], error: type[Exception], fragment: str
) -> None:
    given = {"workload": "digits-mlp", "optimizers": ["adamw"], **arguments}
    with pytest.raises(error, match=fragment):
        compare.experiment(**given)


USER = """
import torch
from gradworks.bench import Problem
def workload(seed):
    x = torch.linspace(-1, 1, 30).unsqueeze(1)
    split = (x, 3 * x)
    return Problem(name="line", model=lambda generator: torch.nn.Linear(1, 1), train=split,
        valid=split, test=split, loss_fn=torch.nn.functional.mse_loss,
        metric=torch.nn.functional.mse_loss, metric_name="mse", batch_size=10, steps=30)
"""


def test_edited_user_code_is_another_experiment(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(USER, encoding="utf-8")
    first = compare.experiment(f"{path}:workload", ["adamw"])
    assert compare.experiment(f"{path}:workload", ["adamw"]).protocol_hash == first.protocol_hash
    path.write_text(USER + "\n# changed", encoding="utf-8")
    assert compare.experiment(f"{path}:workload", ["adamw"]).protocol_hash != first.protocol_hash


def test_several_workloads_each_with_the_arms_that_apply() -> None:
    made = compare.experiment(
        ["digits-mlp", "digits-cnn"], ["adamw", "muon", "dctadamw@rank=8"], search=["lr"], seeds=6
    )
    assert made.paper == "compare digits-mlp, digits-cnn"
    mlp, cnn = made.workloads
    assert [arm.name for arm in made.arms_of(mlp)] == ["adamw", "muon", "dctadamw@rank=8"]
    assert [arm.name for arm in made.arms_of(cnn)] == ["adamw"]
    assert "digits-cnn: without Muon, DCTAdamW, rank 8, made for hidden" in made.notes[-1]
    assert [knob.name for knob in made.arms[2].space] == ["lr"]
    assert made.arms[2].fixed == {"rank": 8, "weight_decay": 0.01}
    seconds = [workloads.seconds_a_step(w.name) * w.steps for w in made.workloads]
    assert made.trial_seconds == pytest.approx((3 * seconds[0] + seconds[1]) / 4)
    with pytest.raises(ValueError, match="DCTAdamW does not apply to digits-cnn: it acts"):
        compare.experiment("digits-cnn", ["adamw", "dctadamw"])
    with pytest.raises(ValueError, match=r"Muon cannot be the baseline, .*digits-cnn"):
        compare.experiment(["digits-mlp", "digits-cnn"], ["muon", "adamw"])
    with pytest.raises(ValueError, match="workload must name at least one"):
        compare.experiment([], ["adamw"])
    with pytest.raises(ValueError, match=r"search must name some of lr, .*got 'betas'"):
        compare.experiment("digits-mlp", ["adamw"], search=["betas"])


def test_the_shared_comparison_is_fixed() -> None:
    """Its protocol is written down before it is run; a change here is a new comparison."""
    made = compare.shared()
    assert (made.paper, made.preset) == (compare.SHARED, "full")
    assert [w.name for w in made.workloads] == ["text-transformer", "mnist5k-cnn"]
    assert [arm.label for arm in made.arms] == [
        "AdamW", "Adam", "SGD", "AdamP", "SGDP", "DiffGrad", "AdaHessian", "Muon", "Trion",
        "DCTAdamW",
    ]  # fmt: skip
    assert [arm.label for arm in made.arms_of(made.workloads[1])] == [
        "AdamW", "Adam", "SGD", "AdamP", "SGDP", "DiffGrad", "AdaHessian",
    ]  # fmt: skip
    assert (made.tune_trials, made.final_seeds) == (6, 6)
    for arm in made.arms:
        assert {knob.name for knob in arm.space} <= {"lr", "adamw_lr"}
        assert "lr" in {knob.name for knob in arm.space}
        assert arm.fixed["weight_decay"] > 0
    mine = compare.shared(["adamw", "radam"])
    assert (mine.paper, mine.preset) == (compare.SHARED, "custom")
    assert mine.tune_trials == made.tune_trials


# -- the table, from a document made by hand -------------------------------------------------------

STEPS = [0, 10, 20, 30, 40]


def final(arm: str, seed: int, valid: float, test: float, seconds: float, **more: Any) -> dict:
    return {
        "workload": "w",
        "arm": arm,
        "number": seed,
        "seed": seed,
        "params": {},
        "status": "done",
        "seconds": seconds,
        "steps_done": 40,
        "state_bytes": 8,
        "metrics": {
            "valid": {"error": valid},
            "test": {"error": test},
            "train": {"evals": 40.0},
        },
    } | more


def curve(arm: str, runs: dict[int, list[float | None]]) -> dict[str, Any]:
    columns = list(zip(*runs.values(), strict=True))
    means = [None if None in c else statistics.fmean(c) for c in columns]
    return {
        "workload": "w",
        "arm": arm,
        "split": "valid",
        "metric": "error",
        "step": STEPS,
        "mean": means,
        "lo": [None if None in c else min(c) for c in columns],
        "hi": [None if None in c else max(c) for c in columns],
        "runs": {str(seed): values for seed, values in runs.items()},
    }


def document(**changes: Any) -> dict[str, Any]:
    arms = [
        {"name": name, "label": name.title(), "method": "m", "space": [], "fixed": {}}
        for name in ("slow", "fast")
    ]
    slow = {0: [1.0, 0.8, 0.6, 0.4, 0.4], 1: [1.0, 0.8, 0.6, 0.4, 0.4], 2: [1.0] * 5}
    fast = {s: [1.0, 0.4, 0.3, 0.2, 0.2] for s in range(3)}
    return {
        "format": 1,
        "paper": "compare w",
        "preset": "custom",
        "status": "done",
        "workloads": [
            {
                "name": "w",
                "label": "W",
                "steps": 40,
                "select_on": "error",
                "select_direction": "lower",
            }
        ],
        "arms": arms,
        "studies": [
            {
                "workload": "w",
                "arm": "fast",
                "round": 0,
                "on_edge": True,
                "chosen": {"lr": 0.1},
                "trials": [],
                "expected_best": [0.5, 0.4],
            },
            {
                "workload": "w",
                "arm": "fast",
                "round": 1,
                "on_edge": False,
                "chosen": {"lr": 0.25, "weight_decay": 0.001},
                "trials": [],
                "expected_best": [0.3, 0.2],
            },
        ],
        "finals": [
            final("slow", 0, 0.4, 0.50, 4.0),
            final("slow", 1, 0.4, 0.52, 4.0),
            final("slow", 2, 1.0, 0.54, 4.0),
            final("fast", 0, 0.2, 0.30, 8.0),
            final("fast", 1, 0.2, 0.31, 8.0),
            final("fast", 2, 0.2, 0.29, 8.0),
        ],
        "curves": [curve("slow", slow), curve("fast", fast)],
        "claims": [],
        "figures": [],
    } | changes


def test_rows_by_hand() -> None:
    slow, fast = compare.summary(Result(document()))
    assert (slow["arm"], fast["arm"]) == ("slow", "fast")
    assert slow["n"] == fast["n"] == 3
    # the median of slow's final validation errors .4, .4, 1.
    assert slow["target"] == fast["target"] == 0.4
    assert slow["error"] == pytest.approx(0.52)
    assert (slow["error_lo"], slow["error_hi"]) == (0.50, 0.54)  # below six seeds: the range
    assert slow["difference"] is None
    assert fast["difference"] == pytest.approx(-0.22)
    assert fast["difference_lo"] == pytest.approx(-0.25)
    assert fast["difference_hi"] == pytest.approx(-0.20)
    # running medians: slow .8 .. .4 .4 at step 30; fast's first is the worse of 1.0 and .4
    assert slow["steps_to_target"] == 30
    assert slow["reached"] == "2/3"
    assert fast["steps_to_target"] == 10
    assert fast["reached"] == "3/3"
    # a miss counts as the budget: (10 + 10 + 10) / (30 + 30 + 40)
    assert fast["steps_ratio"] == pytest.approx(0.3)
    assert slow["steps_ratio"] is None
    assert slow["seconds_to_target"] == pytest.approx(30 * 4.0 / 40)
    assert fast["seconds_to_target"] == pytest.approx(10 * 8.0 / 40)
    assert fast["step_time_ratio"] == pytest.approx(2.0)
    assert fast["step_time_ratio_lo"] == fast["step_time_ratio_hi"] == pytest.approx(2.0)
    assert fast["chosen"] == "lr 0.25, weight_decay 0.001"  # of the last round
    assert fast["note"] == ""
    # fast 10 steps of 8 / 40 s; slow 30 of 4 / 40 s, and once its whole 4 s
    assert fast["seconds_ratio"] == pytest.approx((3 * 2.0) / (3.0 + 3.0 + 4.0))
    # of three runs no two order statistics enclose the median at 95 %: the range, its end a miss
    assert (slow["steps_to_target_lo"], slow["steps_to_target_hi"]) == (30, None)
    assert (fast["seconds_to_target_lo"], fast["seconds_to_target_hi"]) == (2.0, 2.0)
    assert fast["state_bytes"] is None  # a document of before sizes were kept
    assert "evals_to_target" not in fast  # one gradient a step: nothing to say


def test_gradient_evaluations_count_where_a_step_takes_several() -> None:
    made = document()
    for run in made["finals"][3:]:
        run["metrics"]["train"]["evals"] = 120.0
    slow, fast = compare.summary(Result(made))
    assert slow["evals_to_target"] == 30
    assert fast["evals_to_target"] == 30  # 10 steps of 3 gradients


def test_state_is_counted_a_parameter() -> None:
    made = document()
    for run in made["finals"]:
        run["metrics"]["train"]["parameters"] = 4.0
    assert [row["state_bytes"] for row in compare.summary(Result(made))] == [2.0, 2.0]


def two() -> dict[str, Any]:
    """The same comparison on two workloads; on the second only ``slow`` ran, four times faster."""
    made = document()
    made["workloads"].append(made["workloads"][0] | {"name": "v", "label": "V", "arms": ["slow"]})
    for run in [r for r in made["finals"] if r["arm"] == "slow"]:
        made["finals"].append(run | {"workload": "v", "seconds": run["seconds"] / 4})
    made["curves"].append(made["curves"][0] | {"workload": "v"})
    return made


def test_each_workload_has_its_own_rows() -> None:
    result = Result(two())
    rows = compare.summaries(result)
    assert rows["w"] == compare.summary(Result(document()))
    assert rows["v"] == compare.summary(result, "v")
    assert [row["arm"] for row in rows["v"]] == ["slow"]
    assert rows["v"][0]["seconds_to_target"] == pytest.approx(0.75)
    with pytest.raises(ValueError, match="workload must be one of w, v, got 'x'"):
        compare.summary(result, "x")
    assert [figure.id for figure in compare.figures(result)] == [
        "w-validation", "w-training-loss", "w-tuning", "v-validation", "v-training-loss",
    ]  # fmt: skip


def test_ratios_are_drawn_but_none_to_a_target_that_is_missed() -> None:
    figure = compare.ratios(Result(document()))
    assert figure is not None
    steps, seconds, step, base = figure.series
    assert (list(steps.x), list(steps.y)) == (["Fast"], [pytest.approx(0.3)])
    assert list(seconds.y) == [pytest.approx(0.6)]
    assert list(step.y) == [pytest.approx(2.0)]
    assert (base.style, list(base.y)) == ("reference", [1.0])
    made = document()
    for seed in ("0", "1"):
        made["curves"][1]["runs"][seed] = [1.0] * 5
    missed = compare.ratios(Result(made))  # one of three reaches it, of the baseline two
    assert missed is not None
    assert [one.name for one in missed.series] == ["seconds a step", "Slow"]
    made["arms"], made["finals"] = made["arms"][:1], made["finals"][:3]
    assert compare.ratios(Result(made)) is None


@pytest.mark.parametrize(
    ("hits", "baseline", "shown"),
    [(3, 3, (0.9, False)), (2, 3, (0.9, True)), (2, 1, (0.9, False)), (0, 0, (None, False))],
)
def test_a_ratio_is_a_bound_where_more_runs_miss(
    hits: int, baseline: int, shown: tuple[float | None, bool]
) -> None:
    row = {"reached": f"{hits}/6", "steps_ratio": 0.9, "step_time_ratio": 2.0}
    first = {"reached": f"{baseline}/6"}
    assert compare.ratio_of(row, "steps_ratio", first) == shown
    assert compare.ratio_of(row, "step_time_ratio", first) == (2.0, False)
    assert compare.ratio_of(row, "seconds_ratio", first) == (None, False)


def test_many_arms_are_divided_over_plots_with_the_baseline_in_each() -> None:
    made = document()
    made["arms"] += [{"name": f"a{i}", "label": f"A{i}"} for i in range(6)]
    shown = [f for f in compare.figures(Result(made)) if "validation" in f.id]
    assert [f.id for f in shown] == ["validation-1", "validation-2"]
    assert [s.name for s in shown[1].series] == ["Slow", "A3", "A4", "A5", "target"]
    assert shown[1].title.endswith("(2 of 2)")


def test_a_miss_counts_as_its_own_whole_budget_in_seconds() -> None:
    made = document()
    made["curves"][1]["runs"]["2"] = [1.0] * 5
    _, fast = compare.summary(Result(made))
    # fast takes 8 s for its 40 steps, slow 4 s
    assert fast["seconds_ratio"] == pytest.approx((2.0 + 2.0 + 8.0) / (3.0 + 3.0 + 4.0))
    assert fast["steps_ratio"] == pytest.approx((10 + 10 + 40) / (30 + 30 + 40))


def test_half_of_the_runs_missing_is_a_miss() -> None:
    made = document()
    made["curves"][0]["runs"]["1"] = [1.0] * 5
    slow, _ = compare.summary(Result(made))
    assert slow["steps_to_target"] is None
    assert slow["seconds_to_target"] is None
    assert slow["reached"] == "1/3"


def test_a_metric_that_is_better_higher() -> None:
    made = document()
    made["workloads"][0]["select_direction"] = "higher"
    for run in made["finals"]:
        run["metrics"]["valid"]["error"] = 1 - run["metrics"]["valid"]["error"]
    for each in made["curves"]:
        each["runs"] = {s: [1 - v for v in values] for s, values in each["runs"].items()}
    slow, fast = compare.summary(Result(made))
    assert slow["target"] == pytest.approx(0.6)
    assert (slow["steps_to_target"], fast["steps_to_target"]) == (30, 10)


def test_diverged_runs_are_said_and_not_averaged() -> None:
    made = document()
    made["finals"][5] |= {"status": "diverged", "metrics": {}}
    made["curves"][1]["runs"]["2"] = [1.0, None, None, None, None]
    made["studies"][1]["on_edge"] = True
    _, fast = compare.summary(Result(made))
    assert fast["n"] == 3
    assert fast["error"] == pytest.approx(0.305)
    assert fast["reached"] == "2/3"
    assert fast["note"] == "1 diverged; best on the edge of its space"
    assert fast["step_time_ratio"] == pytest.approx(2.0)


def test_a_baseline_that_always_diverges_leaves_no_target() -> None:
    made = document()
    for run in made["finals"][:3]:
        run |= {"status": "diverged", "metrics": {}}
    slow, fast = compare.summary(Result(made))
    assert slow["target"] is None
    assert slow["error"] is None
    assert fast["steps_to_target"] is None
    assert fast["difference"] is None
    assert fast["steps_ratio"] is None
    assert fast["reached"] == "0/3"


def test_figures_show_curves_target_and_tunability() -> None:
    made = document()
    made["curves"][1]["mean"][-1] = None  # a run diverged: the line ends there
    valid, loss, tuning = compare.figures(Result(made))
    slow, fast, target = valid.series
    assert (slow.name, fast.name) == ("Slow", "Fast")
    assert list(slow.x) == STEPS
    assert list(fast.x) == STEPS[:-1]
    assert target.style == "reference"
    assert list(target.y) == [0.4, 0.4]
    assert loss.series[0].x == []
    assert [list(s.y) for s in tuning.series] == [[0.3, 0.2]]
    assert all(figure.caption for figure in (valid, loss, tuning))
    made["studies"] = []
    assert [figure.id for figure in compare.figures(Result(made))] == [
        "validation",
        "training-loss",
    ]


# -- the whole way ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_comparison_runs_to_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.py").write_text(USER, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    experiment = compare.experiment(
        "train.py:workload", ["sgd", "adamw", "lbfgs"], trials=2, seeds=3
    )
    result = bench.run(experiment, store=tmp_path / "runs.db", engine="serial")
    rows = {row["arm"]: row for row in compare.summary(result)}
    assert list(rows) == ["sgd", "adamw", "lbfgs"]
    for row in rows.values():
        assert row["n"] == 3
        assert math.isfinite(row["mse"])
        assert row["mse_lo"] <= row["mse"] <= row["mse_hi"]
    assert rows["lbfgs"]["evals_to_target"] > rows["lbfgs"]["steps_to_target"]
    assert rows["adamw"]["step_time_ratio"] > 0
    assert "lr" in rows["adamw"]["chosen"]
    figures = compare.figures(result)
    assert all(series.y for series in figures[0].series)
    assert all(series.y for series in figures[1].series)
    again = bench.run(experiment, store=tmp_path / "runs.db", engine="serial")
    assert compare.summary(again) == compare.summary(result)  # everything was done already
