"""Replace a folder as a whole: readers see the old site or the new one, never a mixture."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["MARKER", "NotOurSite", "replacing"]

# A file that says: this folder was made by `gradworks report` and may be replaced by it.
MARKER = ".gradworks-site"

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_RENAME_SWAP = 2  # macOS sys/stdio.h


class NotOurSite(ValueError):
    """The folder to be replaced holds something that this command did not make."""


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of ``out`` once the block ends without an error.

    The new folder lies beside ``out``. Both are exchanged in one step of the file system where it
    can do that (Linux, macOS), by two renames elsewhere. A block that fails, or a kill at any
    moment, leaves ``out`` as it was; folders left by a kill are removed by the next call.

    Args:
        out: Missing, empty, or a site made before.

    Yields:
        The folder to fill.

    Raises:
        NotOurSite: ``out`` is a file, or a folder with other things in it.
    """  # noqa: DOC502
    out = out.resolve()
    _refuse_others(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    _sweep(out)
    new = Path(tempfile.mkdtemp(prefix=f".{out.name}.{os.getpid()}-", dir=out.parent))
    try:
        new.chmod(0o755)
        (new / MARKER).write_text("made by `gradworks report`; replaced as a whole\n")
        yield new
        _refuse_others(out)  # somebody may have put something there meanwhile
        _swap(new, out)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _refuse_others(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise NotOurSite(f"{out} is a file; the site needs a folder, choose another")
    if (out / MARKER).is_file() or not any(out.iterdir()):
        return
    raise NotOurSite(
        f"{out} holds files that `gradworks report` did not make, so it will not be replaced; "
        "choose another folder"
    )


def _sweep(out: Path) -> None:
    """Remove what killed builds left beside ``out``; bring back a site caught between renames."""
    for left in sorted(out.parent.glob(f".{out.name}.*-*")):
        owner = left.name.removeprefix(f".{out.name}.").partition("-")[0]
        if not (left.is_dir() and (left / MARKER).is_file()):
            continue
        if owner == "old" and not out.exists():
            left.rename(out)
        elif owner == "old" or (owner.isdigit() and not _alive(int(owner))):
            shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _swap(new: Path, out: Path) -> None:
    """Put ``new`` in the place of ``out``; the old folder, if any, ends where ``new`` was."""
    if not out.exists():
        new.rename(out)
        return
    if _exchange(new, out):
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
    out.rename(old)  # onto an empty folder
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system cannot."""
    a, b = os.fsencode(one), os.fsencode(other)
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return bool(libc.renamex_np(a, b, _RENAME_SWAP) == 0)
        return bool(libc.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, _RENAME_EXCHANGE) == 0)
    return False
