"""The catalogue, a paper and its claims on the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gradworks.report import wording
from gradworks.report.outcomes import (
    ClaimView,
    OutcomeView,
    claim_views,
    planned_views,
    primary_view,
)
from gradworks.report.terminal.tables import new_table

if TYPE_CHECKING:
    from gradworks.bench.result import Result
    from gradworks.papers import Paper

__all__ = ["badge", "catalogue_table", "claim_table", "paper_page"]

# Columns from which a claim and its figures stand side by side.
_WIDE = 120

# Status: mark (so that colour is never alone) and style.
_MARKS = {
    "reproduced": ("●", "bold green"),
    "partly": ("◐", "bold yellow"),
    "not reproduced": ("✕", "bold red"),
    "undecided": ("◌", "bold magenta"),
    "indication": ("→", "bold cyan"),
    "not run": ("○", ""),
    "planned": ("·", "dim"),
    "failed": ("!", "bold red"),
}


def badge(status: str) -> Text:
    """Return a status with its mark and colour."""
    mark, style = _MARKS.get(status, ("○", ""))
    return Text(f"{mark} {status}", style=style)


def catalogue_table(papers: Sequence[Paper], console: Console) -> None:
    """Print papers, one row each, in the order given.

    Args:
        papers: What to show.
        console: Where.
    """
    from gradworks.papers import status

    if not papers:
        console.print(Text("no paper matches; `gradworks list` shows all"))
        return
    table = new_table()
    table.add_column("date", no_wrap=True)
    table.add_column("paper", no_wrap=True, style="bold")
    wide = console.width >= 100
    if wide:
        table.add_column("area", no_wrap=True)
    table.add_column("here", no_wrap=True)
    # Only a column that may wrap gives way where room is short; its cells are cut instead.
    table.add_column("title")
    for paper in papers:
        card = paper.card
        area = [card.area] if wide else []
        title = Text(card.title, no_wrap=True, overflow="ellipsis")
        table.add_row(card.date, card.slug, *area, badge(status(paper)), title)
    console.print(table)
    runs = sum(not paper.planned for paper in papers)
    console.print(
        Text(f"{wording.plural(len(papers), 'paper')}, {runs} run today. `gradworks show SLUG`"),
        style="dim",
    )


def claim_table(result: Result, console: Console) -> None:
    """Print each claim of the paper beside what came out here.

    Args:
        result: A finished run.
        console: Where.
    """
    document = result.document
    views = claim_views(document)
    heading = Text.assemble(
        (str(document["paper"]), "bold"), f", {document['preset']} preset: ", badge(result.status)
    )
    console.print()
    console.print(heading)
    primary = primary_view(views)
    if primary is not None:
        if primary.status != "indication":  # the notes below say what it is
            console.print(Text(primary.sentence))
        _print_claims(views, console)
    _print_notes(document, console)


def _print_claims(views: Sequence[ClaimView], console: Console) -> None:
    """One table where there is room, a block a claim where there is not."""
    if console.width < _WIDE:
        for view in views:
            _print_claim(view, console)
        return
    table = new_table()
    table.add_column("claim", ratio=3)
    table.add_column("the paper", ratio=2)
    _add_outcome_columns(table)
    for view in views:
        single = len(view.outcomes) == 1
        name = Text(view.statement, style="bold" if view.primary else "")
        first = _figures(view.outcomes[0]) if single else [Text()] * 4
        table.add_row(name, Text(_printed(view)), *first, badge(view.status))
        for outcome in () if single else view.outcomes:
            name = Text(f"  {outcome.name}", style="dim")
            table.add_row(name, _published(outcome), *_figures(outcome), badge(outcome.status))
        table.add_section()
    console.print(table)


def _print_claim(view: ClaimView, console: Console) -> None:
    console.print()
    console.print(Text(view.statement, style="bold" if view.primary else ""))
    console.print(Text.assemble(("the paper: ", "dim"), _printed(view)))
    if not view.outcomes:
        console.print(badge(view.status))
        return
    table = new_table()
    table.collapse_padding = True
    table.add_column("criterion", min_width=16)
    table.add_column("paper", justify="right")
    _add_outcome_columns(table, wrap=True)
    for outcome in view.outcomes:
        figures = _figures(outcome, short=True)
        table.add_row(Text(outcome.name), _published(outcome), *figures, badge(outcome.status))
    console.print(table)


def _add_outcome_columns(table: Table, *, wrap: bool = False) -> None:
    table.add_column("here", justify="right", no_wrap=True)
    table.add_column("interval", no_wrap=not wrap)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)


def _printed(view: ClaimView) -> str:
    return view.published or "no figure printed"


def _figures(outcome: OutcomeView, *, short: bool = False) -> list[Text]:
    """Estimate, interval, n and p of one outcome."""
    record = outcome.record
    return [
        Text(wording.effect(record["estimate"], outcome.scale)),
        Text(wording.interval(record, outcome.scale, short=short)),
        Text(str(record["n"])),
        Text(wording.p_value(record)),
    ]


def _published(outcome: OutcomeView) -> Text:
    value = outcome.record.get("published")
    return Text("" if value is None else wording.effect(value, outcome.scale), style="dim")


def _print_notes(document: Mapping[str, Any], console: Console) -> None:
    """What differs from the paper, and what a quick run is worth."""
    lines = [f"at our scale: {note}" for note in document.get("notes", ())]
    if document["preset"] == "quick":
        lines.insert(0, "quick is an indication; --preset full gives the verdict")
    counts = document.get("counts", {})
    lines += [
        f"{wording.plural(counts[what], 'trial')} {what}"
        for what in ("diverged", "failed")
        if counts.get(what)
    ]
    for line in lines:
        console.print(Padding(Text(line, style="dim"), (0, 0, 0, 2)))


def paper_page(paper: Paper, result: Result | None, console: Console) -> None:
    """Print one paper: what it is, what it claims, what came out here, how to use it.

    Args:
        paper: From the catalogue.
        result: Its published result, or None.
        console: Where.
    """
    from gradworks.papers import status

    card = paper.card
    state = status(paper)
    facts = [card.date, wording.plural(card.authors, "author"), card.area]
    facts += [f"arXiv {card.arxiv}"] if card.arxiv else []
    facts += [card.venue] if card.venue else []
    console.print()
    console.print(Text(card.title, style="bold"))
    console.print(Text.assemble((" · ".join(facts), "dim"), "   ", badge(state)))
    console.print()
    console.print(Text(card.summary))
    if result is not None:
        claim_table(result, console)
    elif paper.claims:
        _print_planned(planned_views(paper.claims, state), console)
    _print_code(card.usage, console)
    console.print()
    if paper.planned:
        console.print(Text("Planned: nothing to run yet.", style="dim"))
    else:
        console.print(Text.assemble(("Rerun: ", "bold"), f"gradworks run {card.slug}"))
        console.print(Text.assemble(("Import: ", "bold"), card.package))
    if card.code:
        licence = f" ({card.licence})" if card.licence else ""
        console.print(Text(f"Authors' code: {card.code}{licence}"), soft_wrap=True)


def _print_planned(views: Sequence[ClaimView], console: Console) -> None:
    table = new_table()
    table.add_column("claim", ratio=3)
    table.add_column("the paper", ratio=2)
    table.add_column("holds when", ratio=3)
    for view in views:
        table.add_row(
            Text(view.statement, style="bold" if view.primary else ""),
            Text(_printed(view)),
            Text(view.holds_when),
            end_section=True,
        )
    console.print(table)


def _print_code(code: str, console: Console) -> None:
    text = textwrap.dedent(code).strip()
    if not text:
        return
    from rich.syntax import Syntax

    if console.is_terminal:
        block = Syntax(text, "python", background_color="default", word_wrap=True)
        console.print(Padding(block, (1, 2)))
    else:
        console.print()
        console.print(Text(textwrap.indent(text, "  ")), soft_wrap=True)
