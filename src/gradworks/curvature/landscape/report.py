"""All views of one model: planes along several axes, scaled by several rules, and the criteria."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gradworks.curvature.lanczos import slq
from gradworks.curvature.landscape.batch_norm import MODES, PlaneMode, bn_difference
from gradworks.curvature.landscape.criteria import HessianCriteria, hessian_criteria
from gradworks.curvature.landscape.directions import (
    EigenDirections,
    adam_directions,
    hessian_directions,
    random_directions,
    trajectory_directions,
)
from gradworks.curvature.landscape.evaluating import Vectorize
from gradworks.curvature.landscape.grids import POINTS, centered_grid
from gradworks.curvature.landscape.normalization import RULES, Rule, normalize_direction
from gradworks.curvature.landscape.planes import loss_plane
from gradworks.curvature.landscape.surfaces import LossPlane
from gradworks.curvature.operators import HessianOperator
from gradworks.curvature.operators.layout import Selection
from gradworks.curvature.operators.model import LossFn, check_choice
from gradworks.curvature.quadrature import SpectralMeasure

__all__ = ["AXES", "LandscapeReport", "analyze"]

AXES = ("random", "hessian", "adam", "adam_step", "trajectory")
Axes = Literal["random", "hessian", "adam", "adam_step", "trajectory"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LandscapeReport:
    """Planes and criteria of one model.

    Attributes:
        planes: By ``"axes-rule-mode"``, e.g. ``"random-filter-eval"``.
        criteria: Numbers of the Hessian's spectrum, or ``None``.
        measure: The spectrum they are from, or ``None``.
        batch_norm: By ``"axes-rule"``: largest relative difference of the eval and the
            recalibrated plane, where both were measured.
        eigenvalues: Of the Hessian axes, or ``None``.
        loss: At the weights themselves, in eval mode.
    """

    planes: Mapping[str, LossPlane]
    criteria: HessianCriteria | None = None
    measure: SpectralMeasure | None = None
    batch_norm: Mapping[str, float] = field(default_factory=dict)
    eigenvalues: Tensor | None = None
    loss: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; the planes' own are in their files.

        Returns:
            Criteria, batch-norm differences, and a summary of each plane.
        """
        planes = {}
        for name, plane in self.planes.items():
            finite = plane.loss[plane.loss.isfinite()]
            planes[name] = {
                **plane.facts,
                "mode": plane.mode,
                "rule": plane.rule,
                "points": list(plane.loss.shape),
                "lowest": float(finite.min()) if len(finite) else None,
                "highest": float(finite.max()) if len(finite) else None,
                "nonfinite": plane.num_nonfinite,
            }
        return {
            "loss": self.loss,
            "criteria": None if self.criteria is None else self.criteria.to_dict(),
            "eigenvalues": None if self.eigenvalues is None else self.eigenvalues.tolist(),
            "batch_norm": dict(self.batch_norm),
            "planes": planes,
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write each plane as ``NAME.npz``.

        Args:
            folder: Created if missing.

        Returns:
            The files.
        """
        return [p.save(Path(folder) / f"{name}.npz") for name, p in self.planes.items()]

    def write_html(self, path: str | Path, *, title: str = "Loss landscape") -> Path:
        """Write one interactive page of all planes that needs nothing else.

        Args:
            path: The file, about 5 MB with plotly inside.
            title: Its heading.

        Returns:
            The file.

        Raises:
            ImportError: plotly is absent.
        """  # noqa: DOC502
        from gradworks.curvature.landscape.pages import write_page

        return write_page(self.planes, Path(path), title=title)


def analyze(
    model: nn.Module,
    loss_fn: LossFn,
    data: Any,
    *,
    axes: Sequence[Axes] = ("random", "hessian"),
    normalizations: Sequence[Rule | None] = (None, "weight", "filter"),
    criteria: bool = True,
    modes: Sequence[PlaneMode] = ("eval",),
    points: int = POINTS,
    distance: float = 1.0,
    calibration_data: Any = None,
    optimizer: torch.optim.Optimizer | None = None,
    checkpoints: Sequence[Mapping[str, Tensor] | nn.Module] | None = None,
    params: Selection = None,
    order: Literal[1, 2] = 2,
    one_dimensional: Literal["tensor", "zero", "weight"] = "tensor",
    n: float = 0.5,
    num_steps: int = 100,
    num_probes: int = 2,
    microbatch_size: int | None = None,
    vectorize: Vectorize = "auto",
    generator: torch.Generator | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> LandscapeReport:
    """Measure planes along several axes under several rules, and the criteria of the spectrum.

    Args:
        model: The model; left as it is.
        loss_fn: ``(output, target) -> scalar``, a mean over the batch.
        data: One ``(inputs, targets)`` tuple or a re-iterable of them.
        axes: Some of ``"random"``, ``"hessian"`` (top two), ``"adam"`` (moments as axes),
            ``"adam_step"`` (moments under Adam's own update, no rule), ``"trajectory"``.
        normalizations: Rules for :func:`normalize_direction`, ``None`` for none.
        criteria: Whether to measure the spectrum and its criteria.
        modes: Some of ``"eval"``, ``"train"``, ``"recalibrate"``; side by side they show what
            batch norm does to the picture.
        points: A side of the plane. Default 41.
        distance: Half of its width.
        calibration_data: For ``"recalibrate"``; default ``data``.
        optimizer: For the adam axes.
        checkpoints: For the trajectory, in the order of time.
        params: Parameters that random and Hessian axes move.
        order: For the rules.
        one_dimensional: For the rules.
        n: Order of the criterion.
        num_steps: Lanczos steps a probe.
        num_probes: Probes.
        microbatch_size: For the Hessian's products.
        vectorize: As for :func:`loss_plane`.
        generator: Of random axes and probes; ``None`` for a fresh one with seed 0.
        folder: Planes are written here row by row, and gone on with when they are there.
        progress: Called with (points done, points of all planes).

    Returns:
        Planes, criteria and what batch norm does.

    Raises:
        TypeError: A model, loss or data of a wrong type.
        ValueError: Unknown axes, rules or modes, axes without the optimizer or the checkpoints
            they need, or what :func:`loss_plane` and :func:`hessian_criteria` refuse.

    Example:
        >>> import torch
        >>> from gradworks.curvature.landscape import analyze
        >>> model = torch.nn.Linear(3, 2)
        >>> data = (torch.randn(16, 3), torch.arange(16) % 2)
        >>> report = analyze(
        ...     model, torch.nn.functional.cross_entropy, data, normalizations=["filter"], points=5
        ... )
        >>> list(report.planes)
        ['random-filter-eval', 'hessian-filter-eval']
    """  # noqa: DOC502
    for name, chosen, allowed in (("axes", axes, AXES), ("modes", modes, MODES)):
        if isinstance(chosen, str) or len(chosen) == 0:
            raise ValueError(f"{name} must be a list of at least one of {', '.join(allowed)}")
        for one in chosen:
            check_choice(name, one, allowed)
    if isinstance(normalizations, str) or len(normalizations) == 0:
        raise ValueError(f"normalizations must be a list of None, {', '.join(RULES)}")
    for rule in normalizations:
        if rule is not None:
            check_choice("normalizations", rule, RULES)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    given = _Given(model, loss_fn, data, optimizer, checkpoints, params, microbatch_size, generator)
    measure = found = None
    if criteria:
        with HessianOperator(
            model, loss_fn, data, params=params, microbatch_size=microbatch_size
        ) as hessian:
            steps = min(num_steps, hessian.dimension)
            measure = slq(hessian, num_steps=steps, num_probes=num_probes, generator=generator)
        found = hessian_criteria(measure, n)
    eigenvalues: Tensor | None = None
    pairs: dict[str, list[dict[str, Tensor]]] = {}
    for kind in axes:
        pairs[kind] = given.directions(kind)
        if isinstance(pairs[kind], EigenDirections):
            eigenvalues = pairs[kind].values.detach().cpu()  # type: ignore[attr-defined]
    views: list[tuple[str, Rule | None, PlaneMode]] = [
        (kind, rule, mode)
        for kind in pairs
        for rule in ((None,) if kind == "adam_step" else normalizations)
        for mode in modes
    ]
    at = centered_grid(points, distance)
    planes: dict[str, LossPlane] = {}
    for i, (axis, rule, mode) in enumerate(views):
        name = f"{axis}-{rule or 'none'}-{mode}"
        scaled = [
            normalize_direction(d, model, rule, order=order, one_dimensional=one_dimensional)
            for d in pairs[axis]
        ]
        step = axis == "adam_step"
        plane = loss_plane(
            model,
            loss_fn,
            data,
            *scaled,
            alphas=at,
            betas=torch.linspace(0.1, 2.1, points, dtype=torch.float64) if step else at,
            mode=mode,
            rule="adam" if step else "add",
            calibration_data=data if calibration_data is None else calibration_data,
            vectorize=vectorize,
            resume=None if folder is None else Path(folder) / f"{name}.npz",
            progress=_shifted(progress, i, len(views)),
        )
        facts = {
            **plane.facts,
            "axes": axis,
            "normalization": rule,
            "labels": [axis, rule or "no rule"],
            "zero_blocks": [dict(d.zero_blocks) for d in scaled],
        }
        planes[name] = replace(plane, facts=facts)
    differences = {
        f"{kind}-{rule or 'none'}": bn_difference(
            planes[f"{kind}-{rule or 'none'}-eval"],
            planes[f"{kind}-{rule or 'none'}-recalibrate"],
        )
        for kind, rule, mode in views
        if mode == "eval" and "recalibrate" in modes
    }
    with HessianOperator(model, loss_fn, data, params=params) as center:
        loss = float(center.loss())
    return LandscapeReport(planes, found, measure, differences, eigenvalues, loss)


def _shifted(progress: Progress | None, index: int, count: int) -> Progress | None:
    """Progress over all planes, which are of one size."""
    if progress is None:
        return None
    return lambda done, total: progress(index * total + done, count * total)


@dataclass(frozen=True)
class _Given:
    """What axes are made from."""

    model: nn.Module
    loss_fn: LossFn
    data: Any
    optimizer: torch.optim.Optimizer | None
    checkpoints: Sequence[Mapping[str, Tensor] | nn.Module] | None
    params: Selection
    microbatch_size: int | None
    generator: torch.Generator

    def directions(self, kind: str) -> list[dict[str, Tensor]]:
        """Two directions."""
        if kind == "random":
            return random_directions(self.model, params=self.params, generator=self.generator)
        if kind == "hessian":
            return hessian_directions(
                self.model,
                self.loss_fn,
                self.data,
                params=self.params,
                microbatch_size=self.microbatch_size,
            )
        if kind == "trajectory":
            if self.checkpoints is None:
                raise ValueError("axes 'trajectory' needs checkpoints=")
            return trajectory_directions(self.checkpoints, model=self.model)
        if self.optimizer is None:
            raise ValueError(f"axes {kind!r} needs optimizer=")
        return adam_directions(self.optimizer, self.model)
