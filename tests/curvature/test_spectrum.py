"""Whole spectra: exact, by quadrature, their reports and plots."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from tests.curvature.nets import CASES, f64, golden, problem, symmetric

from gradworks.curvature.lanczos import slq, tridiagonalize
from gradworks.curvature.operators import (
    DenseOperator,
    FunctionOperator,
    GGNOperator,
    HessianOperator,
)
from gradworks.curvature.spectrum import (
    PathLoss,
    Spectrum,
    exact_spectrum,
    plot_path,
    plot_spectrum,
    spectrum,
)

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def spiked(size: int = 300, outliers: tuple[float, ...] = (4.0, 6.0, 9.0)) -> DenseOperator:
    g = torch.Generator().manual_seed(0)
    X = torch.randn(2 * size, size, generator=g, dtype=torch.float64)
    A = 0.1 * X.T @ X / (2 * size)
    Q = torch.linalg.qr(torch.randn(size, size, generator=g, dtype=torch.float64)).Q
    for i, value in enumerate(outliers):
        A = A + value * torch.outer(Q[i], Q[i])
    return DenseOperator(A)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_golden(case: dict) -> None:
    model, loss_fn, data = golden(case)
    found = exact_spectrum(HessianOperator(model, loss_fn, data), eigenvectors=True)
    torch.testing.assert_close(found.eigenvalues, f64(case["hessian_eigenvalues"]), **CLOSE)
    assert found.asymmetry < 1e-12
    H = f64(case["hessian"])
    V = found.eigenvectors
    torch.testing.assert_close(H @ V, V * found.eigenvalues, rtol=0, atol=1e-10)
    ggn = exact_spectrum(GGNOperator(model, loss_fn, data))
    torch.testing.assert_close(ggn.eigenvalues, f64(case["ggn_eigenvalues"]), **CLOSE)
    assert ggn.eigenvectors is None


def test_a_product_of_two_weights_by_hand() -> None:
    # L = (a b - 1)^2 at a = 2, b = 1: dL/da = 2 (ab - 1) b, so H = [[2, 6], [6, 8]], 5 +- 3 sqrt 5
    a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (2.0, 1.0))
    op = HessianOperator.from_closure(lambda: (a * b - 1) ** 2, [a, b])
    report, root = spectrum(op), 5**0.5
    torch.testing.assert_close(report.spectrum.eigenvalues, f64([5 - 3 * root, 5 + 3 * root]))
    assert report.summary["negative_mass"] == pytest.approx((3 * root - 5) / (6 * root))
    assert report.summary["effective_rank"] == pytest.approx(9 / 7)
    t = tridiagonalize(op, 2, start=f64([1.0, 0.0]))
    torch.testing.assert_close(t.alpha, f64([2.0, 8.0]))
    torch.testing.assert_close(t.beta, f64([6.0]))


def test_the_matrix_is_symmetrised_and_the_asymmetry_reported() -> None:
    A = symmetric(5)
    skew = torch.zeros(5, 5, dtype=torch.float64)
    skew[0, 1] = 0.25
    found = exact_spectrum(DenseOperator(A + skew))
    want = torch.linalg.eigvalsh(A + (skew + skew.T) / 2)
    torch.testing.assert_close(found.eigenvalues, want, **CLOSE)
    assert found.asymmetry == pytest.approx(0.25)
    single = exact_spectrum(DenseOperator(A.float()))
    assert single.eigenvalues.dtype == torch.float64


def test_exact_report() -> None:
    op = spiked()
    report = spectrum(op, top=8)
    values = torch.linalg.eigvalsh(op.matrix)
    assert (report.method, report.dimension, report.measure) == ("exact", 300, None)
    torch.testing.assert_close(report.top, values.flip(0)[:8], **CLOSE)
    torch.testing.assert_close(report.bottom, values[:4], **CLOSE)
    assert report.split.num_outliers == 3
    assert set(report.splits) == {"gap", "threshold", "mp"}
    assert report.summary["num_outliers_mp"] == 3
    assert report.summary["trace"] == pytest.approx(float(values.sum()))
    document = json.loads(json.dumps(report.to_dict()))
    assert document["splits"]["gap"]["num_outliers"] == 3
    assert len(document["eigenvalues"]) == 300


def test_quadrature_report_agrees_with_the_exact_one() -> None:
    op = spiked()
    exact = spectrum(op, method="exact")
    found = spectrum(op, method="slq", num_steps=60, num_probes=8)
    assert (found.method, found.spectrum) == ("slq", None)
    torch.testing.assert_close(found.top, exact.top, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.bottom, exact.bottom, rtol=1e-2, atol=1e-3)
    a, b = found.summary, exact.summary
    assert abs(a["trace"] - b["trace"]) < 4 * a["trace_stderr"]
    assert a["num_outliers_gap"] == b["num_outliers_gap"] == 3
    assert a["num_outliers_threshold"] == b["num_outliers_threshold"]
    # Nodes and weights are no eigenvalues: the edge of the bulk is known to a tenth or so.
    assert a["num_outliers_mp"] == b["num_outliers_mp"]
    for key, slack in (("largest", 1e-4), ("frobenius_norm", 0.2), ("effective_rank", 0.4)):
        assert a[key] == pytest.approx(b[key], rel=slack), key
    shares = [k for k in b if k.startswith("fraction_small")]
    assert len(shares) == 3
    for key in shares:
        assert a[key] == pytest.approx(b[key], abs=5 * a[f"{key}_stderr"] + 0.03)
    document = json.loads(json.dumps(found.to_dict()))
    assert len(document["nodes"]) == 8


def test_auto_chooses_by_size_and_counts_progress() -> None:
    d = torch.linspace(0.1, 1, 4000)
    op = FunctionOperator(lambda v: d * v, 4000)
    seen: list[tuple[int, int]] = []
    report = spectrum(
        op, num_steps=10, num_probes=2, top=2, progress=lambda d, t: seen.append((d, t))
    )
    assert report.method == "slq"
    assert seen[-1][0] == seen[-1][1]
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    small = FunctionOperator(lambda v: d[:100] * v, 100)
    assert spectrum(small).method == "exact"


def test_the_ends_take_as_many_steps_as_allowed() -> None:
    op = DenseOperator(symmetric(60))
    with pytest.warns(RuntimeWarning, match="not converged in 12 steps"):
        short = spectrum(op, method="slq", num_steps=9, num_probes=2, top=4, max_steps=12)
    whole = spectrum(
        op, method="slq", num_steps=9, num_probes=2, top=4, basis_device=torch.device("cpu")
    )
    assert float(short.top[0]) <= float(whole.top[0]) + 1e-9
    with pytest.raises(ValueError, match="max_steps must be an integer of at least 1"):
        spectrum(op, max_steps=0)


def test_a_weight_decay_is_a_shift() -> None:
    model, loss_fn, data = problem()
    decay = 0.3

    def decayed(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        penalty = sum(p.square().sum() for p in model.parameters())
        return loss_fn(output, target) + decay / 2 * penalty

    plain = exact_spectrum(HessianOperator(model, loss_fn, data)).eigenvalues
    shifted = HessianOperator(model, decayed, data)
    torch.testing.assert_close(exact_spectrum(shifted).eigenvalues, plain + decay, **CLOSE)
    torch.testing.assert_close(exact_spectrum(shifted.shift(-decay)).eigenvalues, plain, **CLOSE)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: exact_spectrum(torch.eye(2)), TypeError, "op must be a SymmetricOperator"),
        (
            lambda: exact_spectrum(DenseOperator(torch.eye(9)), max_parameters=8),
            ValueError,
            'method="slq"',
        ),
        (
            lambda: exact_spectrum(FunctionOperator(lambda v: v * torch.nan, 3)),
            FloatingPointError,
            "not finite",
        ),
        (lambda: spectrum(torch.eye(2)), TypeError, "op must be a SymmetricOperator"),
        (lambda: spectrum(spiked(), method="all"), ValueError, "auto, exact, slq"),
        (lambda: spectrum(spiked(), num_steps=0), ValueError, "num_steps"),
        (lambda: spectrum(spiked(), num_probes=0), ValueError, "num_probes"),
        (lambda: spectrum(spiked(), top=0), ValueError, "top must be an integer of at least 1"),
        (
            lambda: spectrum(FunctionOperator(lambda v: v, 20_001), method="exact"),
            ValueError,
            "20001 parameters, max_parameters is 20000",
        ),
    ],
)
def test_bad_input(act: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        act()


# ---------------------------------------------------------------- plots


def test_plots_take_and_return_axes() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    report = spectrum(spiked())
    assert plot_spectrum(report, axes, num_classes=3) is axes
    assert axes.get_yscale() == "log"
    assert axes.get_legend().get_texts()[0].get_text() == "number 3 from top"
    measure = slq(spiked(), num_steps=20, num_probes=3)
    assert plot_spectrum(measure).get_ylabel() == "density"
    assert plot_spectrum(slq(spiked(), num_steps=20, num_probes=1), sigma=0.1) is not None
    slow = spectrum(spiked(), method="slq", num_steps=20, num_probes=2)
    assert plot_spectrum(slow).get_ylabel() == "density"
    assert plot_spectrum(Spectrum(f64([1.0, 2.0]))).get_ylabel() == "number of eigenvalues"
    with pytest.raises(TypeError, match="found must be a SpectrumReport"):
        plot_spectrum([1.0])
    path = PathLoss(f64([0, 1]), f64([1, 2]), 0.0, 0.0)
    assert math.isnan(path.distance)
    axes = Figure().add_subplot()
    assert plot_path({"A to B": path, "A to C": path}, axes) is axes
    assert len(axes.get_lines()) == 2


def test_plots_say_what_to_install() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.figure'] = None\n"
        "import torch\n"
        "from gradworks.curvature.spectrum import plot_spectrum\n"
        "try:\n    plot_spectrum(torch.ones(3))\n"
        "except ImportError as error:\n    print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "gradworks[plots]"' in out.stdout
