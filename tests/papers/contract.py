"""What every paper of the catalogue must hold; ``test_contract.py`` runs each paper through it.

The papers are found, not listed: a new paper module is checked from its first day, and nothing has
to be added here.
"""

from __future__ import annotations

import ast
import datetime
import importlib
import math
import re
from urllib.parse import urlparse

from gradworks.bench import Claim, Criterion, Experiment
from gradworks.bench.runner import plan
from gradworks.papers import AREAS, Paper

PRESETS = ("quick", "full", "paper")
QUICK_SECONDS = 60.0  # on two cores
FULL_SECONDS = 1800.0
SKELETON = "Skeleton:"  # what `gradworks new-paper` writes where words are still to come

# A sentence ends with a full stop that is followed by a space and a capital letter or a digit.
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9])")


def sentences(text: str) -> list[str]:
    """The sentences of ``text``."""
    return SENTENCE.split(text.strip())


def check_card(paper: Paper) -> None:
    """The card's facts have their form, its words are written."""
    card = paper.card
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", card.slug), card.slug
    assert datetime.date.fromisoformat(card.date) <= datetime.date.today(), card.date
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", card.date), card.date
    assert 1 <= card.authors <= 500
    assert card.area in AREAS
    assert card.package.startswith(f"gradworks.{card.area}."), card.package
    assert card.arxiv is None or re.fullmatch(r"\d{4}\.\d{4,5}", card.arxiv), card.arxiv
    if card.arxiv is not None:  # an identifier begins with year and month of the first version
        assert 2007 <= 2000 + int(card.arxiv[:2]) <= int(card.date[:4]), card.arxiv
    if card.code is not None:
        address = urlparse(card.code)
        assert address.scheme == "https", card.code
        assert len(address.path.strip("/").split("/")) >= 2, card.code
        assert card.licence, "the licence of the authors' code, or that none is stated"
    for text in (card.title, card.summary, card.usage, card.venue or ""):
        assert SKELETON not in text, f"{paper.module}: {text!r} is still the skeleton's"
        assert text == text.strip(" \t"), text
    assert 2 <= len(sentences(card.summary)) <= 4, sentences(card.summary)
    assert 150 <= len(card.summary) <= 700, len(card.summary)
    assert "\n" not in card.summary
    assert card.tags == tuple(dict.fromkeys(card.tags)), "tags twice"
    assert card.tags, "no tag to find it by"
    assert all(tag == tag.lower() for tag in card.tags), card.tags


def check_usage(paper: Paper) -> None:
    """The few lines that use the method are Python, short, and import it from its package."""
    usage = paper.card.usage
    compile(usage, f"{paper.slug} usage", "exec")
    lines = usage.strip().splitlines()
    assert 2 <= len(lines) <= 10, usage
    assert max(map(len, lines)) <= 100, usage
    parent = paper.card.package.rpartition(".")[0]
    assert f"from {parent}" in usage or f"import {parent}" in usage, usage
    try:
        importlib.import_module(paper.card.package)
    except ModuleNotFoundError as missing:
        assert paper.planned, f"{paper.card.package} does not import: {missing}"  # noqa: PT017
        return
    # The method is there: what the lines import must be there too.
    for node in ast.parse(usage).body:
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            lacking = [one.name for one in node.names if not hasattr(module, one.name)]
            assert not lacking, f"{node.module} has no {lacking}"


def check_claims(paper: Paper) -> None:
    """Every claim says what, how much, and when it holds; one gives the badge."""
    assert len({claim.id for claim in paper.claims}) == len(paper.claims)
    assert sum(claim.primary for claim in paper.claims) == 1
    assert paper.primary.primary
    for claim in paper.claims:
        assert re.fullmatch(r"[a-z0-9]+([-_][a-z0-9]+)*", claim.id), claim.id
        for text in (claim.statement, claim.published, claim.holds_when):
            assert SKELETON not in text, f"{paper.module}: {text!r} is still the skeleton's"
            assert text == " ".join(text.split()), f"spaces in {text!r}"
        assert claim.holds_when, claim.id
        for text in (claim.statement, claim.published, claim.holds_when):
            assert not text or text.endswith("."), f"{claim.id}: no full stop after {text!r}"
        names = [criterion.name for criterion in claim.criteria]
        assert len(set(names)) == len(names), names
        if not paper.planned:
            assert claim.criteria, f"{claim.id}: a paper that runs decides every claim it lists"


def built(paper: Paper, preset: str) -> Experiment | None:
    """The experiment; None where the published scale needs data that only the user can supply."""
    try:
        return paper.build(preset)
    except ValueError as reason:
        if preset == "paper" and "preset 'paper' needs" in str(reason):
            return None
        raise


def check_presets(paper: Paper) -> None:
    """All three presets are there as data, and build or say what they need."""
    assert set(paper.presets) == set(PRESETS), sorted(paper.presets)
    for preset in PRESETS:
        experiment = built(paper, preset)
        if experiment is not None:
            assert experiment.paper == paper.slug
            assert experiment.preset == preset


def check_experiment(paper: Paper, preset: str) -> None:
    """Trials exist, seeds are enough, claims can be decided, the hash is stable."""
    experiment, again = built(paper, preset), built(paper, preset)
    if experiment is None or again is None:
        return
    assert experiment.protocol_hash == again.protocol_hash
    assert experiment.to_dict() == again.to_dict()
    # A quick run is an indication; a verdict over paired seeds needs ten of them (protocol).
    if preset == "full" and any(_by_seed(c) for claim in experiment.claims for c in claim.criteria):
        assert experiment.final_seeds >= 5, experiment.final_seeds
    assert sum(claim.primary for claim in experiment.claims) == 1, "the badge's claim is missing"
    known = {claim.id: claim for claim in paper.claims}
    for claim in experiment.claims:
        assert claim.id in known, claim.id
        assert claim.statement == known[claim.id].statement
        for criterion in claim.criteria:
            check_criterion(experiment, claim, criterion)
    for workload in experiment.workloads:
        module, colon, name = workload.trial.partition(":")
        assert colon, workload.trial
        assert callable(getattr(importlib.import_module(module), name)), workload.trial
        assert experiment.arms_of(workload), workload.name


def _by_seed(criterion: Criterion) -> bool:
    return criterion.unit == "seed" and criterion.kind in ("superiority", "equivalence")


def check_criterion(experiment: Experiment, claim: Claim, criterion: Criterion) -> None:
    """Arm and baselines run on the workloads that count; the metric has a name."""
    where = f"{experiment.paper}/{claim.id}/{criterion.name}"
    arms = {arm.name for arm in experiment.arms}
    workloads = {workload.name: workload for workload in experiment.workloads}
    assert re.fullmatch(r"[a-zA-Z]\w*(\.\w+)*", criterion.metric), f"{where}: {criterion.metric!r}"
    assert set(criterion.workloads) <= set(workloads), f"{where}: {criterion.workloads}"
    compared = [criterion.arm, *(arm for terms in criterion.rivals for _, arm in terms)]
    assert set(compared) <= arms, f"{where}: {compared} are not all arms of {sorted(arms)}"
    running = {
        name
        for name, workload in workloads.items()
        if set(compared) <= {arm.name for arm in experiment.arms_of(workload)}
    }
    # No workload named means all that these arms run on.
    assert running, f"{where}: {compared} run together on no workload"
    assert set(criterion.workloads) <= running, f"{where}: {compared} run on {sorted(running)} only"


def check_quick_is_quick(paper: Paper) -> None:
    """On two cores quick is planned within a minute, full within half an hour."""
    for preset, limit in (("quick", QUICK_SECONDS), ("full", FULL_SECONDS)):
        cost = plan(paper.build(preset), jobs=2)
        assert math.isfinite(cost.seconds)
        assert cost.seconds <= limit, f"{paper.slug} {preset}: {cost.seconds:.0f} s planned"
