"""One of two gloo processes of ``test_alignment_heads``: ``python ... RANK FILE``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.curvature.alignment_cases import domains

from gradworks.curvature.alignment import HGPAlignment, HutchinsonAlignment


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def split(net: nn.Module, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Features and logits of every domain from one call, as DDP wants it."""
    body, head = net[0:2], net[2]
    features = [body(v) for v in x]
    return features, [head(z) for z in features]


class Both(nn.Module):
    """Features and logits of all rows."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.net[0:2](x)
        return z, self.net[2](z)


def main(rank: int) -> None:
    (x, _, y), _ = domains((6, 5, 4))
    # One domain is cut in two, one lives here and one there.
    shares = [slice(0, 2), slice(0, 5), slice(0, 0)]
    if rank == 1:
        shares = [slice(2, 6), slice(5, 5), slice(0, 4)]
    for kind in (HGPAlignment, HutchinsonAlignment):
        alone = network()
        want = kind(1.0, 1.0)(*split(alone, x), y)
        want.total.backward()
        model = nn.parallel.DistributedDataParallel(Both())
        mine = [v[s] for v, s in zip(x, shares)]
        sizes = [len(v) for v in mine]
        z, a = model(torch.cat(mine))
        penalty = kind(1.0, 1.0, process_group=dist.group.WORLD)
        found = penalty(z.split(sizes), a.split(sizes), [t[s] for t, s in zip(y, shares)])
        torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)
        found.total.backward()
        for ours, theirs in zip(model.parameters(), alone.parameters()):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


if __name__ == "__main__":
    number, rendezvous = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=number, world_size=2)
    main(number)
    dist.barrier()
    dist.destroy_process_group()
    print(json.dumps({"rank": number, "done": True}), flush=True)
    # Once in a dozen runs torch's gloo threads abort the interpreter while it shuts down.
    os._exit(0)
