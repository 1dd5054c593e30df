"""A folder is replaced as a whole, or not at all."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gradworks.report.site import swap


def made(folder: Path, text: str = "old") -> Path:
    folder.mkdir(parents=True)
    (folder / swap.MARKER).touch()
    (folder / "index.html").write_text(text)
    return folder


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.parent.iterdir() if p.name != folder.name)


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_a_site_is_replaced_and_nothing_stays_behind(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(swap, "_exchange", lambda one, other: False)
    out = made(tmp_path / "a" / "site")
    (out / "gone.html").touch()
    with swap.replacing(out) as new:
        (new / "index.html").write_text("new")
        assert (out / "index.html").read_text() == "old"
    assert (out / "index.html").read_text() == "new"
    assert not (out / "gone.html").exists()
    assert leftovers(out) == []


@pytest.mark.skipif(sys.platform != "linux", reason="Linux exchanges folders in one step")
def test_the_exchange_really_is_one_step(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one", "1"), made(tmp_path / "other", "2")
    if not swap._exchange(one, other):
        pytest.skip("this file system cannot exchange folders")
    assert (one / "index.html").read_text() == "2"


def test_a_build_that_fails_leaves_the_old_site(tmp_path: Path) -> None:
    out = made(tmp_path / "a" / "site")

    def fail() -> None:
        with swap.replacing(out) as new:
            (new / "index.html").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (out / "index.html").read_text() == "old"
    assert leftovers(out) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from gradworks.report.site import swap
out = Path(sys.argv[1])
where = sys.argv[2]
if where == "between the renames":
    swap._exchange = lambda one, other: False
    real = Path.rename
    def rename(self, target):
        real(self, target)
        os.kill(os.getpid(), signal.SIGKILL)
    Path.rename = rename
with swap.replacing(out) as new:
    (new / "index.html").write_text("new")
    if where == "while writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("where", ["while writing", "between the renames"])
def test_a_kill_leaves_a_whole_site(where: str, tmp_path: Path) -> None:
    out = made(tmp_path / "a" / "site")
    done = subprocess.run([sys.executable, "-c", KILLED, str(out), where], check=False)
    assert done.returncode == -signal.SIGKILL
    assert leftovers(out) != []
    if where == "while writing":
        assert (out / "index.html").read_text() == "old"
    # The next build finds the old site in its place again, and clears up.
    with contextlib.suppress(ZeroDivisionError), swap.replacing(out):
        assert (out / "index.html").read_text() == "old"
        raise ZeroDivisionError
    assert leftovers(out) == []


def test_a_build_under_way_is_not_swept(tmp_path: Path) -> None:
    out = made(tmp_path / "a" / "site")
    with swap.replacing(out) as new:
        (new / "index.html").write_text("first")
        with swap.replacing(out) as newer:
            (newer / "index.html").write_text("second")
        assert (new / "index.html").read_text() == "first"
    assert (out / "index.html").read_text() == "first"
    assert leftovers(out) == []


def test_an_empty_or_missing_folder_is_taken(tmp_path: Path) -> None:
    for name in ("missing/deep/site", "empty"):
        out = tmp_path / name
        if name == "empty":
            out.mkdir()
        with swap.replacing(out) as new:
            (new / "index.html").touch()
        assert (out / swap.MARKER).is_file()


@pytest.mark.parametrize("kind", ["file", "folder", "checkout"])
def test_what_is_not_ours_is_not_replaced(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "precious"
    if kind == "file":
        out.write_text("precious")
    else:
        out.mkdir()
        (out / ("index.html" if kind == "folder" else ".git")).write_text("precious")
    with pytest.raises(swap.NotOurSite, match="choose another"), swap.replacing(out):
        raise AssertionError("the block must not run")
    assert out.exists()
    assert leftovers(out) == []


def test_what_appears_during_the_build_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "a" / "site"

    def meanwhile() -> None:
        with swap.replacing(out):
            out.mkdir()
            (out / "thesis.tex").touch()

    with pytest.raises(swap.NotOurSite):
        meanwhile()
    assert (out / "thesis.tex").exists()


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    real = made(tmp_path / "a" / "site")
    link = tmp_path / "link"
    link.symlink_to(real)
    with swap.replacing(link) as new:
        (new / "index.html").write_text("new")
    assert link.is_symlink()
    assert (real / "index.html").read_text() == "new"
