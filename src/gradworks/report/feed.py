"""New verdicts as an Atom feed (RFC 4287)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

__all__ = ["Item", "atom"]

_ATOM = "http://www.w3.org/2005/Atom"
_EPOCH = "1970-01-01T00:00:00+00:00"


@dataclass(frozen=True)
class Item:
    """One verdict.

    Attributes:
        id: Unique and lasting: the same verdict keeps it when the site is built again.
        title: What a reader of feeds sees first.
        updated: When the run ended, ISO with a zone.
        link: Page, relative to the feed.
        summary: The verdict in one or two sentences.
        category: The paper's area.
    """

    id: str
    title: str
    updated: str
    link: str
    summary: str
    category: str


def atom(items: Sequence[Item], *, title: str) -> str:
    """Return the feed, newest verdict first.

    Args:
        items: In any order.
        title: Of the feed.
    """
    ET.register_namespace("", _ATOM)
    newest_first = sorted(items, key=lambda item: item.updated, reverse=True)
    feed = ET.Element(f"{{{_ATOM}}}feed")
    _add(feed, "id", "urn:gradworks:verdicts")
    _add(feed, "title", title)
    _add(feed, "updated", newest_first[0].updated if newest_first else _EPOCH)
    ET.SubElement(feed, f"{{{_ATOM}}}link", rel="self", href="feed.xml")
    ET.SubElement(feed, f"{{{_ATOM}}}link", rel="alternate", href="index.html")
    author = ET.SubElement(feed, f"{{{_ATOM}}}author")
    _add(author, "name", "gradworks")
    for item in newest_first:
        entry = ET.SubElement(feed, f"{{{_ATOM}}}entry")
        _add(entry, "id", item.id)
        _add(entry, "title", item.title)
        _add(entry, "updated", item.updated)
        ET.SubElement(entry, f"{{{_ATOM}}}link", rel="alternate", href=item.link)
        ET.SubElement(entry, f"{{{_ATOM}}}category", term=item.category)
        _add(entry, "summary", item.summary)
    ET.indent(feed)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(feed, encoding="unicode") + "\n"


def _add(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, f"{{{_ATOM}}}{name}").text = text
