"""The colours of plots and pages, in one place: those of a survey map, by day and by night.

Every pair used for text has a contrast of at least 4.5, every pair used for marks at least 3; the
tests compute both.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DARK", "LIGHT", "Palette", "contrast"]


@dataclass(frozen=True)
class Palette:
    """One theme.

    Attributes:
        paper: Background.
        ink: Text.
        faint: Secondary text and axes.
        rule: Hairlines and grids.
        tones: Series of a plot, in order of use.
    """

    paper: str
    ink: str
    faint: str
    rule: str
    tones: tuple[str, ...]


LIGHT = Palette(
    paper="#fcfdfb",
    ink="#17231f",
    faint="#56645e",
    rule="#d9e0da",
    tones=("#1c6091", "#b04a16", "#3b7536", "#7b4690", "#8a680a", "#4f5d64"),
)
DARK = Palette(
    paper="#141b1a",
    ink="#e6ece7",
    faint="#9fada6",
    rule="#2f3b38",
    tones=("#73b4e0", "#e9946a", "#8cc583", "#c79fdb", "#d9b855", "#a6b3b8"),
)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours by the WCAG formula, 1 to 21.

    Args:
        one: ``#rrggbb``.
        other: ``#rrggbb``.

    Example:
        >>> contrast("#000000", "#ffffff")
        21.0
    """
    brighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return round((brighter + 0.05) / (darker + 0.05), 2)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
