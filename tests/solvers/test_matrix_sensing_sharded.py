"""Measurements that two gloo processes share give what one process gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("sensing_processes.py")
KINDS = ("stored", "entries", "rank one")


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
    return [torch.load(folder / f"out{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_those_of_one_process(outcome: Any, kind: str) -> None:
    for rank, results in enumerate(outcome):
        both, alone = results["both"][kind], results["alone"][kind]
        assert alone["shape"] == (61, 5, 5)
        assert both["shape"] == (31 - rank, 5, 5)
        for name in ("adjoint", "normal", "gradient", "residual"):
            torch.testing.assert_close(both[name], alone[name], rtol=1e-11, atol=1e-12)
        assert both["rip"] == pytest.approx(alone["rip"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["symmetric_gd", "asymmetric_gd", "accelerated_gd"])
def test_runs_are_those_of_one_process(outcome: Any, kind: str, method: str) -> None:
    for results in outcome:
        both, alone = results["both"][kind][method], results["alone"][kind][method]
        for a, b in zip(both[:3], alone[:3], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)
        assert both[3] == alone[3]
        assert both[4] == pytest.approx(alone[4])
        assert results["both"][kind]["stopped"] == results["alone"][kind]["stopped"]


@pytest.mark.parametrize("kind", KINDS)
def test_both_processes_hold_the_same_bits(outcome: Any, kind: str) -> None:
    first, second = (results["both"][kind]["accelerated_gd"] for results in outcome)
    for a, b in zip(first[:3], second[:3], strict=True):
        assert torch.equal(a, b)


def test_unshared_measurements_stay_apart(outcome: Any) -> None:
    assert not torch.allclose(outcome[0]["apart"], outcome[1]["apart"])
