"""Trials that this paper alone has: step times, bytes of state, energies, a random basis."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from gradworks.optim.dct_adamw import DCTAdamW, captured_energy, dct_matrix, state_bytes

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from gradworks.bench.trial import Trial

__all__ = ["RandomBasis", "cost", "energies", "llama", "memory"]

_SEED = 20_250_523  # of the random basis: the same for every seed of a run


def random_basis(n: int) -> Tensor:
    """A fixed random orthogonal matrix.

    Args:
        n: Its size.
    """
    drawn = torch.randn(n, n, generator=torch.Generator().manual_seed(_SEED + n)).double()
    Q: Tensor = torch.linalg.qr(drawn).Q
    return Q.float()


class RandomBasis(DCTAdamW):
    """DCTAdamW with columns of a random orthogonal matrix; one size of basis only.

    Args:
        params: Parameters or groups.
        size: Size of the basis.
        **settings: As for :class:`gradworks.optim.DCTAdamW`.
    """

    rest_of_model: Mapping[str, Any] = {"max_dim": 0}

    def __init__(self, params: Any, lr: float = 1e-3, *, size: int, **settings: Any) -> None:
        super().__init__(params, lr, basis=random_basis(size), **settings)


def energies(model: nn.Module, optimizer: Optimizer, step: int, trial: Trial) -> dict[str, float]:
    """Share of the squared gradient that a quarter of the directions capture, of each basis.

    Observer of the shared trial; the mean over the matrices of the first block. Before the first
    gradient there is nothing to see.

    Args:
        model: The transformer.
        optimizer: Not looked at.
        step: Steps done.
        trial: Not looked at.
    """
    found: dict[str, list[float]] = {}
    for name, p in model.named_parameters():
        if p.ndim != 2 or p.grad is None or not name.startswith("blocks.0."):
            continue
        G = p.grad if p.shape[0] >= p.shape[1] else p.grad.T
        n = G.shape[1]
        rank = n // 4
        bases = {
            "dct3": dct_matrix(n),
            "dct2": dct_matrix(n, basis="dct2"),
            "random": random_basis(n),
            "identity": torch.eye(n),
        }
        for label, Q in bases.items():
            found.setdefault(label, []).append(captured_energy(G, Q, rank))
        squares = torch.linalg.svdvals(G).square()
        found.setdefault("svd", []).append(float(squares[:rank].sum() / squares.sum()))
    means = {label: math.fsum(v) / len(v) for label, v in found.items()}
    shown = {f"energy_{label}": value for label, value in means.items()}
    if means:  # what claims look at: the last gradient of training
        shown |= {f"final_energy_over_{b}": means["dct3"] / means[b] for b in ("svd", "random")}
    return shown


def cost(trial: Trial) -> None:
    """Time steps on the matrices of a transformer, in turns in this process.

    Args:
        trial: ``spec`` gives width, layers, rank and the number of blocks.
    """
    from gradworks.bench.timing import compare
    from gradworks.optim import Trion
    from gradworks.papers.dct_adamw.baselines import Dion, GaLore, LDAdam

    spec: Any = trial.spec
    d, rank, blocks = spec["width"], spec["rank"], spec["blocks"]
    shapes = [(d, d)] * 4 + [(4 * d, d), (d, 4 * d)]
    generator = trial.generator("matrices")

    def stepper(make: Callable[[list[nn.Parameter]], Any]) -> Callable[[], object]:
        params = []
        for shape in shapes * spec["layers"]:
            params.append(nn.Parameter(torch.randn(shape, generator=generator)))
            params[-1].grad = torch.randn(shape, generator=generator)
        step: Callable[[], object] = make(params).step
        return step

    lr = 1e-9  # weights stay where they are: only the time counts
    ours = stepper(lambda p: DCTAdamW(p, lr, rank=rank))
    large = stepper(lambda p: DCTAdamW(p, lr, rank=4 * rank))
    feeding = stepper(lambda p: DCTAdamW(p, lr, rank=rank, error_feedback=True))
    trion = stepper(lambda p: Trion(p, lr, rank=rank))
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "over_svd": (ours, stepper(lambda p: GaLore(p, lr, rank=rank, gap=1))),
        "over_adamw": (ours, stepper(lambda p: torch.optim.AdamW(p, lr))),
        "over_rank": (large, ours),
        "over_ldadam": (feeding, stepper(lambda p: LDAdam(p, lr, rank=rank))),
        "trion_over_dion": (trion, stepper(lambda p: Dion(p, lr, rank=rank))),
        "trion_over_muon": (trion, stepper(lambda p: torch.optim.Muon(p, lr))),
    }
    found = {}
    for name, (one, other) in pairs.items():
        found[name] = compare(
            one,
            other,
            name=name,
            peer_name=name,
            blocks=blocks,
            warm_up=1,
            threads=1,
            control=False,
        ).ratio
    trial.result("test", **found)


def memory(trial: Trial) -> None:
    """Bytes of state after a step of the small transformer, over what the formulas say.

    Args:
        trial: ``spec`` names the problem and the rank.
    """
    from gradworks.bench import workloads
    from gradworks.bench.optimizers import hidden_matrices, make_optimizer, optimizer_bytes

    spec: Any = trial.spec
    problem = workloads.problem(spec["problem"], trial.seed)
    rank = spec["rank"]
    bytes_of: dict[str, float] = {}
    ef = {"rank": rank, "error_feedback": True}
    rivals = "gradworks.papers.dct_adamw.baselines"
    methods: dict[str, tuple[str, dict[str, Any]]] = {
        "adamw": ("torch.optim.AdamW", {}),
        "galore": (f"{rivals}.GaLore", {"rank": rank}),
        "ldadam": (f"{rivals}.LDAdam", {"rank": rank}),
        "dct": ("gradworks.optim.DCTAdamW", {"rank": rank}),
        "dct_ef": ("gradworks.optim.DCTAdamW", ef),
        "dct_int8": ("gradworks.optim.DCTAdamW", {**ef, "ef_dtype": "int8"}),
        "muon": ("gradworks.bench.muon.MuonWithAdamW", {}),
        "dion": (f"{rivals}.Dion", {"rank": rank}),
        "trion": ("gradworks.optim.Trion", {"rank": rank}),
    }
    for name, (method, settings) in methods.items():
        model = problem.model(trial.generator("init"))
        optimizer = make_optimizer(method, model, {"lr": 1e-3, **settings})
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        bytes_of[name] = optimizer_bytes(optimizer)
    hidden = set(hidden_matrices(model))
    rest = sum(state_bytes(p.shape, 1, max_dim=0) for p in model.parameters() if p not in hidden)
    low = sum(state_bytes(p.shape, rank) for p in hidden)
    trial.result(
        "test",
        dct_over_formula=bytes_of["dct"] / (low + rest),
        dct_over_galore=bytes_of["dct"] / bytes_of["galore"],
        trion_over_muon=bytes_of["trion"] / bytes_of["muon"],
        trion_over_dion=bytes_of["trion"] / bytes_of["dion"],
        **{f"bytes_{name}": value for name, value in bytes_of.items()},
    )


def llama(trial: Trial) -> NoReturn:
    """The published scale: refuses, as no package ships its data.

    Args:
        trial: Names the model.

    Raises:
        MissingData: Always, with what it would take.
    """
    from gradworks.bench.data import MissingData

    wanted: Any = trial.spec
    raise MissingData(
        f"the paper preset trains {wanted['model']} on C4 with 20 tokens a parameter, which no "
        f"package ships and gradworks does not download; it needs {wanted['hardware']}. Run "
        "--preset full for a verdict on this machine"
    )
