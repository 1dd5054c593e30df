"""Distances of Hessians, the transfer measure and its bound, and the report of attributes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curvature.alignment_cases import CASES, CLOSE, domains, f64, stored, through
from torch import Tensor

from gradworks.curvature.alignment import (
    HGPAlignment,
    alignment_report,
    domain_losses,
    fishr_penalty,
    head_gradient,
    head_hessian,
    hessian_distance,
    irm_penalty,
    transfer_measure,
    vrex_penalty,
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c["sizes"]))
def test_stored_spectral_distances(case: dict) -> None:
    net, x, y = stored(case)
    features, logits = through(net, x)
    found = hessian_distance(features, logits, y)
    torch.testing.assert_close(found, f64(case["pairwise_hessian_spectral_distance"]), **CLOSE)
    assert not found.requires_grad


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", ["spectral", "frobenius"])
def test_distances_are_norms_of_dense_differences(
    classes: int, bias: bool, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (z, a, y), _ = domains((5, 3, 4), classes, 3, bias=bias)
    H = [head_hessian(*d, bias=bias).detach() for d in zip(z, a, y)]
    order = 2 if norm == "spectral" else "fro"
    want = torch.stack(
        [torch.stack([torch.linalg.matrix_norm(A - B, order) for A in H]) for B in H]
    )
    found = hessian_distance(z, a, y, norm=norm, bias=bias)
    torch.testing.assert_close(found, want, **CLOSE)
    # large heads: inner products of rows, in pieces, with some cancellation
    monkeypatch.setattr("gradworks.curvature.alignment.distances._DENSE", 0)
    monkeypatch.setattr("gradworks.curvature.alignment.distances._CHUNK", 2)
    found = hessian_distance(z, a, y, norm=norm, bias=bias)
    torch.testing.assert_close(found, want, rtol=1e-7, atol=1e-7)


def test_identical_domains_are_at_no_distance() -> None:
    (z, a, y), _ = domains((5, 5))
    for norm in ("spectral", "frobenius"):
        assert not hessian_distance([z[0]] * 2, [a[0]] * 2, [y[0]] * 2, norm=norm).any()
    report = alignment_report([z[0]] * 2, [a[0]] * 2, [y[0]] * 2)
    assert all(v.relative < 1e-7 for v in report.attributes.values())


def pair(z: list[Tensor], a: list[Tensor], y: list[Tensor]) -> tuple:
    return tuple(z[:2]), tuple(a[:2]), tuple(y[:2])


@settings(max_examples=15)
@given(
    classes=st.integers(1, 4),
    radius=st.floats(0.01, 10),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_bound_holds_at_every_radius(
    classes: int, radius: float, bias: bool, seed: int
) -> None:
    (z, a, y), _ = domains((4, 6), classes, 3, seed=seed, bias=bias)
    found = transfer_measure(*pair(z, a, y), radius=radius, bias=bias, steps=10)
    assert 0 <= found.value <= found.bound
    assert found.bound == found.first_order + found.second_order + found.remainder
    assert found.second_order == pytest.approx(0.5 * radius**2 * found.distance)


@pytest.mark.parametrize("classes", [1, 3])
def test_parts_of_the_bound(classes: int) -> None:
    (z, a, y), _ = domains((4, 6), classes, 3)
    found = transfer_measure(*pair(z, a, y), radius=0.5, steps=5)
    H, g = ([f(*d).detach() for d in zip(z, a, y)] for f in (head_hessian, head_gradient))
    want = float(torch.linalg.matrix_norm(H[1] - H[0], 2))
    assert found.distance == pytest.approx(want, rel=1e-9)
    assert found.first_order == pytest.approx(0.5 * float((g[1] - g[0]).norm()), rel=1e-12)


@pytest.mark.parametrize("classes", [1, 3])
def test_with_equal_gradients_the_papers_term_is_tight_for_small_radii(classes: int) -> None:
    # Every row once with each label: at zero logits the mean residual vanishes, so both gradients
    # are zero, and the target's features are longer: its Hessian is above.
    (z, a, _), _ = domains((1, 1), classes, 3)
    labels = torch.arange(max(classes, 2))
    near = z[0].expand(len(labels), 3)
    flat = a[0].new_zeros(len(labels), classes)
    given_ = ((near, 2 * near), (flat, flat), (labels, labels))
    ratios = []
    for radius in (0.1, 0.01, 0.001):
        found = transfer_measure(*given_, radius=radius)
        assert found.first_order < 1e-12
        assert found.value <= found.bound
        ratios.append(found.value / found.second_order)
    assert ratios[-1] == pytest.approx(1, abs=1e-3)
    assert abs(ratios[2] - 1) < abs(ratios[1] - 1) < abs(ratios[0] - 1)


def test_the_measure_of_a_domain_with_itself_is_zero() -> None:
    (z, a, y), _ = domains((4, 4))
    found = transfer_measure((z[0],) * 2, (a[0],) * 2, (y[0],) * 2, radius=1.0)
    assert found.value == found.first_order == found.second_order == 0
    assert found.remainder > 0


def test_the_search_finds_what_many_random_heads_do_not_beat() -> None:
    (z, a, y), head = domains((6, 6), 3, 3)
    found = transfer_measure(*pair(z, a, y), radius=2.0)
    g = torch.Generator().manual_seed(0)
    best = 0.0
    for _ in range(500):
        step = torch.randn(12, generator=g, dtype=torch.float64)
        step *= 2.0 / step.norm()
        moved = [v @ (head.weight + step[:9].view(3, 3)).mT + head.bias + step[9:] for v in z]
        rise = (domain_losses(moved, y) - domain_losses(a, y)).detach()
        best = max(best, float(rise[1] - rise[0]))
    assert found.value > best


@pytest.mark.parametrize("classes", [1, 3])
def test_attributes_are_what_the_methods_match(classes: int) -> None:
    (z, a, y), _ = domains((6, 4), classes, 3)
    a = [b.detach() for b in a]
    report = alignment_report(z, a, y)
    between = {name: float(v.distances[0, 1]) for name, v in report.attributes.items()}
    # two domains: each is half the distance away from the mean
    g = HGPAlignment()(z, a, y).gradient
    total = (between["error"] ** 2 + between["error x feature"] ** 2) / 4
    assert float(g) == pytest.approx(total, rel=1e-12)
    assert float(vrex_penalty(domain_losses(a, y))) == pytest.approx(between["loss"] ** 2 / 4)
    want = between["gradient variance"] ** 2 / 4
    assert float(fishr_penalty(z, a, y)) == pytest.approx(want, rel=1e-12)
    blocks = [between[n] for n in report.attributes if n.startswith("confidence")]
    whole = hessian_distance(z, a, y, norm="frobenius")[0, 1]
    squares = blocks[0] ** 2 + 2 * blocks[1] ** 2 + blocks[2] ** 2
    assert float(whole) == pytest.approx(math.sqrt(squares), rel=1e-7)


def test_irm_is_a_projection_of_the_gradient() -> None:
    (z, a, y), head = domains((6, 4), 3, 3)
    theta = torch.cat([head.weight.flatten(), head.bias])
    parts = [(theta @ head_gradient(*d)).square() for d in zip(z, a, y)]
    torch.testing.assert_close(irm_penalty(a, y), torch.stack(parts).mean(), **CLOSE)
    report = alignment_report(z, a, y)
    derivatives = torch.stack([theta @ head_gradient(*d) for d in zip(z, a, y)]).detach()
    want = float((derivatives[0] - derivatives[1]).abs())
    assert float(report["scale"].distances[0, 1]) == pytest.approx(want, rel=1e-12)


def test_the_report_names_what_a_shift_moves() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(200, 3, generator=g, dtype=torch.float64)
    logits = torch.zeros(200, 2, dtype=torch.float64)
    half = torch.arange(200) % 2
    moved = alignment_report([z, z + 1], [logits] * 2, [half] * 2)
    assert moved["feature mean"].relative > 0.5
    assert moved["feature covariance"].relative < 1e-12
    assert moved["labels"].relative == moved["confidence"].relative == 0
    labels = alignment_report([z, z], [logits] * 2, [half, half * 0])
    assert labels["labels"].relative > 0.3
    assert labels["error"].relative > 0.3
    assert labels["confidence x feature^2"].relative == 0
    longer = alignment_report([z, 2 * z], [logits] * 2, [half] * 2)
    assert longer["confidence x feature^2"].relative > 0.5 > longer["confidence"].relative


def test_the_report_prints_a_table() -> None:
    (z, a, y), _ = domains()
    lines = str(alignment_report(z, a, y)).splitlines()
    assert lines[0].split() == ["attribute", "relative", "distance", "matched", "by"]
    assert len(lines) == 13
    assert any("V-REx" in line for line in lines)


@pytest.mark.parametrize(
    ("settings_", "fragment"),
    [
        ({"radius": 0.0}, "radius must be above 0"),
        ({"radius": math.nan}, "radius must be above 0"),
        ({"radius": 1.0, "steps": 0}, "steps must be an integer of at least 1"),
        ({"radius": 1.0, "starts": -1}, "starts must be an integer of at least 0"),
    ],
)
def test_bad_settings_of_the_measure(settings_: dict, fragment: str) -> None:
    (z, a, y), _ = domains()
    with pytest.raises(ValueError, match=fragment):
        transfer_measure(*pair(z, a, y), **settings_)


def test_bad_input_of_the_measures() -> None:
    (z, a, y), _ = domains()
    with pytest.raises(ValueError, match="source and target, got 3"):
        transfer_measure(tuple(z), tuple(a), tuple(y), radius=1.0)
    with pytest.raises(ValueError, match="norm must be 'spectral' or 'frobenius', got 'nuclear'"):
        hessian_distance(z, a, y, norm="nuclear")
    for function in (hessian_distance, alignment_report):
        with pytest.raises(ValueError, match="at least two domains"):
            function(z[:1], a[:1], y[:1])
        with pytest.raises(ValueError, match=r"features\[0\] has NaN"):
            function([z[0] * math.nan, *z[1:]], a, y)
