"""Point a tool at your own model: ``spectrum``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gradworks.cli.app import Json, Quiet, app, console, print_json, progress_view


@app.command()
def spectrum(
    target: Annotated[str, typer.Argument(help="Named workload, module:function or path.py:fn.")],
    operator: Annotated[
        Literal["hessian", "ggn", "fisher"], typer.Option(help="Which curvature matrix.")
    ] = "hessian",
    method: Annotated[
        Literal["auto", "exact", "slq"], typer.Option(help="auto: exact where it is small.")
    ] = "auto",
    top: Annotated[int, typer.Option(min=1, help="Eigenvalues at the upper end.")] = 20,
    steps: Annotated[int, typer.Option(min=1, help="Lanczos steps a probe.")] = 100,
    probes: Annotated[int, typer.Option(min=1, help="Random probes (error bars need >= 2).")] = 10,
    max_steps: Annotated[
        int, typer.Option(min=1, help="Lanczos steps at each end, at most.")
    ] = 300,
    examples: Annotated[
        int | None, typer.Option(min=1, help="The target's first so many only.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the target and of the probes.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="FILE.json; .png and .html stand beside it.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the eigenvalue spectrum of a loss surface, with error bars.

    A TARGET that is a function returns `(model, loss_fn, data)`.

    Examples: `gradworks spectrum digits-cnn --method slq`, `gradworks spectrum net.py:target
    --operator ggn --top 10 --out spectrum.json`
    """
    from gradworks.report import spectrum as page

    with progress_view(f"spectrum {target}", quiet=quiet) as listen:
        measured = page.measure(
            target,
            operator=operator,
            method=method,
            top=top,
            num_steps=steps,
            num_probes=probes,
            max_steps=max_steps,
            examples=examples,
            seed=seed,
            progress=listen,
        )
    if out is not None:
        for path in page.write(measured, out):
            console(stderr=True).print(f"wrote {path}", style="dim")
    if as_json:
        print_json(measured.document)
    elif not quiet:
        page.show(measured, console())
