"""The result document: what it holds, that it is whole, and how it is read."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from tests.bench import toy

from gradworks.bench import Result, run
from gradworks.bench.document import experiment_from
from gradworks.bench.result import plain
from gradworks.bench.store import Store


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    store = tmp_path_factory.mktemp("result") / "run.db"
    return run(toy.experiment(), store=store, engine="serial"), store


def test_the_document_has_everything_it_promises(finished) -> None:
    document = finished[0].document
    assert sorted(document) == [
        "arms",
        "claims",
        "counts",
        "created",
        "curves",
        "experiment",
        "figures",
        "finals",
        "finished",
        "format",
        "notes",
        "paper",
        "preset",
        "protocol_hash",
        "provenance",
        "seconds",
        "status",
        "studies",
        "workloads",
    ]
    assert (document["format"], document["paper"], document["preset"]) == (1, "toy", "custom")
    assert document["protocol_hash"] == toy.experiment().protocol_hash
    for key in ("created", "finished"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document[key])
    [workload] = document["workloads"]
    assert (workload["name"], workload["label"], workload["steps"]) == ("bowl", "A bowl", 20)
    assert workload["arms"] == ["ours", "theirs"]
    assert [a["is_baseline"] for a in document["arms"]] == [False, True]
    [claim] = document["claims"]
    assert claim["id"] == "better"
    assert claim["primary"]
    assert claim["outcomes"][0]["n"] == 3
    assert len(claim["outcomes"][0]["values"]) == 3
    assert claim["text"]
    assert document["status"] == claim["status"]
    [first, *_] = document["finals"]
    assert set(first) >= {"workload", "arm", "number", "seed", "params", "status", "seconds"}
    assert first["state_bytes"] == 32
    assert set(first["metrics"]) == {"test", "valid"}


def test_no_machine_path_host_or_user_enters(finished) -> None:
    import getpass
    import socket

    text = json.dumps(finished[0].document)
    assert str(Path(__file__).parents[2]) not in text
    assert str(finished[1].parent) not in text
    assert socket.gethostname() not in text
    words = set(re.findall(r"\w+", text))
    assert getpass.getuser() not in words
    assert "/" not in text.replace("image/", "")


def test_values_are_paired_by_seed(finished) -> None:
    result = finished[0]
    ours = result.values("loss", "ours")
    assert sorted(ours) == [0, 1, 2]
    assert ours == result.values("loss", "ours", "bowl")
    assert ours == result.values("loss", "ours", split="valid")  # the toy has one surface
    assert result.values("loss", "nobody") == {}
    assert result.values("loss", "ours", "valley") == {}
    assert result.values("distance", "ours", split="valid") == {}


def test_the_mean_over_workloads_and_what_diverged() -> None:
    def final(workload: str, seed: int, value: float | None) -> dict:
        status = "diverged" if value is None else "done"
        metrics = {} if value is None else {"test": {"loss": value}}
        return {
            "workload": workload,
            "arm": "a",
            "seed": seed,
            "status": status,
            "metrics": metrics,
        }

    finals = [final("u", 0, 1.0), final("v", 0, 3.0), final("u", 1, 1.0), final("v", 1, None)]
    values = Result({"format": 1, "finals": finals}).values("loss", "a")
    assert values[0] == 2.0
    assert math.isnan(values[1])


def test_curves_over_seeds(finished) -> None:
    result, store = finished
    curve = result.curve("bowl", "ours", "valid", "loss")
    assert curve["step"] == [5, 10, 15, 20]
    assert len(curve["runs"]) == 3
    for at in range(4):
        values = [curve["runs"][str(seed)][at] for seed in range(3)]
        assert curve["lo"][at] == min(values)
        assert curve["hi"][at] == max(values)
        assert curve["mean"][at] == pytest.approx(sum(values) / 3, rel=1e-5)
    assert curve["runs"]["1"][-1] == pytest.approx(result.values("loss", "ours")[1], rel=1e-5)
    with Store(store) as opened:
        [row] = opened.read(
            "SELECT m.value FROM metric m JOIN trial t ON t.id = m.trial_id WHERE t.kind = 'final' "
            "AND t.arm_id = 1 AND t.seed = 2 AND m.step = 10 AND m.name = 'loss'"
        )
        assert curve["runs"]["2"][1] == pytest.approx(row["value"], rel=1e-5)
    assert "runs" not in result.curve("bowl", "ours", "train", "norm")
    assert result.curve("bowl", "ours", "valid", "nothing") is None


def test_a_run_that_diverged_leaves_a_gap_in_the_curve(tmp_path: Path) -> None:
    wrong = {"wrong": "diverge", "at": 12}
    experiment = toy.experiment(tune_trials=0, a_fixed=wrong)
    result = run(experiment, store=tmp_path / "run.db", engine="serial")
    curve = result.curve("bowl", "ours", "valid", "loss")
    assert curve["step"] == [5, 10]
    assert None not in curve["mean"]


def test_write_and_read(finished, tmp_path: Path) -> None:
    path = tmp_path / "results" / "toy.json"
    finished[0].write(path)
    text = path.read_text()
    assert text.endswith("}\n")
    assert text == json.dumps(finished[0].document, sort_keys=True, indent=1) + "\n"
    assert Result.read(path).document == finished[0].document
    finished[0].write(path)
    assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["toy.json"]


def test_a_write_that_fails_leaves_the_old_file(finished, tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="Out of range float"):
        Result({**finished[0].document, "seconds": math.nan}).write(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["toy.json"]


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("{", "is no result of gradworks"),
        ("[]", "it has no 'format'"),
        ("{}", "it has no 'format'"),
        ('{"format": 9}', "has format 9, this gradworks reads 1"),
    ],
)
def test_what_is_no_result(tmp_path: Path, text: str, fragment: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=fragment):
        Result.read(path)


def test_numbers_that_are_not_finite_become_none() -> None:
    given = {"a": (1.0, math.nan), "b": {"c": [math.inf, "x", None, True, 3]}}
    assert plain(given) == {"a": [1.0, None], "b": {"c": [None, "x", None, True, 3]}}


def test_an_experiment_survives_the_store() -> None:
    experiment = toy.experiment(notes=("a", "b"))
    again = experiment_from(json.loads(json.dumps(experiment.to_dict())))
    assert again == experiment
    assert again.protocol_hash == experiment.protocol_hash
