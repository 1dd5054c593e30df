"""Can everybody use the site? Contrast, keyboard, names and sizes, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.report.browser import (
    CHROMIUM,
    CONTRAST,
    DRIVER,
    ENTER,
    PAGES,
    SHIFT,
    TAB,
    Browser,
    fresh,
    see_everything,
    until,
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="needs chromium and chromedriver: apt-get install chromium chromium-driver",
    ),
]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_text_has_contrast_in_both_themes(
    browser: Browser, built: Path, page: str, theme: str
) -> None:
    browser.prefer(theme)
    fresh(browser, built / page)
    see_everything(browser)
    dark = browser.js("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 27, 26)"
    assert dark == (theme == "dark")
    found = browser.js(CONTRAST)
    assert found["count"] > 20
    assert found["bad"] == []


def test_the_contrast_check_sees_a_weak_text(browser: Browser, built: Path) -> None:
    fresh(browser, built / "verdicts.html")
    browser.js("document.querySelector('.lead').style.color = '#a0a0a0'")
    assert any("lead" in line for line in browser.js(CONTRAST)["bad"])


FOCUS = """
const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
return {name: e.id || e.className || e.textContent.trim(), tag: e.tagName,
        outline: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2,
        seen: r.width > 0 && r.height > 0};
"""


def test_the_keyboard_reaches_everything_in_order(browser: Browser, built: Path) -> None:
    fresh(browser, built / "index.html")
    order = []
    for _ in range(22):
        browser.keys(TAB)
        found = browser.js(FOCUS)
        assert found["outline"], found
        assert found["seen"], found
        order.append(found["name"])
    assert order[0] == "skip"
    assert order[1:5] == ["brand", "Catalogue", "How a verdict is made", "Feed"]
    assert order[5] == "theme"
    places = [order.index(name) for name in ("q", "area", "verdict", "sort", "clear")]
    assert places == sorted(places)
    browser.keys(SHIFT)  # released again: no key stays down
    shown = browser.js("return document.querySelector('.map a').tabIndex")
    assert shown == -1  # 28 marks of a drawing are not 28 stops


def test_the_skip_link_skips(browser: Browser, built: Path) -> None:
    fresh(browser, built / "papers/adamp.html")
    browser.keys(TAB, ENTER)
    until(lambda: browser.js("return document.activeElement.id") == "main", "focus in the content")
    browser.keys(TAB)
    assert browser.js("return document.activeElement.textContent") == "Catalogue"
    assert browser.js("return document.activeElement.closest('main') !== null")


def test_tables_and_code_scroll_by_keyboard(browser: Browser, built: Path) -> None:
    browser.resize(390)
    fresh(browser, built / "papers/adamp.html")
    browser.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    stuck = browser.js(
        "return [...document.querySelectorAll('.scroll, pre')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0).length"
    )
    assert stuck == 0


NAMES = """
function name(e) {
  return (e.getAttribute('aria-label') || e.textContent || e.title || '').trim();
}
const bad = [];
document.querySelectorAll('a, button').forEach(e => { if (!name(e)) bad.push(e.outerHTML); });
document.querySelectorAll('input, select').forEach(e => {
  if (!e.labels.length) bad.push(e.outerHTML);
});
document.querySelectorAll('table').forEach(e => {
  if (!e.caption || !e.querySelector('th[scope=col]')) bad.push(e.outerHTML.slice(0, 80));
});
document.querySelectorAll('[role=region], [role=group], section[aria-labelledby]').forEach(e => {
  const by = e.getAttribute('aria-labelledby');
  if (!e.getAttribute('aria-label') && !(by && document.getElementById(by))) {
    bad.push(e.outerHTML.slice(0, 80));
  }
});
return bad;
"""


@pytest.mark.parametrize("page", PAGES)
def test_everything_has_a_name(browser: Browser, built: Path, page: str) -> None:
    fresh(browser, built / page)
    see_everything(browser)
    # Plotly's own buttons carry their names in an attribute that it reads aloud itself.
    browser.js("document.querySelectorAll('.modebar').forEach(m => m.remove())")
    assert browser.js(NAMES) == []


def test_targets_are_large_enough_for_a_finger(browser: Browser, built: Path) -> None:
    browser.resize(390)
    fresh(browser, built / "index.html")
    small = browser.js(
        "return [...document.querySelectorAll('.bar a, .bar button, .tally a, form *')]"
        ".filter(e => e.matches('a, button, input, select') && e.checkVisibility())"
        ".filter(e => e.getBoundingClientRect().height < 24).map(e => e.textContent.trim())"
    )
    assert small == []
