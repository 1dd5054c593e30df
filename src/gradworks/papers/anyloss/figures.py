"""Plots of a run: differences on each set, means and ranks of the losses, time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gradworks.bench.figures import Figure, Series
from gradworks.bench.result import Result

if TYPE_CHECKING:
    from gradworks.bench.statistics import Ranking

__all__ = ["figures"]

_METRICS = {
    "f1": "F1",
    "balanced_accuracy": "balanced accuracy",
    "gmean": "G-mean",
    "accuracy": "accuracy",
    "f0.5": "F0.5",
    "f2": "F2",
}
_ALPHA = 0.05
_STUDIES = {
    "slp_gd": "perceptron, gradient descent",
    "slp_adam": "perceptron, Adam",
    "mlp2_adam": "2 hidden units, Adam",
    "mlp32_adam": "32 hidden units, Adam",
}
_RIVALS = ("bce", "weighted_bce", "bce_threshold", "sol")
_RANKED = (
    "anyloss",
    "sol",
    "bce_threshold",
    "weighted_bce",
    "smote_bce",
    "under_bce",
    "focal",
    "bce",
    "mse",
)


def figures(result: Result) -> list[Figure]:
    """Return the plots of a run.

    Args:
        result: A finished run of any preset.

    Returns:
        Paired differences on each set, mean metrics by loss, critical-difference diagrams, mean
        ranks by all metrics and time ratios, as far as the preset has them.
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
    for study in _STUDIES:
        rankings = {
            metric: ranked
            for metric in _METRICS
            if (ranked := _ranking(_by_arm(result, f"{study}_{metric}", sets, labels), sets))
        }
        drawn += [
            _critical(study, metric, *rankings[metric], labels)
            for metric in ("f1", "balanced_accuracy")
            if metric in rankings
        ]
        if len(rankings) > 2:
            drawn.append(_all_ranks(study, rankings, labels))
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


def _ranking(
    tables: Mapping[str, Mapping[str, float]], sets: list[str]
) -> tuple[Ranking, int] | None:
    """Friedman's test and all pairs with Holm, over the sets that every loss has."""
    from gradworks.bench import statistics

    arms = [arm for arm in _RANKED if arm in tables]
    shared = [s for s in sets if all(s in tables[arm] for arm in arms)]
    if len(arms) < 3 or len(shared) < 6:
        return None
    values = {arm: [tables[arm][s] for s in shared] for arm in arms}
    return statistics.rank_methods(values), len(shared)


def _apart(ranking: Ranking, one: str, other: str) -> bool:
    """Whether two losses differ at 5 %, all pairs of the diagram counted."""
    found = ranking.pairs
    return found.get((one, other), found.get((other, one), 1.0)) <= _ALPHA


def _cliques(ranking: Ranking) -> list[list[str]]:
    """Longest runs of losses, by rank, of which no two are told apart."""
    order = sorted(ranking.ranks, key=lambda arm: ranking.ranks[arm])
    runs: list[list[str]] = []
    for start in range(len(order)):
        end = start + 1
        while end < len(order) and not any(
            _apart(ranking, arm, order[end]) for arm in order[start:end]
        ):
            end += 1
        run = order[start:end]
        if len(run) > 1 and not any(set(run) <= set(earlier) for earlier in runs):
            runs.append(run)
    return runs


def _friedman(ranking: Ranking) -> str:
    p = 1.0 if ranking.p is None else ranking.p
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _critical(
    study: str, metric: str, ranking: Ranking, count: int, labels: Mapping[str, str]
) -> Figure:
    """A critical-difference diagram: losses by mean rank, bars under those not told apart."""
    order = sorted(ranking.ranks, key=lambda arm: ranking.ranks[arm])
    series = [
        Series(
            name="mean rank",
            x=[labels[arm] for arm in order],
            y=[ranking.ranks[arm] for arm in order],
            style="points",
        )
    ]
    for i, clique in enumerate(_cliques(ranking)):
        series.append(
            Series(
                name="not told apart" if i == 0 else f"not told apart ({i + 1})",
                x=[labels[arm] for arm in clique],
                y=[0.75 - 0.25 * i] * len(clique),
                style="line",
            )
        )
    return Figure(
        id=f"ranks-{metric.replace('_', '-')}-{study.replace('_', '-')}",
        title=f"Mean rank by {_METRICS[metric]}, 1 is best ({_STUDIES[study]})",
        caption=(
            f"Critical differences over {count} data sets: Friedman's test {_friedman(ranking)}; "
            "lines at the foot join losses of which no two differ at 5 % by Wilcoxon's signed-rank "
            "test, adjusted by Holm for all pairs."
        ),
        x_label="loss",
        y_label="mean rank over data sets",
        series=tuple(series),
    )


def _all_ranks(
    study: str, rankings: Mapping[str, tuple[Ranking, int]], labels: Mapping[str, str]
) -> Figure:
    """Mean ranks by every metric, and from which losses AnyLoss is told apart."""
    series, told = [], []
    everywhere = [arm for arm in _RANKED if any(arm in r.ranks for r, _ in rankings.values())]
    for metric, (ranking, _) in rankings.items():
        arms = [arm for arm in everywhere if arm in ranking.ranks]
        series.append(
            Series(
                name=_METRICS[metric],
                x=[labels[arm] for arm in arms],
                y=[ranking.ranks[arm] for arm in arms],
                style="points",
            )
        )
        ours = ranking.ranks.get("anyloss")
        rivals = [arm for arm in arms if arm != "anyloss" and _apart(ranking, "anyloss", arm)]
        better = [labels[arm] for arm in rivals if ours is not None and ranking.ranks[arm] > ours]
        worse = [labels[arm] for arm in rivals if ours is not None and ranking.ranks[arm] < ours]
        told.append(
            f"{_METRICS[metric]} (Friedman {_friedman(ranking)}): better than "
            f"{', '.join(better) or 'none'}"
            f"{'; worse than ' + ', '.join(worse) if worse else ''}"
        )
    return Figure(
        id=f"ranks-{study.replace('_', '-')}",
        title=f"Mean ranks by all metrics, 1 is best ({_STUDIES[study]})",
        caption=(
            "AnyLoss aims at the metric it is ranked by. What it differs from at 5 % (Wilcoxon, "
            f"Holm over all pairs of a metric): {'. '.join(told)}."
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
