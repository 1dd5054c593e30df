"""Hessian alignment: what is refused, and in which words."""

from __future__ import annotations

import math

import pytest
import torch
from tests.curvature.alignment_cases import domains

from gradworks.curvature.alignment import (
    HGPAlignment,
    HutchinsonAlignment,
    MovingAverage,
    head_hessian_vector,
)

BOTH = [HGPAlignment, HutchinsonAlignment]
(Z, A, Y), _HEAD = domains((4, 3), 3, 2)
ONE = [torch.zeros(4), torch.zeros(3)]
BAD = {
    "one domain": (Z[:1], A[:1], Y[:1], ValueError, "at least two domains"),
    "no domain": ([], [], [], ValueError, "at least two domains"),
    "empty": ([Z[0][:0], Z[1]], [A[0][:0], A[1]], [Y[0][:0], Y[1]], ValueError, "empty domain"),
    "list lengths": (Z, A[:1], Y, ValueError, "one entry for each domain, got 2, 1 and 2"),
    "rows": (Z, A, [Y[0][:2], Y[1]], ValueError, "same number of rows, got 4, 4 and 2"),
    "label too large": (Z, A, [Y[0] + 3, Y[1]], ValueError, "labels in 0..2"),
    "label negative": (Z, A, [Y[0] - 3, Y[1]], ValueError, "labels in 0..2, got -"),
    "binary label": (Z, ONE, [torch.full((4,), 2), Y[1]], ValueError, "labels in 0..1, got 2"),
    "NaN label": (Z, ONE, [torch.full((4,), math.nan), Y[1].clamp_max(1)], ValueError, "got nan"),
    "d": (
        [Z[0], torch.zeros(3, 5, dtype=torch.float64)], A, Y, ValueError, "features must have the",
    ),
    "C": (Z, [A[0], A[1][:, :2]], [Y[0], Y[1] * 0], ValueError, "same width in all domains"),
    "NaN features": ([Z[0] * math.nan, Z[1]], A, Y, ValueError, "features[0] has NaN"),
    "infinite features": ([*Z[:1], Z[1] + math.inf], A, Y, ValueError, "features[1] has NaN"),
    "NaN logits": (Z, [A[0], A[1] * math.nan], Y, ValueError, "logits[1] has NaN"),
    "images": ([v[:, :, None] for v in Z], A, Y, ValueError, "flatten them"),
    "logits of 3 dimensions": (Z, [b[None] for b in A], Y, ValueError, "logits[0] must have"),
    "targets of 2 dimensions": (Z, A, [t[:, None] for t in Y], ValueError, "targets[0] must have"),
    "float labels": (Z, A, [t.double() for t in Y], TypeError, "integer labels"),
    "integer features": ([v.long() for v in Z], A, Y, TypeError, "features[0] must be real"),
    "no tensor": ([[1.0], Z[1]], A, Y, TypeError, "features[0] must be a torch.Tensor"),
    "a tensor for a list": (torch.zeros(2, 4, 2), A, Y, TypeError, "must be a list"),
    "no logits": (Z, None, Y, ValueError, "only after from_head"),
}  # fmt: skip


@pytest.mark.parametrize("row", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("kind", BOTH)
def test_bad_batches(kind: type, row: tuple) -> None:
    *lists, error, fragment = row
    with pytest.raises(error) as found:
        kind()(*lists)
    assert fragment in str(found.value)


@pytest.mark.parametrize(
    ("settings_", "error", "fragment"),
    [
        ({"alpha": -1.0}, ValueError, "alpha must be at least 0 and finite, got -1.0"),
        ({"beta": math.nan}, ValueError, "beta must be at least 0 and finite, got nan"),
        ({"alpha": math.inf}, ValueError, "alpha must be"),
        ({"reduction": "max"}, ValueError, "reduction must be 'mean' or 'sum', got 'max'"),
        ({"bias": 1}, TypeError, "bias must be True or False"),
        ({"detach_mean": None}, TypeError, "detach_mean must be"),
        ({"domain_weights": [-1, 2]}, ValueError, "domain_weights must be at least 0"),
        ({"domain_weights": [0, 0]}, ValueError, "domain_weights"),
        ({"domain_weights": 3}, TypeError, "domain_weights must be a list"),
    ],
)
@pytest.mark.parametrize("kind", BOTH)
def test_bad_settings(kind: type, settings_: dict, error: type, fragment: str) -> None:
    with pytest.raises(error) as found:
        kind(**settings_)
    assert fragment in str(found.value)


@pytest.mark.parametrize(
    ("probes", "error", "fragment"),
    [
        (0, ValueError, "probes must be at least 1, got 0"),
        ("all", ValueError, "probes must be 'exact'"),
        (2.5, TypeError, "got float"),
        (True, TypeError, "got bool"),
        ([torch.ones(3)], ValueError, "one shape (K, m)"),
    ],
)
def test_bad_probes(probes: object, error: type, fragment: str) -> None:
    with pytest.raises(error) as found:
        HutchinsonAlignment(probes=probes)
    assert fragment in str(found.value)


def test_probes_that_do_not_fit_the_batch() -> None:
    for shape, count in (((2, 9), 2), ((2, 8), 3)):
        with pytest.raises(ValueError, match=r"must hold 3 tensors \(K, 9\)"):
            HutchinsonAlignment(probes=[torch.ones(shape)] * count)(Z, A, Y)


def test_weights_that_do_not_fit_the_batch() -> None:
    with pytest.raises(ValueError, match="domain_weights has 3 entries for 2 domains"):
        HGPAlignment(domain_weights=[1, 1, 1])(Z, A, Y)


def test_a_vector_of_the_wrong_length() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(9,\) or \(K, 9\), got \(8,\)"):
        head_hessian_vector(Z[0], A[0], Y[0], torch.zeros(8))
    with pytest.raises(TypeError, match="vector must be"):
        head_hessian_vector(Z[0], A[0], Y[0], [0.0] * 9)


def test_values_can_be_left_unchecked() -> None:
    bad = [Z[0] * math.nan, Z[1]]
    assert bool(HGPAlignment(validate=False)(bad, A, Y).total.isnan())


@pytest.mark.parametrize("decay", [-0.1, 1.0, math.nan])
def test_bad_decay(decay: float) -> None:
    with pytest.raises(ValueError, match="decay must be in"):
        MovingAverage(decay)


def test_an_average_of_another_shape() -> None:
    average = MovingAverage()
    average(torch.zeros(2))
    with pytest.raises(ValueError, match="call reset"):
        average(torch.zeros(3))
