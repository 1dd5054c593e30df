"""AdaHessian with two gloo processes: DDP, FSDP2 and bare replicas give what one process gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("adahessian_processes.py")


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


@pytest.mark.parametrize(
    ("kind", "alone"), [("ddp", "differences"), ("fsdp", "differences"), ("group", "products")]
)
def test_two_processes_train_as_one(outcome: Any, kind: str, alone: str) -> None:
    for results in outcome:
        for a, b in zip(results[kind], results[alone], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(outcome[0][kind], outcome[1][kind], strict=True):
        assert torch.equal(a, b)


def test_differences_train_as_products_do(outcome: Any) -> None:
    for a, b in zip(outcome[0]["differences"], outcome[0]["products"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)


def test_gradients_of_shards_keep_no_graph_and_say_so(outcome: Any) -> None:
    for results in outcome:
        assert "have no graph" in results["advice"]
        assert "use optimizer.estimate_from(closure) there" in results["advice"]
