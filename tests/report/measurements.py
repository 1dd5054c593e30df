"""What the curvature tools measured on a small network, as the site keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradworks.report import landscape, rates, spectrum

NET = """
import torch

def target(seed):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    return model, torch.nn.functional.cross_entropy, (torch.randn(40, 4), torch.arange(40) % 2)
"""


def folder(root: Path) -> Iterator[Path]:
    """The stored documents under ``root``."""
    yield from (root / "results" / "tools").glob("*.json")


def publish(root: Path) -> None:
    """Measure and store one document a tool under ``root``."""
    net = root / "net.py"
    net.write_text(NET)
    target = f"{net}:target"
    made: dict[str, Any] = {
        "spectrum": spectrum.measure(target, top=3).document,
        "lr": rates.measure(target, batch_size=8, to=16, repeats=2, num_steps=5).document,
        "landscape": landscape.measure(target, axes=["random"], points=3, criteria=False).document,
    }
    tools = root / "results" / "tools"
    tools.mkdir(parents=True)
    for name, document in made.items():
        (tools / f"{name}-net.json").write_text(json.dumps(document))
