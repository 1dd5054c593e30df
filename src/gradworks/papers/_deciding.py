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
) -> tuple[Claim, ...]:
    """Return the claims with the criteria, and those with the workloads, that a preset has.

    A criterion keeps the workloads on which its arm and all arms of its baseline run; without one
    it goes, and so does a claim without criteria. Criteria that become the same are kept once.

    Args:
        claims: All claims of the paper.
        workloads: Those of the preset, which name their arms.
        instead: For a metric, the workloads that take the place of the criterion's own, such as the
            published scale's.
    """
    arms = {workload.name: workload.arms for workload in workloads}
    made = []
    for claim in claims:
        kept: list[Criterion] = []
        for criterion in claim.criteria:
            wanted = (instead or {}).get(criterion.metric, criterion.workloads) or tuple(arms)
            sides = {criterion.arm, *(arm for terms in criterion.rivals for _, arm in terms)}
            # a workload that names no arms runs them all
            there = [name for name in wanted if name in arms]
            found = tuple(name for name in there if not arms[name] or sides <= set(arms[name]))
            same = [(c.arm, c.baseline, c.metric, c.workloads) for c in kept]
            if found and (criterion.arm, criterion.baseline, criterion.metric, found) not in same:
                kept.append(dataclasses.replace(criterion, workloads=found))
        if kept:
            made.append(dataclasses.replace(claim, criteria=tuple(kept)))
    return tuple(made)
