"""Bytes of state, as the table of ``docs/optimizers.md`` says them."""

from __future__ import annotations

import ast
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
ROWS = [m.groupdict() for m in ROW.finditer(PAGE.read_text())]


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
    found = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    count = sum(p.numel() for p in params)
    assert f"{found / 1e6:.2f}" == row["megabytes"]
    assert f"{found / count:.2f}" == row["bytes"]
