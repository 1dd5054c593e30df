"""The site's files: complete, linked, escaped; and which run gives a badge."""

from __future__ import annotations

import html.parser
import json
import os
import re
import sys
import urllib.parse
from pathlib import Path

import pytest
import torch
from tests.report import comparisons, documents, measurements
from tests.report.conftest import PUBLISHED, publish

from gradworks import papers
from gradworks.bench import compare
from gradworks.report import site, wording
from gradworks.report.site import compared, questions
from gradworks.report.site.shelf import entries


class Page(html.parser.HTMLParser):
    """What the tests ask of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.ids: list[str] = []
        self.links: list[tuple[str, str]] = []  # tag, address
        self.images: list[dict[str, str | None]] = []
        self.headings: list[int] = []
        self.tags: dict[str, int] = {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if found.get("id"):
            self.ids.append(str(found["id"]))
        for name in ("href", "src", "data-plotly"):
            if found.get(name):
                self.links.append((tag, str(found[name])))
        if tag == "img":
            self.images.append(found)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))


@pytest.fixture(scope="module")
def pages(built: Path) -> list[Page]:
    return [Page(path) for path in sorted(built.rglob("*.html"))]


def test_there_is_a_page_a_paper(pages: list[Page], built: Path) -> None:
    names = {page.path.relative_to(built).as_posix() for page in pages}
    wanted = {f"papers/{paper.slug}.html" for paper in papers.papers()}
    assert names == wanted | {"index.html", "verdicts.html", "optimizers.html", "tools.html"}


# The optimizers side by side.


def test_only_papers_of_the_comparison_lead_to_it(built: Path) -> None:
    linked = {
        path.stem for path in (built / "papers").glob("*.html") if "optimizers.html" in read(path)
    }
    assert {"adamp", "diffgrad"} <= linked
    assert not linked & {"anyloss", "langevin", "hessian-spectrum"}
    assert 'href="optimizers.html"' in read(built / "index.html")


def table(page: str, workload: str) -> list[list[str]]:
    """The rows of a workload's table: name first, then each cell's words."""
    part = page[page.index(f'<section id="{workload}">') :]
    body = part[part.index("<tbody") : part.index("</tbody>")]
    rows = []
    for row in body.split("<tr")[1:]:
        cells = re.findall(r"<t[hd] role=.*?</t[hd]>", row, re.DOTALL)
        rows.append([" ".join(re.sub("<[^>]+>", " ", cell).split()) for cell in cells])
    return rows


def test_the_comparison_shows_every_figure_with_its_interval(built: Path) -> None:
    page = read(built / "optimizers.html")
    assert "Published run, finished 24 Nov 2026" in page
    rows = table(page, "text-transformer")
    assert len(rows) == len(comparisons.ARMS)
    assert len(table(page, "mnist5k-cnn")) == len(comparisons.ARMS) - len(comparisons.MATRIX)
    by_name = {row[0].split()[0]: row for row in rows}
    summary = {r["arm"]: r for r in compare.summary(comparisons.result())}
    muon, mine = by_name["Muon"], summary["muon"]
    for cell, key in zip(muon[1:4], compared.COLUMNS):
        assert f"×{mine[key]:.2f} {mine[f'{key}_lo']:.2f} to {mine[f'{key}_hi']:.2f}" in cell
    assert f"{mine['steps_to_target']:.0f} steps (" in muon[2]
    assert muon[4] == "4.3"
    assert muon[5].startswith(f"{mine['nats']:.2f} {mine['nats_lo']:.2f} to ")
    # Of AdamW three runs get there, of these fewer: its ratio is a bound.
    assert "3 of 6 runs reach the target" in by_name["AdamW"][0]
    assert by_name["DiffGrad"][2].startswith("≥ ×1.0")
    # An optimizer that never gets there has no ratio, however cheap its steps are.
    sgd = by_name["SGD"]
    assert sgd[1] == sgd[2] == "– median run misses"
    assert "0 of 6 runs reach the target" in sgd[0]
    assert "best on the edge of its space" in sgd[0]
    assert summary["sgd"]["seconds_ratio"] < 1  # what it would have been
    # Fastest first, the baseline at 1, those that miss at the end.
    times = [re.match(r"(≥ )?×([\d.]+)|–", row[1]) for row in rows]
    order = [(bool(t[1]), float(t[2])) if t is not None and t[2] else (True, 99.0) for t in times]
    assert order == sorted(order)
    assert by_name["AdamW"][1].startswith("×1 ")


@pytest.mark.slow
def test_a_run_store_s_comparison_comes_first(results: Path, tmp_path: Path) -> None:
    assert not compared.chosen([])  # nothing published, no page, no link
    site.build(tmp_path / "none")
    assert not (tmp_path / "none" / "optimizers.html").exists()
    assert "optimizers.html" not in read(tmp_path / "none" / "index.html")
    publish(results)
    local = [comparisons.result(finished=f"2026-11-{day}T10:00:00Z") for day in (20, 26, 25)]
    site.build(tmp_path / "site", local)
    page = read(tmp_path / "site" / "optimizers.html")
    assert "From your run store, finished 26 Nov 2026" in page
    kept = compared.chosen([])
    assert kept is not None
    assert kept[1]  # without a store the published one


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_every_link_resolves(pages: list[Page], built: Path) -> None:
    ids = {page.path: set(page.ids) for page in pages}
    for page in pages:
        for tag, address in page.links:
            parts = urllib.parse.urlsplit(address)
            if parts.scheme:
                # A reader may follow a link elsewhere; a page never loads anything from there.
                assert (tag, parts.scheme) == ("a", "https"), (page.path, address)
                continue
            target = (page.path.parent / parts.path).resolve() if parts.path else page.path
            assert target.is_file(), (page.path.name, address)
            assert target.is_relative_to(built.resolve())
            if parts.fragment and "=" not in parts.fragment:
                assert parts.fragment in ids[target], (page.path.name, address)


def test_styles_load_nothing_from_elsewhere(built: Path) -> None:
    for sheet in (built / "assets").glob("*.css"):
        for address in re.findall(r"url\(\"?([^\")]+)", sheet.read_text(encoding="utf-8")):
            assert (sheet.parent / address).is_file(), address


def test_pages_are_well_formed_for_readers(pages: list[Page]) -> None:
    for page in pages:
        where = page.path.name
        assert page.headings.count(1) == 1, where
        assert page.headings[0] == 1, where
        jumps = [b - a for a, b in zip(page.headings, page.headings[1:])]
        assert max(jumps, default=0) <= 1, (where, page.headings)
        assert len(page.ids) == len(set(page.ids)), where
        assert page.tags["main"] == 1
        for image in page.images:
            assert len(image["alt"] or "") > 20, where


def test_the_index_shows_every_paper_with_its_badge(built: Path) -> None:
    text = (built / "index.html").read_text(encoding="utf-8")
    cards = re.findall(r'<li class="card[^>]*data-verdict="([^"]+)" data-date="([^"]+)"', text)
    assert len(cards) == len(papers.papers())
    for status in PUBLISHED.values():
        assert sum(verdict == status for verdict, _ in cards) == 1
    dates = [date for _, date in cards]
    assert dates == sorted(dates, reverse=True)


def test_a_paper_shows_all_that_was_asked(built: Path) -> None:
    text = (built / "papers/adamp.html").read_text(encoding="utf-8")
    for part in (
        "Claims and outcomes",
        "In the paper",
        "AdamP(model.parameters()",
        "gradworks run adamp --preset full",
        "What differs from the paper",
        "Digits instead of &lt;ImageNet&gt; &amp; co.",
        "Tuning studies",
        "CC BY 4.0",
        "c0ffee" * 6,
        "0123456789abcdef",
        "All 30 final runs",
        "10 seeds",
    ):
        assert part in text, part
    assert "<ImageNet>" not in text


def test_figures_are_data_inside_the_page(built: Path) -> None:
    text = (built / "papers/adamp.html").read_text(encoding="utf-8")
    found = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert len(found) == 3
    for one in found:
        assert set(json.loads(one)) == {"data", "layout"}


def test_plotly_is_kept_once_and_only_where_there_are_plots(built: Path) -> None:
    assert len(list(built.rglob("plotly*.js"))) == 1
    with_plots = {
        path.stem
        for path in (built / "papers").glob("*.html")
        if "plotly.min.js" in path.read_text(encoding="utf-8")
    }
    assert with_plots == set(PUBLISHED)


def test_a_script_in_a_title_stays_text(results: Path, tmp_path: Path) -> None:
    document = documents.document(paper="adamp")
    evil = "</script><script>alert(1)</script>"
    document["notes"] = [evil]
    document["figures"][0] |= {"title": evil, "caption": evil}
    document["figures"][0]["series"][0]["name"] = evil
    site.build(tmp_path / "site", [documents.Result(document)])
    text = (tmp_path / "site/papers/adamp.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text


def test_without_results_nothing_is_claimed(results: Path, tmp_path: Path) -> None:
    pages = site.build(tmp_path / "site")
    assert pages.pages == len(papers.papers()) + 3
    assert pages.index == tmp_path / "site" / "index.html"
    text = pages.index.read_text(encoding="utf-8")
    assert "Latest verdicts" not in text
    assert 'data-verdict="reproduced"' not in text
    assert not (tmp_path / "site/assets/plotly.min.js").exists()


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes(results: Path, tmp_path: Path) -> None:
    documents.result(paper="adamp").write(results / "adamp.json")

    def tree(folder: Path) -> dict[str, bytes]:
        return {
            p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*")
            if p.is_file()
        }

    site.build(tmp_path / "one")
    site.build(tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_without_jinja_the_error_is_the_pip_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r'pip install "gradworks\[report\]"'):
        site.build(tmp_path / "site")
    assert not (tmp_path / "site").exists()


# Which run gives the badge.


def test_a_published_full_run_comes_before_a_local_one(results: Path) -> None:
    publish(results)
    local = documents.result(paper="adamp", status="reproduced", finished="2027-01-01T00:00:00Z")
    local.document["experiment"] = "another"
    entry = next(e for e in entries(papers.papers(), [local]) if e.slug == "adamp")
    assert entry.status == PUBLISHED["adamp"]
    assert [run.key for run in entry.runs] == ["full", "full-local"]


def test_a_local_full_run_comes_before_a_newer_quick_one(results: Path) -> None:
    full = documents.result(paper="adamp", status="reproduced", finished="2026-01-01T00:00:00Z")
    quick = documents.result(
        paper="adamp", preset="quick", status="indication", finished="2027-01-01T00:00:00Z"
    )
    entry = next(e for e in entries(papers.papers(), [quick, full]) if e.slug == "adamp")
    assert entry.status == "reproduced"
    assert [run.key for run in entry.runs] == ["full-local", "quick-local"]


def test_a_published_run_is_not_shown_twice(results: Path) -> None:
    publish(results)
    same = documents.result(paper="adamp", status="partly")
    entry = next(e for e in entries(papers.papers(), [same]) if e.slug == "adamp")
    assert [run.key for run in entry.runs] == ["full"]


def test_papers_without_a_run_keep_their_status(results: Path) -> None:
    found = {e.slug: e.status for e in entries(papers.papers(), [])}
    assert found["adamp"] == "not run"
    assert set(found.values()) == {"not run", "planned"}


def test_a_first_run_that_is_only_quick_is_no_verdict(results: Path, tmp_path: Path) -> None:
    quick = documents.result(paper="adamp", preset="quick", status="indication", figures=False)
    text = site.build(tmp_path / "site", [quick]).index.read_text(encoding="utf-8")
    assert "Latest runs" in text
    assert "Latest verdicts" not in text


def test_pages_have_the_permissions_of_other_files(built: Path) -> None:
    assert built.stat().st_mode & 0o055 == 0o055


# The curvature tools.


def test_the_tool_page_shows_what_was_measured(built: Path, pages: list[Page]) -> None:
    page = read(built / "tools.html")
    for question in questions.QUESTIONS:
        assert f'<section id="{question.name}">' in page
    ids = next(p.ids for p in pages if p.path.name == "tools.html")
    assert {"spectrum-net", "landscape-net", "lr-net"} <= set(ids)
    found = {path.stem: json.loads(read(path)) for path in measurements.folder(built.parent)}
    largest = wording.number(found["spectrum-net"]["summary"]["largest"])
    assert f"<dd>{largest}</dd>" in page
    rates = [wording.number(row["proposed"]) for row in found["lr-net"]["rates"]]
    table = page[page.index("Rates for sgd") :]
    assert all(f">{rate}" in table for rate in rates)
    assert 'class="only-light" src="figures/landscape-net-plane-random-filter-eval' in page
    assert 'href="tools.html"' in read(built / "index.html")


def test_a_measurement_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "spectrum-broken.json").write_text('{"target": "net"}')
    with pytest.raises(ValueError, match=r"spectrum-broken\.json cannot be read"):
        questions.answers(tmp_path)
    assert not any(questions.answers(tmp_path / "none").values())


def test_the_examples_of_the_tool_page_run() -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(600, 6), torch.arange(600) % 3
    net = torch.nn.Linear(6, 3)
    features = [images[:300], images[300:]]
    logits = [net(x) for x in features]
    words = {
        "net": net,
        "images": images,
        "labels": labels,
        "features": features,
        "logits": [x.detach() for x in logits],
    }
    for question in questions.QUESTIONS:
        given = dict(words)
        if question.name == "alignment":
            given["labels"] = [labels[:300], labels[300:]]
            exec(question.python, given)
            continue
        text = questions.code(question).replace("landscape.html", os.devnull)
        text = text.replace("points=25", "points=3, num_steps=5, num_probes=1")
        if question.name == "landscape":
            text = text.replace(f'report.write_html("{os.devnull}")', "")
        exec(text, given)
