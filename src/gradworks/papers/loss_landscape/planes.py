"""Planes through the weights: axes, normalisations and the modes of batch normalisation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradworks.papers.loss_landscape.networks import normed, params_of, weight_before_norm
from gradworks.papers.loss_landscape.presets import RULES

if TYPE_CHECKING:
    from torch import Tensor

    from gradworks.curvature.landscape import LossPlane
    from gradworks.curvature.landscape.batch_norm import PlaneMode
    from gradworks.papers.loss_landscape.session import Session

__all__ = ["Planes"]

Direction = Mapping[str, "Tensor"]
Pair = tuple[Direction, Direction]

MODES: tuple[PlaneMode, ...] = ("eval", "train", "recalibrate")
_TWO: tuple[PlaneMode, ...] = ("eval", "recalibrate")
# Smallest gap that is told from rounding in float32.
_LEAST_GAP = 1e-6


class Planes:
    """The planes of one trained network, on one batch of what it was trained on.

    Args:
        session: The network.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._norm = normed(session.model)
        images, labels = session.train
        first = int(session.spec["plane_batch"])
        last = first + int(session.spec["calibration_batch"])
        self._data = images[:first], labels[:first]
        self._calibration = images[first:last], labels[first:last]
        self._weights = params_of(session.model)
        self._raw: dict[str, Pair] = {}

    # -- axes ----------------------------------------------------------------------------------

    def _axes(self, name: str) -> Pair:
        """Two axes as they come, before any normalisation."""
        if name not in self._raw:
            a, b = self._found(name)
            self._raw[name] = a, b
        return self._raw[name]

    def _found(self, name: str) -> Any:
        import torch.nn.functional as F

        from gradworks.curvature import landscape

        session = self._session
        if name == "random":
            made = session.generator("directions")
            return landscape.random_directions(session.model, 2, generator=made)
        if name == "trajectory":
            return landscape.trajectory_directions(session.snapshots)
        if name == "adam":
            return landscape.adam_directions(session.optimizer, session.model)
        return landscape.hessian_directions(
            session.model,
            F.cross_entropy,
            self._data,
            which="top_bottom" if name == "top_bottom" else "LA",
            k=2,
            mode="train" if name == "hessian_batch" else "eval",
            tol=1e-4,
            generator=session.generator("eigenvectors"),
        )

    def _normalized(self, pair: Pair, rule: Any) -> Pair:
        from gradworks.curvature.landscape import normalize_direction

        a, b = (normalize_direction(d, self._weights, rule) for d in pair)
        return a, b

    # -- planes --------------------------------------------------------------------------------

    def _plane(self, pair: Pair, mode: PlaneMode, points: int) -> LossPlane:
        import torch.nn.functional as F

        from gradworks.curvature.landscape import centered_grid, loss_plane

        grid = centered_grid(points, float(self._session.spec["distance"]))
        return loss_plane(
            self._session.model,
            F.cross_entropy,
            self._data,
            *pair,
            alphas=grid,
            betas=grid,
            mode=mode,
            calibration_data=self._calibration if mode == "recalibrate" else None,
        )

    def _compared(
        self, name: str, pair: Pair, modes: Sequence[PlaneMode] = MODES
    ) -> dict[str, float]:
        """A plane in some modes: its slice for the figures, and how far the modes are apart."""
        points = int(self._session.spec["points"])
        planes = {
            mode: self._plane(pair, mode, points) for mode in (modes if self._norm else MODES[:1])
        }
        for mode, plane in planes.items():
            for i, value in enumerate(plane.loss[:, points // 2].tolist()):
                self._session.trial.log(i, split="train", **{f"slice_{name}_{mode}": value})
        numbers = {"rise": _rise(planes["eval"])}
        if "recalibrate" in planes:
            numbers["gap"] = _gap(planes["eval"], planes["recalibrate"])
            numbers |= _other_gaps(planes["eval"], planes["recalibrate"])
        if "train" in planes:
            numbers["gap_train"] = _gap(planes["eval"], planes["train"])
        return numbers

    def random(self) -> dict[str, float]:
        """Random directions, normalised by filters."""
        return self._compared("random", self._normalized(self._axes("random"), "filter"))

    def random_short(self) -> dict[str, float]:
        """The same at the length of eigenvectors."""
        a, b = (_unit(d) for d in self._normalized(self._axes("random"), "filter"))
        return self._compared("random_short", (a, b), _TWO)

    def hessian(self) -> dict[str, float]:
        """The two leading eigenvectors, of length 1."""
        return self._compared("hessian", self._axes("hessian"))

    def hessian_long(self) -> dict[str, float]:
        """The same at the length of the weights."""
        pair = self._normalized(self._axes("hessian"), "model")
        return self._compared("hessian_long", pair)

    def hessian_batch(self) -> dict[str, float]:
        """Eigenvectors of the Hessian under batch statistics, at the length of the weights."""
        pair = self._normalized(self._axes("hessian_batch"), "model")
        return self._compared("hessian_batch", pair, _TWO)

    def table(self, axes: str) -> dict[str, float]:
        """One kind of axes under every normalisation, on a coarse grid.

        Args:
            axes: Which.

        Returns:
            The rise of the loss and, with batch norm, the gap between the modes, for each rule.
        """
        points = int(self._session.spec["table_points"])
        numbers = {}
        for rule in RULES:
            pair = self._normalized(self._axes(axes), rule)
            still = self._plane(pair, "eval", points)
            numbers[f"rise_{rule or 'none'}"] = _rise(still)
            if self._norm:
                again = self._plane(pair, "recalibrate", points)
                numbers[f"gap_{rule or 'none'}"] = _gap(still, again)
        return numbers

    def scaling(self) -> dict[str, float]:
        """The first layer scaled by 0.5 to 3, which batch norm behind it undoes.

        Returns:
            Largest less smallest loss, in each mode.
        """
        import torch
        import torch.nn.functional as F

        from gradworks.curvature.landscape import loss_line

        numbers = {}
        for mode in MODES:
            line = loss_line(
                self._session.model,
                F.cross_entropy,
                self._data,
                weight_before_norm(self._session.model),
                alphas=torch.linspace(-0.5, 2.0, 11),
                mode=mode,
                calibration_data=self._calibration if mode == "recalibrate" else None,
            )
            numbers[f"spread_{mode}"] = float(line.loss.max() - line.loss.min())
        return numbers


def _unit(direction: Direction) -> dict[str, Tensor]:
    """The direction at length 1."""
    length = math.sqrt(sum(float((t.double() ** 2).sum()) for t in direction.values()))
    return {name: t / length for name, t in direction.items()}


def _rise(plane: LossPlane) -> float:
    """How far the loss climbs above the centre."""
    middle = len(plane.loss) // 2
    return float(plane.loss.max() - plane.loss[middle, middle])


def _gap(still: LossPlane, fresh: LossPlane) -> float:
    """The largest relative difference; the warning is what is measured here."""
    from gradworks.curvature.landscape import bn_report

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return max(float(bn_report(still, fresh)), _LEAST_GAP)


def _other_gaps(still: LossPlane, fresh: LossPlane) -> dict[str, float]:
    """Two measures that no small loss near the centre can inflate."""
    difference = (still.loss - fresh.loss).abs()
    height = float(fresh.loss.max() - fresh.loss.min())
    return {
        "gap_median": max(float((difference / fresh.loss.abs()).median()), _LEAST_GAP),
        "gap_height": max(float(difference.max()) / height, _LEAST_GAP),
    }
