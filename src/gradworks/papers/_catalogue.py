"""Find the papers, and find one among them."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import pkgutil
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from gradworks.bench.claims import STATUSES, Claim
from gradworks.bench.result import Result
from gradworks.papers._model import AREAS, Card, Paper
from gradworks.papers._published import NOT_RUN, published, status

__all__ = ["UnknownPaper", "find", "papers", "read", "select", "summary"]

_PACKAGE = "gradworks.papers"

_ISE = re.compile(r"is(ation|ations|e|ed|er|ers|es|ing)\b")


class UnknownPaper(LookupError):
    """No paper of the catalogue has this name; the message suggests the nearest."""

    def __init__(self, slug: str, known: Sequence[str]) -> None:
        near = difflib.get_close_matches(slug.lower(), known, n=3, cutoff=0.5)
        near = near or [name for name in known if slug and slug.lower() in name][:3]
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        super().__init__(f"no paper is called {slug!r}; {hint}`gradworks list` shows them all")
        self.slug = slug
        self.suggestions = tuple(near)


@functools.cache
def _discover() -> tuple[Paper, ...]:
    """Import every paper module beside this file, newest paper first."""
    names = (
        found.name
        for found in pkgutil.iter_modules([str(Path(__file__).parent)])
        if not found.name.startswith("_")
    )
    entries = [read(_import(f"{_PACKAGE}.{name}")) for name in names]
    # Newest first; papers of one day in the order of their names.
    entries.sort(key=lambda paper: paper.slug)
    return tuple(sorted(entries, key=lambda paper: paper.card.date, reverse=True))


def _import(name: str) -> ModuleType:
    """Import a paper module; a defect in it is reported with its name."""
    try:
        return import_module(name)
    except Exception as error:
        raise RuntimeError(f"paper module {name} does not import: {error}") from error


def read(module: ModuleType) -> Paper:
    """Return the paper that ``module`` holds.

    Raises:
        ValueError: If the module lacks a card or claims, if its name and its slug differ, if two
            claims share a name or if not exactly one is the primary claim.
    """
    name = module.__name__
    card, claims = getattr(module, "CARD", None), getattr(module, "CLAIMS", None)
    if not isinstance(card, Card):
        raise ValueError(f"{name} must define CARD, a gradworks.papers.Card, got {card!r}")
    if not isinstance(claims, Sequence) or not claims:
        raise ValueError(f"{name} must define CLAIMS, a sequence of at least one Claim")
    wrong = [claim for claim in claims if not isinstance(claim, Claim)]
    if wrong:
        raise ValueError(f"{name}: CLAIMS must hold gradworks.bench.Claim only, got {wrong[0]!r}")
    slug = name.rpartition(".")[2].replace("_", "-")
    if card.slug != slug:
        raise ValueError(
            f"{name}: the card's slug must be {slug!r}, as the file, got {card.slug!r}"
        )
    ids = [claim.id for claim in claims]
    twice = sorted({one for one in ids if ids.count(one) > 1})
    if twice:
        raise ValueError(f"{name}: claim ids must be unique, got {twice} more than once")
    primary = sum(claim.primary for claim in claims)
    if primary != 1:
        raise ValueError(f"{name}: exactly one claim must be primary, got {primary}")
    return Paper(
        card=card,
        claims=tuple(claims),
        module=name,
        presets=getattr(module, "PRESETS", {}),
        builder=getattr(module, "build", None),
        drawer=getattr(module, "figures", None),
    )


def papers() -> list[Paper]:
    """Return every paper of the catalogue, newest first.

    Example:
        >>> len(papers()) >= 28
        True
    """
    return list(_discover())


def find(slug: str) -> Paper:
    """Return the paper called ``slug``; underscores and capitals do not matter.

    Args:
        slug: Name of the paper, as `gradworks list` prints it.

    Raises:
        UnknownPaper: If there is none; the message suggests the nearest names.

    Example:
        >>> find("hessian_spectrum").card.area
        'curvature'
    """
    wanted = slug.strip().lower().replace("_", "-")
    by_slug = {paper.slug: paper for paper in _discover()}
    if wanted not in by_slug:
        raise UnknownPaper(slug, sorted(by_slug))
    return by_slug[wanted]


def select(
    entries: Sequence[Paper],
    word: str | None = None,
    area: str | None = None,
    status: str | None = None,
) -> list[Paper]:
    """Return the papers that match all that is given, in the order they came.

    Args:
        entries: Papers to choose from.
        word: Text that the card or a claim must hold; several words must all occur. Capitals,
            dashes, underscores and the spelling of -ise and -ize do not matter.
        area: One of :data:`AREAS`.
        status: ``"planned"``, ``"not run"`` or the verdict of a published result.

    Raises:
        ValueError: If there is no such area or status.
    """
    if area is not None and area not in AREAS:
        raise ValueError(f"area must be one of {', '.join(AREAS)}; got {area!r}")
    known = (*STATUSES, NOT_RUN)
    if status is not None and status not in known:
        raise ValueError(f"status must be one of {', '.join(known)}; got {status!r}")
    words = _plain(word or "").split()
    return [
        paper
        for paper in entries
        if (area is None or paper.card.area == area)
        and (status is None or _status(paper) == status)
        and all(one in _text(paper) for one in words)
    ]


_status = status


def _text(paper: Paper) -> str:
    """Return everything of ``paper`` that a word is searched in."""
    card = paper.card
    parts = [card.slug, card.title, card.summary, card.area, AREAS[card.area], card.package]
    parts += [card.date, card.arxiv or "", card.venue or "", *card.tags]
    parts += [claim.statement for claim in paper.claims]
    return _plain(" ".join(parts))


def _plain(text: str) -> str:
    """Return ``text`` as it is compared in a search: one case, one spelling of -ise."""
    return _ISE.sub(r"iz\1", text.lower().replace("-", " ").replace("_", " "))


def summary(paper: Paper) -> dict[str, Any]:
    """Return what the catalogue knows of ``paper`` as JSON-ready data."""
    card = dataclasses.asdict(paper.card)
    card["tags"] = list(paper.card.tags)
    result = published(paper.slug)
    return {
        **card,
        "url": paper.card.url,
        "status": status(paper),
        "runnable": not paper.planned,
        "presets": sorted(paper.presets),
        "published": None if result is None else result.document["finished"],
        "claims": [
            {
                **{
                    key: getattr(claim, key)
                    for key in (
                        "id",
                        "statement",
                        "published",
                        "holds_when",
                        "setting",
                        "scaled_down",
                        "primary",
                    )
                },
                "status": _claim_status(paper, claim, result),
            }
            for claim in paper.claims
        ],
    }


def _claim_status(paper: Paper, claim: Claim, result: Result | None) -> str:
    """Return the published status of one claim."""
    if result is None:
        return status(paper)
    return next((str(one["status"]) for one in result.claims if one["id"] == claim.id), NOT_RUN)
