"""Parity with the authors' functions: criteria, density, normalisation, planes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.nets import f64
from torch import Tensor, nn

from gradworks.curvature.lanczos import SpectralMeasure
from gradworks.curvature.landscape import (
    esd_curve,
    hessian_criteria,
    legacy_grid,
    loss_line,
    loss_plane,
    normalize_direction,
)

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "loss-landscape" / "lla.json").read_text()
)
PLANE = GOLDEN["plane"]
STEPS = PLANE["steps"]


def named(tensors: list[Any]) -> dict[str, Tensor]:
    return {str(i): f64(t) for i, t in enumerate(tensors)}


def measure(case: dict[str, Any]) -> SpectralMeasure:
    nodes = [f64(t) for t in case["eigenvalues"]]
    return SpectralMeasure(nodes, [f64(w) for w in case["weights"]], len(nodes[0]))


def net() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    model = nn.Sequential(nn.Linear(3, 4), ACTIVATION(), nn.Linear(4, 2)).double()
    for p, value in zip(model.parameters(), PLANE["state"]):
        p.data = f64(value)
    return model, (f64(PLANE["x"]), torch.tensor(PLANE["y"]))


def direction(model: nn.Module, key: str) -> dict[str, Tensor]:
    return {n: f64(v) for (n, _), v in zip(model.named_parameters(), PLANE[key])}


ACTIVATION: Any = nn.Tanh


@pytest.mark.parametrize("case", GOLDEN["criteria"], ids=lambda c: f"n={c['n']}")
def test_criteria(case: dict[str, Any]) -> None:
    found = hessian_criteria(measure(case), case["n"])
    assert found.re == pytest.approx(case["re"], rel=1e-12)
    assert found.kh == pytest.approx(case["Khn"], rel=1e-12)
    assert found.num_probes == 2
    assert found.num_steps == (6, 6)


def test_density() -> None:
    case = GOLDEN["density"]
    grid, density = esd_curve(
        measure(GOLDEN["criteria"][0]),
        num_bins=case["num_bins"],
        variance=case["s2"],
        margin=case["ext"],
    )
    torch.testing.assert_close(grid[[0, -1]], f64(case["grid_first_last"]), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(density, f64(case["density"]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("rule", "order"),
    [("filter", 1), ("filter", 2), ("layer", 1), ("layer", 2), ("weight", 2)],
)
def test_normalisation(rule: Any, order: Any) -> None:
    case = GOLDEN["normalise"]
    reference, given = named(case["reference"]), named(case["direction"])
    if order == 1:  # their norm of order 1 sums signed entries: right for absolute ones only
        reference = {n: t.abs() for n, t in reference.items()}
    want = named(case["result"][f"{rule}_L{order}"])
    found = normalize_direction(given, reference, rule, order=order)
    # They add 1e-10 to each filter's norm.
    tolerance = 1e-9 if rule == "filter" else 1e-12
    for name, t in want.items():
        torch.testing.assert_close(found[name], t, rtol=tolerance, atol=1e-12)


@pytest.mark.parametrize("vectorize", ["never", "always"])
@pytest.mark.parametrize("rule", [None, "filter", "layer", "weight"])
def test_planes(rule: Any, vectorize: Any) -> None:
    model, data = net()
    a, b = (
        normalize_direction(direction(model, key), model, rule, order=2) for key in ("a1", "a2")
    )
    alpha, beta = legacy_grid(STEPS, PLANE["distance"])
    plane = loss_plane(
        model, F.cross_entropy, data, a, b, alphas=alpha, betas=beta, vectorize=vectorize
    )
    want = f64(PLANE["grids"][str(rule)])
    tolerance = 1e-9 if rule == "filter" else 1e-12
    torch.testing.assert_close(plane.loss, want, rtol=tolerance, atol=1e-12)


def test_the_exact_centred_grid_is_another_one() -> None:
    """The shifted rows matter: our own grid does not reproduce theirs."""
    model, data = net()
    alpha, _ = legacy_grid(STEPS)
    plane = loss_plane(
        model,
        F.cross_entropy,
        data,
        direction(model, "a1"),
        direction(model, "a2"),
        alphas=alpha,
        betas=alpha,
    )
    theirs = f64(PLANE["grids"]["None"])
    assert (plane.loss - theirs).abs()[0::2].min() > 1e-3  # even rows: shifted
    torch.testing.assert_close(plane.loss[1::2], theirs[1::2], rtol=1e-12, atol=1e-12)


def test_adam_plane_row_zero_and_the_drift_of_the_others() -> None:
    model, data = net()
    # Their wrapper divides both directions by the number of steps before the moments are used.
    first = {n: t / STEPS for n, t in direction(model, "a1").items()}
    second = {n: (t.abs() + 0.1) / STEPS for n, t in direction(model, "a2").items()}
    alpha = -1 + 2 * torch.arange(STEPS, dtype=torch.float64) / STEPS
    beta = 0.1 + 2 * torch.arange(STEPS, dtype=torch.float64) / STEPS
    theirs = f64(PLANE["grids"]["adameq"])
    plane = loss_plane(
        model, F.cross_entropy, data, first, second, alphas=alpha, betas=beta, rule="adam"
    )
    torch.testing.assert_close(plane.loss[0], theirs[0], rtol=1e-12, atol=1e-12)
    # Each later row starts where the last step of the row before was taken back twice.
    k = alpha[:, None] / beta.sqrt()
    drift = torch.cat([torch.zeros(1).double(), k[:-1, -1].cumsum(0)])
    step = {n: t / (second[n].sqrt() + 1e-6) for n, t in first.items()}
    drifted = loss_line(model, F.cross_entropy, data, step, alphas=(k - drift[:, None]).flatten())
    torch.testing.assert_close(drifted.loss.view(STEPS, STEPS), theirs, rtol=1e-12, atol=1e-12)
    assert (plane.loss[1:] - theirs[1:]).abs().max() > 1e-3
