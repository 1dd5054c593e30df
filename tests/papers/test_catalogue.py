"""The catalogue: discovery, finding, selecting, summaries, and what it must not import."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
import types
from typing import Any

import pytest

import gradworks.papers
from gradworks.bench import Claim
from gradworks.papers import Card, Paper, PlannedPaper, UnknownPaper, find, papers, select, summary
from gradworks.papers._catalogue import read


def module(name: str = "gradworks.papers.lion", **names: Any) -> types.ModuleType:
    """A paper module made by hand."""
    made = types.ModuleType(name)
    for key, value in names.items():
        setattr(made, key, value)
    return made


def card(**changes: Any) -> Card:
    facts: dict[str, Any] = {
        "slug": "lion",
        "title": "Lion",
        "date": "2023-02-13",
        "authors": 2,
        "summary": "A sentence.",
        "area": "optim",
        "package": "gradworks.optim.lion",
        "usage": "",
    }
    return Card(**{**facts, **changes})


def claim(**changes: Any) -> Claim:
    facts: dict[str, Any] = {"id": "a", "statement": "A.", "published": "", "holds_when": "b"}
    return Claim(**{"primary": True, **facts, **changes})


# ---------------------------------------------------------------- discovery


def test_every_module_is_a_paper_and_every_paper_a_module() -> None:
    modules = {
        found.name
        for found in pkgutil.iter_modules(gradworks.papers.__path__)
        if not found.name.startswith("_")
    }
    assert {paper.slug.replace("-", "_") for paper in papers()} == modules


def test_newest_first() -> None:
    dates = [paper.card.date for paper in papers()]
    assert dates == sorted(dates, reverse=True)
    assert len({paper.slug for paper in papers()}) == len(papers())


def test_the_list_handed_out_is_the_callers() -> None:
    papers().clear()
    assert papers()


def test_planned_paper_of_a_module_without_build() -> None:
    paper = read(module(CARD=card(), CLAIMS=(claim(),)))
    assert paper.planned
    with pytest.raises(PlannedPaper, match="lion is planned") as caught:
        paper.build("quick")
    assert "gradworks list --runnable" in str(caught.value)
    assert caught.value.slug == "lion"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({}, "must define CARD"),
        ({"CARD": {"slug": "lion"}, "CLAIMS": (claim(),)}, "must define CARD"),
        ({"CARD": card()}, "must define CLAIMS"),
        ({"CARD": card(), "CLAIMS": ()}, "at least one Claim"),
        ({"CARD": card(), "CLAIMS": ("it is better",)}, "must hold gradworks.bench.Claim only"),
        ({"CARD": card(slug="tiger"), "CLAIMS": (claim(),)}, "slug must be 'lion'"),
        ({"CARD": card(), "CLAIMS": (claim(primary=False),)}, "exactly one claim must be primary"),
        ({"CARD": card(), "CLAIMS": (claim(), claim())}, r"\['a'\] more than once"),
        ({"CARD": card(), "CLAIMS": (claim(), claim(id="b"))}, "must be primary, got 2"),
    ],
)
def test_a_defective_module_is_named(names: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(module(**names))
    assert "gradworks.papers.lion" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"area": "magic"}, "area must be one of"),
        ({"authors": 0}, "authors must be at least 1"),
        ({"date": "2023-02-30"}, "day"),
        ({"date": "yesterday"}, "isoformat"),
    ],
)
def test_a_card_checks_its_facts(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        card(**changes)


# ---------------------------------------------------------------- finding


@pytest.mark.parametrize("name", ["hessian-spectrum", "hessian_spectrum", " Hessian-Spectrum "])
def test_find_forgives_spelling(name: str) -> None:
    assert find(name).slug == "hessian-spectrum"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("adampp", "adamp"), ("hessian-spectra", "hessian-spectrum"), ("ssim", "ms-ssim")],
)
def test_an_unknown_slug_suggests_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UnknownPaper, match=f"no paper is called '{wrong}'") as caught:
        find(wrong)
    assert right in caught.value.suggestions
    assert f"did you mean {caught.value.suggestions[0]}" in str(caught.value)
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("nothing", ["", "zzzzzzzz"])
def test_nothing_near_suggests_the_list(nothing: str) -> None:
    with pytest.raises(UnknownPaper, match="`gradworks list` shows them all") as caught:
        find(nothing)
    assert "did you mean" not in str(caught.value)


# ---------------------------------------------------------------- selecting


def slugs(found: list[Paper]) -> set[str]:
    return {paper.slug for paper in found}


def test_select_by_word_looks_at_cards_and_claims() -> None:
    everything = papers()
    assert "hessian-spectrum" in slugs(select(everything, word="HESSIAN"))
    assert slugs(select(everything, word="hessian eigenvalues")) < slugs(
        select(everything, word="hessian")
    )
    assert slugs(select(everything, word="straggler")) == {"gradient-coding"}
    assert slugs(select(everything, word="LDAdamW")) == {"dct-adamw"}  # a claim says it
    assert slugs(select(everything, word="2006.08217")) == {"adamp"}
    assert "gcond" in slugs(select(everything, word="multi task"))  # dashes do not matter
    assert "sam-gs" in slugs(select(everything, word="sam_gs"))
    assert select(everything, word="normalisation") == select(everything, word="Normalization")
    assert {"adamp", "gbw-batchnorm"} <= slugs(select(everything, word="normalization"))
    assert select(everything, word="no such word anywhere") == []
    assert select(everything, word="  ") == everything


def test_select_by_area_and_status_keeps_the_order() -> None:
    everything = papers()
    curvature = select(everything, area="curvature")
    assert curvature == [paper for paper in everything if paper.card.area == "curvature"]
    planned = select(everything, status="planned")
    assert planned == [paper for paper in everything if paper.planned]
    assert select(everything, area="curvature", status="planned") == [
        paper for paper in curvature if paper.planned
    ]


def test_select_refuses_what_does_not_exist() -> None:
    with pytest.raises(ValueError, match=r"area must be one of losses, .*got 'magic'"):
        select(papers(), area="magic")
    with pytest.raises(ValueError, match=r"status must be one of .*not run; got 'great'"):
        select(papers(), status="great")


# ---------------------------------------------------------------- summaries


@pytest.mark.parametrize("paper", papers(), ids=lambda paper: paper.slug)
def test_summaries_are_json(paper: Paper) -> None:
    document = summary(paper)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["runnable"] is not paper.planned
    assert [one["id"] for one in document["claims"]] == [one.id for one in paper.claims]
    if paper.planned:
        assert {one["status"] for one in document["claims"]} == {"planned"}
        assert document["presets"] == []
    if paper.card.arxiv:
        assert document["url"] == f"https://arxiv.org/abs/{paper.card.arxiv}"


# ---------------------------------------------------------------- light


def test_the_catalogue_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from gradworks import papers\n"
        "for paper in papers.papers():\n"
        "    papers.summary(paper)\n"
        "    if not paper.planned:\n"
        "        paper.build('quick')\n"
        "heavy = {'torch', 'scipy', 'pandas', 'sklearn', 'matplotlib', 'plotly', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout


def test_a_broken_paper_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradworks.papers import _catalogue

    def broken(name: str) -> types.ModuleType:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(_catalogue, "import_module", broken)
    with pytest.raises(RuntimeError, match=r"gradworks\.papers\.lion does not import: division"):
        _catalogue._import("gradworks.papers.lion")
