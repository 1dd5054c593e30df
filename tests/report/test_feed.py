"""The Atom feed of verdicts."""

from __future__ import annotations

import datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from gradworks.report import feed

NAMES = {"a": "http://www.w3.org/2005/Atom"}


def item(number: int, updated: str) -> feed.Item:
    return feed.Item(
        id=f"urn:x:{number}",
        title=f"Paper {number} & <co>: reproduced",
        updated=updated,
        link=f"papers/{number}.html",
        summary="It held.",
        category="optim",
    )


def read(text: str) -> ET.Element:
    return ET.fromstring(text.encode())


def test_newest_verdict_comes_first_and_dates_the_feed() -> None:
    items = [item(1, "2026-01-01T00:00:00Z"), item(2, "2026-03-01T00:00:00Z")]
    root = read(feed.atom(items, title="verdicts"))
    assert [e.text for e in root.findall("a:entry/a:id", NAMES)] == ["urn:x:2", "urn:x:1"]
    assert root.findtext("a:updated", namespaces=NAMES) == "2026-03-01T00:00:00Z"


def test_text_is_escaped_and_comes_back() -> None:
    root = read(feed.atom([item(1, "2026-01-01T00:00:00Z")], title="a & b"))
    title = root.findtext("a:entry/a:title", namespaces=NAMES)
    assert title == "Paper 1 & <co>: reproduced"


def test_every_element_that_atom_requires_is_there() -> None:
    root = read(feed.atom([item(1, "2026-01-01T00:00:00Z")], title="t"))
    for name in ("id", "title", "updated", "author/a:name"):
        assert root.findtext(f"a:{name}", namespaces=NAMES)
        if name != "author/a:name":
            assert root.findtext(f"a:entry/a:{name}", namespaces=NAMES)
    [link] = root.findall("a:entry/a:link", NAMES)
    assert link.attrib == {"rel": "alternate", "href": "papers/1.html"}


def test_an_empty_feed_is_still_a_feed() -> None:
    root = read(feed.atom([], title="t"))
    assert root.findall("a:entry", NAMES) == []
    assert root.findtext("a:updated", namespaces=NAMES)


def test_the_site_has_one_entry_a_run(built: Path) -> None:
    root = read((built / "feed.xml").read_text(encoding="utf-8"))
    entries = root.findall("a:entry", NAMES)
    assert len(entries) == 4
    ids = [e.findtext("a:id", namespaces=NAMES) for e in entries]
    assert len(set(ids)) == 4
    assert ids[0] == "urn:gradworks:anyloss:anyloss-quick-1:quick"  # the newest
    for entry in entries:
        updated = entry.findtext("a:updated", namespaces=NAMES) or ""
        assert datetime.datetime.fromisoformat(updated).tzinfo is not None
        link = entry.find("a:link", NAMES)
        assert link is not None
        assert (built / link.attrib["href"]).is_file()
    titles = [e.findtext("a:title", namespaces=NAMES) or "" for e in entries]
    assert sum(t.endswith(": not reproduced") for t in titles) == 1
