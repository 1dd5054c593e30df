"""IterateAverage and direction: golden means, AveragedModel, swap with batch norm, resume."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from tests.optim.langevin_cases import gen
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from gradworks.optim import AdamP
from gradworks.optim.langevin import IterateAverage, Langevin, direction


def network(norm: bool = True) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.ReLU(),
            nn.Dropout(0.5), nn.Linear(8, 3),
        ).double()  # fmt: skip


def batches(sizes: tuple[int, ...] = (16, 16, 8)) -> list[tuple[Tensor, Tensor]]:
    g = gen(3)
    return [
        (torch.randn(n, 4, generator=g, dtype=torch.float64), torch.arange(n) % 3) for n in sizes
    ]


def fit(model: nn.Module, optimizer: Any, after: Any, steps: int = 6) -> None:
    for step in range(steps):
        x, y = batches()[step % 3]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        after(step)


# ---------------------------------------------------------------- oracles


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: AdamP(p, lr=0.01),
        lambda p: Langevin(p, 0.01, 0.1, manifold="euclidean", generator=gen(1)),
    ],
    ids=["SGD", "AdamP", "Langevin"],
)
def test_equals_the_equal_weight_average_of_torch(make: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)  # dropout
        model = network()
        peer = AveragedModel(model)
        average = IterateAverage(model)
        fit(model, make(model.parameters()), lambda _: (peer.update_parameters(model),
                                                        average.update()))  # fmt: skip
    assert average.count == 6
    for mean, theirs in zip(average.mean, peer.module.parameters(), strict=True):
        torch.testing.assert_close(mean, theirs.detach(), rtol=1e-12, atol=1e-13)


def test_means_and_second_moments_by_hand() -> None:
    theta = torch.zeros(2, 3, dtype=torch.float32)
    average = IterateAverage([theta], second_moment=True, burn_in=2, every=3)
    kept = []
    for number in range(1, 12):
        theta.copy_(torch.randn(2, 3, generator=gen(number)))
        average.update()
        if number > 2 and (number - 2 - 1) % 3 == 0:
            kept.append(theta.double().clone())
    assert average.count == len(kept) == 3  # numbers 3, 6, 9
    stack = torch.stack(kept)
    assert average.mean[0].dtype == torch.float64
    torch.testing.assert_close(average.mean[0], stack.mean(0))
    assert average.second_moment is not None
    outer = torch.einsum("tci,tcj->cij", stack, stack) / len(kept)
    torch.testing.assert_close(average.second_moment[0], outer)


def test_many_steps_of_float32_lose_nothing() -> None:
    """A float32 average would stop moving."""
    theta = torch.tensor([1.0, 2.0])
    average, rough = IterateAverage([theta]), IterateAverage([theta], dtype=torch.float32)
    for number in range(4000):
        theta[0] = 1.0 + (number % 2) * 1e-4
        average.update()
        rough.update()
    assert float(average.mean[0][0]) == pytest.approx(1.00005, abs=2e-8)
    assert rough.mean[0].dtype == torch.float32


def test_complex_parameters() -> None:
    theta = torch.zeros(2, dtype=torch.complex64)
    average = IterateAverage([theta], second_moment=True)
    for value in (1.0 + 2.0j, 3.0 - 1.0j):
        theta.fill_(value)
        average.update()
    assert average.mean[0].dtype == torch.complex128
    assert complex(average.mean[0][0]) == 2.0 + 0.5j
    assert average.second_moment is not None
    # theta theta^H: |1 + 2i|^2 and |3 - i|^2
    torch.testing.assert_close(
        average.second_moment[0], torch.full((2, 2), 7.5, dtype=torch.complex128)
    )


# ---------------------------------------------------------------- swap


def test_swap_puts_the_mean_in_and_the_weights_back() -> None:
    model = network(norm=False)
    average = IterateAverage(model.parameters(), dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fit(model, optimizer, lambda _: average.update())
    before = copy.deepcopy(model.state_dict())

    def inside() -> None:
        with average.swap():
            for p, mean in zip(model.parameters(), average.mean):
                assert torch.equal(p, mean.double())
            with pytest.raises(RuntimeError, match="average the average"):
                average.update()
            with pytest.raises(RuntimeError, match="already"), average.swap():
                pass
            raise KeyError  # the weights come back after an error too

    with pytest.raises(KeyError):
        inside()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    average.update()
    assert average.count == 7


@pytest.mark.parametrize("form", ["pairs", "tensors", "dicts"])
def test_swap_estimates_batch_norm_anew(form: str) -> None:
    data: Any = batches()
    if form == "tensors":
        data = [x for x, _ in data]
    elif form == "dicts":
        data = [{"input": x, "target": y} for x, y in data]
    model = network()
    average = IterateAverage(model)
    fit(model, torch.optim.SGD(model.parameters(), lr=0.3), lambda _: average.update())
    model.eval()
    model[4].train()  # a mode of its own survives
    before = copy.deepcopy(model.state_dict())
    norm = model[1]
    with average.swap(model, data):
        # exact statistics of all examples at once, under the mean weights
        hidden = model[0](torch.cat([x for x, _ in batches()]))
        torch.testing.assert_close(norm.running_mean, hidden.mean(0).detach())
        within = [model[0](x).var(0, unbiased=True).detach() * len(x) / 40 for x, _ in batches()]
        torch.testing.assert_close(norm.running_var, torch.stack(within).sum(0))
        assert not norm.training
        assert model[4].training
        assert norm.momentum == 0.1
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_batch_norm_of_equal_batches_is_that_of_torch() -> None:
    data = batches((12, 12))
    model = nn.Sequential(*list(network())[:2])  # no dropout: torch leaves it on
    average = IterateAverage(model)
    average.update()
    peer = copy.deepcopy(model)
    update_bn([x for x, _ in data], peer)
    with average.swap(model, data):
        torch.testing.assert_close(model[1].running_mean, peer[1].running_mean)
        torch.testing.assert_close(model[1].running_var, peer[1].running_var)
        assert int(model[1].num_batches_tracked) == 2


def test_swap_without_batch_norm_reads_no_data() -> None:
    model = network(norm=False)
    average = IterateAverage(model)
    average.update()
    with average.swap(model, iter([])):
        pass
    bad = network()
    average = IterateAverage(bad)
    average.update()
    before = copy.deepcopy(bad.state_dict())
    for data, error, fragment in (
        ([], ValueError, "data has no batch"),
        (["x"], TypeError, "a batch must be a tensor of inputs"),
    ):
        with pytest.raises(error, match=fragment), average.swap(bad, data):
            pass
        for name, value in bad.state_dict().items():
            assert torch.equal(value, before[name])
    average.update()  # the swap is over


# ---------------------------------------------------------------- state


def test_resume_is_bit_for_bit() -> None:
    whole = torch.randn(2, 3, generator=gen())
    averages = []
    for stop in (None, 4):
        theta = whole.clone()
        average = IterateAverage([theta], second_moment=True, burn_in=2, every=2)
        for number in range(9):
            if number == stop:
                buffer = io.BytesIO()
                torch.save(average.state_dict(), buffer)
                buffer.seek(0)
                average = IterateAverage([theta], second_moment=True)
                average.load_state_dict(torch.load(buffer, weights_only=True))
            theta.copy_(torch.randn(2, 3, generator=gen(number)))
            average.update()
        averages.append(average)
    one, two = averages
    assert (one.count, one.burn_in, one.every) == (two.count, two.burn_in, two.every) == (4, 2, 2)
    assert torch.equal(one.mean[0], two.mean[0])
    assert one.second_moment is not None
    assert two.second_moment is not None
    assert torch.equal(one.second_moment[0], two.second_moment[0])


def test_a_state_of_others_is_refused() -> None:
    state = IterateAverage([torch.zeros(3)]).state_dict()
    for other in (
        IterateAverage([torch.zeros(4)]),
        IterateAverage([torch.zeros(3)], second_moment=True),
        IterateAverage([torch.zeros(3), torch.zeros(3)]),
    ):
        with pytest.raises(ValueError, match="the state holds averages of shapes"):
            other.load_state_dict(state)
    # a second parameter's mean that has the shape of a second moment
    with pytest.raises(ValueError, match="the state holds averages of shapes"):
        IterateAverage([torch.zeros(3)], second_moment=True).load_state_dict(
            IterateAverage([torch.zeros(3), torch.zeros(3, 3)]).state_dict()
        )


# ---------------------------------------------------------------- direction


def test_directions_of_odd_and_even_orders() -> None:
    hidden = torch.nn.functional.normalize(torch.randn(3, 6, generator=gen()), dim=1).double()
    theta = torch.zeros(3, 6, dtype=torch.float64)
    odd = IterateAverage([torch.zeros(2), theta], second_moment=True)
    g = gen(2)
    for _ in range(400):
        noise = 0.1 * torch.randn(3, 6, generator=g, dtype=torch.float64)
        theta.copy_(hidden + noise)
        odd.update()
    found = direction(odd, 3, index=1)
    assert found.shape == (3, 6)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert float((found * hidden).sum(1).min()) > 0.999

    even = IterateAverage([theta], second_moment=True)
    for number in range(400):
        noise = 0.1 * torch.randn(3, 6, generator=g, dtype=torch.float64)
        theta.copy_((1 - 2 * (number % 2)) * hidden + noise)  # the sign flips: the mean is zero
        even.update()
    assert float(even.mean[0].norm(dim=1).max()) < 0.05
    found = direction(even, 4)
    assert float((found * hidden).sum(1).abs().min()) > 0.999
    largest = found.gather(1, found.abs().argmax(1, keepdim=True))
    assert bool((largest > 0).all())


# ---------------------------------------------------------------- errors

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"burn_in": -1}, ValueError, "burn_in must be at least 0, got -1"),
    ({"every": 0}, ValueError, "every must be at least 1, got 0"),
    ({"every": 1.5}, TypeError, "every must be an integer, got 1.5"),
    ({"dtype": torch.int64}, TypeError, "dtype must be a floating dtype"),
    ({"params": []}, ValueError, "params holds no parameter"),
    ({"params": torch.zeros(3)}, TypeError, "an iterable of tensors or a module"),
    ({"params": [1.0]}, TypeError, "params must hold tensors, got float"),
    ({"params": [torch.zeros(2).long()]}, TypeError, "params must be floating or complex"),
    ({"params": [torch.zeros(())], "second_moment": True}, ValueError, "not work for scalars"),
]


@pytest.mark.parametrize(("arguments", "error", "fragment"), BAD)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], fragment: str) -> None:
    with pytest.raises(error) as caught:
        IterateAverage(**{"params": [torch.zeros(3)], **arguments})
    assert fragment in str(caught.value)


def test_more_bad_input() -> None:
    theta = torch.ones(3)
    average = IterateAverage([theta], burn_in=5)
    average.update()
    for call in (lambda: direction(average, 3), lambda: average.swap().__enter__()):
        with pytest.raises(RuntimeError, match=r"no update is counted yet .*1 times, burn_in=5"):
            call()
    average = IterateAverage([theta])
    average.update()
    with pytest.raises(RuntimeError, match="order=4 is even"):
        direction(average, 4)
    with pytest.raises(ValueError, match="order must be at least 2, got 1"):
        direction(average, 1)
    with pytest.raises(TypeError, match="order must be an integer"):
        direction(average, 3.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="together or not at all"), average.swap(network()):
        pass
