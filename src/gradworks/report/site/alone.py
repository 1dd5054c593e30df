"""One measurement as one HTML file that holds everything it needs."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from gradworks.report.drawn import Drawn, write_whole
from gradworks.report.plots import plotly_figure, write_picture
from gradworks.report.site import theme
from gradworks.report.site.rendering import environment, plotly_script, script_json

__all__ = ["page", "write_beside"]


def _style(assets: Traversable) -> str:
    """The site's style sheet with its fonts inside."""
    style = (assets / "site.css").read_text(encoding="utf-8")
    for name in ("source-serif-4.woff2", "source-sans-3.woff2"):
        data = base64.b64encode((assets / name).read_bytes()).decode()
        style = style.replace(f'url("{name}")', f'url("data:font/woff2;base64,{data}")')
    return style


def page(drawn: Drawn) -> str:
    """Return the page of a measurement, about 5 MB with plotly inside.

    Args:
        drawn: The figure, the numbers beside it and the table.

    Raises:
        ImportError: jinja2 or plotly is absent.
    """  # noqa: DOC502
    assets = files("gradworks.report.site") / "assets"
    return (
        environment()
        .get_template("measured.html")
        .render(
            figure=drawn.figure,
            data=script_json(plotly_figure(drawn.figure)),
            facts=drawn.facts,
            table=drawn.table,
            style=theme.css() + _style(assets),
            plots=(assets / "plots.js").read_text(encoding="utf-8"),
            plotly=plotly_script(),
        )
    )


def write_beside(
    document: Mapping[str, Any], drawn: Drawn, out: Path, *, example: str
) -> list[Path]:
    """Write a document, a picture and an interactive page that stands alone.

    Args:
        document: Plain JSON.
        drawn: What is shown of it.
        out: ``FILE.json``; ``FILE.png`` and ``FILE.html`` are written beside it.
        example: A name to propose where a folder was given.

    Returns:
        The three files.

    Raises:
        ValueError: ``out`` has another ending or is a folder.
        ImportError: matplotlib, plotly or jinja2 is absent.
    """  # noqa: DOC502
    if out.is_dir():
        raise ValueError(f"--out must be a file, {out} is a folder; try {out / example}")
    if out.suffix not in ("", ".json"):
        raise ValueError(f"--out must end in .json, got {out.name!r}")
    out = out.with_suffix(".json")
    out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, sort_keys=True, indent=1, allow_nan=False)
    write_whole(out, text + "\n")
    picture, html = out.with_suffix(".png"), out.with_suffix(".html")
    write_picture(drawn.figure, picture)
    write_whole(html, page(drawn))
    return [out, picture, html]
