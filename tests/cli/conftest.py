"""Call the command in this process, in an empty folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gradworks.cli import main


@dataclass(frozen=True)
class Outcome:
    """What one call did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output; anything else there is an error."""
        return json.loads(self.out)

    @property
    def words(self) -> str:
        """Standard error as one line, as line breaks depend on the width."""
        return " ".join(self.err.split())


Call = Callable[..., Outcome]


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("GRADWORKS_DEBUG", raising=False)

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run


PROBLEM = '''
"""A plane through four dimensions, and a quadratic surface."""

import torch
from gradworks.bench.workloads import Problem


def workload(seed):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(120, 4, generator=g)
    y = (X[:, 0] + X[:, 1] > 0).long()

    def model(generator):
        net = torch.nn.Linear(4, 2)
        with torch.no_grad():
            net.weight.copy_(0.1 * torch.randn(2, 4, generator=generator))
            net.bias.zero_()
        return net

    return Problem(
        name="plane",
        model=model,
        train=(X[:80], y[:80]),
        valid=(X[80:100], y[80:100]),
        test=(X[100:], y[100:]),
        loss_fn=torch.nn.functional.cross_entropy,
        metric=lambda output, target: (output.argmax(1) != target).double().mean(),
        batch_size=20,
        steps=20,
    )


def surface(seed):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(20, 3, generator=g).double()
    model = torch.nn.Linear(3, 1, bias=False).double()
    return model, torch.nn.functional.mse_loss, (X, torch.randn(20, 1, generator=g).double())


def wrong(seed):
    return "not a problem"
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's own file, ``mine.py``."""
    path = tmp_path / "mine.py"
    path.write_text(PROBLEM)
    return path
