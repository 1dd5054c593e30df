"""The loss on a line between two states."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.nets import f64, problem, vector
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from gradworks.curvature.spectrum import line_loss


def states(model: nn.Module) -> tuple[dict, dict]:
    start = copy.deepcopy(model.state_dict())
    end = {k: v + 0.5 * torch.ones_like(v) for k, v in start.items()}
    return start, end


def normed(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.3), nn.Linear(5, 3)
        ).double()


def test_transcription() -> None:
    model, loss_fn, (x, y) = problem(20)
    start, end = states(model)
    path = line_loss(model, start, end, loss_fn, [(x[:13], y[:13]), (x[13:], y[13:])], num_points=7)
    torch.testing.assert_close(path.t, torch.linspace(0, 1, 7).double())
    want = []
    for t in path.t.tolist():
        state = {k: (1 - t) * start[k] + t * end[k] for k in start}
        with torch.no_grad():
            want.append(loss_fn(functional_call(model, state, (x,)), y))
    loss = torch.stack(want)
    torch.testing.assert_close(path.loss, loss, rtol=1e-10, atol=1e-12)
    chord = (1 - path.t) * loss[0] + path.t * loss[-1]
    assert path.barrier == pytest.approx(float((loss - chord).max()))
    assert path.climb == pytest.approx(float(loss.max() - max(loss[0], loss[-1])))
    P = sum(p.numel() for p in model.parameters())
    assert path.distance == pytest.approx(0.5 * P**0.5)


def test_a_convex_loss_has_no_barrier() -> None:
    model = nn.Linear(3, 3).double()
    _, loss_fn, data = problem(20)
    for seed in range(5):
        start = {k: vector(v.numel(), seed).view(v.shape) for k, v in model.state_dict().items()}
        end = {k: vector(v.numel(), seed + 9).view(v.shape) for k, v in start.items()}
        path = line_loss(model, start, end, loss_fn, data)
        assert path.barrier <= 1e-12
        assert path.climb <= 1e-12
        assert len(path.t) == 25


def test_a_permuted_copy_lies_behind_a_barrier() -> None:
    # Two units swapped: equal losses at the ends, a worse network between them.
    model = nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1)).double()
    start = {
        "0.weight": f64([[1.0], [3.0]]),
        "0.bias": f64([2.0, -1.0]),
        "2.weight": f64([[1.0, -1.0]]),
        "2.bias": f64([0.0]),
    }
    end = {k: v.flip(1 if k == "2.weight" else 0) for k, v in start.items()}
    x = torch.linspace(-2, 2, 30, dtype=torch.float64)[:, None]
    y = functional_call(model, start, (x,))
    path = line_loss(model, start, end, F.mse_loss, (x, y.detach()))
    assert path.loss[0] == path.loss[-1] == 0
    assert path.climb == path.barrier > 0.05


def test_everything_is_as_it_was() -> None:
    model = normed()
    model.train()
    model[3].eval()
    _, loss_fn, data = problem(20)
    flags = [m.training for m in model.modules()]
    kept = copy.deepcopy(model.state_dict())
    momenta = model[1].momentum
    start, end = states(model)
    copies = copy.deepcopy(start), copy.deepcopy(end)
    torch.rand(2)
    rng = torch.get_rng_state()
    for mode in ("eval", "train", "keep"):
        for refresh in (False, True):
            options = {"mode": mode, "refresh_batch_norm": refresh, "num_points": 3}
            first = line_loss(model, start, end, loss_fn, data, **options)
            second = line_loss(model, start, end, loss_fn, data, **options)
            assert torch.equal(first.loss, second.loss)

    def fail(output: Tensor, target: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        line_loss(model, start, end, fail, data, refresh_batch_norm=True)
    assert [m.training for m in model.modules()] == flags
    assert model[1].momentum == momenta
    assert torch.equal(torch.get_rng_state(), rng)
    for state, want in ((model.state_dict(), kept), (start, copies[0]), (end, copies[1])):
        assert all(torch.equal(state[k], want[k]) for k in want)


def test_refreshed_batch_norm_is_that_of_the_data() -> None:
    model = normed()
    _, loss_fn, (x, y) = problem(24)
    start, end = copy.deepcopy(normed(1).state_dict()), copy.deepcopy(normed(2).state_dict())
    for state in (start, end):  # statistics of nothing
        state["1.running_mean"] += 5.0
        state["1.running_var"] *= 9.0
        state["1.num_batches_tracked"] += 3
    data = [(x[:12], y[:12]), (x[12:], y[12:])]
    path = line_loss(model, start, end, loss_fn, data, num_points=3, refresh_batch_norm=True)
    for point, t in enumerate((0.0, 0.5, 1.0)):
        middle = {
            k: torch.lerp(v, end[k], t) if v.is_floating_point() else v for k, v in start.items()
        }
        fresh = normed()
        fresh.load_state_dict(middle)
        fresh[1].momentum = None
        fresh[1].reset_running_stats()
        fresh.eval()
        fresh[1].train()
        with torch.no_grad():
            for xb, _ in data:
                fresh(xb)
            fresh.eval()
            want = loss_fn(fresh(x), y)
        torch.testing.assert_close(path.loss[point], want, rtol=1e-10, atol=1e-12)
    plain = line_loss(model, start, end, loss_fn, data, num_points=3)
    assert not torch.allclose(plain.loss, path.loss)
    other = line_loss(
        model,
        start,
        end,
        loss_fn,
        data,
        num_points=3,
        refresh_batch_norm=True,
        refresh_data=(x[:6], y[:6]),
    )
    assert not torch.allclose(other.loss, path.loss)


def test_integer_buffers_come_from_the_start() -> None:
    class Chooses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(3).double())
            self.register_buffer("index", torch.tensor(0))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.w[self.index]

    model = Chooses()
    start = {"w": f64([1.0, 0, 0]), "index": torch.tensor(0)}
    end = {"w": f64([2.0, 0, 9.0]), "index": torch.tensor(2)}
    x = torch.zeros(4, 1).double()
    path = line_loss(model, start, end, lambda o, t: o.mean(), (x, x), num_points=3)
    torch.testing.assert_close(path.loss, f64([1.0, 1.5, 2.0]))


def test_extra_state_is_no_point_on_the_line() -> None:
    class Noted(nn.Linear):
        def get_extra_state(self) -> dict:
            return {"note": 1}

        def set_extra_state(self, state: dict) -> None:
            pass

    model = Noted(1, 1)
    path = line_loss(
        model, *states_of_ones(model), F.mse_loss, (torch.ones(1, 1),) * 2, num_points=3
    )
    torch.testing.assert_close(path.loss, f64([1.0, 0.0, 1.0]))


def states_of_ones(model: nn.Module) -> tuple[dict, dict]:
    """Weight and bias zero, then one; what is no tensor stays."""
    start, end = model.state_dict(), model.state_dict()
    for key in ("weight", "bias"):
        start[key], end[key] = torch.zeros_like(start[key]), torch.ones_like(end[key])
    return start, end


def test_buffers_outside_the_state_are_left_alone() -> None:
    class Counting(nn.Linear):
        def __init__(self) -> None:
            super().__init__(1, 1)
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x)

    model = Counting()
    data = (torch.ones(1, 1),) * 2
    line_loss(model, *states_of_ones(model), F.mse_loss, data, num_points=2)
    assert float(model.calls) == 0


def test_tied_weights_and_any_metric() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3, bias=False)
            self.b = nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(x)))

    model = Tied().double()
    start = copy.deepcopy(model.state_dict())
    end = {k: -v for k, v in start.items()}
    _, _, (x, y) = problem(20)
    path = line_loss(
        model, start, end, lambda o, t: (o.argmax(1) != t).double().mean(), (x, y), num_points=3
    )
    assert path.loss.min() >= 0
    assert path.loss.max() <= 1
    assert path.distance == pytest.approx(2 * float(start["a.weight"].norm()))


def test_a_loader_and_progress() -> None:
    model, loss_fn, (x, y) = problem(23)
    start, end = states(model)
    loader = DataLoader(
        TensorDataset(x, y), batch_size=10, shuffle=True, generator=torch.Generator().manual_seed(1)
    )
    seen: list[tuple[int, int]] = []
    path = line_loss(
        model,
        start,
        end,
        loss_fn,
        loader,
        num_points=3,
        progress=lambda d, t: seen.append((d, t)),
    )
    whole = line_loss(model, start, end, loss_fn, (x, y), num_points=3)
    torch.testing.assert_close(path.loss, whole.loss)
    assert seen == [(1, 3), (2, 3), (3, 3)]


MODEL, LOSS, DATA = problem()
GOOD = dict(MODEL.state_dict())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_points": 1}, ValueError, "num_points must be an integer of at least 2, got 1"),
        ({"num_points": 2.5}, ValueError, "num_points"),
        ({"mode": "test"}, ValueError, "mode must be one of eval, train, keep"),
        ({"start": [1]}, TypeError, "start must be a state dict, got list"),
        ({"start": {}}, ValueError, r"missing \['0.weight', '0.bias', '2.weight'\]"),
        ({"end": {**GOOD, "extra": torch.ones(1)}}, ValueError, r"unknown \['extra'\]"),
        (
            {"end": {**GOOD, "2.bias": torch.ones(7)}},
            ValueError,
            r"end\['2.bias'\] must have shape",
        ),
        ({"end": {**GOOD, "2.bias": torch.full((3,), torch.nan)}}, ValueError, "not finite at t="),
        ({"data": []}, ValueError, "data is empty"),
        ({"data": iter([])}, TypeError, "one-shot"),
        ({"model": nn.ReLU(), "start": {}, "end": {}}, ValueError, "no parameter"),
    ],
)
def test_bad_input(changes: dict, error: type[Exception], message: str) -> None:
    wanted = {"model": MODEL, "start": GOOD, "end": GOOD, "loss_fn": LOSS, "data": DATA, **changes}
    with pytest.raises(error, match=message):
        line_loss(**wanted)
