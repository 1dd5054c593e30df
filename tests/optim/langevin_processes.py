"""What two processes do in ``test_langevin_sharded.py``: ``python ... RANK STORE OUT``."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from gradworks.optim.langevin import IterateAverage, Langevin

SHAPES = ((6, 4), (5, 3), (1, 7), (3, 2, 5))
PLACEMENTS = {"rows": Shard(0), "columns": Shard(1), "whole": Replicate()}
MANIFOLDS = ("sphere", "euclidean")


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(seed: int) -> list[Tensor]:
    g = gen(seed)
    return [torch.randn(shape, generator=g, dtype=torch.float64) for shape in SHAPES]


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def run(manifold: str, share: Any) -> list[Tensor]:
    """Steps with ``share`` laying out parameters and gradients; one gradient has a NaN."""
    params = [nn.Parameter(share(x)) for x in drawn(0)]
    optimizer = Langevin(params, 0.1, 0.3, manifold=manifold, generator=gen(7))
    average = IterateAverage(params)
    for step in range(4):
        grads = drawn(100 + step)
        if step == 2:
            grads[0][1, 2] = float("nan")
        for param, grad in zip(params, grads):
            param.grad = share(grad)
        optimizer.step()
        average.update()
    with average.swap():
        means = [whole(p) for p in params]
    return [*(whole(p) for p in params), *means]


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def fit(model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    optimizer = Langevin(model.parameters(), 0.1, 0.01, manifold="euclidean", generator=gen(3))
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    return [whole(p) for p in model.parameters()]


def networks(rank: int, mesh: Any) -> dict[str, Any]:
    x = torch.randn(8, 5, generator=gen(1), dtype=torch.float64)
    y = torch.randn(8, 3, generator=gen(2), dtype=torch.float64)
    own = slice(4 * rank, 4 * rank + 4)
    found = {"plain": fit(network(), x, y)}
    found["ddp"] = fit(DistributedDataParallel(network()), x[own], y[own])
    model = network()
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    found["fsdp"] = fit(model, x[own], y[own])
    return found


def pooled(rank: int) -> dict[str, Any]:
    """Two chains with counts of their own, pooled; and both together."""
    theta = torch.zeros(3, dtype=torch.float64)
    apart = IterateAverage([theta], second_moment=True)
    together = IterateAverage([theta], second_moment=True)
    for other in range(2):
        g = gen(other)
        for _ in range(2 + 3 * other):
            theta.copy_(torch.randn(3, generator=g, dtype=torch.float64))
            together.update()
            if other == rank:
                apart.update()
    apart.all_reduce()
    assert apart.second_moment is not None
    assert together.second_moment is not None
    return {
        "got": [apart.mean[0], apart.second_moment[0], apart.count],
        "want": [together.mean[0], together.second_moment[0], together.count],
    }


def errors(mesh: Any) -> dict[str, str]:
    """What sharded parameters are refused for."""
    param = nn.Parameter(distribute_tensor(drawn(0)[0], mesh, [Shard(0)]))
    param.grad = distribute_tensor(drawn(1)[0], mesh, [Shard(0)])
    found = {}
    for name, call in {
        "generator": lambda: Langevin([param], 0.1, 0.3).step(),
        "second": lambda: IterateAverage([param], second_moment=True),
        "pool": lambda: IterateAverage([param]).all_reduce(),
    }.items():
        try:
            call()
        except (RuntimeError, ValueError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    Langevin([param], 0.1, 0.0).step()  # cold: no noise is needed
    return found


def main() -> None:
    """Run everything and save what came out."""
    rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    results: dict[str, Any] = {"networks": networks(rank, mesh), "pooled": pooled(rank)}
    results["errors"] = errors(mesh)
    for manifold in MANIFOLDS:
        results[f"{manifold}/plain"] = run(manifold, lambda x: x)
        for place, placement in PLACEMENTS.items():
            results[f"{manifold}/{place}"] = run(
                manifold, lambda x, p=placement: distribute_tensor(x, mesh, [p])
            )
    torch.save(results, f"{out}{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
