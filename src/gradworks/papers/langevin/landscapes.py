"""Many planted directions at once: tensors or samples of one size, stacked, one chain each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Samples", "Tensors", "chance", "draw", "predicted"]


class Tensors(NamedTuple):
    """Tensor PCA, one problem a row.

    Attributes:
        T: ``(problems, d, ..., d)``.
        star: Hidden directions ``(problems, d)``.
        n: Samples of each.
    """

    T: Tensor
    star: Tensor
    n: Tensor

    @property
    def order(self) -> int:
        """Number of indices."""
        return self.T.ndim - 1

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient of ``-<T, theta^k>``, each row with its own tensor."""
        return self.pull(theta) * -self.order

    def pull(self, theta: Tensor) -> Tensor:
        """``T(theta, ..., theta, .)`` of each row."""
        import torch

        rows = theta.unsqueeze(1)
        left = self.T
        for _ in range(self.order - 1):
            left = torch.bmm(rows, left.reshape(len(left), theta.shape[-1], -1))
        return left.squeeze(1)

    def reference(self) -> Tensor:
        """The partial-trace estimator of each."""
        import torch

        from gradworks.optim.langevin import TensorPCA

        return torch.stack([TensorPCA(t, float(n)).reference() for t, n in zip(self.T, self.n)])

    def refine(self, theta: Tensor, steps: int = 40) -> Tensor:
        """Power iteration of each row."""
        import torch.nn.functional as F

        theta = F.normalize(theta, dim=-1)
        for _ in range(steps):
            theta = F.normalize(self.pull(theta), dim=-1)
        return theta


class Samples(NamedTuple):
    """Single-index models under the correlation loss, one problem a row.

    Attributes:
        X: ``(problems, n, d)``.
        y: ``(problems, n)``.
        star: Hidden directions ``(problems, d)``.
        n: Samples of each.
        degree: Of the link.
    """

    X: Tensor
    y: Tensor
    star: Tensor
    n: Tensor
    degree: int

    @property
    def order(self) -> int:
        """Information exponent."""
        return self.degree

    def gradient(self, theta: Tensor, rows: Tensor | None = None) -> Tensor:
        """Gradient of each row's loss, over all of its samples or those of ``rows``."""
        import torch

        from gradworks.optim.langevin import hermite

        X, y = self.X, self.y
        if rows is not None:
            which = torch.arange(len(X), device=X.device).unsqueeze(1)
            X, y = X[which, rows], y[which, rows]
        slope = hermite(torch.bmm(X, theta.unsqueeze(-1)).squeeze(-1), self.degree - 1)
        pull = (y * slope).mul_(-math.sqrt(self.degree) / y.shape[1])
        return torch.bmm(pull.unsqueeze(1), X).squeeze(1)

    def reference(self) -> Tensor:
        """What the average tends to at high temperature, for each."""
        import torch

        from gradworks.optim.langevin import SingleIndex

        made = [SingleIndex(X, y, self.degree).reference() for X, y in zip(self.X, self.y)]
        return torch.stack(made)

    def refine(self, theta: Tensor) -> Tensor:
        """Climb of each row."""
        import torch

        from gradworks.optim.langevin import SingleIndex

        climbed = [
            SingleIndex(X, y, self.degree).refine(t) for X, y, t in zip(self.X, self.y, theta)
        ]
        return torch.stack(climbed)


def draw(spec: Any, d: int, factors: list[float], generator: torch.Generator) -> Tensors | Samples:
    """Draw the problems of one size: ``spec["problems"]`` for each factor.

    Args:
        spec: Of the workload: ``order``, ``problems``, and ``model``, "tensor" or "single-index".
        d: Dimension.
        factors: Samples in units of ``d ** (order / 2)``; one only for a single-index model.
        generator: Source.

    Returns:
        Float32 problems, ordered by factor.
    """
    import torch

    from gradworks.optim.langevin import single_index, spiked_tensor

    order, single = int(spec["order"]), torch.float32
    counts = [f * d ** (order / 2) for f in factors for _ in range(int(spec["problems"]))]
    if spec["model"] == "tensor":
        made = [spiked_tensor(d, order, n, generator=generator, dtype=single) for n in counts]
        tensors, stars = zip(*made)
        return Tensors(torch.stack(tensors), torch.stack(stars), torch.tensor(counts))
    sizes = [max(1, round(n)) for n in counts]
    drawn = [single_index(d, n, order, generator=generator) for n in sizes]
    X, y, star = (torch.stack(part).to(single) for part in zip(*drawn))
    return Samples(X, y, star, torch.tensor(sizes, dtype=torch.float32), order)


def chance(d: int) -> float:
    """Mean absolute overlap of two independent directions, about ``0.8 / sqrt(d)``."""
    return math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)


def predicted(d: float, factor: float) -> float:
    """Overlap of the partial trace of order 3 with the hidden direction at ``factor d^1.5``."""
    return float((1 + d * (d + 2) / (3 * factor * d**1.5)) ** -0.5)
