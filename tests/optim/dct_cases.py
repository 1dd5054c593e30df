"""Golden runs and small problems for DCTAdamW and Trion: ``tests/golden/dct-adamw``."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parents[1] / "golden" / "dct-adamw"
CASES: dict[str, dict[str, Any]] = json.loads((FOLDER / "steps_meta.json").read_text())["cases"]
NAMES = {
    "lr": "lr",
    "weight_decay": "weight_decay",
    "rank": "rank",
    "rotate_subspace": "rotate",
    "use_ef": "error_feedback",
    "update_proj_gap": "update_gap",
    "ell_norm": "norm",
    "betas": "betas",
    "eps": "eps",
}
PATHS = {"single": {"foreach": False}, "foreach": {"foreach": True}}
paths = pytest.mark.parametrize("path", PATHS)


@cache
def arrays() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "steps.npz") as stored:
        return {key: stored[key] for key in stored.files}


def golden(key: str) -> Tensor:
    return torch.tensor(arrays()[key])


def near(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got.detach(), want, rtol=1e-9, atol=1e-11)


SHAPES = ((6, 4), (6, 4), (4, 6), (5, 5), (3, 2, 3, 3), (7,), (), (0, 3), (1, 5))
VARIANTS: tuple[dict[str, Any], ...] = (
    {"rank": 2},
    {"rank": 3, "update_gap": 3, "weight_decay": 0.1, "norm": 2},
    {"rank": 2, "error_feedback": True, "betas": (0.8, 0.97), "eps": 1e-6},
    {"rank": 2, "error_feedback": True, "ef_dtype": "int8", "column_age": True},
    {"rank": 2, "error_feedback": True, "ef_dtype": "int4", "side": "left"},
    {"rank": 0.5, "basis": "dct2", "transform": "fft", "column_age": True, "rotate": False},
    {"rank": 2, "basis": "identity", "side": "right", "column_age": True},
)
variants = pytest.mark.parametrize("settings", VARIANTS, ids=range(len(VARIANTS)))


def made(shapes: Any = SHAPES, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    g = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(s, generator=g, dtype=torch.float64).to(dtype)) for s in shapes
    ]


def train(opt: torch.optim.Optimizer, params: Any, steps: range) -> None:
    for step in steps:
        g = torch.Generator().manual_seed(100 + step)
        for param in params:
            grad = torch.randn(param.shape, generator=g, dtype=torch.float64)
            param.grad = grad.to(param.dtype)
        opt.step()


def values(params: Any) -> list[Tensor]:
    return [param.detach().clone() for param in params]
