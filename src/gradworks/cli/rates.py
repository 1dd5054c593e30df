"""What rate a batch size supports: ``lr``, also called ``learning-rate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gradworks.cli.app import Json, Quiet, app, console, print_json, progress_view


def lr(
    target: Annotated[str, typer.Argument(help="Named workload, module:function or path.py:fn.")],
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", min=1, help="The batch you train with.")
    ],
    to: Annotated[int | None, typer.Option(min=1, help="Carry the rate over to it.")] = None,
    optimizer: Annotated[
        Literal["sgd", "adam"], typer.Option(help="sgd: linear scaling; adam: square root.")
    ] = "sgd",
    rate: Annotated[
        float | None,
        typer.Option("--lr", help="Your rate at --batch-size; default: measured, Adam 0.001."),
    ] = None,
    momentum: Annotated[float, typer.Option(help="Momentum of SGD, in [0, 1).")] = 0.0,
    steps: Annotated[int, typer.Option(min=1, help="Lanczos steps a batch.")] = 25,
    repeats: Annotated[
        int, typer.Option(min=1, help="Batches of each size (error bars need >= 2).")
    ] = 8,
    full_size: Annotated[
        int | None, typer.Option(min=1, help="Examples that stand in for all data.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the target, the batches, the probes.")] = 0,
    out: Annotated[Path | None, typer.Option(help="FILE.json; .png and .html beside it.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure which learning rate a batch size supports, and carry it over to another.

    Prints the largest eigenvalue, the noise of a batch's Hessian, where larger batches stop paying,
    and rates. A TARGET that is a function returns `(model, loss_fn, data)`.

    Examples: `gradworks lr digits-cnn --batch-size 32 --to 512`, `gradworks lr net.py:target
    --batch-size 64 --to 1024 --optimizer adam --lr 0.0003 --out rates.json`
    """
    from gradworks.report import proposed
    from gradworks.report import rates as page

    with progress_view(f"lr {target}", quiet=quiet) as listen:
        proposal = page.measure(
            target,
            batch_size=batch_size,
            to=to,
            optimizer=optimizer,
            lr=rate,
            momentum=momentum,
            repeats=repeats,
            num_steps=steps,
            full_size=full_size,
            seed=seed,
            progress=listen,
        )
    if out is not None:
        for path in page.write(proposal, out):
            console(stderr=True).print(f"wrote {path}", style="dim")
    if as_json:
        print_json(proposal.document)
    elif not quiet:
        proposed.show(proposal.document, console())


_LONG = (lr.__doc__ or "").replace("gradworks lr", "gradworks learning-rate")
app.command("lr")(lr)
app.command("learning-rate", hidden=True, help=_LONG)(lr)
