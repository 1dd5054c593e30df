"""Domains to align: the stored ones of the authors' code, and random ones."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[1] / "golden" / "hessian-alignment" / "penalties.json"
CASES = json.loads(GOLDEN.read_text())["cases"]
CLOSE = {"rtol": 1e-12, "atol": 1e-12}

Lists = tuple[list[Tensor], list[Tensor], list[Tensor]]


def f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def stored(case: dict) -> tuple[nn.Sequential, list[Tensor], list[Tensor]]:
    """The network of a golden case and its domains."""
    body = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    net = nn.Sequential(body, nn.Linear(4, 3)).double()
    net.load_state_dict({name: f64(value) for name, value in case["state"].items()})
    return net, [f64(x) for x in case["x"]], [torch.tensor(y) for y in case["y"]]


def through(net: nn.Sequential, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Features and logits."""
    features = [net[0](v) for v in x]
    return features, [net[1](z) for z in features]


def domains(
    sizes: tuple[int, ...] = (5, 3, 4),
    classes: int = 3,
    width: int = 4,
    *,
    seed: int = 0,
    bias: bool = True,
    dtype: torch.dtype = torch.float64,
) -> tuple[Lists, nn.Linear]:
    """Features, logits and labels of random domains, and the head between them."""
    g = torch.Generator().manual_seed(seed)
    head = nn.Linear(width, classes, bias=bias, dtype=dtype)
    with torch.no_grad():
        for p in head.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=dtype))
    z = [torch.randn(n, width, generator=g, dtype=dtype) + i for i, n in enumerate(sizes)]
    y = [torch.randint(max(classes, 2), (n,), generator=g) for n in sizes]
    return (z, [head(v) for v in z], y), head


def flat(head: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in head.parameters()])
