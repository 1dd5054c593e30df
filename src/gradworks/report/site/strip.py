"""The verdict strip: one axis with no effect, the paper's figure, and what came out here.

What is shaded is large enough to count: on the claimed side, beyond the smallest effect worth
having.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gradworks.report import wording
from gradworks.report.outcomes import OutcomeView

__all__ = ["Axis", "Strip", "draw", "row", "shared_axis"]

_LOG_SPAN = 20.0  # plain values whose ratio is wider than this are drawn on a log axis
_CHARACTER = 6.2  # width of a label's character at the drawn size


@dataclass(frozen=True)
class Strip:
    """A drawing and the same in words."""

    svg: str
    text: str


class Axis:
    """Values to pixels: linear, or logarithmic for ratios and for long spans.

    Args:
        marks: Values that must be visible, at least one.
        width: Of the drawing.
        ratio: The values are ratios.
    """

    def __init__(self, marks: Sequence[float], width: int, *, ratio: bool) -> None:
        positive = min(marks) > 0
        self._log = positive and (ratio or max(marks) / min(marks) > _LOG_SPAN)
        ends = [self._value(v) for v in marks]
        low, high = min(ends), max(ends)
        room = 0.16 * (high - low) or max(abs(high) * 0.1, 0.1)
        self._low, self._high, self.width = low - room, high + room, width

    def _value(self, value: float) -> float:
        return math.log(value) if self._log else value

    def __call__(self, value: float) -> float:
        """Return the pixel of ``value``, kept inside the drawing."""
        if self._log and value <= 0:
            return 0.0
        share = (self._value(value) - self._low) / (self._high - self._low)
        return round(min(max(share, 0.0), 1.0) * self.width, 1)


def _finite(*values: float | None) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v)]


def _drawable(outcome: OutcomeView) -> bool:
    return bool(_finite(outcome.record.get("estimate")))


def _marks(outcome: OutcomeView) -> list[float]:
    record = outcome.record
    return _finite(
        outcome.neutral,
        record.get("published"),
        record["estimate"],
        record.get("lo"),
        record.get("hi"),
        _least(outcome),
        *(outcome.within or ()),
    )


def _least(outcome: OutcomeView) -> float | None:
    """Where effects begin to count, on the axis; None where there is no such place."""
    if outcome.direction not in ("higher", "lower"):
        return None
    if outcome.kind not in ("superiority", "speed", "threshold"):
        return None
    least = outcome.record.get("min_effect")
    if least is None:
        return outcome.neutral
    if outcome.kind == "threshold" and outcome.neutral is not None:
        return float(outcome.neutral + least)
    return float(least)


def shared_axis(outcomes: Sequence[OutcomeView], width: int) -> Axis | None:
    """Return one axis for outcomes that can be compared by eye, else None.

    Args:
        outcomes: Of one claim.
        width: Of each drawing.
    """
    drawn = [o for o in outcomes if _drawable(o)]
    if not drawn or len({(o.scale, o.neutral) for o in drawn}) > 1 or drawn[0].scale == "value":
        return None
    marks = [v for o in drawn for v in _marks(o)]
    return Axis(marks, width, ratio=drawn[0].scale == "ratio")


def row(outcome: OutcomeView, axis: Axis | None = None, *, width: int = 150) -> Strip | None:
    """Return a strip without labels, for a row of a table.

    Args:
        outcome: One criterion as it came out.
        axis: Shared with the other rows; None makes one for this row.
        width: Of the drawing, where ``axis`` is None.
    """
    if not _drawable(outcome):
        return None
    axis = axis or Axis(_marks(outcome), width, ratio=outcome.scale == "ratio")
    return Strip(_svg(axis.width, 24, _shapes(outcome, axis, 12)), _words(outcome))


def draw(outcome: OutcomeView, *, width: int = 320) -> Strip | None:
    """Return the strip of an outcome, or None where there is no figure to draw.

    Args:
        outcome: One criterion as it came out.
        width: Of the drawing, in CSS pixels; it scales down where there is less room.
    """
    if not _drawable(outcome):
        return None
    axis = Axis(_marks(outcome), width, ratio=outcome.scale == "ratio")
    y = 30
    record = outcome.record
    taken: list[tuple[float, float]] = []
    labels = [
        _label(
            f"here {wording.effect(record['estimate'], outcome.scale)}",
            axis(record["estimate"]),
            y - 13,
            width,
            "here-text",
            [],
        )
    ]
    if record.get("published") is not None:
        text = f"paper {wording.effect(record['published'], outcome.scale)}"
        place = axis(record["published"])
        labels.append(_label(text, place, y + 23, width, "paper-text", taken))
    if outcome.neutral is not None:
        text, place = _neutral_text(outcome), axis(outcome.neutral)
        labels.append(_label(text, place, y + 23, width, "neutral-text", taken))
    return Strip(_svg(width, 58, _shapes(outcome, axis, y) + "".join(labels)), _words(outcome))


def _svg(width: int, height: int, inside: str) -> str:
    return (
        f'<svg class="strip" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'aria-hidden="true" focusable="false">{inside}</svg>'
    )


def _shapes(outcome: OutcomeView, axis: Axis, y: int) -> str:
    """The axis at height ``y`` with everything on it, what came out here on top."""
    record = outcome.record
    estimate = record["estimate"]
    lo, hi = (estimate if record.get(end) is None else record[end] for end in ("lo", "hi"))
    parts = []
    zone = _zone(outcome, axis)
    if zone is not None:
        left, span = min(zone), round(abs(zone[1] - zone[0]), 1)
        parts.append(f'<rect class="zone" x="{left}" y="{y - 9}" width="{span}" height="18"/>')
    parts.append(f'<line class="axis" x1="0" x2="{axis.width}" y1="{y}" y2="{y}"/>')
    if outcome.neutral is not None:
        x = axis(outcome.neutral)
        parts.append(f'<line class="neutral" x1="{x}" x2="{x}" y1="{y - 10}" y2="{y + 10}"/>')
    if record.get("published") is not None:
        x = axis(record["published"])
        parts.append(f'<path class="paper" d="M{x} {y - 6}l5 6-5 6-5-6z"/>')
    parts.append(
        f'<line class="interval" x1="{axis(lo)}" x2="{axis(hi)}" y1="{y}" y2="{y}"/>'
        f'<circle class="here" cx="{axis(estimate)}" cy="{y}" r="5"/>'
    )
    return "".join(parts)


def _zone(outcome: OutcomeView, axis: Axis) -> tuple[float, float] | None:
    """Both ends, in pixels, of where a figure is good enough to count."""
    if outcome.within is not None:
        return axis(outcome.within[0]), axis(outcome.within[1])
    least = _least(outcome)
    if least is None:
        return None
    return axis(least), axis.width if outcome.direction == "higher" else 0.0


def _neutral_text(outcome: OutcomeView) -> str:
    if outcome.scale != "value":
        return "no effect"
    name = {"threshold": "asked", "exactness": "exact"}.get(outcome.kind, "claimed")
    return f"{name} {wording.number(outcome.neutral)}"


def _label(
    text: str, x: float, y: int, width: int, name: str, taken: list[tuple[float, float]]
) -> str:
    """A centred label kept inside the drawing; left out where another one stands."""
    half = len(text) * _CHARACTER / 2
    centre = min(max(x, half), width - half)
    span = (centre - half - 4, centre + half + 4)
    if any(span[0] < b and a < span[1] for a, b in taken):
        return ""
    taken.append(span)
    return (
        f'<text class="{name}" x="{round(centre, 1)}" y="{y}" text-anchor="middle">'
        f"{escape(text)}</text>"
    )


def _words(outcome: OutcomeView) -> str:
    """The strip for readers who do not see it."""
    record = outcome.record
    here = wording.effect(record["estimate"], outcome.scale)
    text = f"Here {here}, {wording.interval(record, outcome.scale)}"
    if record.get("published") is not None:
        text += f"; the paper {wording.effect(record['published'], outcome.scale)}"
    if outcome.neutral is not None:
        text += f"; {_neutral_text(outcome)}"
        if outcome.scale != "value":
            text += f" is {wording.effect(outcome.neutral, outcome.scale)}"
    return text + "."
