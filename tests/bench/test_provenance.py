"""What a result was made with: code, versions, machine; nothing private."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

import gradworks
from gradworks.bench import provenance
from gradworks.bench.task import Facts


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "src" / "gradworks"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    (tmp_path / "constraints.txt").write_text("torch==1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    monkeypatch.setattr(provenance, "PACKAGE", package)
    return tmp_path


def test_a_clean_checkout(checkout: Path) -> None:
    (checkout / "gradworks.db").write_text("a store beside the code changes no code")
    sha = git(checkout, "rev-parse", "HEAD")
    assert provenance.code_state() == {"git_sha": sha, "dirty": 0, "diff_sha256": None}


def test_changed_code_is_told_apart(checkout: Path) -> None:
    package = checkout / "src" / "gradworks"
    (package / "__init__.py").write_text("x = 2\n")
    changed = provenance.code_state()
    assert changed["dirty"] == 1
    (package / "new.py").write_text("y = 1\n")
    added = provenance.code_state()
    (package / "new.py").write_text("y = 2\n")
    edited = provenance.code_state()
    assert len({s["diff_sha256"] for s in (changed, added, edited)} | {None}) == 4


def test_a_wheel_inside_somebodys_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    package = tmp_path / ".venv" / "gradworks"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(provenance, "PACKAGE", package)
    assert provenance.code_state() == {"git_sha": None, "dirty": None, "diff_sha256": None}


def test_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert provenance.code_state()["git_sha"] is None


def test_what_is_collected() -> None:
    row = provenance.collect(2, Facts({"torch": "9.9", "gpu": "G", "cpu_capability": "AVX9"}))
    assert (row["torch"], row["gpu"], row["threads"]) == ("9.9", "G", 2)
    assert row["gradworks"] == gradworks.__version__
    assert row["env"]["cpu_capability"] == "AVX9"
    assert row["env"]["scipy"]
    assert row["cores"] >= 1
    text = json.dumps(row)
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text
    assert "/" not in text


def test_without_a_worker_torchs_version_is_known() -> None:
    import torch

    assert provenance.collect(1, None)["torch"] == torch.__version__
