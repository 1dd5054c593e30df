"""Which criteria of a paper's claims the workloads of a preset can decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from gradworks.bench.claims import Claim, Criterion
from gradworks.bench.experiment import Workload

__all__ = ["decidable"]


def decidable(
    claims: Sequence[Claim],
    workloads: Sequence[Workload],
    *,
    instead: Mapping[str, Sequence[str]] | None = None,
    whole: bool = False,
) -> tuple[Claim, ...]:
    """Return the claims with the criteria, and those with the workloads, that a preset has.

    A criterion keeps the workloads on which its arm and all arms of its baseline run; without one
    it goes, and so does a claim without criteria. Of criteria that come to ask the same the first
    is kept.

    Args:
        claims: All claims of the paper.
        workloads: Those of the preset, which name their arms.
        instead: For a metric, the workloads that take the place of the criterion's own, such as the
            published scale's.
        whole: Keep a criterion only where all its workloads are.
    """
    arms = {workload.name: workload.arms for workload in workloads}
    made = []
    for claim in claims:
        kept: list[Criterion] = []
        for criterion in claim.criteria:
            named = (instead or {}).get(criterion.metric, criterion.workloads)
            sides = {criterion.arm, *(arm for terms in criterion.rivals for _, arm in terms)}
            # a workload that names no arms runs them all; a criterion that names none takes all
            there = [name for name in named or arms if name in arms]
            found = tuple(name for name in there if not arms[name] or sides <= set(arms[name]))
            if not found or (whole and set(found) < set(named)):
                continue
            asked = dataclasses.replace(criterion, workloads=found if named else ())
            if all(_question(c) != _question(asked) for c in kept):
                kept.append(asked)
        if kept:
            made.append(dataclasses.replace(claim, criteria=tuple(kept)))
    return tuple(made)


def _question(criterion: Criterion) -> tuple[object, ...]:
    """What a criterion asks, whatever it is called and from whatever effect on it counts."""
    c = criterion
    return c.kind, c.metric, c.arm, c.baseline, c.direction, c.scale, c.reference, c.workloads
