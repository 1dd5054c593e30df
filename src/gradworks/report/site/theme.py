"""The theme's colours as CSS variables, made from the palette so that plots and pages agree."""

from __future__ import annotations

from gradworks.report.palette import DARK, LIGHT, Palette

__all__ = ["css"]


def css() -> str:
    """Return the style sheet that defines both themes.

    Without a choice the reader's system decides; a choice stands in ``data-theme`` of the root.
    """
    light, dark = _variables(LIGHT, "light"), _variables(DARK, "dark")
    return (
        "/* made from gradworks.report.palette */\n"
        f":root{{{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}\n"
        f":root[data-theme=dark]{{{dark}}}\n"
    )


def _variables(palette: Palette, scheme: str) -> str:
    pairs = {
        "paper": palette.paper,
        "panel": palette.panel,
        "ink": palette.ink,
        "faint": palette.faint,
        "rule": palette.rule,
        "contour": palette.contour,
        "link": palette.tones[0],
    }
    pairs |= {f"tone-{i}": tone for i, tone in enumerate(palette.tones)}
    pairs |= {f"verdict-{name.replace(' ', '-')}": c for name, c in palette.verdicts.items()}
    text = ";".join(f"--{name}:{value}" for name, value in pairs.items())
    return f"color-scheme:{scheme};{text}"
