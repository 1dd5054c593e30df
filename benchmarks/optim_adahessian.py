"""AdaHessian: whole training steps against other AdaHessians, and the arithmetic alone.

``python benchmarks/optim_adahessian.py step``: forward, backward, Hessian-vector product and update
of a perceptron and of a residual network, against ``pytorch_optimizer``'s, against the authors'
order of operations, and against the floor: ``torch.autograd.grad`` twice, no update at all.
``arithmetic``: one step over 100 tensors with a given estimate. Without a word both are measured.
Peers that are not installed are left out and named.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradworks.bench.models import initialised, resnet
from gradworks.bench.timing import compare
from gradworks.optim import AdaHessian
from hundred_tensors import described, parameters, settle_memory

LR = 1e-9  # weights stay where they are, so that each step finds the same problem


class AsReleased(torch.optim.Optimizer):
    """The authors' order of operations for images, from gradients that kept their graph.

    Args:
        params: Parameters of 1, 2 or 4 dimensions.
        lr: Step.
    """

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def step(self) -> None:  # type: ignore[override]
        """Product, averages, update."""
        params = [p for group in self.param_groups for p in group["params"]]
        grads = [p.grad for p in params]
        z = [torch.randint_like(p, high=2) * 2 - 1 for p in params]
        products = torch.autograd.grad(grads, params, grad_outputs=z, retain_graph=True)
        with torch.no_grad():
            for p, g, h, v in zip(params, grads, products, z):
                D = h.abs()
                if p.ndim == 4:
                    D = torch.mean((h * v).abs(), dim=[2, 3], keepdim=True).expand_as(h)
                state = self.state[p]
                if not state:
                    state["step"] = 0
                    state["m"], state["v"] = torch.zeros_like(p), torch.zeros_like(p)
                state["step"] += 1
                state["m"].mul_(0.9).add_(g.detach(), alpha=0.1)
                state["v"].mul_(0.999).addcmul_(D, D, value=0.001)
                c1, c2 = 1 - 0.9 ** state["step"], 1 - 0.999 ** state["step"]
                denom = (state["v"].sqrt() / c2**0.5).pow(1.0).add_(1e-4)
                p.add_(state["m"] / c1 / denom, alpha=-self.param_groups[0]["lr"])


def problems() -> dict[str, tuple[Callable[[], nn.Module], Tensor, Tensor]]:
    """A perceptron, and a residual network with batch normalization."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(10, (64,), generator=g)

    def mlp() -> nn.Module:
        return initialised(
            lambda: nn.Sequential(
                nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
            ),
            torch.Generator().manual_seed(1),
        )

    return {
        "perceptron": (mlp, torch.randn(64, 64, generator=g), y),
        "residual network": (
            lambda: resnet(12, 10)(torch.Generator().manual_seed(1)),
            torch.randn(64, 1, 8, 8, generator=g),
            y,
        ),
    }


def peer_class() -> Any:
    """``pytorch_optimizer.AdaHessian``, or None."""
    try:
        return importlib.import_module("pytorch_optimizer").AdaHessian
    except ImportError:
        print("pytorch_optimizer is not installed: left out")
        return None


def whole_steps(make: Callable[[], nn.Module], x: Tensor, y: Tensor) -> dict[str, Any]:
    """Steps by name, each with a network of its own."""

    def loss(model: nn.Module) -> Tensor:
        return F.cross_entropy(model(x), y)

    def ours() -> Callable[[], None]:
        model = make()
        opt = AdaHessian(model.parameters(), lr=LR)

        def step() -> None:
            opt.zero_grad()
            opt.estimate(loss(model))
            opt.step()

        return step

    def theirs(cls: Any, **settings: Any) -> Callable[[], None]:
        model = make()
        opt = cls(model.parameters(), lr=LR, **settings)

        def step() -> None:
            opt.zero_grad()
            loss(model).backward(create_graph=True)
            opt.step()

        return step

    def floor() -> Callable[[], None]:
        model = make()
        params = list(model.parameters())

        def step() -> None:
            grads = torch.autograd.grad(loss(model), params, create_graph=True)
            torch.autograd.grad(grads, params, [torch.ones_like(p) for p in params])

        return step

    def adamw() -> Callable[[], None]:
        model = make()
        opt = torch.optim.AdamW(model.parameters(), lr=LR)

        def step() -> None:
            opt.zero_grad()
            loss(model).backward()
            opt.step()

        return step

    made = {"ours": ours(), "authors' order of operations": theirs(AsReleased)}
    cls = peer_class()
    if cls is not None:
        made["pytorch_optimizer.AdaHessian"] = theirs(cls, weight_decay=0.0)
    made["autograd.grad twice"] = floor()
    made["AdamW"] = adamw()
    return made


TARGETS = {
    "authors' order of operations": 1.0,
    "pytorch_optimizer.AdaHessian": 1.0,
    "autograd.grad twice": 1.15,
}


def bench_steps(blocks: int) -> None:
    """Whole training steps."""
    for name, (make, x, y) in problems().items():
        steps = whole_steps(make, x, y)
        for other, step in steps.items():
            if other == "ours":
                continue
            found = compare(
                steps["ours"], step, name=f"training step, {name}", peer_name=other, blocks=blocks
            )
            goal = TARGETS.get(other)
            print(found.line() + ("" if goal is None else f"   [target <= {goal}]"), flush=True)


def bench_arithmetic(blocks: int, small: bool) -> None:
    """One step with a given estimate over 100 tensors."""
    print(f"mixed: {described('mixed', small=small)}")
    params = parameters("mixed", small=small)
    estimate = [torch.rand_like(p) for p in params]
    cls = peer_class()
    for foreach in (False, True):
        opt = AdaHessian(params, lr=LR, averaging="none", foreach=foreach)

        def ours(opt: AdaHessian = opt) -> None:
            opt.set_hessian(estimate)
            opt.step()

        theirs = parameters("mixed", small=small)
        rivals: dict[str, tuple[Callable[[], object], float | None]] = {}
        adamw = torch.optim.AdamW(theirs, lr=LR, foreach=foreach)
        rivals[f"AdamW foreach={foreach}"] = (adamw.step, None)
        if cls is not None:
            other = cls(parameters("mixed", small=small), lr=LR, weight_decay=0.0)
            rivals["pytorch_optimizer.AdaHessian"] = (
                lambda other=other: other.step(hessian=[e.clone() for e in estimate]),
                0.8,
            )
        for name, (step, goal) in rivals.items():
            found = compare(
                ours, step, name=f"arithmetic, foreach={foreach}", peer_name=name, blocks=blocks
            )
            print(found.line() + ("" if goal is None else f"   [target <= {goal}]"), flush=True)


def main() -> None:
    """Parse the command line and print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="?", choices=("step", "arithmetic"))
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settle_memory()
    if options.part in (None, "step"):
        bench_steps(options.blocks)
    if options.part in (None, "arithmetic"):
        bench_arithmetic(options.blocks, options.small)


if __name__ == "__main__":
    import warnings

    warnings.filterwarnings("ignore", message="Using backward")
    main()
