"""Pieces of the pages: verdict strips, the map, highlighted code."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradworks import papers
from gradworks.report.outcomes import OutcomeView
from gradworks.report.site import strip, trail
from gradworks.report.site.code import highlight


def outcome(**changes: Any) -> OutcomeView:
    record = {"estimate": 1.1, "lo": 1.05, "hi": 1.15, "level": 0.95, "n": 10, "published": 1.2}
    record |= {"min_effect": 1.06} | changes.pop("record", {})
    view = OutcomeView(
        name="o",
        kind="superiority",
        status="reproduced",
        scale="ratio",
        unit="seed",
        direction="higher",
        neutral=1.0,
        compared="",
        record=record,
    )
    return replace(view, **changes)


def numbers(svg: str, pattern: str) -> list[float]:
    return [float(x) for x in re.findall(pattern, svg)]


def test_a_strip_puts_everything_in_order() -> None:
    drawn = strip.draw(outcome(), width=300)
    assert drawn is not None
    [neutral] = numbers(drawn.svg, r'class="neutral" x1="([\d.]+)"')
    [zone] = numbers(drawn.svg, r'class="zone" x="([\d.]+)"')
    [here] = numbers(drawn.svg, r'class="here" cx="([\d.]+)"')
    [paper] = numbers(drawn.svg, r'class="paper" d="M([\d.]+)')
    low, high = re.findall(r'class="interval" x1="([\d.]+)" x2="([\d.]+)"', drawn.svg)[0]
    assert 0 < neutral < float(low) < zone < here < float(high) < paper < 300
    assert drawn.text == ("Here ×1.10, ×1.05 to ×1.15 (95 %); the paper ×1.20; no effect is ×1.00.")


def test_where_lower_is_better_the_shade_lies_on_the_left() -> None:
    record = {"estimate": -0.2, "lo": -0.3, "hi": -0.1, "min_effect": -0.05, "published": None}
    drawn = strip.draw(
        outcome(scale="difference", direction="lower", neutral=0.0, record=record), width=300
    )
    assert drawn is not None
    [start], [span] = (
        numbers(drawn.svg, r'zone" x="([\d.]+)"'),
        numbers(drawn.svg, r'zone" [^>]*width="([\d.]+)"'),
    )
    [neutral] = numbers(drawn.svg, r'class="neutral" x1="([\d.]+)"')
    assert start == 0
    assert start + span < neutral


def test_what_must_be_equal_has_a_shade_around_it() -> None:
    record = {"estimate": 0.9236, "lo": 0.92, "hi": 0.925, "published": 0.924, "min_effect": None}
    view = outcome(
        kind="exactness", scale="value", neutral=0.924, within=(0.9055, 0.9425), record=record
    )
    drawn = strip.draw(view, width=300)
    assert drawn is not None
    [start], [span] = (
        numbers(drawn.svg, r'zone" x="([\d.]+)"'),
        numbers(drawn.svg, r'zone" [^>]*width="([\d.]+)"'),
    )
    [here] = numbers(drawn.svg, r'class="here" cx="([\d.]+)"')
    assert start < here < start + span
    assert span > 150  # the axis shows what counts as equal, so equal figures lie together


@pytest.mark.parametrize(
    "record",
    [
        {"estimate": None},
        {"estimate": float("nan")},
    ],
)
def test_without_a_figure_there_is_no_strip(record: dict[str, Any]) -> None:
    assert strip.draw(outcome(record=record)) is None
    assert strip.row(outcome(record=record)) is None


finite = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)


@given(
    estimate=finite,
    lo=st.none() | finite,
    hi=st.none() | finite,
    published=st.none() | finite,
    least=st.none() | finite,
    neutral=st.none() | finite,
    scale=st.sampled_from(["ratio", "difference", "value"]),
    kind=st.sampled_from(["superiority", "threshold", "exactness", "rate", "equivalence"]),
    direction=st.sampled_from(["higher", "lower", ""]),
)
def test_a_strip_never_leaves_its_box(
    estimate: float, lo: Any, hi: Any, published: Any, least: Any, neutral: Any, **how: str
) -> None:
    record = {"estimate": estimate, "lo": lo, "hi": hi, "published": published, "min_effect": least}
    drawn = strip.draw(outcome(record=record, neutral=neutral, **how), width=300)
    assert drawn is not None
    for x in numbers(drawn.svg, r' (?:x|x1|x2|cx)="([\d.-]+)"'):
        assert -0.1 <= x <= 300.1
    assert "nan" not in drawn.svg


def test_criteria_of_one_kind_share_an_axis() -> None:
    small, large = outcome(), outcome(record={"estimate": 3.0, "lo": 2.0, "hi": 4.0})
    axis = strip.shared_axis([small, large], 150)
    assert axis is not None
    assert axis(1.1) < axis(3.0)
    other = outcome(scale="difference", neutral=0.0)
    assert strip.shared_axis([small, other], 150) is None


def test_the_trail_goes_down_and_ends_in_the_valley() -> None:
    drawn = trail.draw(28)
    heights = [trail._height(x, y) for x, y in drawn.points]
    assert heights == sorted(heights, reverse=True)
    for x, y in drawn.points:
        assert 0 < x < trail.WIDTH
        assert 0 < y < trail.HEIGHT
    gaps = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in zip(drawn.points, drawn.points[1:])]
    assert min(gaps) > 10  # marks do not lie on each other
    assert len(trail.draw(0).points) == 0


CODE = [
    "x = 1",
    'print(f"{x:.2f} of {{y}}")  # so',
    "def f(a: int) -> str:\n    return '''long\n    text'''\n",
    "unfinished = (",
    "    dedent = me\n    twice = 2",
    "<script>alert('&')</script>",
]


@pytest.mark.parametrize("code", CODE)
def test_highlighted_code_is_the_code(code: str) -> None:
    import html
    import textwrap

    plain = html.unescape(re.sub(r"</?span[^>]*>", "", highlight(code)))
    assert plain == textwrap.dedent(code).strip("\n")


def test_the_usage_of_every_paper_is_highlighted() -> None:
    for paper in papers.papers():
        assert '<span class="k">' in highlight(paper.card.usage) or "import" not in paper.card.usage
