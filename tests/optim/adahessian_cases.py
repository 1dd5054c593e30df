"""AdaHessian for its tests: the authors' steps, and their network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ARGUMENTS", "NAMES", "STEPS", "Net", "f64", "probe"]

FOLDER = Path(__file__).parents[1] / "golden/adahessian"
STEPS = dict(np.load(FOLDER / "steps.npz"))
META = json.loads((FOLDER / "steps_meta.json").read_text())
NAMES = ("conv", "cb", "w1", "b1", "w2", "b2")
ARGUMENTS: dict[str, dict[str, Any]] = {
    "default": {},
    "power_wd": META["cases"]["power_wd"],
    "rowavg": {"lr": 0.1, "averaging": "row"},
    "block": {"lr": 0.1, "averaging": {4: 3}},
}


def f64(values: Any) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float64)


class Net(nn.Module):
    """The net of the golden file."""

    def __init__(self) -> None:
        super().__init__()
        for name in NAMES:
            setattr(self, name, nn.Parameter(f64(STEPS[f"{name}_init"])))

    def loss(self) -> Tensor:
        x = torch.tanh(F.conv2d(f64(STEPS["X"]), self.conv, self.cb))
        x = torch.tanh(F.linear(F.avg_pool2d(x, 2).flatten(1), self.w1, self.b1))
        return F.cross_entropy(F.linear(x, self.w2, self.b2), torch.tensor(STEPS["y"]).long())


def probe(t: int) -> list[Tensor]:
    return [f64(STEPS[f"z_{name}"][t]) for name in NAMES]
