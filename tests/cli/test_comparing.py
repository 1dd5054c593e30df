"""``compare``: several workloads, the shared ones, plans, publishing."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from tests.cli.conftest import Call
from tests.report import comparisons

from gradworks import bench, papers
from gradworks.bench import data
from gradworks.bench.experiment import Experiment
from gradworks.bench.result import Result

READY = all(row["here"] for row in data.installed() if row["name"] in ("mnist5k", "topics_text"))
needs_data = pytest.mark.skipif(not READY, reason="needs: gradworks data install mnist5k")
SERIAL = ("--engine", "serial")


@pytest.mark.slow
def test_several_workloads_have_a_table_each(call: Call, mine: Path) -> None:
    targets = ("mine.py:workload", "breast-cancer-logistic")
    options = ("--trials", "1", "--seeds", "2", "--steps", "4", "--search", "lr", *SERIAL)
    four = ("--optimizers", "adamw,sgd@momentum=0.5,adamp,radam")
    done = call("compare", *targets, *four, *options)
    assert done.code == 0, done.err
    for target in targets:
        assert f"{target}: 2 seeds" in done.out
    assert "SGD, momentum 0.5" in done.out
    assert "ratios to AdamW" in " ".join(done.out.split())
    shown = call("compare", *targets, *four, *options, "--json", "-q")
    assert set(shown.json["rows"]) == set(targets)
    assert [len(rows) for rows in shown.json["rows"].values()] == [4, 4]
    names = {path.stem for path in Path("gradworks.plots").rglob("*.png")}
    assert "breast-cancer-logistic-validation" in names


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ((), "name the workloads to compare on, or give --shared"),
        (("digits-mlp", "--shared"), "not both"),
        (("--shared", "--seeds", "3"), "--shared has its own --trials, --seeds, --steps"),
        (("--shared", "--search", "lr"), "--shared has its own"),
        (("digits-mlp", "--publish", "results"), "--publish takes --shared"),
        (("--shared", "--optimizers", "adamw", "--publish", "x"), "leave --optimizers out"),
        (("digits-mlp", "--search", "momentum"), "search must name some of lr, weight_decay"),
        (("digits-cnn", "--optimizers", "adamw,muon"), "Muon does not apply to digits-cnn"),
        (("digits-mlp", "--optimizers", "sgd@momentum"), "must be a setting, such as rank=24"),
    ],
)
def test_what_cannot_be_compared(call: Call, arguments: tuple[str, ...], fragment: str) -> None:
    done = call("compare", *arguments)
    assert done.code == 2
    assert fragment in done.words
    assert not Path("gradworks.db").exists()


@needs_data
def test_the_plan_of_the_shared_comparison(call: Call) -> None:
    done = call("compare", "--shared", "--plan", "--json", "--jobs", "2")
    assert done.code == 0, done.err
    plan = done.json
    assert plan["workloads"] == ["text-transformer", "mnist5k-cnn"]
    assert len(plan["arms"]) == 10
    assert plan["tune_trials"] == plan["final_trials"] == 6 * (10 + 7)
    assert plan["seconds"] < 12 * 60
    mine = call("compare", "--shared", "--optimizers", "adamw,radam", "--plan")
    assert "radam" in mine.out
    assert not Path("gradworks.db").exists()


@needs_data
def test_the_shared_comparison_is_published_with_its_plots(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Experiment] = []
    found = comparisons.result()
    found.document["figures"] = []

    def run(experiment: Experiment, **options: object) -> Result:
        asked.append(experiment)
        return Result(copy.deepcopy(found.document))

    monkeypatch.setattr(bench, "run", run)
    refused = call("compare", "--shared", "--publish", "results")
    if refused.code != 0:  # a dirty tree; a clean one may publish
        assert "publishing needs" in refused.words
    monkeypatch.setattr(papers, "require_publishable", lambda folder: None)
    asked.clear()
    done = call("compare", "--shared", "--publish", "results")
    assert done.code == 0, done.err
    assert [one.paper for one in asked] == [bench.compare.SHARED]
    written = Result.read(tmp_path / "results" / "compare" / "optimizers.json")
    assert "text-transformer-validation-1" in {f["id"] for f in written.document["figures"]}
    assert "published: results/compare/optimizers.json" in done.words
    monkeypatch.setattr("gradworks.papers._published.results_folder", lambda: tmp_path / "results")
    again = papers.compared()
    assert again is not None
    assert again.document == written.document
