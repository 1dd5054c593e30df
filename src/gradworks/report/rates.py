"""``gradworks lr``: the learning rates that a batch size supports, measured, written down, shown.

The work is done by :mod:`gradworks.curvature.learning_rate`; here it meets a target named on the
command line and a reader.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gradworks.report import wording
from gradworks.report.spectrum import _plain_series, _write_whole

if TYPE_CHECKING:
    from rich.console import Console

    from gradworks.bench.events import Listener
    from gradworks.curvature.learning_rate import NoiseModel

__all__ = ["Proposal", "figure", "measure", "show", "write"]

OPTIMIZERS = ("sgd", "adam")
RULES = {"sgd": "linear", "adam": "sqrt"}
# torch's default, for want of a rate that the user knows to work.
ADAM_LR = 1e-3
# Batch sizes of the measurement, where the data hold two batches of each.
_SIZES = (8, 32, 128)
_MOST_ROWS = 16  # of the table
_CURVE = 80  # points of a drawn curve


@dataclass(frozen=True)
class Proposal:
    """Measured curvature with the rates it supports.

    Attributes:
        model: As :func:`gradworks.curvature.learning_rate.measure_noise` gave it.
        document: The same as plain JSON, with the target and the proposed rates.
    """

    model: NoiseModel
    document: dict[str, Any]


def measure(
    target: str,
    *,
    batch_size: int,
    to: int | None = None,
    optimizer: Literal["sgd", "adam"] = "sgd",
    lr: float | None = None,
    momentum: float = 0.0,
    repeats: int = 8,
    num_steps: int = 25,
    full_size: int | None = None,
    seed: int = 0,
    progress: Listener | None = None,
) -> Proposal:
    """Measure a target's batch noise and propose rates.

    Args:
        target: A named workload (its model at the start of training), or ``module:function`` or
            ``path.py:function`` that returns ``(model, loss_fn, data)``.
        batch_size: The batch that is trained with.
        to: Another one, to carry the rate over to.
        optimizer: ``"sgd"``: linear scaling up to the bound of the measured curvature. ``"adam"``:
            square-root scaling; curvature alone gives Adam no rate.
        lr: The rate that works at ``batch_size``; default: half of the measured bound for SGD,
            0.001 (torch's default) for Adam.
        momentum: Of SGD, in [0, 1).
        repeats: Batches measured at each size.
        num_steps: Lanczos steps a batch.
        full_size: Stand in for all data with this many examples.
        seed: Of the target, the batches and the probes.
        progress: Listener of the run's events.

    Returns:
        The measurement and its document.

    Raises:
        LookupError: No such target.
        TypeError: The target is no ``(model, loss_fn, data)``.
        ValueError: A number out of range, an unknown optimizer, a batch larger than the data, too
            few data, or no positive curvature.
        FloatingPointError: A product is not finite.
    """  # noqa: DOC502
    from gradworks.bench import workloads
    from gradworks.curvature.learning_rate import laws

    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {optimizer!r}")
    if lr is not None:
        laws.check_positive("lr", lr)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    sizes = [batch_size] if to is None else [batch_size, to]
    for name, size in zip(("batch_size", "to"), sizes):
        laws.check_batch(size, name=name)
    model, loss_fn, data = workloads.curvature_target(target, seed)
    found, products = _measured(
        (model, loss_fn, data), sizes, repeats, num_steps, full_size, seed, progress
    )
    settings = {
        "target": target,
        "optimizer": optimizer,
        "batch_size": batch_size,
        "to": to,
        "momentum": momentum if optimizer == "sgd" else None,
        "lr_given": lr,
        "seed": seed,
        "num_steps": num_steps,
        "repeats": repeats,
        "products": products,
        "dimension": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    return Proposal(found, _document(found, settings))


def _measured(
    target: tuple[Any, Any, Any],
    sizes: list[int],
    repeats: int,
    num_steps: int,
    full_size: int | None,
    seed: int,
    progress: Listener | None,
) -> tuple[NoiseModel, str]:
    """The noise; by differences of gradients where a second derivative is missing."""
    import torch

    from gradworks.bench.events import Event
    from gradworks.curvature.learning_rate import laws, measure_noise
    from gradworks.curvature.learning_rate.examples import Examples
    from gradworks.curvature.learning_rate.measuring import device_of
    from gradworks.curvature.operators.twice import SecondDerivativeError

    model, loss_fn, data = target
    examples = Examples(data, device=device_of(model))
    for name, size in zip(("batch_size", "to"), sizes):
        laws.check_batch(size, len(examples), name=name)

    def listen(done: int, total: int) -> None:
        if progress is not None:
            progress(Event(stage="products", done=done, total=total))

    def run(products: Any) -> NoiseModel:
        return measure_noise(
            model,
            loss_fn,
            examples.in_order(),
            batch_sizes=_sizes(len(examples)),
            repeats=repeats,
            num_steps=num_steps,
            full_size=full_size,
            products=products,
            generator=torch.Generator().manual_seed(seed),
            progress=listen,
        )

    try:
        return run("double_backward"), "derivatives"
    except SecondDerivativeError:
        return run("finite_difference"), "finite differences"


def _sizes(total: int) -> tuple[int, ...]:
    """Batch sizes to measure at: the usual ones, or what a small data set has room for."""
    usual = tuple(size for size in _SIZES if 2 * size <= total)
    if len(usual) > 1:
        return usual
    if total < 4:
        raise ValueError(f"the data have {total} examples; at least 4 are needed to see any noise")
    return (max(1, total // 8), total // 2)


def _document(found: NoiseModel, settings: dict[str, Any]) -> dict[str, Any]:
    from gradworks.bench.result import plain

    sgd = settings["optimizer"] == "sgd"
    mu = settings["momentum"] or 0.0
    base = settings["lr_given"]
    if base is None:
        base = found.max_learning_rate(settings["batch_size"], momentum=mu) if sgd else ADAM_LR
    document = {
        **settings,
        **found.to_dict(),
        "saturation_batch": found.saturation_batch(),
        "nearly_flat_batch": found.saturation_batch(0.1),
        "critical_batch": found.critical_batch(),
        "lr": base,
        "rule": RULES[settings["optimizer"]],
    }
    document["rates"] = [
        _rate(found, document, size) for size in _doubling(settings["batch_size"], settings["to"])
    ]
    made: dict[str, Any] = plain(document)
    return made


def _doubling(low: int, high: int | None) -> list[int]:
    """From one batch size to the other, by doubling or halving; both ends are there."""
    if high is None or high == low:
        return [low]
    few, many = sorted((low, high))
    count = max(1, min(_MOST_ROWS - 1, round(math.log2(many / few))))
    rows = {round(few * (many / few) ** (k / count)) for k in range(count + 1)}
    return sorted(rows | {few, many}, reverse=high < low)


def _rate(found: NoiseModel, document: Mapping[str, Any], size: int) -> dict[str, Any]:
    """One row: what the law allows, what the scaling rule says, what is proposed."""
    from gradworks.curvature.learning_rate import eigenvector_overlap, scale_learning_rate

    sgd = document["optimizer"] == "sgd"
    mu = document["momentum"] or 0.0
    scaled = scale_learning_rate(
        document["lr"], document["batch_size"], size, rule=document["rule"]
    )
    low, high = found.learning_rate_interval(size, momentum=mu)
    bound = found.max_learning_rate(size, momentum=mu, safety=1.0)
    # At the batch that was asked about a rate known to work is left alone.
    own = size == document["batch_size"]
    capped = sgd and not own and scaled > bound / 2
    return {
        "batch_size": size,
        "eigenvalue": found.batch_extreme_eigenvalue(size),
        "overlap": eigenvector_overlap(found.lambda_max, found.noise, size, found.dataset_size),
        "bound": bound if sgd else None,
        "half_bound": bound / 2 if sgd else None,
        "half_bound_low": None if math.isnan(low) or not sgd else low,
        "half_bound_high": None if math.isnan(high) or not sgd else high,
        "scaled": scaled,
        "capped": capped,
        "proposed": max(bound / 2, min(document["lr"], scaled)) if capped else scaled,
    }


def figure(proposal: Proposal) -> dict[str, Any]:
    """Return the rates against the batch size as a figure for :mod:`gradworks.report.plots`.

    Args:
        proposal: What :func:`measure` returned.
    """
    from gradworks.curvature.learning_rate import scale_learning_rate

    found, document = proposal.model, proposal.document
    sizes = found.curve_sizes(_CURVE)
    sgd = document["optimizer"] == "sgd"
    series: list[dict[str, Any]] = []
    if sgd:
        mu = document["momentum"] or 0.0
        rates = [found.max_learning_rate(B, momentum=mu) for B in sizes]
        curve = _plain_series("half of the bound, from the law", sizes, rates, "line")
        if document["noise_stderr"] is not None:
            ends = [found.learning_rate_interval(B, momentum=mu) for B in sizes]
            curve["lo"], curve["hi"] = [e[0] for e in ends], [e[1] for e in ends]
        series.append(curve)
        seen = [row for row in found.table if row.tops and row.top > 0]
        series.append(
            _plain_series(
                "half of the bound, from measured batches",
                [float(row.batch_size) for row in seen],
                [(1 + mu) / row.top for row in seen],
                "points",
            )
        )
    else:
        rates = [
            scale_learning_rate(document["lr"], document["batch_size"], B, rule="sqrt")
            for B in sizes
        ]
        series.append(_plain_series("square-root scaling", sizes, rates, "line"))
    proposed = document["rates"]
    series.append(
        _plain_series(
            "proposed",
            [float(row["batch_size"]) for row in proposed],
            [row["proposed"] for row in proposed],
            "points",
        )
    )
    edge = document["saturation_batch"]
    if sizes[0] < edge < sizes[-1]:
        ends_y = [min(rates), max(rates)]
        series.append(_plain_series("saturation", [edge, edge], ends_y, "reference"))
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


def _caption(document: Mapping[str, Any]) -> str:
    last = document["rates"][-1]
    return (
        f"Largest eigenvalue {wording.number(document['lambda_max'])} over "
        f"{document['dataset_size']} examples, noise {wording.number(document['noise'])}: "
        f"saturation at a batch of {wording.number(document['saturation_batch'])}. Proposed for "
        f"{document['optimizer']} at {last['batch_size']}: {wording.number(last['proposed'])}."
    )


def write(proposal: Proposal, out: Path) -> list[Path]:
    """Write the document and a picture.

    Args:
        proposal: What :func:`measure` returned.
        out: ``FILE.json``; ``FILE.png`` is written beside it.

    Returns:
        The two files.

    Raises:
        ValueError: ``out`` has another ending or is a folder.
        ImportError: matplotlib is absent.
    """  # noqa: DOC502
    from gradworks.report import plots

    if out.is_dir():
        raise ValueError(f"--out must be a file, {out} is a folder; try {out / 'rates.json'}")
    if out.suffix not in ("", ".json"):
        raise ValueError(f"--out must end in .json, got {out.name!r}")
    out = out.with_suffix(".json")
    out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(proposal.document, sort_keys=True, indent=1, allow_nan=False)
    _write_whole(out, text + "\n")
    picture = out.with_suffix(".png")
    plots.write_picture(figure(proposal), picture)
    return [out, picture]


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


def show(proposal: Proposal, console: Console) -> None:
    """Print what was measured and the proposed rates.

    Args:
        proposal: What :func:`measure` returned.
        console: Where.
    """
    from rich.text import Text

    from gradworks.report.terminal.tables import new_table

    document = proposal.document
    facts = new_table()
    facts.show_header = False
    facts.add_column("what", style="bold")
    facts.add_column("value")
    for name, value in _facts(document):
        facts.add_row(name, Text(value))
    console.print(facts)
    n = wording.number
    sgd = document["optimizer"] == "sgd"
    table = new_table(f"Rates for {document['optimizer']}")
    table.add_column("batch", justify="right")
    table.add_column("largest eigenvalue", justify="right")
    if sgd:
        table.add_column("half of the bound", justify="right")
        table.add_column("linear rule", justify="right")
    table.add_column("proposed", justify="right", style="bold")
    for row in document["rates"]:
        cells = [str(row["batch_size"]), n(row["eigenvalue"])]
        if sgd:
            band = ""
            if row["half_bound_low"] is not None:
                band = f" ({n(row['half_bound_low'])} to {n(row['half_bound_high'])})"
            cells += [n(row["half_bound"]) + band, n(row["scaled"])]
        cells.append(n(row["proposed"]) + (" (capped)" if row["capped"] else ""))
        table.add_row(*map(Text, cells))
    console.print(table)
    note = "Measured at the present weights: curvature grows early in training; measure again then."
    if not sgd:
        note += " Curvature gives Adam no rate of its own, only how it scales."
    console.print(Text(note, style="dim"))
