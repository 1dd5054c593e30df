"""Langevin under DDP, FSDP2 and DTensor: two gloo processes give what one gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("langevin_processes.py")


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


@pytest.mark.parametrize("manifold", ["sphere", "euclidean"])
@pytest.mark.parametrize("place", ["rows", "columns", "whole"])
def test_shards_take_the_noise_of_the_whole(outcome: Any, manifold: str, place: str) -> None:
    for results in outcome:
        want, got = results[f"{manifold}/plain"], results[f"{manifold}/{place}"]
        assert all(bool(x.isfinite().all()) for x in want)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_replicas_and_shards_of_a_network(outcome: Any, kind: str) -> None:
    for results in outcome:
        for a, b in zip(results["networks"][kind], results["networks"]["plain"], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_chains_of_processes_are_pooled_by_count(outcome: Any) -> None:
    for results in outcome:
        (mean, square, count), want = results["pooled"]["got"], results["pooled"]["want"]
        torch.testing.assert_close(mean, want[0])
        torch.testing.assert_close(square, want[1])
        assert count == want[2] == 7


def test_what_is_refused(outcome: Any) -> None:
    for results in outcome:
        found = results["errors"]
        assert "RuntimeError: a sharded parameter of shape (6, 4) needs gen" in found["generator"]
        assert "ValueError: second_moment=True does not work for sharded" in found["second"]
        assert "RuntimeError: sharded parameters are averaged in place" in found["pool"]
