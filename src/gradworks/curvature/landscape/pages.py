"""One interactive page of planes that needs nothing but a browser: a surface and its contours."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gradworks.curvature.landscape.surfaces import LossPlane

__all__ = ["page", "write_page"]

_STYLE = """
:root{--paper:#fcfdfb;--panel:#f2f5f1;--ink:#17231f;--faint:#56645e;--rule:#d9e0da}
@media (prefers-color-scheme:dark){:root{--paper:#141b1a;--panel:#1c2524;--ink:#e6ece7;
--faint:#9fada6;--rule:#2f3b38}}
body{margin:0 auto;max-width:76rem;padding:1.5rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0 0 .25rem}p{color:var(--faint);margin:.25rem 0 1rem}
.controls{display:flex;flex-wrap:wrap;gap:1rem;align-items:center;background:var(--panel);
padding:.75rem 1rem;border:1px solid var(--rule)}
select,input{font:inherit}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(26rem,100%),1fr));gap:1rem}
.plot{height:32rem;min-width:0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem}
dt{color:var(--faint)}dd{margin:0}
"""

_SCRIPT = """
(function () {
  const planes = JSON.parse(document.getElementById("planes").textContent);
  const choose = document.getElementById("plane");
  const log = document.getElementById("log");
  const cap = document.getElementById("cap");
  const share = document.getElementById("share");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  function quantile(values, q) {
    const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
    return sorted.length ? sorted[Math.round(q * (sorted.length - 1))] : 1;
  }
  function draw() {
    const plane = planes[choose.selectedIndex];
    const flat = plane.z.flat().filter((v) => v !== null);
    const top = quantile(flat, cap.value / 100);
    const low = quantile(flat.filter((v) => v > 0), 0);
    share.textContent = cap.value + " %";
    const shown = plane.z.map((row) => row.map((v) => {
      if (v === null) { return plane.infinite ? scaled(top) : null; }
      return scaled(Math.min(v, top));
    }));
    function scaled(v) { return log.checked ? Math.log10(Math.max(v, low)) : v; }
    const ink = getComputedStyle(document.body).color;
    const name = log.checked ? "log10 loss" : "loss";
    const common = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: ink},
      margin: {l: 50, r: 10, t: 30, b: 45},
      modebar: {bgcolor: "rgba(0,0,0,0)", color: ink, activecolor: ink},
      uirevision: String(choose.selectedIndex)
    };
    const hover = "alpha %{x:.3g}<br>beta %{y:.3g}<br>" + name + " %{z:.4g}<extra></extra>";
    const x = plane.x, y = plane.y, z = shown;
    Plotly.react("surface", [{
      type: "surface", x, y, z, colorscale: "Viridis", showscale: false, hovertemplate: hover,
      contours: {z: {show: true, usecolormap: true, project: {z: true}}}
    }], {...common, scene: {xaxis: {title: {text: "alpha"}}, yaxis: {title: {text: "beta"}},
      zaxis: {title: {text: name}}}}, {responsive: true, displaylogo: false});
    Plotly.react("contour", plane.flat ? [{
      type: "contour", x: plane.flat.x, y: plane.flat.y, z, colorscale: "Viridis", ncontours: 30,
      contours: {coloring: "heatmap"}, line: {width: 0.5}, colorbar: {title: {text: name}},
      hovertemplate: hover
    }, {type: "scatter", x: [0], y: [0], mode: "markers", hoverinfo: "skip", showlegend: false,
      marker: {symbol: "cross", size: 10, color: "#c8553d"}}] : [], {...common,
      xaxis: {title: {text: "alpha"}}, yaxis: {title: {text: "beta"}}, dragmode: "zoom"},
      {responsive: true, displaylogo: false, scrollZoom: true});
    document.getElementById("facts").innerHTML = plane.facts;
  }
  for (const control of [choose, log, cap]) { control.addEventListener("input", draw); }
  dark.addEventListener("change", draw);
  draw();
})();
"""


def _plotly() -> str:
    """Plotly's script, as its package ships it."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            'interactive pages need plotly: pip install "gradworks[plots]"'
        ) from error
    return str(get_plotlyjs())


def _numbers(rows: Tensor) -> list[Any]:
    """Numbers with six digits; ``None`` where there is none."""
    return [
        _numbers(row)
        if row.dim()
        else (float(f"{float(row):.6g}") if math.isfinite(float(row)) else None)
        for row in rows
    ]


def _facts(plane: LossPlane) -> list[tuple[str, str]]:
    """What stands under a plane."""
    finite = plane.loss[plane.loss.isfinite()]
    facts = [("mode", plane.mode), ("points", " x ".join(map(str, plane.loss.shape)))]
    if len(finite):
        facts.append(("loss", f"{float(finite.min()):.4g} to {float(finite.max()):.4g}"))
    center = plane.center
    if center is not None:
        facts.append(("at the weights", f"{float(center):.4g}"))
    if plane.num_nonfinite:
        facts.append(("not finite", f"{plane.num_nonfinite} points, drawn at the cut"))
    if plane.num_missing:
        facts.append(("not measured", f"{plane.num_missing} points"))
    return facts


def _entry(plane: LossPlane) -> dict[str, Any]:
    """A plane as the script reads it: x are alphas (columns there), y betas (rows there)."""
    x, y = plane.mesh()
    regular = plane.beta.dim() == 1
    facts = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in _facts(plane)
    )
    return {
        "x": _numbers(plane.alpha if regular else x.T),
        "y": _numbers(plane.beta if regular else y.T),
        "z": _numbers(plane.loss.T),
        "flat": {"x": _numbers(plane.alpha), "y": _numbers(plane.beta)} if regular else None,
        "infinite": plane.num_nonfinite > 0,
        "facts": facts,
    }


def page(
    planes: Mapping[str, LossPlane],
    *,
    title: str = "Loss landscape",
    lead: str = "",
    facts: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the page, about 5 MB with plotly inside.

    Args:
        planes: By name; one is shown at a time.
        title: Heading.
        lead: A sentence under it.
        facts: Names and values of the whole, under the plots.

    Returns:
        HTML.

    Raises:
        ValueError: No plane.
        ImportError: plotly is absent.
    """  # noqa: DOC502
    if not planes:
        raise ValueError("planes is empty; give at least one")
    data = json.dumps([_entry(p) for p in planes.values()], separators=(",", ":"), allow_nan=False)
    data = data.replace("<", "\\u003c")
    options = "".join(f"<option>{html.escape(name)}</option>" for name in planes)
    listed = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts
    )
    name = html.escape(title)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
<script>{_plotly()}</script>
</head>
<body>
<main>
<h1>{name}</h1>
<p>{html.escape(lead)}</p>
<div class="controls">
<label>Plane <select id="plane">{options}</select></label>
<label><input type="checkbox" id="log"> log scale</label>
<label>cut at <input type="range" id="cap" min="50" max="100" value="100">
<output id="share"></output> of the points</label>
</div>
<div class="plots">
<div id="surface" class="plot" role="group" aria-label="Surface, can be turned and zoomed"></div>
<div id="contour" class="plot" role="group" aria-label="Contours, can be zoomed"></div>
</div>
<noscript><p>The plots need JavaScript; the numbers are in the .npz files.</p></noscript>
<dl id="facts"></dl>
<dl>{listed}</dl>
</main>
<script type="application/json" id="planes">{data}</script>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def write_page(
    planes: Mapping[str, LossPlane],
    path: Path,
    *,
    title: str = "Loss landscape",
    lead: str = "",
    facts: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write :func:`page` to a file; arguments as there.

    Args:
        planes: Planes by name.
        path: The file, its folder is created.
        title: Heading.
        lead: A sentence under it.
        facts: Names and values.

    Returns:
        The file.
    """
    text = page(planes, title=title, lead=lead, facts=facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path
