"""GCond against its own arithmetic on vectors, against PCGrad, and whole training steps.

``python benchmarks/gcond.py`` measures all; ``resolution``, ``peers``, ``step`` or ``memory`` one
part. Ratios are times of gradworks over times of the peer: below 1 is faster.

``resolution``: three gradients of five million numbers that take four rounds, beside the authors'
arithmetic written anew on float32 vectors (every pair is measured in every round); it works in its
rows, which are filled outside the time. ``peers``: torchjd's PCGrad, and its authors' arithmetic,
on the same matrix at 2, 10 and 40 tasks. ``step``: whole steps of two losses and four
micro-batches: stochastic against sequential accumulation (whose losses share a forward pass here,
and do not in the authors' code), against plain accumulation of the sum, and against PCGrad of the
accumulated gradients; the paper claims half of PCGrad's cost. ``memory``: what a call holds beyond
rows and state.
``--small`` is a smoke test.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torchjd.aggregation import PCGrad

from gradworks.bench.timing import Timing, compare
from gradworks.multitask import SAMGS, Aggregator, Conductor, GCond, TaskGradients, from_torchjd
from gradworks.multitask.gcond.reference import VectorGCond
from projecting import projecting

ROUNDS = 4
SIZES = ((2, 1_000_000), (10, 200_000), (40, 50_000))
LOSSES = {"l1": F.l1_loss, "l2": F.mse_loss}
MICRO_BATCHES = 4

Run = Callable[[], object]


class Row(NamedTuple):
    """One comparison and the ratio that the specification asks for."""

    measured: Timing
    target: float | None


def jacobian(tasks: int, params: int) -> Tensor:
    """Rows that conflict, every one with every other for three."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(tasks, params, generator=generator)
    return (rows - 1.2 / tasks * rows.sum(0)) / params**0.5


class InPlace:
    """The peer and its two sets of rows: those of a step are the next step's gradients before."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.method = matrix, VectorGCond(max_iters=ROUNDS)
        self.rows = [matrix.clone(), matrix.clone()]

    def fill(self) -> None:
        """Fresh gradients, outside the time."""
        self.rows.reverse()
        self.rows[0].copy_(self.matrix)

    def __call__(self) -> object:
        """One step in the rows that were filled."""
        return self.method(self.rows[0], overwrite=True)


def resolution(params: int, options: dict[str, int]) -> Iterator[Row]:
    """Steps 2 to 6 of the method alone."""
    matrix = jacobian(3, params)
    ours, peer = GCond(max_iters=ROUNDS), InPlace(matrix)
    for _ in range(2):
        ours(matrix)
        peer.fill()
        peer()
    found = {ours.stats.rounds if ours.stats else 0, peer.method.rounds}
    if found != {ROUNDS}:
        raise RuntimeError(f"meant to measure {ROUNDS} rounds, the rows give {found}")
    measured = compare(
        lambda: ours(matrix),
        peer,
        name=f"GCond, (3, {params:,}), {ROUNDS} rounds",
        peer_name="authors' arithmetic on vectors",
        inner=1,
        setup=peer.fill,
        **options,
    )
    yield Row(measured, 1 / 3)


def peers(sizes: tuple[tuple[int, int], ...], options: dict[str, int]) -> Iterator[Row]:
    """PCGrad on the same matrix."""
    for tasks, params in sizes:
        matrix, ours, peer = jacobian(tasks, params), GCond(), PCGrad()
        ours(matrix)
        measured = compare(
            lambda ours=ours, matrix=matrix: ours(matrix),
            lambda peer=peer, matrix=matrix: peer(matrix),
            name=f"GCond, ({tasks}, {params:,}), {ours.stats.rounds if ours.stats else 0} rounds",
            peer_name="torchjd PCGrad",
            peer_version=metadata.version("torchjd"),
            **options,
        )
        yield Row(measured, None)
        measured = compare(
            lambda ours=ours, matrix=matrix: ours(matrix),
            lambda matrix=matrix: projecting(matrix),
            name=f"GCond, ({tasks}, {params:,})",
            peer_name="PCGrad, its authors' arithmetic",
            **options,
        )
        yield Row(measured, None)


def network(width: int) -> nn.Module:
    """A convolutional encoder and decoder of images."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 4 * width, 3, 1, 1),
        nn.PixelShuffle(2),
        nn.ReLU(),
        nn.Conv2d(width, 12, 3, 1, 1),
        nn.PixelShuffle(2),
    )


def steps(width: int, rows: int) -> dict[str, Run]:
    """Whole steps up to ``.grad``, by name."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(rows, 3, 32, 32, generator=generator)

    def conducted(aggregator: Aggregator, mode: str) -> Run:
        conductor = Conductor(
            network(width), LOSSES, None, MICRO_BATCHES, mode=mode, aggregator=aggregator
        )
        return lambda: conductor.step(lambda: (images, images))

    model = network(width)

    def accumulated() -> object:
        model.zero_grad()
        for _ in range(MICRO_BATCHES):
            output = model(images)
            loss = sum(loss(output, images) for loss in LOSSES.values())
            (loss / MICRO_BATCHES).backward()
        return None

    shown = network(width)
    driver, again = TaskGradients(shown.parameters()), GCond()

    def anew() -> object:
        for _ in range(MICRO_BATCHES):
            for name, loss in LOSSES.items():
                found = {name: loss(shown(images), images)}
                driver.accumulate(found, scale=1 / MICRO_BATCHES, tasks=list(LOSSES))
        return driver.aggregate(again, accumulate=False)

    return {
        "sequential, a forward pass a loss": anew,
        "stochastic": conducted(GCond(), "stochastic"),
        "sequential": conducted(GCond(), "sequential"),
        "PCGrad, sequential": conducted(from_torchjd("PCGrad"), "sequential"),
        "plain accumulation": accumulated,
    }


def step(width: int, rows: int, options: dict[str, int]) -> Iterator[Row]:
    """The stochastic step against the others; targets are the specification's and the paper's."""
    made = steps(width, rows)
    for peer, target in (
        ("sequential", 1 / 1.8),
        ("sequential, a forward pass a loss", None),
        ("plain accumulation", 1.1),
        ("PCGrad, sequential", 0.5),
    ):
        measured = compare(
            made["stochastic"],
            made[peer],
            name=f"step of {MICRO_BATCHES} micro-batches of {rows}, stochastic GCond",
            peer_name=peer,
            **options,
        )
        yield Row(measured, target)


def peak(run: Run) -> int:
    """Most bytes that a call holds at once beyond what is there before it."""
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run()
    held = most = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def memory(tasks: int, params: int) -> None:
    """In units of one gradient; the result is one of them."""
    matrix, peer = jacobian(tasks, params), PCGrad()
    ours, vectors, lengths = GCond(), VectorGCond(), SAMGS()
    for name, run in (
        ("GCond", lambda: ours(matrix)),
        ("SAM-GS", lambda: lengths(matrix)),
        ("authors' arithmetic, rows copied", lambda: vectors(matrix)),
        ("torchjd PCGrad", lambda: peer(matrix)),
        ("PCGrad, its authors' arithmetic", lambda: projecting(matrix)),
    ):
        units = peak(run) / (4 * params)
        print(f"{name}, ({tasks}, {params:,}): holds {units:.2f} gradients at most")


def main() -> None:
    """Parse the command line and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ("resolution", "peers", "step", "memory", "all")
    parser.add_argument("what", nargs="?", choices=parts, default="all")
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    small = arguments.small
    options = {"blocks": 3 if small else arguments.blocks, "threads": 1}
    rows: list[Iterator[Row]] = []
    if arguments.what in {"resolution", "all"}:
        rows.append(resolution(20_000 if small else 5_000_000, options))
    if arguments.what in {"peers", "all"}:
        rows.append(peers(((2, 1000), (10, 200)) if small else SIZES, options))
    if arguments.what in {"step", "all"}:
        rows.append(step(8 if small else 64, 4 if small else 32, options))
    for part in rows:
        for measured, target in part:
            asked = "" if target is None else f"  (target {target:.2f})"
            print(measured.line() + asked, flush=True)
    if arguments.what in {"memory", "all"}:
        for size in ((3, 20_000),) if small else (*SIZES, (3, 5_000_000)):
            memory(*size)


if __name__ == "__main__":
    main()
