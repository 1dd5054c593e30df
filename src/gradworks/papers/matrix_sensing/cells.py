"""The runs inside one trial: kept over a kill, each from a generator of its own name."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gradworks.bench.trial import Trial
    from gradworks.solvers.matrix_sensing import SensingResult

__all__ = ["Cells", "errors_of", "log_curve", "second_moments", "slope", "spaced"]

CURVE = 60  # points of a stored curve
POINTS = 100  # of a fit on logarithmic axes
FLOOR = 1e-32  # errors below it are rounding


class Cells:
    """Runs the cells of a trial; those that a checkpoint holds are not run again.

    Args:
        trial: The trial.

    Attributes:
        trial: As given.
        spec: What the workload says.
    """

    def __init__(self, trial: Trial) -> None:
        import torch

        self.trial = trial
        self.spec: Mapping[str, Any] = trial.spec
        saved = trial.resume() or {}
        self._done: dict[str, dict[str, float]] = dict(saved.get("cells", {}))
        root = saved.get("root")
        if root is None:
            root = int(torch.randint(2**62, (), generator=trial.generator("root")))
        self._root = int(root)

    def generator(self, name: str) -> torch.Generator:
        """Return a new generator by name: the same before and after a kill, and for every arm.

        Args:
            name: Cells that give the same name see the same matrix and start.
        """
        import torch

        return torch.Generator().manual_seed((self._root + zlib.crc32(name.encode())) % 2**62)

    def run(
        self, name: str, cell: Callable[..., dict[str, float]], *given: Any
    ) -> dict[str, float]:
        """Run a cell, or take what it came to, and give its figures under names with its own.

        Args:
            name: Its name.
            cell: Called with these cells and what is given; returns its figures.
            *given: Other arguments.
        """
        if name not in self._done:
            self._done[name] = cell(self, *given)
            self.trial.tick(len(self._done), self._state)
        found = self._done[name]
        self.result(**{f"{metric}_{name}": value for metric, value in found.items()})
        return found

    def result(self, **figures: float) -> None:
        """Give figures of the whole trial.

        Args:
            **figures: Names and values.
        """
        self.trial.result("valid" if self.trial.kind == "tune" else "test", **figures)

    def _state(self) -> dict[str, Any]:
        return {"root": self._root, "cells": self._done}


def spaced(iterations: Sequence[int], low: float, high: float, points: int) -> list[int]:
    """Return positions of records whose iterations are evenly spaced in their logarithm.

    Args:
        iterations: Increasing.
        low: First iteration, at least 1.
        high: Last one.
        points: At most so many; fewer where records are sparse.
    """
    import bisect

    last = len(iterations) - 1
    wanted = [low * (high / low) ** (i / (points - 1)) for i in range(points)]
    return sorted({min(bisect.bisect_left(iterations, w), last) for w in wanted})


def errors_of(result: SensingResult) -> Tensor:
    """Return the error curve of a run.

    Args:
        result: The run.

    Raises:
        ValueError: If it had no target.
    """
    if result.errors is None:
        raise ValueError("result must come from a run with a target, this one has no errors")
    return result.errors


def slope(result: SensingResult, low: float, high: float) -> float:
    """Return the slope of log error on log T between two iterations, each decade alike.

    Args:
        result: A run with a target.
        low: First iteration that counts.
        high: Last one.
    """
    from gradworks.bench.statistics import fit_slope

    errors, times = errors_of(result), result.iterations.tolist()
    rows = spaced(times, low, high, POINTS)
    return fit_slope([float(times[i]) for i in rows], [float(errors[i]) for i in rows])


def log_curve(trial: Trial, name: str, result: SensingResult) -> None:
    """Keep some points of an error curve.

    Args:
        trial: Where.
        name: Of the metric.
        result: A run with a target.
    """
    errors, times = errors_of(result), result.iterations.tolist()
    first = next(t for t in times if t > 0)
    for i in [0, *spaced(times, first, times[-1], CURVE)]:
        value = float(errors[i])
        if math.isfinite(value):
            trial.log(times[i], split="train", **{name: max(value, FLOOR)})


def second_moments(rank: int) -> tuple[Tensor, float]:
    """Return the second moments of the digits cut to a rank, and the smallest singular value kept.

    Args:
        rank: How many are kept.

    Returns:
        A 64 x 64 matrix whose largest singular value is 1.
    """
    import torch

    from gradworks.bench import data

    X, _, _ = data.digits()
    rows = torch.tensor(X).double().flatten(1)
    values, vectors = torch.linalg.eigh(rows.mT @ rows / len(rows))
    values = values[-rank:] / values[-1]
    kept = vectors[:, -rank:]
    return (kept * values) @ kept.mT, float(values[0])
