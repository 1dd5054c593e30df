"""ARO against ``torch.optim.Muon``, ``pytorch_optimizer``'s SOAP and AdamW.

``python benchmarks/optim_aro.py``: one step. ``shapes``: one weight of 256 x 256, 256 x 1024 and
1024 x 256, with each factorization. ``stacked``: 8 weights of 256 x 1024, together and one by one.
``steps``: the matrices of 100 tensors. ``state``: bytes of state of each. Without a word all are
measured. Peers that are not installed are left out and named.

``--threads``, ``--device``, ``--models``, ``--small`` as in the other scripts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gradworks.bench.timing import compare
from gradworks.optim import ARO
from hundred_tensors import (
    described,
    parameters,
    parser,
    peer,
    settle_memory,
    state_bytes,
    stepper,
)

WHAT = ("shapes", "stacked", "steps", "state")
SHAPES = ((256, 256), (256, 1024), (1024, 256))
STACK = 8
# Section 8 of the method's specification: ours over the peer, at most.
OVER_MUON, OVER_LOOP = 1.3, 1 / 1.5
OURS: dict[str, dict[str, Any]] = {
    "ARO": {},
    "ARO, scqr": {"rotation": "scqr"},
    "ARO, scqr2": {"rotation": "scqr2"},
    "ARO, sign": {"base": "sign"},
    "ARO, every 10": {"rotation_every": 10},
}
Step = Callable[[], object]


def matrices(shapes: list[tuple[int, int]], options: Any) -> list[nn.Parameter]:
    """Weights with gradients; a tenth of each dimension where small."""
    g = torch.Generator().manual_seed(0)
    scale = 10 if options.small else 1
    params = []
    for shape in shapes:
        size = tuple(n // scale for n in shape)
        param = nn.Parameter(torch.randn(size, generator=g).to(options.device))
        param.grad = torch.randn(size, generator=g).to(options.device)
        params.append(param)
    return params


def peers(params: Callable[[], list[nn.Parameter]]) -> list[tuple[str, str, Step]]:
    """Name, version and step of each peer."""
    found: list[tuple[str, str, Step]] = [
        ("Muon", torch.__version__, stepper(torch.optim.Muon, params(), nesterov=False)),
        ("AdamW", torch.__version__, stepper(torch.optim.AdamW, params())),
    ]
    muon = peer("pytorch_optimizer", "Muon")
    if muon is not None:
        groups: Any = [{"params": params(), "use_muon": True}]
        found.append((muon.name, muon.version, stepper(muon.make, groups)))
    soap = peer("pytorch_optimizer", "SOAP")
    if soap is not None:
        for every in (1, 10):
            step = stepper(soap.make, params(), precondition_frequency=every)
            found.append((f"{soap.name}, every {every}", soap.version, step))
    return found


def report(
    name: str,
    theirs: str,
    version: str,
    own: Step,
    step: Step,
    label: str,
    options: Any,
    goal: float | None = None,
) -> None:
    """Measure one pair and print its line."""
    for threads in options.threads:
        result = compare(
            own,
            step,
            name=f"{name}, {label}, {threads} thread(s)",
            peer_name=theirs,
            peer_version=version,
            blocks=options.blocks,
            threads=threads,
        )
        said = "" if goal is None else f"   [target <= {goal:.2g}]"
        print(result.line() + said, flush=True)


def measure(make: Callable[[], list[nn.Parameter]], label: str, options: Any) -> None:
    """Every variant of ours against every peer."""
    found = peers(make)
    for name, settings in OURS.items():
        own = stepper(ARO, make(), **settings)
        for theirs, version, step in found:
            if name != "ARO" and theirs != "Muon":
                continue
            goal = OVER_MUON if (name, theirs) == ("ARO", "Muon") else None
            report(name, theirs, version, own, step, label, options, goal)


def measure_stacked(options: Any) -> None:
    """Equal shapes together against one after the other."""

    def made() -> list[nn.Parameter]:
        return matrices([(256, 1024)] * STACK, options)

    for name, settings in OURS.items():
        together = stepper(ARO, made(), foreach=True, **settings)
        loop = stepper(ARO, made(), foreach=False, **settings)
        goal = OVER_LOOP if name == "ARO" else None
        report(f"{name}, stacked", "one by one", "-", together, loop, "8 weights", options, goal)


def measure_state(options: Any) -> None:
    """Bytes of state after a step of the three shapes."""

    def made() -> list[nn.Parameter]:
        return matrices(list(SHAPES), options)

    optimizers: dict[str, torch.optim.Optimizer] = {
        "AdamW": torch.optim.AdamW(made()),
        "Muon": torch.optim.Muon(made()),
        "ARO": ARO(made()),
        "ARO, adam": ARO(made(), base="adam"),
    }
    soap = peer("pytorch_optimizer", "SOAP")
    if soap is not None:
        optimizers["SOAP"] = soap.make(made())
    count = sum(p.numel() for p in made())
    for name, optimizer in optimizers.items():
        optimizer.step()
        size = state_bytes(optimizer)
        print(f"{name}: {size / 1e6:.2f} MB of state, {size / count:.2f} bytes a parameter")


def main() -> None:
    """Parse the command line and print the ratios."""
    options = parser(__doc__ or "")
    options.add_argument("what", nargs="*", help=f"of {', '.join(WHAT)}; all")
    arguments = options.parse_args()
    unknown = sorted(set(arguments.what) - set(WHAT))
    if unknown:
        options.error(f"unknown: {', '.join(unknown)}; there are {', '.join(WHAT)}")
    what = arguments.what or WHAT
    settle_memory()
    if "state" in what:
        measure_state(arguments)
    if "shapes" in what:
        for shape in SHAPES:
            label = f"{shape[0]} x {shape[1]}"
            measure(lambda shape=shape: matrices([shape], arguments), label, arguments)
    if "stacked" in what:
        measure_stacked(arguments)
    if "steps" in what:
        for model in arguments.models:
            print(f"{model}, its matrices: {described(model, small=arguments.small)}")

            def made(model: str = model) -> list[nn.Parameter]:
                params = parameters(model, small=arguments.small, device=arguments.device)
                return [p for p in params if p.ndim == 2]

            measure(made, model, arguments)


if __name__ == "__main__":
    main()
