"""DDP, FSDP2 and sharded weights: two gloo processes give what one gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("processes.py")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes saved."""
    folder = tmp_path_factory.mktemp("gloo")
    command = [sys.executable, "-W", "ignore", str(SCRIPT)]
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(folder / "store"), str(folder / "out")],
            stderr=subprocess.PIPE,
            text=True,
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


@pytest.mark.parametrize("name", ["adamp", "sgdp"])
@pytest.mark.parametrize("place", ["rows", "columns", "whole"])
def test_shards_take_the_steps_of_the_whole(outcome: Any, name: str, place: str) -> None:
    for results in outcome:
        want, branches = results["sharded"][f"{name}/plain"]
        got, taken = results["sharded"][f"{name}/{place}"]
        assert taken == branches
        assert {b for step in branches for b in step.values()} == {-1, 0, 1, 2}
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("place", ["rows", "columns"])
def test_functions_of_shards(outcome: Any, place: str) -> None:
    for results in outcome:
        found = results["functions"]
        torch.testing.assert_close(found[place], found["plain"])
        torch.testing.assert_close(found[f"{place}/cosines"], found["plain/cosines"])
        torch.testing.assert_close(found[f"{place}/step"], found["plain/step"])
        assert "differentiable=True does not work for sharded" in found["differentiable"]


def test_one_reduction_for_all_weights(outcome: Any) -> None:
    assert [results["reductions"] for results in outcome] == [1, 1]


@pytest.mark.parametrize("name", ["adamp", "sgdp"])
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_networks_train_as_alone(outcome: Any, name: str, kind: str) -> None:
    for results in outcome:
        found = results["networks"]
        for a, b in zip(found[f"{name}/{kind}"], found[f"{name}/plain"], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["adamp", "sgdp"])
def test_sharded_state_goes_out_and_in(outcome: Any, name: str) -> None:
    for results in outcome:
        found = results["networks"]
        torch.testing.assert_close(found[f"{name}/resumed"], found[f"{name}/on"], rtol=0, atol=0)
