"""Data in every form that an operator takes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.nets import problem, vector
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from gradworks.curvature.operators import GGNOperator, HessianOperator

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.layer(a) * b


@pytest.mark.parametrize("kind", [HessianOperator, GGNOperator])
def test_inputs_as_tuple_list_and_dict(kind: type) -> None:
    torch.manual_seed(0)
    model = TwoInputs().double()
    x, y = problem(10)[2]
    b = x.flip(1)
    v = vector(12)
    want = kind(model, F.cross_entropy, ((x, b), y)) @ v
    for inputs in ([x, b], {"a": x, "b": b}):
        data = [(inputs, y)]
        torch.testing.assert_close(kind(model, F.cross_entropy, data) @ v, want, **CLOSE)
    # Cut through every tensor of the nest.
    for data in (((x, b), y), [({"a": x, "b": b}, y)]):
        op = kind(model, F.cross_entropy, data, microbatch_size=3)
        torch.testing.assert_close(op @ v, want, **CLOSE)


def test_a_loader_with_a_ragged_last_batch_and_shuffling() -> None:
    model, loss_fn, (x, y) = problem(23)
    v = vector(31)
    want = HessianOperator(model, loss_fn, (x, y)) @ v
    for shuffle in (False, True):
        loader = DataLoader(
            TensorDataset(x, y),
            batch_size=10,
            shuffle=shuffle,
            generator=torch.Generator().manual_seed(3),
        )
        state = loader.generator.get_state()
        op = HessianOperator(model, loss_fn, loader)
        torch.testing.assert_close(op @ v, want, **CLOSE)
        torch.testing.assert_close(
            HessianOperator(model, loss_fn, loader, cache="never") @ v, want, **CLOSE
        )
        assert torch.equal(loader.generator.get_state(), state)


def test_a_ragged_last_batch_is_weighted_by_its_size() -> None:
    # The mean of batch means would give the last example ten times its weight.
    model, loss_fn, (x, y) = problem(11)
    batches = [(x[:10], y[:10]), (x[10:], y[10:])]
    v = vector(31)
    want = HessianOperator(model, loss_fn, (x, y)) @ v
    torch.testing.assert_close(HessianOperator(model, loss_fn, batches) @ v, want, **CLOSE)
    parts = [HessianOperator(model, loss_fn, b) @ v for b in batches]
    assert not torch.allclose((parts[0] + parts[1]) / 2, want)


def test_two_batches_of_pairs_are_two_batches() -> None:
    model, loss_fn, (x, y) = problem(12)
    v = vector(31)
    want = HessianOperator(model, loss_fn, (x, y)) @ v
    as_tuple = ((x[:5], y[:5]), (x[5:], y[5:]))
    torch.testing.assert_close(HessianOperator(model, loss_fn, as_tuple) @ v, want, **CLOSE)


class Sequence:
    """``__getitem__`` alone."""

    def __init__(self, pairs: list) -> None:
        self.pairs = pairs

    def __getitem__(self, i: int) -> tuple:
        return self.pairs[i]


def test_old_style_sequences_and_targets_without_tensors() -> None:
    model, loss_fn, (x, y) = problem(12)
    v = vector(31)
    want = HessianOperator(model, loss_fn, (x, y)) @ v
    data = Sequence([(x[:5], y[:5]), (x[5:], y[5:])])
    torch.testing.assert_close(HessianOperator(model, loss_fn, data) @ v, want, **CLOSE)
    unsupervised = HessianOperator(model, lambda o, t: o.square().mean() * t, (x, 2.0))
    twice = HessianOperator(model, lambda o, t: o.square().mean(), (x, None))
    torch.testing.assert_close(unsupervised @ v, 2 * (twice @ v), **CLOSE)


class Shrinking(IterableDataset):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y, self.passes = x, y, 0

    def __iter__(self) -> object:
        self.passes += 1
        return iter([(self.x[self.passes :], self.y[self.passes :])])


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([(torch.ones(2, 3).double(),)], TypeError, "pair, got tuple of length 1"),
        ([torch.ones(2, 3)], TypeError, "pair, got Tensor"),
        ((torch.ones(0, 3).double(), torch.ones(0).long()), ValueError, "no example in batch 0"),
        ((torch.tensor(1.0), torch.tensor(1)), ValueError, "no tensor with a batch dimension"),
        (
            [(torch.ones(2, 3, device="meta"), torch.ones(2).long())],
            ValueError,
            "batch 0 of data is on meta",
        ),
    ],
)
def test_bad_batches(data: object, error: type[Exception], message: str) -> None:
    model, loss_fn, _ = problem()
    with pytest.raises(error, match=message):
        HessianOperator(model, loss_fn, data) @ vector(31)


def test_data_that_change_between_passes_are_refused() -> None:
    model, loss_fn, (x, y) = problem()
    op = HessianOperator(model, loss_fn, Shrinking(x, y), cache="never")
    op.loss()
    with pytest.raises(RuntimeError, match="data has changed: 10 examples in this pass, 11 before"):
        op.loss()


def test_an_empty_iterable_without_a_length() -> None:
    class Nothing:
        def __iter__(self) -> object:
            return iter([])

    model, loss_fn, _ = problem()
    with pytest.raises(ValueError, match="data is empty"):
        HessianOperator(model, loss_fn, Nothing()).loss()
