"""AdamP and SGDP transcribed from the paper: one parameter, plain loops over numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


def cosine(a: list[float], b: list[float], eps: float) -> float:
    dot = sum(x * y for x, y in zip(a, b))
    length_a = math.sqrt(sum(x * x for x in a))
    length_b = math.sqrt(sum(x * x for x in b))
    return abs(dot) / (max(length_a, eps) * max(length_b, eps))


def without_radial(p: list[float], u: list[float], eps: float) -> list[float]:
    length = math.sqrt(sum(x * x for x in p)) + eps
    n = [x / length for x in p]
    along = sum(x * y for x, y in zip(n, u))
    return [y - x * along for x, y in zip(n, u)]


def project(
    p: list[list[float]], g: list[list[float]], u: list[list[float]], delta: float, eps: float
) -> tuple[list[list[float]], int]:
    """Rows after the projection, and the branch taken."""
    k = len(p[0])
    if max(cosine(a, b, eps) for a, b in zip(g, p)) < delta / math.sqrt(k):
        return [without_radial(a, b, eps) for a, b in zip(p, u)], 1

    def flat(rows: list[list[float]]) -> list[float]:
        return [x for row in rows for x in row]

    if cosine(flat(g), flat(p), eps) < delta / math.sqrt(len(p) * k):
        line = without_radial(flat(p), flat(u), eps)
        return [line[i * k : (i + 1) * k] for i in range(len(p))], 2
    return u, 0


@dataclass
class Naive:
    """A parameter under the paper's algorithm."""

    value: Tensor
    lr: float
    weight_decay: float = 0.0
    nesterov: bool = False
    delta: float = 0.1
    wd_ratio: float = 0.1
    eps: float = 1e-8
    steps: int = 0
    branches: list[int] = field(default_factory=list)
    m: Tensor | None = None
    v: Tensor | None = None

    def _moved(self, g: Tensor, u: Tensor, size: float, decay: float) -> None:
        p, ratio, branch = self.value, 1.0, -1
        if p.ndim > 1:
            rows, branch = project(
                p.flatten(1).tolist(),
                g.flatten(1).tolist(),
                u.flatten(1).tolist(),
                self.delta,
                self.eps,
            )
            u = torch.tensor(rows, dtype=p.dtype).reshape(p.shape)
            ratio = 1.0 if branch == 0 else self.wd_ratio
        self.branches.append(branch)
        self.value = p * (1 - decay * ratio) - size * u

    def adamp(self, g: Tensor, betas: tuple[float, float]) -> None:
        """Algorithm 2."""
        b1, b2 = betas
        self.steps += 1
        m = torch.zeros_like(g) if self.m is None else self.m
        v = torch.zeros_like(g) if self.v is None else self.v
        self.m, self.v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        denominator = self.v.sqrt() / math.sqrt(1 - b2**self.steps) + self.eps
        u = (b1 * self.m + (1 - b1) * g if self.nesterov else self.m) / denominator
        size = self.lr / (1 - b1**self.steps)
        self._moved(g, u, size, self.lr * self.weight_decay)

    def sgdp(self, g: Tensor, momentum: float, dampening: float) -> None:
        """Algorithm 1; the buffer is kept as it is."""
        m = torch.zeros_like(g) if self.m is None else self.m
        self.m = momentum * m + (1 - dampening) * g
        d = g + momentum * self.m if self.nesterov else self.m.clone()
        self._moved(g, d, self.lr, self.lr * self.weight_decay / (1 - momentum))
