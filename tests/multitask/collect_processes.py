"""What two processes do in ``test_collect_processes.py``: ``... RANK STORE OUT``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from gradworks.multitask import (
    SAMGS,
    Aggregator,
    GramianAggregator,
    NonFiniteGradientError,
    TaskGradients,
    from_torchjd,
)
from gradworks.multitask.gcond import GCond

STEPS = 2


class UnitRows(GramianAggregator):
    """Rows brought to length 1."""

    def weights(self, gramian: Tensor) -> Tensor:
        return gramian.diagonal().rsqrt()


class Drawn(GramianAggregator):
    """Random weights."""

    def weights(self, gramian: Tensor) -> Tensor:
        return torch.rand(len(gramian), dtype=gramian.dtype)


AGGREGATORS: dict[str, Callable[[], Aggregator]] = {
    "sum": Aggregator,
    "unit": UnitRows,
    "samgs": SAMGS,
    "gcond": GCond,
}
if find_spec("torchjd"):
    AGGREGATORS["mgda"] = lambda: from_torchjd("MGDA")


class Model(nn.Module):
    """A trunk of 7 and 3 units, which two cannot share evenly, and a head a task."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3), nn.Tanh())
        self.heads = nn.ModuleDict({n: nn.Linear(3, 1) for n in ("a", "b", "c")})
        self.double()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The outputs of all heads."""
        z = self.trunk(x)
        return {n: head(z) for n, head in self.heads.items()}


def data() -> Tensor:
    """The joint batch."""
    g = torch.Generator().manual_seed(5)
    return torch.randn(8, 4, generator=g, dtype=torch.float64)


def losses_of(outputs: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """Losses of unlike scale whose gradients differ between samples."""
    return {
        n: 10.0**i * (out - x[:, i : i + 1]).square().mean()
        for i, (n, out) in enumerate(outputs.items())
    }


def whole(tensor: Tensor) -> Tensor:
    """The full tensor."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def driver(model: Any, **arguments: Any) -> TaskGradients:
    """Of a model, wrapped or not."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    heads = {n: head.parameters() for n, head in inner.heads.items()}
    return TaskGradients(inner.trunk.parameters(), heads, **arguments)


def train(model: Any, x: Tensor, make: Callable[[], Aggregator], **arguments: Any) -> list[Any]:
    """Gradients and statistics of some steps of plain descent."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    micro = arguments.pop("micro", False)
    if arguments.get("method") == "features":
        arguments["features"] = inner.trunk
    collect, aggregator = driver(model, **arguments), make()
    found: list[Any] = []
    for _ in range(STEPS):
        if micro:
            for part in x.chunk(2):
                collect.accumulate(losses_of(model(part), part), scale=0.5)
            stats = collect.aggregate(aggregator, accumulate=False, statistics=True)
        else:
            asked = "chunk_params" not in arguments
            losses = losses_of(model(x), x)
            stats = collect.backward(losses, aggregator, accumulate=False, statistics=asked)
        found += [whole(p.grad) for p in inner.parameters()]
        found += [stats.norms, stats.losses]
        if stats.gramian is not None:
            found += [stats.gramian, stats.weights]
        with torch.no_grad():
            for param in inner.parameters():
                param -= 0.01 * param.grad
    return found


def sharded(mesh: Any) -> Any:
    """FSDP2, each layer on its own."""
    model: Any = Model()
    for layer in (model.trunk[0], model.trunk[2], *model.heads.values()):
        fully_shard(layer, mesh=mesh)
    fully_shard(model.trunk, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def failing(collect: TaskGradients, model: Any, own: Tensor, rank: int) -> list[str]:
    """A sample that is not finite on one process: every process must refuse, none may hang."""
    seen = []
    bad = own.clone()
    if rank == 1:
        bad[0, 0] = float("nan")
    for x in (bad, own):
        try:
            collect.backward(losses_of(model(x), x), UnitRows())
            seen.append("fine")
        except NonFiniteGradientError as error:
            seen.append(str(error))
    return seen


def late(rank: int) -> list[Any]:
    """A head that one process alone reaches."""
    model = Model()
    collect = driver(model, process_group=dist.group.WORLD)
    x = data()[4 * rank : 4 * rank + 4]
    losses = losses_of(model(x), x)
    if rank == 1:
        losses["c"] = model.trunk(x).mean()
    collect.backward(losses, Aggregator())
    return [model.heads["c"].weight.grad, model.trunk[0].weight.grad]


def refused(mesh: Any, model: Any) -> list[str]:
    """What sharded parameters cannot do."""
    found = []
    x = data()
    calls: list[Callable[[], object]] = [
        lambda: driver(model, method="vjp"),
        lambda: driver(model, chunk_params=3),
        lambda: driver(model, process_group=dist.group.WORLD),
        lambda: TaskGradients(model.trunk.parameters(), {"a": [nn.Parameter(torch.ones(1))]}),
        lambda: driver(model).backward(losses_of(model(x), x), lambda J: J.sum(0)),
        lambda: driver(Model(), process_group=3),
    ]
    for call in calls:
        try:
            call()
            found.append("nothing")
        except (TypeError, ValueError) as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def main() -> None:
    """Run everything and save what came out."""
    rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    world = dist.group.WORLD
    own = data()[4 * rank : 4 * rank + 4]
    results: dict[str, Any] = {}
    for name, make in AGGREGATORS.items():
        results[f"{name}/alone"] = train(Model(), data(), make)
        results[f"{name}/replicas"] = train(Model(), own, make, process_group=world)
        results[f"{name}/ddp"] = train(
            DistributedDataParallel(Model()), own, make, process_group=world
        )
        results[f"{name}/micro"] = train(Model(), own, make, process_group=world, micro=True)
        results[f"{name}/vjp"] = train(Model(), own, make, process_group=world, method="vjp")
        results[f"{name}/fsdp"] = train(sharded(mesh), own, make)
        results[f"{name}/fsdp micro"] = train(sharded(mesh), own, make, micro=True)
        if name in {"unit", "samgs", "mgda"}:
            results[f"{name}/blocks alone"] = train(Model(), data(), make, chunk_params=10)
            results[f"{name}/blocks"] = train(
                Model(), own, make, process_group=world, chunk_params=10
            )
        if name not in {"samgs", "gcond"}:  # whose state would be of the samples
            results[f"{name}/features alone"] = train(Model(), data(), make, method="features")
            results[f"{name}/features"] = train(
                Model(), own, make, method="features", process_group=world
            )
    for key, model in (("drawn", Model()), ("drawn fsdp", sharded(mesh))):
        torch.manual_seed(rank)  # after the weights were drawn
        group = world if key == "drawn" else None
        results[key] = train(model, own, Drawn, process_group=group)
    model = Model()
    collect = driver(model, process_group=world)
    before = torch.get_rng_state()
    collect.backward(losses_of(model(own), own), Drawn())
    results["draws left alone"] = torch.equal(before, torch.get_rng_state())
    model = Model()
    collect = driver(model, process_group=world)
    results["failing"] = failing(collect, model, own, rank)
    model = sharded(mesh)
    results["failing fsdp"] = failing(driver(model), model, own, rank)
    results["late"] = late(rank)
    results["refused"] = refused(mesh, model)
    torch.save(results, f"{out}{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
