"""``list``, ``show``, ``report``, ``version``: what they print, and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Call
from tests.papers import toy

import gradworks
from gradworks import papers
from gradworks.bench.runner import run
from gradworks.report import readme, site


def test_list_shows_every_paper_newest_first(call: Call) -> None:
    done = call("list")
    assert done.code == 0
    assert not done.err
    slugs = [paper.slug for paper in papers.papers()]
    places = [done.out.index(f" {slug} ") for slug in slugs]
    assert places == sorted(places)
    assert len(slugs) == 28


@pytest.mark.parametrize("width", [60, 80, 100])
def test_list_keeps_names_and_verdicts_on_narrow_screens(
    call: Call, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    done = call("list")
    assert max(map(len, done.out.splitlines())) <= width
    for paper in papers.papers():
        line = next(line for line in done.out.splitlines() if f" {paper.slug} " in line)
        assert paper.card.date in line
        assert papers.status(paper) in line


def test_list_json_is_one_document(call: Call) -> None:
    document = call("list", "--json").json
    assert [row["slug"] for row in document] == [paper.slug for paper in papers.papers()]


def test_list_filters(call: Call) -> None:
    def slugs(*options: str) -> set[str]:
        return {row["slug"] for row in call("list", "--json", *options).json}

    assert slugs("--runnable") == {p.slug for p in papers.papers() if not p.planned}
    assert slugs("--status", "planned") == {p.slug for p in papers.papers() if p.planned}
    assert "anyloss" in slugs("imbalanced")
    assert slugs("--area", "losses") >= {"anyloss"}
    assert slugs("no such word anywhere") == set()
    nothing = call("list", "no such word anywhere")
    assert nothing.code == 0
    assert "no paper matches" in nothing.out


def test_list_writes_the_table_of_the_readme(call: Call, tmp_path: Path) -> None:
    assert call("list", "--markdown").out == readme.table(papers.papers())
    page = tmp_path / "README.md"
    source = (Path(__file__).parents[2] / "README.md").read_text()
    page.write_text(source)
    first = call("list", "--update", page)
    assert (first.code, first.out) == (0, "")
    second = call("list", "--update", page)
    assert "already in step" in second.err
    assert readme.table(papers.papers()) in page.read_text()


@pytest.mark.parametrize("slug", ["anyloss", "adamp", "hessian-spectrum", "hessian_spectrum"])
def test_show(call: Call, slug: str) -> None:
    done = call("show", slug)
    card = papers.find(slug).card
    assert (done.code, done.err) == (0, "")
    assert card.title in done.out
    assert card.usage.splitlines()[0] in done.out


def test_show_planned(call: Call) -> None:
    planned = next(p for p in papers.papers() if p.planned)
    done = call("show", planned.slug)
    assert done.code == 0
    assert "planned" in done.out


def test_show_json(call: Call) -> None:
    document = call("show", "anyloss", "--json").json
    assert document["slug"] == "anyloss"
    assert "result" in document


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("anylos", "anyloss"), ("adampp", "adamp"), ("hessian-spectrums", "hessian-spectrum")],
)
@pytest.mark.parametrize("command", ["show", "run", "verify"])
def test_unknown_slug_suggests_the_nearest(
    call: Call, command: str, typed: str, meant: str
) -> None:
    done = call(command, typed)
    assert (done.code, done.out) == (2, "")
    assert f"no paper is called {typed!r}" in done.words
    assert meant in done.words
    assert "Traceback" not in done.err


def test_report_builds_the_site(call: Call, tmp_path: Path) -> None:
    done = call("report", "--out", "pages", "--json")
    assert done.code == 0
    index = tmp_path / done.json["index"]
    assert index.is_file()
    assert done.json["pages"] >= 29
    assert "anyloss" in index.read_text()
    again = call("report", "--out", "pages")
    assert "Open" in again.out
    assert str(index.resolve()) in again.out


def test_report_of_a_store(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of a store are drawn beside the published ones; a user's comparison is left out."""
    run(toy.build("quick"), store=tmp_path / "s.db", engine="serial")
    seen: list[list[str]] = []
    build = site.build

    def watched(out: Path, *, extra_results: list) -> object:
        seen.append([result.paper for result in extra_results])
        return build(out, extra_results=extra_results)

    monkeypatch.setattr(site, "build", watched)
    monkeypatch.setattr(papers.find("adamp").__class__, "figures", lambda self, result: [])
    assert call("report", "--store", "s.db", "--out", "pages").code == 0
    assert seen == [["adamp"]]


def test_report_of_no_store(call: Call) -> None:
    done = call("report", "--store", "absent.db")
    assert done.code == 2
    assert "absent.db does not exist" in done.words


def test_report_serves(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[Path, int]] = []
    monkeypatch.setattr(site, "serve", lambda out, port: served.append((out, port)))
    assert call("report", "--out", "pages", "--serve", "8123").code == 0
    assert served == [(Path("pages"), 8123)]


def test_version(call: Call) -> None:
    assert call("version").out.splitlines()[0] == f"gradworks {gradworks.__version__}"
    versions = call("version", "--json").json
    assert versions["gradworks"] == gradworks.__version__
    assert versions["torch"]
    assert json.dumps(versions)
