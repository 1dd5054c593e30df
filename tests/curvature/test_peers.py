"""Other libraries as oracles, where they are installed."""

from __future__ import annotations

import warnings

import pytest
import torch
from tests.curvature.nets import problem, vector

from gradworks.curvature.hutchinson import trace
from gradworks.curvature.operators import FisherOperator, GGNOperator, HessianOperator

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def test_scipy_eigsh() -> None:
    from scipy.sparse.linalg import eigsh as scipy_eigsh

    from gradworks.curvature.lanczos import eigsh

    op = HessianOperator(*problem(40, hidden=8))
    values = scipy_eigsh(op.to_scipy(), k=4, which="LA", return_eigenvectors=False)
    found = eigsh(op, 4, tol=1e-10)
    torch.testing.assert_close(
        found.values.flip(0), torch.as_tensor(values).sort().values, rtol=1e-8, atol=1e-10
    )


def test_curvlinops() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        curvlinops = pytest.importorskip(
            "curvlinops", reason="peer curvlinops-for-pytorch is not installed"
        )
        model, _, (x, y) = problem(23)
        batches = [(x[:10], y[:10]), (x[10:20], y[10:20]), (x[20:], y[20:])]
        loss_fn = torch.nn.CrossEntropyLoss()
        params = list(model.parameters())
        v = vector(31)
        pairs = [
            (curvlinops.HessianLinearOperator, HessianOperator(model, loss_fn, batches)),
            (curvlinops.GGNLinearOperator, GGNOperator(model, loss_fn, batches)),
            (
                curvlinops.EFLinearOperator,
                FisherOperator(model, loss_fn, batches, kind="empirical"),
            ),
        ]
        for peer, op in pairs:
            theirs = peer(model.eval(), loss_fn, params, batches, check_deterministic=False) @ v
            torch.testing.assert_close(op @ v, theirs, **CLOSE)


def test_hessian_eigenthings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip(
            "hessian_eigenthings", reason="peer hessian-eigenthings is not installed"
        )
        model, loss_fn, (x, y) = problem(20)
        op = HessianOperator(model, loss_fn, (x, y))
        theirs = peer.HessianOperator(
            model.eval(),
            [(x, y)],
            lambda m, batch: loss_fn(m(batch[0]), batch[1]),
        )
        v = vector(31)
        torch.testing.assert_close(op @ v, theirs.matvec(v), **CLOSE)
    assert abs(trace(op, num_probes=50).value) < 100
