"""Text to model: the sources of a package that torch itself pins, and Python's own manual."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradworks.bench.data.files import (
    ChangedData,
    Meta,
    checked,
    interpreter,
    meta_of,
    standard_file,
    tree,
)
from gradworks.bench.data.registry import find

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["sympy_text", "topics_text"]


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


def topics_text(*, pinned: bool = False) -> tuple[list[str], Array, Meta]:
    """Return the chapters of Python's reference manual, which every Python brings along.

    Each version of Python has its own text. Figures are pinned on that of CPython 3.11.7, 79
    topics and 465,048 characters; another one's is returned as it is, and ``meta`` says so.
    Chapters repeat each other's paragraphs (a fifth of the text): part them before splitting.

    Args:
        pinned: Refuse every text but the pinned one.

    Returns:
        One text a topic, sorted by name; the names; what is known, with the SHA-256 of the file
        that was read.

    Raises:
        MissingData: If this Python comes without ``pydoc_data``.
        ChangedData: If ``pinned`` and this Python has another text.
    """  # noqa: DOC502
    from dataclasses import replace
    from pydoc_data.topics import topics

    import numpy as np

    entry, _ = find("topics_text")
    path, digest, is_pinned = standard_file(entry)
    if pinned and not is_pinned:
        raise ChangedData(
            f"{path} is the text of {interpreter()} (SHA-256 {digest[:12]}…), the pinned one is "
            f"that of CPython {entry.version}; run under that Python, or leave out pinned=True"
        )
    names = sorted(topics)
    note = "" if is_pinned else f"not the pinned text of CPython {entry.version}"
    meta = replace(
        meta_of("topics_text"), sha256=digest, source=f"{interpreter()}, {path.name}", note=note
    )
    return [topics[name] for name in names], np.array(names), meta
