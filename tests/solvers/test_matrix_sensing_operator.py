"""Measurements: against the matrices they stand for, adjoint, compressed, refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.solvers.sensing_cases import KINDS, N1, N2, SQUARE, normal, seeded

from gradworks.solvers.matrix_sensing import MeasurementOperator, random_low_rank

EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_what_its_matrices_say(kind: str) -> None:
    op = KINDS[kind]()
    m, n1, n2 = op.shape
    A = op.matrices
    assert A.shape == op.shape
    Z, u, y = normal(n1, n2), normal(m, seed=2), normal(m, seed=3)
    F, G = normal(n1, 3, seed=4), normal(n2, 3, seed=5)
    torch.testing.assert_close(op(Z), torch.einsum("mij,ij->m", A, Z), **EXACT)
    torch.testing.assert_close(op.adjoint(u), torch.einsum("m,mij->ij", u, A), **EXACT)
    torch.testing.assert_close(op.normal(Z), op.adjoint(op(Z)), **EXACT)
    off = torch.einsum("mij,ik,jk->m", A, F, G) - y
    torch.testing.assert_close(
        op.gradient(F, G, y), torch.einsum("m,mij->ij", off, A), rtol=1e-11, atol=1e-12
    )
    torch.testing.assert_close(op.residual(F, G, y), off.square().sum(), **EXACT)


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 1000))
def test_the_adjoint_is_one(kind: str, seed: int) -> None:
    op = KINDS[kind]()
    m, n1, n2 = op.shape
    Z, u = normal(n1, n2, seed=seed), normal(m, seed=seed + 1)
    torch.testing.assert_close(op(Z) @ u, (Z * op.adjoint(u)).sum(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_given_is_written_to(kind: str) -> None:
    op = KINDS[kind]()
    m, n1, n2 = op.shape
    given_ = [normal(n1, n2), normal(m), normal(n1, 2), normal(n2, 2)]
    kept = [x.clone() for x in given_]
    Z, u, F, G = given_
    for made in (op(Z), op.adjoint(u), op.normal(Z), op.gradient(F, G, u)):
        made.zero_()
    op.residual(F, G, u)
    for x, old in zip(given_, kept, strict=True):
        assert torch.equal(x, old)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("stored", False), ("square", False), ("symmetric", True), ("identity", False),
        ("entries, square", False), ("rank one, square", False), ("rank one, symmetric", True),
        ("triangles", True),
    ],
)  # fmt: skip
def test_symmetry_is_seen(kind: str, expected: bool) -> None:
    op = KINDS[kind]()
    assert op.symmetric is expected
    if op.shape[1] == op.shape[2]:
        assert torch.equal(op.matrices, op.matrices.mT) is expected


def test_symmetry_of_given_matrices_is_looked_up() -> None:
    A = normal(300, 3, 3)
    A = A + A.mT
    assert MeasurementOperator(A).symmetric
    A[299, 0, 1] += 1  # in the last part that is compared
    assert not MeasurementOperator(A).symmetric


def test_a_diagonal_of_entries_is_symmetric() -> None:
    places = torch.arange(3)
    assert MeasurementOperator.entries(places, places, 3, 3).symmetric


def test_gaussian_measurements_keep_lengths() -> None:
    op = MeasurementOperator.gaussian(4000, 6, generator=seeded())
    Z = normal(6, 6)
    assert float(op(Z).square().sum() / Z.square().sum()) == pytest.approx(1, abs=0.1)
    assert op.rip_estimate(2, generator=seeded()) < 0.15
    assert MeasurementOperator.identity(6).rip_estimate(2, generator=seeded()) < 1e-12


def test_the_isometry_gets_worse_with_fewer_measurements() -> None:
    many, few = (
        MeasurementOperator.gaussian(m, 8, generator=seeded()).rip_estimate(2, generator=seeded())
        for m in (2000, 40)
    )
    assert few > 3 * many


def test_all_entries_are_the_identity() -> None:
    rows, cols = torch.meshgrid(torch.arange(N1), torch.arange(N2), indexing="ij")
    op = MeasurementOperator.entries(rows.flatten(), cols.flatten(), N1, N2)
    Z = normal(N1, N2)
    torch.testing.assert_close(op.normal(Z), Z, **EXACT)


@pytest.mark.parametrize("symmetric", [False, True])
def test_compressed_measurements_have_the_same_gradients(symmetric: bool) -> None:
    op = MeasurementOperator.gaussian(60, 5, symmetric=symmetric, generator=seeded())
    y = normal(60)  # no matrix explains it
    small, z = op.compressed(y)
    assert small.shape[0] == (15 if symmetric else 25)
    F, G = normal(5, 2, seed=1), normal(5, 2, seed=2)
    torch.testing.assert_close(
        small.gradient(F, G, z), op.gradient(F, G, y), rtol=1e-11, atol=1e-12
    )
    differences = [a.residual(F, G, b) - a.residual(F, F, b) for a, b in ((op, y), (small, z))]
    torch.testing.assert_close(*differences, rtol=1e-10, atol=1e-10)
    assert float(differences[0].abs()) > 0.1


@pytest.mark.parametrize("kind", ["stored", "identity", "entries", "rank one"])
def test_few_measurements_stay_as_they_are(kind: str) -> None:
    op = KINDS[kind]()
    y = normal(op.shape[0])
    assert op.compressed(y) == (op, y)


def test_operators_say_what_they_are() -> None:
    assert repr(MeasurementOperator.gaussian(3, 2)) == (
        "MeasurementOperator(m=3, n1=2, n2=2, dtype=torch.float64, device='cpu')"
    )
    assert repr(MeasurementOperator.identity(2)).startswith("Identity(m=4, n1=2, n2=2")


def test_the_dtype_is_that_of_the_measurements() -> None:
    op = MeasurementOperator.gaussian(3, 2, dtype=torch.float32, generator=seeded())
    assert op(torch.ones(2, 2)).dtype == torch.float32
    assert MeasurementOperator.identity(2, dtype=torch.float32).dtype == torch.float32


ones = torch.ones
BAD: list[tuple[Any, str]] = [
    (lambda: MeasurementOperator(ones(2, 2)), r"matrices must be .* got shape \(2, 2\)"),
    (lambda: MeasurementOperator(ones(0, 2, 2)), "no empty axis"),
    (lambda: MeasurementOperator(ones(1, 2, 2).long()), "int64"),
    (lambda: MeasurementOperator.gaussian(0, 2), "m must be at least 1, got 0"),
    (lambda: MeasurementOperator.gaussian(2, 0), "n1 must be"),
    (lambda: MeasurementOperator.gaussian(2, 2, 3, symmetric=True), "must be square"),
    (lambda: MeasurementOperator.identity(2, 0), "n2 must be"),
    (lambda: MeasurementOperator.entries(ones(2).long(), ones(3).long(), 2, 2), "one length"),
    (lambda: MeasurementOperator.entries(ones(2), ones(2).long(), 2, 2), "rows must hold integers"),
    (lambda: MeasurementOperator.entries(ones(2).long(), torch.tensor([0, 2]), 2, 2), "cols must"),
    (lambda: MeasurementOperator.entries(-ones(2).long(), ones(2).long(), 2, 2), "rows must lie"),
    (lambda: MeasurementOperator.rank_one(ones(2, 2), ones(3, 2)), "a and b must have shapes"),
    (lambda: MeasurementOperator.rank_one(ones(2, 2), ones(2, 2).double()), "share a real dtype"),
    (lambda: KINDS["stored"]()(ones(4, 5)), r"Z must have shape \(5, 4\), got \(4, 5\)"),
    (lambda: KINDS["stored"]().adjoint(ones(4)), r"u must have shape \(9,\)"),
    (lambda: KINDS["stored"]().gradient(ones(5, 2), ones(4, 3), ones(9)), "F and G must have"),
    (lambda: KINDS["stored"]().residual(ones(5, 2), ones(4, 2), ones(8)), "y must have shape"),
    (lambda: KINDS["stored"]().rip_estimate(1, trials=0), "trials must be"),
    (lambda: KINDS["stored"]().rip_estimate(5), "rank must be between 1 and"),
    (lambda: random_low_rank(3, rank=0), "rank must be between 1 and"),
    (lambda: random_low_rank(3, 2, rank=3), "rank must be between 1 and"),
    (lambda: random_low_rank(3, rank=1, kappa=0.5), "kappa must be at least 1 and finite, got 0.5"),
    (lambda: random_low_rank(3, rank=2, kappa=float("inf")), "kappa must be .* got inf"),
    (lambda: random_low_rank(3, 2, rank=1, symmetric=True), "must be square"),
    (
        lambda: MeasurementOperator(ones(9, 2, 2), distributed=True).compressed(ones(9)),
        "cannot be compressed",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD)
def test_what_does_not_fit_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("symmetric", [False, True])
def test_random_matrices_have_the_spectrum_asked_for(symmetric: bool) -> None:
    Z = random_low_rank(7, 7 if symmetric else 5, rank=3, kappa=10, symmetric=symmetric)
    expected = torch.tensor([10, 5.5, 1] + [0] * (4 if symmetric else 2), dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(Z), expected, rtol=1e-10, atol=1e-12)
    if symmetric:
        torch.testing.assert_close(Z, Z.mT)
        assert float(torch.linalg.eigvalsh(Z)[0]) > -1e-12


def test_square_kinds_are_there() -> None:
    assert {"symmetric", "identity, square", "rank one, square", "triangles"} <= set(SQUARE)
