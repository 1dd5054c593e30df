"""Planes of the loss beside loss-landscapes, and Hessian axes beside power iteration.

``python benchmarks/landscape.py`` measures all; ``mlp``, ``conv`` or ``axes`` one part. A plane is
everything from the model to the numbers: directions, filter normalisation, 41 x 41 losses. The peer
draws its own directions; both sides make the same number of forward passes over the same batch.
Ratios are times of gradworks over times of the peer: below 1 is faster. A peer that is not
installed is left out with a line that says so.
"""

from __future__ import annotations

import argparse
import copy
import math
import warnings
from importlib import metadata
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradworks.bench.timing import compare
from gradworks.curvature import HessianOperator
from gradworks.curvature.landscape import (
    centered_grid,
    hessian_directions,
    loss_plane,
    normalize_direction,
    random_directions,
)

Data = tuple[Tensor, Tensor]


def mlp(width: int = 40) -> nn.Module:
    """64-64-40-10 with ReLU, the spec's small network."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)
    )


def conv() -> nn.Module:
    """Two convolutions with batch norm, in eval mode as it is measured."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, stride=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 16, 10),
    ).eval()
    for layer in model:  # the peer divides by the norm of each bias
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.bias, std=0.1)
    return model


def batch(n: int, *, images: bool = False) -> Data:
    """Random inputs of 64 numbers with labels."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, 64, generator=g)
    return (x.view(n, 1, 8, 8) if images else x), torch.randint(10, (n,), generator=g)


def ours(model: nn.Module, data: Data, points: int) -> Tensor:
    """A plane on filter-normalised random axes."""
    a, b = (normalize_direction(d, model, "filter") for d in random_directions(model))
    at = centered_grid(points)
    return loss_plane(model, F.cross_entropy, data, a, b, alphas=at, betas=at).loss


def peer() -> Any:
    """The package, or ``None`` with a line that says why it is left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import loss_landscapes
            from loss_landscapes.metrics import Loss
    except ImportError as error:
        print(f"  loss-landscapes is left out ({error}); pip install --no-deps loss-landscapes")
        return None
    return loss_landscapes.random_plane, Loss


def planes(
    name: str, model: nn.Module, data: Data, options: argparse.Namespace, limit: float
) -> None:
    """Print the ratio of one plane."""
    found = peer()
    if found is None:
        return

    random_plane, metric_of = found

    def theirs() -> Any:
        metric = metric_of(F.cross_entropy, *data)
        with torch.no_grad():
            return random_plane(copy.deepcopy(model), metric, 1, options.points, "filter")

    timing = compare(
        lambda: ours(model, data, options.points),
        theirs,
        name=f"{name}, {options.points} x {options.points}",
        peer_name="loss-landscapes",
        peer_version=metadata.version("loss-landscapes"),
        blocks=options.blocks,
        inner=1,
    )
    print(f"{timing.line()}   [target <= {limit:g}]", flush=True)


def power_iteration(
    operator: HessianOperator, k: int, *, tol: float = 1e-3, limit: int = 1000
) -> tuple[list[float], int]:
    """Largest magnitudes by power iteration with deflation, to a true residual.

    The authors' loop, with the stopping rule of ours: its own compares two Rayleigh quotients and
    stops long before the vectors are right.
    """
    vectors: list[Tensor] = []
    values: list[float] = []
    products, scale = 0, 0.0
    g = torch.Generator().manual_seed(0)
    for _ in range(k):
        v = torch.randn(operator.dimension, generator=g, dtype=operator.dtype)
        for _ in range(limit):
            for u in vectors:
                v = v - (u @ v) * u
            v = v / v.norm()
            image = operator @ v
            products += 1
            value = float(v @ image)
            scale = max(scale, abs(value))
            if float((image - value * v).norm()) <= tol * scale:
                break
            v = image
        vectors.append(v)
        values.append(value)
    return values, products


def axes() -> None:
    """Count Hessian products to two axes of residual 1e-3 of the largest eigenvalue."""
    for name, model, data in (
        ("MLP", mlp(), batch(512)),
        ("conv net", conv(), batch(128, images=True)),
    ):
        found = hessian_directions(model, F.cross_entropy, data, which="LM", tol=1e-3)
        with HessianOperator(model, F.cross_entropy, data) as hessian:
            values, products = power_iteration(hessian, 2)
        apart = max(abs(a - b) / abs(b) for a, b in zip(found.values.tolist(), values) if b)
        ratio = found.matvecs / products if products else math.nan
        print(
            f"{name}: {found.matvecs} products against {products} by power iteration, ratio "
            f"{ratio:.2f}   [target <= 0.333]   (eigenvalues {apart:.0e} apart)",
            flush=True,
        )


def main() -> None:
    """Parse the command line and print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["all", "mlp", "conv", "axes"], default="all")
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--points", type=int, default=41)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part in {"all", "mlp"}:
        for n in (16, 64, 256):
            planes(f"MLP 64-64-40-10, batch of {n}", mlp(), batch(n), options, 0.5)
    if options.part in {"all", "conv"}:
        planes("conv net, batch of 64", conv(), batch(64, images=True), options, 1.0)
    if options.part in {"all", "axes"}:
        axes()


if __name__ == "__main__":
    main()
