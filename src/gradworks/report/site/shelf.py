"""Which results each paper shows, and which one gives its badge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradworks.report.outcomes import ClaimView, claim_views, planned_views, primary_view

if TYPE_CHECKING:
    from gradworks.bench.result import Result
    from gradworks.papers import Paper

__all__ = ["Entry", "Run", "entries"]

# A verdict comes before an indication.
_RANK = {"full": 0, "paper": 0, "quick": 2}


@dataclass(frozen=True)
class Run:
    """One finished run of a paper.

    Attributes:
        result: What came out.
        published: True for the one that is kept with the code.
        views: Its claims.
    """

    result: Result
    published: bool
    views: tuple[ClaimView, ...]

    @property
    def document(self) -> dict[str, Any]:
        """The stored document."""
        return self.result.document

    @property
    def finished(self) -> str:
        """When it ended, ISO, or ``""``."""
        return str(self.document.get("finished") or self.document.get("created") or "")

    @property
    def key(self) -> str:
        """Part of file names and anchors, unique among the runs of a paper."""
        return self.result.preset if self.published else f"{self.result.preset}-local"


@dataclass(frozen=True)
class Entry:
    """A paper with its runs, the one that gives the badge first."""

    paper: Paper
    status: str
    runs: tuple[Run, ...]

    @property
    def slug(self) -> str:
        """Name in the catalogue."""
        return self.paper.slug

    @property
    def views(self) -> tuple[ClaimView, ...]:
        """Claims with what came out in the first run, or as they stand in the card."""
        if self.runs:
            return self.runs[0].views
        return tuple(planned_views(self.paper.claims, self.status))

    @property
    def primary(self) -> ClaimView | None:
        """The claim behind the badge."""
        return primary_view(self.views)


def entries(papers: Sequence[Paper], extra: Sequence[Result]) -> list[Entry]:
    """Return an entry a paper, newest paper first.

    The published run gives the badge; without one the newest full run of ``extra`` does, else the
    newest quick one, which is an indication.

    Args:
        papers: The catalogue.
        extra: Results of a run store; those of unknown papers are left out.
    """
    ordered = sorted(papers, key=lambda paper: paper.card.date, reverse=True)
    return [_entry(paper, [r for r in extra if r.paper == paper.slug]) for paper in ordered]


def _entry(paper: Paper, extra: Sequence[Result]) -> Entry:
    from gradworks.papers import published, status

    kept = published(paper.slug)
    runs: list[Run] = []
    if kept is not None:
        runs.append(_run(paper, kept, published=True))
    seen = {(kept.document["experiment"], kept.preset)} if kept is not None else set()
    local = [_run(paper, result, published=False) for result in extra]
    local.sort(key=lambda run: run.finished, reverse=True)
    local.sort(key=lambda run: _RANK.get(run.result.preset, 1))
    for run in local:
        name = (run.document["experiment"], run.result.preset)
        if name in seen or any(run.key == other.key for other in runs):
            continue
        seen.add(name)
        runs.append(run)
    return Entry(paper, runs[0].result.status if runs else status(paper), tuple(runs))


def _run(paper: Paper, result: Result, *, published: bool) -> Run:
    return Run(result, published, tuple(claim_views(result.document, paper.claims)))
