"""SSIM and MS-SSIM as losses, forward and backward, against pytorch-msssim, piq and torchmetrics.

``python benchmarks/ms_ssim.py time``: one thread, float32, the gradient of one minus the mean
value, the target without a gradient; the peers that are installed, each in turns with ours. At 64
pixels MS-SSIM has four scales and a kernel of 3, the largest pytorch-msssim takes there. Two rows
at the end compare with squared error, and a cached target with a new one.

``python benchmarks/ms_ssim.py memory``: peak memory of one forward and backward pass beyond the
images themselves, each side in a process of its own (Linux).

Without arguments: both. piq imports torchvision for metrics that are not used here; where it is
absent a stand-in takes its place.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from gradworks.bench.timing import compare
from gradworks.losses import SSIMLoss
from gradworks.losses.ms_ssim import MS_SSIM_WEIGHTS, ms_ssim, ssim

Loss = Callable[[Tensor, Tensor], Tensor]

# Name, images, metric, kernel, scales.
CASES = (
    ("SSIM 256", (8, 3, 256, 256), "ssim", 11, 1),
    ("SSIM 64", (32, 1, 64, 64), "ssim", 11, 1),
    ("SSIM 32", (128, 1, 32, 32), "ssim", 11, 1),
    ("SSIM volume", (1, 1, 48, 64, 64), "ssim", 11, 1),
    ("MS-SSIM 256", (8, 3, 256, 256), "ms_ssim", 11, 5),
    ("MS-SSIM 64", (32, 1, 64, 64), "ms_ssim", 3, 4),
)
PEERS = ("pytorch-msssim", "piq", "torchmetrics")


def exponents(scales: int) -> tuple[float, ...]:
    """The first so many weights, of sum 1."""
    total = sum(MS_SSIM_WEIGHTS[:scales])
    return tuple(w / total for w in MS_SSIM_WEIGHTS[:scales])


def ours(metric: str, kernel: int, scales: int) -> Loss:
    """Ours as a loss."""
    if metric == "ssim":
        return lambda x, y: 1 - ssim(x, y, kernel_size=kernel)
    return lambda x, y: 1 - ms_ssim(x, y, kernel_size=kernel, scales=scales)


def load_piq() -> ModuleType:
    """Import piq, with a stand-in for torchvision."""
    if importlib.util.find_spec("torchvision") is None:
        models = ModuleType("torchvision.models")
        models.__dict__.update(vgg16=None, vgg19=None)
        blocks = {f"Inception{x}": torch.nn.Module for x in "ABCDE"}
        models.__dict__["inception"] = SimpleNamespace(**blocks, Inception3=torch.nn.Module)
        stand_in = ModuleType("torchvision")
        stand_in.__dict__["models"] = models
        sys.modules["torchvision"], sys.modules["torchvision.models"] = stand_in, models
    try:
        return importlib.import_module("piq")
    finally:
        for name in ("torchvision", "torchvision.models"):
            if getattr(sys.modules.get(name), "__spec__", True) is None:
                del sys.modules[name]


def peer_loss(peer: str, metric: str, kernel: int, scales: int, sides: int) -> Loss | None:
    """A peer's loss, or ``None`` where it has no such thing or is not installed."""
    weights = exponents(scales)
    if peer == "pytorch-msssim" and importlib.util.find_spec("pytorch_msssim"):
        theirs = importlib.import_module("pytorch_msssim")
        if metric == "ssim":
            return lambda x, y: 1 - theirs.ssim(x, y, data_range=1.0, win_size=kernel)
        w = list(weights)
        return lambda x, y: 1 - theirs.ms_ssim(x, y, data_range=1.0, win_size=kernel, weights=w)
    if peer == "piq" and importlib.util.find_spec("piq") and sides == 2:
        theirs = load_piq()
        if metric == "ssim":
            return lambda x, y: 1 - theirs.ssim(x, y, kernel_size=kernel, downsample=False)
        scale_weights = torch.tensor(weights)
        return lambda x, y: (
            1 - theirs.multi_scale_ssim(x, y, kernel_size=kernel, scale_weights=scale_weights)
        )
    if peer == "torchmetrics" and importlib.util.find_spec("torchmetrics"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = importlib.import_module("torchmetrics.functional.image")
        if metric == "ssim":
            index = theirs.structural_similarity_index_measure
            return lambda x, y: 1 - index(x, y, data_range=1.0, kernel_size=kernel)
        if kernel == 11:  # its window follows sigma alone
            index = theirs.multiscale_structural_similarity_index_measure
            return lambda x, y: 1 - index(x, y, data_range=1.0, betas=weights)
    return None


def images(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """An output that needs a gradient, and its target."""
    g = torch.Generator().manual_seed(0)
    y = torch.rand(shape, generator=g)
    x = (0.8 * y + 0.2 * torch.rand(shape, generator=g)).requires_grad_()
    return x, y


def step(loss: Loss, shape: tuple[int, ...]) -> Callable[[], object]:
    """Forward and backward on images of its own."""
    x, y = images(shape)

    def run() -> object:
        x.grad = None
        loss(x, y).backward()
        return x.grad

    return run


def bench_time(blocks: int, case: int | None) -> None:
    """Ratios ours / peer: one case, or all; after the last, squared error and cached targets."""
    for name, shape, metric, kernel, scales in CASES if case is None else CASES[case : case + 1]:
        for peer in PEERS:
            if peer == "torchmetrics" and len(shape) == 5:
                print(f"{name}: {peer} is left out, its window of three dimensions takes minutes")
                continue
            theirs = peer_loss(peer, metric, kernel, scales, len(shape) - 2)
            if theirs is None:
                print(f"{name}: {peer} is not installed or has no such loss")
                continue
            result = compare(
                step(ours(metric, kernel, scales), shape),
                step(theirs, shape),
                name=f"{name}, {'x'.join(map(str, shape))} float32",
                peer_name=peer,
                peer_version=version(peer),
                blocks=blocks,
                threads=1,
            )
            print(result.line(), flush=True)
    if case is not None and case < len(CASES):
        return
    shape = (8, 3, 256, 256)
    result = compare(
        step(ours("ssim", 11, 1), shape),
        step(F.mse_loss, shape),
        name="SSIM 256",
        peer_name="squared error",
        peer_version=torch.__version__,
        blocks=blocks,
        threads=1,
    )
    print(result.line())
    result = compare(
        step(SSIMLoss(cache_target=True), shape),
        step(SSIMLoss(), shape),
        name="SSIM 256, cached target",
        peer_name="the same without",
        peer_version=torch.__version__,
        blocks=blocks,
        threads=1,
    )
    print(result.line())


def resident(which: str) -> int:
    """Bytes this process holds (``VmRSS``), or has held at most (``VmHWM``)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not say what this process holds; Linux does")


def one_memory(case: int, side: str) -> int | None:
    """Peak bytes of one pass beyond the images (the gradient counts)."""
    torch.set_num_threads(1)
    _, shape, metric, kernel, scales = CASES[case]
    loss = (
        ours(metric, kernel, scales)
        if side == "ours"
        else peer_loss(side, metric, kernel, scales, len(shape) - 2)
    )
    if loss is None:
        return None
    step(loss, (1, *shape[1:]))()  # code is loaded by what is used first
    run = step(loss, shape)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def bench_memory() -> None:
    """Megabytes of every side, each in a fresh process."""
    # What is freed goes back at once, so that what is held is what is in use.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    print(f"{'peak megabytes of a pass':28}" + "".join(f"{s:>16}" for s in ("ours", *PEERS)))
    for case, (name, *_) in enumerate(CASES):
        row = []
        for side in ("ours", *PEERS):
            command = [sys.executable, "-W", "ignore", __file__, "one", str(case), side]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
            found = json.loads(done.stdout.splitlines()[-1])
            row.append("-" if found is None else f"{found / 2**20:.1f}")
        print(f"{name:28}" + "".join(f"{cell:>16}" for cell in row))


def main() -> None:
    """Parse the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("time", "memory", "all", "one"), default="all")
    parser.add_argument("case", nargs="?", type=int, help="for one and time: which case")
    parser.add_argument("side", nargs="?", help="for one: ours or a peer")
    parser.add_argument("--blocks", type=int, default=30)
    arguments = parser.parse_args()
    if arguments.what == "one":
        print(json.dumps(one_memory(arguments.case, arguments.side)))
        return
    if arguments.what in {"time", "all"}:
        bench_time(arguments.blocks, arguments.case)
    if arguments.what in {"memory", "all"}:
        bench_memory()


if __name__ == "__main__":
    main()
