"""Numbers and states in words: the same on the terminal, in the site and in the feed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = [
    "MEANING",
    "duration",
    "effect",
    "interval",
    "number",
    "p_value",
    "plural",
    "setting",
    "units",
]

# What each badge means, as the pages and the terminal explain it.
MEANING: Mapping[str, str] = {
    "reproduced": "The claim held here: significant, on the claimed side, at least the smallest "
    "effect worth having.",
    "partly": "The direction is right, but the effect is too small, or it holds on some workloads "
    "only.",
    "not reproduced": "The claim ran to the end here and did not hold.",
    "undecided": "The run cannot tell: too few seeds for its spread, or a search that ended on its "
    "border.",
    "indication": "A quick run: it points somewhere, and decides nothing.",
    "not run": "It runs, and no full run has been published yet.",
    "planned": "The card and its claims are written; the experiment is not built yet.",
    "failed": "The run ended in errors before it could decide anything.",
}

_MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` significant digits, for people.

    Args:
        value: Any number; None (what NaN becomes in a stored document) prints as a dash.
        digits: Significant digits, default 3.

    Returns:
        Text with a true minus sign, no trailing zeros after an exponent, no ``-0``.

    Example:
        >>> number(0.012345), number(1234567.0), number(None)
        ('0.0123', '1.23e6', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    if value == 0:
        return "0"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e5):
        text = f"{int(value)}"
    elif 1e-3 <= abs(value) < 1e5:
        places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:.{places}f}"
    else:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", _MINUS)


def setting(value: Any) -> str:
    """Return a setting as one would type it: short, no padding zeros.

    Example:
        >>> setting(0.0031), setting(1e-5), setting(True), setting("cosine"), setting(0.9)
        ('0.0031', '1e−5', 'yes', 'cosine', '0.9')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        text = f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e")
        return text.replace("-", _MINUS)
    return "" if value is None else str(value)


def effect(value: float | None, scale: str) -> str:
    """Return an effect on its scale: a ratio as ``×1.1``, a difference with its sign.

    Args:
        value: The effect; None prints as a dash.
        scale: ``"ratio"``, ``"difference"``, or ``"value"`` for a plain figure.

    Example:
        >>> effect(1.1, "ratio"), effect(0.02, "difference"), effect(3.0, "value")
        ('×1.10', '+0.0200', '3')
    """
    text = number(value)
    if text == "–":
        return text
    if scale == "ratio":
        if value is not None and 0.1 <= abs(value) < 10:
            text = f"{value:.2f}"
        return f"×{text}"
    return f"+{text}" if scale == "difference" and value is not None and value > 0 else text


def interval(outcome: Mapping[str, Any], scale: str, *, short: bool = False) -> str:
    """Return the interval of an outcome, and say so where it is a range of few units.

    Args:
        outcome: ``asdict`` of :class:`~gradworks.bench.claims.Outcome`.
        scale: As for :func:`effect`.
        short: For narrow tables: brackets, no level but for a range.

    Example:
        >>> interval({"lo": 1.0, "hi": 1.5, "level": 0.95, "n": 10}, "value")
        '1 to 1.50 (95 %)'
        >>> interval({"lo": 1.0, "hi": 1.5, "level": None, "n": 3}, "value", short=True)
        '[1, 1.50] range'
    """
    if outcome.get("lo") is None or outcome.get("hi") is None:
        return "–"
    lo, hi = effect(outcome["lo"], scale), effect(outcome["hi"], scale)
    level = outcome.get("level")
    if short:
        return f"[{lo}, {hi}]" + (" range" if level is None else "")
    return f"{lo} to {hi} ({'range' if level is None else f'{100 * level:.0f} %'})"


def p_value(outcome: Mapping[str, Any]) -> str:
    """Return the p-value, adjusted by Holm where it was.

    Example:
        >>> p_value({"p": 0.001, "p_adj": 0.0039}), p_value({"p": None, "p_adj": None})
        ('0.004', '–')
    """
    p = outcome.get("p_adj")
    p = outcome.get("p") if p is None else p
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float | None) -> str:
    """Return a duration in the largest two units that say something.

    Example:
        >>> duration(4.2), duration(75), duration(7260), duration(None)
        ('4 s', '1 min 15 s', '2 h 1 min', '–')
    """
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 1:
        return "under 1 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """Return ``count`` with its noun.

    Example:
        >>> plural(1, "paper"), plural(3, "study", "studies")
        ('1 paper', '3 studies')
    """
    return f"{count} {noun if count == 1 else many or noun + 's'}"


def units(outcome: Mapping[str, Any], unit: str) -> str:
    """Return how many independent units an outcome rests on.

    Example:
        >>> units({"n": 10}, "seed")
        '10 seeds'
    """
    return plural(int(outcome.get("n") or 0), unit)
