"""``gradworks lr``: the learning rates that a batch size supports, measured, written down, shown.

The work is done by :mod:`gradworks.curvature.learning_rate`; here it meets a target named on the
command line and a reader.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from gradworks.bench.events import Listener
    from gradworks.curvature.learning_rate import NoiseModel

__all__ = ["Proposal", "measure", "write"]

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
    document["curve"] = _curve(found, document)
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


def _curve(found: NoiseModel, document: Mapping[str, Any]) -> dict[str, Any]:
    """The supported rate against the batch size; ends of intervals where there are error bars."""
    from gradworks.curvature.learning_rate import scale_learning_rate

    sizes = found.curve_sizes(_CURVE)
    curve: dict[str, Any] = {"batch_size": sizes, "lo": None, "hi": None}
    if document["optimizer"] != "sgd":
        lr, base = document["lr"], document["batch_size"]
        return curve | {"rate": [scale_learning_rate(lr, base, B, rule="sqrt") for B in sizes]}
    mu = document["momentum"] or 0.0
    if document["noise_stderr"] is not None:
        ends = [found.learning_rate_interval(B, momentum=mu) for B in sizes]
        curve["lo"], curve["hi"] = [e[0] for e in ends], [e[1] for e in ends]
    return curve | {"rate": [found.max_learning_rate(B, momentum=mu) for B in sizes]}


def write(proposal: Proposal, out: Path) -> list[Path]:
    """Write the document, a picture and an interactive page that stands alone.

    Args:
        proposal: What :func:`measure` returned.
        out: ``FILE.json``; ``FILE.png`` and ``FILE.html`` are written beside it.

    Returns:
        The three files.

    Raises:
        ValueError: ``out`` has another ending or is a folder.
        ImportError: matplotlib, plotly or jinja2 is absent.
    """  # noqa: DOC502
    from gradworks.report import proposed
    from gradworks.report.site.alone import write_beside

    shown = proposed.drawn(proposal.document)
    return write_beside(proposal.document, shown, out, example="rates.json")
