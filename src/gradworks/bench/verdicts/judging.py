"""All claims of a paper at once, because Holm's correction runs over all of their tests."""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Sequence

import numpy as np

from gradworks.bench import statistics
from gradworks.bench.claims import Claim, Criterion, Outcome, Status, Verdict
from gradworks.bench.verdicts.measures import TESTED, Measure, measure, shown_floor
from gradworks.bench.verdicts.rules import rule
from gradworks.bench.verdicts.sentences import claim_text, outcome_text
from gradworks.bench.verdicts.units import Sample, Units, gather, on_log_scale

__all__ = ["claim_status", "judge"]


def judge(
    claims: Sequence[Claim],
    sample: Sample,
    *,
    workloads: Sequence[str],
    preset: str,
    edges: Collection[str] = (),
    expected_seeds: int,
) -> list[Verdict]:
    """Give each claim its verdict from the figures of the final runs.

    Args:
        claims: All claims of the paper; Holm's correction runs over all their tests.
        sample: ``sample(metric, arm, workload)`` gives the final figure of each seed, None for a
            run that diverged; a seed that has not run has no entry.
        workloads: Names of the workloads of the experiment.
        preset: ``"quick"`` gives indications, everything else verdicts.
        edges: Arms whose best point stayed on the border of the search space after two widenings.
        expected_seeds: Seeds that every arm should have on every workload.

    Returns:
        One verdict a claim, in their order.

    Raises:
        ValueError: If ``expected_seeds`` is below 1.

    Example:
        >>> from gradworks.bench.claims import Claim, Criterion
        >>> better = Criterion(
        ...     name="better", kind="superiority", metric="acc", arm="new", baseline="old"
        ... )
        >>> claim = Claim(
        ...     id="c", statement="new is better", published="", holds_when="", criteria=(better,)
        ... )
        >>> figures = {
        ...     "new": {s: 0.9 + 0.001 * s for s in range(10)},
        ...     "old": {s: 0.8 + 0.002 * s for s in range(10)},
        ... }
        >>> [verdict] = judge(
        ...     [claim],
        ...     lambda metric, arm, workload: figures[arm],
        ...     workloads=["w"],
        ...     preset="full",
        ...     expected_seeds=10,
        ... )
        >>> verdict.status, verdict.outcomes[0].p
        ('reproduced', 0.0009765625)
    """
    if expected_seeds < 1:
        raise ValueError(f"expected_seeds must be at least 1, got {expected_seeds}")
    asked = [(claim, criterion) for claim in claims for criterion in claim.criteria]
    units = [gather(criterion, sample, workloads, expected_seeds) for _, criterion in asked]
    found = [
        measure(criterion, sampled, _rng(claim, criterion))
        for (claim, criterion), sampled in zip(asked, units)
    ]
    # A test without figures stays in the family: what failed to run must not ease the others.
    family = [i for i, (_, criterion) in enumerate(asked) if criterion.kind in TESTED]
    adjusted = dict(zip(family, statistics.holm([_p(found[i]) for i in family])))
    outcomes: dict[str, list[Outcome]] = {claim.id: [] for claim in claims}
    for i, (claim, criterion) in enumerate(asked):
        outcomes[claim.id].append(
            _outcome(
                criterion,
                units[i],
                found[i],
                None if found[i] is None else adjusted.get(i),
                max(1, len(family)),
                edges,
                preset == "quick",
            )
        )
    verdicts = []
    for claim in claims:
        status = claim_status([o.status for o in outcomes[claim.id]])
        text = claim_text(claim, status, outcomes[claim.id])
        verdicts.append(
            Verdict(claim=claim.id, status=status, outcomes=tuple(outcomes[claim.id]), text=text)
        )
    return verdicts


def claim_status(outcomes: Sequence[Status]) -> Status:
    """Return the status of a claim from those of its criteria.

    =========================================  ==============
    criteria                                   claim
    =========================================  ==============
    none at all                                planned
    from a quick preset                        indication
    all reproduced                             reproduced
    one or more reproduced or partly           partly
    all not reproduced                         not reproduced
    some undecided, the others not reproduced  undecided
    =========================================  ==============

    "Partly" says that something was shown to hold, which may be said as soon as it is true; what
    is open beside it is told in the text. "Reproduced" and "not reproduced" speak of all criteria
    and wait for all.

    Args:
        outcomes: Statuses of the criteria.

    Returns:
        The claim's status.

    Example:
        >>> claim_status(["reproduced", "undecided"])
        'partly'
        >>> claim_status(["not reproduced", "undecided"])
        'undecided'
    """
    if not outcomes:
        return "planned"
    if "indication" in outcomes:
        return "indication"
    if all(status == "reproduced" for status in outcomes):
        return "reproduced"
    if "partly" in outcomes or "reproduced" in outcomes:
        return "partly"
    return "undecided" if "undecided" in outcomes else "not reproduced"


def _p(found: Measure | None) -> float:
    return 1.0 if found is None or found.p is None else found.p


def _rng(claim: Claim, criterion: Criterion) -> np.random.Generator:
    """Return a generator of the criterion's own: no verdict depends on the order of claims."""
    return np.random.default_rng(zlib.crc32(f"{claim.id}/{criterion.name}".encode()))


def _outcome(
    criterion: Criterion,
    units: Units,
    found: Measure | None,
    p_adj: float | None,
    family: int,
    edges: Collection[str],
    quick: bool,
) -> Outcome:
    ruling = rule(criterion, units, found, p_adj, family, edges)
    shown = np.exp if on_log_scale(criterion) else np.asarray
    return Outcome(
        criterion=criterion.name,
        kind=criterion.kind,
        status="indication" if quick else ruling.status,
        estimate=math.nan if found is None else found.estimate,
        lo=math.nan if found is None else found.lo,
        hi=math.nan if found is None else found.hi,
        level=None if found is None else found.level,
        p=None if found is None else found.p,
        p_adj=p_adj,
        n=units.n,
        min_effect=shown_floor(criterion),
        n_needed=ruling.n_needed,
        published=criterion.published,
        values=tuple(float(v) for v in shown(units.arm)),
        baseline_values=()
        if units.baseline is None
        else tuple(float(v) for v in shown(units.baseline)),
        text=outcome_text(criterion, units, found, ruling, p_adj, family, quick),
    )
