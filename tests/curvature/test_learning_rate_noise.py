"""Measured noise: against Hessians written down, all forms of data, nothing changed."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.nets import dense_hessian, problem, vector
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gradworks.curvature import learning_rate as lr
from gradworks.curvature.learning_rate import NoiseModel, NoiseRow, measure_noise
from gradworks.curvature.learning_rate.examples import Examples

CPU = torch.device("cpu")


def regression(n: int = 600, d: int = 20, seed: int = 0) -> tuple[nn.Module, Any, Any]:
    """The Hessian of a batch is twice the second moment of its inputs."""
    X = vector(n * d, seed).reshape(n, d)
    X[:, 0] *= 2
    return nn.Linear(d, 1, bias=False).double(), F.mse_loss, (X, X.sum(1, keepdim=True))


@pytest.fixture(scope="module")
def measured() -> NoiseModel:
    return measure_noise(*regression())


def test_the_ends_over_all_data_are_those_of_the_dense_hessian(measured: NoiseModel) -> None:
    X = regression()[2][0]
    values = torch.linalg.eigvalsh(2 * X.T @ X / len(X))
    assert measured.lambda_max == pytest.approx(float(values[-1]), rel=1e-9)
    assert measured.lambda_min == pytest.approx(float(values[0]), rel=1e-6)
    assert measured.dataset_size == 600


def test_the_table_holds_the_extremes_of_batches(measured: NoiseModel) -> None:
    assert [row.batch_size for row in measured.table] == [8, 32, 128]
    assert all(len(row.tops) == len(row.bottoms) == 8 for row in measured.table)
    tops = [row.top for row in measured.table]
    assert tops == sorted(tops, reverse=True)  # less noise in larger batches
    assert tops[-1] > measured.lambda_max
    bottoms = [row.bottom for row in measured.table]
    assert bottoms[-1] < measured.lambda_min
    row = measured.table[0]
    assert row.top_stderr == pytest.approx(torch.tensor(row.tops).std().item() / 8**0.5, rel=1e-5)
    assert measured.noise == lr.fit_noise(
        [8, 32, 128], tops, measured.lambda_max, measured.dataset_size
    )


def test_the_direct_estimate_is_the_variance_of_the_hessian() -> None:
    """For Gaussian inputs E|(H_1 - H_2) z|^2 is known: 4 var(x_i x_j) summed, over B."""
    d, B = 12, 16
    g = torch.Generator().manual_seed(5)
    X = torch.randn(4000, d, generator=g, dtype=torch.float64)
    data = (X, X.sum(1, keepdim=True))
    model = nn.Linear(d, 1, bias=False).double()
    found = measure_noise(
        model, F.mse_loss, data, batch_sizes=(B,), repeats=400, num_steps=5, method="direct"
    )
    # var(2 x_i x_j) is 4, on the diagonal 8: P sigma^2 is their sum over P.
    want = (4 * d * (d - 1) + 8 * d) / d
    assert found.noise == pytest.approx(want, rel=0.1)
    assert found.noise == found.noise_direct
    assert found.noise_fit is None
    assert found.table[0].tops == ()


def test_halves_of_the_data_are_not_independent_and_the_estimate_knows() -> None:
    """At 2 B = N the effective size is infinite twice over: B, not b, is unbiased."""
    X = vector(20 * 3, 1).reshape(20, 3)
    H = torch.einsum("ni,nj->nij", X, X) * 2
    sigma = H.var(0).sum() / 3  # P sigma^2 with the unbiased variance of one example
    model = nn.Linear(3, 1, bias=False).double()
    found = measure_noise(
        model,
        F.mse_loss,
        (X, X[:, :1]),
        batch_sizes=(10,),
        repeats=600,
        num_steps=1,
        method="direct",
    )
    assert found.noise == pytest.approx(float(sigma), rel=0.1)


def test_the_fit_predicts_sizes_that_it_has_not_seen() -> None:
    """Isotropic noise by construction: a spiked Gaussian design, P and B comparable."""
    model, loss_fn, data = regression(4000, 40)
    found = measure_noise(model, loss_fn, data, batch_sizes=(64, 256, 1024))
    again = measure_noise(model, loss_fn, data, batch_sizes=(128, 512))
    for row in again.table:
        law = found.batch_extreme_eigenvalue(row.batch_size)
        assert abs(math.log(law / row.top)) < 0.15
        assert abs(math.log(law / row.top)) < abs(math.log(found.lambda_max / row.top))


def test_a_part_stands_in_for_all_data() -> None:
    model, loss_fn, data = regression(2000, 20)
    whole = measure_noise(model, loss_fn, data)
    part = measure_noise(model, loss_fn, data, full_size=400)
    assert part.dataset_size == 2000
    assert part.lambda_max == pytest.approx(whole.lambda_max, rel=0.2)
    assert part.noise == pytest.approx(whole.noise, rel=0.5)


def test_progress_ends_at_the_total() -> None:
    seen: list[tuple[int, int]] = []
    measure_noise(
        *regression(100, 4),
        batch_sizes=(8, 64),
        repeats=2,
        num_steps=3,
        progress=lambda *now: seen.append(now),
    )
    assert seen[-1] == (5 * 3 + 2 * 2, 5 * 3 + 2 * 2)  # 64 has no disjoint partner
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_same_seed_gives_the_same_numbers() -> None:
    model, loss_fn, data = regression(200, 5)

    def run(seed: int) -> NoiseModel:
        g = torch.Generator().manual_seed(seed)
        return measure_noise(model, loss_fn, data, repeats=2, num_steps=4, generator=g)

    assert run(1) == run(1)
    assert run(1).noise != run(2).noise


# ---------------------------------------------------------------- forms of data


class Words(nn.Module):
    """Takes its inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3).double()

    def forward(self, *, x: Tensor, scale: float) -> Tensor:
        return self.layer(x) * scale


def forms() -> dict[str, Any]:
    _, _, (x, y) = problem(60)
    batches = [(x[:25], y[:25]), (x[25:50], y[25:50]), (x[50:], y[50:])]
    dataset = TensorDataset(x, y)
    return {
        "pair": (x, y),
        "batches": batches,
        "loader": DataLoader(dataset, batch_size=7),
        "shuffled": DataLoader(dataset, batch_size=7, shuffle=True),
        "dataset": dataset,
    }


@pytest.mark.parametrize("name", forms())
def test_every_form_of_data_gives_the_same_curvature(name: str) -> None:
    model, loss_fn, data = problem(60)
    want = torch.linalg.eigvalsh(dense_hessian(model, loss_fn, data))
    found = measure_noise(model, loss_fn, forms()[name], batch_sizes=(8, 30), repeats=2)
    assert found.dataset_size == 60
    assert found.lambda_max == pytest.approx(float(want[-1]), rel=1e-8)
    # the batches are drawn alike, whatever they are drawn from
    whole = measure_noise(model, loss_fn, data, batch_sizes=(8, 30), repeats=2)
    assert found.noise == pytest.approx(whole.noise, rel=1e-6)


def test_inputs_by_name_are_drawn_by_row() -> None:
    _, _, (x, y) = problem(40)
    batches = [({"x": x[:30], "scale": 2.0}, y[:30]), ({"x": x[30:], "scale": 2.0}, y[30:])]
    found = measure_noise(Words(), F.cross_entropy, batches, batch_sizes=(4, 10), repeats=1)
    assert found.lambda_max > 0
    inputs, targets = Examples(batches, device=CPU).take(torch.tensor([35, 2, 30]))
    torch.testing.assert_close(inputs["x"], x[[2, 35, 30]])
    assert inputs["scale"] == 2.0
    assert targets.tolist() == y[[2, 35, 30]].tolist()


class Named(NamedTuple):
    """Inputs with names, by place."""

    x: Tensor
    mask: Tensor


def test_named_tuples_stay_what_they_are() -> None:
    x, y = vector(12, 1).reshape(6, 2), torch.arange(6)
    batches = [(Named(x[:4], x[:4] > 0), y[:4]), (Named(x[4:], x[4:] > 0), y[4:])]
    for index in ([1, 3], [1, 5]):
        inputs, targets = Examples(batches, device=CPU).take(torch.tensor(index))
        assert isinstance(inputs, Named)
        assert torch.equal(inputs.x, x[index])
        assert torch.equal(inputs.mask, x[index] > 0)
        assert targets.tolist() == index


def test_a_sampler_that_leaves_some_out_is_respected() -> None:
    _, _, (x, y) = problem(60)
    sampler = torch.utils.data.SubsetRandomSampler(range(20))
    loader = DataLoader(TensorDataset(x, y), batch_size=8, sampler=sampler)
    assert len(Examples(loader, device=CPU)) == 20


def test_ragged_batches_that_do_not_fit_say_so() -> None:
    batches = [(torch.ones(2, 3), torch.ones(2)), (torch.ones(2, 4), torch.ones(2))]
    with pytest.raises(ValueError, match="do not fit into one"):
        Examples(batches, device=CPU).take(torch.arange(4))


# ---------------------------------------------------------------- nothing is changed


@pytest.mark.parametrize("indexed", [True, False])
def test_model_and_random_state_are_as_they_were(indexed: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))
    model = model.double().train()
    model[1].eval()
    model[0].weight.grad = torch.full_like(model[0].weight, 7.0)
    _, _, (x, y) = problem(40)
    sampler = None if indexed else torch.utils.data.SubsetRandomSampler(range(40))
    loader = DataLoader(TensorDataset(x, y), batch_size=9, shuffle=indexed, sampler=sampler)
    flags = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    torch.rand(2)
    random = torch.get_rng_state()
    measure_noise(model, F.cross_entropy, loader, batch_sizes=(4, 8), repeats=1, num_steps=3)
    with pytest.raises(FloatingPointError):
        measure_noise(model, F.cross_entropy, (x * math.nan, y), batch_sizes=(4, 8))
    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert bool((model[0].weight.grad == 7).all())


# ---------------------------------------------------------------- what follows

MODEL = NoiseModel(4.0, -0.1, 200.0, (NoiseRow(8, (10.0, 11.0), (-1.0, -2.0)),), 1000, 20.0)


def test_rates_by_hand() -> None:
    endless = NoiseModel(4.0, -0.1, 200.0, [], None)
    assert endless.max_learning_rate(8) == 0.5 * 2 / 10
    assert endless.max_learning_rate(8, momentum=0.5, safety=1.0) == 3 / 10
    assert endless.saturation_batch() == endless.critical_batch() == 12.5
    assert endless.saturation_batch(0.1) == pytest.approx(125)
    assert endless.batch_extreme_eigenvalue(125) == pytest.approx(4.4)
    assert MODEL.critical_batch() == pytest.approx(1 / (16 / 200 + 1 / 1000))
    at = MODEL.critical_batch()
    assert lr.eigenvector_overlap(4.0, 200.0, at * 0.999, 1000) == 0
    assert lr.eigenvector_overlap(4.0, 200.0, at * 1.001, 1000) > 0
    assert MODEL.max_learning_rate(1000) == 0.5 * 2 / 4.0
    assert NoiseModel(4.0, 0.0, 0.0).critical_batch() == 0.0


def test_the_band_holds_the_rate() -> None:
    low, high = MODEL.learning_rate_interval(16)
    assert low < MODEL.max_learning_rate(16) < high
    assert low == NoiseModel(4.0, 0, 240.0, [], 1000).max_learning_rate(16)
    assert all(map(math.isnan, NoiseModel(4.0, 0, 1.0).learning_rate_interval(16)))


@pytest.mark.slow
def test_the_jackknife_is_the_spread_over_repetitions() -> None:
    model, loss_fn, data = regression(600, 10)
    found = [
        measure_noise(
            model, loss_fn, data, num_steps=10, generator=torch.Generator().manual_seed(s)
        )
        for s in range(6)
    ]
    spread = torch.tensor([m.noise for m in found]).std().item()
    stated = sum(m.noise_stderr for m in found) / len(found)
    assert 0.4 < stated / spread < 2.5
    one = measure_noise(model, loss_fn, data, repeats=1)
    assert math.isnan(one.noise_stderr)


def test_the_document_is_plain() -> None:
    document = MODEL.to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["table"][0]["law"] == MODEL.batch_extreme_eigenvalue(8)


def test_the_picture_has_curve_band_points_and_saturation() -> None:
    axes = MODEL.plot()
    labels = axes.get_legend_handles_labels()[1]
    assert len(labels) == 4
    x, y = axes.lines[0].get_data()
    assert (x[0], x[-1]) == (1.0, 1000.0)
    assert y[-1] == pytest.approx(MODEL.max_learning_rate(1000))
    assert axes.lines[1].get_data()[1][0] == pytest.approx(1 / 10.5)
    assert MODEL.plot(axes) is axes


# ---------------------------------------------------------------- bad input

SMALL = problem(20)
LINEAR = nn.Linear(3, 3).double()
ZERO = nn.Linear(3, 3).double().requires_grad_(False)


def bowl(output: Tensor, target: Tensor) -> Tensor:
    """Curved downwards everywhere."""
    return -(output**2).mean()


@pytest.mark.parametrize(
    ("options", "kind", "fragment"),
    [
        ({"method": "guess"}, ValueError, "fit, direct"),
        ({"batch_sizes": (8,)}, ValueError, "at least two different sizes"),
        ({"batch_sizes": ()}, ValueError, "batch_sizes is empty"),
        ({"batch_sizes": (0, 8)}, ValueError, "batch_sizes must be an integer of at least 1"),
        ({"batch_sizes": (8, 21)}, ValueError, "at most the 20 examples of dataset, got 21"),
        ({"batch_sizes": (15,), "method": "direct"}, ValueError, "two disjoint batches"),
        ({"repeats": 0}, ValueError, "repeats"),
        ({"num_steps": 0}, ValueError, "num_steps"),
        ({"full_size": 21}, ValueError, "full_size must be at most 20"),
        ({"dataset": iter([SMALL[2]])}, TypeError, "one-shot"),
        ({"dataset": []}, ValueError, "data is empty"),
        ({"dataset": TensorDataset(torch.ones(0, 3))}, ValueError, "data is empty"),
        ({"dataset": TensorDataset(torch.ones(20, 3))}, TypeError, "input, target"),
        ({"model": "net"}, TypeError, "model must be a torch.nn.Module"),
        ({"model": ZERO}, ValueError, "no trainable parameter"),
        ({"loss_fn": lambda o, t: o.sum(1)}, ValueError, "one number"),
        (
            {"model": nn.Linear(3, 3).double(), "loss_fn": bowl},
            ValueError,
            "must be above 0 to fit",
        ),
        ({"mode": "half"}, ValueError, "mode must be one of"),
        ({"products": "magic"}, ValueError, "method must be one of"),
    ],
)
def test_bad_input(options: dict[str, Any], kind: type[Exception], fragment: str) -> None:
    model, loss_fn, dataset = SMALL
    given = {"model": model, "loss_fn": loss_fn, "dataset": dataset, "batch_sizes": (4, 8)}
    with pytest.raises(kind, match=fragment):
        measure_noise(**{**given, **options})


@pytest.mark.parametrize(
    ("act", "fragment"),
    [
        (lambda: MODEL.max_learning_rate(0), "batch_size must be at least 1"),
        (lambda: MODEL.max_learning_rate(1001), "at most dataset_size 1000"),
        (lambda: MODEL.max_learning_rate(8, momentum=1.0), "momentum must be in"),
        (lambda: MODEL.max_learning_rate(8, safety=0), "safety must be above 0"),
        (lambda: MODEL.saturation_batch(2.0), r"excess must be in \(0, 1\]"),
        (lambda: MODEL.curve_sizes(1), "points must be at least 2"),
        (lambda: NoiseModel(0.0, -1.0, 1.0).saturation_batch(), "lambda_max must be above 0"),
        (lambda: NoiseModel(-1.0, -1.0, 1.0).max_learning_rate(8), "lambda_max must be above 0"),
    ],
)
def test_bad_input_of_the_model(act: Any, fragment: str) -> None:
    with pytest.raises(ValueError, match=fragment):
        act()
