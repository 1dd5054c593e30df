"""The colours of plots and pages, in one place: those of a survey map, by day and by night.

Every pair used for text has a contrast of at least 4.5, every pair used for marks at least 3; the
tests compute both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DARK", "LIGHT", "Palette", "contrast"]


@dataclass(frozen=True)
class Palette:
    """One theme.

    Attributes:
        paper: Background.
        panel: Background of what is set apart: code, tables, notes.
        ink: Text.
        faint: Secondary text and axes.
        rule: Hairlines and grids.
        contour: The lines of the map; decoration only.
        tones: Series of a plot, in order of use.
        verdicts: Badges by status.
    """

    paper: str
    panel: str
    ink: str
    faint: str
    rule: str
    contour: str
    tones: tuple[str, ...]
    verdicts: Mapping[str, str]


LIGHT = Palette(
    paper="#fcfdfb",
    panel="#f2f5f1",
    ink="#17231f",
    faint="#56645e",
    rule="#d9e0da",
    contour="#d8b794",
    tones=("#1c6091", "#b04a16", "#3b7536", "#7b4690", "#8a680a", "#4f5d64"),
    verdicts={
        "reproduced": "#2c6a30",
        "partly": "#7a5a00",
        "not reproduced": "#a63a14",
        "undecided": "#704287",
        "indication": "#1c6091",
        "not run": "#4b5953",
        "planned": "#5b6963",
        "failed": "#9c1c3c",
    },
)
DARK = Palette(
    paper="#141b1a",
    panel="#1c2524",
    ink="#e6ece7",
    faint="#9fada6",
    rule="#2f3b38",
    contour="#5b4a37",
    tones=("#73b4e0", "#e9946a", "#8cc583", "#c79fdb", "#d9b855", "#a6b3b8"),
    verdicts={
        "reproduced": "#8fca88",
        "partly": "#dcb950",
        "not reproduced": "#ee9a75",
        "undecided": "#cba4de",
        "indication": "#79b9e4",
        "not run": "#b3c0b9",
        "planned": "#9aa8a1",
        "failed": "#f08ba3",
    },
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
