"""Figures drawn twice: static with matplotlib (PNG, SVG), interactive as plotly's JSON.

A figure is data (:class:`gradworks.bench.figures.Figure` as a dictionary). The plotly half is plain
JSON and needs no library; matplotlib draws with its Agg and SVG canvases, never a window.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks.report.palette import LIGHT, Palette

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["file_stem", "plotly_figure", "write_picture", "write_pngs"]

_SIZE = (7.0, 4.2)  # inches
_DPI = 160
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = {"--": "dash", ":": "dot", "-.": "dashdot"}  # matplotlib's and plotly's names
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
# More points than this are drawn as an image inside an SVG.
_MANY = 2000
# A log axis that spans less than this has labelled ticks between the powers of ten.
_FEW_DECADES = 300.0

Numbers = Sequence[float | None]


def file_stem(text: str) -> str:
    """Return ``text`` as a safe part of a file name.

    Example:
        >>> file_stem("loss / epoch (log)")
        'loss-epoch-log'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "figure"


def write_pngs(result: Result, folder: Path) -> list[Path]:
    """Draw every figure of a result as a PNG.

    Args:
        result: With figures attached.
        folder: Created if missing; files are named for the figures.

    Returns:
        The files, in the figures' order.

    Raises:
        ImportError: matplotlib is absent.
    """  # noqa: DOC502
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for figure in result.document["figures"]:
        path = folder / f"{file_stem(figure['id'])}.png"
        write_picture(figure, path)
        paths.append(path)
    return paths


def write_picture(figure: Mapping[str, Any], path: Path, palette: Palette = LIGHT) -> None:
    """Draw one figure; the ending of ``path`` chooses PNG or SVG.

    The same figure gives the same bytes.

    Args:
        figure: ``Figure.to_dict()``.
        path: ``….png`` or ``….svg``.
        palette: Colours.

    Raises:
        ImportError: matplotlib is absent.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "gradworks[plots]"') from error
    settings = {
        "svg.hashsalt": "gradworks",
        "svg.fonttype": "none",
        "font.size": 10,
        "font.family": "sans-serif",
        "axes.edgecolor": palette.faint,
        "axes.labelcolor": palette.ink,
        "text.color": palette.ink,
        "xtick.color": palette.faint,
        "ytick.color": palette.faint,
        "legend.frameon": False,
    }
    with mpl.rc_context(settings):
        canvas = Figure(figsize=_SIZE, layout="constrained", facecolor=palette.paper)
        FigureCanvasAgg(canvas)
        axes = canvas.add_subplot(facecolor=palette.paper)
        _draw(axes, figure, palette)
        svg = path.suffix == ".svg"
        metadata: dict[str, Any] = {"Date": None, "Creator": None} if svg else {"Software": None}
        canvas.savefig(path, dpi=_DPI, metadata=metadata)


def _draw(axes: Any, figure: Mapping[str, Any], palette: Palette) -> None:
    """Put all series on matplotlib axes."""
    axes.set_title(figure["title"], loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(figure["x_label"])
    axes.set_ylabel(figure["y_label"])
    if figure.get("x_log"):
        axes.set_xscale("log")
    if figure.get("y_log"):
        axes.set_yscale("log")
    axes.grid(visible=True, color=palette.rule, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    categories = _categories(figure["series"])
    if categories:
        axes.set_xticks(range(len(categories)), categories)
        if max(map(len, categories)) * len(categories) > 70:
            axes.tick_params(axis="x", labelrotation=35)
            for label in axes.get_xticklabels():
                label.set_horizontalalignment("right")
    bars = sum(s["style"] == "bars" for s in figure["series"])
    for i, series in enumerate(figure["series"]):
        tone = palette.tones[i % len(palette.tones)]
        place = (_rank(figure, series), bars) if series["style"] == "bars" else (0, 1)
        _draw_series(axes, series, tone, i, place, figure, categories, palette)
    if len(figure["series"]) > 1:
        names = [series["name"] for series in figure["series"]]
        handles, labels = axes.get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda k: names.index(labels[k]))
        axes.legend([handles[k] for k in order], [labels[k] for k in order], fontsize=9)


def _draw_series(
    axes: Any,
    series: Mapping[str, Any],
    tone: str,
    index: int,
    place: tuple[int, int],
    figure: Mapping[str, Any],
    categories: Sequence[str],
    palette: Palette,
) -> None:
    """One series; missing values (None) are gaps."""
    nan = float("nan")
    y = [nan if v is None else v for v in series["y"]]
    x: list[Any] = [categories.index(str(v)) for v in series["x"]] if categories else series["x"]
    style = series["style"]
    ends = _ends(series, floor=_floor(figure) if figure.get("y_log") else None)
    errors = None
    if ends is not None:
        lo, hi = ([nan if v is None else v for v in side] for side in ends)
        errors = [
            [max(0.0, b - a) for a, b in zip(lo, y)],
            [max(0.0, b - a) for a, b in zip(y, hi)],
        ]
    if style == "reference":
        dash = list(_DASHES)[_rank(figure, series) % len(_DASHES)]
        axes.plot(x, y, dash, color=palette.faint, linewidth=1.2, label=series["name"])
    elif style == "line":
        axes.plot(x, y, color=tone, linewidth=1.8, label=series["name"])
        if ends is not None:
            axes.fill_between(x, lo, hi, color=tone, alpha=0.18, linewidth=0)
    elif style == "bars":
        number, count = place
        width = 0.8 * (1.0 if categories else _spacing(x)) / count
        at = [v + (number - (count - 1) / 2) * width for v in x]
        axes.bar(at, y, width, color=tone, label=series["name"])
        if errors is not None:
            axes.errorbar(at, y, errors, fmt="none", ecolor=palette.ink, capsize=3, linewidth=1)
    else:
        marker = _MARKERS[index % len(_MARKERS)]
        size = 5 if len(x) < 200 else 3
        axes.errorbar(
            x,
            y,
            errors,
            fmt=marker,
            markersize=size,
            color=tone,
            capsize=3,
            linewidth=1.2,
            label=series["name"],
            rasterized=len(x) > _MANY,
        )


def _rank(figure: Mapping[str, Any], series: Mapping[str, Any]) -> int:
    """How many series of the same style stand before this one."""
    same = [s for s in figure["series"] if s["style"] == series["style"]]
    return same.index(series)


def _spacing(x: Sequence[float]) -> float:
    """The smallest distance between two positions, 1 for a single one."""
    places = sorted(set(x))
    return min((b - a for a, b in pairwise(places)), default=1.0)


def _categories(series: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names on the x axis in order of appearance; none where positions are numbers."""
    if not any(isinstance(v, str) for s in series for v in s["x"]):
        return []
    return list(dict.fromkeys(str(v) for s in series for v in s["x"]))


def _ends(series: Mapping[str, Any], *, floor: float | None) -> tuple[Numbers, Numbers] | None:
    """Both ends of the intervals; on a log axis they stay above ``floor``."""
    lo, hi = series.get("lo"), series.get("hi")
    if lo is None or hi is None:
        return None
    if floor is not None:
        lo = [v if v is None else max(v, floor) for v in lo]
        hi = [v if v is None else max(v, floor) for v in hi]
    return lo, hi


def _floor(figure: Mapping[str, Any]) -> float:
    """Half the smallest positive height: where intervals end that reach zero on a log axis."""
    heights = [
        v
        for s in figure["series"]
        for side in ("y", "lo", "hi")
        for v in s.get(side) or ()
        if v is not None and v > 0
    ]
    return 0.5 * min(heights) if heights else 1e-12


def plotly_figure(figure: Mapping[str, Any]) -> dict[str, Any]:
    """Return a figure as plotly's JSON: ``{"data": [...], "layout": {...}}``.

    Colours are left out: every trace says in ``meta`` which tone of the page's theme it takes, so
    that the pages can switch between light and dark.

    Args:
        figure: ``Figure.to_dict()``.
    """
    data: list[dict[str, Any]] = []
    floor = _floor(figure) if figure.get("y_log") else None
    for i, series in enumerate(figure["series"]):
        data += _traces(series, i, floor, _rank(figure, series))
    bars = any(s["style"] == "bars" for s in figure["series"])
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": figure["x_label"], "standoff": 12}, "automargin": True},
        "yaxis": {"title": {"text": figure["y_label"], "standoff": 14}, "automargin": True},
        "showlegend": len(figure["series"]) > 1,
        "hovermode": "closest" if bars else "x unified",
    }
    if any(s["style"] == "points" for s in figure["series"]):
        layout["hovermode"] = "closest"
    for axis, log in (("xaxis", figure.get("x_log")), ("yaxis", figure.get("y_log"))):
        if log:
            layout[axis] |= _log_axis(figure["series"], axis[0])
    if _categories(figure["series"]):
        layout["xaxis"]["type"] = "category"
    if bars:
        layout["barmode"] = "group"
    return {"data": data, "layout": layout}


def _log_axis(series: Sequence[Mapping[str, Any]], side: str) -> dict[str, Any]:
    """A logarithmic axis: ticks at 1, 2 and 5 over few decades, at powers over many."""
    values = [v for s in series for v in s[side] if isinstance(v, (int, float)) and v > 0]
    if values and max(values) / min(values) < _FEW_DECADES:
        return {"type": "log", "dtick": "D2", "tickformat": "~g"}
    return {"type": "log", "exponentformat": "power"}


def _traces(
    series: Mapping[str, Any], index: int, floor: float | None, rank: int
) -> list[dict[str, Any]]:
    """The traces of one series: its band first, so that the line lies above it."""
    style = series["style"]
    x, y = list(series["x"]), list(series["y"])
    ends = _ends(series, floor=floor)
    tone: int | str = "faint" if style == "reference" else index
    trace: dict[str, Any] = {
        "type": "bar" if style == "bars" else "scatter",
        "name": series["name"],
        "legendgroup": f"s{index}",
        "x": x,
        "y": y,
        "meta": {"tone": tone, "part": style},
    }
    if style in ("line", "reference"):
        trace["mode"] = "lines"
        dash = list(_DASHES.values())[rank % len(_DASHES)]
        trace["line"] = {"width": 1.5, "dash": dash} if style == "reference" else {"width": 2.2}
    elif style == "points":
        trace["mode"] = "markers"
        trace["marker"] = {"size": 8 if len(x) < 200 else 5, "symbol": _SYMBOLS[index % 6]}
    if ends is None:
        return [trace]
    if style != "line":
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [_gap(b, a) for a, b in zip(y, ends[1])],
            "arrayminus": [_gap(a, b) for a, b in zip(y, ends[0])],
            "thickness": 1.4,
            "width": 4,
        }
        return [trace]
    whole = [(a, lo, hi) for a, lo, hi in zip(x, *ends) if lo is not None and hi is not None]
    band = {
        "type": "scatter",
        "mode": "lines",
        "name": f"{series['name']} interval",
        "legendgroup": f"s{index}",
        "showlegend": False,
        "hoverinfo": "skip",
        "x": [a for a, _, _ in whole] + [a for a, _, _ in reversed(whole)],
        "y": [lo for _, lo, _ in whole] + [hi for _, _, hi in reversed(whole)],
        "fill": "toself",
        "line": {"width": 0},
        "meta": {"tone": index, "part": "band"},
    }
    return [band, trace]


def _gap(upper: float | None, lower: float | None) -> float:
    """Length of an error bar; 0 where an end is missing."""
    return 0.0 if upper is None or lower is None else max(0.0, upper - lower)
