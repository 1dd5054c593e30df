"""``gradworks landscape``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.cli.conftest import Call

from gradworks.curvature.landscape import LossPlane

NET = """
import torch

def net(seed):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Tanh(), torch.nn.Linear(6, 2)
    )
    X = torch.randn(40, 4)
    return model, torch.nn.functional.cross_entropy, (X, (X[:, 0] > 0).long())
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


@pytest.mark.slow
def test_planes_of_ones_own_target(call: Call, net: Path) -> None:
    command = ["landscape", "net.py:net", "--mode", "eval,recalibrate", "--points", "5"]
    command += ["--steps", "10", "--norm", "filter", "--out", "seen"]
    done = call(*command, "--json", "-q")
    assert done.code == 0, done.err
    folder = Path("seen")
    names = [
        f"{a}-{n}-{m}"
        for a in ("random", "hessian")
        for n in ("filter",)
        for m in ("eval", "recalibrate")
    ]
    assert set(done.json["planes"]) == set(names)
    for name in names:
        plane = LossPlane.load(folder / f"{name}.npz")
        assert plane.loss.shape == (5, 5)
        assert plane.num_missing == 0
        assert (folder / f"{name}.png").stat().st_size > 1000
        if name.endswith("eval"):
            assert float(plane.center) == pytest.approx(done.json["loss"], rel=1e-5)
    assert json.loads((folder / "landscape.json").read_text()) == done.json
    page = (folder / "landscape.html").read_text()
    assert page.count("<option>") == 4
    assert "http" not in page[page.index("</script>") :]  # nothing is fetched
    assert done.json["criteria"]["num_steps"] == [10, 10]
    assert all(v > 0 for v in done.json["batch_norm"].values())

    stamps = {p.name: np.load(p)["loss"].tobytes() for p in folder.glob("*.npz")}
    shown = call(*command)
    assert shown.code == 0
    assert "random" in shown.out
    assert "eval against recalibrated" in shown.out
    assert {p.name: np.load(p)["loss"].tobytes() for p in folder.glob("*.npz")} == stamps
    other = call(*command, "--seed", "1")
    assert other.code == 2
    assert "holds another plane" in other.words


def test_a_checkpoint_is_looked_at(call: Call, mine: Path) -> None:
    torch.save({"weight": torch.zeros(1, 3).double()}, "w.pt")
    common = ["landscape", "mine.py:surface", "--axes", "random", "--no-criteria", "--points", "3"]
    common += ["--json", "-q"]
    done = call(*common, "--checkpoint", "w.pt")
    assert done.code == 0, done.err
    g = torch.Generator().manual_seed(0)
    torch.randn(20, 3, generator=g)
    y = torch.randn(20, 1, generator=g).double()
    assert done.json["loss"] == pytest.approx(float((y**2).mean()))
    assert done.json["criteria"] is None
    torch.save({"bias": torch.zeros(1)}, "other.pt")
    assert "does not fit" in call(*common, "--checkpoint", "other.pt").words


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--axes", "up"], "--axes must be some of random, hessian"),
        (["--axes", "adam"], "other axes need an optimizer"),
        (["--axes", ","], "axes must be a list"),
        (["--norm", "row"], "normalizations must be one of"),
        (["--mode", "on"], "modes must be one of"),
        (["--points", "1"], "--points"),
        (["--distance", "0"], "distance must be positive"),
        (["--checkpoint", "none.pt"], "no checkpoint none.pt"),
        (["--out", "mine.py"], "--out must be a folder"),
    ],
)
def test_usage(call: Call, mine: Path, arguments: list[str], text: str) -> None:
    done = call("landscape", "mine.py:surface", "--no-criteria", *arguments)
    assert done.code == 2
    assert text in done.words
