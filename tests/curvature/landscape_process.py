"""One of two gloo processes of ``test_landscape_processes``: ``python … RANK FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from gradworks.curvature.landscape import LossPlane, centered_grid, loss_plane, random_directions


def main(rank: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2
    )
    try:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double()
        x, y = torch.randn(21, 4).double(), torch.arange(21) % 3
        a, b = random_directions(model)
        options = {"alphas": centered_grid(5), "betas": centered_grid(4), "vectorize": "never"}
        alone = loss_plane(model, F.cross_entropy, (x, y), a, b, **options)
        wrapped = nn.parallel.DistributedDataParallel(model)
        done: list[tuple[int, int]] = []
        both = loss_plane(
            wrapped,
            F.cross_entropy,
            (x, y),
            a,
            b,
            process_group=dist.group.WORLD,
            progress=lambda *p: done.append(p),
            resume=folder / "plane.npz",
            **options,
        )
        if not torch.equal(both.loss, alone.loss):
            raise AssertionError(f"rank {rank}: {both.loss} is not {alone.loss}")
        if done[-1] != ((12, 12) if rank == 0 else (8, 8)):
            raise AssertionError(f"rank {rank} measured {done}")
        dist.barrier()
        if not torch.equal(LossPlane.load(folder / "plane.npz").loss, alone.loss):
            raise AssertionError("the file holds another plane")
    finally:
        dist.destroy_process_group()
    print("done")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
