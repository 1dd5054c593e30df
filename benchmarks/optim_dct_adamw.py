"""DCTAdamW and Trion against AdamW, GaLore, the released code's arithmetic, and Muon.

``python benchmarks/optim_dct_adamw.py``: one step over 100 tensors, 9.84 million float32
parameters, rank 64, and over one matrix. ``steps``: DCTAdamW with a choice at every step and every
200, with error feedback, against ``torch.optim.AdamW``, ``pytorch_optimizer``'s GaLore with a
frozen projector and with an SVD at every step, and the released DCTAdamW (its package needs CUDA
extras: its order of operations is written down here, with the basis that it builds). ``trion``:
against ``torch.optim.Muon`` and DCTAdamW on the matrices alone. ``transform``: the whole transform
of an n x n matrix by FFT against the matrix product. ``state``: bytes of state of each. Without a
word all are measured. Peers that are not installed are left out and named.

``--only "DCTAdamW" --against "released arithmetic"`` restricts the steps; ``--threads``,
``--device``, ``--models``, ``--small`` as in the other scripts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradworks.bench.timing import compare
from gradworks.optim import DCTAdamW, Trion
from gradworks.optim.dct_adamw import dct, dct_matrix
from hundred_tensors import (
    Peer,
    described,
    parameters,
    parser,
    peer,
    settle_memory,
    state_bytes,
    stepper,
)

RANK = 64
WHAT = ("steps", "trion", "transform", "state")
# Section 8 of the method's specification: ours over the peer, at most.
TARGETS = {
    ("DCTAdamW", "released arithmetic"): 0.6,
    ("DCTAdamW", "GaLore, SVD every step"): 1 / 25,
    ("DCTAdamW, every 200", "GaLore, frozen"): 0.9,
}
OURS: dict[str, dict[str, Any]] = {
    "DCTAdamW": {},
    "DCTAdamW, foreach": {"foreach": True},
    "DCTAdamW, every 200": {"update_gap": 200},
    "DCTAdamW, error feedback": {"error_feedback": True},
    "DCTAdamW, error in 8 bits": {"error_feedback": True, "ef_dtype": "int8"},
}
Step = Callable[[], object]


class AsReleased(torch.optim.Optimizer):
    """The released order of operations: product with Q, top-k, rotation by two products.

    Convolutions are left as they are, as in the release.

    Args:
        params: Parameters.
        lr: Step.
        weight_decay: Decoupled decay.
        rank: Columns kept.
    """

    def __init__(self, params: Any, lr: float, weight_decay: float, rank: int) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.rank, self.steps, self.bases = rank, 0, {}

    def _basis(self, n: int, like: Tensor) -> Tensor:
        if n not in self.bases:
            self.bases[n] = dct_matrix(n, dtype=like.dtype, device=like.device)
        return self.bases[n]

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Perform one step."""
        self.steps += 1
        for group in self.param_groups:
            size = group["lr"] * (1 - 0.999**self.steps) ** 0.5 / (1 - 0.9**self.steps)
            for p in group["params"]:
                if p.ndim > 2:
                    continue
                state, g = self.state[p], p.grad
                p.mul_(1 - group["lr"] * group["weight_decay"])
                low = p.ndim == 2 and min(p.shape) >= self.rank
                right = low and p.shape[0] >= p.shape[1]
                if low:
                    Q = self._basis(min(p.shape), g)
                    S = g @ Q if right else Q.T @ g
                    norms = S.norm(p=1, dim=0 if right else 1)
                    chosen = torch.topk(norms, self.rank).indices
                    a = S[:, chosen] if right else S[chosen]
                    own = Q[:, chosen]
                    if "m" in state:
                        R = Q[:, state["chosen"]].T @ own
                        for name in ("m", "v"):
                            moved = state[name] @ R if right else R.T @ state[name]
                            state[name] = moved.abs_() if name == "v" else moved
                    state["chosen"] = chosen
                else:
                    a = g
                if "m" not in state:
                    state["m"], state["v"] = torch.zeros_like(a), torch.zeros_like(a)
                state["m"].mul_(0.9).add_(a, alpha=0.1)
                state["v"].mul_(0.999).addcmul_(a, a, value=0.001)
                u = state["m"] / (state["v"].sqrt() + 1e-8 * (1 - 0.999**self.steps) ** 0.5)
                if low:
                    u = u @ own.T if right else own @ u
                p.add_(u, alpha=-size)


def rank_of(params: list[nn.Parameter]) -> int:
    """The rank measured, or what a small matrix allows."""
    smallest = min(min(p.shape) for p in params if p.ndim == 2)
    return min(RANK, max(1, smallest // 4))


def galore(made: Peer, params: list[nn.Parameter], gap: int) -> Step:
    """A step of GaLore with its matrices in a group of their own; the first SVD is before it."""
    matrices = [p for p in params if p.ndim == 2]
    groups = [
        {
            "params": matrices,
            "rank": rank_of(params),
            "update_proj_gap": gap,
            "scale": 1.0,
            "projection_type": "std",
        },
        {"params": [p for p in params if p.ndim != 2]},
    ]
    return stepper(made.make, [group for group in groups if group["params"]])  # type: ignore[arg-type]


def peers_of_steps(params: Callable[[], list[nn.Parameter]]) -> list[tuple[str, str, Step]]:
    """Name, version and step of each peer."""
    found: list[tuple[str, str, Step]] = [
        (f"AdamW {name}", torch.__version__, stepper(torch.optim.AdamW, params(), **settings))
        for name, settings in (
            ("per tensor", {"foreach": False}),
            ("foreach", {"foreach": True}),
            ("fused", {"fused": True}),
        )
    ]
    rank = rank_of(params())
    found.append(("released arithmetic", "1.1.15", stepper(AsReleased, params(), rank=rank)))
    for module, package in (("pytorch_optimizer", "GaLore"), ("galore_torch", "GaLoreAdamW")):
        made = peer(module, package)
        if made is None:
            continue
        kind = "GaLore" if module == "pytorch_optimizer" else "galore-torch"
        found.append((f"{kind}, frozen", made.version, galore(made, params(), 10**9)))
        found.append((f"{kind}, SVD every step", made.version, galore(made, params(), 1)))
    return found


def measure_steps(model: str, options: Any) -> None:
    """DCTAdamW against its peers."""

    def params() -> list[nn.Parameter]:
        return parameters(model, small=options.small, device=options.device)

    found = peers_of_steps(params)
    for name, settings in OURS.items():
        if options.only and name not in options.only:
            continue
        own = stepper(DCTAdamW, params(), rank=rank_of(params()), **settings)
        for theirs, version, step in found:
            if options.against and theirs not in options.against:
                continue
            if "SVD" in theirs and (name != "DCTAdamW" or model == "matrix"):
                continue  # 70 times as long, or minutes a step
            goal = TARGETS.get((name, theirs)) if model == "mixed" else None
            report(name, theirs, version, own, step, model, options, goal)


def measure_trion(model: str, options: Any) -> None:
    """Trion against Muon, on matrices."""

    def matrices() -> list[nn.Parameter]:
        params = parameters(model, small=options.small, device=options.device)
        return [p for p in params if p.ndim == 2]

    rank = rank_of(matrices())
    muon = stepper(torch.optim.Muon, matrices(), nesterov=False)
    adamw = stepper(DCTAdamW, matrices(), rank=rank)
    for name, settings in (
        ("Trion", {}),
        ("Trion, bfloat16", {"ns_dtype": torch.bfloat16}),
        ("Trion, foreach", {"foreach": True}),
    ):
        own = stepper(Trion, matrices(), rank=rank, **settings)
        report(name, "Muon", torch.__version__, own, muon, model, options, None)
        report(name, "DCTAdamW (ours)", "-", own, adamw, model, options, None)


def measure_transform(options: Any) -> None:
    """The fast transform against the matrix product."""
    for n in (32, 64) if options.small else (256, 512, 1024, 2048):
        x = torch.randn(n, n, generator=torch.Generator().manual_seed(0)).to(options.device)
        for basis in ("dct2", "dct3"):
            held = dct_matrix(n, basis=basis, device=options.device)
            report(
                f"{basis} by FFT, n = {n}",
                "matrix product",
                torch.__version__,
                lambda x=x, basis=basis: dct(x, basis, "fft"),
                lambda x=x, Q=held: x @ Q,
                "transform",
                options,
                None,
            )


def measure_state(model: str, options: Any) -> None:
    """Bytes of state after a step."""

    def params() -> list[nn.Parameter]:
        return parameters(model, small=options.small)

    rank = rank_of(params())
    made: dict[str, torch.optim.Optimizer] = {"AdamW": torch.optim.AdamW(params())}
    for name, settings in OURS.items():
        made[name] = DCTAdamW(params(), rank=rank, **settings)
    made["Trion"] = Trion(params(), rank=rank)
    found = peer("pytorch_optimizer", "GaLore")
    if found is not None:
        theirs = params()
        low = {
            "rank": rank,
            "update_proj_gap": 10**9,
            "scale": 1.0,
            "projection_type": "std",
        }
        groups = [
            {"params": [p for p in theirs if p.ndim == 2], **low},
            {"params": [p for p in theirs if p.ndim != 2]},
        ]
        made["GaLore"] = found.make([group for group in groups if group["params"]])
    count = sum(p.numel() for p in params())
    for name, optimizer in made.items():
        optimizer.step()
        size = state_bytes(optimizer)
        print(f"{name}: {size / 1e6:.2f} MB of state, {size / count:.2f} bytes a parameter")


def report(
    name: str,
    theirs: str,
    version: str,
    own: Step,
    step: Step,
    model: str,
    options: Any,
    goal: float | None,
) -> None:
    """Measure one pair and print its line."""
    for threads in options.threads:
        result = compare(
            own,
            step,
            name=f"{name}, {model}, {threads} thread(s)",
            peer_name=theirs,
            peer_version=version,
            blocks=options.blocks,
            threads=threads,
        )
        said = "" if goal is None else f"   [target <= {goal:g}]"
        print(result.line() + said, flush=True)


def main() -> None:
    """Parse the command line and print the ratios."""
    options = parser(__doc__ or "")
    options.add_argument("what", nargs="*", help=f"of {', '.join(WHAT)}; all")
    options.add_argument("--only", nargs="+", choices=tuple(OURS), help="of steps; all")
    options.add_argument("--against", nargs="+", help="peers of steps, by name; all")
    arguments = options.parse_args()
    unknown = sorted(set(arguments.what) - set(WHAT))
    if unknown:
        options.error(f"unknown: {', '.join(unknown)}; there are {', '.join(WHAT)}")
    what = arguments.what or WHAT
    settle_memory()
    for model in arguments.models:
        print(f"{model}: {described(model, small=arguments.small)}")
        if "state" in what:
            measure_state(model, arguments)
        if "steps" in what:
            measure_steps(model, arguments)
        if "trion" in what:
            measure_trion(model, arguments)
    if "transform" in what:
        measure_transform(arguments)


if __name__ == "__main__":
    main()
