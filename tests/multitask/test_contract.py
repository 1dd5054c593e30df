"""Every aggregator of the contract table, and those of torchjd behind the adapter."""

from __future__ import annotations

import copy
import io
import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.multitask.contract import CONTRACT, Line, jacobian
from torch import Tensor, nn

from gradworks.multitask import (
    ColumnAggregator,
    GramianAggregator,
    NonFiniteGradientError,
    TaskGradients,
    from_torchjd,
)

# cvxpy's note about Nash-MTL's problem as torchjd poses it
pytestmark = pytest.mark.filterwarnings("ignore:You are solving a parameterized:UserWarning")
lines = pytest.mark.parametrize("line", CONTRACT, ids=str)


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Skip a line whose packages are missing; draw the same in every test."""
    line = request.node.callspec.params.get("line") if hasattr(request.node, "callspec") else None
    if line is not None and line.missing:
        pytest.skip(f"needs {', '.join(line.missing)}")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def fresh(line: Line, J: Tensor) -> Tensor:
    """The direction of a fresh aggregator; a random one draws the same each time."""
    torch.manual_seed(1)
    found: Tensor = line.make()(J)
    return found


def parallel(a: Tensor, b: Tensor) -> float:
    """Cosine."""
    return float(a @ b / (a.norm() * b.norm()))


@lines
def test_shape_dtype_and_a_tensor_of_its_own(line: Line) -> None:
    J = jacobian(spread=1.5)
    want = fresh(line, J)
    for dtype, tolerance in ((torch.float64, 0), (torch.float32, 1e-3), (torch.bfloat16, 0.1)):
        torch.manual_seed(1)
        aggregator, rows = line.make(), J.to(dtype)
        found = aggregator(rows)
        assert found.shape == (7,)
        assert found.dtype == dtype
        assert not found.requires_grad
        error = (found.double() - want).norm() / want.norm()
        assert float(error) <= tolerance or (line.random and dtype != torch.float64)
        kept = [rows, *(t for t in aggregator.state_dict().values() if isinstance(t, Tensor))]
        assert found.untyped_storage().data_ptr() not in {
            t.untyped_storage().data_ptr() for t in kept
        }
    assert torch.equal(J, jacobian(spread=1.5)), "the Jacobian was changed"
    graph = J.clone().requires_grad_()
    assert not line.make()(graph).requires_grad


@lines
def test_order_of_tasks_and_columns(line: Line) -> None:
    J = jacobian(spread=2.0)
    if line.random:
        return
    want = fresh(line, J)
    columns = torch.randperm(7)
    torch.testing.assert_close(fresh(line, J[:, columns]), want[columns], rtol=1e-6, atol=1e-9)
    permuted = fresh(line, J[[2, 0, 1]])
    close = bool(torch.allclose(permuted, want, rtol=1e-3, atol=1e-6))
    assert close == line.permutes


@lines
def test_scale(line: Line) -> None:
    J = jacobian(spread=1.5)
    found, scaled = fresh(line, J), fresh(line, 1000 * J)
    if line.degree is not None:
        torch.testing.assert_close(scaled, 1000**line.degree * found, rtol=1e-2, atol=1e-4)
    else:
        assert bool(torch.isfinite(scaled).all())


@lines
def test_rows_that_agree(line: Line) -> None:
    row = jacobian()[0]
    equal = fresh(line, torch.stack([row] * 3))
    if line.parallel:
        assert parallel(equal, row) == pytest.approx(1, abs=1e-4)
    else:
        assert float(equal @ row) > 0
    orthogonal = torch.eye(3, 7, dtype=torch.float64) * torch.tensor([[1.0], [2.0], [3.0]])
    assert bool((orthogonal @ fresh(line, orthogonal) >= -1e-9).all())


@lines
def test_no_row_is_worse_off_where_claimed(line: Line) -> None:
    for seed in range(5):
        J = jacobian(seed=seed)
        inner = J @ fresh(line, J)
        if line.peaceful:
            assert float(inner.min()) >= -1e-2 * float(J.norm())
        assert bool(torch.isfinite(inner).all())


@lines
def test_special_rows(line: Line) -> None:
    J = jacobian()
    if not line.name.endswith("NashMTL"):  # made for a number of tasks
        one = fresh(line, J[:1])
        assert parallel(one, J[0]) == pytest.approx(1, abs=1e-6)
    opposite = torch.stack([J[0], -J[0], J[1]])
    assert bool(torch.isfinite(fresh(line, opposite)).all())
    if not line.survives:
        return
    J[1] = 0
    assert bool(torch.isfinite(fresh(line, J)).all())
    assert not fresh(line, torch.zeros(3, 7, dtype=torch.float64)).any()


@lines
def test_what_is_not_finite_is_refused(line: Line) -> None:
    if not line.ours:
        return
    aggregator = line.make()
    aggregator(jacobian())
    before = copy.deepcopy(aggregator.state_dict())
    for value in (math.nan, math.inf):
        J = jacobian()
        J[1, 3] = value
        with pytest.raises(NonFiniteGradientError) as caught:
            aggregator(J)
        assert caught.value.tasks == (1,)
        compare_states(aggregator.state_dict(), before)


@lines
def test_bad_matrices(line: Line) -> None:
    aggregator = line.make()
    for bad, error, fragment in (
        (torch.ones(3), ValueError, "2-D"),
        (torch.ones(0, 3), ValueError, "no task"),
        (torch.ones(3, 3, dtype=torch.int64), TypeError, "floating"),
        ([[1.0]], TypeError, "must be a tensor"),
    ):
        with pytest.raises(error, match=fragment):
            aggregator(bad)
    if line.ours:
        aggregator(jacobian())
        for J in (jacobian(tasks=4), jacobian(params=8)):
            with pytest.raises(ValueError, match=r"reset\(\)"):
                aggregator(J)
        aggregator.reset()
        aggregator(jacobian(tasks=4))


def compare_states(a: Any, b: Any) -> None:
    """States, bit for bit."""
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, dict):
            compare_states(value, b[key])
        elif isinstance(value, Tensor):
            assert torch.equal(value, b[key]), key
        else:
            assert str(value) == str(b[key]), key


@lines
def test_state_resumes_bit_for_bit(line: Line) -> None:
    steps = [jacobian(seed=k, spread=1.0 + 0.3 * k) for k in range(6)]
    whole = line.make()
    assert whole.reset() is None
    torch.manual_seed(3)
    for J in steps[:3]:
        whole(J)
    buffer = io.BytesIO()
    torch.save(whole.state_dict(), buffer)
    buffer.seek(0)
    resumed, copied, used = line.make(), copy.deepcopy(whole), line.make()
    used(steps[5])
    state = torch.load(buffer)
    for other in (resumed, used):
        other.load_state_dict(state)
    draws = torch.get_rng_state()
    want = [whole(J) for J in steps[3:]]
    for other in (resumed, copied, used):
        torch.set_rng_state(draws)
        for J, expected in zip(steps[3:], want):
            assert torch.equal(other(J), expected)
    whole.reset()
    fresh_one = line.make()
    draws = torch.get_rng_state()
    found = whole(steps[0])
    torch.set_rng_state(draws)
    assert torch.equal(fresh_one(steps[0]), found)
    if line.stateful:
        torch.set_rng_state(draws)
        first = line.make()
        changed = [not torch.equal(first(J), line.make()(J)) for J in steps]
        assert any(changed[1:]), "the table says stateful"


# of torchjd: those that need columns which other processes hold
WHOLE = ("torchjd.ConFIG", "torchjd.NashMTL", "torchjd.ExcessMTL")


class Exchange:
    """Sums over two threads that hold half of the columns each."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=20)
        self.slots: list[Tensor | None] = [None, None]

    def of(self, rank: int) -> Any:
        def reduce(tensor: Tensor) -> Tensor:
            self.slots[rank] = tensor.clone()
            self.barrier.wait()
            found = self.slots[0] + self.slots[1]
            self.barrier.wait()
            return found

        return reduce


@lines
def test_shards_of_columns_give_the_whole(line: Line) -> None:
    steps = [jacobian(params=9, seed=k, spread=1.0 + 0.4 * k) for k in range(3)]
    exchange = Exchange()
    aggregators = [line.make(), line.make()]
    whole = line.make()
    whole.bind([5, 4])
    if line.random:
        return
    sizes = ([5, 1], [0, 3])  # two parameter tensors, cut so that one shard lacks the first
    if line.name in WHOLE:
        with pytest.raises(ValueError, match="reads the whole Jacobian"):
            aggregators[0].bind(sizes[0], exchange.of(0))
        return
    for rank in range(2):
        aggregators[rank].bind(sizes[rank], exchange.of(rank))
    columns = (slice(0, 6), slice(6, 9))
    found: list[list[Tensor]] = [[], []]

    def run(rank: int) -> None:
        for J in steps:
            found[rank].append(aggregators[rank](J[:, columns[rank]]))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, J in enumerate(steps):
        torch.testing.assert_close(
            torch.cat([found[0][k], found[1][k]]), whole(J), rtol=1e-6, atol=1e-9
        )


def toy() -> tuple[nn.Module, dict[str, nn.Module], Any]:
    """A trunk, two heads and their losses, ten times apart."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
    heads = {"y": nn.Linear(8, 1), "w": nn.Linear(8, 1), "v": nn.Linear(8, 1)}
    x = torch.randn(32, 4)
    targets = {"y": x.sum(1, keepdim=True), "w": 3 * x[:, :1], "v": x[:, 1:2] - x[:, 2:3]}

    def losses() -> dict[str, Tensor]:
        z = trunk(x)
        return {n: (heads[n](z) - targets[n]).square().mean() for n in heads}

    return trunk, heads, losses


@lines
def test_training_lowers_all_losses(line: Line) -> None:
    trunk, heads, losses = toy()
    collect = TaskGradients(trunk.parameters(), {n: h.parameters() for n, h in heads.items()})
    params = [p for module in (trunk, *heads.values()) for p in module.parameters()]
    optimizer, aggregator = torch.optim.Adam(params, lr=2e-2), line.make()
    first = [float(v.detach()) for v in losses().values()]
    for _ in range(line.steps):
        optimizer.zero_grad()
        collect.backward(losses(), aggregator)
        optimizer.step()
    last = [float(v.detach()) for v in losses().values()]
    assert all(b < a for a, b in zip(first, last)), (first, last)


@lines
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_in_the_call_of_torchjd_and_in_ours(line: Line) -> None:
    autojac = pytest.importorskip("torchjd.autojac")
    trunk, heads, losses = toy()
    named = {n: h.parameters() for n, h in heads.items()}
    torch.manual_seed(1)
    TaskGradients(trunk.parameters(), named).backward(losses(), line.make())
    ours = [p.grad.clone() for p in trunk.parameters()]
    for param in trunk.parameters():
        param.grad = None
    torch.manual_seed(1)
    values = list(losses().values())
    autojac.backward(values, inputs=list(trunk.parameters()))
    autojac.jac_to_grad(trunk.parameters(), line.make())
    for param, expected in zip(trunk.parameters(), ours):
        torch.testing.assert_close(param.grad, expected, rtol=1e-3, atol=1e-5)


@lines
def test_blocks_of_parameters_give_the_whole(line: Line) -> None:
    trunk, heads, losses = toy()
    aggregators = [line.make(), line.make()]
    found = []
    suited = isinstance(aggregators[0], GramianAggregator | ColumnAggregator)
    for aggregator, chunk in zip(aggregators, (None, 9)):
        collect = TaskGradients(
            trunk.parameters(), {n: h.parameters() for n, h in heads.items()}, chunk_params=chunk
        )
        if chunk is not None and not suited:
            with pytest.raises(ValueError, match="needs the whole Jacobian"):
                collect.backward(losses(), aggregator)
            return
        torch.manual_seed(1)
        for _ in range(2):
            collect.backward(losses(), aggregator, accumulate=False)
        params = [p for module in (trunk, *heads.values()) for p in module.parameters()]
        found.append([p.grad.clone() for p in params])
        for param in params:
            param.grad = None
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_names_and_instances_of_torchjd() -> None:
    aggregation = pytest.importorskip("torchjd.aggregation")
    J = jacobian()
    want = aggregation.IMTLG()(J)
    for given in ("IMTLG", aggregation.IMTLG, aggregation.IMTLG(), aggregation.IMTLGWeighting()):
        torch.testing.assert_close(from_torchjd(given)(J), want)
    assert from_torchjd("IMTLG").needs == "gramian"
    assert from_torchjd("ConFIG").needs == "jacobian"
    assert "IMTLG" in repr(from_torchjd("IMTLG"))
    smooth = aggregation.CRMOGMWeighting(aggregation.MGDAWeighting(), alpha=0.5)
    assert from_torchjd(smooth).needs == "gramian"
    torch.testing.assert_close(
        from_torchjd("CRMOGM", weighting=aggregation.MGDAWeighting())(J),
        from_torchjd("MGDA")(J),
    )
    calls: list[int] = []
    watched = aggregation.MGDA()
    watched.gramian_weighting.register_forward_hook(lambda *_: calls.append(1))
    assert from_torchjd(watched).needs == "jacobian", "a user's hook must run"
    from_torchjd(watched)(J)
    assert calls == [1]
    for given, settings, error, fragment in (
        ("PcGrad", {}, ValueError, "must be one of .*NashMTL.*got 'PcGrad'"),
        (aggregation.MGDA(), {"max_iters": 3}, TypeError, "go with a name"),
        (nn.Linear(2, 2), {}, TypeError, "must be a name"),
        (3, {}, TypeError, "must be a name"),
        ("MoDo", {}, ValueError, "two independent batches"),
        ("SDMGrad", {}, ValueError, "two independent batches"),
    ):
        with pytest.raises(error, match=fragment):
            from_torchjd(given, **settings)


def test_every_name_of_torchjd_is_found() -> None:
    aggregation = pytest.importorskip("torchjd.aggregation")
    names = (
        "AlignedMTL CAGrad ConFIG Constant CRMOGM DualProj ExcessMTL FairGrad GradDrop GradVac "
        "IMTLG Krum Mean MGDA MoDo NashMTL PCD PCGrad Random SDMGrad Sum TrimmedMean UPGrad"
    )
    from gradworks.multitask.adapter import _named

    for name in names.split():
        assert _named(aggregation, name).__name__.removesuffix("Weighting") == name


def test_torchjd_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchjd", None)
    with pytest.raises(ImportError, match=r"pip install 'gradworks\[multitask\]'"):
        from_torchjd("PCGrad")
