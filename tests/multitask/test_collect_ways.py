"""The driver's other ways: blocks, features, micro-batches, mixed precision, statistics."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.multitask.test_collect import by_hand, problem
from torch import Tensor, nn

from gradworks.multitask import (
    SAMGS,
    Aggregator,
    GramianAggregator,
    NonFiniteGradientError,
    TaskGradients,
)
from gradworks.multitask.collect import rows
from gradworks.multitask.sam_gs import conflict_statistics


class UnitRows(GramianAggregator):
    """Rows brought to length 1."""

    def weights(self, gramian: Tensor) -> Tensor:
        return gramian.diagonal().rsqrt()


def heads_of(heads: dict[str, nn.Module]) -> dict[str, Any]:
    return {name: head.parameters() for name, head in heads.items()}


def grads(*modules: nn.Module) -> list[Tensor]:
    return [p.grad for module in modules for p in module.parameters()]


# blocks of parameters


@settings(max_examples=8, deadline=None)
@given(
    chunk=st.integers(1, 60),
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    tasks=st.integers(1, 4),
    method=st.sampled_from(["sequential", "vjp"]),
)
def test_blocks_are_the_whole(chunk: int, widths: list[int], tasks: int, method: str) -> None:
    torch.manual_seed(0)
    sizes = [3, *widths]
    trunk = nn.Sequential(*(nn.Linear(a, b).double() for a, b in pairwise(sizes)))
    heads = {str(i): nn.Linear(sizes[-1], 1).double() for i in range(tasks)}
    x = torch.randn(5, 3, dtype=torch.float64)
    found = []
    for limit in (None, chunk):
        z = trunk(x)
        losses = {n: (head(z) - 1).square().mean() for n, head in heads.items()}
        collect = TaskGradients(
            trunk.parameters(), heads_of(heads), chunk_params=limit, method=method
        )
        gramian = collect.gramian(losses, retain_graph=True)
        collect.backward(losses, UnitRows(), accumulate=False)
        found.append([gramian, *(g.clone() for g in grads(trunk, *heads.values()))])
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_blocks_hold_no_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk, heads, losses = problem()
    biggest = max(p.numel() for p in trunk.parameters())
    shapes: list[torch.Size] = []
    original = torch.empty

    def empty(*args: Any, **kwargs: Any) -> Tensor:
        made = original(*args, **kwargs)
        shapes.append(made.shape)
        return made

    monkeypatch.setattr(torch, "empty", empty)
    collect = TaskGradients(trunk.parameters(), heads_of(heads), chunk_params=biggest)
    collect.backward(losses, UnitRows())
    assert max(s[1] for s in shapes if len(s) == 2) == biggest
    assert all(len(s) != 2 or s.numel() <= 3 * biggest for s in shapes)


def test_blocks_refuse_what_needs_more() -> None:
    trunk, heads, losses = problem()
    collect = TaskGradients(trunk.parameters(), heads_of(heads), chunk_params=8)
    with pytest.raises(ValueError, match="Aggregator needs the whole Jacobian"):
        collect.backward(losses, Aggregator())
    with pytest.raises(ValueError, match="statistics needs inner products"):
        collect.backward(losses, SAMGS(), statistics=True)
    stats = collect.backward(losses, UnitRows(), statistics=True)
    torch.testing.assert_close(stats.weights, stats.norms.reciprocal())
    trunk, heads, losses = problem()
    losses["b"] = losses["b"] * math.nan
    collect = TaskGradients(trunk.parameters(), heads_of(heads), chunk_params=8)
    with pytest.raises(NonFiniteGradientError, match="loss of task 'b'"):
        collect.backward(losses, UnitRows())
    assert grads(trunk) == [None] * 4


# features


def test_features_of_a_sum_are_the_gradient() -> None:
    trunk, heads, losses = problem()
    x = torch.randn(6, 4, dtype=torch.float64)
    kept: list[Tensor] = []

    def run() -> dict[str, Tensor]:
        kept[:] = [trunk(x)]
        return {n: head(kept[0]).square().mean() for n, head in heads.items()}

    for features in (trunk, lambda: kept[0], lambda: kept):
        collect = TaskGradients(
            trunk.parameters(), heads_of(heads), method="features", features=features
        )
        losses = run()
        J = collect.jacobian(losses, retain_graph=True)
        assert J.shape == (3, 18)
        torch.testing.assert_close(collect.gramian(losses, retain_graph=True), J @ J.T)
        want = [
            torch.autograd.grad(sum(losses.values()), list(m.parameters()), retain_graph=True)
            for m in (trunk, *heads.values())
        ]
        stats = collect.backward(losses, Aggregator(), accumulate=False)
        torch.testing.assert_close(stats.norms, J.norm(dim=1))
        for found, expected in zip(grads(trunk, *heads.values()), sum(want, ())):
            torch.testing.assert_close(found, expected)


def test_features_are_aggregated_there() -> None:
    trunk, heads, _ = problem()
    z = trunk(torch.randn(6, 4, dtype=torch.float64))
    losses = {n: head(z).square().mean() for n, head in heads.items()}
    rows = torch.stack(
        [torch.autograd.grad(v, z, retain_graph=True)[0].flatten() for v in losses.values()]
    )
    direction = (rows / rows.norm(dim=1, keepdim=True)).sum(0).view(6, 3)
    want = torch.autograd.grad(z, list(trunk.parameters()), direction, retain_graph=True)
    collect = TaskGradients(trunk.parameters(), method="features", features=lambda: z)
    collect.backward(losses, UnitRows())
    for found, expected in zip(grads(trunk), want):
        torch.testing.assert_close(found, expected)


# micro-batches


def test_micro_batches_are_the_whole_batch() -> None:
    trunk, heads, _ = problem()
    x = torch.randn(6, 4, dtype=torch.float64)

    def losses(x: Tensor) -> dict[str, Tensor]:
        z = trunk(x)
        return {n: head(z).square().mean() for n, head in heads.items()}

    collect = TaskGradients(trunk.parameters(), heads_of(heads))
    want_stats = collect.backward(losses(x), UnitRows(), accumulate=False)
    want = [g.clone() for g in grads(trunk, *heads.values())]
    for part in x.chunk(3):
        collect.accumulate(losses(part), scale=1 / 3)
    assert collect.pending is not None
    assert collect.pending.shape == (3, sum(collect.sizes))
    with pytest.raises(RuntimeError, match="accumulate\\(\\) holds rows"):
        collect.backward(losses(x), UnitRows())
    stats = collect.aggregate(UnitRows(), accumulate=False)
    for found, expected in zip(grads(trunk, *heads.values()), want):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(stats.losses, want_stats.losses)
    assert collect.pending is None
    with pytest.raises(RuntimeError, match="nothing to aggregate"):
        collect.aggregate(UnitRows())


def test_a_micro_batch_may_serve_one_task() -> None:
    trunk, heads, losses = problem()
    want = by_hand(trunk, losses)
    collect = TaskGradients(trunk.parameters(), heads_of(heads))
    collect.accumulate({"c": losses["c"]}, scale=2.0)
    with pytest.raises(ValueError, match=r"'d'.*none of the tasks"):
        collect.accumulate({"d": losses["a"]})
    torch.testing.assert_close(collect.pending[2], 2 * want[2])
    stats = collect.aggregate(Aggregator())
    assert stats.unreached == ("a", "b")
    assert heads["a"].weight.grad is None
    trunk, heads, losses = problem()
    collect = TaskGradients(trunk.parameters())
    collect.accumulate({"b": losses["b"]}, tasks=["b", "a"])
    assert not collect.pending[1].any()
    collect.discard()
    assert collect.pending is None
    trunk, heads, losses = problem()
    collect = TaskGradients(trunk.parameters())
    torch.autograd.backward(losses["a"])
    with pytest.raises(RuntimeError, match="graph of loss 0 was freed"):
        collect.accumulate({"a": losses["a"]})
    assert collect.pending is None


# the rest


def test_statistics_are_those_of_the_rows() -> None:
    trunk, heads, losses = problem()
    collect = TaskGradients(trunk.parameters())
    J = collect.jacobian(losses, retain_graph=True)
    stats = collect.backward(losses, UnitRows(), statistics=True)
    torch.testing.assert_close(stats.cosines(), conflict_statistics(J).cosine)
    torch.testing.assert_close(stats.weights, J.norm(dim=1).reciprocal())
    torch.testing.assert_close(
        stats.losses.double(), torch.stack(list(losses.values())).detach(), rtol=1e-6, atol=0
    )
    trunk, heads, losses = problem()
    losses["b"] = heads["b"].weight.sum()
    losses["c"] = 1e-9 * losses["a"]  # depends on another row, and is tiny
    collect = TaskGradients(trunk.parameters())
    stats = collect.backward(losses, Aggregator(), statistics=True)
    assert float(stats.weights[1]) == 0
    assert bool((stats.cosines()[1] == 0).all())
    assert float(stats.weights[0] + 1e-9 * stats.weights[2]) == pytest.approx(1 + 1e-9)
    with pytest.raises(RuntimeError, match="statistics=True"):
        collect.backward([trunk(torch.ones(1, 4).double()).sum()], Aggregator()).cosines()


def test_batched_only_where_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    params = [torch.empty(100, device="meta")]
    assert not rows.batched_fits(40, params)
    assert rows._needed(10, 2000, params) == 10 * (800 + 1200)
    assert rows._needed(10, 100, params) == 10 * 800

    class Elsewhere:
        """Stands for a tensor on an accelerator."""

        device = torch.device("cuda", 0)
        numel, element_size = (lambda self: 100), (lambda self: 4)

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda d: (10_000, 50_000))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda d: 2000)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda d: 4000)
    assert rows.batched_fits(9, [Elsewhere()]) is (9 * 2000 <= 12_000)
    assert not rows.batched_fits(8, [Elsewhere()]), "up to 8 tasks: one pass each"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda d: (20_000, 50_000))
    assert rows.batched_fits(9, [Elsewhere()])


def test_batched_pass_that_is_impossible_says_what_to_do() -> None:
    class Odd(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * float(grad.sum() > 0)  # asks for a value

    trunk = nn.Linear(2, 2)
    z = Odd.apply(trunk(torch.ones(1, 2)))
    with pytest.raises(RuntimeError, match="method='sequential'"):
        TaskGradients(trunk.parameters(), method="vjp").jacobian([z.sum(), z.square().sum()])


def test_sparse_and_channels_last_gradients() -> None:
    table, conv = (
        nn.Embedding(5, 3, sparse=True),
        nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last),
    )
    shared = [table.weight, conv.weight]
    index = torch.tensor([1, 1, 4])

    def losses() -> list[Tensor]:
        e = table(index)
        z = conv(torch.ones(1, 2, 4, 4).to(memory_format=torch.channels_last)) * e.sum()
        return [z.square().mean(), e.square().sum() + z.sum()]

    TaskGradients(shared).backward(losses(), Aggregator())
    found = [p.grad for p in shared]
    assert found[1].is_contiguous(memory_format=torch.channels_last)
    for param in shared:
        param.grad = None
    sum(losses()).backward()
    torch.testing.assert_close(found[0], table.weight.grad.to_dense())
    torch.testing.assert_close(found[1], conv.weight.grad)


def test_a_sparse_grad_that_is_there_is_added_to() -> None:
    table, head = (nn.Embedding(5, 3, sparse=True) for _ in range(2))

    def losses() -> dict[str, Tensor]:
        e = table(torch.tensor([1, 1, 4]))
        return {"a": e.square().sum() + head(torch.tensor([2])).sum(), "b": e.sum()}

    collect = TaskGradients([table.weight], {"a": [head.weight]})
    for _ in range(2):
        sum(losses().values()).backward()
    want = [module.weight.grad.to_dense() for module in (table, head)]
    for module in (table, head):
        module.weight.grad = None
    sum(losses().values()).backward()
    collect.backward(losses(), Aggregator())
    for module, expected in zip((table, head), want):
        torch.testing.assert_close(module.weight.grad.to_dense(), expected)


def test_gradients_of_one_pass_are_not_shared_storage() -> None:
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    head = nn.Parameter(torch.ones(3))
    TaskGradients([a, b], {"x": [head]}).backward({"x": (a + b + head).sum()}, Aggregator())
    a.grad.zero_()
    assert bool(b.grad.all())
    assert bool(head.grad.all())
    keep = []
    TaskGradients([a, b]).backward([(a + b).sum()], lambda J: keep.append(J[0]) or J[0])
    a.grad.zero_()
    assert bool(keep[0].all())


def test_memory_of_the_rows_is_used_again_unless_somebody_holds_it() -> None:
    trunk, heads, _ = problem()
    collect = TaskGradients(trunk.parameters())
    x = torch.randn(6, 4, dtype=torch.float64)
    places: list[int] = []
    kept: list[Tensor] = []

    def step(keep: Any) -> Tensor:
        losses = [head(trunk(x)).square().mean() for head in heads.values()]

        def look(J: Tensor) -> Tensor:
            places.append(J.data_ptr())
            if keep is not None:
                kept.append(keep(J))
            return J.sum(0)

        collect.backward(losses, look, accumulate=False)
        return torch.cat([g.flatten() for g in grads(trunk)])

    want = step(None)
    torch.testing.assert_close(step(None), want)
    assert places[0] == places[1]
    for keep in (lambda J: J, lambda J: J[1, 3:], lambda J: J.flatten()):
        step(keep)
        before = kept[-1].clone()
        with torch.no_grad():
            x *= 2
        step(None)
        assert places[-1] != places[-2]
        assert torch.equal(kept[-1], before)
        kept.clear()
    J = collect.jacobian([trunk(x).sum()])
    before = J.clone()
    step(None)
    collect.jacobian([trunk(2 * x).sum()])
    assert torch.equal(J, before)
    step(None)
    collect.discard()
    assert collect._kept is None


@pytest.mark.parametrize("method", ["sequential", "vjp"])
def test_memory_that_is_used_again_holds_nothing_of_the_last_step(method: str) -> None:
    trunk, heads, losses = problem()
    collect = TaskGradients(trunk.parameters(), method=method)
    collect.backward(losses, Aggregator())
    z = trunk[0](torch.ones(1, 4, dtype=torch.float64))
    losses = {"a": z.sum(), "b": heads["b"].weight.sum() + 0 * z.sum(), "c": z.square().sum()}
    rows: list[Tensor] = []
    collect.backward(losses, lambda J: rows.append(J.clone()) or J.sum(0))
    want = torch.autograd.grad(trunk[0](torch.ones(1, 4).double()).sum(), trunk[0].weight)[0]
    torch.testing.assert_close(rows[0][0, :20], want.flatten())
    assert not rows[0][1].any()
    assert not rows[0][:, 25:].any(), "the last layer takes no part"
    collect.accumulate({"a": trunk(torch.ones(1, 4).double()).sum()}, tasks=["a", "b", "c"])
    assert not collect.pending[1:].any()
