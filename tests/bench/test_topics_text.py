"""Python's own manual as data: pinned where it is pinned, said where it is not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gradworks.bench import data
from gradworks.bench.data import files, packages, registry

PINNED = data.verify(["topics_text"])[0]["status"] == "ok"


@pytest.mark.skipif(not PINNED, reason="another Python than the pinned one")
def test_the_pinned_text() -> None:
    texts, names, meta = data.topics_text(pinned=True)
    assert len(texts) == len(names) == 79
    whole = "\n".join(texts)
    assert len(whole) == 465_048
    assert len(set(whole)) == 103
    # The text itself, whatever the file around it.
    digest = hashlib.sha256(whole.encode()).hexdigest()
    assert digest == "2a95af4ac93f5b719944030ce3769070ddf827d847cba42192afa8da989e5dc4"
    assert meta.note == ""


def test_any_python_s_text_is_read_and_named() -> None:
    texts, names, meta = data.topics_text()
    assert names.tolist() == sorted(names.tolist())
    assert sum(map(len, texts)) > 300_000
    assert "assert" in names
    assert meta.licence == "PSF-2.0"
    row = data.source("topics_text")
    assert row["sha256"] == meta.sha256
    assert row["source"] == f"{files.interpreter()}, pydoc_data/topics.py"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another Python's file, one character longer."""
    entry, _ = registry.find("topics_text")
    whole = files.folder_of(entry)
    assert whole is not None
    (tmp_path / "topics.py").write_bytes((whole / "topics.py").read_bytes() + b"\n")
    for module in (files, packages):
        monkeypatch.setattr(module, "folder_of", lambda entry: tmp_path)
    return tmp_path


def test_another_text_is_read_and_the_pinned_one_named(elsewhere: Path) -> None:
    digest = hashlib.sha256((elsewhere / "topics.py").read_bytes()).hexdigest()
    _, _, meta = data.topics_text()
    assert meta.note == "not the pinned text of CPython 3.11.7"
    assert meta.sha256 == digest
    row = data.verify(["topics_text"])[0]
    assert (row["status"], row["sha256"]) == ("other", digest[:16])
    assert row["version"] == files.interpreter()
    assert "CPython 3.11.7" in row["text"]
    assert data.source("topics_text")["sha256"] == digest
    with pytest.raises(data.ChangedData, match=r"the pinned one is that of CPython 3\.11\.7"):
        data.topics_text(pinned=True)
    said: list[str] = []
    data.install(
        ["topics_text"], progress=said.append
    )  # nothing can be installed: no pip, no error
    assert "already here" in said[0]


def test_a_python_without_it_says_so(elsewhere: Path) -> None:
    (elsewhere / "topics.py").unlink()
    row = data.verify(["topics_text"])[0]
    assert row["status"] == "absent"
    assert "standard library" in row["text"]
    assert not next(r for r in data.installed() if r["name"] == "topics_text")["here"]
    for call in (
        data.topics_text,
        lambda: data.source("topics_text"),
        lambda: data.install(["topics_text"]),
    ):
        with pytest.raises(data.MissingData, match="a part of Python"):
            call()
