"""ARO against runs of an independent reference: ``tests/golden/aro``."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradworks.optim import ARO
from gradworks.optim.aro import shifted_cholesky_qr, sinkhorn
from gradworks.optim.aro.rotations import signed_qr

FOLDER = Path(__file__).parents[1] / "golden" / "aro"
CASES: dict[str, dict[str, Any]] = json.loads((FOLDER / "cases.json").read_text())


@cache
def arrays() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "golden.npz") as stored:
        return {key: stored[key] for key in stored.files}


def tensor(key: str) -> Tensor:
    return torch.tensor(arrays()[key])


@pytest.mark.parametrize("foreach", [False, True, None])
@pytest.mark.parametrize("case", CASES)
def test_trajectory(case: str, foreach: bool | None) -> None:
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if case == "scqr" else {"rtol": 1e-8, "atol": 1e-10}
    # a twin beside it, so that equal shapes are stacked
    weights = [nn.Parameter(tensor(f"{case}.w0")) for _ in range(2)]
    optimizer = ARO(weights, foreach=foreach, **CASES[case])
    grads, want = tensor(f"{case}.grads"), tensor(f"{case}.traj")
    for grad, expected in zip(grads, want, strict=True):
        for weight in weights:
            weight.grad = grad.clone()
        optimizer.step()
        for weight in weights:
            torch.testing.assert_close(weight.detach(), expected, **tolerance)
    for weight in weights:
        for name in ("rotation", "momentum"):
            if f"{case}.{name}_final" in arrays():
                final = tensor(f"{case}.{name}_final")
                torch.testing.assert_close(optimizer.state[weight][name], final, **tolerance)


@pytest.mark.parametrize(
    ("name", "steps", "mode"),
    [("sim1", 1, "simultaneous"), ("sim5", 5, "simultaneous"), ("alt5", 5, "alternating")],
)
def test_sinkhorn(name: str, steps: int, mode: str) -> None:
    found = sinkhorn(tensor("sink.X"), steps, mode)
    torch.testing.assert_close(found, tensor(f"sink.{name}"), rtol=1e-10, atol=1e-12)


def test_factors() -> None:
    A = tensor("qr.A")
    torch.testing.assert_close(signed_qr(A), tensor("qr.Q"), rtol=1e-10, atol=1e-12)
    scqr = shifted_cholesky_qr(A)
    torch.testing.assert_close(scqr, tensor("qr.scqr"), rtol=1e-8, atol=1e-10)
