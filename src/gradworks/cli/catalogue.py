"""Look at the catalogue: ``list``, ``show``, ``report``, ``version``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import gradworks
from gradworks.cli.app import Json, UsageError, app, console, print_json

if TYPE_CHECKING:
    from gradworks.bench.result import Result


@app.command("list")
def list_papers(
    word: Annotated[str | None, typer.Argument(help="Only papers that mention this word.")] = None,
    area: Annotated[str | None, typer.Option(help="losses, optim, curvature, …")] = None,
    status: Annotated[str | None, typer.Option(help="reproduced, partly, planned, …")] = None,
    runnable: Annotated[bool, typer.Option("--runnable", help="Only what runs today.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The README's table.")] = False,
    update: Annotated[
        Path | None, typer.Option(help="Bring the table inside this Markdown file in step.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the catalogue, newest paper first.

    Examples: `gradworks list`, `gradworks list curvature`, `gradworks list --status planned`
    """
    from gradworks import papers
    from gradworks.report import readme

    found = papers.select(papers.papers(), word=word, area=area, status=status)
    if runnable:
        found = [p for p in found if not p.planned]
    if update is not None:
        changed = readme.update(update, papers.papers())
        console(stderr=True).print(f"{update}: {'updated' if changed else 'already in step'}")
    elif markdown:
        sys.stdout.write(readme.table(found))
    elif as_json:
        print_json([papers.summary(p) for p in found])
    else:
        from gradworks.report import terminal

        terminal.catalogue_table(found, console())


@app.command()
def show(
    slug: Annotated[str, typer.Argument(help="Paper, as `gradworks list` names it.")],
    as_json: Json = False,
) -> None:
    """Show one paper: what it is, what it claims, what came out here, how to use it.

    Example: `gradworks show adamp`
    """
    from gradworks import papers

    paper = papers.find(slug)
    result = papers.published(paper.slug)
    if as_json:
        document = papers.summary(paper)
        document["result"] = result.document if result is not None else None
        print_json(document)
    else:
        from gradworks.report import terminal

        terminal.paper_page(paper, result, console())


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="Folder of the site; replaced as a whole.")] = Path(
        "site"
    ),
    store: Annotated[
        Path | None, typer.Option(help="Also show this run store's newest results.")
    ] = None,
    serve: Annotated[
        int | None, typer.Option(metavar="PORT", help="Serve it on 127.0.0.1 afterwards.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the catalogue's site: works from disk, loads nothing from elsewhere.

    Examples: `gradworks report --out site`, `gradworks report --store demo.db --serve 8000`
    """
    from gradworks.report import site

    extra = _local_results(store) if store is not None else []
    pages = site.build(out, extra_results=extra)
    if as_json:
        print_json({"index": str(pages.index), "pages": pages.pages})
    else:
        console().print(f"{pages.pages} pages. Open {pages.index.resolve()}", soft_wrap=True)
    if serve is not None:
        site.serve(out, serve)


def _local_results(store: Path) -> list[Result]:
    """Return the newest finished result of every paper in ``store``, with its figures."""
    from gradworks import papers
    from gradworks.bench import compare, runner

    if not store.exists():
        raise UsageError(f"--store {store} does not exist; run something into it first")
    results = []
    for result in runner.results(store):
        if result.paper == compare.SHARED:
            results.append(result)  # a page of its own
            continue
        try:
            papers.attach_figures(result)
        except papers.UnknownPaper:
            continue  # a user's own comparison, not a paper
        results.append(result)
    return results


@app.command()
def version(as_json: Json = False) -> None:
    """Print the versions of gradworks and of what it stands on."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    versions: dict[str, str | None] = {"gradworks": gradworks.__version__}
    versions["python"] = ".".join(str(v) for v in sys.version_info[:3])
    for name in ("torch", "numpy", "scipy", "scikit-learn", "ray"):
        try:
            versions[name] = of(name)
        except PackageNotFoundError:
            versions[name] = None
    if as_json:
        print_json(versions)
        return
    for name, value in versions.items():
        console().print(f"{name} {value or 'not installed'}")
