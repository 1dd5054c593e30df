"""The README's catalogue table: its rows, its update, and that it is in step."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradworks.bench.result import Result
from gradworks.papers import Paper, papers
from gradworks.papers import _published as publishing
from gradworks.report import readme

ROOT = Path(__file__).parents[2]


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table, header and rule left out."""
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_one_row_a_paper_in_the_order_given() -> None:
    everything = papers()
    found = rows(readme.table(everything))
    assert len(found) == len(everything)
    for cells, paper in zip(found, everything, strict=True):
        assert len(cells) == 5, cells
        name, year, title, status, _ = cells
        assert paper.slug in name
        assert year == paper.card.date[:4]
        assert title == f"[{paper.card.title}]({paper.card.url})"
        assert status.strip("*")
    assert rows(readme.table(everything[::-1])) == found[::-1]


def test_planned_papers_have_no_link_and_no_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(publishing, "results_folder", lambda: tmp_path)
    for cells, paper in zip(rows(readme.table(papers())), papers(), strict=True):
        assert cells[3] == ("**planned**" if paper.planned else "**not run**")
        assert ("docs/methods" in cells[0]) is not paper.planned
        assert cells[4] == ""


def publish(folder: Path, paper: Paper, status: str) -> None:
    claims = [
        {"id": claim.id, "primary": claim.primary, "status": status, "statement": "a | b\nc"}
        for claim in paper.claims
    ]
    Result(
        {
            "format": 1,
            "paper": paper.slug,
            "preset": "full",
            "status": status,
            "claims": claims,
        }
    ).write(folder / f"{paper.slug}.json")


def test_a_published_verdict_is_shown_and_cells_cannot_break_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(publishing, "results_folder", lambda: tmp_path)
    runnable = next(paper for paper in papers() if not paper.planned)
    publish(tmp_path, runnable, "not reproduced")
    (line,) = readme.table([runnable]).splitlines()[2:]
    assert "| **not reproduced** |" in line
    assert line.endswith(r"| a \| b c |")


def test_the_sentence_above_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(publishing, "results_folder", lambda: tmp_path)
    runnable = [paper for paper in papers() if not paper.planned]
    planned = [paper for paper in papers() if paper.planned]
    assert readme.counts(planned[:2]) == "0 of 2 run here."
    publish(tmp_path, runnable[0], "partly")
    publish(tmp_path, runnable[1], "reproduced")
    assert readme.counts([*runnable[:2], *planned[:3]]) == (
        "2 of 5 run here: 1 partly, 1 reproduced."
    )


def test_update_replaces_the_table_once(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n\n{readme.BEGIN}\nstale words\n{readme.END}\n\nafter\n")
    assert readme.update(path, papers())
    text = path.read_text()
    assert text.startswith("# Title\n\n" + readme.BEGIN)
    assert text.endswith(readme.END + "\n\nafter\n")
    assert readme.table(papers()) in text
    assert "stale words" not in text
    assert not readme.update(path, papers())
    assert path.read_text() == text


@pytest.mark.parametrize(
    "text", ["", "no markers", readme.BEGIN, readme.END, f"{readme.END}\n{readme.BEGIN}"]
)
def test_update_needs_both_markers_in_order(tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"README\.md needs the lines"):
        readme.update(path, papers())
    assert path.read_text() == text


def test_the_readme_is_in_step() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start, end = text.find(readme.BEGIN), text.find(readme.END)
    assert 0 <= start < end, "README.md has lost the catalogue's markers"
    shown = text[start + len(readme.BEGIN) : end].strip()
    expected = f"{readme.counts(papers())}\n\n{readme.table(papers())}".strip()
    assert shown == expected, "run `make readme`"
