"""Where a study looks: quasi-random points, the same for every arm, mapped by the arm's space.

The points are drawn once for a workload, a column a knob *name*: arms that search the same knob
look at the same places (common random numbers). Trial 0 is always the published default.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gradworks.bench.experiment import Experiment, Knob, Workload
from gradworks.bench.streams import seed_sequence

__all__ = [
    "EDGE",
    "Position",
    "border",
    "params_at",
    "position_of",
    "unit_points",
    "value_at",
    "widen",
]

EDGE = 0.125  # outer part of a knob's range, on its own scale, that counts as its border

Position = tuple[float, ...]


def unit_points(experiment: Experiment, workload: Workload) -> dict[str, list[float]]:
    """Return ``tune_trials`` points of the unit cube, a column for every knob name.

    Args:
        experiment: Arms and the number of trials.
        workload: Its name seeds the points.
    """
    from scipy.stats import qmc

    names = list(dict.fromkeys(k.name for arm in experiment.arms_of(workload) for k in arm.space))
    if not names or not experiment.tune_trials:
        return {name: [] for name in names}
    import numpy as np

    rng = np.random.default_rng(seed_sequence(workload.name, 0, "search"))
    power = max(0, math.ceil(math.log2(experiment.tune_trials)))
    drawn = qmc.Sobol(len(names), scramble=True, rng=rng).random_base2(power)
    points = drawn[: experiment.tune_trials]
    return {name: [float(u) for u in points[:, column]] for column, name in enumerate(names)}


def _forward(knob: Knob, value: float) -> float:
    """Return ``value`` on the knob's own scale."""
    if knob.scale == "log":
        return math.log10(value)
    if knob.scale == "one_minus_log":
        return -math.log10(1.0 - value)
    return value


def _rounded(value: float) -> float:
    """Round to six digits: powers differ in the last ones between machines."""
    return float(f"{value:.6g}")


def value_at(knob: Knob, u: float) -> float:
    """Return the knob's value at ``u`` of its range.

    Args:
        knob: The knob.
        u: Position on its own scale, 0 at ``low``, 1 at ``high``.
    """
    low, high = _forward(knob, knob.low), _forward(knob, knob.high)
    at = low + u * (high - low)
    if knob.scale == "log":
        value = _rounded(10.0**at)
    elif knob.scale == "one_minus_log":
        value = 1.0 - _rounded(10.0**-at)
    else:
        value = _rounded(at)
    return min(max(value, knob.low), knob.high)


def position_of(knob: Knob, value: float) -> float:
    """Return where ``value`` lies in the knob's range: the inverse of :func:`value_at`.

    Args:
        knob: The knob.
        value: Inside its range.
    """
    low, high = _forward(knob, knob.low), _forward(knob, knob.high)
    return (_forward(knob, value) - low) / (high - low)


def params_at(
    space: Sequence[Knob], points: Mapping[str, Sequence[float]], trial: int
) -> tuple[dict[str, float], Position]:
    """Return the hyper-parameters of a trial and its position in the unit cube.

    Args:
        space: The arm's knobs.
        points: What :func:`unit_points` drew.
        trial: Position in the study; 0 is the published default.
    """
    if trial == 0:
        params = {knob.name: knob.default for knob in space}
        return params, tuple(position_of(knob, knob.default) for knob in space)
    position = tuple(points[knob.name][trial] for knob in space)
    return {k.name: value_at(k, u) for k, u in zip(space, position)}, position


def border(
    space: Sequence[Knob], tried: Sequence[Mapping[str, float]], best: Mapping[str, float]
) -> dict[str, str]:
    """Return the knobs at whose border the best point lies: ``{knob: "low" or "high"}``.

    A point lies there if it is in the outer eighth of the range on the knob's scale and nothing
    was tried further out. An end that cannot be moved (a linear knob at 0 or 1) is no border.

    Args:
        space: The arm's knobs.
        tried: Hyper-parameters of all trials of the study.
        best: Those of the best.
    """
    found = {}
    for knob in space:
        at = position_of(knob, best[knob.name])
        others = [position_of(knob, params[knob.name]) for params in tried]
        if at <= EDGE and at <= min(others):
            side = "low"
        elif at >= 1 - EDGE and at >= max(others):
            side = "high"
        else:
            continue
        if widen(knob, side) != knob:
            found[knob.name] = side
    return found


def widen(knob: Knob, side: str) -> Knob:
    """Return the knob with one end moved out: by a decade, a linear one by half its width.

    A linear knob that lies on one side of 0, or at or below 1, stays there; a momentum stays
    between 0 and 1.

    Args:
        knob: The knob.
        side: ``"low"`` or ``"high"``.
    """
    changes: dict[str, Any] = {}
    half = (knob.high - knob.low) / 2
    if knob.scale == "log":
        changes = {"low": knob.low / 10} if side == "low" else {"high": knob.high * 10}
    elif knob.scale == "one_minus_log":
        if side == "low":
            low = 1.0 - 10.0 * (1.0 - knob.low)
            changes = {"low": max(low, min(knob.low, 0.0))}
        else:
            changes = {"high": 1.0 - (1.0 - knob.high) / 10.0}
    elif side == "low":
        floor = 0.0 if knob.low >= 0 else -math.inf
        changes = {"low": max(knob.low - half, floor)}
    else:
        ceiling = 0.0 if knob.high <= 0 else 1.0 if knob.high <= 1 else math.inf
        changes = {"high": min(knob.high + half, ceiling)}
    return dataclasses.replace(knob, **changes)
