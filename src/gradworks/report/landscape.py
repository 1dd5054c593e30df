"""``gradworks landscape``: measure planes of a loss, write them down, show them.

The work is done by :mod:`gradworks.curvature.landscape`; here it meets a target named on the
command line and a reader.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks.report import wording
from gradworks.report.drawn import Drawn, Table, write_whole
from gradworks.report.plots import file_stem

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from gradworks.bench.events import Listener
    from gradworks.curvature.landscape import LandscapeReport, LossPlane

__all__ = ["Measured", "drawn", "measure", "show", "write"]

# Above this difference of eval and recalibrated losses the stored statistics make the picture.
_STALE = 0.10
_AXES = {"random": "Random", "hessian": "Hessian"}


@dataclass(frozen=True)
class Measured:
    """Measured planes.

    Attributes:
        report: As :func:`gradworks.curvature.landscape.analyze` gave it.
        document: The same as plain JSON, with the target and the settings.
    """

    report: LandscapeReport
    document: dict[str, Any]


def measure(
    target: str,
    *,
    axes: Sequence[str] = ("random", "hessian"),
    norms: Sequence[str] = ("filter",),
    modes: Sequence[str] = ("eval",),
    points: int = 41,
    distance: float = 1.0,
    criteria: bool = True,
    num_steps: int = 100,
    num_probes: int = 2,
    checkpoint: Path | None = None,
    seed: int = 0,
    folder: Path | None = None,
    progress: Listener | None = None,
) -> Measured:
    """Measure planes of a target's loss.

    Args:
        target: A named workload (its model at the start of training), or ``module:function`` or
            ``path.py:function`` that returns ``(model, loss_fn, data)``.
        axes: ``"random"``, ``"hessian"`` or both.
        norms: Rules, ``"none"`` for none.
        modes: ``"eval"``, ``"train"``, ``"recalibrate"``.
        points: A side of each plane.
        distance: Half of its width.
        criteria: Whether to measure the spectrum's criteria.
        num_steps: Lanczos steps a probe.
        num_probes: Probes.
        checkpoint: A file of weights (``torch.save(model.state_dict())``) to load first.
        seed: Of the target, the random axes and the probes.
        folder: Where planes are written as they grow, and gone on with.
        progress: Listener of the run's events.

    Returns:
        The report and its document.

    Raises:
        LookupError: No such target.
        TypeError: The target is no ``(model, loss_fn, data)``.
        ValueError: An unknown word, a number out of range, or a file of another plane.
        FileNotFoundError: No such checkpoint.
    """  # noqa: DOC502
    import torch

    from gradworks.bench import workloads
    from gradworks.bench.events import Event
    from gradworks.bench.result import plain
    from gradworks.curvature.landscape import analyze

    needs = [a for a in axes if a not in {"random", "hessian"}]
    if needs:
        raise ValueError(
            f"--axes must be some of random, hessian, got {needs[0]!r}; other axes need an "
            "optimizer or checkpoints: gradworks.curvature.landscape.analyze takes them"
        )
    model, loss_fn, data = workloads.curvature_target(target, seed)
    if checkpoint is not None:
        if not checkpoint.is_file():
            raise FileNotFoundError(f"no checkpoint {checkpoint}")
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{checkpoint} does not fit {target}: {error}") from error

    def listen(done: int, total: int) -> None:
        if progress is not None:
            progress(Event(stage="points", done=done, total=total))

    rules: list[Any] = [None if name == "none" else name for name in norms]
    words: Any = {"axes": list(axes), "modes": list(modes)}
    report = analyze(
        model,
        loss_fn,
        data,
        normalizations=rules,
        criteria=criteria,
        points=points,
        distance=distance,
        num_steps=num_steps,
        num_probes=num_probes,
        generator=torch.Generator().manual_seed(seed),
        folder=folder,
        progress=listen,
        **words,
    )
    settings = {
        "target": target,
        "seed": seed,
        "distance": distance,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    document: dict[str, Any] = plain({**settings, **report.to_dict()})
    for name, plane in report.planes.items():
        document["planes"][name]["surface"] = _surface(plane)
    return Measured(report, document)


def _surface(plane: LossPlane) -> dict[str, Any] | None:
    """Heights over a regular plane, six digits each, a row a value of beta."""
    if plane.beta.dim() != 1:
        return None
    return {"x": _digits(plane.alpha), "y": _digits(plane.beta), "z": _digits(plane.loss.T)}


def _digits(numbers: Tensor) -> list[Any]:
    if numbers.dim() > 1:
        return [_digits(row) for row in numbers]
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in numbers.tolist()]


def drawn(document: Mapping[str, Any]) -> list[Drawn]:
    """Return what a page shows of each regular plane; the first has the facts and the table.

    Args:
        document: Of what :func:`measure` returned.
    """
    found = []
    for name, plane in document["planes"].items():
        if plane.get("surface") is None:
            continue
        lowest, highest = wording.number(plane["lowest"]), wording.number(plane["highest"])
        figure = {
            "id": f"plane-{name}",
            "title": f"{_AXES.get(plane['axes'], plane['axes'])} axes, {plane['mode']} mode",
            "caption": (
                f"Loss of {document['target']} between {lowest} and {highest}; the cross marks the "
                "weights."
            ),
            "x_label": "alpha",
            "y_label": "beta",
            "z_label": "log10 loss",
            "map": plane["surface"],
        }
        found.append(Drawn(figure))
    return [
        Drawn(one.figure, _facts(document), _table(document)) if i == 0 else one
        for i, one in enumerate(found)
    ]


def _table(document: Mapping[str, Any]) -> Table:
    """A line for each plane."""
    headings = [("axes", False), ("rule", False), ("mode", False)]
    headings += [(name, True) for name in ("lowest", "highest", "not finite")]
    rows = [
        (
            plane["axes"],
            plane["normalization"] or "none",
            plane["mode"],
            wording.number(plane["lowest"]),
            wording.number(plane["highest"]),
            str(plane["nonfinite"]),
        )
        for plane in document["planes"].values()
    ]
    return Table("Planes", headings, rows)


def write(measured: Measured, folder: Path) -> list[Path]:
    """Write planes (``.npz``), pictures (``.png``), the document and an interactive page.

    Args:
        measured: What :func:`measure` returned.
        folder: Created if missing.

    Returns:
        The files.

    Raises:
        ValueError: ``folder`` is a file.
        ImportError: matplotlib or plotly is absent.
    """  # noqa: DOC502
    from gradworks.curvature.landscape.pages import write_page

    check_folder(folder)
    files = measured.report.save(folder)
    for name, plane in measured.report.planes.items():
        axes: Any = plane.plot("contour")
        picture = folder / f"{file_stem(name)}.png"
        axes.figure.savefig(picture, dpi=140, metadata={"Software": None})
        files.append(picture)
    document = folder / "landscape.json"
    text = json.dumps(measured.document, sort_keys=True, indent=1, allow_nan=False)
    write_whole(document, text + "\n")
    page = write_page(
        measured.report.planes,
        folder / "landscape.html",
        title=f"Loss landscape of {measured.document['target']}",
        lead=_lead(measured),
        facts=_facts(measured.document),
    )
    return [*files, document, page]


def check_folder(folder: Path) -> None:
    """Refuse a file where a folder is meant."""
    if folder.is_file():
        raise ValueError(f"--out must be a folder, {folder} is a file")


def _lead(measured: Measured) -> str:
    """What to know before looking."""
    stale = [k for k, v in measured.document["batch_norm"].items() if v is None or v > _STALE]
    if stale:
        return (
            f"Stored batch-norm statistics make the picture of {', '.join(stale)} in eval mode: "
            "look at the recalibrated plane."
        )
    return "The cross marks the weights themselves."


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers that are printed, named for people."""
    facts = [
        ("target", f"{document['target']}, seed {document['seed']}"),
        ("parameters", str(document["parameters"])),
        ("loss", wording.number(document["loss"])),
    ]
    if document["eigenvalues"] is not None:
        values = ", ".join(wording.number(v) for v in document["eigenvalues"])
        facts.append(("curvature along the Hessian axes", values))
    for name, value in document["batch_norm"].items():
        shown = "beyond all bounds" if value is None else f"{100 * value:.3g} %"
        facts.append((f"eval against recalibrated, {name}", shown))
    found = document["criteria"]
    if found is not None:
        how = f"{found['num_probes']} probes of {max(found['num_steps'])} steps"
        facts += [
            ("re", f"{wording.number(found['re'])} ({how})"),
            (f"Kh, n = {found['n']:g}", f"{wording.number(found['kh'])} (depends on the steps)"),
            ("C_t", wording.number(found["type_ratio"])),
        ]
        if not found["applies"]:
            facts.append(("note", "the spectrum is not mainly positive: the criteria do not apply"))
    return facts


def show(measured: Measured, console: Console) -> None:
    """Print the criteria, what batch norm does, and a line for each plane.

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
    planes = _table(measured.document)
    table = new_table(planes.caption)
    for name, number in planes.headings:
        table.add_column(name, justify="right" if number else "left")
    for row in planes.rows:
        table.add_row(*row)
    console.print(table)
