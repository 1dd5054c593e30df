"""Gradient-normalised Newton against scipy's trust regions and torch's L-BFGS.

``python benchmarks/gradient_normalized.py``: time until the gradient's norm is below 1e-8, from the
same start, on logistic regression of breast cancer and on log-sum-exp; then one solve of rank one
against Cholesky of the dense matrix. Everything is counted: values, gradients, Hessians, solves.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor

from gradworks.bench.timing import compare
from gradworks.bench.trial import Trial
from gradworks.optim.gradient_normalized import LowRank, minimize
from gradworks.optim.gradient_normalized.metric import Metric
from gradworks.optim.gradient_normalized.solves import prepare
from gradworks.papers.gradient_normalized import build
from gradworks.papers.gradient_normalized.problems import Posed, pose

TOLERANCE = 1e-8


def posed(name: str, **changes: Any) -> Posed:
    """A problem of the paper module."""
    workload = next(w for w in build("quick").workloads if w.name == name)
    spec: Any = {**workload.spec, **changes}
    return pose(spec, Trial.offline(workload, build("quick").arms[0]))


def ours(problem: Posed) -> Callable[[], Tensor]:
    """Exact Hessian, the identity as metric, as the others have it."""
    return lambda: (
        minimize(problem.fun, problem.x0, hessian=problem.exact, grad_tol=TOLERANCE, max_iter=500).x
    )


def value_and_grad(problem: Posed) -> Callable[[Any], tuple[float, Any]]:
    """For scipy."""

    def both(x: Any) -> tuple[float, Any]:
        leaf = torch.tensor(x, requires_grad=True)
        value = problem.fun(leaf)
        (g,) = torch.autograd.grad(value, leaf)
        return float(value.detach()), g.numpy()

    return both


def trust(problem: Posed, method: str) -> Callable[[], Tensor]:
    """``scipy.optimize.minimize(method="trust-exact")``, or another with a region of trust."""

    def run() -> Tensor:
        found = scipy.optimize.minimize(
            value_and_grad(problem),
            problem.x0.numpy(),
            jac=True,
            hess=lambda x: problem.exact(torch.tensor(x)).numpy(),
            method=method,
            options={"gtol": TOLERANCE, "maxiter": 500},
        )
        return torch.tensor(found.x)

    return run


def lbfgs(problem: Posed) -> Callable[[], Tensor]:
    """``torch.optim.LBFGS`` with the strong Wolfe search."""

    def run() -> Tensor:
        x = problem.x0.clone().requires_grad_(True)
        opt = torch.optim.LBFGS(
            [x],
            max_iter=5000,
            tolerance_grad=TOLERANCE / np.sqrt(x.numel()),  # theirs is the largest entry
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            opt.zero_grad()
            value = problem.fun(x)
            value.backward()
            return value

        opt.step(closure)
        return x.detach()

    return run


def gradient_norm(problem: Posed, x: Tensor) -> float:
    """How near a result is."""
    leaf = x.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(problem.fun(leaf), leaf)
    return float(g.norm())


def main() -> None:
    """Parse the command line and print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="*", help="problems, solve; both")
    parser.add_argument("--blocks", type=int, default=30)
    options = parser.parse_args()
    what = options.what or ("problems", "solve")
    torch.set_num_threads(1)
    if "problems" in what:
        measure_problems(options.blocks)
    if "solve" in what:
        measure_solve(options.blocks)


def measure_problems(blocks: int) -> None:
    """Time to the accuracy on each problem."""
    problems = {
        "logistic regression, breast cancer": posed("breast-cancer"),
        "log-sum-exp, 400 x 200, mu = 1": posed("lse-1", m=400, n=200),
        "log-sum-exp, 60 x 30, mu = 0.5": posed("lse-0.5", m=60, n=30),
    }
    for name, problem in problems.items():
        own = ours(problem)
        print(f"{name}: our gradient norm {gradient_norm(problem, own()):.1e}")
        peers = {
            "scipy trust-exact": trust(problem, "trust-exact"),
            "scipy trust-ncg": trust(problem, "trust-ncg"),
            "torch LBFGS": lbfgs(problem),
        }
        for peer, theirs in peers.items():
            version = scipy.__version__ if "scipy" in peer else torch.__version__
            print(f"  {peer} ends at {gradient_norm(problem, theirs()):.1e}")
            found = compare(
                own,
                theirs,
                name=name,
                peer_name=peer,
                peer_version=version,
                blocks=blocks,
                inner=1,
            )
            print(f"  {found.line()}", flush=True)


def measure_solve(blocks: int) -> None:
    """One solve with a matrix of rank one."""
    n = 2000
    generator = torch.Generator().manual_seed(0)
    q, g = (torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(2))
    low = LowRank(q.unsqueeze(1), torch.ones(1, dtype=torch.float64))
    solvers = [
        prepare(H, g, Metric(None, g), cg_tol=1e-6, cg_max_iter=None) for H in (low, low.to_dense())
    ]
    found = compare(
        lambda: solvers[0].step(1.0),
        lambda: solvers[1].step(1.0),
        name="rank-one solve, n = 2000",
        peer_name="Cholesky",
        peer_version=torch.__version__,
        blocks=blocks,
        inner=1,
    )
    print(f"{found.line()}   [target <= 0.01]")


if __name__ == "__main__":
    main()
