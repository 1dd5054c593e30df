"""``spectrum``, ``data``, ``new-paper`` and ``check``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cli.conftest import Call

from gradworks import papers
from gradworks.bench import data

# ---------------------------------------------------------------- spectrum


def _surface(seed: int) -> torch.Tensor:
    """The Hessian of the user's quadratic: twice the second moment of its inputs."""
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(20, 3, generator=g).double()
    return torch.linalg.eigvalsh(2 * X.T @ X / 20)


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["hessian", "ggn"])
def test_spectrum_of_ones_own_target(call: Call, mine: Path, operator: str) -> None:
    done = call(
        "spectrum",
        "mine.py:surface",
        "--top",
        "2",
        "--operator",
        operator,
        "--seed",
        "3",
        "--json",
        "-q",
        "--out",
        "found.json",
    )
    assert done.code == 0, done.err
    want = _surface(3).flip(0)[:2].tolist()
    assert done.json["top"] == pytest.approx(want, rel=1e-6)
    assert json.loads(Path("found.json").read_text())["top"] == done.json["top"]
    for suffix in (".png", ".html"):
        assert Path("found").with_suffix(suffix).stat().st_size > 1000


@pytest.mark.slow
def test_spectrum_by_quadrature_shows_its_error(call: Call, mine: Path) -> None:
    done = call("spectrum", "mine.py:surface", "--method", "slq", "--probes", "3", "--steps", "3")
    assert done.code == 0, done.err
    assert "trace" in done.out
    quiet = call("spectrum", "mine.py:surface", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


# ---------------------------------------------------------------- data


def test_data_list(call: Call) -> None:
    done = call("data", "list")
    assert (done.code, done.err) == (0, "")
    rows = call("data", "list", "--json").json
    assert {"keel", "mnist5k", "digits"} <= {row["name"] for row in rows}
    assert all(row["licence"] for row in rows)


def test_data_verify(call: Call) -> None:
    done = call("data", "verify", "breast_cancer", "iris", "--json")
    assert done.code == 0
    assert {row["status"] for row in done.json} == {"ok"}
    assert "breast_cancer" in call("data", "verify", "breast_cancer").out


def test_changed_data_is_exit_code_3(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"name": "digits", "status": "changed"}
    monkeypatch.setattr(data, "verify", lambda names: [row])
    done = call("data", "verify", "--json")
    assert (done.code, done.json) == (3, [row])
    row["status"] = "absent"  # not here is no defect
    assert call("data", "verify", "--json").code == 0


def test_data_install_names_what_it_installs(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def install(names: list[str], *, progress: Any) -> None:
        asked.append(names)
        progress("fetching")

    monkeypatch.setattr(data, "install", install)
    done = call("data", "install", "mnist5k", "keel")
    assert (done.code, done.out) == (0, "installed: mnist5k, keel\n")
    assert "fetching" in done.err
    assert call("data", "install", "--all").code == 0
    assert asked[0] == ["mnist5k", "keel"]
    assert asked[1] == [row["name"] for row in data.installed()]


# ---------------------------------------------------------------- a new paper


def test_new_paper_writes_skeletons(call: Call, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "src" / "gradworks").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text((root / "pyproject.toml").read_text())
    (tmp_path / "src" / "gradworks" / "__init__.py").write_text("")
    done = call("new-paper", "lion", "--family", "optim")
    assert done.code == 0, done.err
    written = [line.removeprefix("wrote ") for line in done.out.splitlines()]
    assert any(path.endswith("papers/lion.py") for path in written)
    assert all(Path(path).exists() for path in written)
    assert call("new-paper", "lion", "--family", "optim").code == 2  # nothing is overwritten


def test_check_stops_at_the_first_failure(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [[sys.executable, "-c", f"raise SystemExit({code})"] for code in (0, 4, 0)]
    monkeypatch.setattr(papers, "check_commands", lambda paper, root: commands)
    done = call("check", "anyloss")
    assert done.code == 3
    assert done.err.count("SystemExit") == 2
    monkeypatch.setattr(papers, "check_commands", lambda paper, root: commands[:1])
    assert call("check", "anyloss").code == 0
