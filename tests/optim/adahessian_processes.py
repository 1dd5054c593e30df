"""What two processes do in ``test_adahessian_sharded.py``: ``python … RANK STORE OUT``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from gradworks.optim import AdaHessian

STEPS = 3


def network() -> nn.Sequential:
    """Rows that two processes cannot share evenly."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def batch() -> tuple[Tensor, Tensor]:
    """Inputs and classes."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(8, 4, generator=g, dtype=torch.float64)
    return x, torch.arange(8) % 3


def whole(tensor: Tensor) -> Tensor:
    """The full tensor."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def optimizer(model: nn.Module, **settings: Any) -> AdaHessian:
    """The same probes everywhere."""
    generator = torch.Generator().manual_seed(7)
    return AdaHessian(model.parameters(), lr=0.1, generator=generator, **settings)


def fit(model: nn.Module, opt: AdaHessian, take: Callable[[], object]) -> list[Tensor]:
    """Some steps."""
    for _ in range(STEPS):
        opt.zero_grad()
        take()
        opt.step()
    return [whole(p) for p in model.parameters()]


def differences(model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    """Train by differences of gradients."""
    opt = optimizer(model)
    loss = nn.CrossEntropyLoss()
    return fit(model, opt, lambda: opt.estimate_from(lambda: loss(model(x), y), h=1e-5))


def products(model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> list[Tensor]:
    """Train by Hessian-vector products."""
    opt = optimizer(model, **settings)
    loss = nn.CrossEntropyLoss()
    return fit(model, opt, lambda: opt.estimate(loss(model(x), y)))


def main() -> None:
    """Run everything and save what came out."""
    rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    x, y = batch()
    own = slice(4 * rank, 4 * rank + 4)
    sharded = network()
    for layer in (sharded[0], sharded[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    results: dict[str, Any] = {
        "differences": differences(network(), x, y),
        "products": products(network(), x, y),
        "ddp": differences(DistributedDataParallel(network()), x[own], y[own]),
        "fsdp": differences(sharded, x[own], y[own]),
        "group": products(network(), x[own], y[own], process_group=dist.group.WORLD),
    }
    opt = optimizer(sharded)
    opt.zero_grad()
    nn.functional.cross_entropy(sharded(x[own]), y[own]).backward()
    try:
        opt.step()
    except RuntimeError as error:
        results["advice"] = str(error)
    torch.save(results, f"{out}{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
