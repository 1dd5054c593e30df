"""DiffGrad for its tests: golden arrays, the algorithm transcribed, runs on given gradients."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.optim.contract import parameters
from torch import Tensor

from gradworks.optim import DiffGrad

PATHS: dict[str, dict[str, Any]] = {
    "single": {},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
EVERY_PATH = pytest.mark.parametrize(
    "path", ["single", "foreach", pytest.param("fused", marks=pytest.mark.slow)]
)
STATE = ("exp_avg", "exp_avg_sq", "previous_grad")
GOLDEN = Path(__file__).parents[1] / "golden" / "diffgrad"
CASES: dict[str, dict[str, Any]] = json.loads((GOLDEN / "steps_meta.json").read_text())["cases"]


@cache
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "steps.npz") as stored:
        return {key: stored[key] for key in stored.files}


def naive(
    param: Tensor,
    gradients: list[Tensor],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    friction: Callable[[float, float, int], float] = lambda change, v, t: (
        1 / (1 + math.exp(-change))
    ),
) -> list[Tensor]:
    """The algorithm transcribed: loops over numbers; the parameter after each step."""
    b1, b2 = betas
    p = param.flatten().tolist()
    m, v, q = ([0.0] * len(p) for _ in range(3))
    path = []
    for t, gradient in enumerate(gradients, 1):
        for i, g in enumerate(gradient.flatten().tolist()):
            if decoupled_weight_decay:
                p[i] *= 1 - lr * weight_decay
            else:
                g += weight_decay * p[i]
            m[i] = b1 * m[i] + (1 - b1) * g
            v[i] = b2 * v[i] + (1 - b2) * g * g
            xi = friction(abs(q[i] - g), v[i], t)
            size = lr * math.sqrt(1 - b2**t) / (1 - b1**t)
            p[i] -= size * xi * m[i] / (math.sqrt(v[i]) + eps)
            q[i] = g
        path.append(torch.tensor(p, dtype=param.dtype).reshape(param.shape))
    return path


def gradients_of(
    shape: tuple[int, ...], count: int, *, seed: int = 0, scale: float = 1.0
) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(count)]


def follow(
    shape: tuple[int, ...],
    gradients: list[Tensor],
    make: Callable[..., Any] = DiffGrad,
    **given_: Any,
) -> list[Tensor]:
    """The parameter after each step of an optimizer."""
    (param,) = parameters((shape,))
    optimizer = make([param], **given_)
    path = []
    for gradient in gradients:
        param.grad = gradient.clone()
        optimizer.step()
        path.append(param.detach().clone())
    return path
