"""Workloads: splits, standardisation, initial weights, and what users may name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradworks.bench import data, measures, models, workloads
from gradworks.bench.workloads import Problem, UnknownTarget

ABSENT = {row["name"] for row in data.installed() if not row["here"]}


def problem(name: str, seed: int = 0) -> Problem:
    needed = {d.partition(":")[0] for d in workloads._RECIPES[name].data}
    if needed & ABSENT:
        pytest.skip(f"needs: gradworks data install {' '.join(needed)}")
    return workloads.problem(name, seed)


def rows(inputs: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in inputs}


# -- the named ones --------------------------------------------------------------------------------


def test_names_need_no_torch() -> None:
    code = (
        "import sys; from gradworks.bench import workloads; assert len(workloads.NAMES) >= 10;"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", workloads.NAMES)
def test_named_problem_is_whole(name: str) -> None:
    made = problem(name)
    model = made.model(torch.Generator().manual_seed(0))
    for inputs, targets in (made.train, made.valid, made.test):
        assert torch.isfinite(inputs).all()
        output = model(inputs[:8])
        loss = made.loss_fn(output, targets[:8])
        assert loss.shape == ()
        assert torch.isfinite(loss)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad():
        value = float(made.metric(model.eval()(made.test[0]), made.test[1]))
    if made.metric_name == "nats":  # untrained: nearly even over the characters
        assert value == pytest.approx(np.log(output.shape[-1]), abs=0.3)
    else:
        assert 0 <= value < 2
        n = [len(split[1]) for split in (made.train, made.valid, made.test)]
        assert n[1] == n[2]
        assert n[0] / sum(n) == pytest.approx(0.6, abs=0.01)
    assert workloads.describe(name)
    assert made.data == workloads._RECIPES[name].data


def test_architectures_are_what_their_names_say() -> None:
    def layers(name: str, kind: type[nn.Module]) -> int:
        model = problem(name).model(torch.Generator())
        return sum(isinstance(m, kind) for m in model.modules())

    assert layers("digits-cnn", nn.Conv2d) == layers("digits-cnn", nn.BatchNorm2d) == 3
    resnet = problem("digits-resnet").model(torch.Generator())
    spatial = [m for m in resnet.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(spatial) == 8
    assert layers("digits-layernorm", nn.LayerNorm) == 2
    assert layers("breast-cancer-logistic", nn.Linear) == 1


@pytest.mark.parametrize("labelled", [True, False])
def test_splits_are_disjoint_complete_and_the_test_rows_fixed(labelled: bool) -> None:
    n = 500
    labels = np.repeat([0, 1], [450, 50]) if labelled else None
    seen = [workloads.split_rows(labels, n, seed) for seed in range(3)]
    for train, valid, test in seen:
        assert sorted(np.concatenate([train, valid, test]).tolist()) == list(range(n))
        assert (len(train), len(valid), len(test)) == (300, 100, 100)
        if labels is not None:  # the minority is in each part as in the whole
            assert [int(labels[part].sum()) for part in (train, valid, test)] == [30, 10, 10]
    assert all(np.array_equal(seen[0][2], other[2]) for other in seen)
    assert not np.array_equal(np.sort(seen[0][0]), np.sort(seen[1][0]))
    again = workloads.split_rows(labels, n, 1)
    assert all(np.array_equal(a, b) for a, b in zip(seen[1], again))


def test_no_example_is_in_two_splits() -> None:
    made = problem("breast-cancer-logistic")
    train, valid, test = (rows(s[0]) for s in (made.train, made.valid, made.test))
    assert not (train & valid)
    assert not (train & test)
    assert not (valid & test)


def test_standardised_on_training_data_only() -> None:
    made = problem("breast-cancer-logistic", 3)
    train = made.train[0].double()
    torch.testing.assert_close(
        train.mean(dim=0), torch.zeros(30, dtype=torch.float64), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        train.std(dim=0, correction=0), torch.ones(30, dtype=torch.float64), atol=1e-5, rtol=0
    )
    assert made.valid[0].mean(dim=0).abs().max() > 1e-3  # its own mean was not used
    image = problem("digits-cnn").train[0].double()
    assert abs(image.mean()) < 1e-5
    assert abs(image.std(correction=0) - 1) < 1e-5
    targets = problem("diabetes-mlp").train[1].double()
    assert abs(targets.mean()) < 1e-5


def test_weights_come_from_the_generator_alone() -> None:
    made = problem("digits-resnet")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = made.model(torch.Generator().manual_seed(7))
    assert torch.equal(torch.get_rng_state(), before)  # the global state was not moved
    torch.manual_seed(2)  # ... nor read
    second = made.model(torch.Generator().manual_seed(7))
    other = made.model(torch.Generator().manual_seed(8))
    for a, b in zip(first.state_dict().values(), second.state_dict().values()):
        assert torch.equal(a, b)
    assert not torch.equal(first[0].weight, other[0].weight)


def test_initial_weights_follow_torchs_rule() -> None:
    model = models.mlp(400, (300,), 10)(torch.Generator().manual_seed(0))
    own = nn.Linear(400, 300)
    ours = model[1]
    assert ours.weight.std().item() == pytest.approx(own.weight.std().item(), rel=0.02)
    assert ours.weight.abs().max() <= 1 / 20
    assert ours.bias.abs().max() <= 1 / 20


def test_a_layer_without_a_rule_is_refused() -> None:
    with pytest.raises(TypeError, match="layer '0' is a Bilinear"):
        models.initialised(lambda: nn.Sequential(nn.Bilinear(3, 2, 2)), torch.Generator())


def test_measures_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    assert measures.class_error(logits, torch.tensor([0, 1, 1])) == pytest.approx(1 / 3)
    output = torch.tensor([[1.0], [-1.0], [-2.0], [3.0]])
    target = torch.tensor([[1.0], [1.0], [0.0], [1.0]])
    assert measures.binary_error(output, target) == pytest.approx(1 / 4)
    assert measures.balanced_error(output, target) == pytest.approx((1 / 3 + 0) / 2)
    values = torch.tensor([[1.0], [2.0], [3.0]])
    assert measures.unexplained(values, values) == 0
    assert measures.unexplained(torch.full((3, 1), 2.0), values) == pytest.approx(1.0)


# -- what users name -------------------------------------------------------------------------------

USER = """
import torch
from gradworks.bench import Problem

def split(n):
    x = torch.linspace(-1, 1, n).unsqueeze(1)
    return x, 2 * x

def workload(seed):
    return Problem(
        name=f"line-{seed}", model=lambda generator: torch.nn.Linear(1, 1), train=split(20),
        valid=split(9), test=split(9), loss_fn=torch.nn.functional.mse_loss,
        metric=torch.nn.functional.mse_loss, metric_name="mse", batch_size=5, steps=10,
    )

def plain():
    return workload(5)

def wrong():
    return 3

def short():
    return torch.nn.Linear(1, 1), torch.nn.functional.mse_loss

def curvature(seed=0):
    return torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, split(4)

def not_callable():
    return torch.nn.Linear(1, 1), "mse", split(4)

NUMBER = 3
"""


@pytest.fixture
def user(tmp_path: Path) -> str:
    path = tmp_path / "train.py"
    path.write_text(USER, encoding="utf-8")
    return str(path)


def test_user_file_with_and_without_a_seed(user: str) -> None:
    assert workloads.problem(f"{user}:workload", 4).name == "line-4"
    assert workloads.problem(f"{user}:plain", 4).name == "line-5"


def test_user_module_in_the_current_folder(
    user: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine_for_test.py").write_text(USER, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert workloads.problem("mine_for_test:workload", 1).name == "line-1"
    assert workloads.problem("train.py:workload", 1).name == "line-1"
    assert sys.path == before


def test_an_edited_file_is_read_again(user: str) -> None:
    assert workloads.resolve(f"{user}:NUMBER") == 3
    Path(user).write_text("NUMBER = 44", encoding="utf-8")
    assert workloads.resolve(f"{user}:NUMBER") == 44


def test_a_file_imports_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_for_test.py").write_text("VALUE = 7", encoding="utf-8")
    (tmp_path / "main.py").write_text("from neighbour_for_test import VALUE", encoding="utf-8")
    assert workloads.resolve(f"{tmp_path}/main.py:VALUE") == 7


BAD = [
    ("digits-cn", UnknownTarget, "did you mean digits-cnn"),
    ("whatever", UnknownTarget, "your own is module:function or path.py:function"),
    (":workload", ValueError, "module:function or path.py:function"),
    ("train.py:", ValueError, "module:function or path.py:function"),
    ("{missing}.py:workload", FileNotFoundError, "there is no file"),
    ("no_such_module_here:workload", UnknownTarget, "there is no module 'no_such_module_here'"),
    ("{user}:workloda", UnknownTarget, "did you mean workload"),
    ("{user}:wrong", TypeError, r"must return a gradworks\.bench\.Problem, got int"),
    ("{user}:NUMBER", TypeError, "must be a function, got int"),
]


@pytest.mark.parametrize(("target", "error", "fragment"), BAD)
def test_bad_targets(
    target: str, error: type[Exception], fragment: str, user: str, tmp_path: Path
) -> None:
    given = target.format(user=user, missing=tmp_path / "missing")
    with pytest.raises(error, match=fragment):
        workloads.problem(given)


def test_a_file_that_fails_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import torhc", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"broken\.py failed: ModuleNotFoundError: .*torhc"):
        workloads.resolve(f"{tmp_path}/broken.py:f")
    (tmp_path / "broken.py").write_text("1 / 0", encoding="utf-8")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        workloads.resolve(f"{tmp_path}/broken.py:f")


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({"train": (torch.zeros(3, 1), torch.zeros(2, 1))}, "train must hold as many inputs"),
        ({"valid": (torch.zeros(0, 1), torch.zeros(0, 1))}, "valid must hold as many inputs"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"train_rows": 0}, "train_rows must be at least 1, got 0"),
        ({"direction": "up"}, "'lower' or 'higher', got 'up'"),
    ],
)
def test_problem_refuses(change: dict[str, object], fragment: str) -> None:
    split = (torch.zeros(3, 1), torch.zeros(3, 1))
    good = {
        "name": "x",
        "model": lambda generator: nn.Linear(1, 1),
        "train": split,
        "valid": split,
        "test": split,
        "loss_fn": nn.functional.mse_loss,
        "metric": nn.functional.mse_loss,
    }
    Problem(**good)
    with pytest.raises(ValueError, match=fragment):
        Problem(**{**good, **change})


# -- for curvature ---------------------------------------------------------------------------------


def test_curvature_target_of_a_name_is_deterministic() -> None:
    model, loss_fn, (inputs, targets) = workloads.curvature_target("digits-mlp", 1)
    again, _, _ = workloads.curvature_target("digits-mlp", 1)
    assert torch.equal(model[1].weight, again[1].weight)
    assert torch.isfinite(loss_fn(model(inputs), targets))
    other, _, _ = workloads.curvature_target("digits-mlp", 2)
    assert not torch.equal(model[1].weight, other[1].weight)


def test_curvature_target_of_a_user(user: str) -> None:
    model, _, batch = workloads.curvature_target(f"{user}:curvature")
    assert isinstance(model, nn.Module)
    assert len(batch) == 2
    assert len(workloads.curvature_target(f"{user}:workload", 2)) == 3


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("wrong", r"must return \(model, loss_fn, data\) .* got int"),
        ("short", "got a tuple of 2"),
        ("not_callable", "loss_fn must be callable, got str"),
    ],
)
def test_curvature_target_refuses(user: str, name: str, fragment: str) -> None:
    with pytest.raises(TypeError, match=fragment):
        workloads.curvature_target(f"{user}:{name}")
    with pytest.raises(UnknownTarget, match="digits-mlp"):
        workloads.curvature_target("digits-mpl")
