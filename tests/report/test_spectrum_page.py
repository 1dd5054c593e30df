"""``gradworks spectrum``: measured rightly, written whole, shown with all three rules."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from gradworks.bench.events import Event
from gradworks.report import spectrum

TARGET = """
import torch

MODEL = None

def linear(seed):
    global MODEL
    g = torch.Generator().manual_seed(seed)
    MODEL = torch.nn.Linear(6, 1, bias=False)
    X = torch.randn(40, 6, generator=g)
    X[:, 0] *= 5
    return MODEL, torch.nn.functional.mse_loss, (X, X.sum(1, keepdim=True))

def batches(seed):
    model, loss_fn, (X, y) = linear(seed)
    return model, loss_fn, [({"input": X[:30]}, y[:30]), ({"input": X[30:]}, y[30:])]

def network(seed):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    X = torch.randn(60, 8)
    return model, torch.nn.functional.cross_entropy, (X, torch.arange(60) % 3)

class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad

def fused(output, target):
    return Cube.apply(output - target).square().mean()

def smooth(output, target):
    return (output - target).pow(3).square().mean()

def once(seed):
    torch.manual_seed(seed)
    model, _, data = linear(seed)
    return model, fused, data

def twice(seed):
    torch.manual_seed(seed)
    model, _, data = linear(seed)
    return model, smooth, data

def wrong(seed):
    return "nothing"
"""


@pytest.fixture
def target(tmp_path: Path) -> str:
    path = tmp_path / "net.py"
    path.write_text(TARGET)
    return str(path)


def inputs(seed: int) -> torch.Tensor:
    X = torch.randn(40, 6, generator=torch.Generator().manual_seed(seed))
    X[:, 0] *= 5
    return X


@pytest.mark.parametrize("name", ["linear", "batches"])
def test_a_linear_model_has_the_spectrum_of_its_inputs(target: str, name: str) -> None:
    X = inputs(3).double()
    expected = torch.linalg.eigvalsh(2 * X.T @ X / 40).numpy()
    measured = spectrum.measure(f"{target}:{name}", seed=3)
    document = measured.document
    assert document["method"] == "exact"
    assert document["dtype"] == "float64"
    np.testing.assert_allclose(document["eigenvalues"], expected, rtol=1e-10)
    assert document["summary"]["trace"] == pytest.approx(expected.sum())


@pytest.mark.parametrize("name", ["linear", "batches"])
@pytest.mark.parametrize("examples", [8, 33, 500])
def test_the_first_examples_only(target: str, name: str, examples: int) -> None:
    X = inputs(3).double()[:examples]
    found = spectrum.measure(f"{target}:{name}", seed=3, examples=examples).document
    expected = torch.linalg.eigvalsh(2 * X.T @ X / len(X)).numpy()
    np.testing.assert_allclose(found["eigenvalues"], expected, rtol=1e-9)
    assert found["examples"] == examples
    with pytest.raises(ValueError, match="examples must be an integer of at least 1"):
        spectrum.measure(f"{target}:{name}", examples=0)


@pytest.mark.parametrize("method", ["exact", "slq"])
def test_a_loss_without_second_derivative_is_measured_by_differences_and_says_so(
    target: str, method: str
) -> None:
    options = {"method": method, "top": 3, "num_probes": 2}
    found = spectrum.measure(f"{target}:once", **options)  # type: ignore[arg-type]
    want = spectrum.measure(f"{target}:twice", **options)  # type: ignore[arg-type]
    assert (found.document["products"], want.document["products"]) == (
        "finite differences",
        "derivatives",
    )
    assert found.document["dtype"] == "float64"
    np.testing.assert_allclose(found.document["top"], want.document["top"], rtol=1e-4)
    assert "no second derivative" in shown(found)
    assert "no second derivative" not in shown(want)


def test_the_density_integrates_to_one(target: str) -> None:
    for method in ("exact", "slq"):
        measured = spectrum.measure(f"{target}:network", method=method, num_probes=3)
        density = measured.document["density"]
        area = np.trapezoid(density["mean"], density["grid"])
        assert area == pytest.approx(1.0, abs=1e-3)


def test_quadrature_gives_the_trace_an_error_bar_that_covers(target: str) -> None:
    exact = spectrum.measure(f"{target}:network").document["summary"]["trace"]
    found = spectrum.measure(f"{target}:network", method="slq", num_probes=20).document
    summary = found["summary"]
    assert found["dtype"] == "float32"
    assert abs(summary["trace"] - exact) < 4 * summary["trace_stderr"]
    assert found["density"]["stderr"] is not None


def test_one_probe_has_no_error_bar_and_says_so(target: str) -> None:
    measured = spectrum.measure(f"{target}:network", method="slq", num_probes=1)
    assert measured.document["density"]["stderr"] is None
    json.dumps(measured.document, allow_nan=False)
    assert "no error bar" in shown(measured)


@pytest.mark.parametrize("operator", ["hessian", "ggn", "fisher"])
def test_every_matrix_can_be_asked_for(target: str, operator: str) -> None:
    measured = spectrum.measure(f"{target}:network", operator=operator, top=5)  # type: ignore[arg-type]
    assert measured.document["operator"] == operator
    if operator != "hessian":  # positive semi-definite
        assert min(measured.document["eigenvalues"]) > -1e-9


def test_progress_is_reported_to_the_end(target: str) -> None:
    events: list[Event] = []
    spectrum.measure(f"{target}:network", progress=events.append)
    assert {e.stage for e in events} == {"columns"}
    assert events[-1].done == events[-1].total
    events.clear()
    spectrum.measure(f"{target}:network", method="slq", num_probes=2, progress=events.append)
    assert {e.stage for e in events} == {"products"}
    assert events[-1].done == events[-1].total


def test_the_same_seed_gives_the_same_document(target: str) -> None:
    one = spectrum.measure(f"{target}:network", method="slq", seed=5).document
    two = spectrum.measure(f"{target}:network", method="slq", seed=5).document
    other = spectrum.measure(f"{target}:network", method="slq", seed=6).document
    assert one == two
    assert one["nodes"] != other["nodes"]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"target": "nothing-like-it"}, LookupError, "nothing-like-it"),
        ({"target": "NET:wrong"}, TypeError, "must return"),
        ({"target": "NET:absent"}, LookupError, "absent"),
        ({"target": "NET:network", "operator": "kfac"}, ValueError, "operator must be one of"),
        ({"target": "NET:network", "method": "magic"}, ValueError, "method must be one of"),
        ({"target": "NET:network", "top": 0}, ValueError, "top"),
    ],
)
def test_bad_input(
    arguments: dict[str, object], kind: type[Exception], message: str, target: str
) -> None:
    options = dict(arguments)
    name = str(options.pop("target")).replace("NET", target)
    with pytest.raises(kind, match=message):
        spectrum.measure(name, **options)  # type: ignore[arg-type]


def shown(measured: spectrum.Measured) -> str:
    console = Console(file=io.StringIO(), width=120, highlight=False)
    spectrum.show(measured, console)
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


def test_the_terminal_shows_three_rules_the_trace_and_the_rank(target: str) -> None:
    measured = spectrum.measure(f"{target}:network", method="slq", num_probes=4)
    text = shown(measured)
    for part in ("largest gap", "above 5 % of the largest", "Marchenko-Pastur", "effective rank"):
        assert part in text
    assert re.search(r"trace [−\d.]+ \(± [\d.]+, standard error over 4 probes\)", text)


def test_a_count_cut_short_is_not_given_as_the_count(target: str) -> None:
    measured = spectrum.measure(f"{target}:network", method="slq", top=3)
    rules = measured.document["splits"]
    assert rules["threshold"]["num_outliers"] == 3  # all that were computed
    assert "3 or more" in shown(measured)
    exact = spectrum.measure(f"{target}:network", top=3)
    assert "or more" not in shown(exact)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["exact", "slq"])
def test_three_files_are_written(target: str, method: str, tmp_path: Path) -> None:
    measured = spectrum.measure(f"{target}:network", method=method)  # type: ignore[arg-type]
    paths = spectrum.write(measured, tmp_path / "new" / "found.json")
    assert [p.name for p in paths] == ["found.json", "found.png", "found.html"]
    assert json.loads(paths[0].read_text()) == measured.document
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    page = paths[2].read_text(encoding="utf-8")
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!data:)', outside)  # it stands alone
    assert not re.findall(r"url\((?!\"data:)", outside)
    assert "Plotly" in page
    assert [p.name for p in (tmp_path / "new").iterdir() if p.name.startswith(".")] == []


def test_an_ending_is_added_and_a_wrong_one_refused(target: str, tmp_path: Path) -> None:
    measured = spectrum.measure(f"{target}:linear")
    with pytest.raises(ValueError, match=r"must end in \.json, got 'found\.csv'"):
        spectrum.write(measured, tmp_path / "found.csv")
    with pytest.raises(ValueError, match="is a folder"):
        spectrum.write(measured, tmp_path)
    assert spectrum.write(measured, tmp_path / "found")[0].name == "found.json"


def test_the_figure_marks_outliers_on_the_curve(target: str) -> None:
    measured = spectrum.measure(f"{target}:network")
    figure = spectrum.figure(measured.document)
    series = {s["name"]: s for s in figure["series"]}
    outliers = measured.document["splits"]["gap"]["outliers"]
    assert series["outliers by the gap rule"]["x"] == outliers
    peak = max(v for v in series["density"]["y"] if v is not None)
    for height in series["outliers by the gap rule"]["y"]:
        assert 0 < height <= peak
    assert all(v is None or v > 0 for v in series["density"]["y"])
    assert math.isfinite(peak)
