"""``run``, ``compare`` and ``verify``: plans, documents, quiet, exit codes, publishing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tests.cli.conftest import Call
from tests.papers import toy

from gradworks import papers
from gradworks.bench import Experiment
from gradworks.bench.result import Result
from gradworks.papers import Paper

SERIAL = ("--engine", "serial")


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> Paper:
    """A catalogue whose only paper is the toy."""
    paper = toy.paper()
    monkeypatch.setattr(papers, "find", lambda slug: paper)
    monkeypatch.setattr(papers, "papers", lambda: [paper])
    return paper


def broken(trial: object) -> None:
    """A trial that cannot run."""
    raise ValueError("no such luck")


def _spoiled(preset: str) -> Experiment:
    experiment = toy.build(preset)
    workloads = tuple(
        dataclasses.replace(w, trial="tests.cli.test_running:broken") for w in experiment.workloads
    )
    return dataclasses.replace(experiment, workloads=workloads)


def test_run_prints_the_claims_and_keeps_the_run(call: Call, catalogue: Paper) -> None:
    done = call("run", "adamp", *SERIAL)
    assert done.code == 0
    assert "The method ends lower." in done.out
    assert "plots" in done.err
    assert Path("gradworks.db").is_file()
    assert list(Path("gradworks.plots/adamp-quick").glob("*.png"))
    before = Path("gradworks.db").read_bytes()
    again = call("run", "adamp", *SERIAL)  # everything is done
    assert again.code == 0
    assert "The method ends lower." in again.out
    assert before


def test_json_is_one_document_and_logs_go_to_stderr(call: Call, catalogue: Paper) -> None:
    done = call("run", "adamp", "--json", *SERIAL)
    assert done.code == 0
    [document] = done.json
    assert document["paper"] == "adamp"
    assert document["figures"][0]["id"] == "error"
    assert "The method ends lower." in done.err
    assert "NaN" not in done.out
    assert call("run", "--all", "--json", *SERIAL).json[0]["paper"] == "adamp"


def test_quiet_prints_nothing(call: Call, catalogue: Paper) -> None:
    done = call("run", "adamp", "--quiet", *SERIAL)
    assert (done.code, done.out, done.err) == (0, "", "")
    done = call("run", "adamp", "-q", "--json", "--store", "b.db", *SERIAL)
    assert (done.code, done.err) == (0, "")
    assert done.json[0]["preset"] == "quick"


def test_strict_is_exit_code_1_unless_reproduced(call: Call, catalogue: Paper) -> None:
    quick = call("run", "adamp", "--strict", "-q", *SERIAL)
    assert quick.code == 1  # an indication is no verdict
    full = call("run", "adamp", "--preset", "full", "--strict", "-q", *SERIAL)
    assert full.code == 0
    few = call("run", "adamp", "--preset", "full", "--seeds", "2", "--strict", "-q", *SERIAL)
    assert few.code == 1


def test_failed_run_is_exit_code_3(
    call: Call, catalogue: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled = dataclasses.replace(catalogue, builder=_spoiled)
    monkeypatch.setattr(papers, "find", lambda slug: spoiled)
    done = call("run", "adamp", *SERIAL)
    assert done.code == 3
    assert "no such luck" in done.words
    assert "Traceback" not in done.err


def test_debug_shows_the_traceback(
    call: Call, catalogue: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled = dataclasses.replace(catalogue, builder=_spoiled)
    monkeypatch.setattr(papers, "find", lambda slug: spoiled)
    with pytest.raises(Exception, match="no such luck"):
        call("run", "adamp", "--debug", *SERIAL)
    monkeypatch.setenv("GRADWORKS_DEBUG", "1")
    with pytest.raises(Exception, match="no such luck"):
        call("run", "adamp", "--store", "other.db", *SERIAL)


def test_planned_papers_refuse_with_code_2(call: Call) -> None:
    planned = next(p for p in papers.papers() if p.planned)
    for options in ((), ("--plan",), ("--preset", "full")):
        done = call("run", planned.slug, *options)
        assert (done.code, done.out) == (2, "")
        assert f"{planned.slug} is planned" in done.words
    both = call("run", "anyloss", planned.slug)
    assert both.code == 2
    assert not Path("gradworks.db").exists()  # refused before any work


@pytest.mark.parametrize("slug", [p.slug for p in papers.papers() if not p.planned])
def test_plan_starts_nothing(call: Call, slug: str) -> None:
    done = call("run", slug, "--plan", "--jobs", "2")
    assert done.code == 0
    assert "final runs" in done.out
    assert "2 cores" in done.out
    assert not Path("gradworks.db").exists()
    [document] = call("run", slug, "--plan", "--json", "--jobs", "2").json
    assert document["paper"] == slug
    assert document["cores"] == 2
    assert document["final_trials"] > 0
    more = call("run", slug, "--plan", "--json", "--seeds", "50").json[0]
    assert more["final_trials"] > document["final_trials"]


def test_plan_of_all(call: Call) -> None:
    documents = call("run", "--all", "--plan", "--json").json
    assert {d["paper"] for d in documents} == {p.slug for p in papers.papers() if not p.planned}


def test_max_time_leaves_the_rest_for_later(call: Call, catalogue: Paper) -> None:
    done = call("run", "adamp", "--preset", "full", "--max-time", "0", "--json", "-q", *SERIAL)
    assert done.code == 0
    assert done.json[0]["claims"][0]["status"] == "undecided"
    rest = call("run", "adamp", "--preset", "full", "--json", "-q", *SERIAL)
    assert rest.json[0]["claims"][0]["status"] == "reproduced"


def test_publish_needs_a_clean_tree_and_the_presets_seeds(
    call: Call, catalogue: Paper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = call("run", "adamp", "--publish", "results", "--seeds", "2", *SERIAL)
    assert done.code == 2
    assert "leave --seeds out" in done.words
    asked: list[Path] = []
    monkeypatch.setattr(papers, "require_publishable", asked.append)
    (tmp_path / "results").mkdir()
    assert call("run", "adamp", "--publish", "results", "-q", *SERIAL).code == 0
    assert asked == [Path("results")]
    assert Result.read(Path("results/adamp.json")).paper == "adamp"


def test_fresh_begins_anew(call: Call, catalogue: Paper) -> None:
    first, second, third = (
        call("run", "adamp", "--json", "-q", *options, *SERIAL).json[0]["experiment"]
        for options in ((), (), ("--fresh",))
    )
    assert first == second != third


def test_a_file_that_is_no_store(call: Call, catalogue: Paper, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but long enough to be read as one " * 40)
    done = call("run", "adamp", "--store", "notes.txt", *SERIAL)
    assert done.code in (2, 3)
    assert "notes.txt" in done.words
    assert "Traceback" not in done.err


# ---------------------------------------------------------------- compare


@pytest.mark.slow
def test_compare_a_workload_of_ones_own(call: Call, mine: Path) -> None:
    options = ("--optimizers", "adamw,torch.optim.SGD", "--trials", "2", "--seeds", "2")
    done = call("compare", "mine.py:workload", *options, "--steps", "8", "--json", *SERIAL)
    assert done.code == 0, done.err
    assert [row["arm"] for row in done.json["rows"]] == ["adamw", done.json["rows"][1]["arm"]]
    assert len(done.json["rows"]) == 2
    finals = done.json["result"]["finals"]
    assert {f["seed"] for f in finals} == {finals[0]["seed"], finals[0]["seed"] + 1}
    assert all(f["status"] == "done" for f in finals)
    studies = done.json["result"]["studies"]
    assert {len(s["trials"]) for s in studies} == {2}
    assert list(Path("gradworks.plots").rglob("*.png"))
    shown = call("compare", "mine.py:workload", *options, "--steps", "8", *SERIAL)
    assert shown.code == 0
    assert "adamw" in shown.out.lower()
    assert "curves:" in shown.err
    quiet = call("compare", "mine.py:workload", *options, "--steps", "8", "-q", *SERIAL)
    assert (quiet.code, quiet.out) == (0, "")
    assert quiet.err == ""


@pytest.mark.slow
def test_compare_in_processes(call: Call, mine: Path) -> None:
    """Workers find the user's file too."""
    done = call("compare", mine, "--optimizers", "sgd", "--trials", "1", "--seeds", "1", "--json")
    assert done.code == 2  # a path alone names no function
    done = call(
        "compare",
        f"{mine}:workload",
        "--optimizers",
        "sgd",
        "--trials",
        "1",
        "--seeds",
        "1",
        "--steps",
        "5",
        "--jobs",
        "1",
        "--json",
        "-q",
    )
    assert done.code == 0, done.err
    assert done.json["result"]["counts"]["final"] == 1


# ---------------------------------------------------------------- verify


def test_verify_without_a_result(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    planned = next(p for p in papers.papers() if p.planned)
    done = call("verify", planned.slug)
    assert done.code == 2
    assert "planned" in done.words


@pytest.mark.parametrize(("agrees", "code"), [(True, 0), (False, 3)])
def test_verify_says_whether_it_agrees(
    call: Call, monkeypatch: pytest.MonkeyPatch, agrees: bool, code: int
) -> None:
    row = {"text": "all the same" if agrees else "not the same", "agrees": agrees}
    monkeypatch.setattr(papers, "verify", lambda paper: row)
    done = call("verify", "anyloss")
    assert done.code == code
    assert done.out.strip() == row["text"]
    assert json.loads(call("verify", "anyloss", "--json").out) == row
