"""Verify: the stored trial is rerun and compared, bit for bit or inside the seeds' interval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.papers import toy

from gradworks.bench.result import Result
from gradworks.papers import NothingPublished, PlannedPaper, attach_figures, execute, verify
from gradworks.papers import _published as publishing
from gradworks.papers._verify import compare


@pytest.fixture(autouse=True)
def unshifted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(toy.SHIFT, "value", 0.0)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The document of a whole run of the toy."""
    store = tmp_path_factory.mktemp("toy") / "toy.db"
    return execute(toy.paper(), "full", store=store, engine="serial", jobs=1).document


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Publishes a document where the catalogue looks for it."""
    monkeypatch.setattr(publishing, "results_folder", lambda: tmp_path)

    def write(document: dict[str, Any]) -> None:
        Result(json.loads(json.dumps(document))).write(tmp_path / "adamp.json")

    return write


def test_execute_attaches_figures_that_json_can_hold(outcome: dict[str, Any]) -> None:
    (figure,) = outcome["figures"]
    assert figure["id"] == "error"
    assert len(figure["series"][0]["y"]) == 6
    assert figure["series"][1]["y"] == [None]
    json.dumps(outcome, allow_nan=False)


def test_figures_can_be_drawn_again(outcome: dict[str, Any]) -> None:
    other = Result({**outcome, "paper": "no-such-paper"})
    with pytest.raises(LookupError, match="no paper is called 'no-such-paper'"):
        attach_figures(other)


def test_the_same_machine_agrees_bit_for_bit(outcome: dict[str, Any], publish: Any) -> None:
    publish(outcome)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    row = verify(toy.paper())
    assert row["agrees"]
    assert row["exact"]
    assert "bit for bit" in row["text"]
    # The primary claim's arm, on the first workload that its criterion names, first seed.
    assert (row["arm"], row["workload"]) == ("ours", "second")
    seeds = [f["seed"] for f in outcome["finals"] if f["arm"] == "ours"]
    assert row["seed"] == min(seeds)
    assert [one["metric"] for one in row["metrics"]] == ["error", "threads"]  # no clock
    json.dumps(row, allow_nan=False)
    assert before == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())


def test_a_small_change_is_inside_the_interval(
    outcome: dict[str, Any], publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(outcome)
    middle = verify(toy.paper())["metrics"][0]
    target = (middle["lo"] + middle["hi"]) / 2
    monkeypatch.setitem(toy.SHIFT, "value", target - middle["published"])
    row = verify(toy.paper())
    assert row["agrees"]
    assert not row["exact"]
    assert "agrees within the seeds' interval, not bit for bit" in row["text"]


def test_a_large_change_is_told(
    outcome: dict[str, Any], publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(outcome)
    monkeypatch.setitem(toy.SHIFT, "value", 3.0)
    row = verify(toy.paper())
    assert not row["agrees"]
    assert "1 of 2 figures do NOT agree" in row["text"]
    assert "test error" in row["text"]


def test_a_trial_that_fails_here_says_why(
    outcome: dict[str, Any], publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(outcome)
    monkeypatch.setitem(toy.SHIFT, "value", "text")
    with pytest.raises(RuntimeError, match=r"seed \d+\) ended as error here: .*TypeError"):
        verify(toy.paper())


def test_nothing_published(publish: Any) -> None:
    with pytest.raises(NothingPublished, match="adamp has no published result to verify"):
        verify(toy.paper())


def test_planned(publish: Any) -> None:
    with pytest.raises(PlannedPaper):
        verify(toy.paper(builder=None))


def test_another_protocol_is_refused(outcome: dict[str, Any], publish: Any) -> None:
    publish({**outcome, "protocol_hash": "0" * 16})
    with pytest.raises(ValueError, match="has protocol 0000000000000000, this version"):
        verify(toy.paper())


def test_no_finished_trial_of_the_arm(outcome: dict[str, Any], publish: Any) -> None:
    others = [final for final in outcome["finals"] if final["arm"] != "ours"]
    publish({**outcome, "finals": others})
    with pytest.raises(ValueError, match=r"no finished final trial .*\(ours\)"):
        verify(toy.paper())


# ---------------------------------------------------------------- comparing


def rows(published: float | None, here: float | None, seeds: list[float | None]) -> dict[str, Any]:
    stored = {"test": {"error": published}}
    found = {} if here is None else {"test": {"error": here}}
    (row,) = compare(stored, found, [{"test": {"error": value}} for value in seeds])
    return row


@pytest.mark.parametrize(
    ("published", "here", "seeds", "equal", "agrees"),
    [
        (0.5, 0.5, [0.5], True, True),
        (0.5, 0.5 + 1e-9, [0.5, 0.5], False, True),  # rounding, where all seeds are one figure
        (0.5, 0.5001, [0.5, 0.5], False, False),
        (0.5, 0.45, [0.4, 0.5, 0.6], False, True),
        (0.5, 0.39, [0.4, 0.5, 0.6], False, False),
        (0.5, 0.61, [0.4, 0.5, 0.6], False, False),
        (0.5, None, [0.4, 0.5], False, False),
        (None, None, [None], True, True),  # not finite there, not finite here
        (None, 0.5, [None], False, False),
        (0.5, float("nan"), [0.4, 0.6], False, False),
    ],
)
def test_compare(
    published: float | None,
    here: float | None,
    seeds: list[float | None],
    equal: bool,
    agrees: bool,
) -> None:
    row = rows(published, here, seeds)
    assert (row["equal"], row["agrees"]) == (equal, agrees)
