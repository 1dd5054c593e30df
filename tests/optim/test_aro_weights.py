"""ARO on degenerate weights, AdamW's part, groups, shared rotations and checkpoints."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.optim.test_aro import drawn, orthogonal, run
from torch import nn

from gradworks.optim import ARO
from gradworks.optim.aro import rotation_update, transformer_groups
from gradworks.optim.aro.maps import rows_of
from gradworks.optim.aro.rotations import signed_qr

# ---------------------------------------------------------------- degenerate weights


def test_zero_gradients() -> None:
    """Nothing moves before the first gradient; afterwards momentum and decay go on."""
    w = drawn(3, 5)
    zero = torch.zeros_like(w)
    (got,), optimizer = run([w], [[zero], [zero]], lr=0.1)
    assert torch.equal(got, w)
    state = next(iter(optimizer.state.values()))
    assert torch.equal(state["rotation"], torch.eye(3, dtype=torch.float64))
    (moved,), _ = run([w], [[drawn(3, 5, seed=1)], [zero]], lr=0.1)
    assert not torch.equal(moved, w)


@pytest.mark.parametrize("foreach", [False, True])
def test_a_gradient_that_is_not_finite_is_passed_over(foreach: bool) -> None:
    params = [nn.Parameter(drawn(4, 6, seed=i)) for i in range(3)]
    optimizer = ARO(params, lr=0.1, foreach=foreach)
    for t in range(3):
        for i, p in enumerate(params):
            p.grad = drawn(4, 6, seed=t + 10 * i)
        if t == 1:
            params[1].grad[0, 0] = float("nan")
            kept = optimizer.state[params[1]]["momentum"].clone()
        optimizer.step()
        if t == 1:
            assert torch.equal(optimizer.state[params[1]]["momentum"], kept)
    for p in params:
        assert p.isfinite().all()
        assert all(value.isfinite().all() for value in optimizer.state[p].values())


def test_one_expert_that_is_not_finite_is_passed_over_alone() -> None:
    p = nn.Parameter(drawn(3, 4, 6))
    optimizer = ARO([p], lr=0.1, batch_dims=1)
    before = p.detach().clone()
    p.grad = drawn(3, 4, 6, seed=1)
    p.grad[1, 0, 0] = float("inf")
    optimizer.step()
    assert torch.equal(p[1], before[1])  # its momentum is still zero
    assert not torch.equal(p[0], before[0])
    assert optimizer.state[p]["momentum"].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_of_a_low_rank_is_not_blown_up(dtype: torch.dtype) -> None:
    """A momentum of rank 1 is stepped along itself alone."""
    u, v = drawn(8, 1, dtype=dtype), drawn(1, 20, dtype=dtype)
    grads = [[u @ v]] * 5
    (got,), _ = run([torch.zeros(8, 20, dtype=dtype)], grads, lr=1.0, weight_decay=0.0)
    values = torch.linalg.svdvals(got.double())
    assert values[1] < 1e-5 * values[0]


def test_many_dimensions_and_experts() -> None:
    """Experts are stepped as they would be alone; convolutions as (out, rest)."""
    stack = drawn(3, 4, 6)
    grads = [drawn(3, 4, 6, seed=t + 1) for t in range(4)]
    (got,), optimizer = run([stack], [[g] for g in grads], lr=0.1, batch_dims=1)
    for i in range(3):
        (want,), _ = run([stack[i]], [[g[i]] for g in grads], lr=0.1)
        torch.testing.assert_close(got[i], want)
    state = next(iter(optimizer.state.values()))
    assert state["momentum"].shape == (3, 4, 6)
    assert state["rotation"].shape == (3, 4, 4)
    conv = drawn(6, 3, 2, 2)
    grads = [drawn(6, 3, 2, 2, seed=t) for t in range(3)]
    (as_conv,), _ = run([conv], [[g] for g in grads], lr=0.1)
    (as_matrix,), _ = run([conv.flatten(1)], [[g.flatten(1)] for g in grads], lr=0.1)
    assert torch.equal(as_conv.flatten(1), as_matrix)


def test_rotation_every_is_the_same_counted_on_the_device() -> None:
    weights, grads = [drawn(4, 6)], [[drawn(4, 6, seed=t)] for t in range(7)]
    want, one = run(weights, grads, lr=0.1, rotation_every=3)
    got, _ = run(weights, grads, lr=0.1, rotation_every=3, capturable=True)
    torch.testing.assert_close(got, want)
    often, _ = run(weights, grads, lr=0.1)
    assert not torch.allclose(often[0], want[0])
    state = next(iter(one.state.values()))
    again, two = run(weights, grads[:-1], lr=0.1, rotation_every=3)
    before = next(iter(two.state.values()))["rotation"]
    assert not torch.equal(state["rotation"], before)  # step 7 turns the frame
    del again


# ---------------------------------------------------------------- AdamW's part and groups


def test_the_rest_is_adamw() -> None:
    vector, head = drawn(7), drawn(5, 4)
    mine = [nn.Parameter(vector.clone()), nn.Parameter(head.clone())]
    theirs = [nn.Parameter(vector.clone()), nn.Parameter(head.clone())]
    optimizer = ARO(
        [{"params": mine[:1]}, {"params": mine[1:], "algorithm": "adamw", "lr": 0.02}], lr=0.01
    )
    groups = [{"params": theirs[:1]}, {"params": theirs[1:], "lr": 0.02}]
    plain = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    for t in range(5):
        for p, q in zip(mine, theirs, strict=True):
            p.grad = drawn(*p.shape, seed=t)
            q.grad = p.grad.clone()
        optimizer.step()
        plain.step()
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p, q)
        assert set(optimizer.state[p]) == {"step", "exp_avg", "exp_avg_sq"}


class Block(nn.Module):
    """Attention of four heads, two of them for keys and values, and a gated network."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(d, d, bias=False), nn.Linear(d, d // 2, bias=False)
        self.c, self.d = nn.Linear(d, d // 2, bias=False), nn.Linear(d, d, bias=False)
        self.e, self.f = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.g = nn.LayerNorm(d)


def test_groups_of_a_transformer() -> None:
    d = 8
    model = nn.ModuleList([nn.Embedding(50, d), Block(d), Block(d), nn.Linear(d, 50, bias=False)])
    blocks: Any = [model[1], model[2]]
    groups = {g.get("orientation", "adamw"): g for g in transformer_groups(model, weight_decay=0.3)}
    found = {name: {id(p) for p in g["params"]} for name, g in groups.items()}
    assert all(g["weight_decay"] == 0.3 for g in groups.values())
    assert found["columns"] == {id(m.weight) for b in blocks for m in (b.a, b.e)}
    assert found["rows"] == {id(m.weight) for b in blocks for m in (b.d, b.f)}
    assert found["auto"] == {id(m.weight) for b in blocks for m in (b.b, b.c)}
    assert {id(model[0].weight), id(model[3].weight)} <= found["adamw"]
    assert sum(len(x) for x in found.values()) == len(list(model.parameters()))
    whole = {g.get("orientation", "adamw"): g for g in transformer_groups(model, full_model=True)}
    assert {id(model[0].weight), id(model[3].weight)} <= {id(p) for p in whole["columns"]["params"]}
    optimizer = ARO(list(groups.values()), rotation="scqr2")  # no weight is tall
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    assert {optimizer.state[b.e.weight]["rotation"].shape for b in blocks} == {(d, d)}
    model[3].weight = model[0].weight  # tied: counted once
    tied = transformer_groups(model)
    assert sum(len(g["params"]) for g in tied) == len(list(model.parameters()))


@pytest.mark.parametrize("foreach", [False, True])
def test_base_adam_by_its_formula(foreach: bool) -> None:
    """Second moments look ahead in the old frame, are kept in the new, and are never turned."""
    weights = [drawn(3, 5), drawn(3, 5, seed=1)]
    grads = [[drawn(3, 5, seed=10 * t + i) for i in range(2)] for t in range(4)]
    settings = {"lr": 0.1, "weight_decay": 0.0, "betas": (0.5, 0.8), "eps": 0.01}
    got, _ = run(weights, grads, base="adam", foreach=foreach, **settings)
    for i, want in enumerate(w.clone() for w in weights):
        R = torch.eye(3, dtype=torch.float64)
        M = V = torch.zeros(3, 5, dtype=torch.float64)
        for step in grads:
            M = 0.95 * M + 0.05 * step[i]
            ahead = 0.8 * V + 0.2 * (R.T @ M) ** 2
            R = signed_qr(M @ ((R.T @ M) / (ahead.sqrt() + 0.01)).T)
            V = 0.8 * V + 0.2 * (R.T @ M) ** 2
            D = R @ ((R.T @ M) / (V.sqrt() + 0.01))
            want.sub_(0.1 * 0.2 * D / D.square().mean().sqrt())
        torch.testing.assert_close(got[i], want)


def test_a_shared_rotation() -> None:
    """One frame from the stacked momenta; each weight mapped by itself; kept by checkpoints."""
    weights = [drawn(4, 6), drawn(4, 9), drawn(9, 4)]
    grads = [[drawn(*w.shape, seed=t + 7 * i) for i, w in enumerate(weights)] for t in range(4)]
    got, optimizer = run(weights, grads, lr=0.1, share_rotation=True, base="row")
    R = torch.eye(4, dtype=torch.float64)
    M = [torch.zeros(4, n, dtype=torch.float64) for n in (6, 9, 9)]
    want = [w.clone() for w in weights]
    for step in grads:
        oriented = [step[0], step[1], step[2].T]
        M = [0.95 * m + 0.05 * g for m, g in zip(M, oriented, strict=True)]
        R = rotation_update(torch.cat(M, 1), R, rows_of)
        for w, m in zip(want, M, strict=True):
            D = R @ rows_of(R.T @ m)
            D = D * 0.2 / D.square().mean().sqrt()
            w.mul_(1 - 0.1 * 0.1).sub_(0.1 * (D if w.shape[0] == 4 else D.T))
    torch.testing.assert_close(got, want)
    held = [s["rotation"] for s in optimizer.state.values()]
    assert held[0] is held[1] is held[2]
    torch.testing.assert_close(held[0], R)
    params = [nn.Parameter(w.clone()) for w in got]
    other = ARO(params, share_rotation=True)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    loaded = [other.state[p]["rotation"] for p in params]
    assert loaded[0] is loaded[1] is loaded[2]


def test_checkpoints_of_another_kind_are_refused() -> None:
    _, optimizer = run([drawn(3, 5)], [[drawn(3, 5)]])
    saved = optimizer.state_dict()
    for settings in ({"orientation": "columns"}, {"algorithm": "adamw"}, {"base": "adam"}):
        changed = copy.deepcopy(saved)
        changed["param_groups"][0].update(settings)
        with pytest.raises(ValueError, match="the checkpoint holds no"):
            ARO([nn.Parameter(drawn(3, 5))]).load_state_dict(changed)


def test_a_hook_may_load_another_checkpoint() -> None:
    """Rotations come from the state that is loaded, not from that which was given."""
    weights = [drawn(3, 5), drawn(3, 5, seed=1)]
    _, optimizer = run(weights, [[drawn(3, 5, seed=2), drawn(3, 5, seed=3)]])
    params = [nn.Parameter(w) for w in weights[::-1]]
    other = ARO(params)

    def turned_round(_: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {**given, "state": {0: given["state"][1], 1: given["state"][0]}}

    other.register_load_state_dict_pre_hook(turned_round)
    other.load_state_dict(optimizer.state_dict())
    wanted = [state["rotation"] for state in optimizer.state.values()]
    assert not torch.equal(*wanted)
    for param, want in zip(params, wanted[::-1], strict=True):
        assert torch.equal(other.state[param]["rotation"], want)


def test_sixteen_bits_keep_the_rotation_in_float32() -> None:
    half = nn.Parameter(drawn(6, 10).bfloat16())
    optimizer = ARO([half], lr=0.05, base="adam")
    for t in range(3):
        half.grad = drawn(6, 10, seed=t).bfloat16()
        optimizer.step()
    other = ARO([nn.Parameter(half.detach().clone())], base="adam")
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    state = next(iter(other.state.values()))
    for name in ("rotation", "second_moment"):
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], optimizer.state[half][name])


def test_a_function_as_base() -> None:
    weights, grads = [drawn(4, 24)], [[drawn(4, 24, seed=t)] for t in range(3)]
    want, _ = run(weights, grads, base="sign")
    got, _ = run(weights, grads, base=torch.sign)
    assert torch.equal(got[0], want[0])


def test_it_learns_faster_than_without_a_rotation() -> None:
    """A quadratic whose curvature is askew: the loss falls below that of the map alone."""
    H, target = orthogonal(8) * torch.logspace(0, -3, 8, dtype=torch.float64), drawn(8, 12)
    losses = {}
    for every in (1, 10**9):
        p = nn.Parameter(torch.zeros(8, 12, dtype=torch.float64))
        optimizer = ARO([p], lr=0.05, weight_decay=0.0, rotation_every=every)
        if every > 1:  # the frame stays the identity
            p.grad = torch.zeros_like(p)
            optimizer.step()
        for _ in range(150):
            optimizer.zero_grad()
            loss = (H.T @ (p - target)).square().sum()
            loss.backward()
            optimizer.step()
        losses[every] = float(loss.detach())
    assert losses[1] < losses[10**9]
