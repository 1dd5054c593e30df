"""Verdicts: every rule of the protocol on figures whose answer is known beforehand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bench import toy

from gradworks.bench import rulings, statistics
from gradworks.bench.claims import Claim, Criterion, Outcome, Verdict
from gradworks.bench.verdicts import claim_status, judge

Figures = Mapping[tuple[str, str], Sequence[float | None]]

# Ten seeds with a spread of 0.01, the same in every test.
NOISE = np.array([0.3, -1.2, 0.8, 0.1, -0.4, 1.5, -0.9, 0.6, -0.2, -0.6]) * 0.01
OTHER = np.array([-0.5, 0.7, 1.1, -1.3, 0.2, -0.1, 0.9, -0.8, 0.4, -0.6]) * 0.01


def criterion(**changes: object) -> Criterion:
    asked: dict[str, object] = {
        "name": "k",
        "kind": "superiority",
        "metric": "accuracy",
        "arm": "new",
        "baseline": "old",
    }
    return Criterion(**{**asked, **changes})


def claim(*criteria: Criterion, name: str = "c") -> Claim:
    return Claim(id=name, statement="", published="", holds_when="", criteria=criteria)


def judged(
    asked: Criterion | Sequence[Claim],
    figures: Figures,
    *,
    preset: str = "full",
    edges: Sequence[str] = (),
    seeds: int | None = None,
    workloads: Sequence[str] | None = None,
) -> list[Verdict]:
    claims = [claim(asked)] if isinstance(asked, Criterion) else list(asked)
    names = workloads or list(dict.fromkeys(w for _, w in figures))

    def sample(metric: str, arm: str, workload: str) -> dict[int, float | None]:
        return dict(enumerate(figures.get((arm, workload), ())))

    expected = seeds or max((len(v) for v in figures.values()), default=10)
    return judge(
        claims, sample, workloads=names, preset=preset, edges=edges, expected_seeds=expected
    )


def outcome(asked: Criterion, figures: Figures, **options: object) -> Outcome:
    [verdict] = judged(asked, figures, **options)
    [only] = verdict.outcomes
    assert verdict.status == only.status
    assert verdict.text == only.text
    return only


def pair(gain: float, noise: float = 1.0, level: float = 0.8) -> Figures:
    """``new`` above ``old`` by ``gain``, paired differences of sd about 0.01 * noise."""
    return {("new", "w"): list(level + gain + noise * NOISE), ("old", "w"): [level] * 10}


# --- superiority --------------------------------------------------------------------------------


def test_superiority_reproduced_has_all_its_figures() -> None:
    found = outcome(criterion(published=0.06), pair(0.05))
    d = np.array(pair(0.05)["new", "w"]) - 0.8
    assert found.status == "reproduced"
    assert found.estimate == pytest.approx(0.05)
    assert found.p == found.p_adj == 2**-10
    assert (found.n, found.level, found.min_effect) == (10, 0.95, pytest.approx(0.02))
    assert 0.04 < found.lo < 0.05 < found.hi < 0.06
    assert found.values == pytest.approx(0.8 + d)
    assert found.baseline_values == pytest.approx([0.8] * 10)
    assert found.n_needed == statistics.n_needed(d.std(ddof=1), 0.02)
    for part in ("0.05 higher", "0.85 against 0.8", "95 % interval", "0.00098", "n = 10 seeds"):
        assert part in found.text
    assert found.text.endswith("Reproduced: significant on the claimed side and large enough.")


@pytest.mark.parametrize(
    ("gain", "noise", "changes", "status", "words"),
    [
        (0.05, 1, {"min_effect": 0.05}, "reproduced", "large enough"),
        (0.05, 1, {"min_effect": 0.06}, "partly", "below the smallest effect"),
        (0.05, 1, {"published": 0.3}, "partly", "below the smallest effect"),
        (0.05, 1, {}, "reproduced", "significant on the claimed side."),
        (-0.05, 1, {"min_effect": 0.01}, "not reproduced", "significantly the other way"),
        (0.0, 1, {"min_effect": 0.05}, "not reproduced", "leaves the smallest effect"),
        (0.0, 1, {"min_effect": 0.001}, "undecided", "power below 80 %"),
        (0.0, 1, {}, "not reproduced", "no significant effect"),
        (0.05, 1, {"direction": "lower", "min_effect": 0.01}, "not reproduced", "other way"),
        (-0.05, 1, {"direction": "lower", "min_effect": 0.01}, "reproduced", "large enough"),
        (-0.05, 1, {"direction": "lower", "min_effect": -0.01}, "reproduced", "large enough"),
        (0.05, 1, {"kind": "speed", "published": 0.1}, "reproduced", "large enough"),
    ],
)
def test_rules_of_a_comparison(
    gain: float, noise: float, changes: dict[str, object], status: str, words: str
) -> None:
    found = outcome(criterion(**changes), pair(gain, noise))
    assert (found.status, words in found.text) == (status, True), found.text


def test_undecided_names_what_it_would_take() -> None:
    found = outcome(criterion(min_effect=0.005), pair(0.0))
    d = NOISE
    assert found.status == "undecided"
    assert found.n_needed == statistics.n_needed(d.std(ddof=1), 0.005)
    assert found.n_needed > 10
    assert f"{found.n_needed} units would do" in found.text


def test_five_units_show_a_range_and_cannot_pass_two_tests() -> None:
    few = {k: v[:5] for k, v in pair(0.05).items()}
    alone = outcome(criterion(), few)
    assert (alone.status, alone.p, alone.level) == ("reproduced", 2**-5, None)
    assert alone.lo == pytest.approx(0.05 + min(NOISE[:5]))
    two = judged([claim(criterion(), criterion(name="k2"))], few)[0]
    assert [o.status for o in two.outcomes] == ["undecided", "undecided"]
    assert "5 units cannot pass 2 tests, 6 could" in two.outcomes[0].text


def test_repetitions_of_one_deterministic_run_are_called_that() -> None:
    same = {("new", "w"): [0.9] * 10, ("old", "w"): [0.8] * 10}
    assert "Every seed gives the same figures" in outcome(criterion(), same).text
    assert "the same figures" not in outcome(criterion(), pair(0.05)).text
    exact = criterion(kind="exactness", reference=0.9, tolerance=0.1)
    assert "the same figures" not in outcome(exact, same).text


def test_ratio_is_shown_as_a_ratio_and_tested_as_logarithms() -> None:
    figures = {("new", "w"): list(130 + 100 * NOISE), ("old", "w"): [100.0] * 10}
    asked = criterion(scale="ratio", published=1.6)
    found = outcome(asked, figures)
    logs = np.log(np.array(figures["new", "w"]) / 100)
    assert found.estimate == pytest.approx(math.exp(logs.mean()))
    assert found.min_effect == pytest.approx(1.2)
    assert found.values == pytest.approx(figures["new", "w"])
    assert (found.status, "1.3 times that of old" in found.text) == ("reproduced", True)
    assert outcome(criterion(scale="ratio", min_effect=1.4), figures).status == "partly"


@pytest.mark.parametrize("published", [0.5, 2.0])
def test_ratio_takes_its_side_from_the_direction(published: float) -> None:
    figures = {("new", "w"): list(80 + 100 * NOISE), ("old", "w"): [100.0] * 10}
    asked = criterion(scale="ratio", direction="lower", published=published)
    found = outcome(asked, figures)
    assert found.min_effect == pytest.approx(1 - 0.5 / 3)  # a third of "half as long"
    assert found.status == "reproduced"


def test_ratio_of_nothing_is_no_verdict() -> None:
    figures = {("new", "w"): [0.0] + [1.0] * 9, ("old", "w"): [2.0] * 10}
    found = outcome(criterion(scale="ratio", direction="lower"), figures)
    assert (found.status, found.p, math.isnan(found.estimate)) == ("undecided", None, True)
    assert "a ratio needs values above 0, new has 0 on w" in found.text


# --- units, several baselines, several workloads ------------------------------------------------


def test_best_of_several_baselines_is_taken_in_each_unit() -> None:
    a, b = 0.8 + NOISE, 0.8 - NOISE
    figures = {("new", "w"): [0.9] * 10, ("a", "w"): list(a), ("b", "w"): list(b)}
    found = outcome(criterion(baseline="a | b"), figures)
    assert found.baseline_values == pytest.approx(np.maximum(a, b))
    assert "the better of a or b" in found.text
    found = outcome(criterion(baseline="a|b", direction="lower"), figures)
    assert found.baseline_values == pytest.approx(np.minimum(a, b))


def test_a_seed_is_averaged_over_workloads_and_a_workload_over_seeds() -> None:
    figures = {
        ("new", "u"): list(0.9 + NOISE),
        ("old", "u"): [0.8] * 10,
        ("new", "v"): list(0.7 + OTHER),
        ("old", "v"): [0.6] * 10,
    }
    by_seed = outcome(criterion(), figures)
    assert by_seed.values == pytest.approx(0.8 + (NOISE + OTHER) / 2)
    by_set = outcome(criterion(unit="workload"), figures)
    assert by_set.values == pytest.approx([0.9, 0.7])
    assert by_set.n == 2
    assert "n = 2 workloads" in by_set.text
    only = outcome(criterion(workloads=("v",)), figures)
    assert only.values == pytest.approx(0.7 + OTHER)


def test_data_sets_are_tested_by_wilcoxon() -> None:
    gains = [0.1, 0.2, 0.3, -0.05, 0.4, 0.0, 0.25, 0.15]
    figures = {}
    for k, gain in enumerate(gains):
        figures["new", f"s{k}"] = [0.5 + gain] * 3
        figures["old", f"s{k}"] = [0.5] * 3
    found = outcome(criterion(unit="workload"), figures)
    assert found.p == pytest.approx(statistics.wilcoxon(gains))
    assert "Wilcoxon" in found.text
    assert found.status == "reproduced"


def test_ranks_alone_do_not_reproduce_a_mean() -> None:
    gains = [0.01 * k for k in range(1, 13)] + [-3.0]  # better on 12 of 13 sets, ruinous on one
    figures = {}
    for k, gain in enumerate(gains):
        figures["new", f"s{k}"] = [5 + gain] * 3
        figures["old", f"s{k}"] = [5.0] * 3
    found = outcome(criterion(unit="workload"), figures)
    assert found.p_adj < 0.05
    assert found.lo < 0
    assert found.status == "not reproduced"


def two_workloads(u: float, v: float) -> Figures:
    return {
        ("new", "u"): list(0.8 + u + NOISE),
        ("old", "u"): [0.8] * 10,
        ("new", "v"): list(0.8 + v + 5 * OTHER),
        ("old", "v"): [0.8] * 10,
    }


def test_partly_where_it_holds_on_some_workloads_only() -> None:
    found = outcome(criterion(min_effect=0.02), two_workloads(0.03, -0.04))
    # Reversed on v: not even partly.
    assert found.status == "not reproduced"
    assert "Significantly the other way on v." in found.text
    found = outcome(criterion(min_effect=0.02), two_workloads(0.03, -0.02))
    assert found.status == "partly"
    assert "it holds on u, not overall" in found.text


def test_reversal_is_told_even_where_the_mean_holds() -> None:
    found = outcome(criterion(min_effect=0.02), two_workloads(0.2, -0.05))
    assert found.status == "reproduced"
    assert "Significantly the other way on v." in found.text


# --- diverged, missing, edges -------------------------------------------------------------------


def test_a_diverged_run_of_the_arm_costs_it_the_unit() -> None:
    figures = dict(pair(0.05))
    values = list(figures["new", "w"])
    values[3] = None
    figures["new", "w"] = values
    found = outcome(criterion(), figures)
    finite = [v for v in values if v is not None]
    span = max(finite) - 0.8
    assert found.values[3] == pytest.approx(0.8 - span)
    assert found.p == statistics.sign_flip(np.array(found.values) - 0.8)
    assert found.p > 2**-10
    assert "1 of 10 runs of new diverged, counted as worse than any run" in found.text
    for bad in (math.nan, math.inf):
        figures["new", "w"] = [bad if v is None else v for v in values]
        assert outcome(criterion(), figures).values == found.values


def test_a_diverged_baseline_never_enlarges_the_effect() -> None:
    figures = dict(pair(0.05))
    figures["old", "w"] = [None, *figures["old", "w"][1:]]
    found = outcome(criterion(), figures)
    assert found.baseline_values[0] == pytest.approx(0.8)  # the worst finite value of all
    assert found.estimate == pytest.approx(0.05)
    assert "1 of 10 runs of old diverged, counted as the worst run" in found.text
    both = {**figures, ("spare", "w"): [0.79] * 10}
    found = outcome(criterion(baseline="old|spare"), both)
    assert found.baseline_values == pytest.approx([0.79] + [0.8] * 9)


def test_both_diverged_is_no_win_and_all_diverged_no_reproduction() -> None:
    figures = {k: [None, *list(v)[1:]] for k, v in pair(0.05).items()}
    assert (
        outcome(criterion(), figures).values[0] < outcome(criterion(), figures).baseline_values[0]
    )
    every = {k: [None] * 10 for k in figures}
    found = outcome(criterion(), every)
    assert (found.status, found.n) == ("not reproduced", 0)
    assert "every run on w diverged" in found.text
    lost = {("new", "w"): [None] * 10, ("old", "w"): [0.8] * 10}
    assert outcome(criterion(min_effect=0.01), lost).status == "not reproduced"


@pytest.mark.parametrize("kind", ["superiority", "equivalence", "threshold", "rate", "exactness"])
def test_missing_seeds_leave_it_undecided(kind: str) -> None:
    changes = {"margin": 1.0, "reference": 0.85, "tolerance": 0.5}
    figures = {k: v[:8] for k, v in pair(0.05).items()}
    found = outcome(criterion(kind=kind, **changes), figures, seeds=10)
    assert (found.status, found.n) == ("undecided", 8)
    assert "new on w: 8 of 10 seeds" in found.text


def test_only_common_seeds_are_paired() -> None:
    def sample(metric: str, arm: str, workload: str) -> dict[int, float | None]:
        return dict.fromkeys(
            range(9) if arm == "new" else range(1, 10), 0.9 if arm == "new" else 0.8
        )

    [verdict] = judge(
        [claim(criterion())], sample, workloads=["w"], preset="full", expected_seeds=9
    )
    assert (verdict.outcomes[0].n, verdict.status) == (8, "undecided")
    assert "different seeds" in verdict.text


def test_nothing_has_run() -> None:
    found = outcome(criterion(), {}, workloads=["w"], seeds=10)
    assert (found.status, found.n, found.p, found.values) == ("undecided", 0, None, ())
    assert "no final run has a value of accuracy" in found.text
    there = {**pair(0.05), ("elsewhere", "x"): [1.0] * 10}
    assert outcome(criterion(), there).status == "reproduced"  # "all": where these arms run
    missing = outcome(criterion(workloads=("w", "x")), pair(0.05))
    assert missing.status == "undecided"
    assert "new on x: 0 of 10 seeds" in missing.text


@pytest.mark.parametrize(
    ("gain", "least", "edge", "status"),
    [
        (0.05, 0.01, "new", "reproduced"),  # better tuned it could only gain
        (0.05, 0.01, "old", "undecided"),
        (0.05, 0.08, "new", "undecided"),
        (0.05, 0.08, "old", "undecided"),
        (-0.05, 0.01, "new", "undecided"),
        (-0.05, 0.01, "old", "not reproduced"),  # a better baseline would only win more
        (0.0, 0.05, "new", "undecided"),
        (0.0, 0.05, "old", "not reproduced"),
        (0.05, 0.01, "stranger", "reproduced"),
    ],
)
def test_an_edge_matters_where_it_could_change_the_answer(
    gain: float, least: float, edge: str, status: str
) -> None:
    found = outcome(criterion(min_effect=least), pair(gain), edges=[edge])
    assert found.status == status
    assert ("edge of its search space" in found.text) == (status == "undecided")


# --- the other kinds ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"reference": 0.80}, "reproduced"),
        ({"reference": 0.90}, "not reproduced"),
        ({"reference": 0.90, "direction": "lower"}, "reproduced"),
        ({"reference": 0.80, "min_effect": 0.02}, "reproduced"),
        ({"reference": 0.80, "min_effect": 0.2}, "partly"),
        ({"reference": 0.80, "published": 0.99}, "reproduced"),  # a level is no effect
        ({"reference": 0.8, "scale": "ratio", "published": 0.99}, "reproduced"),
        ({"reference": 0.0, "scale": "ratio"}, "undecided"),
    ],
)
def test_threshold(changes: dict[str, object], status: str) -> None:
    found = outcome(criterion(kind="threshold", baseline=None, **changes), pair(0.05))
    assert found.status == status, found.text
    if status != "undecided":
        assert found.estimate == pytest.approx(0.85, rel=1e-3)
        assert found.lo < 0.85 < found.hi
        assert "the bar of" in found.text
        assert found.baseline_values == ()


def test_a_diverged_run_is_below_every_threshold() -> None:
    figures = {("new", "w"): [None, *(0.9 + NOISE[1:])]}
    found = outcome(criterion(kind="threshold", baseline=None, reference=0.5), figures)
    assert found.values[0] < 0.5


@pytest.mark.parametrize(
    ("gain", "changes", "status"),
    [
        (0.0, {"margin": 0.02}, "reproduced"),
        (0.0, {"margin": 0.002}, "undecided"),
        (0.05, {"margin": 0.02}, "not reproduced"),
        (-0.05, {"margin": 0.02}, "not reproduced"),
        (0.02, {"margin": 0.02}, "not reproduced"),
        (0.0, {"margin": 0.03, "scale": "ratio"}, "reproduced"),
        (0.0, {"margin": 1.03, "scale": "ratio"}, "reproduced"),
    ],
)
def test_equivalence(gain: float, changes: dict[str, object], status: str) -> None:
    found = outcome(criterion(kind="equivalence", **changes), pair(gain))
    assert found.status == status, found.text
    assert found.level == 0.9
    assert outcome(criterion(kind="equivalence", **changes), pair(gain), edges=["old"]).status == (
        "undecided"
    )


def test_equivalence_p_is_the_larger_of_the_two_tests() -> None:
    found = outcome(criterion(kind="equivalence", margin=0.02), pair(0.004))
    d = np.array(pair(0.004)["new", "w"]) - 0.8
    assert found.p == pytest.approx(statistics.sign_flip(d - 0.02, "lower"))


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([2.0, 2.02, 1.98], "reproduced"),
        ([2.0, 2.02, 1.97], "not reproduced"),
        ([2.0, None, 2.0], "not reproduced"),
        ([None, None, None], "not reproduced"),
    ],
)
def test_exactness_asks_every_run(values: list[float | None], status: str) -> None:
    asked = criterion(kind="exactness", baseline=None, reference=2.0, tolerance=0.0101)
    found = outcome(asked, {("new", "w"): values})
    assert (found.status, found.p, found.level) == (status, None, None), found.text


def test_exactness_is_not_averaged_over_workloads() -> None:
    asked = criterion(kind="exactness", baseline=None, reference=2.0, tolerance=0.01)
    figures = {("new", "u"): [2.1] * 3, ("new", "v"): [1.9] * 3}
    found = outcome(asked, figures)
    assert (found.status, found.lo, found.hi) == ("not reproduced", 1.9, 2.1)
    assert found.estimate == pytest.approx(2.0)
    zero = criterion(kind="exactness", baseline=None, reference=0.0, tolerance=1e-6)
    assert outcome(zero, {("new", "w"): [1e-7, -1e-7]}).status == "reproduced"
    # Violated is violated, whatever has not run yet.
    assert outcome(asked, {("new", "u"): [2.1]}, seeds=3).status == "not reproduced"


@pytest.mark.parametrize(
    ("slope", "noise", "rival", "status"),
    [
        (-2.0, 1, -1.0, "reproduced"),
        (-2.0, 1, None, "reproduced"),
        (-1.9, 1, -1.0, "not reproduced"),
        (-1.0, 1, -1.0, "not reproduced"),
        (-1.9, 200, -1.0, "undecided"),
    ],
)
def test_rate(slope: float, noise: float, rival: float | None, status: str) -> None:
    asked = criterion(kind="rate", baseline=None, reference=-2.0, rival=rival)
    found = outcome(asked, {("new", "w"): list(slope + noise * NOISE)})
    assert found.status == status, found.text
    assert found.p is None
    few = outcome(asked, {("new", "w"): list(slope + NOISE[:5])})
    assert (few.status, few.level) == ("undecided", None)
    lost = outcome(asked, {("new", "w"): [None, *(slope + NOISE[1:])]})
    assert lost.status == "not reproduced"
    assert "no slope" in lost.text


# --- families, claims, presets ------------------------------------------------------------------


def test_holm_runs_over_all_criteria_of_the_paper() -> None:
    weak = {("new", "w"): list(0.8 + 0.006 + NOISE), ("old", "w"): [0.8] * 10}
    alone = outcome(criterion(), weak)
    assert alone.status == "reproduced"
    assert 0.01 < alone.p <= 0.05
    figures = {**weak, ("same", "w"): list(0.8 + OTHER)}
    several = [
        claim(criterion(), name="weak"),
        claim(criterion(name="t", kind="threshold", arm="same", reference=0.8), name="null"),
        claim(criterion(name="e", kind="exactness", reference=1, tolerance=1), name="no p"),
    ]
    verdicts = judged(several, figures)
    first, second, third = (v.outcomes[0] for v in verdicts)
    assert [first.p_adj, second.p_adj] == statistics.holm([first.p, second.p])
    assert first.p_adj == pytest.approx(2 * alone.p)
    assert third.p_adj is None
    assert "after Holm over 2 tests" in first.text
    assert first.status != "reproduced"


def test_what_did_not_run_stays_in_the_family() -> None:
    several = [claim(criterion(), criterion(name="k2", metric="other"))]

    def sample(metric: str, arm: str, workload: str) -> dict[int, float | None]:
        return dict(enumerate(pair(0.05)[arm, "w"])) if metric == "accuracy" else {}

    [verdict] = judge(several, sample, workloads=["w"], preset="full", expected_seeds=10)
    assert verdict.outcomes[0].p_adj == 2 * verdict.outcomes[0].p
    assert verdict.outcomes[1].p_adj is None
    assert verdict.status == "partly"
    assert verdict.text.startswith("Partly: 1 of 2 criteria hold, 1 is undecided. k: 0.05")


def test_verdicts_do_not_depend_on_the_order_of_claims() -> None:
    claims = [
        claim(criterion(), name="a"),
        claim(criterion(name="t", kind="threshold", reference=0.84), name="b"),
    ]
    forth = judged(claims, pair(0.05))
    back = judged(claims[::-1], pair(0.05))
    assert forth == back[::-1]
    assert forth == judged(claims, pair(0.05))


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], "planned"),
        (["reproduced"], "reproduced"),
        (["reproduced", "reproduced"], "reproduced"),
        (["reproduced", "not reproduced"], "partly"),
        (["not reproduced", "not reproduced"], "not reproduced"),
        (["partly", "not reproduced"], "partly"),
        (["partly", "undecided"], "partly"),
        (["reproduced", "undecided"], "partly"),
        (["not reproduced", "undecided"], "undecided"),
        (["undecided"], "undecided"),
        (["reproduced", "not reproduced", "undecided"], "partly"),
        (["indication", "indication"], "indication"),
    ],
)
def test_status_of_a_claim(statuses: list[str], expected: str) -> None:
    assert claim_status(statuses) == expected
    assert claim_status(statuses[::-1]) == expected


def test_claim_of_several_criteria_says_what_each_gave() -> None:
    both = claim(criterion(name="up"), criterion(name="down", direction="lower"))
    [verdict] = judged([both], pair(0.05))
    assert verdict.status == "partly"
    assert verdict.text.startswith("Partly: 1 of 2 criteria hold. up: 0.05 (95 % interval")
    assert "adjusted p = 0.002, n = 10 seeds, reproduced; down: 0.05" in verdict.text
    [planned] = judged([claim()], pair(0.05))
    assert (planned.status, planned.outcomes, planned.text) == ("planned", (), "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "it points the claimed way"),
        ({"direction": "lower"}, "it points the other way"),
        ({"kind": "exactness", "reference": 0.85, "tolerance": 0.5}, "within the tolerance"),
        ({"kind": "rate", "reference": 0.85}, "inside the range"),
        ({"kind": "equivalence", "margin": 0.01}, "a verdict needs the full preset"),
        ({"arm": "absent"}, "no figure"),
    ],
)
def test_quick_gives_an_indication_with_figures(changes: dict[str, object], words: str) -> None:
    few = {k: v[:5] for k, v in pair(0.05).items()}
    found = outcome(criterion(**changes), few, preset="quick")
    assert found.status == "indication"
    assert "An indication only" in found.text
    assert words in found.text


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(-1e3, 1e3)), st.one_of(st.none(), st.floats(-1e3, 1e3))
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["superiority", "threshold", "equivalence", "rate", "exactness", "speed"]),
    st.sampled_from(["difference", "ratio"]),
    st.sampled_from(["higher", "lower"]),
    st.sampled_from(["seed", "workload"]),
    st.sampled_from(["quick", "full"]),
)
def test_any_figures_get_a_status_and_a_text(
    rows: list[tuple[float | None, float | None]],
    kind: str,
    scale: str,
    direction: str,
    unit: str,
    preset: str,
) -> None:
    asked = criterion(
        kind=kind,
        scale=scale,
        direction=direction,
        unit=unit,
        reference=0.5,
        margin=0.1,
        tolerance=0.1,
        published=0.7,
        rival=2.0,
    )
    figures = {("new", "w"): [a for a, _ in rows], ("old", "w"): [b for _, b in rows]}
    found = outcome(asked, figures, preset=preset)
    assert found.text
    assert (found.status == "indication") == (preset == "quick")
    if found.p is not None:
        assert 0 < found.p <= found.p_adj <= 1
        assert found.lo <= found.hi


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(-1, 1).map(lambda x: round(x, 4)), min_size=7, max_size=10),
    st.floats(0.1, 9.0),
)
def test_units_and_signs_of_the_metric_do_not_matter(d: list[float], scale: float) -> None:
    """Another unit of measurement, or counting errors instead of hits, gives the same status."""
    figures = {("new", "w"): [5 + x for x in d], ("old", "w"): [5.0] * len(d)}
    plain = outcome(criterion(min_effect=0.1), figures)
    scaled = {k: [scale * x for x in v] for k, v in figures.items()}
    turned = {k: [-x for x in v] for k, v in figures.items()}
    same_unit = outcome(criterion(min_effect=0.1 * scale), scaled)
    same_sign = outcome(criterion(min_effect=0.1, direction="lower"), turned)
    assert plain.p == same_unit.p == same_sign.p
    if abs(plain.estimate - 0.1) > 1e-9 and min(abs(plain.lo), abs(plain.hi - 0.1)) > 1e-9:
        assert plain.status == same_unit.status
    assert same_unit.estimate == pytest.approx(scale * plain.estimate)


def test_expected_seeds_must_be_sensible() -> None:
    with pytest.raises(ValueError, match="expected_seeds must be at least 1, got 0"):
        judge([], lambda *_: {}, workloads=[], preset="full", expected_seeds=0)


# ---------------------------------------------------------------- weighted sums of arms


def test_a_gap_is_compared_with_a_multiple_of_another() -> None:
    """The gap of new to full is 0.10, that of old 0.12 or 0.09: at most 1.1 times, or not."""
    full = 2.0 + NOISE
    figures = {("new", "w"): full + 0.10, ("old", "w"): full + 0.12, ("full", "w"): full}
    asked = criterion(baseline="1.1*old - 0.1*full", direction="lower")
    found = outcome(asked, figures)
    assert found.status == "reproduced"
    assert found.estimate == pytest.approx(0.10 - 1.1 * 0.12)
    assert "than that of 1.1 x old - 0.1 x full" in found.text
    figures["old", "w"] = full + 0.09
    found = outcome(asked, figures)
    assert found.status == "not reproduced"
    assert found.estimate == pytest.approx(0.10 - 1.1 * 0.09)


def test_all_arms_of_a_sum_must_have_run_inside_their_space() -> None:
    full = 2.0 + NOISE
    figures = {("new", "w"): full + 0.10, ("old", "w"): full + 0.12, ("full", "w"): full}
    asked = criterion(baseline="1.1*old - 0.1*full", direction="lower")
    assert outcome(asked, figures, edges=["full"]).status == "undecided"
    del figures["full", "w"]
    assert outcome(asked, figures, seeds=10).status == "undecided"


@pytest.mark.parametrize(
    ("baseline", "rivals"),
    [
        ("a-1", (((1.0, "a-1"),),)),
        ("a | b-2", (((1.0, "a"),), ((1.0, "b-2"),))),
        ("1.1*a-1 - 0.1*b|c", (((1.1, "a-1"), (-0.1, "b")), ((1.0, "c"),))),
        ("a + 2*b", (((1.0, "a"), (2.0, "b")),)),
    ],
)
def test_baselines_are_read(baseline: str, rivals: object) -> None:
    assert criterion(baseline=baseline).rivals == rivals


@pytest.mark.parametrize("baseline", ["1.1 a", "a - ", "2*", "x*a", "a b"])
def test_baselines_that_cannot_be_read(baseline: str) -> None:
    with pytest.raises(ValueError, match="baseline must name arms"):
        criterion(baseline=baseline)


def test_a_weighted_sum_has_no_ratio() -> None:
    with pytest.raises(ValueError, match="has no ratio scale"):
        criterion(baseline="1.1*a - 0.1*b", scale="ratio")


def test_a_label_inside_a_name_is_not_labelled_again() -> None:
    made = toy.experiment()
    arms = (
        dataclasses.replace(made.arms[0], name="sum", label="plain sum"),
        *made.arms[1:],
    )
    made = dataclasses.replace(made, arms=arms, claims=())
    verdict = Verdict(claim="better", status="undecided", text="ours - plain sum: sum is lower")
    found = rulings._in_words(verdict, made)
    assert found.text == "ours - plain sum: plain sum is lower"
