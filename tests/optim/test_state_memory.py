"""Bytes of state and abilities, as the tables of ``docs/optimizers.md`` say them."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.optim.contract import CONTRACT, Line
from torch import nn

PAGE = Path(__file__).parents[2] / "docs/optimizers.md"
# 100 tensors, 9.84 million parameters: a transformer with a stem
SHAPES = (
    *[(512, 512)] * 24, *[(512, 1024)] * 6, *[(64, 64, 3, 3)] * 10, *[(512,)] * 60,
)  # fmt: skip
ROW = re.compile(r"^\| `(?P<name>\w+)(?:\((?P<given>[^)]*)\))?` \| (?P<megabytes>[\d.]+) \| "
                 r"(?P<bytes>[\d.]+) \|", re.MULTILINE)  # fmt: skip
TEXT = PAGE.read_text()
ROWS = [m.groupdict() for m in ROW.finditer(TEXT)]
REDUCTIONS = {"no communication": 0, "one all-reduce": 1, "seven all-reduces": 7}


def test_every_optimizer_has_its_row() -> None:
    assert {row["name"] for row in ROWS} == {str(line) for line in CONTRACT} | {"AdamW"}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['name']}({row['given'] or ''})")
def test_bytes_of_state(row: dict[str, Any]) -> None:
    params = [nn.Parameter(torch.zeros(shape)) for shape in SHAPES]
    settings = {
        key: ast.literal_eval(value)
        for key, value in (part.split("=") for part in (row["given"] or "").split(", ") if part)
    }
    line = next((line for line in CONTRACT if str(line) == row["name"]), None)
    if line is None:
        optimizer: Any = torch.optim.AdamW(params, **settings)
    else:
        optimizer = line.make(params, **{**line.settings, **line.required, **settings})
    for p in params:
        p.grad = torch.zeros_like(p)
    (line or Line(make=torch.optim.AdamW, settings={})).step(optimizer)
    found = sum(bytes_of(state) for state in optimizer.state.values())
    count = sum(p.numel() for p in params)
    assert f"{found / 1e6:.2f}" == row["megabytes"]
    assert f"{found / count:.2f}" == row["bytes"]


def bytes_of(state: dict[str, Any]) -> int:
    """Bytes of a parameter's state, also of the projector that a peer keeps as an object."""
    held = [*state.values(), *(getattr(state.get("projector"), "__dict__", {}).values())]
    return sum(x.numel() * x.element_size() for x in held if isinstance(x, torch.Tensor))


def test_bytes_of_galore() -> None:
    """Its own state of one tensor of each shape, as often as there are."""
    peer = pytest.importorskip("pytorch_optimizer", reason="peer pytorch_optimizer not installed")
    low = {"rank": 64, "update_proj_gap": 200, "scale": 1.0, "projection_type": "std"}
    params = {shape: nn.Parameter(torch.zeros(shape)) for shape in dict.fromkeys(SHAPES)}
    matrices = [p for p in params.values() if p.ndim == 2]
    others = [p for p in params.values() if p.ndim != 2]
    optimizer = peer.GaLore([{"params": matrices, **low}, {"params": others}])
    for p in params.values():
        p.grad = torch.randn_like(p)
    optimizer.step()
    found = sum(SHAPES.count(shape) * bytes_of(optimizer.state[p]) for shape, p in params.items())
    (row,) = re.findall(r"^\| GaLore at rank 64 \| (\S+) \| (\S+) \|", TEXT, re.MULTILINE)
    count = sum(math.prod(shape) for shape in SHAPES)
    assert row == (f"{found / 1e6:.2f}", f"{found / count:.2f}")


@pytest.mark.parametrize("line", CONTRACT, ids=str)
def test_abilities(line: Line) -> None:
    """The table says what the contract tests."""
    cells = re.search(rf"^\| `{line}` \|((?: [^|]*\|){{7}})$", TEXT, re.MULTILINE)
    assert cells is not None
    *paths, capturable, differentiable, complex_, sharded = (
        cell.strip() for cell in cells[1].split("|")[:-1]
    )
    said = [path for path, cell in zip(("single", "foreach", "fused"), paths) if cell]
    assert tuple(said) == line.paths
    assert (capturable == "yes", differentiable == "yes") == (line.capturable, line.differentiable)
    assert (complex_ == "refused") == (line.complex is not None)
    assert REDUCTIONS[sharded] == line.reductions
