"""The packages behind the data sets: which are here, their hashes, and how to install them.

No installation may replace torch, numpy, pandas or what stands on them: each runs pip with
constraints that pin the versions that are here, or with ``--no-deps`` where a package declares pins
that would break them.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gradworks.bench.data.files import (
    ChangedData,
    MissingData,
    checked,
    combined,
    folder_of,
    interpreter,
    standard_file,
)
from gradworks.bench.data.registry import SETS, DataSet, find

__all__ = ["InstallFailed", "install", "installed", "source", "verify"]

# Never to be replaced by an installation of data.
_KEPT = ("torch", "numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "pillow")


class InstallFailed(RuntimeError):
    """Pip could not install a package of data, or another package changed on the way."""


def _version_here(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _needs(entry: DataSet) -> list[str]:
    """Return the packages that reading a set takes and that are not here."""
    return [package for package in entry.needs if _version_here(package) is None]


def _here(entry: DataSet) -> bool:
    """Return whether a set can be read now, hashes aside."""
    if _needs(entry):
        return False
    if not entry.package:
        return True
    root = folder_of(entry)
    return root is not None and all(
        "*" in file or (root / file).is_file() for file in entry.known_files()
    )


def installed() -> list[dict[str, Any]]:
    """Return one row a data set: what it is, its package, whether it is here, its licence."""
    rows = []
    for entry in SETS:
        here = _here(entry)
        rows.append(
            {
                "name": entry.name,
                "what": entry.what,
                "package": entry.package or "gradworks",
                "version": entry.version,
                "here": here,
                "status": "here" if here else "absent",
                "licence": entry.licence,
                "shape": entry.shape,
                "needs": "" if here else f"gradworks data install {entry.name}",
            }
        )
    return rows


def verify(names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Compare the hashes of packaged files with those in the source.

    Args:
        names: Data sets or members (``keel:yeast3``); None takes every set.

    Returns:
        A row a set: ``name``, ``status`` (``"ok"``, ``"changed"`` or ``"absent"``), ``package``,
        ``version``, number of ``files``, ``sha256`` (its first 16 digits), ``licence``, and
        ``text`` where something is wrong. A part of Python itself is ``"other"`` where this
        Python is not the one that was pinned.

    Raises:
        UnknownData: If a name is not in the registry.
    """  # noqa: DOC502
    rows = []
    for name in [entry.name for entry in SETS] if names is None else list(names):
        entry, member = find(name)
        files = entry.known_files(member) if entry.package else ()
        row: dict[str, Any] = {
            "name": name,
            "status": "absent" if _needs(entry) else "ok",
            "package": entry.package or "gradworks",
            "version": entry.version,
            "files": len(files),
            "sha256": combined(entry, files)[:16] if files else "",
            "licence": entry.licence,
        }
        try:
            if entry.standard:
                row.update(_standard(entry))
            else:
                for file in files:
                    checked(entry, file)
        except MissingData as error:
            hint = str(error) if entry.standard else f"gradworks data install {entry.name}"
            row.update(status="absent", text=hint)
        except ChangedData as error:
            row.update(status="changed", text=str(error))
        rows.append(row)
    return rows


def _standard(entry: DataSet) -> dict[str, Any]:
    """Return what a verification says of a part of Python itself."""
    _, digest, pinned = standard_file(entry)
    if pinned:
        return {}
    return {
        "status": "other",
        "version": interpreter(),
        "sha256": digest[:16],
        "text": f"figures are comparable among runs on one text; the pinned one is that of "
        f"CPython {entry.version}",
    }


def source(name: str) -> dict[str, str]:
    """Return what the run store keeps about a data set, after its files were checked.

    Args:
        name: A data set or a member (``keel:yeast3``).

    Returns:
        ``name``, ``sha256`` (of the recipe's module for a computed set), ``source``, ``licence``.

    Raises:
        UnknownData: If the name is not in the registry.
        MissingData: If its package is not here; the message is the line that installs it.
        ChangedData: If a file is not the one that was hashed.
    """  # noqa: DOC502
    entry, member = find(name)
    missing = _needs(entry)
    if missing:
        raise MissingData(
            f"the data set {name!r} needs {', '.join(missing)}; run: "
            f"gradworks data install {entry.name}"
        )
    if entry.standard:
        _, digest, _ = standard_file(entry)
        where = f"{interpreter()}, {entry.module}/{entry.files[0]}"
    elif not entry.package:
        import hashlib

        recipe = Path(__file__).with_name("synthetic.py").read_bytes()
        digest, where = hashlib.sha256(recipe).hexdigest(), entry.source()
    else:
        files = entry.known_files(member)
        for file in files:
            checked(entry, file)
        digest, where = combined(entry, files), entry.source(files[0] if len(files) == 1 else "")
    return {"name": name, "sha256": digest, "source": where, "licence": entry.licence}


def _pip(arguments: list[str], progress: Callable[[str], None]) -> None:
    """Run pip of this interpreter.

    Raises:
        InstallFailed: If it ends with an error; the message holds its last lines.
    """
    progress("pip " + " ".join(arguments))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = [line for line in done.stderr.splitlines() if line.strip()][-3:]
        raise InstallFailed(f"pip {' '.join(arguments)} failed: {' '.join(last)}")


def _install_package(
    package: str, *, own_dependencies: bool, constraints: Path, progress: Callable[[str], None]
) -> None:
    """Install one package; with its dependencies where they leave what is here alone."""
    alone = ["install", "--quiet", "--no-deps", package]
    if not own_dependencies:
        _pip(alone, progress)
        return
    try:
        _pip(["install", "--quiet", "--constraint", str(constraints), package], progress)
    except InstallFailed:
        # Its files are all that is read; its dependencies do not fit what is here.
        progress(f"{package}: its dependencies do not fit this environment; its files alone")
        _pip(alone, progress)


def _has_pip() -> bool:
    """Whether pip is installed; ``find_spec("pip")`` would switch off setuptools' distutils."""
    try:
        version("pip")
    except PackageNotFoundError:
        return False
    return True


def install(names: Iterable[str], progress: Callable[[str], None] | None = None) -> None:
    """Install the packages of data sets into this environment and check their hashes.

    What is here with the right hash is left as it is; torch, numpy, pandas and what stands on them
    keep their versions.

    Args:
        names: Data sets or members (``keel:yeast3``).
        progress: Called with a line for each thing done.

    Raises:
        UnknownData: If a name is not in the registry.
        InstallFailed: If pip fails, or if one of the kept packages changed.
        ChangedData: If the installed files are not those that were hashed.
        MissingData: If a set is a part of Python itself and this Python comes without it.
    """  # noqa: DOC502
    say = progress or (lambda text: None)
    entries = list({find(name)[0].name: find(name)[0] for name in names}.values())
    before = {package: _version_here(package) for package in _KEPT}
    wanted: dict[str, bool] = {}
    for entry in entries:
        for package in _needs(entry):
            wanted[package] = True
        if entry.standard:
            say(f"{entry.name}: already here, in {standard_file(entry)[0]}")
        elif not entry.package or _is_right(entry):
            say(f"{entry.name}: already here")
        else:
            wanted[f"{entry.package}=={entry.version}"] = entry.own_dependencies
    if not wanted:
        return
    if not _has_pip():
        raise InstallFailed(
            f"this environment has no pip; install by other means, without dependencies: "
            f"{' '.join(wanted)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        pins = [f"{package}=={found}" for package, found in before.items() if found]
        constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
        for package, own in wanted.items():
            _install_package(package, own_dependencies=own, constraints=constraints, progress=say)
    importlib.invalidate_caches()
    changed = [
        f"{package} {found} became {_version_here(package) or 'absent'}"
        for package, found in before.items()
        if found and _version_here(package) != found
    ]
    if changed:
        raise InstallFailed(f"the installation changed other packages: {', '.join(changed)}")
    for entry in entries:
        for file in entry.known_files() if entry.package and not entry.standard else ():
            checked(entry, file)
        say(f"{entry.name}: here, hashes right")


def _is_right(entry: DataSet) -> bool:
    """Return whether a set is here with the hashes in the source."""
    try:
        for file in entry.known_files():
            checked(entry, file)
    except (MissingData, ChangedData):
        return False
    return True
