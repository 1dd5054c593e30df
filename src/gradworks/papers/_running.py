"""Run a paper: build its experiment, run it, draw its figures into the result."""

from __future__ import annotations

from typing import Any

from gradworks.bench.result import Result, plain
from gradworks.papers._catalogue import find
from gradworks.papers._model import Paper

__all__ = ["attach_figures", "execute"]


def execute(paper: Paper, preset: str, **options: Any) -> Result:
    """Run ``paper`` and return its result with its figures.

    Args:
        paper: A paper that runs.
        preset: ``"quick"``, ``"full"`` or ``"paper"``.
        **options: Passed on to :func:`gradworks.bench.run` (``store`` is required).

    Returns:
        The outcome; :class:`PlannedPaper` is raised where nothing runs yet.
    """
    from gradworks.bench.runner import run

    result = run(paper.build(preset), **options)
    result.document["figures"] = _figures(paper, result)
    return result


def attach_figures(result: Result) -> None:
    """Draw the figures of ``result`` into its document, in place.

    Args:
        result: Outcome of a paper's experiment; for any other :class:`UnknownPaper` is raised.
    """
    result.document["figures"] = _figures(find(result.paper), result)


def _figures(paper: Paper, result: Result) -> list[dict[str, Any]]:
    """Return the figures of ``paper`` as plain data."""
    return [plain(figure.to_dict()) for figure in paper.figures(result)]
