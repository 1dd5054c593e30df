"""Lanczos, traces and dense Hessians beside PyHessian, hessian-eigenthings and curvlinops.

``python benchmarks/curvature.py`` measures all; ``mlp``, ``batches``, ``conv``, ``long``,
``trace``, ``accuracy`` or ``dense`` one part. Everything is counted, from the model to nodes and
weights; both sides pay the same m Hessian products, which no implementation can save. Ratios are
times of gradworks over times of the peer: below 1 is faster.

PyHessian's ``density`` calls ``torch.eig``, which torch no longer has: it gets
``torch.linalg.eigh`` in its place, and nothing else of it is touched. A peer that is not installed
is left out with a line that says so.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradworks.bench.timing import compare
from gradworks.curvature import HessianOperator, eigsh, slq, trace

Data = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Problem:
    """A net, its batches, and the least advantage asked for of each peer."""

    name: str
    model: nn.Module
    data: Data
    steps: int
    targets: dict[str, float]


class Residual(nn.Module):
    """Two convolutions with batch norm around a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return torch.relu(x + self.norm2(self.second(torch.relu(self.norm1(self.first(x))))))


def mlp(hidden: int = 128) -> nn.Module:
    """64-128-128-10 with tanh: 26,122 parameters in 6 tensors."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, hidden),
        nn.Tanh(),
        nn.Linear(hidden, hidden),
        nn.Tanh(),
        nn.Linear(hidden, 10),
    )


def conv() -> nn.Module:
    """A residual net with batch norm: 7,290 parameters in 42 tensors."""
    torch.manual_seed(0)
    stem = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    blocks = [Residual(8) for _ in range(6)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def batches(sizes: list[int], *, images: bool = False) -> Data:
    """Random inputs of 64 numbers with labels."""
    g = torch.Generator().manual_seed(1)
    found = []
    for n in sizes:
        x = torch.randn(n, 64, generator=g)
        found.append((x.view(n, 1, 8, 8) if images else x, torch.randint(10, (n,), generator=g)))
    return found


def problems() -> dict[str, Problem]:
    """What is measured, by name."""
    return {
        "mlp": Problem(
            "MLP, one batch of 512, m=60",
            mlp(),
            batches([512]),
            60,
            {"PyHessian": 1.2, "hessian-eigenthings": 1.4},
        ),
        "batches": Problem(
            "MLP, four batches of 128, m=60",
            mlp(),
            batches([128] * 4),
            60,
            {"PyHessian": 1.8, "hessian-eigenthings": 1.4},
        ),
        "conv": Problem(
            "residual net with batch norm, batch of 64, m=60",
            conv(),
            batches([64], images=True),
            60,
            {"PyHessian": 1.5, "hessian-eigenthings": 1.4},
        ),
        "long": Problem(
            "MLP, one batch of 512, m=120",
            mlp(),
            batches([512]),
            120,
            {"PyHessian": 1.5, "hessian-eigenthings": 1.4},
        ),
    }


# -- peers -------------------------------------------------------------------------------------


def imported(name: str, package: str) -> ModuleType | None:
    """A peer, or a line that says why it is left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return __import__(name)
    except ImportError as error:
        print(
            f"  {package} is left out ({error}); "
            "pip install --no-deps -r requirements/peers-nodeps.txt"
        )
        return None


def _eig(matrix: Tensor, eigenvectors: bool = False) -> tuple[Tensor, Tensor]:
    """What ``torch.eig`` gave, by the symmetric solver."""
    values, vectors = torch.linalg.eigh(matrix)
    return torch.stack([values, torch.zeros_like(values)], dim=1), vectors


@contextmanager
def with_eig() -> Iterator[None]:
    """``torch.eig`` for the peer that needs it."""
    before = getattr(torch, "eig", None)
    torch.eig = _eig
    try:
        yield
    finally:
        if before is None:
            del torch.eig
        else:
            torch.eig = before


def pyhessian(problem: Problem) -> Callable[[], object] | None:
    """``density`` with one probe."""
    peer = imported("pyhessian", "PyHessian")
    if peer is None:
        return None
    alone = {"data": problem.data[0]} if len(problem.data) == 1 else {"dataloader": problem.data}

    def run() -> object:
        with with_eig(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of backward(create_graph=True)
            op = peer.hessian(problem.model, F.cross_entropy, cuda=False, **alone)
            found = op.density(iter=problem.steps, n_v=1)
        for p in problem.model.parameters():
            p.grad = None  # its gradients hold the graph in a cycle
        return found

    return run


def eigenthings(problem: Problem) -> Callable[[], object] | None:
    """``spectral_density`` with one run."""
    peer = imported("hessian_eigenthings", "hessian-eigenthings")
    if peer is None:
        return None

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    def run() -> object:
        problem.model.eval()
        op = peer.HessianOperator(problem.model, problem.data, loss)
        return peer.spectral_density(
            op, num_runs=1, lanczos_steps=problem.steps, num_grid_points=100, seed=0
        )

    return run


def curvlinops(problem: Problem) -> Callable[[], object] | None:
    """``fast_lanczos``: without reorthogonalisation, so less accurate."""
    peer = imported("curvlinops", "curvlinops")
    if peer is None:
        return None
    from curvlinops.papyan2020traces.spectrum import fast_lanczos

    def run() -> object:
        problem.model.eval()
        op = peer.HessianLinearOperator(
            problem.model,
            nn.CrossEntropyLoss(),
            list(problem.model.parameters()),
            problem.data,
            check_deterministic=False,
        )
        return fast_lanczos(op, problem.steps)

    return run


PEERS: dict[str, tuple[str, Callable[[Problem], Callable[[], object] | None]]] = {
    "PyHessian": ("PyHessian", pyhessian),
    "hessian-eigenthings": ("hessian-eigenthings", eigenthings),
    "curvlinops": ("curvlinops-for-pytorch", curvlinops),
}


def report(
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    name: str,
    peer_name: str,
    package: str,
    blocks: int,
    target: float | None,
) -> None:
    """Measure, and print the ratio beside its target."""
    version = torch.__version__ if package == "torch" else metadata.version(package)
    timing = compare(
        ours, peer, name=name, peer_name=peer_name, peer_version=version, blocks=blocks, inner=1
    )
    asked = "no target" if target is None else f"target at most {1 / target:.2f}"
    print(f"  {timing.line()}  [{asked}]")


# -- what is measured --------------------------------------------------------------------------


def bench_lanczos(problem: Problem, blocks: int, chosen: list[str]) -> None:
    """One probe of quadrature: m products, reorthogonalisation, nodes and weights."""
    print(problem.name)

    def ours() -> object:
        with HessianOperator(problem.model, F.cross_entropy, problem.data) as op:
            return slq(op, num_steps=problem.steps, num_probes=1)

    for peer_name, (package, make) in PEERS.items():
        if chosen and peer_name not in chosen:
            continue
        peer = make(problem)
        if peer is not None:
            report(
                ours,
                peer,
                name=f"slq: {problem.name}",
                peer_name=peer_name,
                package=package,
                blocks=blocks,
                target=problem.targets.get(peer_name),
            )


def bench_trace(blocks: int, probes: int = 30) -> None:
    """As many Hutchinson probes on both sides: the same standard error."""
    peer = imported("pyhessian", "PyHessian")
    if peer is None:
        return
    model, data = mlp(), batches([128] * 4)
    print(f"trace, {probes} probes, MLP, four batches of 128")

    def ours() -> object:
        with HessianOperator(model, F.cross_entropy, data) as op:
            return trace(op, num_probes=probes)

    def theirs() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            op = peer.hessian(model, F.cross_entropy, dataloader=data, cuda=False)
            found = op.trace(maxIter=probes, tol=-1e9)  # no stop before the last probe
        for p in model.parameters():
            p.grad = None
        return found

    report(
        ours,
        theirs,
        name=f"trace, {probes} probes, four batches",
        peer_name="PyHessian",
        package="PyHessian",
        blocks=blocks,
        target=None,
    )


def bench_accuracy(blocks: int) -> None:
    """The five largest eigenvalues to 1 %: each side with the least effort that gets there."""
    peer = imported("pyhessian", "PyHessian")
    if peer is None:
        return
    model, data = mlp(), batches([512])
    with HessianOperator(model, F.cross_entropy, data) as op:
        exact = eigsh(op, 5, which="LM", tol=1e-6).values.double()

    def good(values: Any) -> bool:
        found = torch.as_tensor(values, dtype=torch.float64)
        ranked = found[found.abs().argsort(descending=True)]
        return bool(((ranked - exact).abs() <= 0.01 * exact.abs()).all())

    def ours(tol: float) -> Callable[[], Any]:
        def run() -> Any:
            with HessianOperator(model, F.cross_entropy, data) as op:
                return eigsh(op, 5, which="LM", tol=tol).values

        return run

    def theirs(tol: float) -> Callable[[], Any]:
        def run() -> Any:
            torch.manual_seed(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                op = peer.hessian(model, F.cross_entropy, data=data[0], cuda=False)
                values, _ = op.eigenvalues(maxIter=1000, tol=tol, top_n=5)
            for p in model.parameters():
                p.grad = None
            return values

        return run

    chosen = []
    for side in (ours, theirs):
        loose = next(
            (t for t in (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4, 1e-5) if good(side(t)())), None
        )
        if loose is None:
            print("  one side does not reach 1 %: not compared")
            return
        chosen.append(loose)
    print(f"five largest eigenvalues to 1 % (tolerances {chosen[0]:g} and {chosen[1]:g})")
    report(
        ours(chosen[0]),
        theirs(chosen[1]),
        name="five largest eigenvalues to 1 %, MLP, one batch",
        peer_name="PyHessian",
        package="PyHessian",
        blocks=blocks,
        target=None,
    )


def bench_dense(blocks: int, chosen: list[str]) -> None:
    """The whole Hessian of 1,415 parameters, N = 1,000, float64."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(10, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 5)
    ).double()
    g = torch.Generator().manual_seed(1)
    x = torch.randn(1000, 10, generator=g, dtype=torch.float64)
    y = torch.randint(5, (1000,), generator=g)
    named = dict(model.named_parameters())
    sizes = [p.numel() for p in named.values()]
    flat = torch.cat([p.detach().reshape(-1) for p in named.values()])
    print(f"dense Hessian, P = {len(flat)}, N = 1,000, float64")

    def loss(theta: Tensor) -> Tensor:
        parts = torch.split(theta, sizes)
        override = {k: v.view(p.shape) for (k, p), v in zip(named.items(), parts)}
        return F.cross_entropy(torch.func.functional_call(model, override, (x,)), y)

    def ours() -> object:
        with HessianOperator(model, F.cross_entropy, (x, y)) as op:
            return op.to_dense()

    if not chosen or "torch" in chosen:
        report(
            ours,
            lambda: torch.autograd.functional.hessian(loss, flat, vectorize=True),
            name="dense Hessian, P = 1,415",
            peer_name="torch.autograd.functional.hessian(vectorize=True)",
            package="torch",
            blocks=blocks,
            target=2.0,
        )
    peer = imported("curvlinops", "curvlinops")
    if peer is None or (chosen and "curvlinops" not in chosen):
        return

    def theirs() -> object:
        op = peer.HessianLinearOperator(
            model,
            nn.CrossEntropyLoss(),
            list(model.parameters()),
            [(x, y)],
            check_deterministic=False,
        )
        return op @ torch.eye(len(flat), dtype=torch.float64)

    report(
        ours,
        theirs,
        name="dense Hessian, P = 1,415",
        peer_name="curvlinops H @ I",
        package="curvlinops-for-pytorch",
        blocks=blocks,
        target=2.0,
    )


def main() -> None:
    """Parse the command line and print the ratios."""
    nets = problems()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "what", nargs="?", default="all", choices=("all", *nets, "trace", "accuracy", "dense")
    )
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers", nargs="+", default=[], help="by name, of nets and dense; all")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    every = arguments.what == "all"
    for name, problem in nets.items():
        if every or arguments.what == name:
            # A block of the residual net lasts seconds.
            most = 10 if name == "conv" else arguments.blocks
            bench_lanczos(problem, min(arguments.blocks, most), arguments.peers)
    if every or arguments.what == "trace":
        bench_trace(arguments.blocks)
    if every or arguments.what == "accuracy":
        bench_accuracy(arguments.blocks)
    if every or arguments.what == "dense":
        bench_dense(min(arguments.blocks, 15), arguments.peers)  # seconds each
    sys.stdout.flush()


if __name__ == "__main__":
    main()
