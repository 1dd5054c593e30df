"""Proposed learning rates as people see them: a figure, facts, a table; on a terminal or a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gradworks.report import wording
from gradworks.report.drawn import Drawn, Table, plain_series

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["drawn", "figure", "show"]


def figure(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rates against the batch size as a figure for :mod:`gradworks.report.plots`.

    Args:
        document: Of what :func:`gradworks.report.rates.measure` returned.
    """
    drawn_curve = document["curve"]
    sizes, rates = drawn_curve["batch_size"], drawn_curve["rate"]
    sgd = document["optimizer"] == "sgd"
    name = "half of the bound, from the law" if sgd else "square-root scaling"
    curve = plain_series(name, sizes, rates, "line")
    curve["lo"], curve["hi"] = drawn_curve["lo"], drawn_curve["hi"]
    series = [curve]
    if sgd:
        mu = document["momentum"] or 0.0
        seen = [(row["batch_size"], row["tops"]) for row in document["table"]]
        tops = [(float(size), sum(found) / len(found)) for size, found in seen if found]
        tops = [(size, top) for size, top in tops if top > 0]
        series.append(
            plain_series(
                "half of the bound, from measured batches",
                [size for size, _ in tops],
                [(1 + mu) / top for _, top in tops],
                "points",
            )
        )
    proposed = document["rates"]
    series.append(
        plain_series(
            "proposed",
            [float(row["batch_size"]) for row in proposed],
            [row["proposed"] for row in proposed],
            "points",
        )
    )
    edge = document["saturation_batch"]
    if edge is not None and sizes[0] < edge < sizes[-1]:
        ends_y = [min(rates), max(rates)]
        series.append(plain_series("saturation", [edge, edge], ends_y, "reference"))
    return {
        "id": "rates",
        "title": f"Learning rate and batch size of {document['target']}",
        "caption": _caption(document),
        "x_label": "batch size",
        "y_label": "learning rate",
        "series": series,
        "x_log": True,
        "y_log": True,
    }


def drawn(document: Mapping[str, Any]) -> Drawn:
    """Return what a page shows of proposed rates.

    Args:
        document: Of what :func:`gradworks.report.rates.measure` returned.
    """
    return Drawn(figure(document), _facts(document), _table(document))


def _caption(document: Mapping[str, Any]) -> str:
    last = document["rates"][-1]
    return (
        f"Largest eigenvalue {wording.number(document['lambda_max'])} over "
        f"{document['dataset_size']} examples, noise {wording.number(document['noise'])}: "
        f"saturation at a batch of {wording.number(document['saturation_batch'])}. Proposed for "
        f"{document['optimizer']} at {last['batch_size']}: {wording.number(last['proposed'])}."
    )


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers that are printed, named for people."""
    n = wording.number
    error = document["noise_stderr"]
    spread = "one batch: no error bar" if error is None else f"± {n(error)}, standard error"
    how = f"{document['num_steps']} Lanczos steps on {document['repeats']} batches of each size"
    if document["products"] == "finite differences":
        how += "; by finite differences, the model or loss has no second derivative"
    direct = document["noise_direct"]
    return [
        ("target", f"{document['target']}, seed {document['seed']}"),
        ("size", f"{document['dimension']} parameters, {document['dataset_size']} examples"),
        ("measured by", how),
        ("largest eigenvalue", n(document["lambda_max"])),
        ("smallest eigenvalue", n(document["lambda_min"])),
        ("noise", f"{n(document['noise'])} ({spread})"),
        ("noise, if it were isotropic", "not measured" if direct is None else n(direct)),
        (
            "saturation",
            f"half of the ceiling at a batch of {n(document['saturation_batch'])}, "
            f"nine tenths at {n(document['nearly_flat_batch'])}",
        ),
        ("scaling rule", _rule_in_words(document)),
    ]


def _rule_in_words(document: Mapping[str, Any]) -> str:
    lr = wording.number(document["lr"])
    given = "given" if document["lr_given"] is not None else None
    if document["optimizer"] == "adam":
        return f"square root, from {lr} at {document['batch_size']} ({given or 'torch’s default'})"
    origin = given or "half of the measured bound"
    return (
        f"linear, from {lr} at {document['batch_size']} ({origin}), "
        "as far as half of the bound allows"
    )


def _table(document: Mapping[str, Any]) -> Table:
    """The proposed rates, a row a batch size."""
    n = wording.number
    sgd = document["optimizer"] == "sgd"
    of_sgd = ("half of the bound", "linear rule") if sgd else ()
    headings = ("batch", "largest eigenvalue", *of_sgd, "proposed")
    rows = []
    for row in document["rates"]:
        cells = [str(row["batch_size"]), n(row["eigenvalue"])]
        if sgd:
            band = ""
            if row["half_bound_low"] is not None:
                band = f" ({n(row['half_bound_low'])} to {n(row['half_bound_high'])})"
            cells += [n(row["half_bound"]) + band, n(row["scaled"])]
        cells.append(n(row["proposed"]) + (" (capped)" if row["capped"] else ""))
        rows.append(cells)
    return Table(f"Rates for {document['optimizer']}", [(name, True) for name in headings], rows)


def show(document: Mapping[str, Any], console: Console) -> None:
    """Print what was measured and the proposed rates.

    Args:
        document: Of what :func:`gradworks.report.rates.measure` returned.
        console: Where.
    """
    from rich.text import Text

    from gradworks.report.terminal.tables import new_table

    facts = new_table()
    facts.show_header = False
    facts.add_column("what", style="bold")
    facts.add_column("value")
    for name, value in _facts(document):
        facts.add_row(name, Text(value))
    console.print(facts)
    rates = _table(document)
    table = new_table(rates.caption)
    for name, number in rates.headings:
        table.add_column(
            name,
            justify="right" if number else "left",
            style="bold" if name == "proposed" else "",
        )
    for row in rates.rows:
        table.add_row(*map(Text, row))
    console.print(table)
    note = "Measured at the present weights: curvature grows early in training; measure again then."
    if document["optimizer"] != "sgd":
        note += " Curvature gives Adam no rate of its own, only how it scales."
    console.print(Text(note, style="dim"))
