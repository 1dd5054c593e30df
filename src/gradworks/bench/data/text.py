"""Text to model: the sources of a package that torch itself pins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradworks.bench.data.files import Meta, checked, meta_of, tree
from gradworks.bench.data.registry import find

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["sympy_text"]


def sympy_text() -> tuple[list[str], Array, Meta]:
    """Return the Python sources of sympy, 26 MB of code and prose.

    Split it by file, never by random character, so that validation text is unseen.

    Returns:
        One text a file, sorted by path; the paths; what is known.

    Raises:
        MissingData: If sympy is not installed.
        ChangedData: If it is another version than was hashed.
    """  # noqa: DOC502
    import numpy as np

    entry, _ = find("sympy_text")
    root = checked(entry, entry.files[0])
    paths = tree(root, entry.files[0])
    texts = [path.read_text(encoding="utf-8") for path in paths]
    names = np.array([path.relative_to(root).as_posix() for path in paths])
    return texts, names, meta_of("sympy_text")
