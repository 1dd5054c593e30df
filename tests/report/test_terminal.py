"""The terminal's half of the report: what is printed, and what is not."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.report import comparisons, documents

from gradworks import papers
from gradworks.bench import compare
from gradworks.bench.events import Event
from gradworks.report import terminal, wording


def console(width: int = 140, *, tty: bool = False) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=tty,
        highlight=False,
        color_system=None,
        legacy_windows=False,
    )


def text(where: Console) -> str:
    assert isinstance(where.file, io.StringIO)
    return where.file.getvalue()


def flat(where: Console) -> str:
    return " ".join(text(where).split())


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(view: terminal.ProgressView, clock: Clock, steps: int, seconds: float) -> None:
    with view as listen:
        for i in range(steps + 1):
            listen(Event("tune", i, steps, "adamw: wider space, lr" if i == 3 else ""))
            clock.now += seconds


def test_a_quiet_run_prints_nothing() -> None:
    where = console()
    run(terminal.ProgressView("AdamP", console=where, quiet=True), Clock(), 10, 1.0)
    assert text(where) == ""


def test_away_from_a_terminal_progress_is_a_handful_of_lines() -> None:
    where, clock = console(), Clock()
    run(terminal.ProgressView("AdamP", console=where, clock=clock), clock, 100, 1.0)
    lines = text(where).splitlines()
    assert lines[0] == "AdamP"
    assert lines[1] == "  tune: 0 of 100"
    assert "  tune: adamw: wider space, lr" in lines
    assert "  tune: 40 of 100, 1 min left" in lines
    assert lines[-1] == "  tune: 100 of 100 done in 1 min 40 s"
    assert len(lines) <= 9
    assert "\x1b" not in text(where)


def test_a_fast_stage_does_not_flood_the_log() -> None:
    where, clock = console(), Clock()
    run(terminal.ProgressView("AdamP", console=where, clock=clock), clock, 100, 0.001)
    assert len(text(where).splitlines()) == 4  # title, start, the note, the end


def test_a_slow_stage_shows_that_it_lives() -> None:
    where, clock = console(), Clock()
    run(terminal.ProgressView("AdamP", console=where, clock=clock), clock, 3, 40.0)
    assert len(text(where).splitlines()) >= 5


def test_the_end_of_a_stage_is_said_once() -> None:
    where, clock = console(), Clock()
    with terminal.ProgressView("x", console=where, clock=clock) as listen:
        for _ in range(5):
            listen(Event("final", 4, 4))
            clock.now += 100.0
    assert text(where).splitlines() == ["x", "  final: 4 of 4"]


@pytest.mark.parametrize("tty", [False, True])
def test_a_stage_whose_last_event_was_missed_ends_with_the_next(tty: bool) -> None:
    where, clock = console(100, tty=tty), Clock()
    with terminal.ProgressView("x", console=where, clock=clock) as listen:
        listen(Event("tune", 0, 16))
        clock.now += 60.0
        listen(Event("tune", 15, 16))
        clock.now += 4.0
        listen(Event("final", 1, 2))
        clock.now += 4.0
    end = text(where)[-600:]
    assert "16 of 16" in end
    assert ("took 1 min" if tty else "tune: 16 of 16 done in 1 min 4 s") in end
    assert "2 of 2" in end


def test_a_run_that_failed_does_not_claim_to_be_done() -> None:
    where = console()
    view = terminal.ProgressView("x", console=where)

    def fails() -> None:
        with view as listen:
            listen(Event("tune", 3, 16))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert "done" not in text(where)


def test_a_stage_of_unknown_length_counts() -> None:
    where, clock = console(), Clock()
    with terminal.ProgressView("x", console=where, clock=clock) as listen:
        listen(Event("probes", 3, 0))
    assert "  probes: 3\n" in text(where)


def test_on_a_terminal_each_stage_is_a_bar_with_time_left() -> None:
    where, clock = console(100, tty=True), Clock()
    view = terminal.ProgressView("AdamP [bold]", console=where, clock=clock)
    with view as listen:
        for i in range(5):
            listen(Event("tune", i, 8, "a note [red]" if i == 2 else ""))
            clock.now += 2.0
        view._view._progress.refresh()  # type: ignore[union-attr]  # rich's thread does this
        listen(Event("final", 1, 2))
    shown = text(where)
    assert "AdamP [bold]" in shown
    assert "a note [red]" in shown
    assert "4 of 8" in shown
    assert "8 s left" in shown
    assert "final" in shown
    assert shown.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in shown[-200:]


def test_an_interrupted_run_leaves_the_terminal_as_it_was() -> None:
    where = console(100, tty=True)
    view = terminal.ProgressView("AdamP", console=where)

    def interrupted() -> None:
        with view as listen:
            listen(Event("tune", 1, 8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "\x1b[?25h" in text(where)[-200:]  # the cursor is back


def test_the_claim_table_puts_the_paper_beside_what_came_out() -> None:
    where = console()
    result = documents.result(paper="adamp", status="partly")
    terminal.claim_table(result, where)
    shown = flat(where)
    for claim in papers.find("adamp").claims:
        assert claim.statement.split()[0] in shown
    record = result.claims[0]["outcomes"][0]
    assert wording.number(record["estimate"]) in shown
    assert "(95 %)" in shown
    assert "0.004" in shown
    assert "◐ partly" in shown
    assert "Two cores instead of eight GPUs." in shown
    assert "3 trials diverged" in shown


def test_every_outcome_has_its_figures_in_one_row() -> None:
    where = console()
    result = documents.result(paper="adamp", status="reproduced")
    terminal.claim_table(result, where)
    lines = text(where).splitlines()
    record = result.claims[0]["outcomes"][0]
    [row] = [line for line in lines if line.strip().startswith(record["criterion"] + "  ")]
    for part in (wording.number(record["estimate"]), "10", "0.004", "reproduced"):
        assert part in row


def test_a_narrow_terminal_gets_a_block_a_claim() -> None:
    where = console(80)
    result = documents.result(paper="adamp", status="reproduced")
    terminal.claim_table(result, where)
    assert max(len(line) for line in text(where).splitlines()) <= 80
    shown = flat(where)
    for claim in papers.find("adamp").claims:
        assert claim.statement in shown  # whole, not cut into a column
        assert claim.published in shown
    record = result.claims[0]["outcomes"][0]
    assert f"[{wording.number(record['lo'])}, {wording.number(record['hi'])}]" in shown


def test_a_quick_run_says_what_it_is_worth() -> None:
    where = console()
    terminal.claim_table(documents.result(preset="quick", status="indication"), where)
    assert "quick is an indication" in flat(where)


def test_claims_without_outcomes_still_print() -> None:
    document = documents.document()
    for claim in document["claims"]:
        claim |= {"outcomes": [], "status": "undecided"}
    where = console()
    terminal.claim_table(documents.Result(document), where)
    assert "undecided" in text(where)


def test_text_that_looks_like_markup_is_printed_as_it_is() -> None:
    document = documents.document()
    document["claims"][0]["statement"] = "[bold red]not markup[/]"
    where = console()
    terminal.claim_table(documents.Result(document), where)
    assert "[bold red]not" in text(where)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_catalogue_has_one_line_a_paper(width: int, results: Path) -> None:
    where = console(width)
    found = papers.papers()
    terminal.catalogue_table(found, where)
    lines = [line for line in text(where).splitlines() if "planned" in line or "not run" in line]
    assert len(lines) == len(found)
    for paper, line in zip(found, lines):
        assert paper.slug in line
    assert f"{len(found)} papers" in text(where)


def test_an_empty_selection_says_so() -> None:
    where = console()
    terminal.catalogue_table([], where)
    assert "no paper matches" in text(where)


def test_the_page_of_a_planned_paper_shows_claims_and_code(results: Path) -> None:
    where = console()
    paper = next(p for p in papers.papers() if p.planned)
    terminal.paper_page(paper, None, where)
    shown = flat(where)
    assert paper.card.title in shown
    assert paper.card.usage.splitlines()[0] in shown
    assert "nothing to run yet" in shown
    assert "planned" in shown


@pytest.mark.parametrize("tty", [False, True])
def test_the_page_of_a_paper_that_ran_shows_what_came_out(tty: bool, results: Path) -> None:
    where = console(tty=tty)
    terminal.paper_page(papers.find("adamp"), documents.result(paper="adamp"), where)
    shown = flat(where)
    assert "gradworks run adamp" in shown
    assert "reproduced" in shown
    assert "import AdamP" in shown


class Plan:
    def to_dict(self) -> dict[str, Any]:
        return {
            "paper": "adamp",
            "preset": "full",
            "tune_trials": 48,
            "final_trials": 30,
            "workloads": ["digits-cnn"],
            "arms": ["adamp", "adamw"],
            "seconds": 540.0,
            "cores": 2,
        }


def test_the_plan_says_how_much_and_how_long() -> None:
    where = console()
    terminal.plan_table(Plan(), where)  # type: ignore[arg-type]
    shown = flat(where)
    for part in ("adamp: the full preset", "78", "2: adamp, adamw", "9 min on 2 cores"):
        assert part in shown


def test_a_comparison_joins_a_figure_with_its_interval() -> None:
    rows = [
        {"arm": "AdamW", "error": 0.031, "error_lo": 0.03, "error_hi": 0.032, "best": True},
        {"arm": "AdamP", "error": None, "error_lo": None, "error_hi": None, "best": False},
    ]
    where = console()
    terminal.comparison_table(rows, where, title="digits-cnn: 5 seeds")
    shown = flat(where)
    assert "digits-cnn: 5 seeds" in shown
    assert "0.0310 [0.0300, 0.0320]" in shown
    assert "error lo" not in shown
    assert "–" in shown


def test_many_optimizers_stand_below_each_other() -> None:
    rows = compare.summary(comparisons.result())
    labels = {name: label for name, label, *_ in comparisons.ARMS}
    where = console()
    terminal.optimizer_table(rows, where, title="text: 6 seeds", labels=labels)
    shown = text(where)
    assert "text: 6 seeds" in shown
    for heading in ("nats", "steps", "seconds", "a step", "hits", "B/par"):
        assert heading in shown
    assert "below 1 is less" in flat(where)
    assert "SGD: best on the edge of its space." in flat(where)
    narrow = console(80)
    terminal.optimizer_table(rows, narrow, labels=labels)
    assert f"{rows[5]['nats_lo']:.2f}–{rows[5]['nats_hi']:.2f}" in text(narrow)  # not folded
    muon = next(row for row in rows if row["arm"] == "muon")
    assert f"{muon['steps_ratio']:.2f}" in shown
    assert f"{muon['steps_ratio_lo']:.2f}–{muon['steps_ratio_hi']:.2f}" in shown
    # Its median run misses the target: no ratio to it.
    sgd = next(line for line in shown.splitlines() if line.strip().startswith("SGD"))
    assert sgd.count("–") == 2
    few = console()
    terminal.optimizer_table(rows[:3], few, title="text")
    assert "step time ratio" in flat(few)  # three fit side by side


def test_data_sets_show_what_is_here() -> None:
    rows = [
        {"name": "digits", "what": "8x8 digits", "here": True, "shape": (1797, 64), "needs": []},
        {"name": "mnist5k", "what": "digits", "here": False, "shape": (5000, 784), "needs": []},
    ]
    where = console()
    terminal.data_table(rows, where)
    shown = flat(where)
    assert "1797×64" in shown
    assert "yes" in shown
    assert "no" in shown
    assert "needs" not in shown  # empty in every row


def test_no_rows_say_so() -> None:
    where = console()
    terminal.data_table([], where)
    assert "nothing to show" in text(where)


@pytest.mark.slow
def test_the_report_imports_neither_torch_nor_a_drawing_library() -> None:
    code = (
        "import sys; import gradworks.report.terminal, gradworks.report.site, "
        "gradworks.report.plots, gradworks.report.feed, gradworks.report.spectrum, "
        "gradworks.report.readme; "
        "heavy = {'torch', 'scipy', 'pandas', 'sklearn', 'matplotlib', 'plotly', 'jinja2'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
