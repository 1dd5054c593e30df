"""Where studies look: the same points for shared knobs, spaces, borders and how they move."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bench import toy

from gradworks.bench import Arm, Knob
from gradworks.bench.search import (
    border,
    params_at,
    position_of,
    unit_points,
    value_at,
    widen,
)

LR = Knob(name="lr", low=1e-3, high=1.0, default=0.03)
BETA = Knob(name="beta", low=0.9, high=0.999, default=0.99, scale="one_minus_log")
DROP = Knob(name="drop", low=0.0, high=0.5, default=0.1, scale="linear")

GOLDEN = [0.008288, 0.700655, 0.758722, 0.45109]


# -- points ----------------------------------------------------------------------------------


def points(**changes) -> dict[str, list[float]]:
    experiment = toy.experiment(**changes)
    return unit_points(experiment, experiment.workloads[0])


def test_points_fill_the_cube() -> None:
    for column in points(tune_trials=16).values():
        assert sorted(int(u * 16) for u in column) == list(range(16))


def test_points_are_those_of_every_run_and_machine() -> None:
    assert points(tune_trials=4) == points(tune_trials=4)
    assert [round(u, 6) for u in points(tune_trials=4)["lr"]] == GOLDEN


def test_arms_share_the_points_of_the_knobs_they_share() -> None:
    experiment = toy.experiment(tune_trials=8)
    ours, theirs = experiment.arms
    assert [k.name for k in ours.space] == ["lr", "decay"]
    assert [k.name for k in theirs.space] == ["lr"]
    found = unit_points(experiment, experiment.workloads[0])
    for trial in range(8):
        mine = params_at(ours.space, found, trial)[0]
        assert mine["lr"] == params_at(theirs.space, found, trial)[0]["lr"]


def test_the_points_do_not_depend_on_what_an_arm_makes_of_them() -> None:
    """A wider space of one arm must not move the points of another."""
    wide = dataclasses.replace(toy.LR, high=10.0)
    assert points(tune_trials=8) == points(tune_trials=8, a_space=(wide, toy.DECAY))


def test_trial_0_is_the_published_default() -> None:
    params, position = params_at((LR, BETA), {"lr": [0.9], "beta": [0.9]}, 0)
    assert params == {"lr": 0.03, "beta": 0.99}
    assert position == pytest.approx((math.log10(30) / 3, 0.5))


@pytest.mark.parametrize(("trials", "drawn"), [(1, 1), (3, 3), (5, 5), (8, 8)])
def test_any_number_of_trials(trials: int, drawn: int) -> None:
    found = points(tune_trials=trials)
    assert [len(column) for column in found.values()] == [drawn, drawn]
    eight = points(tune_trials=8)
    if trials == 5:  # a prefix of the next power of two
        assert found["lr"] == eight["lr"][:5]


def test_without_knobs_there_are_no_points() -> None:
    assert points(a_space=()) == {}
    assert points(tune_trials=0) == {"lr": [], "decay": []}


# -- scales ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knob", "u", "value"),
    [
        (LR, 0.0, 1e-3),
        (LR, 1.0, 1.0),
        (LR, 1 / 3, 0.01),
        (BETA, 0.0, 0.9),
        (BETA, 1.0, 0.999),
        (BETA, 0.5, 0.99),
        (DROP, 0.5, 0.25),
    ],
)
def test_values_on_their_scale(knob: Knob, u: float, value: float) -> None:
    assert value_at(knob, u) == pytest.approx(value, rel=1e-9)


@given(st.sampled_from([LR, BETA, DROP]), st.floats(0, 1))
def test_positions_are_the_inverse_and_values_stay_inside(knob: Knob, u: float) -> None:
    value = value_at(knob, u)
    assert knob.low <= value <= knob.high
    assert position_of(knob, value) == pytest.approx(u, abs=2e-5)


def test_values_have_six_digits() -> None:
    """The last bits of a power differ between machines; what is stored must not."""
    assert value_at(LR, 0.123456789) == float(f"{10 ** (-3 + 3 * 0.123456789):.6g}")


# -- borders ---------------------------------------------------------------------------------


def at(*positions: float) -> list[dict[str, float]]:
    return [{"lr": value_at(LR, u)} for u in positions]


@pytest.mark.parametrize(
    ("tried", "best", "found"),
    [
        ((0.05, 0.5, 0.95), 0.95, {"lr": "high"}),
        ((0.05, 0.5, 0.95), 0.05, {"lr": "low"}),
        ((0.05, 0.5, 0.95), 0.5, {}),
        ((0.05, 0.5, 0.9, 0.97), 0.9, {}),  # something further out was worse: the optimum is inside
        ((0.3, 0.5, 0.7), 0.7, {}),  # the outermost, yet far from the border
        ((1.0,), 1.0, {"lr": "high"}),
    ],
)
def test_the_border(tried: tuple[float, ...], best: float, found: dict[str, str]) -> None:
    assert border((LR,), at(*tried), at(best)[0]) == found


def test_an_end_that_cannot_move_is_no_border() -> None:
    tried = [{"drop": 0.0}, {"drop": 0.25}, {"drop": 0.5}]
    assert border((DROP,), tried, tried[0]) == {}
    assert border((DROP,), tried, tried[2]) == {"drop": "high"}


@pytest.mark.parametrize(
    ("knob", "side", "low", "high"),
    [
        (LR, "low", 1e-4, 1.0),
        (LR, "high", 1e-3, 10.0),
        (BETA, "high", 0.9, 0.9999),
        (BETA, "low", 0.0, 0.999),
        (dataclasses.replace(BETA, low=0.0, default=0.9), "low", 0.0, 0.999),
        (DROP, "high", 0.0, 0.75),
        (DROP, "low", 0.0, 0.5),
        (dataclasses.replace(DROP, high=0.9), "high", 0.0, 1.0),
        (dataclasses.replace(DROP, low=-1.0, high=-0.2, default=-0.5), "high", -1.0, 0.0),
        (dataclasses.replace(DROP, low=-1.0, high=3.0), "low", -3.0, 3.0),
        (dataclasses.replace(DROP, low=-1.0, high=3.0), "high", -1.0, 5.0),
    ],
)
def test_widening(knob: Knob, side: str, low: float, high: float) -> None:
    wider = widen(knob, side)
    assert (wider.low, wider.high) == pytest.approx((low, high))
    assert (wider.name, wider.default, wider.scale) == (knob.name, knob.default, knob.scale)


@given(st.sampled_from([LR, BETA, DROP]), st.sampled_from(["low", "high"]))
def test_a_wider_space_holds_the_one_before(knob: Knob, side: str) -> None:
    wider = widen(widen(knob, side), side)
    assert wider.low <= knob.low
    assert wider.high >= knob.high


def test_an_arm_without_a_shared_knob_has_its_own_column() -> None:
    experiment = toy.experiment(tune_trials=4)
    ours = dataclasses.replace(experiment.arms[0], space=(BETA,))
    mixed = dataclasses.replace(experiment, arms=(ours, experiment.arms[1]))
    assert isinstance(ours, Arm)
    assert list(unit_points(mixed, mixed.workloads[0])) == ["beta", "lr"]
