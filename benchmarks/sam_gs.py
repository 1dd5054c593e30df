"""SAM-GS against torchjd's aggregators on the same Jacobian, and against memory itself.

``python benchmarks/sam_gs.py`` measures all; ``peers`` or ``memory`` one part. Ratios are times of
gradworks over times of the peer: below 1 is faster. Both branches are measured: equal lengths take
momentum, lengths that differ a hundredfold are equalised. The peers see the same matrix; SAM-GS
also keeps its moments, which they do not have. ``memory`` compares with a ``copy_`` that moves the
bytes of five passes over the Jacobian (read it and the moments, write the moments, read both
again), and prints the most memory a call holds beyond Jacobian and moments. ``--small`` is a smoke
test.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torchjd.aggregation import IMTLG, AlignedMTL, PCGrad

from gradworks.bench.timing import Timing, compare, roofline
from gradworks.multitask import SAMGS
from projecting import projecting

SIZES = ((2, 1_000_000), (10, 200_000), (40, 50_000))
SMALL = ((2, 1000), (10, 200))
BRANCHES = {"momentum": 1.0, "equalise": 100.0}  # ratio of the longest row to the shortest
PASSES = 5


class Row(NamedTuple):
    """One comparison."""

    measured: Timing
    target: float | None


def jacobian(tasks: int, params: int, spread: float) -> Tensor:
    """Rows of random direction whose lengths span ``spread``."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(tasks, params, generator=generator)
    return rows * torch.logspace(0, torch.tensor(spread).log10().item(), tasks)[:, None] / 100


def ours(matrix: Tensor, branch: str, **settings: object) -> Callable[[], object]:
    """A call of SAM-GS, its state there already."""
    aggregator = SAMGS(**settings)  # type: ignore[arg-type]
    aggregator(matrix)
    if aggregator.branch != branch:
        raise RuntimeError(f"meant to measure {branch}, the rows give {aggregator.branch}")
    return lambda: aggregator(matrix)


def peers(sizes: tuple[tuple[int, int], ...], options: dict[str, int]) -> Iterator[Row]:
    """Against what torchjd has; targets are the specification's."""
    version = metadata.version("torchjd")
    for tasks, params in sizes:
        for branch, spread in BRANCHES.items():
            matrix = jacobian(tasks, params, spread)
            for peer, target in (
                (IMTLG(), 1.2 if tasks == 2 else None),
                (AlignedMTL(), None),
                (PCGrad(), 1.0 if tasks >= 10 else None),
            ):
                found = compare(
                    ours(matrix, branch),
                    lambda peer=peer, matrix=matrix: peer(matrix),
                    name=f"SAM-GS, {branch}, ({tasks}, {params:,})",
                    peer_name=f"torchjd {type(peer).__name__}",
                    peer_version=version,
                    **options,
                )
                yield Row(found, target)
            found = compare(
                ours(matrix, branch),
                lambda matrix=matrix: projecting(matrix),
                name=f"SAM-GS, {branch}, ({tasks}, {params:,})",
                peer_name="PCGrad, its authors' arithmetic",
                **options,
            )
            yield Row(found, None)


def memory(sizes: tuple[tuple[int, int], ...], options: dict[str, int]) -> Iterator[Row]:
    """Against the bytes of five passes."""
    for tasks, params in sizes:
        for branch, spread in BRANCHES.items():
            matrix = jacobian(tasks, params, spread)
            run = ours(matrix, branch)
            name = f"SAM-GS, {branch}, ({tasks}, {params:,})"
            nbytes = PASSES * matrix.numel() * matrix.element_size()
            print(f"{name}: {peak(run) / 4 / params:.2f} x params numbers beyond J and M")
            yield Row(roofline(run, nbytes, name=name, **options), 1.5)


def peak(run: Callable[[], object]) -> int:
    """Most bytes that one call holds at once beyond what was there, on a CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    held = most = 0
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


PARTS = {"peers": peers, "memory": memory}


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
            options = {"blocks": arguments.blocks, "threads": threads}
            for row in PARTS[part](SMALL if arguments.small else SIZES, options):
                goal = "" if row.target is None else f"   [target <= {row.target}]"
                print(row.measured.line() + goal, flush=True)


if __name__ == "__main__":
    main()
