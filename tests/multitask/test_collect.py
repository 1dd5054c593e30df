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
    _, _, again = problem()
    collect2 = TaskGradients(trunk.parameters())
    z = trunk(torch.ones(2, 4, dtype=torch.float64))
    collect2.backward([z.sum(), z.square().sum()], lambda J: J.sum(0) * 0)
    assert all(torch.equal(p.grad, b) for p, b in zip(trunk.parameters(), before))
    z = trunk(torch.ones(2, 4, dtype=torch.float64))
    collect2.backward([z.sum()], lambda J: J.sum(0) * 0, accumulate=False)
    assert all(not p.grad.any() for p in trunk.parameters())
    del again


def test_training_lowers_both_losses() -> None:
    torch.manual_seed(0)
    trunk, a, b = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, 1)
    x = torch.randn(64, 4)
    y, w = x.sum(1, keepdim=True), 100 * x[:, :1]
    collect = TaskGradients(trunk.parameters(), {"y": a.parameters(), "w": b.parameters()})
    params = [*trunk.parameters(), *a.parameters(), *b.parameters()]
    opt, aggregator = torch.optim.Adam(params, lr=3e-2), SAMGS()
    history = []
    for _ in range(200):
        z = trunk(x).tanh()
        losses = {"y": (a(z) - y).square().mean(), "w": (b(z) - w).square().mean()}
        history.append([float(v.detach()) for v in losses.values()])
        opt.zero_grad()
        collect.backward(losses, aggregator)
        opt.step()
    assert history[-1][0] < 0.3 * history[0][0]
    assert history[-1][1] < history[0][1]


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
    table = [
        (lambda: TaskGradients([]), ValueError, "no parameter"),
        (lambda: TaskGradients([params[0], params[0]]), ValueError, "twice"),
        (lambda: TaskGradients(params, {"a": params[:1]}), ValueError, "overlap"),
        (lambda: TaskGradients(params, method="fast"), ValueError, "method"),
        (lambda: TaskGradients([1.0]), TypeError, "tensors"),
        (lambda: TaskGradients(params).jacobian([]), ValueError, "empty"),
        (lambda: TaskGradients(params).jacobian([torch.ones(2)]), ValueError, "scalar"),
        (lambda: TaskGradients(params).jacobian([torch.ones(())]), ValueError, "no graph"),
        (lambda: TaskGradients(params).jacobian([1.0]), TypeError, "tensor"),
        (
            lambda: TaskGradients(params, {"z": heads["a"].parameters()}).backward(losses, SAMGS()),
            ValueError,
            "no loss",
        ),
        (
            lambda: TaskGradients(params).backward(losses, lambda J: J[0, :2]),
            RuntimeError,
            "shape",
        ),
        (lambda: Aggregator().bind([-1]), ValueError, "block_sizes"),
    ]
    for call, error, fragment in table:
        with pytest.raises(error, match=fragment):
            call()
