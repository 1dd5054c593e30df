"""From the figures of the final runs to a verdict, by rules fixed before the runs.

:func:`judge` is a pure function: no store, no clock, no randomness but a fixed one. ``units`` turns
final figures into paired units, ``measures`` computes estimates, intervals and p-values, ``rules``
decides, ``sentences`` says it in words. The protocol page of the documentation explains each rule.

What the status of a claim follows from: all criteria reproduced -> reproduced; some of them, or in
part -> partly; none -> not reproduced, or undecided where one is still open. A quick preset gives
indications only.
"""

from __future__ import annotations

from gradworks.bench.verdicts.judging import claim_status, judge
from gradworks.bench.verdicts.measures import ALPHA

__all__ = ["ALPHA", "claim_status", "judge"]
