"""Look at the loss around your own model: ``landscape``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradworks.cli.app import Json, Quiet, app, console, print_json, progress_view


def _words(text: str) -> list[str]:
    """Comma-separated words, each once."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


@app.command()
def landscape(
    target: Annotated[str, typer.Argument(help="Named workload, module:function or path.py:fn.")],
    axes: Annotated[str, typer.Option(help="random, hessian, or both with a comma.")] = (
        "random,hessian"
    ),
    norm: Annotated[
        str, typer.Option(help="none, filter, layer, model, weight; several with commas.")
    ] = "filter",
    mode: Annotated[
        str, typer.Option(help="Batch norm: eval, train, recalibrate; several with commas.")
    ] = "eval",
    points: Annotated[int, typer.Option(min=2, help="Points along a side.")] = 41,
    distance: Annotated[float, typer.Option(help="Half of the width.")] = 1.0,
    criteria: Annotated[bool, typer.Option(help="Measure the spectrum's criteria too.")] = True,
    steps: Annotated[int, typer.Option(min=1, help="Lanczos steps a probe.")] = 100,
    probes: Annotated[int, typer.Option(min=1, help="Random probes.")] = 2,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Saved state dict to load into the model first.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the target, the axes and the probes.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for .npz, .png, landscape.json and landscape.html."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the loss on planes through the weights, and draw it.

    A TARGET that is a function returns `(model, loss_fn, data)`. With `--out` planes are kept as
    they grow: the same command goes on where it was interrupted.

    Examples: `gradworks landscape net.py:target --out picture`, `gradworks landscape net.py:target
    --mode eval,recalibrate --norm filter,layer --points 21`
    """
    from gradworks.report import landscape as page

    if out is not None:
        page.check_folder(out)
    with progress_view(f"landscape {target}", quiet=quiet) as listen:
        measured = page.measure(
            target,
            axes=_words(axes),
            norms=_words(norm),
            modes=_words(mode),
            points=points,
            distance=distance,
            criteria=criteria,
            num_steps=steps,
            num_probes=probes,
            checkpoint=checkpoint,
            seed=seed,
            folder=out,
            progress=listen,
        )
    if out is not None:
        for path in page.write(measured, out):
            console(stderr=True).print(f"wrote {path}", style="dim")
    if as_json:
        print_json(measured.document)
    elif not quiet:
        page.show(measured, console())
