"""What every page is rendered with: the templates, plotly's script, JSON inside HTML."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gradworks.report import wording
from gradworks.report.site.code import highlight
from gradworks.report.site.views import day

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["environment", "plotly_script", "script_json"]


def environment() -> Environment:
    """Return jinja2's environment of our templates: escaping on, undefined names are errors.

    Raises:
        ImportError: jinja2 is absent.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise ImportError('the site needs: pip install "gradworks[report]"') from error
    made = Environment(
        loader=PackageLoader("gradworks.report.site", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"day": day, "highlight": highlight, "tidy": _tidy}
    made.globals |= {"plural": wording.plural}
    return made


def _tidy(text: str) -> str:
    """Keep a percent sign on the line of its number."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def plotly_script() -> str:
    """Return plotly's script, as its package ships it.

    Raises:
        ImportError: plotly is absent.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            'interactive plots need plotly: pip install "gradworks[report]"'
        ) from error
    return str(get_plotlyjs())


def script_json(value: Any) -> str:
    """Return JSON that may stand inside a script element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
