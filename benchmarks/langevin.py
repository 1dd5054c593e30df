"""Langevin chains side by side against a loop with autograd; one step against SGD and a normal_.

``python benchmarks/langevin.py`` measures all; ``chains``, ``scaling``, ``step`` or ``average`` one
part. Ratios are times of gradworks over times of the peer: below 1 is faster. ``scaling`` compares
sixteen chains with one, which reads the same tensor. ``--small`` is a smoke test.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gradworks.bench.timing import compare
from gradworks.optim.langevin import (
    IterateAverage,
    Langevin,
    spiked_tensor,
    tensor_gradient,
    trajectory,
)

LR, TEMPERATURE = 0.01, 0.1
STEPS = 16  # of the chains, a call


class Row(NamedTuple):
    """One comparison."""

    name: str
    peer: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    target: float | None


def _start(chains: int, d: int, dtype: torch.dtype) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return nn.functional.normalize(torch.randn(chains, d, generator=g, dtype=dtype), dim=1)


def _chains(T: Tensor, start: Tensor) -> Callable[[], object]:
    """Ours: all chains at once."""

    def run() -> object:
        walk = trajectory(lambda x: -tensor_gradient(T, x), start, LR, TEMPERATURE, STEPS)
        return [block[-1] for block in walk]

    return run


def _loop(T: Tensor, start: Tensor) -> Callable[[], object]:
    """What one writes first: one chain after the other, the gradient by autograd."""
    d = T.shape[0]

    def run() -> object:
        ends = []
        for row in start:
            theta = row.clone()
            for _ in range(STEPS):
                theta.requires_grad_()
                value = T.reshape(-1, d) @ theta
                while value.numel() > 1:
                    value = value.view(-1, d) @ theta
                (grad,) = torch.autograd.grad(-value.sum(), theta)
                theta = theta.detach()
                move = -LR * grad + (2 * LR * TEMPERATURE) ** 0.5 * torch.randn(d, dtype=T.dtype)
                move -= (move @ theta) * theta
                theta = theta + move
                theta = theta / theta.norm()
            ends.append(theta)
        return ends

    return run


def chains(small: bool) -> Iterator[Row]:
    """Sixteen chains on a tensor against the loop."""
    for (order, d), dtype in itertools.product(((3, 48), (4, 14)), (torch.float32, torch.float64)):
        side = 8 if small else d
        T, _ = spiked_tensor(side, order, side ** (order / 2), dtype=dtype)
        start = _start(16, side, dtype)
        yield Row(
            f"16 chains, order {order}, d={side}, {str(dtype).removeprefix('torch.')}",
            "loop with autograd",
            _chains(T, start),
            _loop(T, start),
            0.2,
        )


def scaling(small: bool) -> Iterator[Row]:
    """Sixteen chains against one: the tensor is read once for all."""
    d = 8 if small else 48
    for dtype in (torch.float32, torch.float64):
        T, _ = spiked_tensor(d, 3, d**1.5, dtype=dtype)
        print(f"order 3, d={d}: {T.numel() * T.element_size() / 1e3:.0f} kB read a step")
        many, one = _start(16, d, dtype), _start(1, d, dtype)
        name = f"16 chains, order 3, d={d}, {str(dtype).removeprefix('torch.')}"
        yield Row(name, "1 chain", _chains(T, many), _chains(T, one), 3.0)


def _parameter(size: int) -> nn.Parameter:
    g = torch.Generator().manual_seed(0)
    param = nn.Parameter(torch.randn(size, generator=g))
    param.grad = torch.randn(size, generator=g)
    return param


def step(small: bool) -> Iterator[Row]:
    """One step on a million entries against SGD and as many normal numbers."""
    size = 1000 if small else 1_000_000
    plain, noise = _parameter(size), torch.empty(size)
    sgd = torch.optim.SGD([plain], lr=1e-6)

    def peer() -> object:
        noise.normal_()
        return sgd.step()

    for manifold in ("sphere", "euclidean"):
        for foreach in (False, True):
            ours = Langevin([_parameter(size)], 1e-6, 1e-6, manifold=manifold, foreach=foreach)
            name = f"Langevin.step, {manifold}, {'foreach' if foreach else 'single'}, {size:,}"
            yield Row(name, "SGD and normal_", ours.step, peer, 1.5)


def average(small: bool) -> Iterator[Row]:
    """One update of the average of a network against torch's."""
    width = 8 if small else 512
    model = nn.Sequential(*(nn.Linear(width, width) for _ in range(4)))
    peer = AveragedModel(model)
    peer.update_parameters(model)
    for dtype in (torch.float32, torch.float64):
        ours = IterateAverage(model, dtype=dtype)
        name = f"IterateAverage.update, {str(dtype).removeprefix('torch.')} average"
        theirs = "AveragedModel, float32 average"
        yield Row(name, theirs, ours.update, lambda: peer.update_parameters(model), None)


PARTS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "chains": chains,
    "scaling": scaling,
    "step": step,
    "average": average,
}


def main() -> None:
    """Parse the command line and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--small", action="store_true", help="a smoke test")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.parts) - set(PARTS))
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    for part in arguments.parts or PARTS:
        for threads in arguments.threads:
            for row in PARTS[part](arguments.small):
                result = compare(
                    row.ours,
                    row.theirs,
                    name=f"{row.name}, {threads} thread(s)",
                    peer_name=row.peer,
                    peer_version=torch.__version__,
                    blocks=arguments.blocks,
                    threads=threads,
                )
                goal = "" if row.target is None else f"   [target <= {row.target}]"
                print(result.line() + goal, flush=True)


if __name__ == "__main__":
    main()
