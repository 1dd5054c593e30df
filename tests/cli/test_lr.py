"""``lr`` and its page: measured rightly, proposed by the rules, written whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cli.conftest import Call

from gradworks.report import proposed, rates

TARGET = """
import torch

def linear(seed):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(300, 12, generator=g).double()
    X[:, 0] *= 2
    model = torch.nn.Linear(12, 1, bias=False).double()
    return model, torch.nn.functional.mse_loss, (X, X.sum(1, keepdim=True))

def tiny(seed):
    model, loss_fn, (X, y) = linear(seed)
    return model, loss_fn, (X[:6], y[:6])

class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * (1 - ctx.saved_tensors[0].tanh() ** 2)

class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(12, 1).double()

    def forward(self, x):
        return Once.apply(self.layer(x))

def once(seed):
    _, loss_fn, (X, y) = linear(seed)
    torch.manual_seed(seed)
    return Layer(), loss_fn, (X, y.tanh())

def wrong(seed):
    return "nothing"
"""


@pytest.fixture(autouse=True)
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(TARGET)
    return path


def top(seed: int) -> float:
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(300, 12, generator=g).double()
    X[:, 0] *= 2
    return float(torch.linalg.eigvalsh(2 * X.T @ X / 300)[-1])


def test_the_document_holds_what_was_measured(call: Call) -> None:
    done = call("lr", "net.py:linear", "--batch-size", 16, "--to", 256, "--seed", 3, "--json", "-q")
    assert done.code == 0, done.err
    found = done.json
    assert found["lambda_max"] == pytest.approx(top(3), rel=1e-6)
    assert found["dataset_size"] == 300
    assert found["noise"] > 0
    assert found["saturation_batch"] == pytest.approx(found["noise"] / found["lambda_max"] ** 2)
    assert [row["batch_size"] for row in found["rates"]] == [16, 32, 64, 128, 256]
    first, last = found["rates"][0], found["rates"][-1]
    assert first["proposed"] == pytest.approx(1 / first["eigenvalue"])
    assert last["half_bound"] == pytest.approx(1 / last["eigenvalue"])
    assert last["scaled"] == pytest.approx(16 * first["proposed"])
    assert last["capped"]
    assert last["proposed"] == pytest.approx(last["half_bound"])
    assert last["half_bound_low"] < last["half_bound"] < last["half_bound_high"]


def test_both_names_do_the_same(call: Call) -> None:
    words = ["net.py:linear", "--batch-size", "16", "--repeats", "2", "--json", "-q"]
    assert call("lr", *words).json == call("learning-rate", *words).json


def test_ones_own_rate_is_carried_over_as_far_as_the_bound(call: Call) -> None:
    words = ["lr", "net.py:linear", "--repeats", 2, "--json", "-q", "--batch-size", 16]
    small = call(*words, "--to", 32, "--lr", 0.001).json["rates"][-1]
    assert (small["proposed"], small["capped"]) == (pytest.approx(0.002), False)
    large = call(*words, "--to", 256, "--lr", 5.0).json["rates"]
    assert large[0]["proposed"] == 5.0  # it is said to work
    assert large[-1]["proposed"] == 5.0  # and no more than that is promised
    down = call(*words, "--to", 4, "--lr", 0.001).json["rates"]
    assert [row["batch_size"] for row in down] == [16, 8, 4]
    assert down[-1]["proposed"] == pytest.approx(0.00025)


def test_adam_goes_with_the_root(call: Call) -> None:
    words = ["lr", "net.py:linear", "--optimizer", "adam", "--batch-size", 16, "--to", 64]
    found = call(*words, "--repeats", 2, "--json", "-q").json
    assert [row["proposed"] for row in found["rates"]] == [
        pytest.approx(0.001 * f) for f in (1, 2**0.5, 2)
    ]
    assert found["rates"][0]["bound"] is None
    shown = call(*words, "--repeats", 2, "--lr", 0.01)
    assert "Curvature gives Adam no rate of its own" in " ".join(shown.out.split())
    assert "0.02" in shown.out


def test_momentum_widens_the_bound(call: Call) -> None:
    words = ["lr", "net.py:linear", "--batch-size", 16, "--repeats", 2, "--json", "-q"]
    plain, heavy = (call(*words, "--momentum", m).json["rates"][0] for m in (0.0, 0.5))
    assert heavy["bound"] == pytest.approx(1.5 * plain["bound"])


def test_the_terminal_names_every_number(call: Call) -> None:
    done = call("lr", "net.py:linear", "--batch-size", 16, "--to", 64)
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    for part in ("largest eigenvalue", "noise", "saturation", "linear rule", "proposed", "capped"):
        assert part in text
    quiet = call("lr", "net.py:linear", "--batch-size", 16, "--repeats", 1, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_small_data_are_measured_at_sizes_that_they_hold(call: Call) -> None:
    found = call("lr", "net.py:tiny", "--batch-size", 2, "--json", "-q").json
    assert [row["batch_size"] for row in found["table"]] == [1, 3]


def test_without_a_second_derivative_by_differences(call: Call) -> None:
    found = call("lr", "net.py:once", "--batch-size", 16, "--repeats", 2, "--json", "-q").json
    assert found["products"] == "finite differences"
    assert found["lambda_max"] > 0
    shown = call("lr", "net.py:once", "--batch-size", 16, "--repeats", 1)
    assert "no second derivative" in " ".join(shown.out.split())


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_two_files_are_written(call: Call, optimizer: str) -> None:
    words = ["--optimizer", optimizer, "--batch-size", 16, "--to", 64, "--out", "new/found.json"]
    done = call("lr", "net.py:linear", *words, "--json", "-q")
    assert done.code == 0, done.err
    assert json.loads(Path("new/found.json").read_text()) == done.json
    assert Path("new/found.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in Path("new").iterdir()) == [
        "found.html",
        "found.json",
        "found.png",
    ]


def test_the_figure_has_the_law_the_measurements_and_the_proposal(net: Path) -> None:
    proposal = rates.measure(f"{net}:linear", batch_size=16, to=128)
    drawn = {s["name"]: s for s in proposed.figure(proposal.document)["series"]}
    curve = drawn["half of the bound, from the law"]
    assert all(a <= b for a, b in zip(curve["y"], curve["y"][1:]))
    assert curve["lo"][0] < curve["y"][0] < curve["hi"][0]
    seen = drawn["half of the bound, from measured batches"]
    assert seen["y"] == [pytest.approx(1 / row.top) for row in proposal.model.table]
    assert drawn["proposed"]["x"] == [16, 32, 64, 128]


def test_progress_is_told_to_the_end(net: Path) -> None:
    events: list[Any] = []
    rates.measure(f"{net}:linear", batch_size=16, repeats=1, progress=events.append)
    assert events[-1].done == events[-1].total
    assert {e.stage for e in events} == {"products"}


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["net.py:wrong", "--batch-size", "8"], "net.py:wrong"),
        (["net.py:absent", "--batch-size", "8"], "absent"),
        (["no-such-workload", "--batch-size", "8"], "no-such-workload"),
        (["net.py:linear"], "--batch-size"),
        (["net.py:linear", "--batch-size", "0"], "--batch-size"),
        (["net.py:linear", "--batch-size", "301"], "at most dataset_size 300"),
        (["net.py:linear", "--batch-size", "8", "--to", "301"], "to must be at most"),
        (["net.py:linear", "--batch-size", "8", "--to", "0"], "--to"),
        (["net.py:linear", "--batch-size", "8", "--optimizer", "lion"], "lion"),
        (["net.py:linear", "--batch-size", "8", "--lr", "0"], "lr must be above 0"),
        (["net.py:linear", "--batch-size", "8", "--momentum", "1"], "momentum must be in"),
        (["net.py:linear", "--batch-size", "8", "--full-size", "301"], "full_size"),
        (["net.py:linear", "--batch-size", "8", "--repeats", "0"], "--repeats"),
        (["net.py:linear", "--batch-size", "8", "--out", "found.csv"], "must end in .json"),
    ],
)
def test_bad_input(call: Call, words: list[str], fragment: str) -> None:
    done = call("lr", *words, "--quiet")
    assert done.code == 2
    assert fragment in done.words
    assert "Traceback" not in done.err
