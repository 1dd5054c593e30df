"""DDP, FSDP2 and sharded weights: two gloo processes give what one gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.optim.contract import CONTRACT, Line
from tests.optim.test_contract import lines

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("processes.py")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes saved."""
    folder = tmp_path_factory.mktemp("gloo")
    command = [sys.executable, "-W", "ignore", str(SCRIPT)]
    found = [str(SCRIPT.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(found), "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(folder / "store"), str(folder / "out")],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    try:
        errors = [worker.communicate(timeout=200)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
    return [torch.load(folder / f"out{rank}.pt") for rank in range(2)]


@lines
@pytest.mark.parametrize("place", ["rows", "columns", "whole"])
def test_shards_take_the_steps_of_the_whole(outcome: Any, line: Line, place: str) -> None:
    for results in outcome:
        want, decisions = results["sharded"][f"{line}/{place}/alone"]
        got, taken = results["sharded"][f"{line}/{place}"]
        assert taken == decisions
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)
        if "record_branches" in line.sharded:
            assert {b for step in decisions for b in step.values()} == {-1, 0, 1, 2}
        if "indices" in line.integers:
            assert len({str(step) for step in decisions}) > 1


@pytest.mark.parametrize("place", ["rows", "columns"])
def test_functions_of_shards(outcome: Any, place: str) -> None:
    for results in outcome:
        found = results["functions"]
        torch.testing.assert_close(found[place], found["plain"])
        torch.testing.assert_close(found[f"{place}/cosines"], found["plain/cosines"])
        torch.testing.assert_close(found[f"{place}/step"], found["plain/step"])
        assert "differentiable=True does not work for sharded" in found["differentiable"]


def test_no_more_reductions_than_promised(outcome: Any) -> None:
    for results in outcome:
        assert results["reductions"] == {str(line): line.reductions for line in CONTRACT}


@lines
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_networks_train_as_alone(outcome: Any, line: Line, kind: str) -> None:
    for results in outcome:
        found = results["networks"]
        for a, b in zip(found[f"{line}/{kind}"], found[f"{line}/{kind}/alone"], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@lines
def test_sharded_state_goes_out_and_in(outcome: Any, line: Line) -> None:
    for results in outcome:
        found = results["networks"]
        torch.testing.assert_close(found[f"{line}/resumed"], found[f"{line}/on"], rtol=0, atol=0)
