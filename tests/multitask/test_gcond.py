"""GCond: golden runs of the authors' class, products against vectors, closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.multitask.gcond_cases import (
    CASES,
    MAIN,
    draw,
    f64,
    jacobian_of,
    options_of,
    pair,
    plain,
)

from gradworks.multitask import GCond
from gradworks.multitask.gcond import effective_angle
from gradworks.multitask.gcond.reference import VectorGCond

# ---------------------------------------------------------------- golden


@pytest.mark.parametrize("number", range(len(CASES)))
@pytest.mark.parametrize("kind", [GCond, VectorGCond], ids=["products", "vectors"])
def test_golden_runs_of_the_authors_class(number: int, kind: type) -> None:
    case = CASES[number]
    method = kind(**options_of(case))
    parameters = [f64(case["theta0"][0]), f64(case["theta0"][1]).view(2, 3)]
    if isinstance(method, GCond):
        method.follow(parameters)
    for step in case["steps"]:
        J = jacobian_of(case, f64(step["batches"]))
        out = method(J) if isinstance(method, GCond) else method(J, parameters)
        torch.testing.assert_close(out, f64(step["grad"]), rtol=1e-9, atol=1e-14)
        previous = f64([step["previous"][name] for name in case["names"]])
        found = method.remembered() if isinstance(method, GCond) else torch.stack(method.previous)
        torch.testing.assert_close(found, previous, rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(found.sum(0), f64(step["projected"]), rtol=1e-9, atol=1e-13)
        assert [case["names"][task] for task in method.history] == step["history"]
        if isinstance(method, VectorGCond):
            assert method.rounds == step["proj_iters"]
            continue
        stats = method.stats
        assert stats.norm_ema == pytest.approx([step["norm_ema"][n] for n in case["names"]])
        assert stats.rounds == step["proj_iters"]
        assert stats.min_cosine == pytest.approx(step["min_cosine"], rel=1e-9)
        assert float(stats.final_norm) == pytest.approx(float(f64(step["grad"]).norm()), rel=1e-9)
        assert stats.raw_norms == pytest.approx(J.norm(dim=1).tolist(), rel=1e-12)


# ---------------------------------------------------------------- inner products against vectors


@settings(max_examples=40, deadline=None)
@given(
    tasks=st.integers(1, 6),
    params=st.sampled_from([2, 7, 40]),
    seed=st.integers(0, 10**6),
    pull=st.sampled_from([0.0, 1.0, 4.0]),
    smooth=st.booleans(),
    window=st.integers(0, 3),
    cap=st.sampled_from([None, 2.0]),
)
def test_rounds_on_inner_products_are_rounds_on_vectors(
    tasks: int, params: int, seed: int, pull: float, smooth: bool, window: int, cap: float | None
) -> None:
    options = {"smooth": smooth, "dominance_window": window, "norm_cap": cap}
    fast, slow = GCond(**options), VectorGCond(**options)
    for step in range(3):
        J = draw(tasks, params, seed + step, pull)
        torch.testing.assert_close(fast(J), slow(J), rtol=1e-10, atol=1e-10)
        assert tuple(slow.history) == fast.history
        assert fast.stats.rounds == slow.rounds


def test_cancelled_gradients_are_computed_anew() -> None:
    # the second and third are opposed to the first but for a ten millionth, and to each other in
    # what a projection leaves of them: inner products of 1e13 have no digits for that
    base, small = draw(1, 50, 0)[0] * 1e6, draw(2, 50, 1) * 0.1
    J = torch.stack([2 * base, -base + small[0], -base - small[0] + 0.3 * small[1]])
    fast, slow = GCond(), VectorGCond()
    for _ in range(2):
        fast(J)
        slow(J)
        left = torch.stack(slow.previous)
        torch.testing.assert_close(fast.remembered()[1:], left[1:], rtol=1e-6, atol=1e-8)
        assert float(left[1:].abs().max()) < 1
        assert tuple(slow.history) == fast.history
        assert fast.stats.rounds == slow.rounds >= 3


def test_a_state_in_blocks_of_columns_is_one_of_whole_rows() -> None:
    J = draw(3, (1 << 15) + 5, 0, pull=1.0)
    torch.testing.assert_close(GCond()(J), VectorGCond()(J), rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- closed forms


def test_a_step_by_hand() -> None:
    # cosine -1 / sqrt(2), norms 1 and sqrt(2), averages 1 and 0.95 + 0.05 sqrt(2): the second wins
    share = (math.sqrt(0.5) - 0.5) / 0.3
    kept = math.cos(math.pi / 2 * share**2)  # sin(pi/2 + x), of the winner's projection
    aggregator = GCond()
    out = aggregator(f64([[1.0, 0.0], [-1.0, 1.0]]))
    torch.testing.assert_close(out, f64([kept - 0.5, 1.5]), rtol=0, atol=1e-7)
    want = f64([[0.5, 0.5], [kept - 1.0, 1.0]])
    torch.testing.assert_close(aggregator.remembered(), want, rtol=0, atol=1e-7)


@pytest.mark.parametrize("smooth", [True, False])
def test_gradients_that_do_not_conflict_pass_unchanged(smooth: bool) -> None:
    for J in (torch.eye(3, 5, dtype=torch.float64), draw(3, 4, 0).abs()):
        aggregator = plain(smooth=smooth)
        assert torch.equal(aggregator(J), J.sum(0))
        assert torch.equal(aggregator.remembered(), J)
        assert (aggregator.stats.rounds, aggregator.stats.min_cosine) == (0, 1.0)
        assert aggregator.stats.winners == ()


def test_exact_opposition_removes_the_loser_and_leaves_the_winner() -> None:
    aggregator = plain()
    J = pair(math.pi, 1.0, 2.0)  # the second is longer: it wins
    torch.testing.assert_close(aggregator(J), J[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(
        aggregator.remembered(), f64([[0.0] * 3, J[1].tolist()]), atol=1e-12, rtol=0
    )
    assert aggregator.stats.winners == (1,)


def test_at_the_main_threshold_both_are_projected_and_orthogonal_to_what_they_were() -> None:
    aggregator = plain()
    J = pair(MAIN, 1.0, 3.0)
    J[1, 0] += 1e-15  # at or above -0.5 whatever the rounding
    aggregator(J)
    G = aggregator.remembered()
    assert abs(float(G[0] @ J[1])) < 1e-6
    assert abs(float(G[1] @ J[0])) < 1e-6


def test_below_the_main_threshold_two_end_orthogonal_up_to_the_winners_share() -> None:
    for angle in (2.2, 2.4):
        aggregator = plain()
        J = pair(angle)
        out = aggregator(J)
        cosine = math.cos(angle)
        alpha = float(effective_angle(f64(cosine)))
        # the loser (second: a tie goes to the first) fully, the winner by sin(alpha)
        want = J[0] - math.sin(alpha) * cosine * J[1] + J[1] - cosine * J[0]
        torch.testing.assert_close(out, want, rtol=1e-6, atol=1e-6)
        assert aggregator.stats.winners[0] == 0


@pytest.mark.parametrize(
    ("angle", "want"),
    [
        (1.8, "both"),
        (2.3, "loser"),
        (2.8, "gone"),
    ],
)
def test_zones(angle: float, want: str) -> None:
    J = pair(angle, 1.0, 0.5)  # the first wins
    a, b = J
    inner = a @ b
    both = torch.stack([a - inner / (b @ b) * b, b - inner / (a @ a) * a])
    expected = {"both": both, "loser": torch.stack([a, both[1]]), "gone": torch.stack([a, 0 * b])}
    aggregator = plain(smooth=False)
    out = aggregator(J)
    torch.testing.assert_close(aggregator.remembered(), expected[want], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out, expected[want].sum(0), rtol=1e-9, atol=1e-9)
    assert aggregator.stats.winners == (() if want == "both" else (0,))
    assert aggregator.stats.rounds == 1, "a projection leaves rounding, which is no conflict"


def test_one_sided_projection_of_a_pair_is_pcgrads() -> None:
    J = pair(2.3, 1.0, 0.5)
    pcgrad = J[0] + J[1] - (J[0] @ J[1]) / (J[0] @ J[0]) * J[0]
    torch.testing.assert_close(plain(smooth=False)(J), pcgrad, rtol=1e-9, atol=1e-9)


def test_momentum_is_the_corrected_average_of_the_sums() -> None:
    aggregator, m = GCond(momentum=0.9), torch.zeros(4, dtype=torch.float64)
    for t in range(1, 5):
        J = draw(3, 4, t).abs()
        m = 0.9 * m + 0.1 * J.sum(0)
        torch.testing.assert_close(aggregator(J), m / (1 - 0.9**t), rtol=1e-12, atol=0)


def test_a_single_task_is_momentum_alone() -> None:
    aggregator = GCond(norm_cap=0.1)
    J = draw(1, 5, 0)
    torch.testing.assert_close(aggregator(J), J[0])
    assert aggregator.stats.norm_ema == (1.0,)


def test_lion_is_a_sign_as_long_as_its_tensor_asks() -> None:
    params = [f64([3.0, 4.0]), f64([[0.0], [0.0]]), f64([1e9, 0.0])]
    aggregator = GCond(lion=True)
    aggregator.follow(params)
    J = f64([[0.5, -0.5, 2.0, -1.0, 1.0, 0.0]])
    want = [5 / math.sqrt(0.5) * 1e-4, 1e-4, 1e-2]  # a ratio, a zero norm, the clip
    out = aggregator(J)
    torch.testing.assert_close(
        out, f64([want[0], -want[0], want[1], -want[1], want[2], 0.0]), rtol=1e-12, atol=0
    )
    assert float(aggregator.stats.final_norm) == pytest.approx(float(out.norm()))
    with pytest.raises(RuntimeError, match=r"lion=True needs .* follow\(parameters\)"):
        GCond(lion=True)(J)
    aggregator.follow(params[:1])
    with pytest.raises(ValueError, match="6 columns, the followed parameters have 2"):
        aggregator(J)


def test_lion_without_eps_leaves_a_tensor_that_has_no_gradient() -> None:
    aggregator = GCond(lion=True, eps=0.0)
    aggregator.follow([f64([0.0]), f64([2.0])])
    torch.testing.assert_close(aggregator(f64([[0.0, 0.5]])), f64([0.0, 4e-4]))


def test_the_cap_cuts_each_gradient_before_it_is_compared() -> None:
    aggregator = plain(norm_cap=1.0)
    J = f64([[30.0, 0.0], [0.0, 0.5]])
    torch.testing.assert_close(aggregator(J), f64([1.0, 0.5]))
    assert aggregator.stats.raw_norms == (30.0, 0.5)
    assert aggregator.stats.norm_ema == pytest.approx((0.95 + 1.5, 0.95 + 0.025))


def test_effective_angle_is_continuous_and_grows() -> None:
    c = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    alpha = effective_angle(c)
    assert bool((alpha.diff() <= 1e-12).all())
    assert float(alpha.diff().abs().max()) < 0.02
    for threshold, want in ((-0.8, math.pi), (-0.5, math.pi / 2), (0.0, 0.0)):
        around = effective_angle(f64([threshold - 1e-9, threshold, threshold + 1e-9]))
        torch.testing.assert_close(around, f64([want] * 3), atol=1e-6, rtol=0)
    assert effective_angle(-2.0).item() == pytest.approx(math.pi)
    rules = GCond().rules
    found = f64([rules.angle(float(cosine)) for cosine in c])
    torch.testing.assert_close(found, alpha, rtol=1e-12, atol=1e-12)
    odd = effective_angle(f64([-1.0, -0.5, -0.2, 0.5]), (-0.5, -0.5, -0.5), power=0.5)
    torch.testing.assert_close(odd, f64([math.pi, math.pi / 2, 0.0, 0.0]))
