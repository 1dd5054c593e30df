"""Find what a user names: ``module:function`` or ``path.py:function``."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["UnknownTarget", "resolve"]


class UnknownTarget(LookupError):
    """A name that leads nowhere."""


def resolve(target: str) -> Any:
    """Return the object that ``module:function`` or ``path.py:function`` names.

    The current folder is importable while a module is looked up, and the folder of a file while
    the file is executed.

    Args:
        target: ``"package.module:function"`` or ``"folder/file.py:function"``.

    Raises:
        ValueError: If there is no colon, or nothing on one side of it.
        FileNotFoundError: If the file is not there.
        UnknownTarget: If the module or the name in it is not there.
        RuntimeError: If the module fails while it is imported.

    Example:
        >>> resolve("math:sqrt")(9.0)
        3.0
    """  # noqa: DOC502
    where, colon, name = target.rpartition(":")
    if not (colon and where and name):
        raise ValueError(f"target must be module:function or path.py:function, got {target!r}")
    if where.endswith(".py"):
        module = _from_file(where)
    else:
        module = _from_module(where)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, vars(found), n=3, cutoff=0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise UnknownTarget(f"{where} has no {name!r}{hint}")
        found = getattr(found, part)
    return found


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Put a folder in front of ``sys.path`` for a while."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _from_module(name: str) -> ModuleType:
    try:
        with _importable(Path.cwd()):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only the named module's own absence is the caller's mistake.
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UnknownTarget(
                f"there is no module {error.name!r} (looked in the current folder and in the "
                f"environment); a file is named path/to/file.py:function"
            ) from None
        raise RuntimeError(f"importing {name} failed: {error}") from error
    except Exception as error:
        raise RuntimeError(f"importing {name} failed: {type(error).__name__}: {error}") from error


def _from_file(where: str) -> ModuleType:
    path = Path(where).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {where} (looked from {Path.cwd()})")
    digest = hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()
    name = f"gradworks_user_{path.stem}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UnknownTarget(f"{where} cannot be imported as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        with _importable(path.parent):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RuntimeError(f"{where} failed: {type(error).__name__}: {error}") from error
    return module
