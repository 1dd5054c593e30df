"""AdamP against AdamW (each path against the same path) and against two other AdamPs.

``python benchmarks/optim_adamp.py``: one step over 98 tensors, 9.7 million float32 parameters of a
residual network, whose convolutions have gradients orthogonal to each row, as those before a
batch normalization have. Our paths: ``single`` (one tensor at a time), ``foreach``, ``fused`` (one
compiled kernel a tensor). Peers that are not installed are left out and named.

``--sgd`` adds SGDP against SGD and its peers, ``--threads 1 2`` repeats for several numbers of
threads, ``--small`` takes a hundredth of the parameters (a smoke test, not a measurement).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gradworks.bench.timing import compare
from gradworks.optim import SGDP, AdamP
from hundred_tensors import (
    LR,
    Peer,
    described,
    parameters,
    parser,
    peer,
    settle_memory,
    state_bytes,
    stepper,
)

PATHS: dict[str, dict[str, Any]] = {
    "single": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
# Section 8 of the method's specification: ours over the peer, at most.
TARGETS = {
    ("AdamP single", "pytorch_optimizer.AdamP"): 0.9,
    ("AdamP fused", "pytorch_optimizer.AdamP"): 0.55,
}
Row = tuple[str, str, str, Callable[[], object], Callable[[], object]]


def rows(
    ours: Callable[..., Any],
    torchs: Callable[..., Any],
    settings: dict[str, Any],
    model: str,
    options: Any,
    peers: list[Peer],
) -> list[Row]:
    """What is compared: name, peer, its version, both steps."""

    def step(make: Callable[..., Any], **chosen: Any) -> Callable[[], object]:
        params = parameters(model, small=options.small, device=options.device)
        return stepper(make, params, **settings, **chosen)

    made: list[Row] = []
    for path in options.paths:
        chosen = PATHS[path]
        name, own = f"{ours.__name__} {path}", step(ours, **chosen)
        torch_step = step(torchs, **chosen)
        made.append((name, f"{torchs.__name__} {path}", torch.__version__, own, torch_step))
        for other in peers:
            made.append((name, other.name, other.version, own, step(other.make)))
            if path == "foreach" and other.name.startswith("pytorch_optimizer"):
                theirs = step(other.make, foreach=True)
                made.append((name, f"{other.name} foreach", other.version, own, theirs))
    return made


def main() -> None:
    """Parse the command line and print the ratios."""
    options = parser(__doc__ or "")
    options.set_defaults(models=["residual"])
    options.add_argument("--paths", nargs="+", choices=tuple(PATHS), default=list(PATHS))
    options.add_argument("--sgd", action="store_true", help="SGDP too")
    arguments = options.parse_args()
    settle_memory()
    measured: list[tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = [
        (AdamP, torch.optim.AdamW, {})
    ]
    if arguments.sgd:
        measured.append((SGDP, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}))
    for ours, torchs, settings in measured:
        found = [peer(module, ours.__name__) for module in ("pytorch_optimizer", "adamp")]
        peers = [other for other in found if other is not None]
        for model in arguments.models:
            print(f"{model}: {described(model, small=arguments.small)}")
            optimizer = ours(parameters(model, small=arguments.small), lr=LR)
            optimizer.step()
            print(f"{ours.__name__}: {state_bytes(optimizer) / 1e6:.1f} MB of state")
            for threads in arguments.threads:
                for name, theirs, version, step, peer_step in rows(
                    ours, torchs, settings, model, arguments, peers
                ):
                    result = compare(
                        step,
                        peer_step,
                        name=f"{name}, {model}, {threads} thread(s)",
                        peer_name=theirs,
                        peer_version=version,
                        blocks=arguments.blocks,
                        threads=threads,
                    )
                    goal = TARGETS.get((name, theirs))
                    said = "" if goal is None else f"   [target <= {goal}]"
                    print(result.line() + said, flush=True)


if __name__ == "__main__":
    main()
