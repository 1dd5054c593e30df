"""Langevin: golden trajectories, transcription, exact laws, bad input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.optim.langevin_cases import (
    CASES,
    PATHS,
    gen,
    give,
    golden,
    manifolds,
    naive,
    parameters,
    paths,
)
from torch import Tensor, nn

from gradworks.optim.langevin import (
    IterateAverage,
    Langevin,
    langevin_step,
    tensor_gradient,
    trajectory,
)
from gradworks.optim.langevin import optimizer as module

# ---------------------------------------------------------------- oracles


@pytest.mark.parametrize("case", CASES)
def test_golden_trajectory_of_the_function(case: str) -> None:
    stored = golden(case)
    theta = stored["traj"][0]
    for t in range(20):
        grad = -tensor_gradient(stored["T"], theta)
        theta = langevin_step(
            theta, grad, stored["noise"][t], float(stored["lr"]), float(stored["temperature"]),
            CASES[case],
        )  # fmt: skip
        torch.testing.assert_close(theta, stored["traj"][t + 1], rtol=1e-12, atol=1e-12)


@paths
@pytest.mark.parametrize("case", CASES)
def test_golden_trajectory_and_averages(
    case: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = golden(case)
    noises = iter(stored["noise"])
    monkeypatch.setattr(module, "normal", lambda like, generator: next(noises).clone())
    theta = nn.Parameter(stored["traj"][0].clone())
    optimizer = Langevin(
        [theta], float(stored["lr"]), float(stored["temperature"]), manifold=CASES[case],
        **PATHS[path],
    )  # fmt: skip
    average = IterateAverage([theta], second_moment=True)
    for t in range(20):
        theta.grad = -tensor_gradient(stored["T"], theta.detach())
        optimizer.step()
        average.update()
        torch.testing.assert_close(theta.detach(), stored["traj"][t + 1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(average.mean[0], stored["mean"], rtol=1e-12, atol=1e-12)
    assert average.second_moment is not None
    torch.testing.assert_close(average.second_moment[0], stored["second"], rtol=1e-12, atol=1e-12)
    if CASES[case] == "sphere":
        radius = stored["traj"][0].norm(dim=-1)
        assert float((theta.detach().norm(dim=-1) - radius).abs().max()) < 20 * 4e-16 * float(
            radius.max()
        )


@given(
    shape=st.lists(st.integers(1, 4), min_size=0, max_size=3).map(tuple),
    d=st.integers(2, 6),
    seed=st.integers(0, 10_000),
    lr=st.floats(1e-4, 2.0),
    temperature=st.sampled_from([0.0, 1e-3, 0.7, 30.0]),
    sphere=st.booleans(),
    foreach=st.booleans(),
    maximize=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_transcription(
    shape: tuple[int, ...], d: int, seed: int, lr: float, temperature: float, sphere: bool,
    foreach: bool, maximize: bool,
) -> None:  # fmt: skip
    shapes = ((*shape, d), (d + 1,))
    g = gen(seed)
    params = [nn.Parameter(torch.randn(s, generator=g, dtype=torch.float64)) for s in shapes]
    want = [p.detach().clone() for p in params]
    optimizer = Langevin(
        params, lr, temperature, manifold="sphere" if sphere else "euclidean",
        generator=gen(seed), foreach=foreach, maximize=maximize,
    )  # fmt: skip
    by_hand = gen(seed)
    for _ in range(3):
        for i, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=g, dtype=torch.float64)
            xi = torch.zeros_like(p)
            if temperature > 0:  # the contract: one normal_ a parameter, in their order
                xi = torch.empty_like(p).normal_(generator=by_hand)
            sign = -1.0 if maximize else 1.0
            want[i] = naive(want[i], sign * p.grad, xi, lr, temperature, sphere)
        optimizer.step()
    for p, q in zip(params, want):
        torch.testing.assert_close(p.detach(), q, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- exact laws


def test_norm_is_conserved() -> None:
    theta = nn.Parameter(torch.randn(50, 9, generator=gen(), dtype=torch.float64) * 3)
    radius = theta.detach().norm(dim=-1)
    optimizer = Langevin([theta], 0.3, 2.0, generator=gen(1))
    for step in range(200):
        before = theta.detach().norm(dim=-1)
        give([theta], step)
        theta.grad *= 100.0
        optimizer.step()
        after = theta.detach().norm(dim=-1)
        assert float(((after - before) / before).abs().max()) < 1e-14
    torch.testing.assert_close(after, radius, rtol=1e-13, atol=0)


@manifolds
def test_rotation_equivariance(manifold: str) -> None:
    g = gen(3)
    q = torch.linalg.qr(torch.randn(7, 7, generator=g, dtype=torch.float64)).Q
    theta, grad, xi = (torch.randn(4, 7, generator=g, dtype=torch.float64) for _ in range(3))
    turned = langevin_step(theta @ q.T, grad @ q.T, xi @ q.T, 0.2, 0.5, manifold)
    plain = langevin_step(theta, grad, xi, 0.2, 0.5, manifold)
    torch.testing.assert_close(turned, plain @ q.T, rtol=1e-12, atol=1e-13)


def test_temperature_zero_is_projected_descent_and_draws_nothing() -> None:
    theta = torch.randn(3, 5, generator=gen(), dtype=torch.float64)
    param = nn.Parameter(theta.clone())
    source = gen(9)
    before = source.get_state()
    optimizer = Langevin([param], 0.1, 0.0, generator=source)
    for _ in range(5):
        param.grad = param.detach() ** 3
        optimizer.step()
        grad = theta**3
        square = (theta * theta).sum(-1, keepdim=True)
        moved = theta - 0.1 * (grad - (grad * theta).sum(-1, keepdim=True) / square * theta)
        theta = square.sqrt() * moved / moved.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(param.detach(), theta, rtol=1e-13, atol=1e-14)
    assert torch.equal(source.get_state(), before)


def test_pure_noise_decays_as_the_diffusion_does() -> None:
    """One step: E<theta_1, theta_0> = 1 - (d - 1) temperature lr, up to lr^2."""
    chains, d = 400_000, 8
    theta = torch.zeros(chains, d, dtype=torch.float64)
    theta[:, 0] = 1.0
    for lr in (0.002, 0.004):
        xi = torch.randn(chains, d, generator=gen(2), dtype=torch.float64)
        there = langevin_step(theta, torch.zeros_like(theta), xi, lr, 0.5)
        lost = 1 - float(there[:, 0].mean())
        first = (d - 1) * 0.5 * lr
        # 1 / sqrt(1 + q) = 1 - q / 2 + 3 q^2 / 8, q = 2 temperature lr chi^2 of d - 1 degrees
        second = 1.5 * (0.5 * lr) ** 2 * (d - 1) * (d + 1)
        assert lost == pytest.approx(first - second, rel=0.01)
        assert abs(lost - first) < 2 * second


def test_pure_noise_is_uniform() -> None:
    d = 6
    start = torch.zeros(2000, d)
    start[:, 0] = 1.0
    blocks = list(
        trajectory(torch.zeros_like, start, 0.2 / d, 1.0, 128, generator=gen(4), block=64)
    )
    late = blocks[1].reshape(-1, d)
    torch.testing.assert_close(late.T @ late / len(late), torch.eye(d) / d, rtol=0, atol=3e-3)
    assert float(late.mean(0).abs().max()) < 0.02


def test_quadratic_loss_has_the_exact_stationary_variance() -> None:
    """theta <- (1 - lr a) theta + sqrt(2 lr eps) xi: variance eps / (a (1 - lr a / 2))."""
    a, lr, eps = 3.0, 0.2, 0.7
    theta = nn.Parameter(torch.zeros(200_000, dtype=torch.float64))
    optimizer = Langevin([theta], lr, eps, manifold="euclidean", generator=gen(6))
    for _ in range(12):
        theta.grad = a * theta.detach()
        optimizer.step()
    expected = eps / (a * (1 - lr * a / 2))
    assert float(theta.detach().var()) == pytest.approx(expected, rel=0.012)
    assert float(theta.detach().var()) != pytest.approx(eps / a, rel=0.2)  # not that of lr -> 0


def test_single_step_moves_by_the_noise_scale() -> None:
    """sqrt(2 lr temperature), not sqrt(2 temperature)."""
    theta = nn.Parameter(torch.zeros(100_000, dtype=torch.float64))
    theta.grad = torch.zeros_like(theta)
    Langevin([theta], 0.01, 2.0, manifold="euclidean", generator=gen()).step()
    assert float(theta.detach().std()) == pytest.approx(0.2, rel=0.01)


# ---------------------------------------------------------------- errors

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"lr": 0.0}, ValueError, "lr must be above 0, got 0"),
    ({"lr": torch.tensor(0.0)}, ValueError, "lr must be above 0"),
    ({"lr": -1.0}, ValueError, "lr must be at least 0 and finite, got -1.0"),
    ({"lr": math.nan}, ValueError, "lr must be at least 0"),
    ({"lr": "0.1"}, TypeError, "lr must be a number, got str"),
    ({"temperature": -0.1}, ValueError, "temperature must be at least 0, got -0.1"),
    ({"temperature": math.nan}, ValueError, "temperature must be at least 0"),
    ({"temperature": math.inf}, ValueError, "temperature must be finite"),
    ({"temperature": None}, TypeError, "temperature must be a number"),
    ({"manifold": "torus"}, ValueError, "manifold must be one of ('sphere', 'euclidean')"),
    ({"manifold": 2}, TypeError, "manifold must be one of"),
    ({"maximize": 1}, TypeError, "maximize must be True or False, got 1"),
    ({"foreach": "yes"}, TypeError, "foreach must be True, False or None, got 'yes'"),
    ({"params": [nn.Parameter(torch.ones(3, 1))]}, ValueError, "at least 2 entries"),
    ({"params": [nn.Parameter(torch.ones(()))]}, ValueError, "at least 2 entries"),
    ({"params": [nn.Parameter(torch.zeros(2, 3))]}, ValueError, "row of norm 0, got one in shape"),
]


@pytest.mark.parametrize(("arguments", "error", "fragment"), BAD)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], fragment: str) -> None:
    whole = {"params": parameters(), "lr": 0.1, "temperature": 0.1, **arguments}
    with pytest.raises(error) as caught:
        Langevin(**whole)
    assert fragment in str(caught.value)
    optimizer = Langevin(parameters(((2, 2),)), 0.1, 0.1)
    with pytest.raises(error) as caught:
        optimizer.add_param_group({"params": parameters(((6, 4),)), **arguments})
    assert fragment in str(caught.value)
    assert len(optimizer.param_groups) == 1


def test_a_step_by_hand() -> None:
    """From (3, 4), rho = 5, with g = (0, 10), lr 0.1, temperature 5 and xi = (1, 0).

    v = -(0, 1) + sqrt(2 0.1 5) (1, 0) = (1, -1); <v, theta> / 25 = -1 / 25, so that
    v = (28, -21) / 25 and theta + v = (103, 79) / 25, of norm sqrt(16850) / 25.
    """
    theta, grad, xi = (torch.tensor(x).double() for x in ([3.0, 4], [0.0, 10], [1.0, 0]))
    want = 5 / math.sqrt(16850) * torch.tensor([103.0, 79.0]).double()
    torch.testing.assert_close(langevin_step(theta, grad, xi, 0.1, 5.0), want, rtol=1e-14, atol=0)
    in_space = langevin_step(theta, grad, xi, 0.1, 5.0, "euclidean")
    torch.testing.assert_close(in_space, torch.tensor([4.0, 3.0]).double(), rtol=1e-14, atol=0)


def test_a_complex_row_is_a_sphere_of_twice_the_dimension() -> None:
    theta, grad, xi = (torch.randn(3, 8, generator=gen(i), dtype=torch.float64) for i in range(3))
    pairs = [torch.view_as_complex(x.view(3, 4, 2)) for x in (theta, grad, xi)]
    there = torch.view_as_real(langevin_step(*pairs, 0.1, 0.3)).flatten(1)
    torch.testing.assert_close(there, langevin_step(theta, grad, xi, 0.1, 0.3))
    runs = [
        trajectory(torch.zeros_like, x, 0.1, 0.3, 2, generator=gen(4)) for x in (theta, pairs[0])
    ]
    real, paired = (next(run) for run in runs)
    torch.testing.assert_close(torch.view_as_real(paired).flatten(2), real)


def test_more_bad_input() -> None:
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator or None, got int"):
        Langevin(parameters(), 0.1, 0.1, generator=3)  # type: ignore[arg-type]
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = Langevin(embedding.parameters(), 0.1, 0.1)
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match=r"does not take sparse gradients.*\(5, 3\)"):
        optimizer.step()
    theta = torch.ones(2)
    with pytest.raises(ValueError, match=r"noise must be given at temperature 0\.5, got None"):
        langevin_step(theta, theta, None, 0.1, 0.5)
    with pytest.raises(ValueError, match="manifold must be one of"):
        langevin_step(theta, theta, theta, 0.1, 0.5, "plane")
    for lr in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="lr must be at least 0 and finite"):
            langevin_step(theta, theta, None, lr, 0.0)
    for arguments, fragment in (
        ({"lr": 0.0}, "lr must be above 0"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"block": 0}, "block must be at least 1"),
    ):
        given_ = {"lr": 0.1, "temperature": 0.0, "steps": 2, **arguments}
        with pytest.raises(ValueError, match=fragment):
            list(trajectory(torch.zeros_like, theta, **given_))


def test_divergence_names_the_iteration_and_the_step_size() -> None:
    calls = []

    def gradient(theta: Tensor) -> Tensor:
        calls.append(theta)
        return theta * (math.nan if len(calls) == 70 else 1.0)

    with pytest.raises(RuntimeError, match=r"iteration 70 is not finite at lr=0.1.*smaller lr"):
        list(trajectory(gradient, torch.ones(3), 0.1, 0.0, 200, manifold="euclidean"))


def test_a_trajectory_is_what_the_optimizer_does() -> None:
    stored = golden("t3")
    start = stored["traj"][0]
    blocks = list(
        trajectory(lambda x: -tensor_gradient(stored["T"], x), start, 0.02, 0.3, 10,
                   generator=gen(4), block=1)
    )  # fmt: skip
    theta = nn.Parameter(start.clone())
    optimizer = Langevin([theta], 0.02, 0.3, generator=gen(4))
    for block in blocks:
        theta.grad = -tensor_gradient(stored["T"], theta.detach())
        optimizer.step()
        torch.testing.assert_close(block[0], theta.detach(), rtol=1e-12, atol=1e-14)
    assert torch.equal(start, stored["traj"][0])
