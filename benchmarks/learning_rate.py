"""The largest eigenvalue against PyHessian's power iteration, and what the schedule costs.

``python benchmarks/learning_rate.py`` measures all; ``eigenvalue`` or ``share`` one part;
``--small`` is a smoke test. Products are counted, not timed, for the target of a third of
PyHessian's; the ratio of times of gradworks over times of the peer stands beside it. Each side gets
the loosest tolerance of its own kind with which it reaches a relative error of 1e-3 from every one
of ten random starts.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from time import perf_counter
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradworks.bench.timing import compare
from gradworks.bench.workloads import curvature_target
from gradworks.curvature import HessianOperator, eigsh
from gradworks.curvature.learning_rate import CurvatureSchedule

STARTS = 10  # random first vectors: power iteration may be lucky with one
ERROR = 1e-3  # relative, of the largest eigenvalue
TOLERANCES = tuple(10 ** (-k / 5) for k in range(2, 31))  # 0.4 to 1e-6, five a decade


def network(inputs: int = 64, hidden: int = 128) -> nn.Sequential:
    """64-128-128-10 with tanh: 26,122 parameters."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.Tanh(),
        nn.Linear(hidden, hidden),
        nn.Tanh(),
        nn.Linear(hidden, 10),
    )


def clusters(n: int, inputs: int = 64) -> tuple[Tensor, Tensor]:
    """Ten Gaussian clusters."""
    g = torch.Generator().manual_seed(1)
    centres = torch.randn(10, inputs, generator=g)
    labels = torch.randint(10, (n,), generator=g)
    return centres[labels] + 1.5 * torch.randn(n, inputs, generator=g), labels


def train(model: nn.Module, data: tuple[Tensor, Tensor], steps: int) -> None:
    """Away from the start, where the spectrum has its outliers."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    g = torch.Generator().manual_seed(2)
    for _ in range(steps):
        rows = torch.randint(len(data[1]), (64,), generator=g)
        optimizer.zero_grad()
        F.cross_entropy(model(data[0][rows]), data[1][rows]).backward()
        optimizer.step()
    for p in model.parameters():
        p.grad = None


def peer() -> ModuleType | None:
    """PyHessian, or a line that says why it is left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pyhessian
    except ImportError as error:
        print(
            f"PyHessian is left out ({error}); "
            "pip install --no-deps -r requirements/peers-nodeps.txt"
        )
        return None
    return pyhessian


def counted(module: ModuleType, run: Callable[[], float]) -> tuple[float, int]:
    """A value of the peer, and its Hessian products."""
    inner, calls = module.hessian_vector_product, 0

    def product(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        return inner(*arguments)

    module.hessian_vector_product = product
    try:
        return run(), calls
    finally:
        module.hessian_vector_product = inner


def loosest(
    run: Callable[[float, int], tuple[float, int]], exact: float, name: str
) -> tuple[float | None, float]:
    """The loosest tolerance that is accurate from every start, and the products it takes."""
    for tol in TOLERANCES:
        found = [run(tol, seed) for seed in range(STARTS)]
        error = max(abs(value / exact - 1) for value, _ in found)
        if error <= ERROR:
            counts = sorted(products for _, products in found)
            print(
                f"  {name}: {sum(counts) / STARTS:.1f} products ({counts[0]} to {counts[-1]}), "
                f"tol {tol:.2g}, largest relative error {error:.1e}"
            )
            return tol, sum(counts) / STARTS
    print(f"  {name} does not reach a relative error of {ERROR:g}: not compared")
    return None, 0


def networks(n: int) -> Iterator[tuple[str, nn.Module, tuple[Tensor, Tensor]]]:
    """At the start, where the top of the spectrum is crowded, and later, where it stands alone."""
    model, data = network(), clusters(n)
    yield "MLP at the start", model, data
    model = network()
    train(model, data, 200)
    yield "MLP after 200 steps", model, data
    images, _, (x, y) = curvature_target("mnist5k-cnn")
    yield "CNN on MNIST-5k at the start", images, (x[: n // 4], y[: n // 4])


def bench_eigenvalue(
    blocks: int, title: str, model: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    """Products and time for the largest eigenvalue to 1e-3."""
    print(title)
    with HessianOperator(model, F.cross_entropy, data) as op:
        exact = float(eigsh(op, tol=1e-6).values[0])

    def ours(tol: float, seed: int) -> tuple[float, int]:
        with HessianOperator(model, F.cross_entropy, data) as op:
            found = eigsh(op, tol=tol, generator=torch.Generator().manual_seed(seed))
            return float(found.values[0]), found.matvecs

    mine, products = loosest(ours, exact, "gradworks")
    pyhessian = peer()
    if pyhessian is None or mine is None:
        return

    def power(tol: float, seed: int) -> float:
        torch.manual_seed(seed)  # it draws its start from the global generator
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            op = pyhessian.hessian(model, F.cross_entropy, data=data, cuda=False)
            found = float(op.eigenvalues(maxIter=1000, tol=tol, top_n=1)[0][0])
        for p in model.parameters():
            p.grad = None
        return found

    # the package's name for the module is also that of the class in it
    module = sys.modules["pyhessian.hessian"]
    his, calls = loosest(
        lambda tol, seed: counted(module, lambda: power(tol, seed)), exact, "PyHessian"
    )
    if his is None:
        return
    print(f"  products: {calls / products:.2f} times fewer   [target >= 3]")

    def ours_again() -> object:
        return [ours(mine, seed) for seed in range(STARTS)]

    def theirs() -> object:
        return [power(his, seed) for seed in range(STARTS)]

    timed = compare(
        ours_again,
        theirs,
        name=f"largest eigenvalue to 1e-3, {title}",
        peer_name="PyHessian, power iteration",
        peer_version=metadata.version("PyHessian"),
        blocks=blocks,
    )
    print(timed.line())


def bench_share(n: int, epochs: int) -> None:
    """The share of training time that the schedule takes, by its own account."""
    for every in (1, 5):
        model, (x, y) = network(), clusters(n)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
        schedule = CurvatureSchedule(
            optimizer, model, F.cross_entropy, (x, y), rule="rmt", every=every
        )
        g = torch.Generator().manual_seed(3)
        start = perf_counter()
        for _ in range(epochs):
            for rows in torch.randperm(n, generator=g).split(32):
                optimizer.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
            schedule.step()
        print(
            f"schedule, every={every}, {n} examples an epoch: {100 * schedule.share:.2f} % of "
            f"{perf_counter() - start:.1f} s   [target <= 5 %]"
        )


def main() -> None:
    """Parse the command line and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="?", default="all", choices=("all", "eigenvalue", "share"))
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--small", action="store_true", help="a smoke test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what in ("all", "eigenvalue"):
        for net in networks(128 if options.small else 512):
            bench_eigenvalue(2 if options.small else options.blocks, *net)
    if options.what in ("all", "share"):
        bench_share(*((500, 2) if options.small else (50_000, 10)))


if __name__ == "__main__":
    main()
