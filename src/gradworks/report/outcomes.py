"""A result beside the claims it decides: one view for the terminal and for the pages.

A stored document holds what came out; how to read it (ratio or difference, which arms, which side
is better) stands in the paper's criteria. Where the paper has since dropped a criterion, the
document alone is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradworks.bench.claims import Claim, Criterion

__all__ = ["ClaimView", "OutcomeView", "claim_views", "planned_views", "primary_view"]


@dataclass(frozen=True)
class OutcomeView:
    """One criterion as it came out.

    Attributes:
        name: The criterion.
        kind: ``"superiority"``, ``"exactness"``, …
        status: What it gave.
        scale: ``"ratio"``, ``"difference"`` or ``"value"``: how the figures are to be read.
        unit: ``"seed"`` or ``"workload"``.
        direction: Which way is better, or ``""`` where that has no meaning.
        neutral: The value that means no effect, or None.
        compared: The two sides in words.
        record: The stored outcome.
        within: Where the figure must lie (exactness, equivalence), or None.
    """

    name: str
    kind: str
    status: str
    scale: str
    unit: str
    direction: str
    neutral: float | None
    compared: str
    record: Mapping[str, Any]
    within: tuple[float, float] | None = None


@dataclass(frozen=True)
class ClaimView:
    """One claim with what came out; planned papers have no outcomes and the status planned."""

    id: str
    statement: str
    published: str
    holds_when: str
    setting: str
    scaled_down: str
    primary: bool
    status: str
    text: str
    outcomes: tuple[OutcomeView, ...]

    @property
    def sentence(self) -> str:
        """What came out in words: where there are several criteria, without their figures."""
        if len(self.outcomes) < 2:
            return self.text
        head, dot, _ = self.text.partition(". ")
        return head + dot.strip()


def claim_views(
    document: Mapping[str, Any], claims: Sequence[Claim] | None = None
) -> list[ClaimView]:
    """Return the claims of a result, the primary one first.

    Args:
        document: ``Result.document``.
        claims: The paper's claims; None finds them in the catalogue, where there is such a paper.
    """
    known = _claims(document["paper"]) if claims is None else claims
    criteria = {(claim.id, c.name): c for claim in known for c in claim.criteria}
    labels = {arm["name"]: arm["label"] for arm in document.get("arms", ())}
    views = [_view(claim, criteria, labels) for claim in document["claims"]]
    return sorted(views, key=lambda view: not view.primary)


def planned_views(claims: Sequence[Claim], status: str = "planned") -> list[ClaimView]:
    """Return the claims of a paper that has no result, the primary one first."""
    views = [
        ClaimView(
            id=claim.id,
            statement=claim.statement,
            published=claim.published,
            holds_when=claim.holds_when,
            setting=claim.setting,
            scaled_down=claim.scaled_down,
            primary=claim.primary,
            status=status,
            text="",
            outcomes=(),
        )
        for claim in claims
    ]
    return sorted(views, key=lambda view: not view.primary)


def primary_view(views: Sequence[ClaimView]) -> ClaimView | None:
    """Return the claim that gives the badge, or None where there is no claim."""
    return next((v for v in views if v.primary), views[0] if views else None)


def _claims(slug: str) -> Sequence[Claim]:
    """The claims of ``slug``; none for a user's own comparison."""
    from gradworks import papers

    try:
        return papers.find(slug).claims
    except LookupError:
        return ()


def _view(
    claim: Mapping[str, Any],
    criteria: Mapping[tuple[str, str], Criterion],
    labels: Mapping[str, str],
) -> ClaimView:
    outcomes = tuple(
        _outcome(record, criteria.get((claim["id"], record["criterion"])), labels)
        for record in claim.get("outcomes", ())
    )
    return ClaimView(
        id=claim["id"],
        statement=claim["statement"],
        published=claim["published"],
        holds_when=claim["holds_when"],
        setting=claim.get("setting", ""),
        scaled_down=claim.get("scaled_down", ""),
        primary=bool(claim.get("primary")),
        status=claim["status"],
        text=claim.get("text", ""),
        outcomes=outcomes,
    )


def _outcome(
    record: Mapping[str, Any], criterion: Criterion | None, labels: Mapping[str, str]
) -> OutcomeView:
    kind = record["kind"]
    scale, neutral, compared, unit, direction = "value", None, "", "unit", ""
    if criterion is not None:
        arm = labels.get(criterion.arm, criterion.arm)
        unit = criterion.unit
        if criterion.baseline is not None:
            scale = criterion.scale
            neutral = 1.0 if scale == "ratio" else 0.0
            direction = criterion.direction
            rivals = criterion.rival_names(labels)
            best = "the better of " if len(rivals) > 1 else ""
            compared = f"{arm} against {best}{' and '.join(rivals)}"
        else:
            neutral = criterion.reference
            compared = arm
            direction = criterion.direction if kind == "threshold" else ""
    return OutcomeView(
        name=record["criterion"],
        kind=kind,
        status=record["status"],
        scale=scale,
        unit=unit,
        direction=direction,
        neutral=neutral,
        compared=compared,
        record=record,
        within=_within(criterion) if criterion is not None else None,
    )


def _within(criterion: Criterion) -> tuple[float, float] | None:
    """The ends between which a figure counts as equal."""
    if criterion.kind == "exactness":
        reference = criterion.reference or 0.0
        room = (criterion.tolerance or 0.0) * (abs(reference) or 1.0)
        return reference - room, reference + room
    if criterion.kind == "equivalence":
        margin = abs(criterion.margin or 0.0)
        if criterion.scale == "ratio":
            factor = margin if margin > 1 else 1 + margin
            return 1 / factor, factor
        return -margin, margin
    return None
