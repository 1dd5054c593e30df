"""The AnyLoss experiment: folds, search of rates, arms, resume, figures, the user's own files."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gradworks.bench import Experiment, Trial, TrialInterrupted, Workload
from gradworks.bench.result import Result
from gradworks.bench.statistics import Ranking
from gradworks.losses.anyloss import METRICS, BatchedMetricLoss, Confusion, anyloss
from gradworks.papers import anyloss as paper
from gradworks.papers.anyloss import presets, tables
from gradworks.papers.anyloss import trial as trials
from gradworks.papers.anyloss.figures import _cliques

STUDY = {
    "label": "small",
    "hidden": [],
    "solver": "gd",
    "steps": 40,
    "times": [0.1, 1.0, 10.0],
    "metrics": ["f1", "balanced_accuracy"],
}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    """A made set of 90 rows, a fifth positive, in the authors' form of file."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 3)) * [1.0, 20.0, 0.1] + 5.0
    y = np.where(X[:, 0] + 0.3 * rng.normal(size=90) > 5.9, "seldom", "often")
    lines = ["a,b,c,label", *(",".join([*map(str, row), label]) for row, label in zip(X, y))]
    (tmp_path / "ds1.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv(presets.SETS_FOLDER, str(tmp_path))
    source = paper._supplied(("ds1",))["ds1"]
    return Workload(
        name="ds1",
        label="ds1",
        trial=paper._TRIAL,
        steps=1000,
        spec={"source": source, "folds": 3, "repeats": 2, "studies": {"slp_gd": STUDY}},
    )


def run(workload: Workload, arm: str, seed: int = 0) -> Trial:
    one = Trial.offline(workload, paper._arm(arm), seed=seed)
    trials.trial(one)
    return one


# ---------------------------------------------------------------- folds


def test_folds_are_stratified_and_disjoint(small: Workload) -> None:
    table = tables.read_table(small.spec, seed=3)
    total = int(table.y.sum())
    assert 0 < table.y.mean() < 0.5  # the smaller class is the positive one
    assert len(table.train) == len(table.test) == 6
    for repeat in (slice(0, 3), slice(3, 6)):
        seen = np.concatenate(table.test[repeat])
        assert sorted(seen) == list(range(90))
        sizes = [len(rows) for rows in table.test[repeat]]
        assert max(sizes) - min(sizes) <= 1
    for train, test, inner, away in zip(table.train, table.test, table.inner, table.held_out):
        assert not set(train) & set(test)
        assert sorted([*inner, *away]) == sorted(train)
        assert abs(table.y[test].sum() - total / 3) < 1
        assert len(away) == pytest.approx(0.3 * len(train), abs=1)
        assert table.y[away].sum() >= 1
    assert [list(a) for a in table.test[:3]] != [list(a) for a in table.test[3:]]
    again = tables.read_table(small.spec, seed=3)
    assert all((a == b).all() for a, b in zip(table.train, again.train))


def test_every_arm_sees_the_same_folds(small: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    table = tables.read_table
    monkeypatch.setattr(
        trials, "read_table", lambda spec, seed: seen.append(seed) or table(spec, seed)
    )
    for arm in ("bce", "anyloss_33", "sol"):
        run(small, arm)
    run(small, "bce", seed=1)
    assert seen[0] == seen[1] == seen[2] != seen[3]


def test_oversampling_adds_to_training_parts_only(small: Workload) -> None:
    plain = tables.read_table(small.spec, seed=0)
    grown = tables.oversampled(plain, seed=0)
    assert [list(r) for r in grown.test] == [list(r) for r in plain.test]
    assert [list(r) for r in grown.held_out] == [list(r) for r in plain.held_out]
    for before, after in zip([*plain.train, *plain.inner], [*grown.train, *grown.inner]):
        assert list(after[: len(before)]) == list(before)
        assert (after[len(before) :] >= 90).all()
        assert grown.y[after].mean() == 0.5
    made = np.concatenate([rows[rows >= 90] for rows in [*grown.train, *grown.inner]])
    assert len(set(made)) == len(made)  # no fold sees another fold's rows
    own = plain.X[plain.train[0]][plain.y[plain.train[0]] == 1]
    fresh = grown.X[grown.train[0][grown.train[0] >= 90]]
    assert (fresh >= own.min(0) - 1e-9).all()
    assert (fresh <= own.max(0) + 1e-9).all()


def test_undersampling_takes_from_training_parts_only(small: Workload) -> None:
    plain = tables.read_table(small.spec, seed=0)
    less = tables.undersampled(plain, seed=0)
    assert [list(r) for r in less.test] == [list(r) for r in plain.test]
    assert [list(r) for r in less.held_out] == [list(r) for r in plain.held_out]
    for before, after in zip([*plain.train, *plain.inner], [*less.train, *less.inner]):
        assert set(after) < set(before)
        assert len(set(after)) == len(after)
        assert less.y[after].mean() == 0.5
        assert less.y[after].sum() == plain.y[before].sum()


def test_tables_from_elsewhere() -> None:
    spec = {"source": presets.TABLES["breast-cancer"], "folds": 2, "repeats": 1}
    table = tables.read_table(spec, seed=0)
    assert table.X.shape == (569, 30)
    assert table.y.sum() == 212  # malignant, the smaller class
    pytest.importorskip("river")
    table = tables.read_table({**spec, "source": presets.TABLES["shuttle"]}, seed=0)
    assert table.X.shape == (982, 9)
    assert table.y.sum() == 57
    names = {name: w.data for name in presets.TABLES for w in [_workload_of(name)]}
    assert names == {"breast-cancer": ("breast_cancer",), "shuttle": ("shuttle",)}


def _workload_of(name: str) -> Workload:
    return next(w for w in paper.build("full").workloads if w.name == name)


# ---------------------------------------------------------------- what a trial computes


def test_trial_equals_a_plain_loop(small: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rate, one fold after the other, with torch.optim and the public loss."""
    study = {**STUDY, "times": [10.0], "metrics": ["f1"]}
    workload = dataclasses.replace(small, spec={**small.spec, "studies": {"slp_gd": study}})
    seen: list[torch.Tensor] = []
    found = trials.hard_confusion

    def watched(logits: torch.Tensor, *arguments: object) -> Confusion:
        seen.append(logits)
        return found(logits, *arguments)

    monkeypatch.setattr(trials, "hard_confusion", watched)
    got = run(workload, "anyloss").results["test"]["slp_gd_f1"]
    [logits] = seen  # with one rate nothing is searched: the test rows are looked at once
    table = tables.read_table(workload.spec, int(_seed_of(workload)))
    scores = []
    for fold, (train, test) in enumerate(zip(table.train, table.test)):
        mean, scale = table.X[train].mean(0), table.X[train].std(0)
        X, Z = (torch.from_numpy((table.X[rows] - mean) / scale) for rows in (train, test))
        theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([theta, bias], lr=0.1)
        for _ in range(40):
            optimizer.zero_grad()
            anyloss(X @ theta + bias, torch.from_numpy(table.y[train]), "f1").backward()
            optimizer.step()
        score, true = (Z @ theta + bias).detach(), torch.from_numpy(table.y[test])
        torch.testing.assert_close(
            logits[fold, 0, torch.from_numpy(test)].double(), score, rtol=1e-4, atol=1e-5
        )
        said = (score > 0).double()
        counts = (said * true, (1 - said) * true, said * (1 - true), (1 - said) * (1 - true))
        scores.append(METRICS["f1"](Confusion(*(c.sum() for c in counts))).item())
    assert got == pytest.approx(np.mean(scores), abs=1e-6)


def _seed_of(workload: Workload) -> int:
    return Trial.offline(workload, paper._arm("bce")).rng("folds").integers(2**31)


@pytest.mark.parametrize("arm", sorted(presets.ARMS))
def test_every_arm_gives_its_metrics(small: Workload, arm: str) -> None:
    one = run(small, arm)
    aims = presets.ARMS[arm]["fixed"].get("metrics", STUDY["metrics"])
    wanted = {f"slp_gd_{m}" for m in STUDY["metrics"] if m in aims}
    found = one.results["test"]
    assert set(found) - {"seconds_ratio"} == wanted
    assert ("seconds_ratio" in found) == (arm == "anyloss")
    assert all(0.0 <= found[m] <= 1.0 for m in wanted)
    assert set(one.results["valid"]) == {
        m + end for m in wanted for end in ("", "_widened", "_on_edge")
    }


def test_trial_is_deterministic(small: Workload) -> None:
    a, b = (run(small, "bce_threshold").results for _ in range(2))
    assert a == b != run(small, "bce_threshold", seed=1).results


def test_threshold_is_chosen_on_training_rows(
    small: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the labels of test rows turned over, nothing that was trained or tuned may change."""
    cuts: list[torch.Tensor] = []
    found = trials.best_threshold

    def watched(*arguments: object) -> torch.Tensor:
        cuts.append(found(*arguments))
        return cuts[-1]

    monkeypatch.setattr(trials, "best_threshold", watched)
    whole = tables.read_table(small.spec, 0)
    table = dataclasses.replace(
        whole, train=whole.train[:1], test=whole.test[:1], inner=[], held_out=[]
    )
    turned = table.y.copy()
    turned[table.test[0]] = 1 - turned[table.test[0]]
    one = Trial.offline(small, paper._arm("bce_threshold"))
    job = trials._Job("slp_gd", ("f1",), trials.batched_bce, (0.1,))
    a, _ = trials._run(one, table, job, 0, lambda: None)
    b, _ = trials._run(one, dataclasses.replace(table, y=turned), job, 0, lambda: None)
    assert torch.equal(cuts[0], cuts[1])
    assert a != b


# ---------------------------------------------------------------- search of rates


def search(best: float, rates: list[float]) -> tuple[trials._Search, list[list[float]]]:
    asked: list[list[float]] = []

    def explored(tried: list[float]) -> torch.Tensor:
        asked.append(list(tried))
        score = [-abs(math.log(rate / best)) for rate in tried]
        return torch.tensor(score).view(-1, 1, 1).expand(-1, 4, 1)

    return trials._Search(rates, explored), asked


@pytest.mark.parametrize(
    ("best", "chosen", "rounds", "edge"),
    [
        (1.0, 1.0, 1, 0.0),
        (0.03, 0.0316, 2, 0.0),
        (100.0, 100.0, 3, 0.0),  # a decade, then another
        (1e-9, 0.001, 3, 1.0),  # at most twice: it stays on the border, and says so
        (1e9, 1000.0, 3, 1.0),
    ],
)
def test_range_widens_by_a_decade_at_most_twice(
    best: float, chosen: float, rounds: int, edge: float
) -> None:
    found, asked = search(best, [0.1, 0.3, 1.0, 3.0, 10.0])
    assert len(asked) == rounds
    assert found.rates == sorted(found.rates)
    assert found.choices(4, 1)[0].item() == pytest.approx(chosen, rel=0.01)
    report = found.report(0, "m")
    assert report["m_on_edge"] == edge
    assert report["m_widened"] == rounds - 1


def test_equal_scores_take_the_lowest_rate_and_do_not_widen() -> None:
    asked: list[list[float]] = []

    def explored(tried: list[float]) -> torch.Tensor:
        asked.append(list(tried))
        return torch.ones(len(tried), 4, 2)

    found = trials._Search([0.1, 1.0, 10.0], explored)
    assert asked == [[0.1, 1.0, 10.0]]
    assert (found.choices(4, 2) == torch.tensor(0.1)).all()


def test_a_single_rate_is_not_searched() -> None:
    found, asked = search(1.0, [0.1])
    assert not asked
    assert found.choices(3, 2).tolist() == [[pytest.approx(0.1)] * 2] * 3
    assert found.report(0, "m") == {}


def test_warm_up_starts_anew_in_every_fit() -> None:
    strength = trials._amplification({"warmup": 5.0}, 100)
    assert [strength(k) for k in (0, 25, 50, 99, 100, 125)] == [5.0, 39.0, 73.0, 73.0, 5.0, 39.0]
    assert trials._amplification({"amplification": 33.0}, 100) == 33.0


def test_rates_follow_the_notebook() -> None:
    assert trials._rates({"times": [0.1, 1.0]}, 0.02) == (0.002, 0.02)
    assert trials._rates({"rates": [0.5]}, 0.02) == (0.5,)


# ---------------------------------------------------------------- resume


def test_resumed_trial_equals_the_undisturbed_one(small: Workload) -> None:
    class Stop:
        """Stops at the second word; keeps the last checkpoint."""

        def __init__(self, after: int) -> None:
            self.left, self.data = after, b""

        def progress(self, step: int) -> None: ...

        def rows(self, rows: list) -> None: ...

        def checkpoint(self, step: int, data: bytes, rows: list) -> None:
            self.data = data

        def stopping(self) -> bool:
            self.left -= 1
            return self.left < 0

    whole = run(small, "sol").results
    for after in (0, 2, 3):
        arm, record = paper._arm("sol"), Stop(after)
        settings = {"kind": "final", "number": 0, "seed": 0, "params": {}}
        with pytest.raises(TrialInterrupted):
            trials.trial(Trial(small, arm, record=record, **settings))
        resumed = Trial(small, arm, record=Stop(10**6), saved=record.data, **settings)
        trials.trial(resumed)
        assert resumed.results == whole


# ---------------------------------------------------------------- the experiment


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_claims_find_their_metrics(preset: str) -> None:
    """Every criterion's metric is given by its arm and its baselines on some workload."""
    experiment = paper.build(preset)
    given = _given(experiment)
    for claim in experiment.claims:
        for criterion in claim.criteria:
            for arm in (criterion.arm, *(criterion.baseline or criterion.arm).split("|")):
                assert criterion.metric in given[arm], (claim.id, criterion.name, arm)
    if preset == "full":
        assert [c.criteria for c in experiment.claims] == [c.criteria for c in paper.CLAIMS]


def _given(experiment: Experiment) -> dict[str, set[str]]:
    given: dict[str, set[str]] = {arm.name: set() for arm in experiment.arms}
    for workload in experiment.workloads:
        for arm in experiment.arms_of(workload):
            for job in trials._jobs(Trial.offline(workload, arm)):
                given[arm.name] |= {f"{job.study}_{metric}" for metric in job.metrics}
    given["anyloss"].add("seconds_ratio")
    return given


def test_losses_are_what_the_arms_say() -> None:
    workload = paper.build("full").workloads[0]
    jobs = {name: trials._jobs(Trial.offline(workload, paper._arm(name))) for name in presets.ARMS}
    assert {j.study for j in jobs["anyloss"]} == {*presets.STUDIES} - {"synthetic"}
    assert all(isinstance(j.loss, BatchedMetricLoss) for j in jobs["sol"])
    rates = {j.metrics[0]: j.rates for j in jobs["anyloss"] if j.study == "slp_gd"}
    assert rates["gmean"][3] == pytest.approx(0.02)  # its true gradient is a quarter of theirs
    for name, found in jobs.items():
        for job in found:  # equal budgets: as many rates for every loss of a study
            same = next(j for j in jobs["bce"] if j.study == job.study)
            assert len(job.rates) == len(same.rates), name
            assert job.rates[-1] / job.rates[0] == pytest.approx(same.rates[-1] / same.rates[0])


def test_paper_preset_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(presets.SETS_FOLDER, raising=False)
    with pytest.raises(ValueError, match=r"ds1\.csv to ds105\.csv.*GRADWORKS_ANYLOSS_SETS"):
        paper.build("paper")
    monkeypatch.setenv(presets.SETS_FOLDER, str(tmp_path))
    (tmp_path / "ds1.csv").write_text("a,y\n1,0\n")
    with pytest.raises(FileNotFoundError, match=r"lacks 101 of 102 files: ds2\.csv, ds3\.csv"):
        paper.build("paper")
    for name in presets.PAPER_SETS:
        (tmp_path / f"{name}.csv").write_text("a,y\n1,0\n")
    experiment = paper.build("paper")
    assert len(experiment.workloads) == 103
    assert str(tmp_path) not in json.dumps(experiment.to_dict())
    before = experiment.protocol_hash
    (tmp_path / "ds7.csv").write_text("a,y\n2,0\n")
    assert paper.build("paper").protocol_hash != before


@pytest.mark.parametrize(
    ("text", "error", "fragment"),
    [
        ("a,y\n1,0\n2,1\n3,2\n", ValueError, "two classes in its last column, found 3"),
        ("a,y\n1,0\nx,1\n", ValueError, "numbers before the last column"),
    ],
)
def test_bad_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    error: type[Exception],
    fragment: str,
) -> None:
    monkeypatch.setenv(presets.SETS_FOLDER, str(tmp_path))
    (tmp_path / "ds1.csv").write_text(text)
    source = paper._supplied(("ds1",))["ds1"]
    with pytest.raises(error, match=fragment):
        tables.supplied(source["file"], source["sha256"])
    with pytest.raises(RuntimeError, match="changed since the run was planned"):
        tables.supplied(source["file"], "0" * 64)


# ---------------------------------------------------------------- figures


def result_of(metrics: dict[str, dict[str, dict[str, float]]]) -> Result:
    """A result with figures ``{arm: {set: {metric: value}}}``."""
    sets = list(dict.fromkeys(name for one in metrics.values() for name in one))
    return Result(
        {
            "format": 1,
            "paper": "anyloss",
            "preset": "quick",
            "workloads": [{"name": name} for name in sets],
            "arms": [{"name": arm, "label": presets.ARMS[arm]["label"]} for arm in metrics],
            "finals": [
                {"arm": arm, "workload": name, "seed": 0, "status": "done", "metrics": {"test": m}}
                for arm, one in metrics.items()
                for name, m in one.items()
            ],
            "claims": [],
            "curves": [],
            "studies": [],
        }
    )


def test_figures_show_differences_means_ranks_and_times() -> None:
    sets = [f"set{i}" for i in range(8)]
    table = {
        arm: {name: {"slp_gd_f1": base + 0.01 * i} for i, name in enumerate(sets)}
        for arm, base in {"anyloss": 0.7, "bce": 0.6, "bce_threshold": 0.71}.items()
    }
    for i, name in enumerate(sets):
        table["anyloss"][name]["seconds_ratio"] = 1.5 + 0.1 * i
    table["bce"]["set0"]["slp_gd_f1"] = 0.75
    drawn = {figure.id: figure for figure in paper.figures(result_of(table))}
    assert sorted(drawn) == ["differences-f1-slp-gd", "means-f1", "ranks-f1-slp-gd", "time"]
    pairs = drawn["differences-f1-slp-gd"].series[0]
    assert pairs.x[0] == "set0"
    assert pairs.y[0] == pytest.approx(-0.05)
    assert "Of 8 sets it won 7 against cross-entropy, 0 against" in (
        drawn["differences-f1-slp-gd"].caption
    )
    means = drawn["means-f1"].series[0]
    gain = dict(zip(means.x, means.y))["AnyLoss of the metric"]
    assert gain == pytest.approx((7 * 0.1 - 0.05) / 8)
    ranks, *cliques = drawn["ranks-f1-slp-gd"].series
    label = {arm: presets.ARMS[arm]["label"] for arm in table}
    assert list(ranks.x) == [label["bce_threshold"], label["anyloss"], label["bce"]]
    assert ranks.y == pytest.approx([9 / 8, 17 / 8, 22 / 8])
    # 0.71 is above 0.70 on all sets: told apart. 0.70 against 0.60 is seven of eight: is as well.
    assert [list(c.x) for c in cliques] == []
    assert "8 data sets: Friedman's test p = 0.00" in drawn["ranks-f1-slp-gd"].caption
    assert drawn["time"].series[0].y[-1] == pytest.approx(2.2)


def test_no_figures_of_nothing() -> None:
    assert paper.figures(result_of({"bce": {"set0": {"slp_gd_f1": 0.5}}})) == []


def test_lines_join_what_is_not_told_apart() -> None:
    ranks = {"a": 1.0, "b": 2.0, "c": 2.5, "d": 4.0}
    near = {("a", "b"): 0.2, ("b", "c"): 0.9, ("a", "c"): 0.04, ("b", "d"): 0.01, ("c", "d"): 0.3}
    ranking = Ranking(ranks=ranks, p=0.01, pairs={**near, ("a", "d"): 0.001})
    assert _cliques(ranking) == [["a", "b"], ["b", "c"], ["c", "d"]]
    one = Ranking(ranks=ranks, p=0.5, pairs=dict.fromkeys([*near, ("a", "d")], 0.5))
    assert _cliques(one) == [["a", "b", "c", "d"]]


def test_ranks_by_all_metrics_say_what_differs() -> None:
    metrics = ("f1", "gmean", "accuracy")
    table = {
        arm: {f"set{i}": {f"slp_adam_{m}": base + 0.001 * i * i for m in metrics} for i in range(9)}
        for arm, base in {"anyloss": 0.7, "bce": 0.6, "sol": 0.7, "mse": 0.8}.items()
    }
    drawn = {figure.id: figure for figure in paper.figures(result_of(table))}
    figure = drawn["ranks-slp-adam"]
    assert [s.name for s in figure.series] == ["F1", "G-mean", "accuracy"]
    assert (
        "F1 (Friedman p < 0.001): better than cross-entropy; worse than squared" in figure.caption
    )
    joined = drawn["ranks-f1-slp-adam"].series[1]
    assert set(joined.x) == {presets.ARMS[arm]["label"] for arm in ("anyloss", "sol")}
