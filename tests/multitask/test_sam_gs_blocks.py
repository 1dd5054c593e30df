"""SAM-GS in pieces: chunks of columns, shards, layers, dtypes of the state, memory."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradworks.multitask import SAMGS, TaskGradients

GAMMAS = pytest.mark.parametrize("gamma", [0.0, 0.7, 1.0])


def draw(tasks: int, params: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    J = torch.randn(tasks, params, dtype=torch.float64, generator=g)
    return (J * (1.8 ** torch.arange(tasks))[:, None]).to(dtype)


def in_chunks(aggregator: SAMGS, J: Tensor, width: int) -> Tensor:
    """What the driver does within ``chunk_params``."""
    aggregator.begin(J.norm(dim=1), J.shape[1], J.new_empty(0))
    parts = [aggregator.columns(J[:, k : k + width], k) for k in range(0, J.shape[1], width)]
    return aggregator.finish(torch.cat(parts))


@GAMMAS
@pytest.mark.parametrize("scale", ["published", "norm"])
def test_chunks_equal_the_whole(gamma: float, scale: str) -> None:
    whole, cut = (SAMGS(gamma=gamma, scale=scale) for _ in range(2))
    for k in range(4):
        J = draw(3, 50, k)
        torch.testing.assert_close(in_chunks(cut, J, 7), whole(J), rtol=1e-12, atol=0)
    torch.testing.assert_close(cut.exp_avg, whole.exp_avg, rtol=1e-13, atol=0)
    assert cut.exp_dissim == pytest.approx(whole.exp_dissim, rel=1e-12)


def test_the_driver_gives_the_same_with_chunk_params() -> None:
    torch.manual_seed(0)
    trunk = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    other = copy.deepcopy(trunk)
    ours, chunked = SAMGS(), SAMGS()
    for k in range(3):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(k))
        for net, aggregator, chunk in ((trunk, ours, None), (other, chunked, 20)):
            y = net(x)
            collect = TaskGradients(net.parameters(), chunk_params=chunk)
            collect.backward([y.square().mean(), 3 * y.exp().mean()], aggregator, accumulate=False)
        for p, q in zip(trunk.parameters(), other.parameters()):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-8)


def shards(run: Callable[[int, Callable[[Tensor], Tensor]], Tensor], count: int) -> list[Tensor]:
    """Run ``count`` threads that sum small tensors over one another, as processes do."""
    barrier, given, found = threading.Barrier(count, timeout=20), [None] * count, [None] * count

    def reduce_of(rank: int) -> Callable[[Tensor], Tensor]:
        def reduce(tensor: Tensor) -> Tensor:
            given[rank] = tensor.clone()
            barrier.wait()
            total = sum(given[1:], given[0].clone())
            barrier.wait()
            return total

        return reduce

    def work(rank: int) -> None:
        found[rank] = run(rank, reduce_of(rank))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return found


@pytest.mark.parametrize("granularity", ["whole", "layer"])
@pytest.mark.parametrize("scale", ["published", "norm"])
def test_shards_equal_the_whole(granularity: str, scale: str) -> None:
    steps = [draw(3, 10, k) for k in range(3)]
    whole = SAMGS(granularity=granularity, scale=scale)
    whole.bind([6, 4])
    want = [whole(J) for J in steps]
    # Two tensors of 6 and 4 columns; the second shard has none of the second tensor.
    mine = ([0, 1, 2, 6, 7, 8, 9], [3, 4, 5])
    sizes = ([3, 4], [3, 0])

    def run(rank: int, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        aggregator = SAMGS(granularity=granularity, scale=scale)
        aggregator.bind(sizes[rank], reduce)
        return torch.stack([aggregator(J[:, mine[rank]]) for J in steps])

    found = shards(run, 2)
    for k, expected in enumerate(want):
        for rank in range(2):
            torch.testing.assert_close(found[rank][k], expected[mine[rank]], rtol=1e-12, atol=0)


def test_a_shard_without_columns() -> None:
    aggregator = SAMGS()
    aggregator.bind([0], lambda tensor: tensor + 1)
    assert aggregator(torch.empty(2, 0)).shape == (0,)


@pytest.mark.parametrize("scale", ["published", "norm"])
def test_layers_are_methods_of_their_own(scale: str) -> None:
    sizes = [4, 3, 6]
    aggregator = SAMGS(granularity="layer", scale=scale, max_norm=None)
    aggregator.bind(sizes)
    alone = [SAMGS(scale=scale, max_norm=None) for _ in sizes]
    seen = set()
    for k in range(4):
        J = draw(3, 13, k)
        J[0, :4] *= 100  # of one tensor the lengths are unlike
        want = [one(part) for one, part in zip(alone, J.split(sizes, 1))]
        torch.testing.assert_close(aggregator(J), torch.cat(want), rtol=1e-12, atol=0)
        assert aggregator.branches == tuple(one.branch for one in alone)
        assert aggregator.similarities == tuple(one.similarity for one in alone)
        seen |= {aggregator.branch}
    assert "mixed" in seen
    clipped = SAMGS(granularity="layer", scale=scale)
    clipped.bind(sizes)
    assert float(clipped(J).norm()) == pytest.approx(1.0, rel=1e-5)  # one norm for all tensors


def test_layers_need_their_sizes_and_keep_their_state() -> None:
    aggregator = SAMGS(granularity="layer")
    assert (aggregator.needs, SAMGS().needs) == ("jacobian", "columns")
    J = draw(2, 6, 0)
    with pytest.raises(RuntimeError, match=r"call bind"):
        aggregator(J)
    aggregator.bind([4])
    with pytest.raises(ValueError, match="6 columns, the bound tensors 4"):
        aggregator(J)
    with pytest.raises(RuntimeError, match="whole Jacobian"):
        aggregator.begin(J.norm(dim=1), 6, J)
    assert (aggregator.step, aggregator.exp_avg) == (0, None)
    aggregator.bind([4, 2])
    aggregator(J)
    fresh = SAMGS(granularity="layer")
    fresh.bind([4, 2])
    fresh.load_state_dict(aggregator.state_dict())
    assert torch.equal(fresh(draw(2, 6, 1)), aggregator(draw(2, 6, 1)))
    whole = SAMGS()
    whole.load_state_dict(aggregator.state_dict())
    with pytest.raises(ValueError, match=r"1 blocks of parameters, the state has 2.*reset"):
        whole(J)


def test_columns_before_begin() -> None:
    with pytest.raises(RuntimeError, match=r"call begin\(\)"):
        SAMGS().columns(torch.ones(2, 3), 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_state_follows_the_device_of_the_jacobian() -> None:
    here, there = SAMGS(), SAMGS()
    here(draw(2, 4, 0))
    there.load_state_dict(here.state_dict())
    for k in (1, 2):
        J = draw(2, 4, k)
        torch.testing.assert_close(there(J.cuda()).cpu(), here(J), rtol=1e-12, atol=0)
    assert there.exp_avg.device.type == "cuda"


@pytest.mark.parametrize("state", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_state_has_its_own_dtype(dtype: torch.dtype, state: torch.dtype) -> None:
    exact, ours = SAMGS(gamma=0.0), SAMGS(gamma=0.0, state_dtype=state)
    for k in range(5):
        J = draw(3, 40, k, dtype)
        want, found = exact(J.double()), ours(J)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), want, rtol=0.03, atol=0.005)
    assert ours.exp_avg.dtype == state


def test_half_precision_neither_overflows_nor_vanishes() -> None:
    # The smallest float16 is 6e-8, the largest 65504; equal norms multiply the square by 1e3.
    for size in (1e-4, 300.0):
        J = (size * torch.eye(3)).to(torch.float16)
        found, aggregator = SAMGS(gamma=0.0)(J), SAMGS(gamma=0.0)
        torch.testing.assert_close(found.double(), aggregator(J.double()), rtol=0.01, atol=0)


class Largest(TorchDispatchMode):
    """The most numbers that one operation made anew."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        old = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs))
               if isinstance(x, Tensor)}  # fmt: skip
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in old:
                self.made = max(self.made, x.numel())
        return out


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_no_temporary_of_the_size_of_the_jacobian(
    gamma: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAMGS.forward.__globals__, "TILE", 400)
    aggregator = SAMGS(gamma=gamma)
    J = draw(4, 1000, 0, torch.float32)
    aggregator(J)
    with Largest() as largest:
        aggregator(J)
    assert largest.made == 1000  # the direction itself
