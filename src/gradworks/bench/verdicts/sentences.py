"""Outcomes and verdicts in words, with figures, interval, p and n."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradworks.bench.claims import Claim, Criterion, Outcome, Status
from gradworks.bench.verdicts.measures import Measure, shown_floor
from gradworks.bench.verdicts.rules import Ruling
from gradworks.bench.verdicts.units import Units

__all__ = ["claim_text", "number", "outcome_text"]

STATUS_WORDS: dict[Status, str] = {
    "reproduced": "Reproduced",
    "partly": "Partly",
    "not reproduced": "Not reproduced",
    "undecided": "Undecided",
    "indication": "An indication only",
}


def number(x: float) -> str:
    """Return four significant digits, with a true minus sign."""
    return f"{x:.4g}".replace("-", "\N{MINUS SIGN}") if math.isfinite(x) else "no figure"


def _p(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.0001 else "p < 0.0001"


def _interval(lo: float, hi: float, level: float | None) -> str:
    ends = f"{number(lo)} to {number(hi)}"
    return f"range {ends}" if level is None else f"{100 * level:.0f} % interval {ends}"


def _counted(n: int, unit: str) -> str:
    return f"{n} {unit}" + ("" if n == 1 else "s")


def outcome_text(
    criterion: Criterion,
    units: Units,
    found: Measure | None,
    ruling: Ruling,
    p_adj: float | None,
    family: int,
    quick: bool,
) -> str:
    """Return one criterion's outcome in a few sentences."""
    parts = []
    if found is not None:
        parts.append(_figures(criterion, units, found, p_adj, family))
        parts.append(_bars(criterion))
    if units.diverged:
        parts.append(_diverged(criterion, units))
    if found is not None and found.reversed_on:
        parts.append("Significantly the other way on " + ", ".join(found.reversed_on) + ".")
    if found is not None and found.p is not None and _deterministic(units):
        parts.append(
            f"Every {criterion.unit} gives the same figures: nothing is random here, so that p "
            "counts repetitions, not evidence, and the figures speak for themselves."
        )
    if quick:
        parts.append(_indication(criterion, units, found))
    else:
        reason = ruling.reason
        if ruling.status == "undecided" and ruling.n_needed and ruling.n_needed > units.n:
            more = _counted(ruling.n_needed, criterion.unit)
            if str(ruling.n_needed) not in reason:
                reason += f"; {more} would give 80 % power"
        parts.append(f"{STATUS_WORDS[ruling.status]}: {reason}.")
    return " ".join(part for part in parts if part)


def _deterministic(units: Units) -> bool:
    sides = (units.arm,) if units.baseline is None else (units.arm, units.baseline)
    return units.n > 1 and all(side.min() == side.max() for side in sides)


def _figures(
    criterion: Criterion, units: Units, found: Measure, p_adj: float | None, family: int
) -> str:
    """Return the sentence of what was measured."""
    metric, arm = criterion.metric, criterion.arm
    size = _counted(units.n, criterion.unit)
    interval = _interval(found.lo, found.hi, found.level)
    if criterion.kind == "exactness":
        off = found.deviation if found.deviation is not None else math.inf
        how = "" if (criterion.reference or 0) == 0 else " (relative)"
        return (
            f"{metric} of {arm} is {number(found.estimate)} ({interval}) where "
            f"{number(criterion.reference or 0.0)} is claimed; the largest deviation{how} of "
            f"{units.runs} runs is {number(off)}, {number(criterion.tolerance or 0.0)} is allowed."
        )
    if criterion.kind == "rate":
        rival = "" if criterion.rival is None else f" and {number(criterion.rival)} is the rival"
        return (
            f"{metric} of {arm} is {number(found.estimate)} ({interval}) where "
            f"{number(criterion.reference or 0.0)} is claimed{rival}; n = {size}."
        )
    tests = _tests(criterion, found, p_adj, family)
    if criterion.kind == "threshold":
        side = "above" if found.estimate > (criterion.reference or 0.0) else "not above"
        if criterion.direction == "lower":
            side = "below" if found.estimate < (criterion.reference or 0.0) else "not below"
        return (
            f"{metric} of {arm} is {number(found.estimate)} ({interval}), {side} the bar of "
            f"{number(criterion.reference or 0.0)}; {tests}, n = {size}."
        )
    rivals = criterion.rival_names()
    other = " or ".join(rivals)
    other = f"the better of {other}" if len(rivals) > 1 else other
    if criterion.scale == "ratio":
        said = f"is {number(found.estimate)} times that of {other} ({interval})"
    else:
        if found.estimate == 0:
            said = f"equals that of {other} ({interval} of the difference"
        else:
            word = "higher" if found.estimate > 0 else "lower"
            said = (
                f"is {number(abs(found.estimate))} {word} than that of {other} "
                f"({interval} of the difference"
            )
        if units.baseline is not None and units.n:
            means = (
                f"{number(float(units.arm.mean()))} against {number(float(units.baseline.mean()))}"
            )
            said += f"; {means}"
        if found.effect_size is not None and criterion.unit == "seed":
            said += f"; {number(found.effect_size)} seed standard deviations"
        said += ")"
    return f"{metric} of {arm} {said}; {tests}, n = {size}."


def _tests(criterion: Criterion, found: Measure, p_adj: float | None, family: int) -> str:
    name = "sign-flip"
    if criterion.kind == "equivalence":
        name = "two one-sided tests"
    elif criterion.unit == "workload":
        name = "Wilcoxon"
    if found.p is None:
        return name
    text = f"{name} {_p(found.p)}"
    if p_adj is not None and family > 1:
        text += f" ({_p(p_adj)} after Holm over {family} tests)"
    return text


def _bars(criterion: Criterion) -> str:
    """Return what it is measured by: margin, smallest effect, the paper's figure."""
    said = []
    if criterion.kind == "equivalence":
        said.append(f"counts as equal within {number(criterion.margin or 0.0)}")
    floor = shown_floor(criterion)
    if floor is not None:
        said.append(f"the smallest effect worth having is {number(floor)}")
    if criterion.published is not None:
        said.append(f"the paper's figure is {number(criterion.published)}")
    text = ", ".join(said)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _diverged(criterion: Criterion, units: Units) -> str:
    ours = units.diverged.get(criterion.arm, 0)
    said = []
    if ours:
        how = (
            "counted as a failure"
            if criterion.kind in ("rate", "exactness")
            else "counted as worse than any run"
        )
        said.append(f"{ours} of {units.runs} runs of {criterion.arm} diverged, {how}")
    for name, k in units.diverged.items():
        if name != criterion.arm:
            said.append(f"{k} of {units.runs} runs of {name} diverged, counted as the worst run")
    return "; ".join(said) + "."


def _indication(criterion: Criterion, units: Units, found: Measure | None) -> str:
    if found is None:
        why = units.trouble or "; ".join(units.lacking[:2]) or "every run diverged"
        return f"{STATUS_WORDS['indication']}, and no figure: {why}."
    if criterion.kind == "exactness":
        met = found.deviation is not None and found.deviation <= (criterion.tolerance or 0.0)
        way = "every run is within the tolerance" if met else "a run is outside the tolerance"
    elif criterion.kind == "rate":
        inside = found.lo <= (criterion.reference or 0.0) <= found.hi
        way = f"the claimed slope is {'inside' if inside else 'outside'} the range"
    elif criterion.kind == "equivalence":
        way = "a verdict needs the full preset"
    elif found.gain > 0:
        way = "it points the claimed way"
    else:
        way = "it points the other way" if found.gain < 0 else "it points neither way"
    size = _counted(units.n, criterion.unit)
    return f"{STATUS_WORDS['indication']} ({size}): {way}."


def claim_text(claim: Claim, status: Status, outcomes: Sequence[Outcome]) -> str:
    """Return a claim's verdict: the outcome itself, or what each of several gave."""
    if not outcomes:
        return ""
    if len(outcomes) == 1:
        return outcomes[0].text
    if status == "indication":
        head = "An indication only, from few seeds"
    else:
        held = sum(o.status == "reproduced" for o in outcomes)
        head = f"{STATUS_WORDS[status]}: {held} of {len(outcomes)} criteria hold"
        undecided = sum(o.status == "undecided" for o in outcomes)
        if undecided:
            head += f", {undecided} " + ("is" if undecided == 1 else "are") + " undecided"
    return f"{head}. " + "; ".join(_short(claim, o) for o in outcomes) + "."


def _short(claim: Claim, outcome: Outcome) -> str:
    unit = next((c.unit for c in claim.criteria if c.name == outcome.criterion), "seed")
    text = f"{outcome.criterion}: {number(outcome.estimate)}"
    if math.isfinite(outcome.lo):
        text += f" ({_interval(outcome.lo, outcome.hi, outcome.level)})"
    if outcome.p_adj is not None:
        text += f", adjusted {_p(outcome.p_adj)}"
    text += f", n = {_counted(outcome.n, unit)}"
    return text if outcome.status == "indication" else f"{text}, {outcome.status}"
