"""The criteria that a preset's workloads can decide."""

from __future__ import annotations

from gradworks.bench.claims import Claim, Criterion
from gradworks.bench.experiment import Workload
from gradworks.papers._deciding import decidable


def workload(name: str, *arms: str) -> Workload:
    return Workload(name=name, label=name, trial="tests.papers.toy:trial", arms=arms)


def criterion(*workloads: str, baseline: str = "peer") -> Criterion:
    return Criterion(
        name="c",
        kind="superiority",
        metric="error",
        arm="ours",
        baseline=baseline,
        workloads=workloads,
    )


def claim(name: str, *criteria: Criterion) -> Claim:
    return Claim(id=name, statement=name, published="", holds_when="", criteria=criteria)


def test_a_criterion_keeps_the_workloads_with_both_sides() -> None:
    both, one = workload("both", "ours", "peer"), workload("one", "ours")
    (kept,) = decidable([claim("a", criterion("both", "one", "gone"))], [both, one])
    assert [c.workloads for c in kept.criteria] == [("both",)]


def test_a_criterion_of_several_workloads_may_need_them_all() -> None:
    claims = [claim("a", criterion("both", "gone")), claim("b", criterion("both"))]
    made = decidable(claims, [workload("both", "ours", "peer")], whole=True)
    assert [c.id for c in made] == ["b"]


def test_what_cannot_be_decided_goes() -> None:
    claims = [claim("a", criterion("one")), claim("b", criterion("both"))]
    made = decidable(claims, [workload("both", "ours", "peer"), workload("one", "ours")])
    assert [c.id for c in made] == ["b"]


def test_the_published_scale_takes_the_place_and_repeats_go() -> None:
    claims = [claim("a", criterion("small"), criterion("other"))]
    large = [workload("large", "ours", "peer")]
    (kept,) = decidable(claims, large, instead={"error": ["large"]})
    assert [c.workloads for c in kept.criteria] == [("large",)]


def test_every_arm_of_a_sum_must_run_and_no_names_mean_all() -> None:
    claims = [claim("a", criterion(baseline="1.1*peer - 0.1*third"))]
    two, every = workload("two", "ours", "peer"), workload("every")
    (kept,) = decidable(claims, [two, every])
    assert [c.workloads for c in kept.criteria] == [()]
    assert decidable(claims, [two]) == ()
