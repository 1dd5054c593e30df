"""Where packaged data lies, and whether it is what was hashed.

A file is found without importing its package (``animal_mnist`` would import tensorflow), and its
SHA-256 is compared with ``sha256sums.txt`` beside this module before a byte of it is parsed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks.bench.data.registry import DataSet, find, sha256sums

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = [
    "ChangedData",
    "Meta",
    "MissingData",
    "cache_folder",
    "cached_array",
    "checked",
    "combined",
    "folder_of",
    "interpreter",
    "meta_of",
    "standard_file",
    "tree",
]


class MissingData(ImportError):
    """A data set whose package is not installed; the message is the line that installs it."""


class ChangedData(RuntimeError):
    """A packaged file that is not the one that was hashed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Meta:
    """What is known about a data set beside its numbers.

    Args:
        name: As the registry names it, ``family:member`` for a member of a family.
        source: Package, version and file.
        licence: As the package states it.
        sha256: Of the packaged file, or of the list of files and hashes where there are several.
        features: Names of the columns of X, where there are any.
        classes: Names of the classes, in the order of their numbers in y.
        groups: A number a row that says which session or file it comes from, or None.
        group_names: Names of the groups, in the order of their numbers.
        note: What was left out or changed while reading.
    """

    name: str
    source: str
    licence: str
    sha256: str
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    groups: Array | None = None
    group_names: tuple[str, ...] = ()
    note: str = ""


def _spec(module: str) -> ModuleSpec | None:
    """Return how ``module`` would be imported, without importing it."""
    try:
        return find_spec(module)
    except (ImportError, ValueError):
        return None


def folder_of(entry: DataSet) -> Path | None:
    """Return the folder of a data set's package, or None where it is not installed."""
    spec = _spec(entry.module)
    if spec is None or spec.loader is None or not spec.submodule_search_locations:
        return None
    # A module made from its spec is enough for importlib.resources; its code never runs.
    root = resources.files(module_from_spec(spec))
    return root if isinstance(root, Path) else None


@functools.lru_cache(maxsize=4096)
def _digest(path: str, size: int, changed_ns: int) -> str:
    """Return the SHA-256 of a file; asked again only when its size or time differ."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree(root: Path, pattern: str) -> list[Path]:
    """Return the files below ``root`` that match, sorted by their path from ``root``."""
    return sorted(root.glob(pattern), key=lambda path: path.relative_to(root).as_posix())


@functools.lru_cache(maxsize=8)
def _tree_digest(root: str, pattern: str) -> str:
    """Return one SHA-256 for the paths and contents of a tree of files."""
    whole = hashlib.sha256()
    for path in tree(Path(root), pattern):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{content}  {path.relative_to(root).as_posix()}\n".encode())
    return whole.hexdigest()


def _missing(entry: DataSet) -> MissingData:
    return MissingData(
        f"the data set {entry.name!r} needs {entry.package} {entry.version}, which is not here; "
        f"run: gradworks data install {entry.name}"
    )


def checked(entry: DataSet, file: str) -> Path:
    """Return the path of one packaged file after its hash was compared.

    Args:
        entry: The data set.
        file: Path below the package's module; a pattern with ``*`` stands for a tree of files,
            and the module's folder is returned.

    Raises:
        MissingData: If the package or the file is not here.
        ChangedData: If the file's SHA-256 is not the one in the source.
    """  # noqa: DOC502
    root = folder_of(entry)
    if root is None:
        raise _missing(entry)
    if "*" in file:
        path, found = root, _tree_digest(str(root), file)
    else:
        path = root / file
        if not path.is_file():
            raise _missing(entry)
        stat = path.stat()
        found = _digest(str(path), stat.st_size, stat.st_mtime_ns)
    expected = sha256sums().get(f"{entry.module}/{file}")
    if found != expected:
        raise ChangedData(
            f"{path} is not the file of {entry.package} {entry.version} that was hashed "
            f"(SHA-256 {found[:12]}…, expected {(expected or 'none')[:12]}…); run: "
            f"gradworks data install {entry.name}"
        )
    return path


def interpreter() -> str:
    """Return name and version of the Python that runs, such as ``CPython 3.11.7``."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def standard_file(entry: DataSet) -> tuple[Path, str, bool]:
    """Return the file of a set that is a part of Python, its SHA-256, and whether it is pinned.

    Args:
        entry: A ``standard`` data set of one file.

    Raises:
        MissingData: If this Python comes without the file.
    """
    root = folder_of(entry)
    path = None if root is None else root / entry.files[0]
    if path is None or not path.is_file():
        raise MissingData(
            f"the data set {entry.name!r} is a part of Python ({entry.module}/{entry.files[0]}), "
            "but this one was packaged without it; install your system's full standard library"
        )
    stat = path.stat()
    digest = _digest(str(path), stat.st_size, stat.st_mtime_ns)
    return path, digest, digest == sha256sums()[f"{entry.module}/{entry.files[0]}"]


def combined(entry: DataSet, files: tuple[str, ...]) -> str:
    """Return one SHA-256 for some files of a data set, from the source."""
    sums = sha256sums()
    if len(files) == 1:
        return sums[f"{entry.module}/{files[0]}"]
    lines = "".join(f"{sums[f'{entry.module}/{file}']}  {file}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def cache_folder() -> Path:
    """Return the user's cache folder of gradworks (``XDG_CACHE_HOME``); it may not exist."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    root = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    return root / "gradworks"


def cached_array(name: str, sha256: str, make: Callable[[], Array]) -> Array:
    """Return an array from the user's cache, made and kept there the first time.

    A cached file that does not have the expected hash is made again; a cache that cannot be
    written is done without.

    Args:
        name: File name without suffix.
        sha256: Of the array's bytes, in C order.
        make: Reads the array from its packaged file.

    Raises:
        ChangedData: If ``make`` returns other bytes than were hashed.
    """
    import numpy as np

    def holds(array: Array) -> bool:
        return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() == sha256

    path = cache_folder() / f"{name}-{sha256[:12]}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        kept: Array = np.load(path, allow_pickle=False)
        if holds(kept):
            return kept
    array = make()
    if not holds(array):
        raise ChangedData(f"{name}: the numbers read differ from those that were hashed")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as draft:
            try:
                np.save(draft, array, allow_pickle=False)
                draft.flush()
                Path(draft.name).replace(path)
            except BaseException:
                Path(draft.name).unlink(missing_ok=True)
                raise
    return array


def meta_of(name: str, **known: Any) -> Meta:
    """Return the description of a data set that has just been read.

    Args:
        name: As the registry names it, ``family:member`` for a member of a family.
        **known: Further fields of :class:`Meta`.
    """
    entry, member = find(name)
    files = entry.known_files(member)
    return Meta(
        name=name,
        source=entry.source(files[0] if len(files) == 1 else ""),
        licence=entry.licence,
        sha256=combined(entry, files),
        **known,
    )
