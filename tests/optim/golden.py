"""Golden runs of the released code: ``tests/golden/adamp``."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

FOLDER = Path(__file__).parents[1] / "golden" / "adamp"
CASES: dict[str, dict[str, Any]] = json.loads((FOLDER / "steps_meta.json").read_text())["cases"]


def cases(name: str) -> list[str]:
    """Cases of a class."""
    return [case for case, settings in CASES.items() if settings["class"] == name]


@cache
def arrays() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "steps.npz") as stored:
        return {key: stored[key] for key in stored.files}


def follow(make: type[Optimizer], case: str, **settings: Any) -> None:
    """Take the golden steps; compare every parameter and branch after each."""
    stored = arrays()

    def tensor(key: str) -> Tensor:
        return torch.tensor(stored[f"{case}_{key}"])

    given = {k: v for k, v in CASES[case].items() if k != "class"}
    params = [nn.Parameter(tensor(f"p{i}_init")) for i in range(5)]
    optimizer = make(params, **given, record_branches=True, **settings)
    seen = set()
    for step in range(10):
        for i, param in enumerate(params):
            param.grad = tensor(f"g{i}")[step]
        optimizer.step()
        for i, param in enumerate(params):
            want = tensor(f"p{i}")[step]
            torch.testing.assert_close(param.detach(), want, rtol=1e-11, atol=1e-13)
            branch = int(optimizer.last_branch[f"0.{i}"])
            assert branch == stored[f"{case}_branch{i}"][step]
            seen.add(branch)
    assert seen == {-1, 0, 1, 2}
