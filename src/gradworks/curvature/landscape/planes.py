"""The loss along a line and over a plane: tiles of rows, resumable, splittable over processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from gradworks.curvature.landscape.batch_norm import PlaneMode
from gradworks.curvature.landscape.directions import Direction
from gradworks.curvature.landscape.evaluating import PointLosses, Vectorize
from gradworks.curvature.landscape.grids import POINTS, centered_grid, check_axis
from gradworks.curvature.landscape.normalization import check_same
from gradworks.curvature.landscape.surfaces import LossLine, LossPlane
from gradworks.curvature.operators.model import LossFn, check_choice

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["loss_line", "loss_plane"]

Progress = Callable[[int, int], None]
Coordinates = Tensor | Sequence[float] | None

# Points of a tile where many are measured at once; progress is told, and a resumable file written,
# tile by tile.
_TILE = 512
_SECONDS = 0.5
# The authors' range of the square root's denominator under the rule "adam".
_ADAM_BETA = (0.1, 2.1)


def loss_line(
    model: nn.Module,
    loss_fn: LossFn,
    data: Any,
    direction: Direction,
    *,
    alphas: Coordinates = None,
    mode: PlaneMode = "eval",
    calibration_data: Any = None,
    vectorize: Vectorize = "auto",
    progress: Progress | None = None,
) -> LossLine:
    r"""The loss along a direction, :math:`L(\theta + \alpha d)`.

    Args:
        model: The model; left as it is.
        loss_fn: ``(output, target) -> scalar``, a mean over the batch.
        data: One ``(inputs, targets)`` tuple or a re-iterable of them.
        direction: By parameter name; parameters left out do not move.
        alphas: Coordinates, ``(A,)``; default 41 from -1 to 1.
        mode: As for :func:`loss_plane`.
        calibration_data: As there.
        vectorize: As there.
        progress: Called with (points done, points).

    Returns:
        Coordinates and losses.

    Raises:
        TypeError: A model, loss or data of a wrong type.
        ValueError: Empty coordinates, a direction that does not fit, an unknown mode,
            ``"recalibrate"`` without data, or empty data.

    Warns:
        UserWarning: ``"recalibrate"`` without batch norm.

    Example:
        >>> import torch
        >>> from gradworks.curvature.landscape import loss_line
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> data, direction = (torch.ones(1, 1), torch.zeros(1, 1)), {"weight": torch.ones(1, 1)}
        >>> mse = torch.nn.functional.mse_loss
        >>> loss_line(model, mse, data, direction, alphas=[-1.0, 0.0, 1.0]).loss.tolist()
        [0.0, 1.0, 4.0]
    """  # noqa: DOC502
    at = centered_grid() if alphas is None else check_axis("alphas", alphas)
    points = PointLosses(
        model,
        loss_fn,
        data,
        [direction],
        mode=mode,
        calibration_data=calibration_data,
        vectorize=vectorize,
    )
    found = []
    for tile in _tiles(list(range(len(at))), 1, points):
        found.append(points(at[tile][:, None]))
        if progress is not None:
            progress(sum(map(len, found)), len(at))
    return LossLine(at, torch.cat(found), mode)


def loss_plane(
    model: nn.Module,
    loss_fn: LossFn,
    data: Any,
    a: Direction,
    b: Direction,
    *,
    alphas: Coordinates = None,
    betas: Coordinates = None,
    mode: PlaneMode = "eval",
    rule: Literal["add", "adam"] = "add",
    eps: float = 1e-6,
    gamma: float = 1.0,
    b_sqrt: bool = True,
    calibration_data: Any = None,
    vectorize: Vectorize = "auto",
    rows: Iterable[int] | None = None,
    resume: str | Path | None = None,
    process_group: ProcessGroup | None = None,
    progress: Progress | None = None,
) -> LossPlane:
    r"""The loss over a plane through the weights.

    .. math:: \text{add: } L(\theta + \alpha a + \beta b), \qquad
        \text{adam: } L\Big(\theta + \gamma \frac{\alpha}{\sqrt\beta}
        \frac{a}{\sqrt{b} + \epsilon}\Big)

    Every point is computed from the saved weights; nothing is accumulated from point to point. The
    mean is over all examples of all batches. Non-finite losses are kept as ``inf``.

    Args:
        model: The model; left as it is: parameters, buffers, mode flags, ``.grad``, random state.
        loss_fn: ``(output, target) -> scalar``, a mean over the batch.
        data: One ``(inputs, targets)`` tuple or a re-iterable of them.
        a: First direction by parameter name (under ``"adam"``: the first moment).
        b: Second direction (there: the second moment).
        alphas: Coordinates of the rows, ``(A,)``; default 41 from -1 to 1.
        betas: Coordinates of the columns, ``(B,)``, or ``(A, B)`` if each row has its own; default
            as ``alphas``'s (under ``"adam"`` 41 from 0.1 to 2.1).
        mode: ``"eval"`` (stored batch-norm statistics), ``"train"`` (those of each batch), or
            ``"recalibrate"`` (estimated anew at each point). Dropout is off in all.
        rule: ``"add"`` or ``"adam"``.
        eps: Under ``"adam"``, 1e-6.
        gamma: Under ``"adam"``; 1 as in the authors' code, whose constant of 1e-3 is not used.
        b_sqrt: Under ``"adam"``: ``alpha / sqrt(beta)`` (default) or ``alpha / beta``.
        calibration_data: Data for the statistics under ``"recalibrate"``.
        vectorize: Many points at once by ``torch.vmap``: ``"auto"`` (default) where it pays and
            works, ``"always"`` or ``"never"``.
        rows: Only these rows; the others are ``nan``. Parts of several processes are put together
            by :meth:`LossPlane.merge`.
        resume: An ``.npz`` file that is written as rows are done and gone on with when it is there.
        process_group: Rows are dealt out to its processes; each returns the whole plane.
        progress: Called with (points done, points).

    Returns:
        Coordinates and losses.

    Raises:
        TypeError: A model, loss or data of a wrong type.
        ValueError: Empty coordinates, directions that do not fit the model or each other, an
            unknown mode or rule, negative second moments or ``beta <= 0`` under ``"adam"``,
            ``"recalibrate"`` without data, rows out of range, or a file of another plane.

    Warns:
        UserWarning: ``"recalibrate"`` without batch norm.

    Note:
        ``A B`` forward passes over the data. Memory: model and directions, and a few megabytes of
        activations.

    Example:
        >>> import torch
        >>> from gradworks.curvature.landscape import loss_plane, random_directions
        >>> model = torch.nn.Linear(2, 1)
        >>> data = (torch.randn(8, 2), torch.randn(8, 1))
        >>> a, b = random_directions(model)
        >>> at = torch.linspace(-1, 1, 5)
        >>> plane = loss_plane(model, torch.nn.functional.mse_loss, data, a, b, alphas=at, betas=at)
        >>> tuple(plane.loss.shape), plane.center is not None
        ((5, 5), True)
    """  # noqa: DOC502
    check_choice("rule", rule, ("add", "adam"))
    check_same(b, a)
    alpha, beta = _axes(alphas, betas, rule)
    directions: list[Direction] = [a, b]
    if rule == "adam":
        directions = [_step(a, b, beta, eps)]
    points = PointLosses(
        model,
        loss_fn,
        data,
        directions,
        mode=mode,
        calibration_data=calibration_data,
        vectorize=vectorize,
    )
    nothing = torch.full((len(alpha), beta.shape[-1]), math.nan, dtype=torch.float64)
    plane = LossPlane(alpha, beta, nothing, mode, rule)
    x, y = plane.mesh()
    if rule == "adam":
        coefficients = (gamma * x / (y.sqrt() if b_sqrt else y))[..., None]
    else:
        coefficients = torch.stack([x, y], dim=-1)
    todo = _rows(rows, len(alpha))
    if process_group is not None:
        rank, world = process_group.rank(), process_group.size()
        todo = todo[rank::world]
    file = None if resume is None else _part(Path(resume), process_group)
    if file is not None:
        plane = replace(plane, facts={"fingerprint": _fingerprint(points, coefficients)})
        plane = _continued(plane, file)
    plane = _measured(plane, points, coefficients, todo, file, progress)
    if process_group is not None:
        plane = replace(plane, loss=_gathered(plane.loss, points.device, process_group))
        if resume is not None and process_group.rank() == 0:
            plane.save(Path(resume))
    return plane


def _axes(alphas: Coordinates, betas: Coordinates, rule: str) -> tuple[Tensor, Tensor]:
    """Rows and columns; columns may differ from row to row."""
    alpha = centered_grid() if alphas is None else check_axis("alphas", alphas)
    if betas is None:
        if rule == "adam":
            return alpha, torch.linspace(*_ADAM_BETA, POINTS, dtype=torch.float64)
        return alpha, centered_grid() if alphas is None else alpha.clone()
    beta = torch.as_tensor(betas, dtype=torch.float64).detach().cpu()
    if beta.dim() == 2:
        if len(beta) != len(alpha):
            raise ValueError(
                f"betas must have {len(alpha)} rows or be a vector, got shape {tuple(beta.shape)}"
            )
        check_axis("betas", beta.reshape(-1))
    else:
        beta = check_axis("betas", beta)
    return alpha, beta


def _step(first: Direction, second: Direction, beta: Tensor, eps: float) -> dict[str, Tensor]:
    """Adam's direction of moments."""
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps!r}")
    if not bool((beta > 0).all()):
        raise ValueError(f"betas must be positive under rule='adam', got {float(beta.min()):g}")
    for name, moment in second.items():
        if bool((moment < 0).any()):
            raise ValueError(f"b[{name!r}] has negative entries; rule='adam' takes second moments")
    return {n: m.detach() / (second[n].detach().sqrt() + eps) for n, m in first.items()}


def _rows(rows: Iterable[int] | None, count: int) -> list[int]:
    """Which rows to measure, ascending."""
    if rows is None:
        return list(range(count))
    wanted = sorted({int(r) for r in rows})
    if not wanted or wanted[0] < 0 or wanted[-1] >= count:
        raise ValueError(f"rows must be some of 0..{count - 1}, got {wanted[:3]}")
    return wanted


def _part(path: Path, group: ProcessGroup | None) -> Path:
    """Each process writes a file of its own."""
    path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
    if group is None:
        return path
    return path.with_name(f"{path.stem}.{group.rank()}-of-{group.size()}.npz")


def _fingerprint(points: PointLosses, coefficients: Tensor) -> list[float]:
    """Numbers that another model, other data, directions or points would change."""
    center = points(torch.zeros(1, coefficients.shape[-1], dtype=torch.float64))
    weights = torch.linspace(1, 2, coefficients.numel(), dtype=torch.float64)
    sums = [(coefficients.reshape(-1) * weights).sum()]
    for d in points.moves:
        sums += [sum((t.double().sum() for t in d.values()), center.new_zeros(())).cpu()]
        sums += [sum((t.double().norm() for t in d.values()), center.new_zeros(())).cpu()]
    return [float(v) for v in [*center, *sums]]


def _continued(plane: LossPlane, file: Path) -> LossPlane:
    """The plane with what an earlier run has measured."""
    if not file.exists():
        return plane
    before = LossPlane.load(file)
    mine, theirs = plane.facts["fingerprint"], before.facts.get("fingerprint", [])
    same = (
        (before.mode, before.rule) == (plane.mode, plane.rule)
        and before.loss.shape == plane.loss.shape
        and torch.equal(before.alpha, plane.alpha)
        and torch.equal(before.beta, plane.beta)
        and len(mine) == len(theirs)
        and all(math.isclose(u, v, rel_tol=1e-5, abs_tol=1e-9) for u, v in zip(mine, theirs))
    )
    if not same:
        raise ValueError(
            f"{file} holds another plane (coordinates, mode, weights, directions or data differ); "
            "remove it or give another file"
        )
    return replace(plane, loss=before.loss)


def _measured(
    plane: LossPlane,
    points: PointLosses,
    coefficients: Tensor,
    todo: list[int],
    file: Path | None,
    progress: Progress | None,
) -> LossPlane:
    """The plane with the wanted rows filled in, tile after tile."""
    loss = plane.loss.clone()
    columns = loss.shape[1]
    left = [r for r in todo if bool(loss[r].isnan().any())]
    done, total = (len(todo) - len(left)) * columns, len(todo) * columns
    for tile in _tiles(left, columns, points):
        found = points(coefficients[tile].reshape(-1, coefficients.shape[-1]))
        loss[tile] = found.view(len(tile), columns)
        plane = replace(plane, loss=loss)
        if file is not None:
            plane.save(file)
        done += len(tile) * columns
        if progress is not None:
            progress(done, total)
    return plane


def _tiles(rows: list[int], columns: int, points: PointLosses) -> Iterator[list[int]]:
    """Rows that are measured together.

    Many at once: always the same, since a product of another shape rounds otherwise. One by one:
    as many as fill about half a second.
    """  # noqa: DOC402
    height = max(1, _TILE // columns) if points.batched else 1
    low = 0
    while low < len(rows):
        start = time.perf_counter()
        yield rows[low : low + height]
        low += height
        if not points.batched:
            seconds = (time.perf_counter() - start) / height
            height = min(max(1, int(_SECONDS / max(seconds, 1e-9))), 4 * height)


def _gathered(loss: Tensor, device: torch.device, group: ProcessGroup) -> Tensor:
    """All rows on all processes: each point was measured by at most one of them."""
    measured = (~loss.isnan()).double().to(device)
    values = loss.nan_to_num(nan=0.0, posinf=math.inf).to(device)
    torch.distributed.all_reduce(measured, group=group)
    torch.distributed.all_reduce(values, group=group)
    return values.where(measured > 0, math.nan).cpu()
