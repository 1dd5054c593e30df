"""Add a paper: ``new-paper`` and ``check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradworks.cli.app import FAILED, app, console


@app.command("new-paper")
def new_paper(
    name: Annotated[str, typer.Argument(help="Name in snake_case, as the file will be called.")],
    family: Annotated[str, typer.Option(help="losses, optim, curvature, …")],
    root: Annotated[Path, typer.Option(help="Root of the checkout.")] = Path(),
) -> None:
    """Write the skeletons of a method, its test, its paper module and its benchmark.

    Example: `gradworks new-paper lion --family optim`
    """
    from gradworks import papers

    for path in papers.new_paper(name, family, root):
        console().print(f"wrote {path}")


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="Paper, as `gradworks list` names it.")],
    root: Annotated[Path, typer.Option(help="Root of the checkout.")] = Path(),
) -> None:
    """Run a paper's tests, its contract and its quick preset, in that order.

    Example: `gradworks check adamp`
    """
    import subprocess

    from gradworks import papers

    for command in papers.check_commands(papers.find(name), root):
        console(stderr=True).print(f"$ {' '.join(command)}", style="bold", soft_wrap=True)
        if subprocess.run(command, cwd=root, check=False).returncode != 0:
            raise typer.Exit(FAILED)
