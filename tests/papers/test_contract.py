"""The contract of every paper: card, claims, presets, experiments."""

from __future__ import annotations

import dataclasses

import pytest
from tests.papers import contract

from gradworks.bench import Criterion
from gradworks.papers import Paper, PlannedPaper, papers

PAPERS = [pytest.param(paper, id=paper.slug) for paper in papers()]
RUNNABLE = [pytest.param(paper, id=paper.slug) for paper in papers() if not paper.planned]


@pytest.mark.parametrize("paper", PAPERS)
def test_card(paper: Paper) -> None:
    contract.check_card(paper)


@pytest.mark.parametrize("paper", PAPERS)
def test_usage(paper: Paper) -> None:
    contract.check_usage(paper)


@pytest.mark.parametrize("paper", PAPERS)
def test_claims(paper: Paper) -> None:
    contract.check_claims(paper)


@pytest.mark.parametrize("paper", PAPERS)
def test_planned_or_runnable(paper: Paper) -> None:
    if paper.planned:
        with pytest.raises(PlannedPaper, match=paper.slug):
            paper.build("quick")
        assert not paper.presets
    else:
        contract.check_presets(paper)
        with pytest.raises(ValueError, match="preset must be one of"):
            paper.build("huge")


@pytest.mark.parametrize("preset", contract.PRESETS)
@pytest.mark.parametrize("paper", RUNNABLE)
def test_experiment(paper: Paper, preset: str) -> None:
    contract.check_experiment(paper, preset)


@pytest.mark.parametrize("paper", RUNNABLE)
def test_quick_is_quick(paper: Paper) -> None:
    contract.check_quick_is_quick(paper)


# ---------------------------------------------------------------- the contract can fail


def _broken(change: dict[str, object]) -> Paper:
    good = papers()[0]
    return dataclasses.replace(good, card=dataclasses.replace(good.card, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Skeleton: Lion"},
        {"summary": "One sentence only, " + "however long it may be, " * 9 + "is refused."},
        {"summary": "Short. Very."},
        {"slug": "No_Slug"},
        {"date": "2999-01-01"},
        {"arxiv": "12345"},
        {"arxiv": "2712.00001"},
        {"code": "http://example.org/x"},
        {"package": "gradworks.elsewhere.thing"},
        {"tags": ()},
        {"tags": ("a", "a")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_contract_sees_a_bad_card(change: dict[str, object]) -> None:
    with pytest.raises(AssertionError):
        contract.check_card(_broken(change))


@pytest.mark.parametrize("usage", ["import (\n", "x = 1\ny = 2\n", "from gradworks import x\n"])
def test_contract_sees_bad_usage(usage: str) -> None:
    with pytest.raises((AssertionError, SyntaxError)):
        contract.check_usage(_broken({"usage": usage}))


@pytest.mark.parametrize(
    "change",
    [
        {"arm": "nobody"},
        {"baseline": "nobody"},
        {"metric": "not a name"},
        {"workloads": ("nowhere",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_contract_sees_a_criterion_that_nothing_decides(change: dict[str, object]) -> None:
    paper = next(p for p in papers() if not p.planned)
    experiment = paper.build("quick")
    claim = next(c for c in experiment.claims if c.criteria)
    criterion: Criterion = dataclasses.replace(claim.criteria[0], **change)
    with pytest.raises(AssertionError):
        contract.check_criterion(experiment, claim, criterion)
