"""Figures drawn twice from the same data."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.report import documents

from gradworks.report import plots
from gradworks.report.palette import DARK, LIGHT, Palette, contrast

FIGURES = documents.figure_list()


def by_id(name: str) -> dict[str, Any]:
    return next(f for f in FIGURES if f["id"] == name)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda f: plots.file_stem(f["id"]))
def test_plotly_accepts_what_we_write(figure: dict[str, Any]) -> None:
    go = pytest.importorskip("plotly.graph_objects")
    drawn = plots.plotly_figure(figure)
    json.dumps(drawn, allow_nan=False)
    go.Figure(drawn)  # raises on any property that plotly does not know


def test_a_line_lies_above_its_band_and_shares_its_legend() -> None:
    drawn = plots.plotly_figure(by_id("loss"))["data"]
    band, line = drawn[0], drawn[1]
    assert (band["meta"]["part"], line["meta"]["part"]) == ("band", "line")
    assert band["legendgroup"] == line["legendgroup"]
    assert not band["showlegend"]
    assert band["x"][0] == band["x"][-1]  # closed
    assert len(band["x"]) == 2 * len(line["x"])


def test_colours_are_left_to_the_page() -> None:
    text = json.dumps(plots.plotly_figure(by_id("loss")))
    assert "#" not in text
    assert "rgb" not in text


def test_missing_values_are_gaps_not_zeros() -> None:
    trace = plots.plotly_figure(by_id("width & <size>"))["data"][0]
    assert trace["y"][-1] is None
    assert trace["error_y"]["array"][-1] == 0.0
    assert trace["error_y"]["arrayminus"][0] == pytest.approx(0.035)


def test_an_interval_that_reaches_zero_stays_on_a_log_axis() -> None:
    figure = {
        **by_id("loss"),
        "series": [
            {"name": "a", "x": [1, 2], "y": [0.5, 0.1], "lo": [0.4, -1.0], "hi": [0.6, 0.2]}
            | {"style": "line"}
        ],
    }
    band = plots.plotly_figure(figure)["data"][0]
    assert min(band["y"]) > 0


def test_a_short_log_axis_has_ticks_between_the_powers() -> None:
    assert plots.plotly_figure(by_id("loss"))["layout"]["yaxis"]["dtick"] == "D2"
    long = {**by_id("loss"), "series": [dict(by_id("loss")["series"][0], y=[1e-9] + [1.0] * 40)]}
    assert "dtick" not in plots.plotly_figure(long)["layout"]["yaxis"]


def test_reference_lines_differ_from_each_other() -> None:
    line = by_id("loss")["series"][-1]
    figure = {**by_id("loss"), "series": [line, dict(line, name="b"), dict(line, name="c")]}
    dashes = [t["line"]["dash"] for t in plots.plotly_figure(figure)["data"]]
    assert len(set(dashes)) == 3


def test_names_on_the_axis_keep_their_order() -> None:
    drawn = plots.plotly_figure(by_id("sets"))
    assert drawn["layout"]["xaxis"]["type"] == "category"
    assert drawn["data"][0]["x"] == ["glass", "yeast", "wine"]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_same_figure_gives_the_same_bytes(ending: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    one, two = tmp_path / f"one.{ending}", tmp_path / f"two.{ending}"
    plots.write_picture(by_id("loss"), one)
    plots.write_picture(by_id("loss"), two)
    assert one.read_bytes() == two.read_bytes()
    plots.write_picture(by_id("loss"), two, DARK)
    assert one.read_bytes() != two.read_bytes()


@pytest.mark.slow
def test_every_figure_of_a_result_becomes_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = plots.write_pngs(documents.result(), tmp_path / "new" / "folder")
    assert [p.name for p in paths] == ["loss.png", "width-size.png", "sets.png"]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_odd_figures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plain = {"lo": None, "hi": None}
    bars = {"name": "b", "x": [1.0, 1.5, 2.5], "y": [3.0, None, 1.0], "style": "bars", **plain}
    figures = [
        {"series": []},
        {"series": [bars]},
        {"series": [dict(bars, x=[2.0], y=[1.0])]},
        {"series": [dict(bars, style="points", x=[1.0] * 3, y=[None] * 3)]},
        {"series": [dict(bars, x=["a rather long name", "another long name", "a third name"])]},
    ]
    for i, figure in enumerate(figures):
        path = tmp_path / f"{i}.png"
        plots.write_picture({**by_id("sets"), **figure}, path)
        plots.plotly_figure({**by_id("sets"), **figure})
        assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "stem"),
    [("loss", "loss"), ("../../etc/passwd", "etc-passwd"), ("a b/c", "a-b-c"), ("", "figure")],
)
def test_a_figure_cannot_choose_a_path(name: str, stem: str) -> None:
    assert plots.file_stem(name) == stem


def test_without_matplotlib_the_error_is_the_pip_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "gradworks\[plots\]"'):
        plots.write_picture(by_id("loss"), tmp_path / "x.png")


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_the_palette_can_be_read(palette: Palette) -> None:
    for ground in (palette.paper, palette.panel):
        for text in (palette.ink, palette.faint, *palette.tones[:4], *palette.verdicts.values()):
            assert contrast(text, ground) >= 4.5, (text, ground)
        for mark in palette.tones:
            assert contrast(mark, ground) >= 3.0, (mark, ground)


def test_contrast_is_that_of_the_guidelines() -> None:
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#ffffff", "#ffffff") == 1.0
    assert math.isclose(contrast("#000000", "#ffffff"), 21.0)
