"""What two processes do in ``test_sharded.py``: ``python processes.py RANK STORE OUT``."""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
import torch.distributed as dist
from tests.optim.contract import CONTRACT, Line
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from gradworks.optim import AdamP
from gradworks.optim.adamp import effective_step, project_radial, scale_invariance

# even, uneven, fewer rows (or columns) than processes, and wide
SHAPES = ((6, 4), (5, 3), (1, 7), (3, 2, 3, 3), (4, 1), (7,), (5, 8))
PLACEMENTS = {"rows": Shard(0), "columns": Shard(1), "whole": Replicate()}
STEPS = 8


def drawn(seed: int) -> list[Tensor]:
    """Values for every shape."""
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g, dtype=torch.float64) for shape in SHAPES]


def gradients(weights: list[Tensor], step: int) -> list[Tensor]:
    """Gradients orthogonal per row, as a whole, in no way, or zero, in turns."""
    found = []
    for i, (weight, grad) in enumerate(zip(weights, drawn(100 + step))):
        kind = (i + step) % 4
        if weight.ndim > 1 and kind < 2:
            rows = weight.flatten(1) if kind == 0 else weight.reshape(1, -1)
            flat = grad.reshape(rows.shape)
            flat = flat - rows * (flat * rows).sum(1, keepdim=True) / (rows**2).sum(1, keepdim=True)
            grad = flat.reshape(weight.shape)
        found.append(torch.zeros_like(grad) if kind == 3 else grad)
    return found


def whole(tensor: Tensor) -> Tensor:
    """The full tensor."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def chosen(optimizer: Any) -> dict[str, Any]:
    """What a step decided that no rounding may change: branches, columns."""
    found: dict[str, Any] = {k: int(v) for k, v in getattr(optimizer, "last_branch", {}).items()}
    for i, param in enumerate(optimizer.param_groups[0]["params"]):
        if "indices" in optimizer.state[param]:
            found[f"indices {i}"] = optimizer.state[param]["indices"].tolist()
    return found


def run(
    line: Line, params: list[nn.Parameter], share: Any, **settings: Any
) -> tuple[list[Tensor], list[Any]]:
    """Steps with ``share`` laying out each gradient; weights and decisions after them."""
    optimizer = line.on(params, **{**line.sharded, **settings})
    decisions = []
    for step in range(STEPS):
        for param, grad in zip(params, gradients([whole(p) for p in params], step)):
            param.grad = share(grad)
        line.step(optimizer)
        decisions.append(chosen(optimizer))
    return [whole(p) for p in params], decisions


def sharded(mesh: Any) -> dict[str, Any]:
    """Every placement of every optimizer, and the same on whole tensors."""
    results: dict[str, Any] = {}
    for line in CONTRACT:
        for place, placement in PLACEMENTS.items():

            def share(x: Tensor, placement: Any = placement) -> DTensor:
                own = Shard(0) if x.ndim == 1 and isinstance(placement, Shard) else placement
                return distribute_tensor(x, mesh, [own])

            params = [nn.Parameter(share(x)) for x in drawn(0)]
            results[f"{line}/{place}"] = run(line, params, share)
            plain = [nn.Parameter(x) for x in drawn(0)]
            results[f"{line}/{place}/alone"] = run(
                line, plain, lambda g: g, **line.alone.get(place, {})
            )
    return results


def functions(mesh: Any) -> dict[str, Any]:
    """The functional pieces on sharded weights."""
    weight = drawn(0)[0]
    grad = gradients(drawn(0), 0)[0]
    update = drawn(5)[0]
    results: dict[str, Any] = {"plain": [whole(x) for x in project_radial(weight, grad, update)]}
    for place in ("rows", "columns"):
        w, g, u = (distribute_tensor(x, mesh, [PLACEMENTS[place]]) for x in (weight, grad, update))
        results[place] = [whole(x) for x in project_radial(w, g, u)]
        results[f"{place}/cosines"] = [whole(x) for x in scale_invariance(w, g)]
        results[f"{place}/step"] = whole(effective_step(w, 0.1))
    results["plain/cosines"] = list(scale_invariance(weight, grad))
    results["plain/step"] = effective_step(weight, 0.1)
    try:
        bad = nn.Parameter(distribute_tensor(weight, mesh, [Shard(0)]))
        bad.grad = distribute_tensor(grad, mesh, [Shard(0)])
        AdamP([bad], differentiable=True).step()
    except RuntimeError as error:
        results["differentiable"] = str(error)
    return results


def reductions(line: Line, mesh: Any) -> int:
    """All-reduces of one step over many weights."""
    params = [nn.Parameter(distribute_tensor(x, mesh, [Shard(0)])) for x in drawn(0)]
    optimizer = line.on(params, **line.sharded)
    for param, grad in zip(params, drawn(1)):
        param.grad = distribute_tensor(grad, mesh, [Shard(0)])
    counted = 0
    original = dist.all_reduce

    def count(*args: Any, **kwargs: Any) -> Any:
        nonlocal counted
        counted += 1
        return original(*args, **kwargs)

    torch.distributed.all_reduce = count
    try:
        line.step(optimizer)
    finally:
        torch.distributed.all_reduce = original
    return counted


def network() -> nn.Sequential:
    """Convolutions of 5 and 3 channels, 7 hidden units: rows that two cannot share evenly.

    Smooth at its end, so that gradients have full rank: ARO's frame is rounding noise where not.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 3, 3), nn.BatchNorm2d(3),
            nn.GELU(), nn.Flatten(), nn.Linear(48, 7), nn.GELU(), nn.Linear(7, 1),
        ).double()  # fmt: skip


def batch() -> tuple[Tensor, Tensor]:
    """Images and targets."""
    g = torch.Generator().manual_seed(4)
    x = torch.randn(8, 1, 8, 8, generator=g, dtype=torch.float64)
    return x, x.mean((1, 2, 3)).sign().unsqueeze(1)


def fit(
    line: Line, model: nn.Module, optimizer: Any, x: Tensor, y: Tensor, steps: int = 6
) -> list[Tensor]:
    """Train in evaluation mode of the norms' statistics, so that halves of a batch average."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        line.step(optimizer)
    return [whole(p) for p in model.parameters()]


def networks(rank: int, mesh: Any) -> dict[str, Any]:
    """The same training alone, under DDP and under FSDP2, and a resharded resume."""
    x, y = batch()
    own = slice(4 * rank, 4 * rank + 4)
    results: dict[str, Any] = {}
    for line in CONTRACT:

        def make(model: nn.Module, line: Line = line, **settings: Any) -> Any:
            return line.on(model.parameters(), **{**line.sharded, **settings})

        model = network()
        results[f"{line}/ddp/alone"] = fit(line, model, make(model), x, y)
        model = network()
        optimizer = make(model, **line.alone.get("rows", {}))
        results[f"{line}/fsdp/alone"] = fit(line, model, optimizer, x, y)

        replica = DistributedDataParallel(network())
        results[f"{line}/ddp"] = fit(line, replica, make(replica), x[own], y[own])

        model = network()
        shard(model, mesh)
        optimizer = make(model)
        results[f"{line}/fsdp"] = fit(line, model, optimizer, x[own], y[own])

        # full state out, into a fresh sharded model, and on
        # (of an optimizer without state tensors torch takes no full state: its parts then)
        full = bool(line.state)
        options = StateDictOptions(full_state_dict=full, broadcast_from_rank0=full)
        # a copy: torch hands out its own `step` tensors
        state = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
        weights = results[f"{line}/fsdp"]
        other = network()
        with torch.no_grad():
            for param, value in zip(other.parameters(), weights):
                param.copy_(value)
        shard(other, mesh)
        resumed = make(other)
        set_optimizer_state_dict(other, resumed, state, options=options)
        results[f"{line}/on"] = fit(line, model, optimizer, x[own], y[own], 3)
        results[f"{line}/resumed"] = fit(line, other, resumed, x[own], y[own], 3)
    return results


def shard(model: Any, mesh: Any) -> None:
    """FSDP2, each convolution on its own."""
    for layer in (model[0], model[3]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def main() -> None:
    """Run everything and save what came out."""
    rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    results = {
        "sharded": sharded(mesh),
        "functions": functions(mesh),
        "reductions": {str(line): reductions(line, mesh) for line in CONTRACT},
        "networks": networks(rank, mesh),
    }
    torch.save(results, f"{out}{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
