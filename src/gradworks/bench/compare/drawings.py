"""The plots of a comparison: what the swap buys and costs, curves, tunability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gradworks.bench.compare.rows import arms_of, last_study, ratio_of, summary, target_of
from gradworks.bench.figures import Figure, Series

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures", "ratios"]

_LINES = 6  # lines that a reader can tell apart in one plot
_RATIOS = {
    "steps_ratio": "steps to the target",
    "seconds_ratio": "seconds to the target",
    "step_time_ratio": "seconds a step",
}


def figures(result: Result) -> list[Figure]:
    """Return the plots of a comparison: for each workload validation, training loss, tunability.

    Where there are more optimizers than one plot holds, each plot shows the baseline and a few.

    Args:
        result: What running a comparison gave.
    """
    several = len(result.document["workloads"]) > 1
    made: list[Figure] = []
    for workload in result.document["workloads"]:
        prefix = f"{workload['name']}-" if several else ""
        parts = _parts(arms_of(result, workload))
        for i, arms in enumerate(parts):
            suffix = f"-{i + 1}" if len(parts) > 1 else ""
            part = f" ({i + 1} of {len(parts)})" if len(parts) > 1 else ""
            made += [
                replace(figure, title=figure.title + part)
                for figure in _curves(result, workload, arms, prefix, suffix)
            ]
    return made


def _parts(arms: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Divide the arms evenly over as few plots as hold them, the baseline in each."""
    first, rest = arms[:1], arms[1:]
    number = max(1, -(-len(rest) // (_LINES - 1)))
    size = -(-len(rest) // number) if rest else 1
    return [first + rest[i : i + size] for i in range(0, max(1, len(rest)), size)]


def _curves(
    result: Result,
    workload: dict[str, Any],
    arms: list[dict[str, Any]],
    prefix: str,
    suffix: str,
) -> list[Figure]:
    name, metric = workload["name"], workload["select_on"]
    words = metric.replace("_", " ")
    target = target_of(result, workload)
    lines = [_line(result, name, arm, "valid", metric) for arm in arms]
    if target is not None:
        ends: list[float | str] = [0, workload["steps"]]
        lines.append(Series(name="target", x=ends, y=[target, target], style="reference"))
    made = [
        Figure(
            id=f"{prefix}validation{suffix}",
            title=f"Validation {words} on {workload['label']}",
            caption=f"Mean over the final seeds, band from the best to the worst seed. The target "
            f"is the median final {words} of {arms[0]['label']}.",
            x_label="step",
            y_label=words,
            series=tuple(lines),
        ),
        Figure(
            id=f"{prefix}training-loss{suffix}",
            title=f"Training loss on {workload['label']}",
            caption="Mean loss of the mini-batches since the evaluation before, over the final "
            "seeds; band from the lowest to the highest seed.",
            x_label="step",
            y_label="loss",
            series=tuple(_line(result, name, arm, "train", "loss") for arm in arms),
            y_log=True,
        ),
    ]
    studies = [(arm, last_study(result, name, arm["name"])) for arm in arms]
    tuned = [(arm, study["expected_best"]) for arm, study in studies if study is not None]
    if any(values for _, values in tuned):
        made.append(
            Figure(
                id=f"{prefix}tuning{suffix}",
                title=f"What tuning is worth{' on ' + workload['label'] if prefix else ''}",
                caption=f"Expected best validation {words} after so many tuning trials: a flat "
                "line needs no tuning.",
                x_label="tuning trials",
                y_label=words,
                series=tuple(
                    Series(name=arm["label"], x=list(range(1, len(values) + 1)), y=values)
                    for arm, values in tuned
                    if values
                ),
            )
        )
    return made


def _line(result: Result, workload: str, arm: dict[str, Any], split: str, metric: str) -> Series:
    curve = result.curve(workload, arm["name"], split, metric) or {
        key: [] for key in ("step", "mean", "lo", "hi")
    }
    points = [
        point
        for point in zip(curve["step"], curve["mean"], curve["lo"], curve["hi"], strict=True)
        if None not in point
    ]
    x, y, lo, hi = (list(column) for column in zip(*points)) if points else ([], [], [], [])
    return Series(name=arm["label"], x=x, y=y, lo=lo, hi=hi)


def ratios(
    result: Result, workload: str | None = None, rows: Sequence[dict[str, Any]] | None = None
) -> Figure | None:
    """Return the plot of one workload's ratios over the baseline, None if there are none.

    Args:
        result: What running a comparison gave.
        workload: Name of the workload; None takes the first.
        rows: Its rows, if they are made already.

    Raises:
        ValueError: If there is no such workload.
    """  # noqa: DOC502
    from gradworks.bench.compare.rows import workload_of

    chosen = workload_of(result, workload)
    rows = summary(result, chosen["name"]) if rows is None else rows
    labels = {arm["name"]: arm["label"] for arm in result.document["arms"]}
    base = labels[rows[0]["arm"]]
    series = []
    for key, words in _RATIOS.items():
        shown = [
            row
            for row in rows
            if (found := ratio_of(row, key, rows[0]))[0] is not None and not found[1]
        ]
        if shown:
            series.append(
                Series(
                    name=words,
                    x=[labels[row["arm"]] for row in shown],
                    y=[row[key] for row in shown],
                    lo=[row[f"{key}_lo"] for row in shown],
                    hi=[row[f"{key}_hi"] for row in shown],
                    style="points",
                )
            )
    if not series:
        return None
    names = list(dict.fromkeys(str(x) for one in series for x in one.x))
    series.append(Series(name=base, x=names, y=[1.0] * len(names), style="reference"))
    return Figure(
        id=f"{chosen['name']}-ratios",
        title=f"Against {base} on {chosen['label']}",
        caption=f"Below 1 is less than {base} needs. Bars are intervals over paired seeds. A run "
        f"that missed the target counts as its whole budget; where more miss it than of {base} "
        "there is no point.",
        x_label="",
        y_label=f"ratio to {base}",
        series=tuple(series),
        y_log=True,
    )
