"""``gradworks spectrum``: measure a loss surface, write it down, show it.

The work is done by :mod:`gradworks.curvature.spectrum`; here it meets a target named on the command
line and a reader. Exact spectra are computed in float64: in float32 the noise of the products looks
like a bulk.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gradworks.report import wording
from gradworks.report.drawn import Drawn, Table, plain_series
from gradworks.report.measured import first_examples, in_double, spectrum_of

if TYPE_CHECKING:
    from rich.console import Console

    from gradworks.bench.events import Listener
    from gradworks.curvature.quadrature import SpectralMeasure
    from gradworks.curvature.spectrum import SpectrumReport

__all__ = ["Measured", "drawn", "figure", "measure", "show", "write"]

# How the three rules are called where people read them.
RULES: Mapping[str, str] = {
    "gap": "largest gap",
    "threshold": "above 5 % of the largest",
    "mp": "above the Marchenko-Pastur edge",
}
_OUTLIERS = "Outliers, by three rules: a count from one rule is not a fact"
_SHOWN = 8  # leading eigenvalues printed
_FLOOR = 1e-6  # of the highest density: where the log axis ends


@dataclass(frozen=True)
class Measured:
    """A measured spectrum.

    Attributes:
        report: As :func:`gradworks.curvature.spectrum.spectrum` gave it.
        document: The same as plain JSON, with the target, the seed and the density's curve.
    """

    report: SpectrumReport
    document: dict[str, Any]


def measure(
    target: str,
    *,
    operator: Literal["hessian", "ggn", "fisher"] = "hessian",
    method: Literal["auto", "exact", "slq"] = "auto",
    top: int = 20,
    num_steps: int = 100,
    num_probes: int = 10,
    max_steps: int = 300,
    examples: int | None = None,
    seed: int = 0,
    progress: Listener | None = None,
) -> Measured:
    """Measure the spectrum of a target.

    Args:
        target: A named workload (its model at the start of training), or ``module:function`` or
            ``path.py:function`` that returns ``(model, loss_fn, data)``.
        operator: Which curvature matrix.
        method: ``"exact"``, ``"slq"``, or ``"auto"``: exact up to 3,000 parameters.
        top: Eigenvalues at the upper end.
        num_steps: Lanczos steps a probe.
        num_probes: Probes; at least 2 for error bars.
        max_steps: Lanczos steps for each end of the spectrum at most.
        examples: Take the first so many of the target's; default all.
        seed: Of the target and of the probes.
        progress: Listener of the run's events.

    Returns:
        The report and its document.

    Raises:
        LookupError: No such target.
        TypeError: The target is no ``(model, loss_fn, data)``.
        ValueError: A count below 1, an unknown operator or method, or too many parameters for
            ``"exact"``.
        FloatingPointError: A product is not finite.
    """  # noqa: DOC502
    from gradworks import curvature
    from gradworks.bench import workloads
    from gradworks.bench.events import Event
    from gradworks.curvature.probes import check_count
    from gradworks.curvature.spectrum.measure import AUTO_EXACT

    kinds = {
        "hessian": curvature.HessianOperator,
        "ggn": curvature.GGNOperator,
        "fisher": curvature.FisherOperator,
    }
    if operator not in kinds:
        raise ValueError(f"operator must be one of {', '.join(kinds)}, got {operator!r}")
    model, loss_fn, data = workloads.curvature_target(target, seed)
    if examples is not None:
        data = first_examples(data, check_count("examples", examples), model)
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    exact = method == "exact" or (method == "auto" and size <= AUTO_EXACT)
    if exact:
        model, data = copy.deepcopy(model).double(), in_double(data)
    stage = "columns" if exact else "products"

    def listen(done: int, total: int) -> None:
        if progress is not None:
            progress(Event(stage=stage, done=done, total=total))

    options = {
        "method": method,
        "num_steps": num_steps,
        "num_probes": num_probes,
        "top": top,
        "max_steps": max_steps,
        "progress": listen,
    }
    report, products, dtype = spectrum_of(kinds[operator], model, loss_fn, data, seed, options)
    settings = {
        "target": target,
        "operator": operator,
        "seed": seed,
        "num_steps": None if exact else num_steps,
        "num_probes": None if exact else num_probes,
        "examples": examples,
        "products": products,
        "dtype": dtype,
    }
    return Measured(report, _document(report, settings))


def _document(report: SpectrumReport, settings: dict[str, Any]) -> dict[str, Any]:
    from gradworks.bench.result import plain

    found = _measure_of(report)
    grid = found.default_grid()
    document = {**settings, **report.to_dict()}
    document["density"] = {
        "grid": grid.tolist(),
        "mean": found.density(grid).tolist(),
        "stderr": found.density_stderr(grid).tolist() if len(found.nodes) > 1 else None,
    }
    made: dict[str, Any] = plain(document)
    return made


def _measure_of(report: SpectrumReport) -> SpectralMeasure:
    """The quadrature's measure, or that of all eigenvalues with equal weights."""
    import torch

    from gradworks.curvature.quadrature import SpectralMeasure

    if report.measure is not None:
        return report.measure
    if report.spectrum is None:
        raise TypeError("the report has neither a spectrum nor a measure")
    values = report.spectrum.eigenvalues.cpu()
    weights = torch.full_like(values, 1 / len(values))
    return SpectralMeasure([values], [weights], len(values))


def figure(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the density as a figure for :mod:`gradworks.report.plots`.

    Args:
        document: Of what :func:`measure` returned.
    """
    density = document["density"]
    mean = [v or 0.0 for v in density["mean"]]
    floor = _FLOOR * max(mean)
    curve: dict[str, Any] = {
        "name": "density",
        "x": density["grid"],
        "y": [v if v > floor else None for v in mean],  # below lies only rounding
        "lo": None,
        "hi": None,
        "style": "line",
    }
    if density["stderr"] is not None:
        error = [v or 0.0 for v in density["stderr"]]
        curve["lo"] = [max(v - e, floor) for v, e in zip(mean, error)]
        curve["hi"] = [max(v + e, floor) for v, e in zip(mean, error)]
    series = [curve]
    outliers = document["splits"]["gap"]["outliers"]
    if outliers:
        heights = [_height(density["grid"], curve["y"], x) for x in outliers]
        series.append(plain_series("outliers by the gap rule", outliers, heights, "points"))
    for rule, name in RULES.items():
        edge = document["splits"][rule]["threshold"]
        if edge is not None and density["grid"][0] < edge < density["grid"][-1]:
            ends = [floor, max(mean)]
            series.append(plain_series(name, [edge, edge], ends, "reference"))
    matrix = _matrix(document)
    return {
        "id": "density",
        "title": f"Eigenvalue density of the {matrix}",
        "caption": _caption(document, matrix),
        "x_label": "eigenvalue",
        "y_label": "density",
        "series": series,
        "x_log": False,
        "y_log": True,
    }


def _height(grid: list[float], heights: list[float | None], x: float) -> float | None:
    """Height of the curve at the point of the grid next to ``x``."""
    step = (grid[-1] - grid[0]) / (len(grid) - 1)
    return heights[min(max(round((x - grid[0]) / step), 0), len(grid) - 1)]


def _matrix(document: Mapping[str, Any]) -> str:
    names = {"hessian": "Hessian", "ggn": "Gauss-Newton matrix", "fisher": "Fisher matrix"}
    return names[document["operator"]]


def _caption(document: Mapping[str, Any], matrix: str) -> str:
    counts = {rule: _count(document, rule) for rule in RULES}
    rank = wording.number(document["summary"]["effective_rank"])
    return (
        f"{matrix} of {document['target']}, {document['dimension']} parameters: "
        f"{counts['gap']} outliers by the largest gap, {counts['threshold']} by the threshold, "
        f"{counts['mp']} by the Marchenko-Pastur edge; effective rank {rank}."
    )


def write(measured: Measured, out: Path) -> list[Path]:
    """Write the document, a picture and an interactive page that stands alone.

    Args:
        measured: What :func:`measure` returned.
        out: ``FILE.json``; ``FILE.png`` and ``FILE.html`` are written beside it.

    Returns:
        The three files.

    Raises:
        ValueError: ``out`` has another ending or is a folder.
        ImportError: matplotlib, plotly or jinja2 is absent.
    """  # noqa: DOC502
    from gradworks.report.site.alone import write_beside

    shown = drawn(measured.document)
    return write_beside(measured.document, shown, out, example="spectrum.json")


def drawn(document: Mapping[str, Any]) -> Drawn:
    """Return what a page shows of a measured spectrum.

    Args:
        document: Of what :func:`measure` returned.
    """
    headings = (("Rule", False), ("Outliers", True), ("Cut at", True), ("Eigenvalues", False))
    table = Table(_OUTLIERS, headings, _rows(document))
    return Drawn(figure(document), _facts(document), table)


def _rows(document: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rule, outliers, where it cuts, and the eigenvalues that stand out."""
    rows = []
    for rule, name in RULES.items():
        split = document["splits"][rule]
        leading = [wording.number(v) for v in split["outliers"][:_SHOWN]]
        more = " …" if len(split["outliers"]) > _SHOWN else ""
        cut = wording.number(split["threshold"])
        rows.append((name, _count(document, rule), cut, ", ".join(leading) + more))
    return rows


def _count(document: Mapping[str, Any], rule: str) -> str:
    """How many outliers; where only the leading eigenvalues are known, there may be more."""
    count = int(document["splits"][rule]["num_outliers"])
    cut_short = document["eigenvalues"] is None and count >= len(document["top"])
    return f"{count} or more" if cut_short else str(count)


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers that are printed, named for people."""
    summary = document["summary"]
    exact = document["method"] == "exact"
    error = summary.get("trace_stderr")
    spread = "exact" if exact else "one probe: no error bar"
    if error is not None:
        probes = wording.plural(int(document["num_probes"]), "probe")
        spread = f"± {wording.number(error)}, standard error over {probes}"
    how = "exact, float64" if exact else f"stochastic Lanczos quadrature, {document['dtype']}"
    if document["products"] == "finite differences":
        how += "; by finite differences, the model or loss has no second derivative"
    return [
        ("target", f"{document['target']}, seed {document['seed']}"),
        ("matrix", f"{_matrix(document)}, {document['dimension']} parameters"),
        ("method", how),
        ("trace", f"{wording.number(summary['trace'])} ({spread})"),
        ("effective rank", wording.number(summary["effective_rank"])),
        ("largest", wording.number(summary["largest"])),
        ("smallest", wording.number(summary["smallest"])),
        ("share below 1 % of the largest", wording.number(summary.get("fraction_small_0.01"))),
        ("weight of the negative part", wording.number(summary["negative_mass"])),
    ]


def show(measured: Measured, console: Console) -> None:
    """Print the split by all three rules, the trace with its error bar and the effective rank.

    Args:
        measured: What :func:`measure` returned.
        console: Where.
    """
    from rich.text import Text

    from gradworks.report.terminal.tables import new_table

    facts = new_table()
    facts.show_header = False
    facts.add_column("what", style="bold")
    facts.add_column("value")
    for name, value in _facts(measured.document):
        facts.add_row(name, Text(value))
    console.print(facts)
    table = new_table(_OUTLIERS)
    table.add_column("rule")
    table.add_column("outliers", justify="right")
    table.add_column("cut at", justify="right")
    table.add_column("eigenvalues")
    for row in _rows(measured.document):
        table.add_row(*map(Text, row))
    console.print(table)
