"""GCond: golden runs of the authors' class, products against vectors, closed forms, errors."""

from __future__ import annotations

import copy
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradworks.multitask import GCond, NonFiniteGradientError, TaskGradients
from gradworks.multitask.gcond import effective_angle
from gradworks.multitask.gcond.reference import VectorGCond

GOLDEN = Path(__file__).parents[1] / "golden" / "gcond" / "golden.json"
CASES = json.loads(GOLDEN.read_text())["cases"]
# the authors' names of the arguments
NAMES = {
    "use_smooth_logic": "smooth",
    "conflict_thresholds": "thresholds",
    "momentum_beta": "momentum",
    "use_lion": "lion",
    "return_raw_grad": "return_raw",
    "tie_breaking_weights": "tie_weights",
}
MAIN = math.radians(120)  # the angle of the main threshold, cosine -0.5


def f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draw(tasks: int, params: int, seed: int, pull: float = 0.0) -> Tensor:
    """Random rows; with ``pull`` they conflict: a common part is taken out of half of them."""
    g = torch.Generator().manual_seed(seed)
    J = torch.randn(tasks, params, dtype=torch.float64, generator=g)
    sign = torch.where(torch.arange(tasks) % 2 == 0, 1.0, -1.0).double()
    return J + pull * sign[:, None] * torch.randn(params, dtype=torch.float64, generator=g)


def pair(angle: float, first: float = 1.0, second: float = 1.0) -> Tensor:
    """Two gradients with this angle and these lengths."""
    return f64([[first, 0.0, 0.0], [second * math.cos(angle), second * math.sin(angle), 0.0]])


def plain(**options: Any) -> GCond:
    """Without momentum: what comes out is the sum of the resolved gradients."""
    return GCond(**{"return_raw": True, "eps": 1e-14, **options})


def options_of(case: dict[str, Any]) -> dict[str, Any]:
    found = {NAMES.get(key, key): value for key, value in case["options"].items()}
    return {key: tuple(v) if isinstance(v, list) else v for key, v in found.items()}


def jacobian_of(case: dict[str, Any], batches: Tensor) -> Tensor:
    """The golden model's losses are linear: gradients are means of the given vectors."""
    weights = f64(case["lambdas"])
    if not case["stochastic"]:
        return batches.mean(0) * weights[:, None]
    share = case["accumulation_steps"] // len(weights)
    means = [batches[k * share : (k + 1) * share, k].mean(0) for k in range(len(weights))]
    return torch.stack(means) * weights[:, None]


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


# ---------------------------------------------------------------- rules


def test_a_task_that_won_three_rounds_gives_way() -> None:
    aggregator, keeper = GCond(momentum=0.0), GCond(momentum=0.0, dominance="keep")
    J = pair(2.8, 1.0, 0.5)  # alike at every step: the first wins by its score
    seen = []
    for _ in range(8):
        aggregator(J)
        keeper(J)
        seen.append(aggregator.stats.winners)
    # released code: after three wins running the other one wins, until no one is dominant
    assert [w for won in seen for w in won][:4] == [0, 0, 0, 1]
    assert set(keeper.history) == {0}
    never = GCond(momentum=0.0, dominance_window=0)
    for _ in range(8):
        never(J)
        assert never.stats.winners == (0,)
    assert never.history == ()


def test_the_stable_task_wins_and_raw_or_projected_is_remembered() -> None:
    J = pair(2.3)
    for remember in ("projected", "raw"):
        aggregator = GCond(remember=remember, tie_weights=(1.0, 0.0))
        aggregator(J)
        assert torch.equal(aggregator.remembered(), J) == (remember == "raw")
        turned = torch.stack([-J[0] + 0.2 * J[1], J[1]])  # the first turned round
        aggregator(turned)
        assert aggregator.stats.winners == () or aggregator.stats.winners[0] == 1


def test_rounding_is_no_conflict() -> None:
    J = pair(2.0).float()
    aggregator = GCond(smooth=False, return_raw=True)
    aggregator(J)
    assert aggregator.stats.rounds == 1
    released = GCond(smooth=False, return_raw=True, conflict_tol=0.0)
    released(J.double())
    assert released.stats.rounds >= 1


def test_small_losses_have_conflicts_only_with_a_relative_tolerance() -> None:
    J = pair(2.3, 1.0, 0.5)
    want = GCond(return_raw=True, zero_tol=1e-3, tie_weights=(0.0, 1.0))(J)
    tiny = GCond(return_raw=True)
    torch.testing.assert_close(tiny(1e-6 * J), 1e-6 * J.sum(0))
    assert tiny.stats.rounds == 0
    relative = GCond(return_raw=True, zero_tol=1e-3, tie_weights=(0.0, 1.0))
    torch.testing.assert_close(relative(1e-6 * J), 1e-6 * want, rtol=1e-9, atol=0)
    zero = GCond(return_raw=True, zero_tol=0.0)
    assert torch.equal(zero(torch.zeros(3, 4)), torch.zeros(4))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), tasks=st.integers(2, 5), c=st.floats(1e-2, 1e3))
def test_scale_and_order(seed: int, tasks: int, c: float) -> None:
    one, scaled = (GCond(eps=0.0, tie_weights=(1.0, 0.0)) for _ in range(2))
    for step in range(2):
        J = draw(tasks, 9, seed + step, pull=1.0)
        torch.testing.assert_close(scaled(c * J), c * one(J), rtol=1e-9, atol=1e-9 * c)
    # the strength alone has no ties: the order of the tasks is no matter
    want = GCond(tie_weights=(0.0, 1.0))(J)
    order = torch.randperm(tasks, generator=torch.Generator().manual_seed(seed))
    found = GCond(tie_weights=(0.0, 1.0))(J[order])
    torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-9)


def test_ties_go_to_the_earlier_task() -> None:
    aggregator = GCond()
    aggregator(pair(2.5))
    assert aggregator.stats.winners[0] == 0


def test_rounds_are_bounded() -> None:
    J = draw(6, 3, 4)
    for limit in (1, 2):
        aggregator = GCond(max_iters=limit)
        aggregator(J)
        assert aggregator.stats.rounds == limit


# ---------------------------------------------------------------- state


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    rows = [draw(3, 6, seed, pull=1.0) for seed in range(8)]
    whole = GCond()
    want = [whole(J) for J in rows]
    first = GCond()
    for J in rows[:4]:
        first(J)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second = GCond()
    second.load_state_dict(torch.load(buffer, weights_only=True))
    twin = copy.deepcopy(first)
    for J, out in zip(rows[4:], want[4:], strict=True):
        assert torch.equal(second(J), out)
        assert torch.equal(twin(J), out)
    assert second.history == whole.history
    second.load_state_dict(GCond().state_dict())
    assert torch.equal(second(rows[0]), want[0])
    whole.reset()
    assert torch.equal(whole(rows[0]), want[0])


def test_a_narrower_window_takes_what_fits() -> None:
    wide, narrow = GCond(dominance_window=3), GCond(dominance_window=1)
    for _ in range(3):
        wide(pair(2.5))
    narrow.load_state_dict(wide.state_dict())
    assert narrow.history == wide.history[-1:]
    off = GCond(dominance_window=0)
    off.load_state_dict(wide.state_dict())
    assert off.history == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_dtypes_of_rows_and_of_state(dtype: torch.dtype) -> None:
    J = draw(3, 20, 0, pull=1.0)
    want = GCond()(J)
    out = (aggregator := GCond())(J.to(dtype))
    assert out.dtype == aggregator.previous.dtype == aggregator.momentum_buffer.dtype == dtype
    torch.testing.assert_close(out.double(), want, rtol=0.05, atol=0.05)
    narrow = GCond(state_dtype=dtype)
    assert narrow(J).dtype == torch.float64
    assert narrow.previous.dtype == dtype
    torch.testing.assert_close(narrow(J), want, rtol=0.05, atol=0.05)


def test_what_is_not_finite_leaves_the_state() -> None:
    aggregator = GCond()
    good = draw(3, 5, 0, pull=1.0)
    aggregator(good)
    kept = copy.deepcopy(aggregator.state_dict())
    for value in (float("nan"), float("inf")):
        bad = good.clone()
        bad[1, 2] = value
        with pytest.raises(NonFiniteGradientError, match="task 1 is not finite") as caught:
            aggregator(bad)
        assert caught.value.tasks == (1,)
    with pytest.raises(NonFiniteGradientError):
        aggregator(torch.full((3, 5), 1e300, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"shape \(2, 5\), the state \(3, 5\): call reset"):
        aggregator(good[:2])
    after = aggregator.state_dict()
    assert after["_extra_state"] == kept["_extra_state"]
    assert torch.equal(after["previous"], kept["previous"])
    assert torch.equal(after["momentum_buffer"], kept["momentum_buffer"])


def test_it_works_in_the_driver_and_keeps_no_parameter() -> None:
    trunk = torch.nn.Linear(2, 2)
    driver, aggregator = TaskGradients(trunk.parameters()), GCond(lion=True)
    aggregator.follow(trunk.parameters())
    z = trunk(torch.ones(1, 2))
    driver.backward([z[0, 0], z[0, 1]], aggregator)
    assert float(trunk.weight.grad.abs().max()) <= 1e-2
    assert not list(aggregator.parameters()), "what is followed is no part of the module"


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "error", "fragment"),
    [
        ({"thresholds": (-0.5, 0.0)}, ValueError, r"thresholds must be 3 numbers"),
        ({"thresholds": (-0.5, -0.8, 0.0)}, ValueError, "critical <= main <= weak"),
        ({"thresholds": (-1.5, -0.5, 0.0)}, ValueError, r"in \[-1, 1\]"),
        ({"thresholds": (-0.8, math.nan, 0.0)}, ValueError, "thresholds must be 3 numbers"),
        ({"thresholds": 1.0}, TypeError, "thresholds must be 3 numbers"),
        ({"remap_power": 0}, ValueError, "remap_power must be finite and above 0, got 0"),
        ({"momentum": 1.0}, ValueError, r"momentum must be in \[0, 1\), got 1.0"),
        ({"norm_beta": -0.1}, ValueError, r"norm_beta must be in \[0, 1\)"),
        ({"norm_cap": 0.0}, ValueError, "norm_cap"),
        ({"trust_coef": 0.0}, ValueError, "trust_coef"),
        ({"trust_clip": -1.0}, ValueError, "trust_clip"),
        ({"max_iters": 0}, ValueError, "max_iters must be at least 1, got 0"),
        ({"max_iters": 1.5}, TypeError, "max_iters must be an integer, got float"),
        ({"dominance_window": -1}, ValueError, "dominance_window must be at least 0"),
        ({"dominance_window": True}, TypeError, "dominance_window must be an integer"),
        ({"dominance": "win"}, ValueError, "'yield' or 'keep', got 'win'"),
        ({"tie_weights": (0.0, 0.0)}, ValueError, "positive sum"),
        ({"tie_weights": (-1.0, 2.0)}, ValueError, "at least 0"),
        ({"remember": "all"}, ValueError, "'projected' or 'raw'"),
        ({"conflict_tol": -1e-9}, ValueError, "conflict_tol"),
        ({"eps": math.inf}, ValueError, "eps must be finite"),
        ({"zero_tol": 1.0}, ValueError, r"zero_tol must be in \[0, 1\)"),
        ({"state_dtype": torch.int32}, ValueError, "state_dtype must be floating"),
        ({"state_dtype": "bf16"}, TypeError, "state_dtype must be a torch.dtype, got str"),
    ],
)
def test_bad_settings(arguments: dict, error: type[Exception], fragment: str) -> None:
    with pytest.raises(error, match=fragment):
        GCond(**arguments)


@pytest.mark.parametrize(
    ("jacobian", "error"),
    [
        (torch.ones(3), ValueError),
        (torch.ones(0, 3), ValueError),
        (torch.ones(2, 3, dtype=torch.int64), TypeError),
        (np.ones((2, 3)), TypeError),
    ],
)
def test_bad_jacobians(jacobian: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="jacobian"):
        GCond()(jacobian)


def test_reference_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match=r"unknown options \['zero_tol'\]"):
        VectorGCond(zero_tol=0.1)
