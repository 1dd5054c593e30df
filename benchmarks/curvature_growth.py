"""Time and memory of curvature products from 10^4 to 10^8 parameters, and of Lanczos on top.

``python benchmarks/curvature_growth.py`` runs each size in a process of its own, so that its peak
memory is its own: four square layers with tanh, float32, 32 examples. Columns: one gradient
(forward and backward), one product with the graph kept and one with it rebuilt, each the median of
some; their peak above the model and one vector; and one Lanczos step with full reorthogonalisation
(the mean over the steps) with its basis. What does not fit into ``--share`` of the memory that is
free is not run but computed, and its row says so: times grow with the parameters from the largest
size measured, memory by the bytes a parameter took there, the basis is steps times parameters times
four.

``--device cuda`` measures there. Times of one process on a quiet machine; ``--sizes 4 5`` is a
smoke test.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from gradworks.curvature import HessianOperator, tridiagonalize
from gradworks.curvature.recurrence import free_bytes

INPUTS, CLASSES, EXAMPLES, LAYERS = 64, 10, 32, 4
BYTES = 4  # float32
# Before anything is measured: parameters, gradient, the vector, its product, what a backward pass
# through the gradient's graph holds. Only to decide whether to try the first sizes.
GUESS = 16 * BYTES


@dataclass
class Row:
    """One size; seconds and bytes."""

    parameters: int
    gradient: float
    kept: float
    rebuilt: float
    step: float
    model: int
    peak: int
    basis: int
    steps: int
    computed: bool = False
    lanczos_computed: bool = False


def width(parameters: int) -> int:
    """Of the layers, so that all have about so many parameters."""
    b = INPUTS + CLASSES
    return max(4, round((-b + (b * b + 4 * LAYERS * parameters) ** 0.5) / (2 * LAYERS)))


def network(parameters: int) -> nn.Sequential:
    """Square layers between a narrow first and last one."""
    torch.manual_seed(0)
    w = width(parameters)
    hidden = [m for _ in range(LAYERS) for m in (nn.Linear(w, w), nn.Tanh())]
    return nn.Sequential(nn.Linear(INPUTS, w), nn.Tanh(), *hidden, nn.Linear(w, CLASSES))


def used(device: torch.device) -> int:
    """Most bytes held so far."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024


def seconds(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median over repeats, after one that is not counted."""
    found = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - begun)
    return median(found[1:])


def one(parameters: int, repeats: int, steps: int, device: torch.device, lanczos: bool) -> Row:
    """Measure one size, in this process."""
    # Code is loaded by what is used first, and counts as memory: not that of the first size.
    tiny = nn.Sequential(nn.Linear(2, 2), nn.Tanh()).to(device)
    warm = HessianOperator(tiny, F.mse_loss, (torch.ones(2, 2).to(device),) * 2)
    tridiagonalize(warm, 2)
    before = used(device)
    model = network(parameters).to(device)
    count = sum(p.numel() for p in model.parameters())
    g = torch.Generator().manual_seed(1)
    x = torch.randn(EXAMPLES, INPUTS, generator=g).to(device)
    y = torch.randint(CLASSES, (EXAMPLES,), generator=g).to(device)
    v = torch.randn(count, generator=g).to(device)
    held = used(device)
    gradient = seconds(
        lambda: torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters())),
        repeats,
        device,
    )
    with HessianOperator(model, F.cross_entropy, (x, y), cache="never") as op:
        rebuilt = seconds(lambda: op.apply(v), repeats, device)
    with HessianOperator(model, F.cross_entropy, (x, y)) as op:
        kept = seconds(lambda: op.apply(v), repeats, device)
        peak = used(device) - held
        step = float("nan")
        if lanczos:
            begun = time.perf_counter()
            tridiagonalize(op, steps)
            step = (time.perf_counter() - begun) / steps
    return Row(
        parameters=count,
        gradient=gradient,
        kept=kept,
        rebuilt=rebuilt,
        step=step,
        model=held - before,
        peak=peak,
        basis=steps * count * BYTES,
        steps=steps,
    )


def child(parameters: int, options: argparse.Namespace, lanczos: bool) -> Row:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--one", str(parameters)]
    command += ["--repeats", str(options.repeats), "--steps", str(options.steps)]
    command += ["--device", options.device, *([] if lanczos else ["--no-lanczos"])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def scaled(parameters: int, last: Row) -> Row:
    """What a size would take: time and memory by the parameter, from the largest one measured."""
    ratio = parameters / last.parameters
    return Row(
        parameters=parameters,
        gradient=last.gradient * ratio,
        kept=last.kept * ratio,
        rebuilt=last.rebuilt * ratio,
        step=last.step * ratio,
        model=round(last.model * ratio),
        peak=round(last.peak * ratio),
        basis=last.steps * parameters * BYTES,
        steps=last.steps,
        computed=True,
        lanczos_computed=True,
    )


def grown(options: argparse.Namespace) -> list[Row]:
    """All sizes, measured while they fit."""
    rows: list[Row] = []
    for exponent in sorted(options.sizes):
        parameters = round(10**exponent)
        room = options.share * (free_bytes(torch.device(options.device)) or 2**33)
        last = rows[-1] if rows else None
        each = (last.peak + last.model) / last.parameters if last else GUESS
        need = max(each, GUESS) * parameters
        if last is not None and (need > room or last.computed):
            rows.append(scaled(parameters, last))
            continue
        fits = need + options.steps * parameters * BYTES <= room
        row = child(parameters, options, fits)
        if not fits and last is not None:
            # The rest of a step is its share of reading the basis: by the parameter.
            extra = (last.step - last.kept) * row.parameters / last.parameters
            row.step, row.lanczos_computed = row.kept + extra, True
        rows.append(row)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Markdown; ``computed`` marks what was not run."""
    steps = rows[0].steps
    lines = [
        "| parameters | gradient | product, graph kept | graph rebuilt | over a gradient "
        f"| peak above model and vector | a step of {steps} | basis of {steps} | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        note = "computed" if r.computed else "Lanczos computed" if r.lanczos_computed else ""
        lines.append(
            f"| {r.parameters:,} | {_time(r.gradient)} | {_time(r.kept)} | {_time(r.rebuilt)} "
            f"| {r.kept / r.gradient:.1f} | {_size(r.peak)} | {_time(r.step)} | {_size(r.basis)} "
            f"| {note} |"
        )
    return "\n".join(lines)


def _time(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def _size(value: float) -> str:
    return f"{value / 2**20:.3g} MiB" if value < 2**30 else f"{value / 2**30:.3g} GiB"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description="Products from 10^4 to 10^8 parameters.")
    parser.add_argument("--sizes", type=float, nargs="+", default=[4, 5, 6, 7, 8], help="exponents")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.6, help="of the free memory")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--no-lanczos", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.one is not None:
        row = one(options.one, options.repeats, options.steps, device, not options.no_lanczos)
        print(json.dumps(asdict(row)))
        return
    rows = grown(options)
    found: Any = [asdict(r) for r in rows]
    print(json.dumps(found, indent=1) if options.json else table(rows))


if __name__ == "__main__":
    main()
