"""One trial: a study of one seed, from the draw of the examples to the figures it is judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradworks.papers.hessian_spectrum.claims import CLIMB
from gradworks.papers.hessian_spectrum.examples import draw
from gradworks.papers.hessian_spectrum.figures import BARS, HIGH, LOW
from gradworks.papers.hessian_spectrum.networks import network
from gradworks.papers.hessian_spectrum.session import Session

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradworks.bench.trial import Trial
    from gradworks.curvature.spectrum import PathLoss, SpectrumReport

__all__ = ["trial"]

# Largest matrix that is written down, and Lanczos steps above it; a preset may say otherwise.
EXACT_UP_TO = 1500
LANCZOS_STEPS = 80
# Leading eigenvalues that are kept as a curve.
LEADING = 30


def trial(trial: Trial) -> None:
    """Run the study that the workload names.

    Args:
        trial: The trial.
    """
    _STUDIES[trial.spec["study"]](trial)


# -- spectra -----------------------------------------------------------------------------------


def _measure(
    model: nn.Module, examples: tuple[Tensor, Tensor], spec: Mapping[str, Any], seed: int
) -> SpectrumReport:
    """The spectrum of the Hessian: exact where the matrix is small, by Lanczos where it is not."""
    import torch
    import torch.nn.functional as F

    from gradworks.curvature import HessianOperator
    from gradworks.curvature.spectrum import spectrum

    with HessianOperator(model, F.cross_entropy, examples) as op:
        exact = op.dimension <= int(spec.get("exact_up_to", EXACT_UP_TO))
        return spectrum(
            op,
            method="exact" if exact else "slq",
            num_steps=int(spec.get("lanczos_steps", LANCZOS_STEPS)),
            num_probes=4,
            top=40,
            generator=torch.Generator().manual_seed(seed),
        )


def _numbers(report: SpectrumReport) -> dict[str, float]:
    """What is kept of a spectrum, whichever route it came by."""
    s = report.summary
    return {
        "dimension": float(report.dimension),
        "largest": s["largest"],
        "smallest_over_largest": s["smallest"] / s["largest"],
        "fraction_small": s["fraction_small_0.01"],
        "negative_mass": s["negative_mass"],
        "effective_rank": s["effective_rank"],
        "num_outliers": s["num_outliers_gap"],
        "num_outliers_threshold": s["num_outliers_threshold"],
        "num_outliers_mp": s["num_outliers_mp"],
        "gap_ratio": s["gap_ratio"],
    }


def _log_shape(trial: Trial, report: SpectrumReport, tag: str) -> None:
    """Curves for the plots: eigenvalues in each bar, and the leading ones, over the largest."""
    import torch

    top = report.summary["largest"]
    if report.spectrum is not None:
        values = report.spectrum.eigenvalues
        weights = torch.ones_like(values)
    elif report.measure is not None:
        runs = len(report.measure.nodes)
        values = torch.cat(list(report.measure.nodes))
        weights = torch.cat(list(report.measure.weights)) * report.dimension / runs
    else:
        return
    place = ((values / top - LOW) / (HIGH - LOW) * BARS).floor().long().clamp(0, BARS - 1)
    counts = torch.zeros(BARS, dtype=weights.dtype).index_add_(0, place, weights)
    for bar, count in enumerate(counts.tolist()):
        trial.log(bar, split="train", **{f"histogram_{tag}": count})
    for rank, value in enumerate(report.top[:LEADING].tolist(), start=1):
        trial.log(rank, split="train", **{f"leading_{tag}": value / top})


def _train_and_measure(
    session: Session,
    tag: str,
    spec: Mapping[str, Any],
    examples: tuple[Tensor, Tensor],
    *,
    hidden: int,
    classes: int,
    batch_size: int,
    at_start: bool = False,
) -> tuple[dict[str, float], SpectrumReport]:
    """Train one network and measure it; with ``at_start`` before training too."""
    import torch

    inputs = examples[0]
    shape = {"kind": "mlp", "hidden": hidden}
    model = network(
        shape,
        tuple(inputs.shape[1:]),
        classes,
        seed=session.seed(f"weights {hidden} {classes}"),
        dtype=torch.float64,
    )
    numbers = {}
    probes = session.seed("probes")
    if at_start:
        with session.trial.untimed():
            before = _numbers(_measure(model, examples, spec, probes))
        numbers = {f"{key}_at_start": before[key] for key in ("largest", "fraction_small")}
    session.train(
        tag, model, examples, steps=int(spec["steps"]), batch_size=batch_size, lr=spec["lr"]
    )
    with session.trial.untimed():
        report = _measure(model, examples, spec, probes)
    numbers |= _numbers(report) | {"train_loss": session.loss(tag)}
    return numbers, report


def _tagged(numbers: Mapping[str, float], tag: str) -> dict[str, float]:
    """The same numbers with the tag behind their names."""
    return {f"{key}_{tag}": value for key, value in numbers.items()}


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope."""
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x)


def _spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation; 0 where one of them does not vary."""
    from scipy.stats import rankdata

    a, b = rankdata(x), rankdata(y)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


def _widths(trial: Trial) -> None:
    """The same data, networks of several widths."""
    session, spec = Session(trial), trial.spec
    classes = int(spec["classes"])
    examples, _ = draw(spec, session.seed("examples"), classes=classes)
    found = []
    for h in spec["hidden"]:
        tag = f"h{h}"
        numbers, report = _train_and_measure(
            session,
            tag,
            spec,
            examples,
            hidden=h,
            classes=classes,
            batch_size=int(spec["batch_size"]),
            at_start=True,
        )
        _log_shape(trial, report, tag)
        trial.result("test", **_tagged(numbers, tag))
        found.append(numbers)

    def across(key: str) -> list[float]:
        return [numbers[key] for numbers in found]

    small = across("fraction_small")
    trial.result(
        "test",
        fraction_small_least=min(small),
        fraction_small_rise=small[-1] - small[0],
        num_outliers_least=min(across("num_outliers")),
        num_outliers_spearman=_spearman(spec["hidden"], across("num_outliers")),
        largest_slope=_slope(
            [math.log(p) for p in across("dimension")], [math.log(t) for t in across("largest")]
        ),
        smallest_nearest_zero=max(across("smallest_over_largest")),
        smallest_furthest=min(across("smallest_over_largest")),
    )


def _classes(trial: Trial) -> None:
    """One size of network, data of several numbers of classes."""
    session, spec = Session(trial), trial.spec
    outliers = []
    for k in spec["classes"]:
        examples, _ = draw(spec, session.seed("examples"), classes=k)
        numbers, report = _train_and_measure(
            session,
            f"k{k}",
            spec,
            examples,
            hidden=int(spec["hidden"]),
            classes=k,
            batch_size=int(spec["batch_size"]),
        )
        _log_shape(trial, report, f"k{k}")
        trial.log(k, split="train", num_outliers=numbers["num_outliers"])
        trial.result("test", **_tagged(numbers, f"k{k}"))
        outliers.append(numbers["num_outliers"])
    trial.result("test", num_outliers_slope=_slope(spec["classes"], outliers))


def _separations(trial: Trial) -> None:
    """One size of network, as many classes, nearer and further apart."""
    session, spec = Session(trial), trial.spec
    largest, bulk = [], []
    for i, distance in enumerate(spec["separation"]):
        examples, _ = draw(
            spec, session.seed("examples"), classes=int(spec["classes"]), separation=distance
        )
        tag = f"d{distance:g}"
        numbers, report = _train_and_measure(
            session,
            tag,
            spec,
            examples,
            hidden=int(spec["hidden"]),
            classes=int(spec["classes"]),
            batch_size=int(spec["batch_size"]),
        )
        width = _bulk_width(report)
        trial.log(
            i,
            split="train",
            separation=distance,
            largest=numbers["largest"],
            bulk_width=width,
            num_outliers=numbers["num_outliers"],
        )
        trial.result("test", **_tagged({**numbers, "bulk_width": width}, tag))
        largest.append(numbers["largest"])
        bulk.append(width)
    move = math.log(largest[0] / largest[-1])
    trial.result(
        "test",
        largest_move=move,
        bulk_move=math.log(bulk[0] / bulk[-1]),
        move_beyond_bulk=abs(move) - abs(math.log(bulk[0] / bulk[-1])),
    )


def _bulk_width(report: SpectrumReport) -> float:
    """The 95 % quantile of the magnitudes outside the outliers."""
    import torch

    return float(torch.quantile(report.split.bulk.abs(), 0.95))


def _batches(trial: Trial) -> None:
    """One network from one start, trained with batches of the arm's size."""
    session, spec = Session(trial), trial.spec
    classes = int(spec["classes"])
    examples, _ = draw(spec, session.seed("examples"), classes=classes)
    numbers, report = _train_and_measure(
        session,
        "net",
        spec,
        examples,
        hidden=int(spec["hidden"]),
        classes=classes,
        batch_size=int(trial.settings["batch_size"]),
    )
    _log_shape(trial, report, "net")
    trial.result("test", **numbers)


# -- paths -------------------------------------------------------------------------------------


def _basin(trial: Trial) -> None:
    """Large-batch A, its small-batch continuation B, small-batch C, and D from elsewhere."""
    import torch

    session, spec = Session(trial), trial.spec
    examples, held_out = draw(spec, session.seed("examples"), classes=10, held_out=500)
    dtype = torch.float32 if spec["network"]["kind"] == "conv" else torch.float64
    examples = (examples[0].to(dtype), examples[1])
    held_out = (held_out[0].to(dtype), held_out[1])
    steps, lr, small = int(spec["steps"]), float(spec["lr"]), int(spec["small_batch"])
    full = len(examples[1])

    def fresh(start: str) -> nn.Module:
        return network(
            spec["network"],
            tuple(examples[0].shape[1:]),
            10,
            seed=session.seed(f"weights {start}"),
            dtype=dtype,
        )

    def go(name: str, model: nn.Module, batch_size: int, rate: float) -> None:
        session.train(name, model, examples, steps=steps, batch_size=batch_size, lr=rate)

    model = fresh("w0")
    go("A", model, full, lr)
    go("B", model, small, lr)
    model.load_state_dict(session.end("A"))
    go("B fast", model, small, lr * float(spec["fast"]))
    go("C", fresh("w0"), small, lr)
    go("D", fresh("elsewhere"), full, lr)
    with trial.untimed():
        _paths(session, model, examples, held_out)


def _paths(
    session: Session,
    model: nn.Module,
    examples: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
) -> None:
    """Loss on the lines between the solutions, and the claims' figures."""
    import torch.nn.functional as F
    from torch import nn

    from gradworks.curvature.spectrum import line_loss

    trial = session.trial
    points = int(trial.spec["num_points"])
    normed = any(isinstance(m, nn.BatchNorm2d) for m in model.modules())

    def line(a: str, b: str, data: Any, loss: Callable[..., Tensor], **options: Any) -> PathLoss:
        start, end = session.end(a), session.end(b)
        return line_loss(model, start, end, loss, data, num_points=points, **options)

    climbs = {}
    pairs = {"ab": ("A", "B"), "ac": ("A", "C"), "bc": ("B", "C"), "ad": ("A", "D")}
    for tag, (a, b) in {**pairs, "ab_fast": ("A", "B fast")}.items():
        path = line(a, b, examples, F.cross_entropy, refresh_batch_norm=normed)
        error = line(a, b, held_out, _error, refresh_batch_norm=normed, refresh_data=examples)
        for i, (loss, wrong) in enumerate(zip(path.loss.tolist(), error.loss.tolist())):
            trial.log(i, split="train", **{f"path_{tag}": loss})
            trial.log(i, split="test", **{f"error_{tag}": wrong})
        climbs[tag] = path.climb
        numbers = {
            "climb": path.climb,
            "barrier": path.barrier,
            "distance": path.distance,
            "error_climb": error.climb,
        }
        if normed:  # statistics interpolated instead of estimated anew
            plain = line(a, b, examples, F.cross_entropy)
            numbers["climb_interpolated"] = plain.climb
        trial.result("test", **_tagged(numbers, tag))
    for name in ("A", "B", "C", "D"):
        trial.result("test", **{f"train_loss_{name.lower()}": session.loss(name)})
    highest = max(climbs["ab"], climbs["ac"])
    trial.result(
        "test",
        same_basin=float(highest <= CLIMB),
        control_ratio=climbs["ad"] / max(CLIMB, highest),
    )


def _error(output: Tensor, target: Tensor) -> Tensor:
    """Share of wrong answers."""
    return (output.argmax(1) != target).double().mean()


_STUDIES: dict[str, Callable[[Trial], None]] = {
    "widths": _widths,
    "classes": _classes,
    "separations": _separations,
    "batches": _batches,
    "basin": _basin,
}
