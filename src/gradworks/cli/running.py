"""Rerun and check: ``run``, ``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradworks.cli.app import (
    FAILED,
    NOT_REPRODUCED,
    EngineOption,
    Jobs,
    Json,
    PresetOption,
    Quiet,
    Store,
    UsageError,
    app,
    console,
    print_json,
    progress_view,
)

if TYPE_CHECKING:
    from gradworks.bench.experiment import Experiment
    from gradworks.bench.result import Result


@app.command()
def run(
    slugs: Annotated[list[str] | None, typer.Argument(help="Papers to rerun.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every paper that runs.")] = False,
    preset: PresetOption = "quick",
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Final seeds, instead of the preset's.")
    ] = None,
    jobs: Jobs = None,
    store: Store = Path("gradworks.db"),
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Start anew; default: go on where it was.")
    ] = False,
    engine: EngineOption = "processes",
    max_time: Annotated[
        float | None, typer.Option(min=0, help="Stop cleanly between trials after S seconds.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the trials and their cost.")] = False,
    publish: Annotated[
        Path | None, typer.Option(help="Write SLUG.json here; needs a clean git tree.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for PNG plots; default: beside the store.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 unless every claim was reproduced.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rerun papers on real data; interrupted runs go on where they were.

    Examples: `gradworks run adamp`, `gradworks run --all`, `gradworks run anyloss --preset full
    --jobs 2`, `gradworks run adamp --plan`
    """
    from gradworks import papers

    if every == bool(slugs):
        raise UsageError("name the papers to run, or give --all (not both)")
    if seeds is not None and publish is not None:
        raise UsageError("--publish takes the preset's own seeds: leave --seeds out")
    chosen = (
        [p for p in papers.papers() if not p.planned]
        if every
        else [papers.find(slug) for slug in slugs or ()]
    )
    for paper in chosen:
        paper.build(preset)  # planned papers and unknown presets are refused before any work
    if plan:
        _show_plans([p.build(preset) for p in chosen], jobs, seeds, as_json=as_json)
        return
    if publish is not None:
        papers.require_publishable(publish)
    results: list[Result] = []
    for paper in chosen:
        with progress_view(paper.card.title, quiet=quiet) as listen:
            result = papers.execute(
                paper,
                preset,
                store=store,
                jobs=jobs,
                engine=engine,
                fresh=fresh,
                seeds=seeds,
                max_time=max_time,
                progress=listen,
            )
        results.append(result)
        folder = (plots or store.with_suffix(".plots")) / f"{paper.slug}-{preset}"
        _finish_run(result, folder, publish, as_json=as_json, quiet=quiet)
    if as_json:
        print_json([r.document for r in results])
    if strict and any(c["status"] != "reproduced" for r in results for c in r.claims):
        raise typer.Exit(NOT_REPRODUCED)


def _finish_run(
    result: Result, folder: Path, publish: Path | None, *, as_json: bool, quiet: bool
) -> None:
    """Print the claim table, draw the plots, publish."""
    from gradworks.report import plots, terminal

    err = console(stderr=True)
    if not quiet:
        terminal.claim_table(result, err if as_json else console())
    if result.document["figures"]:
        paths = plots.write_pngs(result, folder)
        if not quiet:
            err.print(f"plots: {folder} ({len(paths)} PNG)", style="dim")
    if publish is not None:
        path = publish / f"{result.document['paper']}.json"
        result.write(path)
        err.print(f"published: {path}")


def _show_plans(
    experiments: list[Experiment], jobs: int | None, seeds: int | None, *, as_json: bool
) -> None:
    from gradworks import bench

    plans = [bench.plan(e, jobs=jobs, seeds=seeds) for e in experiments]
    if as_json:
        print_json([p.to_dict() for p in plans])
        return
    from gradworks.report import terminal

    for one in plans:
        terminal.plan_table(one, console())


@app.command()
def verify(
    slug: Annotated[str, typer.Argument(help="Paper whose published result is checked.")],
    as_json: Json = False,
) -> None:
    """Rerun one published final trial here and compare its figures.

    Example: `gradworks verify adamp`
    """
    from gradworks import papers

    row = papers.verify(papers.find(slug))
    if as_json:
        print_json(row)
    else:
        console().print(row["text"])
    if not row["agrees"]:
        raise typer.Exit(FAILED)
