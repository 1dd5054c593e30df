"""Directions, rules, planes: closed forms, invariances, and everything left as it was."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tests.curvature.nets import dense_hessian, problem, vector
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gradworks.curvature import HessianOperator
from gradworks.curvature.lanczos import SpectralMeasure
from gradworks.curvature.landscape import (
    adam_directions,
    centered_grid,
    esd_curve,
    hessian_criteria,
    hessian_directions,
    loss_line,
    loss_plane,
    normalize_direction,
    random_directions,
    trajectory_directions,
)
from gradworks.curvature.landscape.evaluating import PointLosses


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def flat(d: Any) -> Tensor:
    return torch.cat([t.reshape(-1) for t in d.values()])


def moved(model: nn.Module, *terms: tuple[float, dict[str, Tensor]]) -> nn.Module:
    """A copy at another point, by plain assignment."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for c, d in terms:
            for n, p in other.named_parameters():
                p += c * d[n]
    return other


# -- closed forms and the transcription --------------------------------------------------------


@pytest.mark.parametrize("vectorize", ["never", "always", "auto"])
def test_every_point_is_that_of_a_moved_copy(vectorize: Any) -> None:
    model, loss_fn, (x, y) = problem(20)
    a, b = random_directions(model)
    alphas, betas = [-1.0, 0.3, 2.0], [-0.5, 0.0]
    batches = [(x[:13], y[:13]), (x[13:], y[13:])]
    plane = loss_plane(
        model, loss_fn, batches, a, b, alphas=alphas, betas=betas, vectorize=vectorize
    )
    for i, u in enumerate(alphas):
        for j, v in enumerate(betas):
            want = loss_fn(moved(model, (u, a), (v, b))(x), y)
            torch.testing.assert_close(plane.loss[i, j], want.detach(), rtol=1e-12, atol=1e-12)


def test_a_linear_model_has_an_exact_quadratic() -> None:
    model = nn.Linear(3, 1).double()
    x, y = vector(30).view(10, 3), vector(10, 1).view(10, 1)
    a, b = random_directions(model)
    at = centered_grid(7)
    plane = loss_plane(model, F.mse_loss, (x, y), a, b, alphas=at, betas=at)
    H = dense_hessian(model, F.mse_loss, (x, y))
    g = HessianOperator(model, F.mse_loss, (x, y)).gradient()
    A, B = plane.mesh()
    u, v = flat(a), flat(b)
    want = F.mse_loss(model(x), y).detach() + A * (g @ u) + B * (g @ v)
    want = want + A**2 * (u @ H @ u) / 2 + B**2 * (v @ H @ v) / 2 + A * B * (u @ H @ v)
    torch.testing.assert_close(plane.loss, want, rtol=1e-11, atol=1e-11)


def test_along_an_eigenvector_the_curvature_is_its_eigenvalue() -> None:
    model, loss_fn, data = problem(20)
    directions = hessian_directions(model, loss_fn, data, k=3, tol=1e-8)
    H = dense_hessian(model, loss_fn, data)
    want = torch.linalg.eigvalsh(H).flip(0)[:3]
    torch.testing.assert_close(directions.values, want, rtol=1e-6, atol=1e-8)
    g = HessianOperator(model, loss_fn, data).gradient()
    h = 1e-3
    for d, value in zip(directions, want):
        line = loss_line(model, loss_fn, data, d, alphas=[-h, 0.0, h])
        low, middle, high = line.loss
        assert float((low + high - 2 * middle) / h**2) == pytest.approx(float(value), rel=1e-3)
        assert float((high - low) / (2 * h)) == pytest.approx(float(g @ flat(d)), abs=1e-5)


def test_which_ends_and_indices() -> None:
    model, loss_fn, data = problem(20)
    values = torch.linalg.eigvalsh(dense_hessian(model, loss_fn, data))
    both = hessian_directions(model, loss_fn, data, which="top_bottom", tol=1e-8)
    torch.testing.assert_close(both.values, values[[-1, 0]], rtol=1e-5, atol=1e-7)
    chosen = hessian_directions(model, loss_fn, data, indices=(2, 0), tol=1e-8)
    torch.testing.assert_close(chosen.values, values[[-3, -1]], rtol=1e-5, atol=1e-7)
    part = hessian_directions(model, loss_fn, data, params="0.*")
    assert not any(part[0][n].any() for n in part[0] if n.startswith("2."))


@pytest.mark.parametrize("factor", [0.25, 8.0])
def test_filter_planes_do_not_see_a_rescaling_of_relu_layers(factor: float) -> None:
    model = nn.Sequential(nn.Linear(3, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False))
    model.double()
    x, y = vector(24).view(8, 3), torch.arange(8) % 2
    other = copy.deepcopy(model)
    other[0].weight.data *= factor
    other[2].weight.data /= factor
    a, b = random_directions(model)
    at = centered_grid(5)

    def plane(m: nn.Module, rule: Any) -> Tensor:
        scaled = [normalize_direction(d, m, rule) for d in (a, b)]
        return loss_plane(m, F.cross_entropy, (x, y), *scaled, alphas=at, betas=at).loss

    torch.testing.assert_close(plane(model, "filter"), plane(other, "filter"))
    assert (plane(model, None) - plane(other, None)).abs().max() > 1e-2


# -- directions ----------------------------------------------------------------------------------


def test_random_directions() -> None:
    model, _, _ = problem()
    a, b, c = random_directions(model, 3)
    for u, v in ((a, b), (a, c), (b, c)):
        assert abs(float(flat(u) @ flat(v))) < 1e-9
    again = random_directions(model, 3, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(flat(u), flat(v)) for u, v in zip((a, b, c), again))
    (u,) = random_directions(model, 1, distribution="uniform")
    assert 0 <= float(flat(u).min()) < float(flat(u).max()) < 1
    loose = random_directions(model, orthogonal=False)
    assert abs(float(flat(loose[0]) @ flat(loose[1]))) > 1e-3
    some, _ = random_directions(model, params=["2.bias"])
    assert [n for n, t in some.items() if t.any()] == ["2.bias"]
    assert set(some) == set(weights(model))


def test_adam_directions_are_the_moments() -> None:
    model, loss_fn, (x, y) = problem()
    model[2].bias.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    loss_fn(model(x), y).backward()
    optimizer.step()
    model[2].bias.requires_grad_(True)  # trainable, but the optimizer has not seen it
    first, second = adam_directions(optimizer, model)
    g = model[0].weight.grad
    torch.testing.assert_close(first["0.weight"], 0.1 * g)
    torch.testing.assert_close(second["0.weight"], 0.001 * g**2)
    assert not first["2.bias"].any()
    assert not second["2.bias"].any()
    plane = loss_plane(model, loss_fn, (x, y), first, second, rule="adam", alphas=[0.0, 1e-3])
    assert plane.loss.shape == (2, 41)
    assert torch.equal(plane.loss[0], plane.loss[0, :1].expand(41))
    assert bool((plane.loss[1] > plane.loss[0]).all())  # up the gradient


def test_the_adam_rule_by_hand() -> None:
    # L = w^2 at w = 1; the step is 2 / (sqrt(4) + eps) = 1 up to 5e-7 of itself.
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    data = (torch.ones(1, 1).double(), torch.zeros(1, 1).double())
    first, second = {"weight": torch.full((1, 1), 2.0)}, {"weight": torch.full((1, 1), 4.0)}

    def loss(**options: Any) -> float:
        at: dict[str, Any] = {"alphas": [0.5], "betas": [0.25], "rule": "adam", **options}
        return float(loss_plane(model, F.mse_loss, data, first, second, **at).loss)

    assert loss() == pytest.approx(4, rel=1e-6)  # 0.5 / sqrt(0.25) = 1
    assert loss(b_sqrt=False) == pytest.approx(9, rel=1e-6)  # 0.5 / 0.25 = 2
    assert loss(gamma=3.0) == pytest.approx(16, rel=1e-6)
    assert loss(eps=2.0) == pytest.approx(2.25)  # 2 / (2 + 2)


def test_trajectory_directions_are_those_of_a_singular_value_decomposition() -> None:
    model, _, _ = problem()
    way = []
    for t in range(6):
        state = copy.deepcopy(model.state_dict())
        state["0.weight"] += (5 - t) * torch.ones(4, 3).double()
        state["2.bias"] += (5 - t) ** 2 * 0.1 * vector(3)
        way.append(state)
    a, b = trajectory_directions(way, model=model)
    steps = torch.stack([flat(s) - flat(way[-1]) for s in way[:-1]])
    _, _, V = torch.linalg.svd(steps, full_matrices=False)
    for d, v in zip((a, b), V):
        assert abs(float(flat(d) @ v)) == pytest.approx(1.0, abs=1e-9)
    assert abs(float(flat(a) @ flat(b))) < 1e-9
    normed = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    states = [copy.deepcopy(normed.state_dict()) for _ in range(3)]
    states[0]["0.weight"] += 1
    states[1]["1.bias"] += 1
    assert set(trajectory_directions(states)[0]) == {n for n, _ in normed.named_parameters()}


# -- rules -----------------------------------------------------------------------------------------


def blocks(t: Tensor, rule: str) -> Tensor:
    return t.reshape(t.shape[0], -1) if rule == "filter" and t.dim() > 1 else t.reshape(1, -1)


@given(
    rule=st.sampled_from(["filter", "layer", "model"]),
    order=st.sampled_from([1, 2]),
    one=st.sampled_from(["tensor", "zero"]),
    seed=st.integers(0, 20),
)
def test_rules_give_the_norms_of_the_weights(rule: Any, order: Any, one: Any, seed: int) -> None:
    shapes = {"c": (3, 2, 2, 2), "w": (4, 3), "b": (4,), "s": ()}
    reference = {n: vector(max(1, torch.Size(s).numel()), seed).view(s) for n, s in shapes.items()}
    direction = {n: vector(t.numel(), seed + 50).view(t.shape) for n, t in reference.items()}
    scaled = normalize_direction(direction, reference, rule, order=order, one_dimensional=one)
    counted = [n for n in shapes if one == "tensor" or len(shapes[n]) > 1]
    assert all(not scaled[n].any() for n in shapes if n not in counted)

    def norm(d: Any, name: str) -> Tensor:
        return torch.linalg.vector_norm(blocks(d[name], rule), order, dim=-1)

    if rule == "model":
        whole = [torch.cat([d[n].reshape(-1) for n in counted]) for d in (scaled, reference)]
        torch.testing.assert_close(*(torch.linalg.vector_norm(v, order) for v in whole))
        ratio = scaled["w"] / direction["w"]  # one factor for all tensors
        torch.testing.assert_close(scaled["c"], direction["c"] * ratio[0, 0])
    else:
        for n in counted:
            torch.testing.assert_close(norm(scaled, n), norm(reference, n))
    twice = normalize_direction(scaled, reference, rule, order=order, one_dimensional=one)
    for n in shapes:
        torch.testing.assert_close(twice[n], scaled[n])


def test_blocks_without_length_are_zero_and_counted() -> None:
    reference = {"w": torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]]), "b": torch.zeros(3)}
    direction = {"w": torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.0, 2.0]]), "b": torch.ones(3)}
    scaled = normalize_direction(direction, reference, "filter")
    assert scaled["w"].tolist() == [[0, 0], [0, 0], [0, 1]]
    assert dict(scaled.zero_blocks) == {"w": 2, "b": 1}
    assert direction["w"][0, 1] == 2  # new tensors
    half = {"w": torch.full((1, 4), 60_000.0, dtype=torch.float16)}
    assert normalize_direction(half, half)["w"].isfinite().all()


@pytest.mark.parametrize("rule", ["filter", "layer", "model"])
@pytest.mark.parametrize("size", [1e-30, 1e-21, 1e30])
def test_squares_outside_the_range_of_float32_do_not_lose_a_block(rule: Any, size: float) -> None:
    # Adam's second moments are of this size where gradients are small.
    direction = {"w": torch.tensor([[3.0, 4.0]]) * size}
    scaled = normalize_direction(direction, {"w": torch.tensor([[6.0, 8.0]])}, rule)
    torch.testing.assert_close(scaled["w"], torch.tensor([[6.0, 8.0]]))
    assert not scaled.zero_blocks
    back = normalize_direction({"w": torch.tensor([[6.0, 8.0]])}, direction, rule)
    torch.testing.assert_close(back["w"] / size, torch.tensor([[3.0, 4.0]]))


@pytest.mark.parametrize("rule", ["filter", "layer", "model"])
def test_a_factor_above_the_range_of_half_precision(rule: Any) -> None:
    direction = {"w": torch.full((1, 4), 2.0**-20, dtype=torch.float16)}
    scaled = normalize_direction(direction, {"w": torch.ones(1, 4, dtype=torch.float16)}, rule)
    assert torch.equal(scaled["w"], torch.ones(1, 4, dtype=torch.float16))


@pytest.mark.parametrize("rule", [None, "filter", "layer", "model", "weight"])
def test_parameters_without_entries_pass_through(rule: Any) -> None:
    direction = {"e": torch.zeros(0, 3), "w": torch.ones(1, 2)}
    scaled = normalize_direction(direction, {"e": torch.zeros(0, 3), "w": torch.ones(1, 2)}, rule)
    assert scaled["e"].shape == (0, 3)
    torch.testing.assert_close(scaled["w"], torch.ones(1, 2))


def test_norms_of_order_one_by_hand() -> None:
    direction, reference = {"w": torch.tensor([[1.0, -1.0]])}, {"w": torch.tensor([[3.0, -4.0]])}
    scaled = normalize_direction(direction, reference, "filter", order=1)
    assert scaled["w"].tolist() == [[3.5, -3.5]]  # (3 + 4) / (1 + 1)


def test_biases_multiplied_by_the_weights() -> None:
    reference = {"w": torch.ones(2, 2), "b": torch.tensor([2.0, 3.0])}
    direction = {"w": torch.ones(2, 2), "b": torch.ones(2)}
    for rule in (None, "filter", "layer", "model", "weight"):
        scaled = normalize_direction(direction, reference, rule, one_dimensional="weight")
        assert scaled["b"].tolist() == [2.0, 3.0]
        torch.testing.assert_close(scaled["w"], direction["w"])


def test_a_flipped_direction_mirrors_the_plane() -> None:
    model, loss_fn, data = problem()
    a, b = random_directions(model)
    at = centered_grid(5)
    plane = loss_plane(model, loss_fn, data, a, b, alphas=at, betas=at).loss
    back = {n: -t for n, t in a.items()}
    mirrored = loss_plane(model, loss_fn, data, back, b, alphas=at, betas=at).loss
    torch.testing.assert_close(mirrored, plane.flip(0))


# -- criteria ------------------------------------------------------------------------------------


def test_order_one_is_the_ratio_of_the_traces() -> None:
    model, loss_fn, data = problem()
    values = torch.linalg.eigvalsh(dense_hessian(model, loss_fn, data))
    weights = torch.full_like(values, 1 / len(values))
    found = hessian_criteria(SpectralMeasure([values], [weights], len(values)), n=1)
    want = -values[values < 0].sum() / values[values > 0].sum()
    assert found.kh == pytest.approx(float(want))
    assert found.type_ratio == -found.re == pytest.approx(float(values[0] / values[-1]))
    assert found.to_dict()["num_steps"] == [len(values)]


def test_the_criteria_do_not_apply_to_a_negative_spectrum() -> None:
    t = torch.tensor([-1.0, 1.0])
    assert not hessian_criteria(SpectralMeasure([t], [torch.full((2,), 0.5)], 2)).applies


def test_criteria_of_a_mainly_negative_spectrum_by_hand() -> None:
    t = torch.tensor([-4.0, 1.0])
    found = hessian_criteria(SpectralMeasure([t], [torch.full((2,), 0.5)], 2))
    assert (found.re, found.kh, found.type_ratio) == (4, 2, -4)  # kh = sqrt(2) / sqrt(1 / 2)


def test_kernels_of_a_narrow_spectrum_do_not_shrink() -> None:
    one = SpectralMeasure([torch.zeros(1)], [torch.ones(1)], 1)
    _, (end, middle, _) = esd_curve(one, num_bins=3)
    assert float(end / middle) == pytest.approx(math.exp(-0.05))  # (1e-3)^2 / (2 * 1e-5)


# -- evaluation ------------------------------------------------------------------------------------


class Drawing(nn.Module):
    """Draws random numbers in eval mode too, and counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.line(x + 0.1 * torch.randn(x.shape)) * self.calls


def test_all_points_see_the_same_random_numbers_and_buffers() -> None:
    model = Drawing()
    data = (torch.randn(8, 3), torch.arange(8) % 3)
    still = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for vectorize in ("never", "always"):
        line = loss_line(
            model, F.cross_entropy, data, still, alphas=[0.0, 1.0, 2.0], vectorize=vectorize
        )
        assert torch.equal(line.loss, line.loss[:1].expand(3))
    assert model.calls == 0


def test_what_cannot_be_batched_is_measured_one_by_one() -> None:
    class Branching(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if float(self.weight.sum()) > 0 else -super().forward(x)

    model = Branching(3, 3).double()
    _, loss_fn, data = problem()
    a, b = random_directions(model)
    at = centered_grid(3)
    found = loss_plane(model, loss_fn, data, a, b, alphas=at, betas=at).loss
    assert torch.equal(
        found, loss_plane(model, loss_fn, data, a, b, alphas=at, betas=at, vectorize="never").loss
    )
    with pytest.raises(RuntimeError, match="item"):
        loss_plane(model, loss_fn, data, a, b, alphas=at, betas=at, vectorize="always")


def test_convolutions_go_one_by_one() -> None:
    conv = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    data = (torch.randn(4, 1, 4, 4), torch.arange(4) % 2)
    direction = random_directions(conv, 1)
    assert not PointLosses(conv, F.cross_entropy, data, direction).batched
    model, loss_fn, small = problem()
    assert PointLosses(model, loss_fn, small, random_directions(model, 1)).batched


def test_losses_that_are_not_finite_are_kept_and_counted() -> None:
    model = nn.Linear(1, 1, bias=False)
    data = (torch.ones(2, 1), torch.zeros(2, 1))
    direction = {"weight": torch.full((1, 1), 1e30)}
    other = {"weight": torch.zeros(1, 1)}
    plane = loss_plane(
        model, F.mse_loss, data, direction, other, alphas=[0.0, 1.0], betas=[0.0, 1.0]
    )
    assert plane.num_nonfinite == 2
    assert plane.loss[1].isinf().all()
    assert plane.clip().loss.isfinite().all()
    for kind in ("surface", "contour", "heatmap"):
        plane.plot(kind)


def test_a_loader_that_shuffles_gives_one_surface() -> None:
    model, loss_fn, (x, y) = problem(20)
    loader = DataLoader(
        TensorDataset(x, y), batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(1)
    )
    a, b = random_directions(model)
    at = centered_grid(3)
    state = loader.generator.get_state()
    found = loss_plane(model, loss_fn, loader, a, b, alphas=at, betas=at).loss
    want = loss_plane(model, loss_fn, (x, y), a, b, alphas=at, betas=at).loss
    torch.testing.assert_close(found, want)
    assert torch.equal(loader.generator.get_state(), state)


class Compiled(nn.Module):
    """What ``torch.compile`` makes of a module, as far as names go."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self._orig_mod = net

    def forward(self, x: Tensor) -> Tensor:
        return self._orig_mod(x)


def test_a_compiled_model_has_the_directions_of_the_plain_one() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    found = []
    for model in (net, Compiled(net)):
        (d,) = random_directions(model, 1, generator=torch.Generator().manual_seed(1))
        found.append(normalize_direction(d, model, "filter"))
    assert set(found[0]) == set(found[1]) == {name for name, _ in net.named_parameters()}
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
