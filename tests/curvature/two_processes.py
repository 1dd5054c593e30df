"""One of two gloo processes of ``test_distributed``: ``python two_processes.py CASE RANK FILE``."""

from __future__ import annotations

import copy
import json
import os
import sys

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from gradworks.curvature.hutchinson import diagonal, frobenius_norm, trace
from gradworks.curvature.lanczos import eigsh, slq, tridiagonalize
from gradworks.curvature.operators import FisherOperator, GGNOperator, HessianOperator

P, N = 59, 21


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def examples() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(N, 4, generator=g, dtype=torch.float64), torch.arange(N) % 3


def vector(seed: int) -> Tensor:
    return torch.randn(P, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a: Tensor | float, b: Tensor | float, tolerance: float = 1e-10) -> None:
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    torch.testing.assert_close(a, b.to(a.dtype), rtol=tolerance, atol=tolerance)


def refused(act: object, fragment: str) -> None:
    try:
        act()
    except ValueError as error:
        if fragment not in str(error):
            raise AssertionError(f"{error} does not say {fragment!r}") from error
        return
    raise AssertionError(f"no error that says {fragment!r}")


def replicated(rank: int) -> None:
    """DDP: each process holds unequal, ragged batches; all equals one process."""
    x, y = examples()
    whole = (x, y)
    mine = [(x[:8], y[:8]), (x[8:13], y[8:13])] if rank == 0 else [(x[13:], y[13:])]
    model = nn.parallel.DistributedDataParallel(network())
    alone = network()
    group = dist.group.WORLD
    for kind in (HessianOperator, GGNOperator, FisherOperator):
        for options in (
            {},
            {"cache": "never"},
            {"method": "forward_over_reverse"},
            {"method": "linearize"},
            {"microbatch_size": 3},
        ):
            op = kind(model, F.cross_entropy, mine, process_group=group, **options)
            single = kind(alone, F.cross_entropy, whole)
            close(op @ vector(1), single @ vector(1))
            close(op.loss(), single.loss())
            close(op.gradient(), single.gradient())
            if not options:
                close(op.to_dense(), single.to_dense())
                close(
                    op @ torch.stack([vector(1), vector(2)], 1),
                    single @ torch.stack([vector(1), vector(2)], 1),
                )
                close(op.block("0.*").to_dense(), single.block("0.*").to_dense())
    # The first process's random numbers are everyone's.
    op = HessianOperator(model, F.cross_entropy, mine, process_group=group)
    single = HessianOperator(alone, F.cross_entropy, whole)

    def g(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed + 100 * rank)

    def g0(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    for a, b in zip(
        slq(op, num_steps=9, num_probes=2, generator=g(3)).nodes,
        slq(single, num_steps=9, num_probes=2, generator=g0(3)).nodes,
    ):
        close(a, b, 1e-9)
    close(eigsh(op, 3, generator=g(4)).values, eigsh(single, 3, generator=g0(4)).values, 1e-9)
    for method in ("hutchinson", "hutch++"):
        close(
            trace(op, num_probes=9, method=method, generator=g(5)).value,
            trace(single, num_probes=9, method=method, generator=g0(5)).value,
            1e-9,
        )
    close(
        diagonal(op, num_probes=5, generator=g(6)).diagonal,
        diagonal(single, num_probes=5, generator=g0(6)).diagonal,
    )

    # A process without data still takes part.
    class Nothing:
        def __iter__(self) -> object:
            return iter([])

    for cache in ("never", "auto"):
        lopsided = HessianOperator(
            model,
            F.cross_entropy,
            whole if rank == 0 else Nothing(),
            process_group=group,
            cache=cache,
        )
        close(lopsided @ vector(1), single @ vector(1))
        close(lopsided.gradient(), single.gradient())


def sharded(rank: int) -> None:
    """FSDP2: vectors are shards; products are finite differences."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    x, y = examples()
    mine = (
        [(x[:8], y[:8]), (x[8:13], y[8:13])]
        if rank == 0
        else [(x[13:17], y[13:17]), (x[17:], y[17:])]
    )
    alone = network()
    model = copy.deepcopy(alone)
    mesh = init_device_mesh("cpu", (2,))
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    before = [p.to_local().clone() for p in model.parameters()]
    marked = next(model.parameters())
    marked.grad = torch.ones_like(marked)
    op = HessianOperator(model, F.cross_entropy, mine)
    single = HessianOperator(alone, F.cross_entropy, (x, y))
    H = single.to_dense()

    def shard(whole: Tensor) -> Tensor:
        """This process's part of a vector of all parameters."""
        parts = single.unflatten(whole)
        return torch.cat([p.chunk(2, dim=0)[rank].reshape(-1) for p in parts.values()])

    if op.dimension != P or op.shape[0] >= P:
        raise AssertionError(f"{op.dimension}, {op.shape}")
    close(op.loss(), single.loss())
    close(op.gradient(), shard(single.gradient()))
    for seed in (1, 2):
        close(op @ shard(vector(seed)), shard(H @ vector(seed)), 1e-6)
    named = op.unflatten(shard(vector(1)))
    close(op.flatten(op @ named), shard(H @ vector(1)), 1e-6)
    close(op @ torch.zeros(op.shape[0]).double(), torch.zeros(op.shape[0]).double())
    values = torch.linalg.eigvalsh(H)
    found = eigsh(op, 3, tol=1e-5)
    close(found.values, values.flip(0)[:3], 1e-5)
    vectors = found.vectors
    close(op.reduce(vectors.T @ vectors), torch.eye(3), 1e-8)
    t = tridiagonalize(op, 6, start=shard(vector(3)))
    want = tridiagonalize(single, 6, start=vector(3))
    close(t.alpha, want.alpha, 1e-5)
    close(t.beta, want.beta, 1e-5)
    measure = slq(op, num_steps=4, num_probes=8, generator=torch.Generator().manual_seed(rank))
    error = P * float(measure.stderr(lambda t: t))
    if abs(float(measure.trace() - H.trace())) > 5 * error:
        raise AssertionError("the trace of shards is off: are their probes independent?")
    for method in ("hutchinson", "hutch++"):
        estimate = trace(op, num_probes=24, method=method)
        slack = 5 * estimate.stderr + 1e-6
        if abs(estimate.value - float(H.trace())) > slack:
            raise AssertionError(f"{method}: {estimate.value} against {float(H.trace())}")
    norm = frobenius_norm(op, num_probes=12)
    if abs(norm.value - float(H.norm())) > 5 * norm.stderr:
        raise AssertionError(f"{norm.value} against {float(H.norm())}")
    # Shards have numbers of their own; equal ones would bias every estimate.
    z = op.stream(torch.Generator().manual_seed(0))
    seeds = [torch.zeros(1, dtype=torch.int64) for _ in range(2)]
    dist.all_gather(seeds, torch.tensor([z.initial_seed()]))
    if seeds[0] == seeds[1]:
        raise AssertionError("both processes draw the same numbers")
    close((2 * op).shift(1.0) @ shard(vector(1)), shard(2 * (H @ vector(1)) + vector(1)), 1e-6)
    block = op.block("2.*")
    close(
        block @ shard(vector(1))[-block.shape[0] :],
        shard(torch.cat([torch.zeros(35).double(), H[35:, 35:] @ vector(1)[35:]]))[
            -block.shape[0] :
        ],
        1e-6,
    )
    for p, old in zip(model.parameters(), before):
        if not torch.equal(p.to_local(), old):
            raise AssertionError("parameters have changed")
    if marked.grad is None or not bool((marked.grad.to_local() == 1).all()):
        raise AssertionError(".grad has changed")
    close(F.cross_entropy(model(x), y).detach(), F.cross_entropy(alone(x), y).detach())
    refused(op.to_dense, "cannot be written down")
    refused(op.to_scipy, "SciPy cannot")
    refused(lambda: GGNOperator(model, F.cross_entropy, mine), "needs whole parameters")
    refused(
        lambda: HessianOperator(model, F.cross_entropy, mine, method="linearize"),
        "whole parameters",
    )
    refused(lambda: HessianOperator(model, F.cross_entropy, mine[rank:]), "same number of batches")
    bad = [(xb + torch.nan, yb) if rank == 0 else (xb, yb) for xb, yb in mine]
    broken = HessianOperator(model, F.cross_entropy, bad)
    try:
        broken @ shard(vector(1))
    except FloatingPointError:
        pass
    else:
        raise AssertionError("NaN in one process went unnoticed in another")


if __name__ == "__main__":
    case, number, rendezvous = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=number, world_size=2)
    {"replicated": replicated, "sharded": sharded}[case](number)
    dist.barrier()
    dist.destroy_process_group()
    print(json.dumps({"case": case, "rank": number, "done": True}), flush=True)
    # Once in a dozen runs torch's gloo threads abort the interpreter while it shuts down.
    os._exit(0)
