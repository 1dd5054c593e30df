"""``compare``: optimizers side by side, on one workload, several, or those that papers share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradworks.cli.app import (
    EngineOption,
    Jobs,
    Json,
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

_OPTIMIZERS = "adamw,adamp"
_TRIALS, _SEEDS = 8, 5


@app.command()
def compare(
    workloads: Annotated[
        list[str] | None, typer.Argument(help="Named workload, module:function or path.py:fn.")
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="The workloads and optimizers that papers share.")
    ] = False,
    optimizers: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: adamw,adamp,dctadamw@rank=24 or a dotted path; "
            f"default: {_OPTIMIZERS}."
        ),
    ] = None,
    search: Annotated[
        str | None, typer.Option(help="What is tuned, of lr,weight_decay,adamw_lr; default: all.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help=f"Tuning trials an optimizer; default: {_TRIALS}.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help=f"Final seeds, paired; default: {_SEEDS}.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Budget in steps.")] = None,
    jobs: Jobs = None,
    store: Store = Path("gradworks.db"),
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Start anew; default: go on where it was.")
    ] = False,
    engine: EngineOption = "processes",
    plan: Annotated[bool, typer.Option("--plan", help="Print the trials and their cost.")] = False,
    publish: Annotated[
        Path | None,
        typer.Option(help="With --shared: write compare/optimizers.json here; needs a clean tree."),
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for the curves.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare optimizers with equal tuning budgets and paired seeds.

    Prints time and steps to target, final metric, step-time ratio, state and intervals.

    Examples: `gradworks compare digits-cnn --optimizers adamw,adamp --trials 8 --seeds 5`,
    `gradworks compare train.py:workload --optimizers adamw,torch.optim.RAdam`,
    `gradworks compare --shared`
    """
    from gradworks import bench, papers
    from gradworks.bench import compare as comparison

    chosen = [
        name for name in (trials, seeds, steps, search) if name is not None
    ]  # what --shared fixes
    if shared == bool(workloads):
        raise UsageError("name the workloads to compare on, or give --shared (not both)")
    if shared and chosen:
        raise UsageError("--shared has its own --trials, --seeds, --steps and --search: leave out")
    if publish is not None and (not shared or optimizers is not None):
        raise UsageError("--publish takes --shared with all its optimizers: leave --optimizers out")
    names = None if optimizers is None else _words(optimizers)
    experiment = (
        comparison.shared(names)
        if shared
        else comparison.experiment(
            workloads or [],
            _words(_OPTIMIZERS) if names is None else names,
            trials=trials or _TRIALS,
            seeds=seeds or _SEEDS,
            steps=steps,
            search=None if search is None else _words(search),
        )
    )
    if plan:
        _show_plan(experiment, jobs, as_json=as_json)
        return
    if publish is not None:
        papers.require_publishable(publish)
    with progress_view(experiment.paper, quiet=quiet) as listen:
        result = bench.run(
            experiment, store=store, jobs=jobs, engine=engine, fresh=fresh, progress=listen
        )
    _finish(result, experiment, plots, store, as_json=as_json, quiet=quiet)
    if publish is not None:
        path = publish / f"{papers.COMPARED}.json"
        result.write(path)
        console(stderr=True).print(f"published: {path}")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _finish(
    result: Result,
    experiment: Experiment,
    plots: Path | None,
    store: Path,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print the tables and draw the curves."""
    from gradworks.bench import compare as comparison
    from gradworks.report import plots as drawing
    from gradworks.report import terminal

    rows = comparison.summaries(result)
    result.document["figures"] = [f.to_dict() for f in comparison.figures(result)]
    if as_json:
        print_json(_document(result, rows))
    elif not quiet:
        labels = {arm.name: arm.label for arm in experiment.arms}
        for name, table in rows.items():
            terminal.optimizer_table(
                table, console(), title=f"{name}: {experiment.final_seeds} seeds", labels=labels
            )
    # A path with a colon names no folder.
    name = re.sub(r"[^\w.-]+", "-", experiment.paper.removeprefix("compare ")).strip("-")
    folder = plots or store.with_suffix(".plots") / f"compare-{name}"
    drawing.write_pngs(result, folder)
    if not quiet:
        console(stderr=True).print(f"curves: {folder}", style="dim")


def _document(result: Result, rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """One workload's rows stand alone; several have a name each."""
    several = len(rows) > 1
    return {"rows": rows if several else next(iter(rows.values())), "result": result.document}


def _show_plan(experiment: Experiment, jobs: int | None, *, as_json: bool) -> None:
    from gradworks import bench

    planned = bench.plan(experiment, jobs=jobs)
    if as_json:
        print_json(planned.to_dict())
        return
    from gradworks.report import terminal

    terminal.plan_table(planned, console())
