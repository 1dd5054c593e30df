"""The catalogue table of the README, made from the cards and the published results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradworks.papers import Paper

__all__ = ["BEGIN", "END", "table", "update"]

BEGIN = "<!-- catalogue: made by `make readme`, checked by the tests -->"
END = "<!-- end of catalogue -->"


def table(papers: Sequence[Paper]) -> str:
    """Return the Markdown table of ``papers``, in the order given."""
    from gradworks.papers import published, status

    rows = [
        "| paper | year | what it is | here | primary claim |",
        "| --- | --- | --- | --- | --- |",
    ]
    for paper in papers:
        result = published(paper.slug)
        claim = "" if result is None else _primary_claim(result.document)
        title = f"[{paper.card.title}]({paper.card.url})" if paper.card.url else paper.card.title
        name = f"[{paper.slug}](docs/methods/{paper.slug}.md)" if not paper.planned else paper.slug
        cells = (name, paper.card.date[:4], title, f"**{status(paper)}**", claim)
        rows.append("| " + " | ".join(_escape(cell) for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def update(path: Path, papers: Sequence[Paper]) -> bool:
    """Replace the table between the two markers of ``path``.

    Returns:
        True if the file changed.

    Raises:
        ValueError: If the markers are missing or out of order.
    """
    text = path.read_text(encoding="utf-8")
    start, end = text.find(BEGIN), text.find(END)
    if start < 0 or end < start:
        raise ValueError(f"{path} needs the lines {BEGIN!r} and {END!r}, in this order")
    new = f"{text[: start + len(BEGIN)]}\n{counts(papers)}\n\n{table(papers)}{text[end:]}"
    if new == text:
        return False
    path.write_text(new, encoding="utf-8")
    return True


def counts(papers: Sequence[Paper]) -> str:
    """Return the sentence above the table: how many run and what came out."""
    from gradworks.papers import status

    badges = [status(paper) for paper in papers]
    run = [badge for badge in badges if badge != "planned"]
    held = ", ".join(f"{run.count(badge)} {badge}" for badge in sorted(set(run)))
    return f"{len(run)} of {len(papers)} run here" + (f": {held}." if held else ".")


def _primary_claim(document: dict[str, object]) -> str:
    """Return the sentence of the claim that gives the badge."""
    claims = document["claims"]
    if not isinstance(claims, list):
        return ""
    primary = next((claim for claim in claims if claim["primary"]), None)
    return "" if primary is None else str(primary["statement"])


def _escape(text: str) -> str:
    """Return ``text`` fit for a table cell."""
    return text.replace("|", "\\|").replace("\n", " ")
