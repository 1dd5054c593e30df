"""GCond: who wins, what counts as a conflict, state, dtypes, errors."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.multitask.gcond_cases import draw, pair

from gradworks.multitask import GCond, NonFiniteGradientError, TaskGradients
from gradworks.multitask.gcond.reference import VectorGCond

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
