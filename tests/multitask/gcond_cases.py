"""What the tests of GCond share: golden runs, and rows that conflict."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradworks.multitask import GCond

__all__ = ["CASES", "MAIN", "draw", "f64", "jacobian_of", "options_of", "pair", "plain"]

GOLDEN = Path(__file__).parents[1] / "golden" / "gcond" / "golden.json"
CASES = json.loads(GOLDEN.read_text())["cases"]
# the authors' names of the arguments
NAMES = {
    "use_smooth_logic": "smooth",
    "conflict_thresholds": "thresholds",
    "momentum_beta": "momentum",
    "use_lion": "lion",
    "return_raw_grad": "return_raw",
    "tie_breaking_weights": "tie_weights",
}
MAIN = math.radians(120)  # the angle of the main threshold, cosine -0.5


def f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draw(tasks: int, params: int, seed: int, pull: float = 0.0) -> Tensor:
    """Random rows; with ``pull`` they conflict: a common part is taken out of half of them."""
    g = torch.Generator().manual_seed(seed)
    J = torch.randn(tasks, params, dtype=torch.float64, generator=g)
    sign = torch.where(torch.arange(tasks) % 2 == 0, 1.0, -1.0).double()
    return J + pull * sign[:, None] * torch.randn(params, dtype=torch.float64, generator=g)


def pair(angle: float, first: float = 1.0, second: float = 1.0) -> Tensor:
    """Two gradients with this angle and these lengths."""
    return f64([[first, 0.0, 0.0], [second * math.cos(angle), second * math.sin(angle), 0.0]])


def plain(**options: Any) -> GCond:
    """Without momentum: what comes out is the sum of the resolved gradients."""
    return GCond(**{"return_raw": True, "eps": 1e-14, **options})


def options_of(case: dict[str, Any]) -> dict[str, Any]:
    found = {NAMES.get(key, key): value for key, value in case["options"].items()}
    return {key: tuple(v) if isinstance(v, list) else v for key, v in found.items()}


def jacobian_of(case: dict[str, Any], batches: Tensor) -> Tensor:
    """The golden model's losses are linear: gradients are means of the given vectors."""
    weights = f64(case["lambdas"])
    if not case["stochastic"]:
        return batches.mean(0) * weights[:, None]
    share = case["accumulation_steps"] // len(weights)
    means = [batches[k * share : (k + 1) * share, k].mean(0) for k in range(len(weights))]
    return torch.stack(means) * weights[:, None]
