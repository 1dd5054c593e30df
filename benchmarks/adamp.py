"""AdamP against AdamW (each path against the same path) and against two other AdamPs.

``python benchmarks/adamp.py``: one step over 100 tensors, 9.9 million float32 parameters of a
residual network, whose convolutions have gradients orthogonal to each row, as those before a
batch normalization have. Our paths: ``single`` (one tensor at a time), ``foreach``, ``fused`` (one
compiled kernel a tensor). Peers that are not installed are left out and named.

``--sgd`` adds SGDP against SGD and its peers, ``--threads 1 2`` repeats for several numbers of
threads, ``--small`` takes a hundredth of the parameters (a smoke test, not a measurement).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradworks.bench.timing import compare
from gradworks.optim import SGDP, AdamP

# (weights, channels out, channels in, kernel side); two vectors follow each convolution
STAGES = ((10, 64, 64, 3), (10, 128, 128, 3), (10, 256, 256, 3), (1, 512, 256, 3), (1, 512, 512, 1))
HEAD = (1000, 512)
LR = 1e-9  # weights stay where they are, so that each step finds the same angles
PATHS: dict[str, dict[str, Any]] = {
    "single": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
# Section 8 of the method's specification: ours over the peer, at most.
TARGETS = {
    ("single", "pytorch_optimizer"): 0.9,
    ("fused", "pytorch_optimizer"): 0.55,
}


def shapes(small: bool) -> list[tuple[int, ...]]:
    """About 100 shapes: 32 convolutions with two vectors each, a linear layer, its bias."""
    scale = 10 if small else 1
    found: list[tuple[int, ...]] = []
    for count, out, channels, side in STAGES:
        for _ in range(count):
            found += [(out // scale, channels // scale, side, side)]
            found += [(out // scale,), (out // scale,)]
    return [*found, tuple(n // scale for n in HEAD), (HEAD[0] // scale,)]


def parameters(small: bool) -> list[nn.Parameter]:
    """Parameters with gradients: orthogonal to each row for convolutions, random elsewhere."""
    g = torch.Generator().manual_seed(0)
    params = []
    for shape in shapes(small):
        weight = torch.randn(shape, generator=g)
        grad = torch.randn(shape, generator=g)
        if weight.ndim == 4:
            p, rows = weight.flatten(1), grad.flatten(1)
            rows -= p * (rows * p).sum(1, keepdim=True) / (p * p).sum(1, keepdim=True)
        param = nn.Parameter(weight)
        param.grad = grad
        params.append(param)
    return params


def stepper(make: Callable[..., Any], small: bool, **settings: Any) -> Callable[[], object]:
    """One step of an optimizer over parameters of its own."""
    optimizer = make(parameters(small), lr=LR, weight_decay=1e-2, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peers use what torch has deprecated
        optimizer.step()
    return optimizer.step  # type: ignore[no-any-return]


def peers(name: str) -> dict[str, tuple[Callable[..., Any], str]]:
    """The installed peers: class and version."""
    # a script's folder comes first in the search for modules, and this file is called as a peer is
    here = Path(__file__).resolve().parent
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != here]
    found = {}
    for module in ("pytorch_optimizer", "adamp"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = getattr(importlib.import_module(module), name)
        except ImportError as error:
            print(f"{module}.{name}: not measured ({error}); pip install 'gradworks[peers]'")
            continue
        found[module] = (made, importlib.metadata.version(module.replace("_", "-")))
    return found


def rows(
    ours: Callable[..., Any], torchs: Callable[..., Any], settings: dict[str, Any], small: bool
) -> list[tuple[str, str, str, Callable[[], object], Callable[[], object], float | None]]:
    """What is compared: name, peer, its version, both steps, target."""
    made = []
    others = peers(ours.__name__)
    for path, chosen in PATHS.items():
        name = f"{ours.__name__} {path}"
        step = stepper(ours, small, **settings, **chosen)
        torch_step = stepper(torchs, small, **settings, **chosen)
        made.append((name, f"{torchs.__name__} {path}", torch.__version__, step, torch_step, None))
        for module, (theirs, version) in others.items():
            peer_step = stepper(theirs, small, **settings)
            target = TARGETS.get((path, module)) if ours is AdamP else None
            made.append((name, f"{module}.{ours.__name__}", version, step, peer_step, target))
        if path == "foreach" and "pytorch_optimizer" in others:
            theirs, version = others["pytorch_optimizer"]
            peer_step = stepper(theirs, small, **settings, foreach=True)
            peer = f"pytorch_optimizer.{ours.__name__} foreach"
            made.append((name, peer, version, step, peer_step, None))
    return made


def state_bytes(ours: Callable[..., Any], small: bool) -> int:
    """Bytes of state after a step."""
    optimizer = ours(parameters(small), lr=LR)
    optimizer.step()
    tensors = [x for state in optimizer.state.values() for x in state.values()]
    return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor))


def main() -> None:
    """Parse the command line and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--paths", nargs="+", choices=tuple(PATHS), default=list(PATHS))
    parser.add_argument("--sgd", action="store_true", help="SGDP too")
    parser.add_argument("--small", action="store_true", help="a smoke test")
    arguments = parser.parse_args()
    sizes = [torch.Size(shape).numel() for shape in shapes(arguments.small)]
    print(f"{len(sizes)} tensors, {sum(sizes) / 1e6:.2f} million parameters, float32")
    for path in set(PATHS) - set(arguments.paths):
        del PATHS[path]
    # Before a large block is freed once, glibc returns each temporary tensor to the system: a cost
    # that no training loop has, and that would fall on whoever runs first.
    torch.empty(7_500_000).fill_(0.0)
    measured = [(AdamP, torch.optim.AdamW, {})]
    if arguments.sgd:
        measured.append((SGDP, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}))
    for ours, torchs, settings in measured:
        print(f"{ours.__name__}: {state_bytes(ours, arguments.small) / 1e6:.1f} MB of state")
        for threads in arguments.threads:
            for name, peer, version, step, peer_step, target in rows(
                ours, torchs, settings, arguments.small
            ):
                result = compare(
                    step,
                    peer_step,
                    name=f"{name}, {len(sizes)} tensors, {threads} thread(s)",
                    peer_name=peer,
                    peer_version=version,
                    blocks=arguments.blocks,
                    threads=threads,
                )
                goal = "" if target is None else f"   [target <= {target}]"
                print(result.line() + goal, flush=True)


if __name__ == "__main__":
    main()
