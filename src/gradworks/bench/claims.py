"""What a paper claims, in a form that a run can decide.

A :class:`Claim` is one sentence of a paper with the published figure. It holds one or more
:class:`Criterion`, each a statistical test on the metrics of the final runs. Judging a criterion
gives an :class:`Outcome`; judging all criteria of a claim gives a :class:`Verdict`. The rules are
those of the protocol page of the documentation: direction fixed beforehand, paired designs, Holm
over a paper's claims, a smallest effect worth having.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "STATUSES",
    "Claim",
    "Criterion",
    "Direction",
    "Kind",
    "Outcome",
    "Status",
    "Verdict",
]

Kind = Literal["superiority", "threshold", "equivalence", "rate", "exactness", "speed"]
Direction = Literal["higher", "lower"]
Status = Literal[
    "reproduced", "partly", "not reproduced", "undecided", "indication", "planned", "failed"
]

_SIGN = re.compile(r"\s+([+-])\s+")  # with spaces: names of arms may hold a hyphen
_TERM = re.compile(r"(?:(?P<weight>\d+(?:\.\d+)?)\*)?(?P<arm>[^\s*]+)")

STATUSES: tuple[Status, ...] = (
    "reproduced",
    "partly",
    "not reproduced",
    "undecided",
    "indication",
    "planned",
    "failed",
)


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One test on the final runs.

    The sample is a value a *unit*. A unit is a seed (averaged over ``workloads``) or a workload
    (averaged over seeds). ``superiority``, ``equivalence`` and ``speed`` pair ``arm`` with
    ``baseline`` inside each unit; ``threshold`` compares ``arm`` with the constant ``reference``;
    ``exactness`` asks every unit to be within ``tolerance`` of ``reference``; ``rate`` takes
    ``metric`` as a slope already fitted a unit and asks for ``reference`` inside and ``rival``
    outside its interval.

    Args:
        name: Short name, unique inside the claim.
        kind: Which rule decides it.
        metric: Name of a final metric that the trials log.
        arm: Arm whose value is judged.
        baseline: Arm it is compared with; several separated by ``|`` mean the best of them in
            each unit. A weighted sum of arms, ``"1.1*a - 0.1*b"``, is compared as such inside each
            unit: a gap to ``b`` at most 1.1 times that of ``a``.
        direction: Which way is better.
        unit: What is independent: ``"seed"`` or ``"workload"``.
        scale: ``"difference"`` of the values or ``"ratio"`` (arm over baseline; logs are tested).
        workloads: Workloads that count; empty means all.
        published: The paper's figure of this effect, on ``scale``; None where it printed none.
        reference: The constant of ``threshold``, ``exactness`` and ``rate``.
        rival: The slope that must be excluded (``rate``).
        margin: Half-width inside which two arms count as equal (``equivalence``).
        tolerance: Largest relative deviation from ``reference`` (``exactness``).
        min_effect: Smallest effect worth having on ``scale`` (a ratio of 1.1 is ``1.1``); None
            takes a third of ``published``, or no minimum where nothing was published.
    """

    name: str
    kind: Kind
    metric: str
    arm: str
    baseline: str | None = None
    direction: Direction = "higher"
    unit: Literal["seed", "workload"] = "seed"
    scale: Literal["difference", "ratio"] = "difference"
    workloads: tuple[str, ...] = ()
    published: float | None = None
    reference: float | None = None
    rival: float | None = None
    margin: float | None = None
    tolerance: float | None = None
    min_effect: float | None = None

    def __post_init__(self) -> None:
        needs = {
            "superiority": ("baseline",),
            "speed": ("baseline",),
            "equivalence": ("baseline", "margin"),
            "threshold": ("reference",),
            "exactness": ("reference", "tolerance"),
            "rate": ("reference",),
        }
        if self.kind not in needs:
            raise ValueError(f"kind must be one of {sorted(needs)}, got {self.kind!r}")
        missing = [name for name in needs[self.kind] if getattr(self, name) is None]
        if missing:
            raise ValueError(
                f"criterion {self.name!r} of kind {self.kind!r} needs {', '.join(missing)}"
            )
        if self.direction not in ("higher", "lower"):
            raise ValueError(f"direction must be 'higher' or 'lower', got {self.direction!r}")
        summed = any(len(terms) > 1 or terms[0][0] != 1 for terms in self.rivals)
        if summed and self.scale == "ratio":
            raise ValueError(f"criterion {self.name!r}: a weighted sum has no ratio scale")

    @property
    def rivals(self) -> tuple[tuple[tuple[float, str], ...], ...]:
        """What ``baseline`` names: alternatives, each a sum of weights and arms.

        Raises:
            ValueError: If it cannot be read.

        Example:
            >>> made = Criterion(
            ...     name="c", kind="superiority", metric="m", arm="x", baseline="1.1*a - 0.1*b"
            ... )
            >>> made.rivals
            (((1.1, 'a'), (-0.1, 'b')),)
        """
        found = []
        for alternative in (part.strip() for part in (self.baseline or "").split("|")):
            if not alternative:
                continue
            pieces = ["+", *_SIGN.split(alternative)]
            terms = []
            for sign, text in zip(pieces[::2], pieces[1::2], strict=True):
                term = _TERM.fullmatch(text)
                if term is None:
                    raise ValueError(
                        f"baseline must name arms, as in 'a', 'a|b' or '1.1*a - 0.1*b', got "
                        f"{self.baseline!r}"
                    )
                weight = float(term["weight"] or 1.0)
                terms.append((weight if sign == "+" else -weight, term["arm"]))
            found.append(tuple(terms))
        return tuple(found)

    def rival_names(self, labels: Mapping[str, str] | None = None) -> list[str]:
        """Return each alternative of ``baseline`` as a reader would write it.

        Args:
            labels: What to call the arms; None keeps their names.

        Example:
            >>> made = Criterion(
            ...     name="c", kind="superiority", metric="m", arm="x", baseline="1.1*a - 0.1*b"
            ... )
            >>> made.rival_names({"a": "A"})
            ['1.1 x A - 0.1 x b']
        """
        found = []
        for terms in self.rivals:
            said = ""
            for weight, arm in terms:
                sign = ("-" if weight < 0 else "+") if said or weight < 0 else ""
                times = "" if abs(weight) == 1 else f"{abs(weight):g} x "
                said += f" {sign} {times}{(labels or {}).get(arm, arm)}"
            found.append(" ".join(said.split()))
        return found


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of a paper.

    Args:
        id: Short name, unique inside the paper, used in tables and stores.
        statement: The claim in our own words, one sentence.
        published: What the paper prints, as text with its figures; empty where nothing readable.
        holds_when: The criterion in words, as a reader would check it.
        setting: Where the paper shows it (model, data).
        scaled_down: What differs here from that setting.
        primary: True for the one claim that gives the paper its badge.
        criteria: The tests. Empty only for a paper that is still planned.
    """

    id: str
    statement: str
    published: str
    holds_when: str
    setting: str = ""
    scaled_down: str = ""
    primary: bool = False
    criteria: tuple[Criterion, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out of one criterion.

    ``estimate``, ``lo`` and ``hi`` are on the criterion's scale (a ratio is a ratio, not a log).
    ``lo`` and ``hi`` are the ends of the interval at ``level``, or the smallest and largest unit
    where there are fewer than six units (``level`` is then None).
    """

    criterion: str
    kind: Kind
    status: Status
    estimate: float
    lo: float
    hi: float
    level: float | None
    p: float | None
    p_adj: float | None
    n: int
    min_effect: float | None
    n_needed: int | None
    published: float | None
    values: tuple[float, ...]
    baseline_values: tuple[float, ...]
    text: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came out of one claim."""

    claim: str
    status: Status
    outcomes: tuple[Outcome, ...] = field(default_factory=tuple)
    text: str = ""
