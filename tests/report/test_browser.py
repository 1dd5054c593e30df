"""The site in a real browser: headless Chromium at two widths, in both themes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.report.browser import (
    CHROMIUM,
    CONTRAST,
    DRIVER,
    ENTER,
    PAGES,
    Browser,
    fresh,
    see_everything,
    until,
)
from tests.report.conftest import PUBLISHED

from gradworks import papers
from gradworks.report import spectrum

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="needs chromium and chromedriver: apt-get install chromium chromium-driver",
    ),
]

WIDTHS = [1280, 390]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_clean_and_only_from_here(
    browser: Browser, built: Path, page: str, width: int
) -> None:
    browser.resize(width)
    fresh(browser, built / page)
    see_everything(browser)
    assert browser.console() == []
    asked = browser.requests()
    assert any(address.endswith(page) for address in asked)
    root = built.resolve().as_uri()
    elsewhere = [a for a in asked if not a.startswith((root, "data:", "blob:", "about:"))]
    assert elsewhere == []
    # Nothing sticks out sideways: tables and code scroll inside their own boxes.
    assert browser.js("return document.documentElement.scrollWidth") <= width


# The catalogue.

VISIBLE = """
return [...document.querySelectorAll('#cards > li')].filter(c => c.getClientRects().length)
  .map(c => [c.querySelector('a').getAttribute('href'), c.dataset.date, c.dataset.verdict,
             c.dataset.area]);
"""


def cards(browser: Browser) -> list[list[str]]:
    found: list[list[str]] = browser.js(VISIBLE)
    return found


def choose(browser: Browser, field: str, value: str) -> None:
    browser.js(
        "const f = document.getElementById(arguments[0]); f.value = arguments[1];"
        "f.dispatchEvent(new Event('input', {bubbles: true}))",
        field,
        value,
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_the_search_finds_words(browser: Browser, built: Path, width: int) -> None:
    browser.resize(width)
    fresh(browser, built / "index.html")
    total = len(papers.papers())
    assert len(cards(browser)) == total
    browser.js("document.getElementById('q').focus()")
    browser.keys(*"ADAMP", " ", *"slow")
    assert [c[0] for c in cards(browser)] == ["papers/adamp.html"]
    assert browser.js("return document.getElementById('count').textContent") == (
        f"1 of {total} papers"
    )
    assert browser.js("return location.hash") == "#q=ADAMP%20slow"


def test_the_search_agrees_with_the_command(browser: Browser, built: Path) -> None:
    fresh(browser, built / "index.html")
    for word in ("hessian", "scale-invariant", "curvature", "nothing at all"):
        choose(browser, "q", word)
        here = {c[0] for c in cards(browser)}
        there = {f"papers/{p.slug}.html" for p in papers.select(papers.papers(), word=word)}
        assert here == there, word


def test_filters_and_order(browser: Browser, built: Path) -> None:
    fresh(browser, built / "index.html")
    choose(browser, "area", "curvature")
    assert {c[3] for c in cards(browser)} == {"curvature"}
    choose(browser, "verdict", "not reproduced")
    assert [c[0] for c in cards(browser)] == ["papers/hessian-spectrum.html"]
    choose(browser, "q", "butterfly")
    assert cards(browser) == []
    assert browser.js("return document.getElementById('empty').getClientRects().length") > 0
    browser.js("document.getElementById('clear-too').click()")
    assert len(cards(browser)) == len(papers.papers())
    assert browser.js("return document.activeElement.id") == "q"
    dates = [c[1] for c in cards(browser)]
    assert dates == sorted(dates, reverse=True)
    choose(browser, "sort", "oldest")
    dates = [c[1] for c in cards(browser)]
    assert dates == sorted(dates)
    choose(browser, "sort", "verdict")
    assert {c[2] for c in cards(browser)[:3]} == set(PUBLISHED.values())
    assert browser.console() == []


def test_a_view_of_the_catalogue_can_be_linked(browser: Browser, built: Path) -> None:
    fresh(browser, built / "index.html", "#verdict=planned&area=layers&sort=oldest")
    found = cards(browser)
    assert found
    assert {(c[2], c[3]) for c in found} == {("planned", "layers")}
    assert [c[1] for c in found] == sorted(c[1] for c in found)
    browser.js("document.querySelector('.tally a').click()")  # the first badge of the tally
    until(lambda: {c[2] for c in cards(browser)} == {"reproduced"}, "the badge's papers")
    fresh(browser, built / "index.html", "#verdict=nonsense&q=%E0%A4%A")
    assert len(cards(browser)) == len(papers.papers())
    assert browser.console() == []


def test_the_theme_is_switched_and_kept(browser: Browser, built: Path) -> None:
    fresh(browser, built / "index.html")
    ground = "return getComputedStyle(document.body).backgroundColor"
    pressed = "return document.getElementById('theme').getAttribute('aria-pressed')"
    light = browser.js(ground)
    assert browser.js(pressed) == "false"
    browser.js("document.getElementById('theme').click()")
    dark = browser.js(ground)
    assert dark != light
    assert browser.js(pressed) == "true"
    browser.open(built / "papers/adamp.html")  # another page, the same choice
    assert browser.js(ground) == dark
    browser.js("document.getElementById('theme').click()")
    assert browser.js(ground) == light
    browser.prefer("dark")  # a choice stands against the system
    assert browser.js(ground) == light
    browser.js("localStorage.clear()")


# A paper.


def test_plots_load_late_zoom_and_follow_the_theme(browser: Browser, built: Path) -> None:
    fresh(browser, built / "papers/adamp.html")
    assert browser.js("return typeof window.Plotly") == "undefined"  # nobody looked yet
    see_everything(browser)
    assert browser.js("return document.querySelectorAll('.plot-box .main-svg').length") >= 3
    shown = (
        "return [...document.querySelectorAll('.plot-box img')].filter(i => i.checkVisibility())"
    )
    assert browser.js(shown + ".length") == 0  # the plot took the picture's place
    box = "const box = document.querySelector('.plotly-box');"
    colour = box + "return box.data[1].line.color"
    light = browser.js(colour)
    browser.js("document.getElementById('theme').click()")
    until(lambda: browser.js(colour) != light, "the dark theme's colours")
    before = browser.js(box + "return box.layout.xaxis.range")
    browser.js(box + "return Plotly.relayout(box, {'xaxis.range': [50, 100]}).then(() => true)")
    assert browser.js(box + "return box.layout.xaxis.range") != before
    buttons = browser.js(
        "return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
    )
    assert any("Zoom" in b for b in buttons)
    assert not any("Share" in b or "cloud" in b.lower() for b in buttons)
    browser.js("localStorage.clear()")


def test_without_a_script_the_pictures_stay(browser: Browser, built: Path) -> None:
    browser.do("Emulation.setScriptExecutionDisabled", value=True)
    try:
        for theme in ("light", "dark"):
            browser.prefer(theme)
            browser.open(built / "papers/adamp.html")
            browser.do("Emulation.setScriptExecutionDisabled", value=False)
            shown = browser.js(
                "return [...document.querySelectorAll('.plot-box img')]"
                ".filter(i => i.checkVisibility()).map(i => i.src.split('.').at(-2))"
            )
            assert shown == [theme] * 3
            assert not browser.js("return document.documentElement.classList.contains('js')")
            browser.do("Emulation.setScriptExecutionDisabled", value=True)
        browser.open(built / "index.html")
        browser.do("Emulation.setScriptExecutionDisabled", value=False)
        assert len(cards(browser)) == len(papers.papers())
        assert not browser.js("return document.getElementById('filters').checkVisibility()")
    finally:
        browser.do("Emulation.setScriptExecutionDisabled", value=False)


def test_code_is_copied(browser: Browser, built: Path) -> None:
    browser.do(
        "Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]
    )
    fresh(browser, built / "papers/adamp.html")
    browser.js("document.querySelector('button.copy').focus()")
    browser.keys(ENTER)
    label = "return document.querySelector('button.copy').textContent"
    said = until(lambda: (t := browser.js(label)) != "Copy" and t, "the button's answer")
    assert said == "Copied"
    copied = browser.js("return navigator.clipboard.readText()")
    assert copied.strip() == papers.find("adamp").card.usage.strip()


def test_a_phone_reads_outcomes_as_a_list(browser: Browser, built: Path) -> None:
    browser.resize(390)
    fresh(browser, built / "papers/adamp.html")
    cut = browser.js(
        "return [...document.querySelectorAll('.claim-primary .outcomes td')]"
        ".filter(c => c.getBoundingClientRect().right > 390).length"
    )
    assert cut == 0
    name = "return getComputedStyle(document.querySelector('td[data-label]'), '::before').content"
    assert "Here" in browser.js(name)


# The page of a measured spectrum.


def test_a_spectrum_stands_alone(browser: Browser, tmp_path: Path) -> None:
    source = tmp_path / "net.py"
    source.write_text(
        "import torch\n"
        "def target(seed):\n"
        "    torch.manual_seed(seed)\n"
        "    X = torch.randn(50, 6)\n"
        "    model = torch.nn.Sequential(torch.nn.Linear(6, 3))\n"
        "    return model, torch.nn.functional.cross_entropy, (X, torch.arange(50) % 3)\n"
    )
    measured = spectrum.measure(f"{source}:target", method="slq", num_probes=3)
    page = spectrum.write(measured, tmp_path / "alone" / "s.json")[2]
    moved = tmp_path / "elsewhere.html"
    page.rename(moved)
    browser.open(moved)
    until(lambda: browser.js("return document.querySelector('.plot-box').dataset.ready"), "plot")
    assert browser.console() == []
    loaded = [a for a in browser.requests() if not a.startswith(("data:", "blob:"))]
    assert loaded == [moved.resolve().as_uri()]
    assert browser.js("return document.querySelectorAll('tbody tr').length") == 3
    assert browser.js(CONTRAST)["bad"] == []
