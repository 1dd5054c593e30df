"""DiffGrad against AdamW (each path against the same path) and against other DiffGrads.

``python benchmarks/optim_diffgrad.py``: one step over 100 tensors, 9.84 million float32 parameters,
and over one matrix. Our paths: ``single`` (one tensor at a time), ``foreach``, ``fused`` (compiled,
four tensors a call). Peers: ``pytorch_optimizer``'s, and the authors' corrected arithmetic, written
down here as it is in their file. Peers that are not installed are left out and named.

``--threads 1 2`` repeats for several numbers of threads, ``--device cuda`` for an accelerator
(with ``--paths foreach``), ``--small`` takes a tenth of each dimension (a smoke test, not a
measurement).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from gradworks.bench.timing import compare
from gradworks.optim import DiffGrad
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
    ("DiffGrad single", "pytorch_optimizer.DiffGrad"): 0.9,
    ("DiffGrad fused", "pytorch_optimizer.DiffGrad"): 0.3,
    ("DiffGrad fused", "AdamW fused"): 1.5,
}
CUDA_TARGETS = {("DiffGrad foreach", "AdamW foreach"): 1.4}
Row = tuple[str, str, str, Callable[[], object], Callable[[], object]]


class AsReleased(torch.optim.Optimizer):
    """The order of operations of the authors' corrected file, one tensor at a time.

    Args:
        params: Parameters.
        lr: Step.
        weight_decay: L2 term.
    """

    def __init__(self, params: Any, lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Perform one step."""
        for group in self.param_groups:
            for p in group["params"]:
                state, g = self.state[p], p.grad
                if not state:
                    state["step"] = 0
                    for name in ("exp_avg", "exp_avg_sq", "previous_grad"):
                        state[name] = torch.zeros_like(p)
                state["step"] += 1
                if group["weight_decay"] != 0:
                    g = g + group["weight_decay"] * p
                m, v = state["exp_avg"], state["exp_avg_sq"]
                m.mul_(0.9).add_(g, alpha=0.1)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                denom = v.sqrt().add_(1e-8)
                change = torch.abs(state["previous_grad"] - g)
                friction = 1.0 / (1.0 + torch.exp(-change))
                state["previous_grad"] = g.clone()
                corrections = math.sqrt(1 - 0.999 ** state["step"]) / (1 - 0.9 ** state["step"])
                p.addcdiv_(m * friction, denom, value=-group["lr"] * corrections)


def rows(model: str, options: Any, peers: list[Peer]) -> list[Row]:
    """What is compared: name, peer, its version, both steps."""

    def step(make: Callable[..., Any], **chosen: Any) -> Callable[[], object]:
        params = parameters(model, small=options.small, device=options.device)
        return stepper(make, params, **chosen)

    made: list[Row] = []
    for path in options.paths:
        name, own = f"DiffGrad {path}", step(DiffGrad, **PATHS[path])
        torch_step = step(torch.optim.AdamW, **PATHS[path])
        made.append((name, f"AdamW {path}", torch.__version__, own, torch_step))
        if path != "fused":
            fused = step(torch.optim.AdamW, fused=True)
            made.append((name, "AdamW fused", torch.__version__, own, fused))
        for other in peers:
            made.append((name, other.name, other.version, own, step(other.make)))
            if path == "foreach" and other.name.startswith("pytorch_optimizer"):
                theirs = step(other.make, foreach=True)
                made.append((name, f"{other.name} foreach", other.version, own, theirs))
    return made


def main() -> None:
    """Parse the command line and print the ratios."""
    options = parser(__doc__ or "")
    options.add_argument("--paths", nargs="+", choices=tuple(PATHS), default=list(PATHS))
    arguments = options.parse_args()
    settle_memory()
    found = peer("pytorch_optimizer", "DiffGrad")
    peers = [] if found is None else [found]
    peers.append(Peer("authors' arithmetic", AsReleased, "diffGrad_v2"))
    targets = CUDA_TARGETS if arguments.device.startswith("cuda") else TARGETS
    for model in arguments.models:
        print(f"{model}: {described(model, small=arguments.small)}")
        optimizer = DiffGrad(parameters(model, small=arguments.small), lr=LR)
        optimizer.step()
        print(f"DiffGrad: {state_bytes(optimizer) / 1e6:.1f} MB of state")
        for threads in arguments.threads:
            for name, theirs, version, step, peer_step in rows(model, arguments, peers):
                result = compare(
                    step,
                    peer_step,
                    name=f"{name}, {model}, {threads} thread(s)",
                    peer_name=theirs,
                    peer_version=version,
                    blocks=arguments.blocks,
                    threads=threads,
                )
                goal = targets.get((name, theirs))
                said = "" if goal is None else f"   [target <= {goal}]"
                print(result.line() + said, flush=True)


if __name__ == "__main__":
    main()
