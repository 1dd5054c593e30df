"""The typer application, the options that commands share, and where output goes.

With ``--json`` one document goes to standard output and everything else to standard error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

try:
    import typer
    from rich.console import Console
    from typer.core import TyperGroup
except ImportError as error:
    raise ImportError('the command needs: pip install "gradworks[cli]"') from error

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "NOT_REPRODUCED",
    "OK",
    "USAGE",
    "EngineOption",
    "Interrupted",
    "Jobs",
    "Json",
    "PipeClosed",
    "PresetOption",
    "Quiet",
    "Store",
    "UsageError",
    "app",
    "console",
    "print_json",
    "progress_view",
]

OK, NOT_REPRODUCED, USAGE, FAILED, INTERRUPTED = 0, 1, 2, 3, 130


class UsageError(Exception):
    """Something on the command line cannot be done; exit code 2."""


class Interrupted(Exception):
    """The user ended the command; the text says how to go on. Exit code 130."""


class PipeClosed(Exception):
    """Whoever read standard output went away: nothing is left to say. Exit code 0."""


class _Group(TyperGroup):
    """Commands whose interruption keeps its words: typer makes a bare exit code of both."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted(str(error)) from error
        except BrokenPipeError as error:
            raise PipeClosed from error


app = typer.Typer(
    name="gradworks",
    cls=_Group,
    help="28 papers about gradients, curvature and structure: rerun their claims on real data.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 a claim was not reproduced (`--strict`), 2 usage, "
    "3 a run failed, 130 interrupted. `--debug` anywhere shows the traceback of an error.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")]
Store = Annotated[Path, typer.Option("--store", help="Run store (SQLite), created if missing.")]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, help="Parallel trials; default: all cores.")
]
PresetOption = Annotated[
    Literal["quick", "full", "paper"],
    typer.Option("--preset", "-p", help="quick: a minute; full: the verdict; paper: big hardware."),
]
EngineOption = Annotated[
    Literal["processes", "serial", "ray"], typer.Option("--engine", help="Where trials run.")
]


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or standard error."""
    return Console(stderr=stderr, highlight=False)


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    json.dump(document, sys.stdout, indent=1, sort_keys=True, allow_nan=False)
    sys.stdout.write("\n")


def progress_view(title: str, *, quiet: bool) -> Any:
    """Return a context manager that yields the listener of a run's events."""
    from gradworks.report import terminal

    return terminal.ProgressView(title, console=console(stderr=True), quiet=quiet)
