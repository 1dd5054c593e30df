"""Small nets, their data, and the golden cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[1] / "golden" / "hessian-spectrum"


def load(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


def f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


ARCHITECTURES = {
    "mlp_ce": lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
    "mlp_mse": lambda: nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2)),
    "conv_bn_eval": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)
    ),
}
CASES = load("operators.json")["cases"]


def golden(case: dict[str, Any]) -> tuple[nn.Module, Any, tuple[Tensor, Tensor]]:
    """Model, loss and data of a golden case; the model is in train mode, as a user's may be."""
    model = ARCHITECTURES[case["name"]]().double()
    model.load_state_dict({k: f64(v) for k, v in case["state"].items()})
    mse = case["loss"].startswith("mse")
    y = f64(case["y"]) if mse else torch.tensor(case["y"])
    return model, F.mse_loss if mse else F.cross_entropy, (f64(case["x"]), y)


def problem(
    n: int = 12, seed: int = 0, *, hidden: int = 4, classes: int = 3, dtype: Any = torch.float64
) -> tuple[nn.Module, Any, tuple[Tensor, Tensor]]:
    """A smooth classifier on random data."""
    g = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, classes))
    x = torch.randn(n, 3, generator=g, dtype=torch.float64).to(dtype)
    return model.to(dtype), F.cross_entropy, (x, torch.arange(n) % classes)


def dense_hessian(model: nn.Module, loss_fn: Any, data: tuple[Any, Tensor]) -> Tensor:
    """By ``torch.autograd.functional.hessian``, in the mode that the model is in."""
    named = {k: p for k, p in model.named_parameters() if p.requires_grad}
    sizes = [p.numel() for p in named.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, sizes)
        override = {k: v.view(p.shape) for (k, p), v in zip(named.items(), parts)}
        return loss_fn(torch.func.functional_call(model, override, (data[0],)), data[1])

    flat = torch.cat([p.detach().reshape(-1) for p in named.values()])
    return torch.autograd.functional.hessian(loss, flat)


def vector(size: int, seed: int = 0, dtype: Any = torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=g, dtype=torch.float64).to(dtype)


def symmetric(size: int, seed: int = 0) -> Tensor:
    M = vector(size * size, seed).reshape(size, size)
    return (M + M.T) / 2
