"""Maps: heights over a plane, drawn twice like the figures of :mod:`gradworks.report.plots`.

A map is data: ``id``, ``title``, ``caption``, labels, and ``map`` with ``x``, ``y`` and the rows
``z`` (one a value of ``y``). Missing heights are gaps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradworks.report.palette import LIGHT, Palette

__all__ = ["plotly_map", "write_map"]

_LEVELS = 24
_SIZE = (7.0, 5.2)  # inches


def _log_heights(heights: Mapping[str, Any]) -> list[list[float]]:
    """Base-10 logarithms; NaN where there is none."""
    nan = math.nan
    return [[nan if v is None or v <= 0 else math.log10(v) for v in row] for row in heights["z"]]


def write_map(figure: Mapping[str, Any], path: Path, palette: Palette = LIGHT) -> None:
    """Draw one map; the ending of ``path`` chooses PNG or SVG. The same map gives the same bytes.

    Args:
        figure: The map.
        path: ``….png`` or ``….svg``.
        palette: Colours of everything but the heights.

    Raises:
        ImportError: matplotlib is absent.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "gradworks[plots]"') from error
    heights = figure["map"]
    settings = {
        "svg.hashsalt": "gradworks",
        "svg.fonttype": "none",
        "font.size": 10,
        "axes.edgecolor": palette.faint,
        "axes.labelcolor": palette.ink,
        "text.color": palette.ink,
        "xtick.color": palette.faint,
        "ytick.color": palette.faint,
    }
    with mpl.rc_context(settings):
        canvas = Figure(figsize=_SIZE, layout="constrained", facecolor=palette.paper)
        FigureCanvasAgg(canvas)
        axes = canvas.add_subplot(facecolor=palette.paper)
        filled = axes.contourf(heights["x"], heights["y"], _log_heights(heights), _LEVELS)
        axes.plot([0], [0], "+", color=palette.tones[1], markersize=10)
        axes.set_title(figure["title"], loc="left", fontsize=11, fontweight="bold")
        axes.set_xlabel(figure["x_label"])
        axes.set_ylabel(figure["y_label"])
        axes.set_aspect("equal")
        canvas.colorbar(filled, ax=axes, label=figure["z_label"])
        svg = path.suffix == ".svg"
        metadata: dict[str, Any] = {"Date": None, "Creator": None} if svg else {"Software": None}
        canvas.savefig(path, dpi=160, metadata=metadata)


def plotly_map(figure: Mapping[str, Any]) -> dict[str, Any]:
    """Return a map as plotly's JSON: ``{"data": [...], "layout": {...}}``.

    Args:
        figure: The map.
    """
    heights = figure["map"]
    rows = [[None if math.isnan(v) else v for v in row] for row in _log_heights(heights)]
    contour = {
        "type": "contour",
        "x": list(heights["x"]),
        "y": list(heights["y"]),
        "z": rows,
        "colorscale": "Viridis",
        "ncontours": _LEVELS,
        "contours": {"coloring": "heatmap"},
        "line": {"width": 0.5},
        "colorbar": {"title": {"text": figure["z_label"]}},
        "hovertemplate": "%{x:.3g}, %{y:.3g}<br>%{z:.4g}<extra></extra>",
        "meta": {"part": "map"},
    }
    here = {
        "type": "scatter",
        "mode": "markers",
        "name": "the weights",
        "x": [0],
        "y": [0],
        "hoverinfo": "skip",
        "showlegend": False,
        "marker": {"symbol": "cross-thin-open", "size": 12},
        "meta": {"tone": 1, "part": "points"},
    }
    layout = {
        "xaxis": {"title": {"text": figure["x_label"], "standoff": 12}, "automargin": True},
        "yaxis": {"title": {"text": figure["y_label"], "standoff": 14}, "automargin": True},
        "showlegend": False,
        "hovermode": "closest",
    }
    return {"data": [contour, here], "layout": layout}
