"""One measurement as one HTML file that holds everything it needs."""

from __future__ import annotations

import base64
from importlib.resources import files
from importlib.resources.abc import Traversable

from gradworks.report.drawn import Drawn
from gradworks.report.plots import plotly_figure
from gradworks.report.site import theme
from gradworks.report.site.rendering import environment, plotly_script, script_json

__all__ = ["page"]


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
