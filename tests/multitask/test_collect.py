"""TaskGradients: rows equal separate backward passes, heads get their own, errors are clear."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradworks.multitask import SAMGS, Aggregator, TaskGradients


def problem(seed: int = 0) -> tuple[nn.Module, dict[str, nn.Module], dict[str, Tensor]]:
    g = torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    heads = {name: nn.Linear(3, 1).double() for name in ("a", "b", "c")}
    x = torch.randn(6, 4, dtype=torch.float64, generator=g)
    z = trunk(x)
    losses = {
        name: head(z).square().mean() * (i + 1) for i, (name, head) in enumerate(heads.items())
    }
    return trunk, heads, losses


def by_hand(trunk: nn.Module, losses: dict[str, Tensor]) -> Tensor:
    rows = [
        torch.autograd.grad(loss, list(trunk.parameters()), retain_graph=True)
        for loss in losses.values()
    ]
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])


@pytest.mark.parametrize("method", ["sequential", "vjp", "auto"])
def test_rows_are_separate_backward_passes(method: str) -> None:
    trunk, _, losses = problem()
    want = by_hand(trunk, losses)
    found = TaskGradients(trunk.parameters(), method=method).jacobian(losses)
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-15)
    trunk, _, losses = problem()
    collect = TaskGradients(trunk.parameters(), method=method)
    torch.testing.assert_close(collect.gramian(list(losses.values())), want @ want.T)


def test_a_sum_is_an_ordinary_backward_pass() -> None:
    trunk, heads, losses = problem()
    collect = TaskGradients(trunk.parameters(), {n: h.parameters() for n, h in heads.items()})
    for _ in range(2):  # twice: .grad adds up, as with loss.backward()
        trunk2, heads2, losses2 = problem()
        sum(losses2.values()).backward()
    stats = collect.backward(losses, Aggregator())
    modules = zip([trunk, *heads.values()], [trunk2, *heads2.values()])
    for ours, theirs in modules:
        for p, q in zip(ours.parameters(), theirs.parameters()):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=1e-15)
    assert stats.tasks == ("a", "b", "c")
    assert stats.unreached == ()
    before = [p.grad.clone() for p in trunk.parameters()]
    collect2 = TaskGradients(trunk.parameters())
    z = trunk(torch.ones(2, 4, dtype=torch.float64))
    collect2.backward([z.sum(), z.square().sum()], lambda J: J.sum(0) * 0)
    assert all(torch.equal(p.grad, b) for p, b in zip(trunk.parameters(), before))
    z = trunk(torch.ones(2, 4, dtype=torch.float64))
    collect2.backward([z.sum()], lambda J: J.sum(0) * 0, accumulate=False)
    assert all(not p.grad.any() for p in trunk.parameters())


def test_a_loss_that_misses_the_trunk_is_a_zero_row() -> None:
    trunk, heads, losses = problem()
    losses["c"] = heads["c"].weight.square().sum()
    collect = TaskGradients(trunk.parameters(), {"c": heads["c"].parameters()})
    stats = collect.backward(losses, SAMGS())
    assert stats.unreached == ("c",)
    assert float(stats.norms[2]) == 0
    torch.testing.assert_close(heads["c"].weight.grad, 2 * heads["c"].weight.detach())
    assert heads["c"].bias.grad is None


def test_errors() -> None:
    trunk, heads, losses = problem()
    params = list(trunk.parameters())
    head = list(heads["a"].parameters())
    meta = nn.Parameter(torch.ones(2, device="meta"))

    def make(shared: object = params, *args: object, **kwargs: object) -> TaskGradients:
        return TaskGradients(shared, *args, **kwargs)

    def run(losses: object, aggregator: object = None, **kwargs: object) -> object:
        return make(**kwargs).backward(losses, aggregator or Aggregator())

    table = [
        (lambda: make([]), ValueError, "no parameter"),
        (lambda: make([params[0], params[0]]), ValueError, r"\(5, 4\) occurs twice, in shared"),
        (lambda: make(params, {"a": params[:1]}), ValueError, "shared and head 'a'.*overlap"),
        (lambda: make(params, {"a": head, "b": head}), ValueError, "head 'a' and head 'b'"),
        (lambda: make(params, [head]), TypeError, "heads must map the name of each task"),
        (lambda: make(params[0]), TypeError, "must be a list of tensors"),
        (lambda: make([1.0]), TypeError, "must hold tensors, got float"),
        (lambda: make([params[0] * 2]), ValueError, "computed from others"),
        (lambda: make([nn.Parameter(torch.ones(2) * 1j)]), TypeError, "complex"),
        (lambda: make([params[0], meta]), ValueError, "several devices: cpu, meta"),
        (lambda: make(method="fast"), ValueError, "method must be one of auto, .* got 'fast'"),
        (lambda: make(method="features"), ValueError, "go together"),
        (lambda: make(features=trunk), ValueError, "go together"),
        (lambda: make(method="features", features=3), TypeError, "a module or a function"),
        (
            lambda: make(method="features", features=trunk, chunk_params=3),
            ValueError,
            "stores no Jacobian",
        ),
        (lambda: make(chunk_params=0), ValueError, "chunk_params must be at least 1, got 0"),
        (lambda: make(chunk_params=2.0), TypeError, "chunk_params must be an integer"),
        (lambda: make(dtype=torch.int64), ValueError, "dtype must be floating"),
        (lambda: make(scaler=1.0), TypeError, "must be a torch.amp.GradScaler"),
        (lambda: make(process_group=1), RuntimeError, "init_process_group first"),
        (lambda: make().jacobian([]), ValueError, "empty"),
        (lambda: make().jacobian(torch.ones(2)), TypeError, r"list\(losses\)"),
        (lambda: make().jacobian(1.0), TypeError, "list or a mapping"),
        (lambda: make().jacobian([torch.ones(2)]), ValueError, r"scalar, got shape \(2,\)"),
        (lambda: make().jacobian([torch.ones(())]), ValueError, "no graph"),
        (lambda: make().jacobian([1.0]), TypeError, "tensor"),
        (
            lambda: make().jacobian({1: losses["a"], "1": losses["b"]}),
            ValueError,
            "two losses are called '1'",
        ),
        (lambda: run({"z": losses["a"]}, heads={"a": head}), ValueError, r"\['a'\] have no loss"),
        (lambda: run([losses["a"]] * 2, heads={"a": head}), ValueError, "2 losses for 1 heads"),
        (lambda: run(losses, lambda J: J[0, :2]), RuntimeError, r"returned \(2,\), expected"),
        (lambda: run(problem()[2], lambda J: 3.0), RuntimeError, "float"),
        (lambda: run(losses, 3), TypeError, "aggregator must be callable"),
        (lambda: make().accumulate(losses, scale=float("nan")), ValueError, "scale must be finite"),
        (lambda: make().accumulate(losses, tasks="abc"), TypeError, "list of names"),
        (lambda: make().accumulate(losses, tasks=["a", "a"]), ValueError, "twice"),
        (lambda: make(chunk_params=4).accumulate(losses), ValueError, "leave features and chunk"),
        (
            lambda: make(method="features", features=lambda: 3).jacobian(losses),
            TypeError,
            "features must be a tensor",
        ),
        (
            lambda: make(method="features", features=lambda: torch.ones(2)).jacobian(losses),
            ValueError,
            "no graph",
        ),
        (
            lambda: make(method="features", features=nn.Linear(1, 1)).jacobian(losses),
            RuntimeError,
            "did not run",
        ),
        (lambda: Aggregator().bind([-1]), ValueError, "block_sizes"),
        (lambda: Aggregator().bind([1], 3), TypeError, "reduce must be a function"),
    ]
    for call, error, fragment in table:
        with pytest.raises(error, match=fragment):
            call()
    assert all(p.grad is None for p in params)


@pytest.mark.parametrize("method", ["sequential", "vjp"])
def test_a_graph_that_is_gone_is_explained(method: str) -> None:
    trunk, _, losses = problem()
    collect = TaskGradients(trunk.parameters(), method=method)
    collect.jacobian(losses, retain_graph=True)
    collect.jacobian(losses)
    for again in (collect.jacobian, collect.gramian, lambda v: collect.backward(v, SAMGS())):
        with pytest.raises(RuntimeError, match="freed; collect before any backward"):
            again(losses)


@pytest.mark.parametrize("method", ["sequential", "vjp"])
def test_heads_get_their_own_task_even_where_others_use_them(method: str) -> None:
    trunk, heads, losses = problem()
    losses["b"] = losses["b"] + heads["a"].weight.square().sum()
    want = torch.autograd.grad(losses["a"], heads["a"].weight, retain_graph=True)[0]
    named = {name: head.parameters() for name, head in heads.items()}
    collect = TaskGradients(trunk.parameters(), named, method=method)
    stats = collect.backward(list(losses.values()), Aggregator())  # a list takes their names
    assert stats.tasks == ("a", "b", "c")
    torch.testing.assert_close(heads["a"].weight.grad, want)
