"""AdamP: golden steps of the released code, transcription, limits, records, old checkpoints."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.optim import golden
from tests.optim.contract import gradient, parameters, set_gradients, train, values
from tests.optim.naive import Naive
from torch import Tensor, nn

from gradworks.optim import SGDP, AdamP
from gradworks.optim.adamp import LayerReport, adamp

PATHS = {"single": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}
slow = pytest.mark.slow


# ---------------------------------------------------------------- oracles


@pytest.mark.parametrize("case", golden.cases("AdamP"))
@pytest.mark.parametrize("path", ["single", "foreach", pytest.param("fused", marks=slow)])
def test_golden_steps_of_the_released_code(case: str, path: str) -> None:
    golden.follow(AdamP, case, **PATHS[path])


shapes = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)


@given(
    shapes=st.lists(shapes, min_size=1, max_size=4),
    seed=st.integers(0, 10_000),
    lr=st.floats(1e-4, 0.3),
    betas=st.tuples(st.floats(0.0, 0.99), st.floats(0.5, 0.9999)),
    weight_decay=st.sampled_from([0.0, 0.1]),
    delta=st.sampled_from([0.0, 0.1, 0.9, math.inf]),  # at 1 a row of one entry is a tie
    wd_ratio=st.floats(0.0, 1.0),
    nesterov=st.booleans(),
    eps=st.sampled_from([1e-8, 1e-3]),
    foreach=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_transcription(
    shapes: list[tuple[int, ...]],
    seed: int,
    betas: tuple[float, float],
    foreach: bool,
    **given_: Any,
) -> None:
    params = parameters(tuple(shapes), seed=seed)
    naive = [Naive(p.detach().clone(), **given_) for p in params]
    optimizer = AdamP(params, betas=betas, foreach=foreach, record_branches=True, **given_)
    for step in range(4):
        set_gradients(params, step, seed=seed)
        for one, param in zip(naive, params):
            one.adamp(param.grad.clone(), betas)
        optimizer.step()
    for i, (one, param) in enumerate(zip(naive, params)):
        torch.testing.assert_close(param.detach(), one.value, rtol=1e-9, atol=1e-11)
        assert int(optimizer.last_branch[f"0.{i}"]) == one.branches[-1]


@pytest.mark.parametrize("path", ["single", "foreach"])
def test_without_a_threshold_it_is_adamw(path: str) -> None:
    given_ = {"lr": 0.02, "betas": (0.8, 0.97), "eps": 1e-6, "weight_decay": 0.1}
    ours, theirs = parameters(), parameters()
    train(AdamP(ours, delta=0.0, **given_, **PATHS[path]), ours, range(8))
    train(torch.optim.AdamW(theirs, foreach=False, **given_), theirs, range(8))
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-12, atol=1e-14)


def test_wd_ratio_one_and_no_bound_projects_always_and_decays_fully() -> None:
    params = parameters(((4, 6),))
    before = params[0].detach().clone()
    optimizer = AdamP(params, lr=0.1, weight_decay=0.5, wd_ratio=1.0, delta=math.inf)
    params[0].grad = before.clone()  # as radial as can be
    optimizer.step()
    # u = sign(g) on the first step; its radial part is gone, the decay is whole
    u = before.sign()
    n = before / before.norm(dim=1, keepdim=True)
    want = before * (1 - 0.1 * 0.5) - 0.1 * (u - n * (n * u).sum(1, keepdim=True))
    torch.testing.assert_close(params[0].detach(), want, rtol=1e-6, atol=1e-6)


def test_one_step_by_hand() -> None:
    """w = (3, 4), g orthogonal: u = (-1, 1), n = w / 5, n.u = 1/5, u - n/5 = (-28, 21) / 25."""
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    optimizer = AdamP([weight], lr=1.0, weight_decay=0.5, eps=1e-16)
    weight.grad = torch.tensor([[-4.0, 3.0]], dtype=torch.float64)
    optimizer.step()
    want = torch.tensor([[3 * 0.95 + 28 / 25, 4 * 0.95 - 21 / 25]], dtype=torch.float64)
    torch.testing.assert_close(weight.detach(), want, rtol=1e-12, atol=0)


@pytest.mark.parametrize("path", ["single", "foreach", pytest.param("fused", marks=slow)])
def test_two_nesterov_steps_by_hand(path: str) -> None:
    """betas (1/2, 3/4), lr 1, decay 1/2, w = (3, 4); gradients (-4, 3), orthogonal, and (4, -3).

    Step 1: m = (-2, 1.5), D = (4, 3), u = (-3, 2.25) / D = (-3, 3) / 4, n.u = 3/20, so that
    u - n (n.u) = (-0.84, 0.63); decay a tenth of 1/2, size 2: w = (2.85 + 1.68, 3.8 - 1.26).
    Step 2: cosine 0.4, above 0.1 / sqrt 2; m = (1, -0.75), v = (7, 3.9375) = (16, 9) 7/16, D =
    (4, 3), u = (2.5, -1.875) / D = (5, -5) / 8; the decay is whole, the size 4/3.
    """
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    optimizer = AdamP(
        [weight], lr=1.0, betas=(0.5, 0.75), eps=1e-16, weight_decay=0.5, nesterov=True,
        **PATHS[path],
    )  # fmt: skip
    steps = (((-4, 3), (4.53, 2.54)), ((4, -3), (4.53 / 2 - 5 / 6, 2.54 / 2 + 5 / 6)))
    for grad, want in steps:
        weight.grad = torch.tensor([grad], dtype=torch.float64)
        optimizer.step()
        expected = torch.tensor([want], dtype=torch.float64)
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=0)


# ---------------------------------------------------------------- peers


def peer(module: str, name: str) -> Any:
    return getattr(pytest.importorskip(module, reason=f"peer {module} not installed"), name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("nesterov", [False, True])
def test_equals_the_authors_package(nesterov: bool) -> None:
    theirs_class = peer("adamp", "AdamP")
    given_ = {"lr": 0.02, "weight_decay": 0.1, "nesterov": nesterov}
    ours, theirs = (
        parameters(((6, 4), (3, 2, 3, 3), (7,))),
        parameters(((6, 4), (3, 2, 3, 3), (7,))),
    )
    train(AdamP(ours, **given_), ours, range(9))
    train(theirs_class(theirs, **given_), theirs, range(9))
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_near_pytorch_optimizer() -> None:
    """It scales eps by the second bias correction, so it agrees as far as eps does not matter."""
    theirs_class = peer("pytorch_optimizer", "AdamP")
    shapes = ((6, 4), (3, 2, 3, 3), (7,))
    for eps, tolerance in ((1e-14, 1e-9), (1e-8, 1e-3)):
        ours, theirs = parameters(shapes), parameters(shapes)
        given_ = {"lr": 0.02, "weight_decay": 0.1, "eps": eps}
        train(AdamP(ours, **given_), ours, range(9))
        train(theirs_class(theirs, **given_), theirs, range(9))
        for a, b in zip(ours, theirs):
            torch.testing.assert_close(a.detach(), b.detach(), rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- invariances


def test_scaling_the_weight_keeps_its_direction_of_step() -> None:
    small, large = parameters(((6, 4),)), parameters(((6, 4),))
    large[0].data.mul_(8.0)
    runs = [AdamP(p, lr=0.01, record_branches=True) for p in (small, large)]
    g = torch.Generator().manual_seed(0)
    before = [small[0].detach().clone(), large[0].detach().clone()]
    small[0].grad = gradient(small[0], 0, g)
    large[0].grad = small[0].grad / 8.0  # what a scale-invariant loss gives
    for optimizer in runs:
        optimizer.step()
    assert runs[0].last_branch == runs[1].last_branch == {"0.0": 1}
    steps = [p[0].detach() - b for p, b in zip((small, large), before)]
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("foreach", [False, True])
def test_permuting_rows_commutes(foreach: bool) -> None:
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    plain, permuted = parameters(((6, 4),)), parameters(((6, 4),))
    permuted[0].data.copy_(plain[0].data[order])
    runs = [AdamP(p, lr=0.1, weight_decay=0.1, foreach=foreach) for p in (plain, permuted)]
    for step in range(6):
        set_gradients(plain, step)
        permuted[0].grad = plain[0].grad[order]
        for optimizer in runs:
            optimizer.step()
    torch.testing.assert_close(plain[0].detach()[order], permuted[0].detach())


@pytest.mark.parametrize("path", ["single", "foreach", pytest.param("fused", marks=slow)])
def test_channel_dim_is_a_transposed_weight(path: str) -> None:
    shape = (4, 3, 2, 2)
    plain = parameters((shape,))
    turned = [nn.Parameter(plain[0].detach().transpose(0, 1).contiguous())]
    # (in, out, ...) of a transposed convolution: rows are slices of dimension 1
    runs = [
        AdamP(plain, lr=0.05, weight_decay=0.1, record_branches=True, **PATHS[path]),
        AdamP(
            turned, lr=0.05, weight_decay=0.1, channel_dim=1, record_branches=True, **PATHS[path]
        ),
    ]
    for step in range(8):
        set_gradients(plain, step)
        turned[0].grad = plain[0].grad.transpose(0, 1).contiguous()
        for optimizer in runs:
            optimizer.step()
        assert int(runs[0].last_branch["0.0"]) == int(runs[1].last_branch["0.0"])
    torch.testing.assert_close(
        turned[0].detach().transpose(0, 1), plain[0].detach(), rtol=1e-11, atol=1e-13
    )


def test_channel_dim_by_group_and_negative() -> None:
    one, two = parameters(((3, 4), (3, 4)))
    optimizer = AdamP(
        [{"params": [one]}, {"params": [two], "channel_dim": -1}], record_branches=True
    )
    weight = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    for param in (one, two):
        param.data = torch.cat([weight, weight[:1]])[:, [0, 1, 0, 1]].clone()
    # orthogonal within each column, not within the rows
    grad = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)[:, None].expand(3, 4).clone()
    one.grad, two.grad = grad.clone(), grad.clone()
    optimizer.step()
    assert optimizer.last_branch == {"0.0": 2, "1.0": 1}


# ---------------------------------------------------------------- special weights


@pytest.mark.parametrize("path", ["single", "foreach", pytest.param("fused", marks=slow)])
def test_zero_gradient_and_zero_weight(path: str) -> None:
    params = parameters(((6, 4), (6, 4)))
    params[1].data.zero_()
    before = values(params)
    optimizer = AdamP(params, lr=0.5, weight_decay=0.1, record_branches=True, **PATHS[path])
    params[0].grad = torch.zeros_like(params[0])
    params[1].grad = torch.ones_like(params[1])
    optimizer.step()
    assert {k: int(v) for k, v in optimizer.last_branch.items()} == {"0.0": 1, "0.1": 1}
    # cosine 0: channels, decayed by a tenth; the zero weight takes the whole Adam step
    torch.testing.assert_close(params[0].detach(), before[0] * (1 - 0.5 * 0.1 * 0.1))
    torch.testing.assert_close(params[1].detach(), torch.full((6, 4), -0.5, dtype=torch.float64))


@pytest.mark.parametrize("path", ["single", "foreach", pytest.param("fused", marks=slow)])
def test_a_cosine_on_the_threshold_does_not_project(path: str) -> None:
    """Rows (1, 0, 0, 0) and gradient (3, 4, 0, 0): cosine 0.6, K = 4, threshold delta / 2."""
    for delta, branch in ((1.2, 0), (math.nextafter(1.2, 2), 1)):
        weight = nn.Parameter(torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64))
        weight.grad = torch.tensor([[3.0, 4.0, 0, 0]], dtype=torch.float64)
        optimizer = AdamP([weight], delta=delta, record_branches=True, **PATHS[path])
        optimizer.step()
        assert int(optimizer.last_branch["0.0"]) == branch


@pytest.mark.parametrize("path", ["single", "foreach", pytest.param("fused", marks=slow)])
def test_a_layer_on_the_threshold_is_not_projected(path: str) -> None:
    """A row of cosine 1 fails its own test; the layer has cosine 0.6 and N = 4: delta / 2."""
    for delta, branch in ((1.2, 0), (math.nextafter(1.2, 2), 2)):
        weight = nn.Parameter(torch.tensor([[1.0, 0], [0, 0]], dtype=torch.float64))
        weight.grad = torch.tensor([[3.0, 0], [0, 4.0]], dtype=torch.float64)
        optimizer = AdamP([weight], delta=delta, record_branches=True, **PATHS[path])
        optimizer.step()
        assert int(optimizer.last_branch["0.0"]) == branch


@pytest.mark.parametrize("foreach", [False, True])
def test_one_row_that_fails_sends_the_weight_to_the_layer_test(foreach: bool) -> None:
    """A mask by row would be another optimizer: two radial rows that cancel are one layer."""
    weight = nn.Parameter(torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]], dtype=torch.float64))
    weight.grad = torch.tensor([[1.0, 0], [-1.0, 0], [1.0, 0]], dtype=torch.float64)
    before = weight.detach().clone()
    optimizer = AdamP([weight], lr=0.1, foreach=foreach, record_branches=True)
    optimizer.step()
    assert int(optimizer.last_branch["0.0"]) == 2
    u = weight.grad.sign()
    n = before / before.norm()
    torch.testing.assert_close(weight.detach(), before - 0.1 * (u - n * (n * u).sum()))


@pytest.mark.parametrize("foreach", [False, True])
def test_not_a_number_spreads_as_in_torch_and_is_not_projected(foreach: bool) -> None:
    params = parameters(((3, 4), (3, 4)))
    optimizer = AdamP(params, foreach=foreach, record_branches=True)
    for param in params:
        param.grad = torch.zeros_like(param)
    params[0].grad[1, 2] = math.nan
    optimizer.step()
    assert int(optimizer.last_branch["0.0"]) == 0
    assert params[0].isnan().sum() == 1
    assert params[1].isfinite().all()


def test_float64_ratio_is_not_rounded_to_float32() -> None:
    """Of two Python numbers `where` would make a float32: an error of 6e-8 in the decay."""
    for foreach in (False, True):
        params = parameters(((3, 4),))
        before = values(params)
        params[0].grad = torch.zeros_like(params[0])
        AdamP(params, lr=1.0, weight_decay=0.3, foreach=foreach).step()
        torch.testing.assert_close(params[0].detach(), before[0] * (1 - 0.03), rtol=1e-15, atol=0)


# ---------------------------------------------------------------- records, checkpoints


def test_report_by_name_and_by_place() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    optimizer = AdamP(model.named_parameters(), record_branches=True)
    assert optimizer.last_branch == {}
    assert optimizer.report() == []
    model(torch.ones(2, 4)).sum().backward()
    model[0].weight.grad = torch.zeros(3, 4)
    model[1].bias.grad = None
    optimizer.step()
    assert optimizer.report() == [
        LayerReport("0.weight", (3, 4), 1, "channels"),
        LayerReport("0.bias", (3,), -1, "exempt"),
        LayerReport("1.weight", (3,), -1, "exempt"),
    ]
    plain = AdamP(model.parameters(), foreach=True, record_branches=True)
    plain.step()
    assert [line.name for line in plain.report()] == ["0.0", "0.1", "0.2"]


def test_report_needs_the_record() -> None:
    optimizer = AdamP(parameters(((2, 2),)))
    train(optimizer, optimizer.param_groups[0]["params"], range(1))
    assert optimizer.last_branch == {}
    with pytest.raises(RuntimeError, match="record_branches=True"):
        optimizer.report()


def test_loads_checkpoints_of_the_released_code() -> None:
    """Their step is a Python number, their groups lack what is ours."""
    ours = parameters(((6, 4), (7,)))
    optimizer = AdamP(ours, lr=0.02, weight_decay=0.1)
    train(optimizer, ours, range(3))
    state = copy.deepcopy(optimizer.state_dict())
    for found in state["state"].values():
        found["step"] = int(found["step"])
    for group in state["param_groups"]:
        for name in ("foreach", "fused", "maximize", "capturable", "differentiable"):
            del group[name]
        del group["channel_dim"], group["record_branches"]
    other = [nn.Parameter(x) for x in values(ours)]
    loaded = AdamP(other, lr=0.5)
    loaded.load_state_dict(state)
    train(optimizer, ours, range(3, 6))
    train(loaded, other, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(ours, other))


def test_loads_checkpoints_of_adamw_and_of_a_step_in_the_group() -> None:
    theirs = parameters(((6, 4), (7,)))
    adamw = torch.optim.AdamW(theirs, lr=0.02, weight_decay=0.1, foreach=False)
    train(adamw, theirs, range(3))
    other = [nn.Parameter(x) for x in values(theirs)]
    loaded = AdamP(other, delta=0.0)
    loaded.load_state_dict(copy.deepcopy(adamw.state_dict()))
    assert loaded.param_groups[0]["delta"] == 0.0
    train(adamw, theirs, range(3, 6))
    train(loaded, other, range(3, 6))
    for a, b in zip(theirs, other):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)

    state = copy.deepcopy(loaded.state_dict())  # pytorch_optimizer counts in the group
    for found in state["state"].values():
        del found["step"]
    state["param_groups"][0]["step"] = 6
    loaded.load_state_dict(state)
    assert [float(s["step"]) for s in loaded.state.values()] == [6.0, 6.0]
    assert "step" not in loaded.param_groups[0]


@pytest.mark.parametrize("make", [AdamP, SGDP])
def test_conjugate_parameters_are_refused(make: Any) -> None:
    """They have no real view: steps would go into a copy, and the parameter would stay."""
    conjugate = nn.Parameter(torch.ones(2, 3, dtype=torch.complex64).conj())
    with pytest.raises(RuntimeError, match=r"shape \(2, 3\) is conjugated lazily.*resolve_conj"):
        make([conjugate], lr=0.1)
    make([nn.Parameter(conjugate.detach().resolve_conj())], lr=0.1)


def test_flat_parameters_are_refused() -> None:
    flat = nn.Parameter(torch.ones(24))
    flat._is_flat_param = True
    with pytest.raises(RuntimeError, match=r"flat parameter of FSDP1 \(shape \(24,\)\)"):
        AdamP([flat])


# ---------------------------------------------------------------- as functions


def test_functional_form() -> None:
    params = parameters(((6, 4), (7,)))
    others = [p.detach().clone() for p in params]
    grads = [torch.ones_like(p) for p in others]
    moments = [[torch.zeros_like(p) for p in others] for _ in range(2)]
    steps = [torch.zeros(()) for _ in others]
    branches = adamp(
        others, grads, *moments, steps, lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1,
        delta=0.1, wd_ratio=0.1, nesterov=True,
    )  # fmt: skip
    for param, grad in zip(params, grads):
        param.grad = grad
    AdamP(params, lr=0.1, betas=(0.9, 0.99), weight_decay=0.1, nesterov=True).step()
    assert all(torch.equal(a, b) for a, b in zip(params, others))
    assert branches == [0, -1]
    assert [float(s) for s in steps] == [1.0, 1.0]
    nothing = adamp(
        [], [], [], [], [], lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, delta=0.1,
        wd_ratio=0.1, nesterov=False, foreach=True,
    )  # fmt: skip
    assert nothing == []


def test_a_kernel_that_does_not_compile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradworks.optim import compiled

    def broken(*_: Any) -> None:
        raise OSError("no compiler")

    monkeypatch.setattr(compiled, "_ready", lambda *_: broken)
    params = parameters(((6, 4),))
    before = values(params)
    optimizer = AdamP(params, fused=True)
    params[0].grad = torch.ones_like(params[0])
    with pytest.raises(RuntimeError, match=r"fused=True compiles.*C\+\+ compiler.*Use fused=None"):
        optimizer.step()
    assert torch.equal(params[0], before[0])
    assert optimizer.state[params[0]]["step"] == 0


@pytest.mark.parametrize("make", [AdamP, SGDP])
def test_where_no_kernel_compiles_nothing_is_stepped(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short vectors need no kernel; stepped first, they would step again with fused=None."""
    from gradworks.optim import compiled

    def broken(*_: Any) -> None:
        raise OSError("no compiler")

    monkeypatch.setattr(compiled, "_ready", lambda *_: broken)
    params = parameters(((7,), (6, 4)))
    before = values(params)
    optimizer = make(params, lr=0.1, fused=True)
    set_gradients(params, 0)
    with pytest.raises(RuntimeError, match="Use fused=None"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(params, before))


def meta_gradient(make: Any) -> Tensor:
    """Of the weight after a step, to the weight before, whose second row is zero."""
    start = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    optimizer = make([start.detach().requires_grad_()], lr=0.1, differentiable=True)
    moved = start * 1.0
    optimizer.param_groups[0]["params"] = [moved]
    moved.grad = torch.tensor([[-4.0, 3.0], [1.0, 2.0]], dtype=torch.float64)
    optimizer.step()
    return torch.autograd.grad(moved.sum(), start)[0]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("make", [AdamP, SGDP])
def test_autograd_follows_the_step_of_a_zero_row(make: Any) -> None:
    found = meta_gradient(make)
    assert found.isfinite().all()
    assert torch.equal(found[1], torch.ones(2, dtype=torch.float64))


@slow
def test_one_compilation_serves_all_weights_of_a_kind() -> None:
    def step(*shapes: tuple[int, ...]) -> None:
        params = [nn.Parameter(torch.randn(shape)) for shape in shapes]
        for p in params:
            p.grad = torch.randn_like(p)
        AdamP(params, fused=True).step()

    step((300, 300), (40_000,))
    with torch.compiler.set_stance("fail_on_recompile"):
        step((256, 512), (512, 512), (64, 32, 5, 5), (70_000,))
