"""The published outcomes: one sorted JSON file a paper, kept with the code."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import gradworks
from gradworks.bench.result import Result
from gradworks.papers._model import Paper

__all__ = [
    "COMPARED",
    "NOT_RUN",
    "NotPublishable",
    "compared",
    "measurements_folder",
    "published",
    "require_publishable",
    "results_folder",
    "status",
]

NOT_RUN = "not run"
COMPARED = "compare/optimizers"  # the comparison that the optimizers' papers share


class NotPublishable(ValueError):
    """A result written now could not be traced to committed code, or not written at all."""


def results_folder() -> Path:
    """Return the folder of the published results: the checkout's, or the wheel's own copy."""
    package = Path(gradworks.__file__).resolve().parent
    checkout = package.parent.parent
    if package.parent.name == "src" and (checkout / "pyproject.toml").is_file():
        return checkout / "results"
    return package / "results"


def published(slug: str) -> Result | None:
    """Return the published result of a paper, or None where there is none.

    Args:
        slug: Name of the paper.

    Raises:
        ValueError: If the file is there but cannot be read.
    """
    path = results_folder() / f"{slug}.json"
    if not path.is_file():
        return None
    try:
        return Result.read(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"the published result {path} cannot be read: {error}") from error


def measurements_folder() -> Path:
    """Return the folder of what the curvature tools measured on shipped examples."""
    return results_folder() / "tools"


def compared() -> Result | None:
    """Return the published comparison of all optimizers, or None where there is none.

    Raises:
        ValueError: If the file is there but cannot be read.
    """  # noqa: DOC502
    return published(COMPARED)


def status(paper: Paper) -> str:
    """Return the badge of ``paper``.

    Returns:
        ``"planned"``, the status of its published primary claim, or ``"not run"`` for a paper that
        runs but has no published result.
    """
    if paper.planned:
        return "planned"
    result = published(paper.slug)
    return NOT_RUN if result is None else result.status


def require_publishable(folder: Path, *, source: Path | None = None) -> None:
    """Refuse to publish what nobody could trace: needs committed code and a writable folder.

    Changes inside ``folder`` itself do not count, so that several papers can be published one
    after the other.

    Args:
        folder: Where the result will be written; created if it is missing.
        source: A path inside the checkout that runs; None takes the imported package.

    Raises:
        NotPublishable: If the package does not come from a git checkout, if a file of it is
            changed or untracked, or if ``folder`` cannot be written.
    """
    here = Path(gradworks.__file__).resolve().parent if source is None else source
    root = _git(here, "rev-parse", "--show-toplevel")
    if root is None:
        raise NotPublishable(
            f"publishing needs gradworks to run from a git checkout, so that the result names the "
            f"code that made it; {here} is not in one. Clone the repository and `pip install -e .`"
        )
    outcomes = _inside(folder, Path(root))
    where = ["--", ".", f":(exclude,top){outcomes}"] if outcomes else []
    changed = _git(Path(root), "status", "--porcelain", "--untracked-files=normal", *where)
    if changed is None:
        raise NotPublishable(f"`git status` failed in {root}; publishing needs a readable checkout")
    if changed:
        lines = changed.splitlines()
        names = ", ".join(line[3:] for line in lines[:3]) + (", …" if len(lines) > 3 else "")
        raise NotPublishable(
            f"publishing needs a clean git tree: {len(lines)} changed or untracked in {root} "
            f"({names}). Commit first, then run again"
        )
    _require_writable(folder)


def _inside(folder: Path, root: Path) -> str:
    """Return ``folder`` relative to ``root``, or '' where it lies elsewhere or is the root."""
    folder = folder.resolve()
    if folder == root.resolve() or not folder.is_relative_to(root.resolve()):
        return ""
    return folder.relative_to(root.resolve()).as_posix()


def _require_writable(folder: Path) -> None:
    """Create ``folder`` and see that a file can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotPublishable(f"--publish {folder}: cannot be created: {error}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NotPublishable(f"--publish {folder}: no permission to write there")


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, or None where it fails or is absent."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.rstrip("\n")
