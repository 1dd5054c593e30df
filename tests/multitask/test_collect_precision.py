"""The driver under a gradient scaler, in half precision, and with values that are not finite."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from tests.multitask.test_collect import problem
from tests.multitask.test_collect_ways import UnitRows, grads, heads_of
from torch import Tensor, nn

from gradworks.multitask import SAMGS, Aggregator, NonFiniteGradientError, TaskGradients

# mixed precision


def scaled(**arguments: Any) -> tuple[nn.Module, nn.Module, TaskGradients, Any, Any]:
    torch.manual_seed(0)
    trunk, head = nn.Linear(4, 3), nn.Linear(3, 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    collect = TaskGradients(
        trunk.parameters(), {"a": head.parameters()}, scaler=scaler, **arguments
    )
    optimizer = torch.optim.SGD([*trunk.parameters(), *head.parameters()], lr=0.1)
    return trunk, head, collect, scaler, optimizer


@pytest.mark.parametrize("way", ["rows", "blocks", "features", "micro-batches"])
def test_a_scaler_changes_nothing(way: str) -> None:
    x = torch.randn(8, 4)
    after = []
    for use in (False, True):
        kept: list[Tensor] = []
        arguments: dict[str, Any] = {"blocks": {"chunk_params": 4}}.get(way, {})
        if way == "features":
            arguments = {"method": "features", "features": lambda kept=kept: kept[-1]}
        trunk, head, collect, scaler, optimizer = scaled(**arguments)
        if not use:
            collect = TaskGradients(trunk.parameters(), {"a": head.parameters()}, **arguments)
        aggregator = UnitRows()  # not linear: it must see true lengths
        z = trunk(x)
        kept.append(z)
        losses = {"a": head(z).square().mean(), "b": 1e-3 * z.square().mean()}
        if way == "micro-batches":
            collect.accumulate(losses, tasks=["a", "b"])
            stats = collect.aggregate(aggregator)
        else:
            stats = collect.backward(losses, aggregator)
        if use:
            assert float(head.weight.grad.abs().sum()) > 100, "written scaled"
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        after.append(
            [stats.norms, *(p.detach().clone() for m in (trunk, head) for p in m.parameters())]
        )
    for a, b in zip(*after):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", ["rows", "blocks"])
def test_the_scaler_skips_what_is_not_finite(way: str) -> None:
    trunk, head, collect, scaler, optimizer = scaled(
        **({"chunk_params": 4} if way == "blocks" else {})
    )
    before = [p.detach().clone() for p in trunk.parameters()]
    aggregator = SAMGS()
    z = trunk(torch.randn(8, 4))
    stats = collect.backward({"a": head(z).mean(), "b": z.mean() * math.inf}, aggregator)
    assert stats.skipped
    assert stats.non_finite == ("b",)
    assert aggregator.exp_avg is None
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 512.0
    assert all(torch.equal(p, q) for p, q in zip(trunk.parameters(), before))
    plain = TaskGradients(trunk.parameters(), scaler=torch.amp.GradScaler("cpu", enabled=False))
    z = trunk(torch.randn(8, 4))
    with pytest.raises(NonFiniteGradientError, match="loss of task '1'"):
        plain.backward([z.mean(), z.mean() * math.inf], aggregator)


def test_autocast_and_half_precision_rows() -> None:
    trunk, head, _, _, _ = scaled()
    x = torch.randn(8, 4)
    collect = TaskGradients(trunk.parameters(), dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        z = trunk(x)
        losses = [head(z).float().square().mean(), z.float().square().mean()]
    assert collect.jacobian(losses, retain_graph=True).dtype == torch.bfloat16
    stats = collect.backward(losses, SAMGS())
    assert trunk.weight.grad.dtype == torch.float32
    assert stats.norms.dtype == torch.float32
    mixed = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.bfloat16))]
    assert TaskGradients(mixed).dtype == torch.float32


# what is not finite, and the rest


def test_a_gradient_that_is_not_finite_is_named_and_nothing_changes() -> None:
    trunk, heads, losses = problem()
    aggregator, collect = SAMGS(), TaskGradients(trunk.parameters(), heads_of(heads))
    collect.backward(losses, aggregator)
    kept = copy.deepcopy([g.clone() for g in grads(trunk, *heads.values())])
    state = copy.deepcopy(aggregator.state_dict())
    z = trunk(torch.randn(6, 4, dtype=torch.float64))
    losses = {n: head(z).square().mean() for n, head in heads.items()}
    losses["b"] = (z - z.detach()).sum().sqrt()  # 0, with an infinite slope
    with pytest.raises(NonFiniteGradientError, match="gradient of task 'b' is not") as caught:
        collect.backward(losses, aggregator)
    assert caught.value.tasks == (1,)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.tasks, again.names) == (str(caught.value), (1,), ("b",))
    for found, expected in zip(grads(trunk, *heads.values()), kept):
        assert torch.equal(found, expected)
    assert torch.equal(aggregator.exp_avg, state["exp_avg"])


def test_a_norm_that_overflows_is_no_error() -> None:
    trunk = nn.Linear(4, 3)
    z = trunk(torch.ones(2, 4))
    stats = TaskGradients(trunk.parameters()).backward([z.sum() * 1e30, z.sum()], Aggregator())
    assert not math.isfinite(float(stats.norms[0]))
    assert bool(torch.isfinite(trunk.weight.grad).all())


def test_half_precision_rows_in_blocks_and_with_a_scaler() -> None:
    class Half(SAMGS):
        def begin(self, norms: Tensor, params: int, like: Tensor) -> None:
            assert like.dtype == torch.float16
            super().begin(norms, params, like)

    a, b = torch.arange(1.0, 5.0), torch.arange(4.0, 0.0, -1.0)
    found = []
    for chunk in (None, 4):
        trunk = [nn.Parameter(torch.zeros(4)) for _ in range(2)]
        collect = TaskGradients(trunk, chunk_params=chunk, dtype=torch.float16)
        x, y = trunk
        # equal norms: before the clip the direction is beyond the largest float16
        collect.backward([300 * (x @ a + y @ b), 300 * (x @ b - y @ a)], Half(gamma=0.0))
        found.append(torch.cat([p.grad for p in trunk]))
    torch.testing.assert_close(found[1], found[0], rtol=2e-3, atol=0)
    param = nn.Parameter(torch.zeros(4))
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    collect = TaskGradients([param], dtype=torch.float16, scaler=scaler)
    collect.backward([(3 * param).sum(), param.sum()], Aggregator())
    torch.testing.assert_close(param.grad, torch.full((4,), 4 * 65536.0))
