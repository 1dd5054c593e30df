"""Plots of a run: differences on each set, means and ranks of the losses, time."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gradworks.bench.figures import Figure, Series
from gradworks.bench.result import Result

__all__ = ["figures"]

_METRICS = {"f1": "F1", "balanced_accuracy": "balanced accuracy", "gmean": "G-mean"}
_STUDIES = {
    "slp_gd": "perceptron, gradient descent",
    "slp_adam": "perceptron, Adam",
    "mlp2_adam": "2 hidden units, Adam",
    "mlp32_adam": "32 hidden units, Adam",
}
_RIVALS = ("bce", "weighted_bce", "bce_threshold", "sol")
_RANKED = ("anyloss", "sol", "bce_threshold", "weighted_bce", "smote_bce", "focal", "bce", "mse")


def figures(result: Result) -> list[Figure]:
    """Return the plots of a run.

    Args:
        result: A finished run of any preset.

    Returns:
        Paired differences on each set, mean metrics by loss, mean ranks and time ratios, as far as
        the preset has them.
    """
    labels = {arm["name"]: arm["label"] for arm in result.document["arms"]}
    sets = [w["name"] for w in result.document["workloads"] if w["name"] != "synthetic"]
    drawn = []
    for metric in ("f1", "balanced_accuracy"):
        for study in ("slp_gd", "slp_adam"):
            tables = _by_arm(result, f"{study}_{metric}", sets, labels)
            if "anyloss" in tables and len(tables) > 1:
                drawn.append(_differences(study, metric, tables, labels))
    for metric in _METRICS:
        figure = _means(result, metric, sets, labels)
        if figure is not None:
            drawn.append(figure)
    for metric in ("f1", "balanced_accuracy"):
        figure = _ranks(result, metric, sets, labels)
        if figure is not None:
            drawn.append(figure)
    times = _by_arm(result, "seconds_ratio", sets, labels).get("anyloss")
    if times:
        drawn.append(_times(times))
    return drawn


def _by_arm(
    result: Result, metric: str, sets: list[str], labels: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Arm to set to value, mean over seeds; arms and sets without the metric are left out."""
    tables: dict[str, dict[str, float]] = {}
    for arm in labels:
        for name in sets:
            values = [
                v for v in result.values(metric, arm, workload=name).values() if v is not None
            ]
            if values:
                tables.setdefault(arm, {})[name] = sum(values) / len(values)
    return tables


def _differences(
    study: str, metric: str, tables: Mapping[str, Mapping[str, float]], labels: Mapping[str, str]
) -> Figure:
    """AnyLoss minus each rival, a point a set, sorted by the difference to cross-entropy."""
    ours = tables["anyloss"]
    rivals = [name for name in _RIVALS if name in tables]
    first = tables[rivals[0]] if rivals else {}
    order = sorted((s for s in ours if s in first), key=lambda s: ours[s] - first[s])
    series = [
        Series(
            name=f"against {labels[rival]}",
            x=[s for s in order if s in tables[rival]],
            y=[ours[s] - tables[rival][s] for s in order if s in tables[rival]],
            style="points",
        )
        for rival in rivals
    ]
    series.append(Series(name="equal", x=order, y=[0.0] * len(order), style="reference"))
    wins = {
        rival: sum(ours[s] > tables[rival][s] for s in order if s in tables[rival])
        for rival in rivals
    }
    told = ", ".join(f"{wins[rival]} against {labels[rival]}" for rival in rivals)
    return Figure(
        id=f"differences-{metric.replace('_', '-')}-{study.replace('_', '-')}",
        title=f"{_METRICS[metric]} gained on each data set ({_STUDIES[study]})",
        caption=(
            f"A point above the dashed line is a data set on which training on "
            f"{_METRICS[metric]} scored higher. Of {len(order)} sets it won {told}."
        ),
        x_label="data set",
        y_label=f"difference in {_METRICS[metric]}",
        series=tuple(series),
    )


def _means(
    result: Result, metric: str, sets: list[str], labels: Mapping[str, str]
) -> Figure | None:
    """Mean over sets of the difference to plain cross-entropy, with its interval, by study."""
    import numpy as np

    from gradworks.bench import statistics

    series = []
    levels = {}
    for study, label in _STUDIES.items():
        tables = _by_arm(result, f"{study}_{metric}", sets, labels)
        if "bce" not in tables:
            continue
        levels[label] = sum(tables["bce"].values()) / len(tables["bce"])
        x, y, lo, hi = [], [], [], []
        for arm in labels:
            shared = [s for s in tables.get(arm, {}) if s in tables["bce"]]
            if arm == "bce" or not shared:
                continue
            d = np.array([tables[arm][s] - tables["bce"][s] for s in shared])
            low, high, _ = statistics.bootstrap_interval(d, rng=np.random.default_rng(0))
            x.append(labels[arm])
            y.append(float(d.mean()))
            lo.append(float(low))
            hi.append(float(high))
        if x:
            series.append(Series(name=label, x=x, y=y, lo=lo, hi=hi, style="points"))
    if not series:
        return None
    everywhere = list(dict.fromkeys(str(name) for s in series for name in s.x))
    series.append(
        Series(
            name="cross-entropy",
            x=everywhere,
            y=[0.0] * len(everywhere),
            style="reference",
        )
    )
    told = "; ".join(f"{label} {level:.3f}" for label, level in levels.items())
    return Figure(
        id=f"means-{metric.replace('_', '-')}",
        title=f"Mean gain in {_METRICS[metric]} over cross-entropy",
        caption=(
            f"Mean over data sets of the difference to cross-entropy decided at probability 1/2, "
            f"with 95 % bootstrap intervals over the sets. Cross-entropy itself reaches: {told}."
        ),
        x_label="loss",
        y_label=f"difference in {_METRICS[metric]}",
        series=tuple(series),
    )


def _ranks(
    result: Result, metric: str, sets: list[str], labels: Mapping[str, str]
) -> Figure | None:
    """Mean ranks with half the Nemenyi critical difference: a critical-difference diagram."""
    import numpy as np
    from scipy.stats import rankdata, studentized_range

    series = []
    for study, label in _STUDIES.items():
        tables = _by_arm(result, f"{study}_{metric}", sets, labels)
        arms = [arm for arm in _RANKED if arm in tables]
        shared = [s for s in sets if all(s in tables[arm] for arm in arms)]
        if len(arms) < 3 or len(shared) < 6:
            continue
        table = np.array([[tables[arm][s] for arm in arms] for s in shared])
        ranks = rankdata(-table, axis=1).mean(0)
        k, n = len(arms), len(shared)
        quantile = float(studentized_range.ppf(0.95, k, np.inf)) / math.sqrt(2.0)
        half = 0.5 * quantile * math.sqrt(k * (k + 1) / (6.0 * n))
        series.append(
            Series(
                name=label,
                x=[labels[arm] for arm in arms],
                y=[float(r) for r in ranks],
                lo=[float(r - half) for r in ranks],
                hi=[float(r + half) for r in ranks],
                style="points",
            )
        )
    if not series:
        return None
    return Figure(
        id=f"ranks-{metric.replace('_', '-')}",
        title=f"Mean rank by {_METRICS[metric]}, 1 is best",
        caption=(
            "Bars are half the Nemenyi critical difference at 5 %: two losses differ where their "
            "bars do not overlap."
        ),
        x_label="loss",
        y_label="mean rank over data sets",
        series=tuple(series),
    )


def _times(times: Mapping[str, float]) -> Figure:
    """Time of a step over that of cross-entropy, on each set."""
    order = sorted(times, key=lambda name: times[name])
    return Figure(
        id="time",
        title="Time of a training step, AnyLoss over cross-entropy",
        caption=(
            "Full-batch steps of a perceptron on F1, all folds together, interleaved blocks on one "
            "thread. The criterion is 3."
        ),
        x_label="data set",
        y_label="ratio of times",
        series=(
            Series(name="AnyLoss", x=order, y=[times[s] for s in order], style="points"),
            Series(name="equal", x=order, y=[1.0] * len(order), style="reference"),
            Series(name="criterion", x=order, y=[3.0] * len(order), style="reference"),
        ),
    )
