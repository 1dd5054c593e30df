"""One of two gloo processes of ``test_gcond_conductor``: its arguments are RANK FILE."""

from __future__ import annotations

import copy
import sys

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

from gradworks.multitask import Conductor, GCond, NonFiniteGradientError

LOSSES = {"l1": F.l1_loss, "l2": lambda out, y: -F.mse_loss(out, -y)}  # they conflict
A = 4


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def batch(rank: int, step: int, micro: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1000 * step + 10 * micro + rank)
    draw = {"generator": g, "dtype": torch.float64}
    return torch.randn(6, 3, **draw), torch.randn(6, 2, **draw)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([full(p.grad).reshape(-1) for p in model.parameters()])


def full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def run(conductor: Conductor, ranks: list[int], step: int) -> Tensor:
    """One step on the samples of some ranks."""
    micro = iter(range(A))

    def following() -> tuple[Tensor, Tensor]:
        m = next(micro)
        made = [batch(rank, step, m) for rank in ranks]
        return torch.cat([x for x, _ in made]), torch.cat([y for _, y in made])

    conductor.step(following)
    return flat(conductor.model)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def before(rank: int, mode: str) -> None:
    """Gradients averaged first: one process on the joint batch."""
    model = nn.parallel.DistributedDataParallel(network())
    ours = Conductor(model, LOSSES, None, A, mode=mode)
    alone = Conductor(network(), LOSSES, None, A, mode=mode)
    for step in range(3):
        close(run(ours, [rank], step), run(alone, [0, 1], step))
    if ours.aggregator.history != alone.aggregator.history or not ours.aggregator.history:
        raise AssertionError(f"{ours.aggregator.history} is not {alone.aggregator.history}")


def after(rank: int) -> None:
    """Each resolves its own; the results are averaged."""
    model = nn.parallel.DistributedDataParallel(network())
    ours = Conductor(model, LOSSES, None, A, sync="after")
    alone = [Conductor(network(), LOSSES, None, A) for _ in range(2)]
    for step in range(3):
        found = run(ours, [rank], step)
        mean = torch.stack([run(alone[r], [r], step) for r in range(2)]).mean(0)
        close(found, mean)


def refused(rank: int, sync: str) -> None:
    """A loss that is not finite on one replica stops all, and none waits."""
    model = nn.parallel.DistributedDataParallel(network())
    ours = Conductor(model, LOSSES, None, A, sync=sync)
    kept = run(ours, [rank], 0)
    state = copy.deepcopy(ours.aggregator.state_dict())
    micro = iter(range(A))

    def bad() -> tuple[Tensor, Tensor]:
        m = next(micro)
        x, y = batch(rank, 1, m)
        return (x * float("nan") if rank == 1 and m == 2 else x), y

    try:
        ours.step(bad)
    except NonFiniteGradientError as error:
        if error.names != ("l2",) or (rank == 1) != ("micro-batch 2" in str(error)):
            raise AssertionError(str(error)) from error
    else:
        raise AssertionError("no error")
    close(flat(ours.model), kept)
    if ours.aggregator.state_dict()["_extra_state"] != state["_extra_state"]:
        raise AssertionError("the state changed")


def sharded(rank: int) -> None:
    """FSDP2: each process has a part of the columns, lion included."""
    for lion in (False, True):
        model = network()
        fully_shard(model)
        ours = Conductor(model, LOSSES, None, A, aggregator=GCond(lion=lion))
        alone = Conductor(network(), LOSSES, None, A, aggregator=GCond(lion=lion))
        for step in range(2):
            close(run(ours, [rank], step), run(alone, [0, 1], step))
        final = [float(c.aggregator.stats.final_norm) for c in (ours, alone)]
        close(torch.tensor(final[0]), torch.tensor(final[1]))


def main() -> None:
    rank, file = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    for mode in ("stochastic", "sequential"):
        before(rank, mode)
    after(rank)
    for sync in ("before", "after"):
        refused(rank, sync)
    sharded(rank)
    dist.destroy_process_group()
    print("done")


if __name__ == "__main__":
    main()
