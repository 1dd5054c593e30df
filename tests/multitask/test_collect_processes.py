"""DDP and FSDP2: two gloo processes give what one gives on the joint batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.multitask.collect_processes import AGGREGATORS

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("collect_processes.py")
names = pytest.mark.parametrize("name", AGGREGATORS)


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


@names
@pytest.mark.parametrize("way", ["replicas", "ddp", "micro", "vjp", "fsdp", "fsdp micro"])
def test_two_processes_are_one_on_the_joint_batch(outcome: Any, name: str, way: str) -> None:
    for results in outcome:
        want = results[f"{name}/alone"]
        assert len(want) == 2 * (4 + 6 + 4)
        torch.testing.assert_close(results[f"{name}/{way}"], want, rtol=1e-6, atol=1e-9)


@names
@pytest.mark.parametrize("way", ["blocks", "features"])
def test_so_are_blocks_and_features(outcome: Any, name: str, way: str) -> None:
    for results in outcome:
        if f"{name}/{way}" not in results:
            continue
        want = results[f"{name}/{way} alone"]
        torch.testing.assert_close(results[f"{name}/{way}"], want, rtol=1e-6, atol=1e-9)
        if way == "blocks":
            gradients = 10
            torch.testing.assert_close(want[:gradients], results[f"{name}/alone"][:gradients])


def test_random_aggregators_draw_the_same_everywhere(outcome: Any) -> None:
    for key in ("drawn", "drawn fsdp"):
        torch.testing.assert_close(outcome[0][key], outcome[1][key], rtol=0, atol=1e-12)
        steps = [step[key] for step in outcome]
        assert not torch.equal(steps[0][13], steps[0][27]), "new draws each step"
    assert all(results["draws left alone"] for results in outcome)


def test_one_bad_sample_stops_all_and_the_next_step_runs(outcome: Any) -> None:
    for key in ("failing", "failing fsdp"):
        for results in outcome:
            refusal, after = results[key]
            assert "is not finite" in refusal
            assert after == "fine"
        assert outcome[0][key] == outcome[1][key]


def test_a_head_that_one_process_reaches_is_averaged(outcome: Any) -> None:
    for a, b in zip(outcome[0]["late"], outcome[1]["late"]):
        assert bool(a.abs().sum() > 0)
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_what_shards_cannot_do_is_refused(outcome: Any) -> None:
    fragments = [
        "ValueError: method='vjp' does not work with sharded",
        "ValueError: chunk_params does not work with sharded",
        "ValueError: process_group is for replicas",
        "ValueError: some parameters are DTensors and some are plain",
        "TypeError: each process holds a part of the columns",
        "TypeError: process_group must be a ProcessGroup or None, got int",
    ]
    for results in outcome:
        for text, fragment in zip(results["refused"], fragments, strict=True):
            assert text.startswith(fragment), text
