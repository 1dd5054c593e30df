"""Aligned training steps against plain ones, and against second derivatives by autograd.

``python benchmarks/alignment.py``: forward and backward of three domains of 32, 512 features, 7
classes. The authors' scheme is written here anew: products by a backward pass through a backward
pass, diagonals from 300 random products for the mean and for each domain, all with graphs. Beside
the times stands how far off those estimates are. Last, the same step behind a ResNet-18.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradworks.bench.timing import compare
from gradworks.curvature.alignment import (
    HGPAlignment,
    HutchinsonAlignment,
    domain_losses,
    head_hessian_diagonal,
    head_hessian_vector,
)

WIDTH, CLASSES, DOMAINS, ROWS = 512, 7, 3, 32
Step = Callable[[], None]


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
            nn.Conv2d(outer, outer, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outer),
        )
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.short = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both, rectified."""
        return F.relu(self.path(x) + self.short(x))


def resnet18() -> nn.Sequential:
    """Eight blocks of 64 to 512 channels behind a 3 x 3 stem."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    inner = 64
    for outer in (64, 128, 256, 512):
        layers += [Block(inner, outer, 1 if outer == 64 else 2), Block(outer, outer, 1)]
        inner = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def flat(tensors: tuple[Tensor, ...]) -> Tensor:
    """One vector."""
    return torch.cat([t.flatten() for t in tensors])


class Task:
    """A featuriser, a head and one batch of every domain."""

    def __init__(self, body: nn.Module, shape: tuple[int, ...]) -> None:
        g = torch.Generator().manual_seed(0)
        self.body, self.head = body, nn.Linear(WIDTH, CLASSES)
        self.x = [torch.randn(ROWS, *shape, generator=g) + i / 4 for i in range(DOMAINS)]
        self.y = [torch.randint(CLASSES, (ROWS,), generator=g) for _ in range(DOMAINS)]

    def forward(self) -> tuple[list[Tensor], list[Tensor]]:
        """Features and logits."""
        z = self.body(torch.cat(self.x)).split(ROWS)
        return list(z), [self.head(v) for v in z]

    def plain(self) -> None:
        """Mean loss only."""
        _, a = self.forward()
        domain_losses(a, self.y).mean().backward()

    def aligned(self, penalty: HGPAlignment | HutchinsonAlignment) -> Step:
        """With a penalty of ours."""

        def step() -> None:
            z, a = self.forward()
            (domain_losses(a, self.y).mean() + penalty(z, a, self.y).total).backward()

        return step

    def differentiated(self, draws: int | None) -> Step:
        """With the authors' scheme: products along the gradient (None), or random ones."""
        params = tuple(self.head.parameters())

        def derivative(value: Tensor) -> Tensor:
            return flat(torch.autograd.grad(value, params, create_graph=True))

        def along_gradient(g: Tensor) -> Tensor:
            length = g.norm()
            return length * derivative(length)

        def diagonal(g: Tensor) -> Tensor:
            found = torch.zeros_like(g)
            for _ in range(draws or 0):
                signs = torch.randint_like(g, 2) * 2 - 1
                found = found + signs * derivative(g @ signs)
            return found / (draws or 1)

        curvature = along_gradient if draws is None else diagonal

        def step() -> None:
            _, a = self.forward()
            losses = domain_losses(a, self.y)
            mean = derivative(losses.mean())
            g = [derivative(loss) for loss in losses]
            far, target = [curvature(v) for v in g], curvature(mean).detach()
            pairs = zip(far, g)
            penalty = sum(
                (1e-4 * (h - target).square().sum() + 5e-3 * (v - mean.detach()).square().sum())
                for h, v in pairs
            )
            (losses.mean() + penalty / DOMAINS).backward()

        return step

    def estimate_error(self, draws: int) -> float:
        """Relative error of a diagonal from random products."""
        with torch.no_grad():
            z, a = self.forward()
        exact = head_hessian_diagonal(z[0], a[0], self.y[0])
        probes = torch.randint(2, (draws, len(exact))).float() * 2 - 1
        found = (probes * head_hessian_vector(z[0], a[0], self.y[0], probes)).mean(0)
        return float((found - exact).norm() / exact.norm())


def report(ours: Step, peer: Step, name: str, peer_name: str, blocks: int, target: str) -> None:
    """Time and print."""
    found = compare(
        ours,
        peer,
        name=name,
        peer_name=peer_name,
        peer_version=torch.__version__,
        blocks=blocks,
        inner=1,
    )
    print(f"{found.line()}   {target}", flush=True)


def main() -> None:
    """Parse the command line and print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--slow-blocks", type=int, default=10, help="300 draws; the ResNet")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--image", type=int, default=32, help="side of the ResNet's images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    few, many = options.slow_blocks, options.blocks

    task = Task(nn.Linear(100, WIDTH), (100,))
    exact = task.aligned(HutchinsonAlignment())
    hgp = task.aligned(HGPAlignment())
    draws = options.draws
    sampled = task.differentiated(draws)
    name = f"{draws} draws by autograd"
    report(exact, sampled, "exact diagonal", name, few, "[target <= 0.02]")
    report(
        task.aligned(HutchinsonAlignment(probes=draws)), sampled, f"{draws} draws", name, few, ""
    )
    print(f"relative error of a diagonal from {draws} draws: {task.estimate_error(draws):.2f}")
    report(hgp, task.differentiated(None), "HGP", "HGP by autograd", many, "[target <= 0.667]")
    report(exact, task.plain, "exact diagonal, linear", "plain step", many, "[target <= 5]")
    report(hgp, task.plain, "HGP, linear", "plain step", many, "[target <= 5]")

    task = Task(resnet18(), (3, options.image, options.image))
    exact, hgp = task.aligned(HutchinsonAlignment()), task.aligned(HGPAlignment())
    report(exact, task.plain, "exact diagonal, ResNet-18", "plain step", few, "[target <= 1.2]")
    report(hgp, task.plain, "HGP, ResNet-18", "plain step", few, "[target <= 1.2]")


if __name__ == "__main__":
    main()
