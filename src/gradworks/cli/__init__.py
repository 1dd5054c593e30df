"""The command ``gradworks``: one thin function a subcommand, the work is done elsewhere.

Nothing here imports torch: ``--help`` and ``list`` answer at once.
"""

from __future__ import annotations

import os
import sys

try:
    from typer.exceptions import Abort, TyperException
except ImportError as error:
    raise ImportError('the command needs: pip install "gradworks[cli]"') from error

from gradworks.cli import (
    catalogue,
    comparing,
    contributing,
    data,
    landscapes,
    measuring,
    rates,
    running,
)
from gradworks.cli.app import (
    FAILED,
    INTERRUPTED,
    OK,
    USAGE,
    Interrupted,
    PipeClosed,
    UsageError,
    app,
    console,
)

__all__ = [
    "app",
    "catalogue",
    "comparing",
    "contributing",
    "data",
    "landscapes",
    "main",
    "measuring",
    "rates",
    "running",
]

# A wrong name or value is the caller's to mend; the rest is a failed run.
USER_ERRORS = (UsageError, LookupError, ValueError, TypeError, FileNotFoundError)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; every known error becomes one line and an exit code.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        The exit code: 0 done, 1 a claim was not reproduced and ``--strict`` was given, 2 usage,
        3 a run failed, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or bool(os.environ.get("GRADWORKS_DEBUG"))
    arguments = [a for a in arguments if a != "--debug"]
    try:
        code = app(args=arguments, prog_name="gradworks", standalone_mode=False)
        return code if isinstance(code, int) else OK
    except KeyboardInterrupt as error:  # before or after the command itself
        return _explain(Interrupted(str(error)))
    except (Interrupted, PipeClosed) as error:
        return _explain(error)
    except Exception as error:
        if debug:
            raise
        return _explain(error)


def _say(text: str) -> None:
    """Print one line on standard error."""
    line = "gradworks: " + " ".join(text.split())
    console(stderr=True).print(line, markup=False, soft_wrap=True)


def _explain(error: Exception) -> int:
    """Print ``error`` as one line on standard error and return its exit code."""
    if isinstance(error, Interrupted | Abort):
        _say(str(error) or "interrupted; the same command goes on where it was")
        return INTERRUPTED
    if isinstance(error, TyperException):
        show = getattr(error, "show", None)  # usage errors draw themselves, with a hint
        show() if show is not None else _say(error.format_message())
        return error.exit_code
    if isinstance(error, PipeClosed):
        # The reader of a pipe went away; what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    _say(str(error) or type(error).__name__)
    # An import error of ours names the pip line and no module; any other is a defect.
    missing = isinstance(error, ImportError) and error.name is None
    return USAGE if missing or isinstance(error, USER_ERRORS) else FAILED
