"""What the page of the paper shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from gradworks.bench.figures import Figure, Series
from gradworks.papers.sam_gs.presets import LABELS, METHODS, SWEPT, TOYS
from gradworks.papers.sam_gs.toys import BEST, FUNCTIONS, STARTS

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]

Key = TypeVar("Key")

_TITLES = {"digits": "two digits overlaid", "yeast": "14 functions of yeast genes"}
_TASKS = {
    "digits": ("left", "right", "image"),
    "yeast": tuple(f"function{i}" for i in range(1, 15)),
}
# No plot holds more than six series: there are no more colours.
_SHOWN = ("sum", "pcgrad", "samgs")
_DRAWN = (
    "toy-sum-clip",
    "toy-pcgrad-clip",
    "toy-equalise-clip",
    "toy-samgs",
    "toy-samgs-free",
    "toy-samgs-norm",
)
_JOINT = tuple(arm for arm in METHODS if arm != "single")
_SCALES = ("1", "0.1")
_OPTIMA = {"one": "one optimum", "two": "two optima"}


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose workloads did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        Starts off the ridge and along training, where each start ended, conflicts over training,
        change against single-task training, mean ranks, errors over scales, and cost.
    """
    real = [name for name in _TITLES if _ran(result, name)]
    made = [_reached(result)]
    made += [draw(result, name) for draw in (_path, _ends) for name in FUNCTIONS]
    made += [_conflict(result, name, what) for name in real for what in _CONFLICTS]
    made += [_change(result, real), _ranks(result, real), _over_scales(result), _cost(result)]
    return [figure for figure in made if figure.series]


def _ran(result: Result, name: str) -> bool:
    return any(workload["name"] == name for workload in result.document["workloads"])


def _values(result: Result, metric: str, arm: str, workload: str) -> list[float]:
    found = result.values(metric, arm, workload).values() if _ran(result, workload) else ()
    return [v for v in found if v is not None and math.isfinite(v)]


def _bars(name: str, samples: Mapping[str, list[float]]) -> Series | None:
    """Means with their intervals."""
    from gradworks.bench.statistics import bootstrap_interval

    rows = []
    for label, values in samples.items():
        if values:
            lo, hi, _ = bootstrap_interval(values)
            rows.append((label, sum(values) / len(values), lo, hi))
    if not rows:
        return None
    x, y, low, high = (list(column) for column in zip(*rows, strict=True))
    return Series(name=name, x=x, y=y, lo=low, hi=high, style="bars")


def _each(keys: Iterable[Key], draw: Callable[[Key], Series | None]) -> tuple[Series, ...]:
    return tuple(series for key in keys if (series := draw(key)) is not None)


def _line(result: Result, workload: str, arm: str, metric: str, name: str) -> Series | None:
    """A curve along training."""
    found = result.curve(workload, arm, "train", metric)
    if found is None:
        return None
    columns = (found[key] for key in ("step", "mean", "lo", "hi"))
    rows = [row for row in zip(*columns, strict=True) if None not in row]
    if not rows:
        return None
    x, y, lo, hi = (list(column) for column in zip(*rows, strict=True))
    return Series(name=name, x=x, y=y, lo=lo, hi=hi)


# ---------------------------------------------------------------- synthetic problems


def _reached(result: Result) -> Figure:
    """Shares of starts, by problem and scale."""

    def bars(cell: tuple[str, str]) -> Series | None:
        name, scale = cell
        metric = f"reached_{name}_{scale}"
        samples = {LABELS[arm]: _values(result, metric, arm, "toys") for arm in TOYS}
        return _bars(f"{_OPTIMA[name]}, scale {scale}", samples)

    return Figure(
        id="reached",
        title="Synthetic problems: starts that leave the ridge",
        caption=(
            "Share of the seven starts that end beyond the ridge, where both losses are 0, mean "
            "over seeds with 95 % intervals; the first loss as it is, or a tenth of it."
        ),
        x_label="method",
        y_label="share of starts",
        series=_each(((name, scale) for name in FUNCTIONS for scale in _SCALES), bars),
    )


def _path(result: Result, name: str) -> Figure:
    """Sums of the losses along training, equal scales."""
    return Figure(
        id=f"path-{name}",
        title=f"Synthetic problem, {_OPTIMA[name]}: both losses",
        caption="Sum of the losses, mean over the seven starts and then over seeds.",
        x_label="step",
        y_label="sum of both losses",
        series=_each(_DRAWN, lambda arm: _line(result, "toys", arm, f"sum_{name}_1", LABELS[arm])),
    )


def _ends(result: Result, name: str) -> Figure:
    """Where each published start ended."""

    def points(arm: str) -> Series | None:
        ends = []
        for start, place in enumerate(STARTS):
            found = result.values(f"sum_{name}_1_{start}", arm, "toys") if here else {}
            first = next(iter(found.values()), None)  # the first seed has the published starts
            if first is not None:
                ends.append((f"({place[0]:g}, {place[1]:g})", first))
        if not ends:
            return None
        x, y = (list(column) for column in zip(*ends, strict=True))
        return Series(name=LABELS[arm], x=x, y=y, style="bars")

    here = _ran(result, "toys")
    return Figure(
        id=f"ends-{name}",
        title=f"Where each start ends, {_OPTIMA[name]}, equal scales",
        caption=(
            "Sum of both losses at the end, from the published starts; the lowest there is is "
            f"{BEST[name]:.2f}. Bars that point up stall before the ridge."
        ),
        x_label="start",
        y_label="sum of both losses",
        series=_each(_DRAWN, points),
    )


# ---------------------------------------------------------------- real problems

_CONFLICTS = {
    "cosine": ("angles", "cosine of two task gradients", "below 0 two tasks pull apart"),
    "similarity": (
        "magnitudes",
        "similarity of the norms",
        "1 is equal length; SAM-GS equalises below gamma",
    ),
}


def _conflict(result: Result, workload: str, what: str) -> Figure:
    """How task gradients conflict over training: mean over pairs, and the worst pair."""
    title, axis, meaning = _CONFLICTS[what]
    series = []
    for arm in _SHOWN:
        for metric, name in ((what, "mean"), (f"{what}_min", "worst pair")):
            found = _line(result, workload, arm, metric, f"{LABELS[arm]}, {name}")
            if found is not None:
                series.append(found)
    return Figure(
        id=f"{workload}-{what}",
        title=f"Conflict over training, {title}: {_TITLES[workload]}",
        caption=f"Mean over pairs of tasks and the worst pair, mean over seeds; {meaning}.",
        x_label="step",
        y_label=axis,
        series=tuple(series),
    )


def _errors(result: Result, workload: str) -> dict[int, dict[str, dict[str, float]]]:
    """Test errors by seed, arm and task, where every task has one."""
    found: dict[int, dict[str, dict[str, float]]] = {}
    for arm in METHODS:
        for task in _TASKS[workload]:
            for seed, value in result.values(f"error_{task}", arm, workload).items():
                if value is not None and math.isfinite(value):
                    found.setdefault(seed, {}).setdefault(arm, {})[task] = value
    whole = len(_TASKS[workload])
    return {
        seed: {arm: tasks for arm, tasks in arms.items() if len(tasks) == whole}
        for seed, arms in found.items()
    }


def _change(result: Result, real: list[str]) -> Figure:
    """Delta-m against single-task training."""
    from gradworks.bench.multitask.measures import delta_m

    def bars(name: str) -> Series | None:
        samples: dict[str, list[float]] = {LABELS[arm]: [] for arm in _JOINT}
        for arms in _errors(result, name).values():
            single = arms.pop("single", {})
            for arm, tasks in arms.items():
                if single and min(single.values()) > 0:
                    samples[LABELS[arm]].append(delta_m(tasks, single))
        return _bars(_TITLES[name], samples)

    return Figure(
        id="change",
        title="Change of the errors against a network for each task",
        caption=(
            "Mean relative change over tasks (Delta-m), mean over seeds with 95 % intervals; below "
            "0 the shared network is better. All have the same number of steps, so the networks of "
            "single tasks take as many times the work as there are tasks."
        ),
        x_label="method",
        y_label="mean relative change, %",
        series=_each(real, bars),
    )


def _ranks(result: Result, real: list[str]) -> Figure:
    """Mean ranks over tasks."""
    from gradworks.bench.multitask.measures import mean_rank

    def bars(name: str) -> Series | None:
        samples: dict[str, list[float]] = {LABELS[arm]: [] for arm in _JOINT}
        for arms in _errors(result, name).values():
            arms.pop("single", None)
            for arm, rank in mean_rank(arms).items():
                samples[LABELS[arm]].append(rank)
        return _bars(_TITLES[name], samples)

    return Figure(
        id="ranks",
        title="Mean rank over tasks",
        caption="1 is best; mean over seeds with 95 % intervals. Single-task networks left out.",
        x_label="method",
        y_label="mean rank",
        series=_each(real, bars),
    )


def _over_scales(result: Result) -> Figure:
    """Errors as the scale of one loss changes."""
    scales = ("0.01", "0.1", "1", "10", "100")

    def bars(arm: str) -> Series | None:
        samples = {
            scale: [math.exp(v) for v in _values(result, f"log_error_{scale}", arm, "scales")]
            for scale in scales
        }
        return _bars(LABELS[arm], samples)

    return Figure(
        id="scales",
        title="Digits: one loss at other scales",
        caption=(
            "Geometric mean of the three errors while the left digit's loss is multiplied; mean "
            "over seeds with 95 % intervals. Settings were chosen at scale 1."
        ),
        x_label="scale of the left digit's loss",
        y_label="error",
        series=_each(SWEPT, bars),
    )


def _cost(result: Result) -> Figure:
    """Time ratios."""
    shown = {
        "call over IMTL-G, 2 tasks": "time_imtlg_2",
        "call over IMTL-G, 10 tasks": "time_imtlg_10",
        "step over the plain sum, 2 tasks": "time_step",
    }
    samples = {label: _values(result, metric, "cost", "cost") for label, metric in shown.items()}
    made = _bars("SAM-GS", samples)
    return Figure(
        id="cost",
        title="What it costs",
        caption=(
            "Ratios of times taken in turns in one process, mean over seeds. A call works on a "
            "random Jacobian of two million numbers; a step holds forward and backward passes."
        ),
        x_label="what is timed",
        y_label="ratio",
        series=() if made is None else (made,),
    )
