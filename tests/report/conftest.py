"""A catalogue whose published results are the tests' own, and a site built from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.report import comparisons, documents, measurements
from tests.report.browser import Browser

from gradworks.papers import _published
from gradworks.report import site

PUBLISHED = {"adamp": "partly", "anyloss": "reproduced", "hessian-spectrum": "not reproduced"}


def publish(folder: Path) -> None:
    """Write a full result of three papers and the shared comparison into ``folder``."""
    folder.mkdir(exist_ok=True)
    for i, (paper, status) in enumerate(PUBLISHED.items()):
        finished = f"2026-11-{20 + i}T10:00:00Z"
        documents.result(paper=paper, status=status, finished=finished).write(
            folder / f"{paper}.json"
        )
    comparisons.result().write(folder / "compare" / "optimizers.json")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of published results."""
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setattr(_published, "results_folder", lambda: folder)
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site: three published full runs, and a quick run of one of them from a store."""
    root = tmp_path_factory.mktemp("catalogue")
    publish(root / "results")
    measurements.publish(root)
    extra = documents.result(
        paper="anyloss", preset="quick", status="indication", finished="2026-11-25T01:00:00Z"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_published, "results_folder", lambda: root / "results")
        site.build(root / "site", [extra])
    return root / "site"


@pytest.fixture(scope="session")
def shared() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(shared: Browser) -> Browser:
    """A desktop browser that prefers light and remembers nothing."""
    shared.resize(1280)
    shared.prefer("light")
    shared.open("about:blank")
    shared.console()
    shared.requests()
    return shared
