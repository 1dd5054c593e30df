"""Published results: where they lie, what a badge says, when publishing is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.papers import toy

import gradworks
from gradworks.papers import (
    NotPublishable,
    papers,
    published,
    require_publishable,
    results_folder,
    status,
    summary,
)
from gradworks.papers import _published as publishing

DOCUMENT = (
    '{"format": 1, "paper": "adamp", "preset": "full", "status": "partly", '
    '"finished": "2026-01-01T00:00:00Z", "claims": [{"id": "lower", "status": "partly"}]}'
)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(publishing, "results_folder", lambda: tmp_path)
    return tmp_path


# ---------------------------------------------------------------- reading


def test_the_checkout_holds_the_results() -> None:
    assert results_folder() == Path(gradworks.__file__).resolve().parents[2] / "results"
    assert results_folder().is_dir()


def test_a_wheel_holds_its_own_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "gradworks"
    monkeypatch.setattr(gradworks, "__file__", str(package / "__init__.py"))
    assert results_folder() == package / "results"


def test_badges(folder: Path) -> None:
    assert published("adamp") is None
    assert status(toy.paper()) == "not run"
    assert status(toy.paper(builder=None)) == "planned"
    (folder / "adamp.json").write_text(DOCUMENT)
    result = published("adamp")
    assert result is not None
    assert result.status == status(toy.paper()) == "partly"
    assert status(toy.paper(builder=None)) == "planned"


def test_summary_tells_what_was_published(folder: Path) -> None:
    (folder / "adamp.json").write_text(DOCUMENT)
    document = summary(toy.paper())
    assert document["published"] == "2026-01-01T00:00:00Z"
    assert [claim["status"] for claim in document["claims"]] == ["partly"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"paper": "adamp"}', '{"format": 99}'])
def test_a_file_that_is_no_result_is_named(folder: Path, text: str) -> None:
    (folder / "adamp.json").write_text(text)
    with pytest.raises(ValueError, match=r"published result .*adamp\.json cannot be read"):
        published("adamp")


@pytest.mark.parametrize("paper", papers(), ids=lambda paper: paper.slug)
def test_every_published_result_fits_its_paper(paper: Any) -> None:
    result = published(paper.slug)
    if result is None:
        return
    assert not paper.planned, "a result of a paper that does not run"
    assert result.paper == paper.slug
    assert result.preset in paper.presets
    assert {claim["id"] for claim in result.claims} <= {claim.id for claim in paper.claims}
    experiment = paper.build(result.preset)
    assert result.document["protocol_hash"] == experiment.protocol_hash, "protocol changed since"


# ---------------------------------------------------------------- publishing


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with one committed file of code."""
    root = tmp_path / "checkout"
    (root / "src").mkdir(parents=True)
    (root / "src" / "code.py").write_text("x = 1\n")
    (root / ".gitignore").write_text("*.db\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "code")
    return root


def test_a_clean_tree_may_publish_and_the_folder_is_made(checkout: Path) -> None:
    folder = checkout / "results"
    require_publishable(folder, source=checkout / "src")
    assert folder.is_dir()


def test_results_and_ignored_files_do_not_make_it_dirty(checkout: Path) -> None:
    folder = checkout / "results"
    folder.mkdir()
    (folder / "adamp.json").write_text("{}")
    (checkout / "gradworks.db").write_text("")
    require_publishable(folder, source=checkout / "src")


@pytest.mark.parametrize("change", ["edit", "new", "staged", "removed"])
def test_uncommitted_code_is_refused(checkout: Path, change: str) -> None:
    code = checkout / "src" / "code.py"
    if change == "edit":
        code.write_text("x = 2\n")
    elif change == "removed":
        code.unlink()
    else:
        code = checkout / "src" / "more.py"
        code.write_text("y = 1\n")
        if change == "staged":
            git(checkout, "add", ".")
    with pytest.raises(NotPublishable, match="needs a clean git tree") as caught:
        require_publishable(checkout / "results", source=checkout / "src")
    assert f"src/{code.name}" in str(caught.value)
    assert not (checkout / "results").exists()


def test_the_root_itself_is_not_a_results_folder(checkout: Path) -> None:
    (checkout / "src" / "code.py").write_text("x = 2\n")
    with pytest.raises(NotPublishable, match="clean git tree"):
        require_publishable(checkout, source=checkout / "src")


def test_code_outside_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotPublishable, match="needs gradworks to run from a git checkout"):
        require_publishable(tmp_path / "results", source=tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(checkout: Path) -> None:
    with pytest.raises(NotPublishable, match="cannot be created"):
        require_publishable(checkout / "src" / "code.py" / "results", source=checkout / "src")
    with pytest.raises(NotPublishable, match="cannot be created"):
        require_publishable(checkout / "src" / "code.py", source=checkout / "src")


def test_a_folder_without_permission_is_refused(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing.os, "access", lambda path, mode: False)
    with pytest.raises(NotPublishable, match="no permission to write"):
        require_publishable(checkout / "results", source=checkout / "src")


def test_without_git_the_reason_is_told(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotPublishable, match="git checkout"):
        require_publishable(checkout / "results", source=checkout / "src")
