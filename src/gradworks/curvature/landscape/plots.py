"""Matplotlib views of lines and planes; matplotlib is imported when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradworks.curvature.landscape.surfaces import LossLine, LossPlane
from gradworks.curvature.operators.model import check_choice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_line", "draw_plane"]

KINDS = ("surface", "contour", "heatmap")
_MAP = "viridis"
_INK = "#3b6ea5"
_ACCENT = "#c8553d"
_LEVELS = 24


def _axes(ax: Axes | None, projection: str | None = None) -> Any:
    """The caller's axes, or new ones that no window manager knows of."""
    if ax is not None:
        if projection is not None and not hasattr(ax, "get_zlim"):
            raise ValueError("a surface needs 3-D axes: add_subplot(projection='3d'), or ax=None")
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "gradworks[plots]"') from error
    return Figure(figsize=(6.5, 5), layout="constrained").add_subplot(projection=projection)


def draw_line(line: LossLine, ax: Axes | None, label: str | None) -> Axes:
    """Draw a line; gaps where the loss is not finite."""
    axes = _axes(ax)
    loss = line.loss.where(line.loss.isfinite(), torch.nan)
    axes.plot(line.alpha.numpy(), loss.numpy(), color=_INK if label is None else None, label=label)
    axes.set_xlabel("alpha")
    axes.set_ylabel("loss")
    if label is not None:
        axes.legend()
    return axes  # type: ignore[no-any-return]


def heights(plane: LossPlane, *, log: bool, cap: float | None) -> Tensor:
    """What is drawn: clipped, and under ``log`` on a scale of powers of ten."""
    loss = plane.clip(cap).loss
    if not log:
        return loss
    positive = loss[loss > 0]
    floor = float(positive.min()) if len(positive) else 1.0
    return loss.clamp_min(floor).log10()


def draw_plane(
    plane: LossPlane,
    kind: str,
    ax: Axes | None,
    *,
    log: bool,
    cap: float | None,
    path: Tensor | None,
) -> Axes:
    """Draw a plane as a surface, contours or a map of colours."""
    check_choice("kind", kind, KINDS)
    x, y = (t.numpy() for t in plane.mesh())
    z = heights(plane, log=log, cap=cap).numpy()
    name = "log10 loss" if log else "loss"
    axes: Any
    if kind == "surface":
        axes = _axes(ax, "3d")
        axes.plot_surface(x, y, z, cmap=_MAP, linewidth=0, antialiased=True)
        axes.set_zlabel(name)
    else:
        axes = _axes(ax)
        if kind == "contour" and min(z.shape) > 1:
            filled = axes.contourf(x, y, z, levels=_LEVELS, cmap=_MAP)
            axes.contour(x, y, z, levels=_LEVELS, colors="white", linewidths=0.4, alpha=0.6)
        else:
            filled = axes.pcolormesh(x, y, z, shading="nearest", cmap=_MAP)
        axes.figure.colorbar(filled, ax=axes, label=name)
        axes.plot([0], [0], "+", color=_ACCENT, markersize=10)
        if path is not None:
            way = path.detach().cpu().numpy()
            axes.plot(way[:, 0], way[:, 1], ".-", color=_ACCENT, linewidth=1)
    axes.set_xlabel("alpha")
    axes.set_ylabel("beta")
    axes.set_title(", ".join([*plane.facts.get("labels", []), plane.mode]), fontsize=10)
    return axes  # type: ignore[no-any-return]
