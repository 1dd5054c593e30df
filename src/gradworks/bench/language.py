"""Text as a training problem: characters, sections that no two splits share, windows.

Manuals repeat themselves, so that a split by document would put the same paragraph into training
and test data. Here a repeated paragraph is kept once, what remains is cut into sections of whole
paragraphs, and each section goes into one split. No window reaches from one section into another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["SECTION", "alphabet", "character_loss", "sections", "windows"]

SECTION = 2000  # characters, about: 30 lines of prose


def sections(texts: Iterable[str], length: int = SECTION) -> list[str]:
    r"""Return sections of whole paragraphs, every paragraph once.

    Args:
        texts: Documents; paragraphs are parted by blank lines. No section spans two documents.
        length: A section ends with the paragraph that reaches this many characters.

    Raises:
        ValueError: If ``length`` is below 1.

    Example:
        >>> sections(["a b\n\nc\n\nd", "a  b\n\ne"], length=5)
        ['a b\n\nc', 'd', 'e']
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    seen: set[str] = set()
    made: list[str] = []
    for text in texts:
        part: list[str] = []
        for paragraph in text.split("\n\n"):
            words = " ".join(paragraph.split())
            if not words or words in seen:
                continue
            seen.add(words)
            part.append(paragraph)
            if sum(len(p) + 2 for p in part) - 2 >= length:
                made.append("\n\n".join(part))
                part = []
        if part:
            made.append("\n\n".join(part))
    return made


def alphabet(texts: Iterable[str]) -> str:
    """Return the characters of some texts, each once, in order.

    Args:
        texts: What is to be modelled, all splits: an unseen character has no number.
    """
    return "".join(sorted(set().union(*texts)))


def windows(
    texts: Sequence[str], characters: str, context: int, at_most: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return inputs and targets: windows that do not overlap, and the character after each.

    Args:
        texts: Sections; what is left of each after its last whole window is not used.
        characters: The alphabet; a character's number is its place.
        context: Characters a window.
        at_most: Keep this many windows, spread evenly over the texts; None keeps all.

    Returns:
        Two int64 tensors (windows, context); targets are the inputs one character later.

    Raises:
        ValueError: If no text is longer than the context.
    """
    import numpy as np
    import torch

    number = {character: i for i, character in enumerate(characters)}
    inputs: list[Array] = []
    targets: list[Array] = []
    for text in texts:
        codes = np.fromiter((number[c] for c in text), dtype=np.int64, count=len(text))
        n = (len(codes) - 1) // context
        inputs.append(codes[: n * context].reshape(n, context))
        targets.append(codes[1 : n * context + 1].reshape(n, context))
    x, y = np.concatenate(inputs), np.concatenate(targets)
    if len(x) == 0:
        raise ValueError(f"context must be below the length of some text, got {context}")
    if at_most is not None and at_most < len(x):
        kept = np.linspace(0, len(x) - 1, at_most).round().astype(np.int64)
        x, y = x[kept], y[kept]
    return torch.from_numpy(x), torch.from_numpy(y)


def character_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy of a character, in nats.

    Args:
        output: Logits (batch, context, characters).
        target: Numbers of the characters (batch, context).
    """
    from torch.nn import functional as F

    return F.cross_entropy(output.flatten(0, -2), target.flatten())
