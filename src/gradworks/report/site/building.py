"""Write every file of the site into a new folder, then swap it in."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks.report import feed, wording
from gradworks.report.maps import plotly_map, write_map
from gradworks.report.outcomes import OutcomeView
from gradworks.report.palette import DARK, LIGHT
from gradworks.report.plots import file_stem, plotly_figure, write_picture
from gradworks.report.site import compared, questions, rendering, strip, theme, trail, views
from gradworks.report.site.shelf import Entry, Run, entries
from gradworks.report.site.swap import replacing

if TYPE_CHECKING:
    from jinja2 import Environment

    from gradworks.bench.result import Result

__all__ = ["Pages", "build"]

_PACKAGE = "gradworks.report.site"
_RECENT = 3  # verdicts that the front page leads with


@dataclass(frozen=True)
class Pages:
    """What was built.

    Attributes:
        index: The page to open.
        pages: How many HTML pages.
    """

    index: Path
    pages: int


def build(out: Path | str, extra_results: Sequence[Result] = ()) -> Pages:
    """Build the catalogue's site in ``out``.

    The site shows every paper of the catalogue with its published result, and ``extra_results``
    beside them. It is written next to ``out`` and swapped in as a whole: a kill leaves the old
    site. The same inputs give the same bytes.

    Args:
        out: Missing, empty, or a site built before.
        extra_results: Results of a run store, with their figures attached.

    Returns:
        Where the index is, and how many pages there are.

    Raises:
        ImportError: jinja2, matplotlib or plotly is absent.
        NotOurSite: ``out`` holds something else.
    """  # noqa: DOC502
    from gradworks import papers

    out = Path(out)
    templates = rendering.environment()
    shelf = entries(papers.papers(), extra_results)
    with replacing(out) as folder:
        for name in ("papers", "assets", "figures", "results"):
            (folder / name).mkdir()
        found = compared.chosen(extra_results)
        beside = set() if found is None else compared.slugs(found[0], [e.paper for e in shelf])
        measured = questions.answers(papers.measurements_folder())
        plots = found is not None or any(_figures(e) for e in shelf) or any(measured.values())
        _write_assets(folder / "assets", plots=plots)
        page = templates.get_template("paper.html")
        for i, entry in enumerate(shelf):
            newer = shelf[i - 1] if i else None
            older = shelf[i + 1] if i + 1 < len(shelf) else None
            context = _paper_context(entry, folder)
            context |= {"newer": newer, "older": older, "compared": entry.slug in beside}
            text = page.render(root="../", entry=entry, **context)
            _write(folder / "papers" / f"{entry.slug}.html", text)
        if found is not None:
            _write(folder / "optimizers.html", _optimizers(templates, shelf, *found, folder))
        _write(folder / "tools.html", _tools(templates, measured, folder))
        _write(folder / "index.html", _index(templates, shelf, None if found is None else found[0]))
        _write(folder / "verdicts.html", _explained(templates))
        _write(folder / "feed.xml", feed.atom(_items(shelf), title="gradworks: new verdicts"))
    return Pages(index=out / "index.html", pages=len(shelf) + 3 + (found is not None))


def _areas() -> Mapping[str, str]:
    from gradworks.papers import AREAS

    return AREAS


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_assets(folder: Path, *, plots: bool) -> None:
    """Copy our own files, and plotly's script where a page has plots."""
    source = files(_PACKAGE) / "assets"
    for item in source.iterdir():
        with as_file(item) as path:
            shutil.copyfile(path, folder / item.name)
    _write(folder / "theme.css", theme.css())
    if plots:
        _write(folder / "plotly.min.js", rendering.plotly_script())


def _figures(entry: Entry) -> list[dict[str, Any]]:
    return [figure for run in entry.runs for figure in run.document.get("figures", ())]


def _index(templates: Environment, shelf: Sequence[Entry], comparison: Result | None = None) -> str:
    cards = [views.card(entry) for entry in shelf]
    judged = [c for c in cards if c["finished"] and c["status"] not in ("planned", "not run")]
    judged.sort(key=lambda c: str(c["finished"]), reverse=True)
    areas = [e.paper.card.area for e in shelf]
    places = trail.draw(len(shelf))
    return templates.get_template("index.html").render(
        root="",
        cards=cards,
        recent=judged[:_RECENT],
        compared=None if comparison is None else {"words": compared.in_words(comparison)},
        tally=views.tally(shelf),
        used_areas=[(a, text, areas.count(a)) for a, text in _areas().items() if a in areas],
        map=places,
        # Oldest paper highest on the trail.
        stations=list(zip(reversed(cards), places.points)),
        size=(trail.WIDTH, trail.HEIGHT),
    )


def _optimizers(
    templates: Environment, shelf: Sequence[Entry], result: Result, published: bool, folder: Path
) -> str:
    """The page of the shared comparison; writes its pictures and its document."""
    name = "optimizers"
    result.write(folder / "results" / f"{name}.json")
    shown = compared.context(result, [entry.paper for entry in shelf], published=published)
    drawn = compared.figures(result)
    for workload in shown["workloads"]:
        mine = [figure for owner, figure in drawn if owner == workload["name"]]
        workload["figures"] = _drawn(mine, name, folder / "figures")
    return templates.get_template("optimizers.html").render(
        root="", download=f"results/{name}.json", plots=bool(drawn), **shown
    )


_TARGET = """\
def target(seed):
    model = MyNetwork()
    model.load_state_dict(torch.load("weights.pt"))
    return model, torch.nn.functional.cross_entropy, (images, labels)
"""


def _tools(
    templates: Environment, measured: Mapping[str, Sequence[questions.Answer]], folder: Path
) -> str:
    """The page of the curvature tools; writes its pictures."""
    asked = []
    for question in questions.QUESTIONS:
        shown = [
            {
                "name": answer.name,
                "title": answer.title,
                "figures": _drawn(
                    [d.figure for d in answer.drawn], answer.name, folder / "figures"
                ),
                "facts": answer.drawn[0].facts,
                "table": answer.drawn[0].table,
            }
            for answer in measured[question.name]
        ]
        asked.append(asdict(question) | {"code": questions.code(question), "answers": shown})
    return templates.get_template("tools.html").render(
        root="", questions=asked, target=_TARGET, plots=any(measured.values())
    )


def _explained(templates: Environment) -> str:
    """The page that says how a verdict is made, with a strip to read."""
    record = {"estimate": 1.07, "lo": 1.045, "hi": 1.095, "published": 1.12, "min_effect": 1.04}
    example = OutcomeView(
        name="example",
        kind="superiority",
        status="reproduced",
        scale="ratio",
        unit="seed",
        direction="higher",
        neutral=1.0,
        compared="",
        record=record | {"level": 0.95, "n": 10},
    )
    return templates.get_template("verdicts.html").render(
        root="", meanings=wording.MEANING, example=strip.draw(example, width=360)
    )


def _paper_context(entry: Entry, folder: Path) -> dict[str, Any]:
    """Everything the template of a paper prints; writes its pictures and documents."""
    runs = []
    for run in entry.runs:
        name = f"{entry.slug}-{run.key}"
        run.result.write(folder / "results" / f"{name}.json")
        view = views.run_view(run)
        view["figures"] = _pictures(run, name, folder / "figures")
        view["download"] = f"results/{name}.json"
        runs.append(view)
    planned = [] if runs else views.claims(entry.views)
    return {"card": entry.paper.card, "runs": runs, "planned_claims": planned}


def _pictures(run: Run, name: str, folder: Path) -> list[dict[str, Any]]:
    """Draw the static pictures of a run; return what the template needs of each figure."""
    return _drawn(run.document.get("figures", ()), name, folder)


def _drawn(figures: Sequence[Mapping[str, Any]], name: str, folder: Path) -> list[dict[str, Any]]:
    shown = []
    for figure in figures:
        stem = f"{name}-{file_stem(figure['id'])}"
        for palette, scheme in ((LIGHT, "light"), (DARK, "dark")):
            draw = write_map if "map" in figure else write_picture
            draw(figure, folder / f"{stem}.{scheme}.svg", palette)
        shown.append(
            {
                "id": stem,
                "title": figure["title"],
                "caption": figure["caption"],
                "picture": f"figures/{stem}",
                "json": rendering.script_json(
                    plotly_map(figure) if "map" in figure else plotly_figure(figure)
                ),
            }
        )
    return shown


def _items(shelf: Sequence[Entry]) -> list[feed.Item]:
    """One item a run that has a verdict or an indication."""
    return [
        feed.Item(
            id=f"urn:gradworks:{entry.slug}:{run.document['experiment']}:{run.result.preset}",
            title=f"{entry.paper.card.title}: {run.result.status}",
            updated=_zoned(run.finished),
            link=f"papers/{entry.slug}.html",
            summary=_sentence(run),
            category=entry.paper.card.area,
        )
        for entry in shelf
        for run in entry.runs
    ]


def _zoned(text: str) -> str:
    """A time that Atom accepts: date, time and zone."""
    if len(text) == 10:
        text += "T00:00:00"
    return text if text.endswith("Z") or "+" in text[10:] or "-" in text[10:] else f"{text}Z"


def _sentence(run: Run) -> str:
    view = next((v for v in run.views if v.primary), None)
    text = "" if view is None else " ".join(t for t in (view.statement, view.text) if t)
    return f"{run.result.preset} run. {text}".strip()
