"""Final figures to paired units: what is missing, what diverged, which runs belong together.

A value is a number, or None for a run that diverged (or gave no finite number); a seed without an
entry is a run that has not been made. Diverged runs are never dropped. Inside each workload a
diverged run of the judged arm stands one whole range of the observed values below the worst of
them; one of a baseline stands at the worst. So a divergence of the arm always costs it the
unit, and a divergence of a baseline never makes an effect larger than any run has shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gradworks.bench.claims import Criterion

__all__ = ["Sample", "Units", "baselines", "gather", "on_log_scale"]

Sample = Callable[[str, str, str], Mapping[int, float | None]]  # (metric, arm, workload)
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """The sample of one criterion, on the scale that is tested (logarithms for a ratio).

    Attributes:
        names: Seeds or workloads, in order.
        arm: One value a unit.
        baseline: One value a unit, the best baseline of each; None where the criterion has none.
        cells: For each workload the paired values a seed, before any averaging.
        runs: Number of runs behind ``arm``.
        diverged: Arms with diverged runs, and how many.
        lacking: What should have run and has not, as phrases; empty when complete.
        trouble: Why no number can be computed at all, or ``""``.
        hopeless: True where the trouble is that every run diverged: more runs would not help.
    """

    names: tuple[int | str, ...] = ()
    arm: Vector = field(default_factory=lambda: np.empty(0))
    baseline: Vector | None = None
    cells: Mapping[str, tuple[Vector, Vector | None]] = field(default_factory=dict)
    runs: int = 0
    diverged: Mapping[str, int] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()
    trouble: str = ""
    hopeless: bool = False

    @property
    def n(self) -> int:
        """Number of units."""
        return len(self.names)


def baselines(criterion: Criterion) -> tuple[str, ...]:
    """Return the names of all arms that the baseline is made of."""
    return tuple(dict.fromkeys(arm for terms in criterion.rivals for _, arm in terms))


def on_log_scale(criterion: Criterion) -> bool:
    """Return whether logarithms are tested: a ratio, of a kind that compares."""
    return criterion.scale == "ratio" and criterion.kind not in ("rate", "exactness")


def gather(
    criterion: Criterion, sample: Sample, workloads: Sequence[str], expected_seeds: int
) -> Units:
    """Collect the units of one criterion.

    Args:
        criterion: What is tested.
        sample: Final figures: ``sample(metric, arm, workload)`` gives a value a seed.
        workloads: Workloads of the experiment.
        expected_seeds: Seeds that each arm should have on each workload.

    Returns:
        The units, with what is missing and what diverged.
    """
    members = (criterion.arm, *(b for b in baselines(criterion) if b != criterion.arm))
    wanted = criterion.workloads or tuple(workloads)
    raw = {
        w: {m: dict(sample(criterion.metric, m, w)) if w in workloads else {} for m in members}
        for w in wanted
    }
    if not criterion.workloads:  # "all" means all that these arms run on
        raw = {w: cells for w, cells in raw.items() if any(cells.values())}
    lacking: list[str] = []
    if not raw:
        return Units(lacking=(f"no final run has a value of {criterion.metric}",))
    shared: dict[str, list[int]] = {}
    for w, cells in raw.items():
        for m, found in cells.items():
            if len(found) < expected_seeds:
                lacking.append(f"{m} on {w}: {len(found)} of {expected_seeds} seeds")
        shared[w] = sorted(set.intersection(*(set(found) for found in cells.values())))
    if criterion.unit == "seed":
        common = sorted(set.intersection(*(set(seeds) for seeds in shared.values())))
        shared = dict.fromkeys(raw, common)
    shared = {w: seeds for w, seeds in shared.items() if seeds}
    if not shared:
        return Units(lacking=tuple(lacking) or ("no seed has run on every arm and workload",))
    if not lacking and min(map(len, shared.values())) < expected_seeds:
        lacking.append("the arms have run on different seeds")
    known = {
        w: {m: [_number(raw[w][m][s]) for s in seeds] for m in members}
        for w, seeds in shared.items()
    }
    diverged = {
        m: sum(math.isnan(v) for cells in known.values() for v in cells[m]) for m in members
    }
    known_of = Units(
        runs=sum(map(len, shared.values())),
        diverged={m: k for m, k in diverged.items() if k},
        lacking=tuple(lacking),
    )
    if on_log_scale(criterion) and criterion.reference is not None and criterion.reference <= 0:
        text = f"a ratio needs values above 0, the reference is {criterion.reference:.4g}"
        return replace(known_of, trouble=text)
    table: dict[str, dict[str, Vector]] = {}
    for w, rows in known.items():
        values = {m: np.array(v) for m, v in rows.items()}
        if all(np.isnan(v).all() for v in values.values()):
            return replace(known_of, trouble=f"every run on {w} diverged", hopeless=True)
        if on_log_scale(criterion):
            for m, v in values.items():
                if (v <= 0).any():
                    text = f"a ratio needs values above 0, {m} has {np.nanmin(v):.4g} on {w}"
                    return replace(known_of, trouble=text)
            values = {m: np.log(v) for m, v in values.items()}
        table[w] = _filled(criterion, values)
    return _averaged(known_of, criterion, table, shared)


def _number(value: float | None) -> float:
    return math.nan if value is None or not math.isfinite(value) else float(value)


def _filled(criterion: Criterion, values: dict[str, Vector]) -> dict[str, Vector]:
    """Put the worst in the place of diverged runs; see the module's docstring."""
    if criterion.kind in ("rate", "exactness"):
        return values  # a diverged run fails these as such
    sign = 1.0 if criterion.direction == "higher" else -1.0
    seen = np.concatenate([v[np.isfinite(v)] for v in values.values()])
    if criterion.kind == "threshold" and criterion.reference is not None:
        level = criterion.reference
        bar = math.log(level) if on_log_scale(criterion) and level > 0 else level
        seen = np.append(seen, bar)
    worst = sign * (sign * seen).min()
    span = float(np.ptp(seen)) or (1.0 if on_log_scale(criterion) else abs(worst) or 1.0)
    return {
        m: np.where(np.isnan(v), worst - sign * span if m == criterion.arm else worst, v)
        for m, v in values.items()
    }


def _averaged(
    known_of: Units,
    criterion: Criterion,
    table: dict[str, dict[str, Vector]],
    shared: dict[str, list[int]],
) -> Units:
    """Average inside each unit, then take the best baseline of each."""
    others = criterion.rivals

    def best(of: Mapping[str, Vector]) -> Vector | None:
        if not others:
            return None
        stack = np.stack([np.sum([w * of[m] for w, m in terms], axis=0) for terms in others])
        found: Vector = stack.max(axis=0) if criterion.direction == "higher" else stack.min(axis=0)
        return found

    members = {m for cells in table.values() for m in cells}
    if criterion.unit == "seed":
        names: tuple[int | str, ...] = tuple(next(iter(shared.values())))
        means = {m: np.mean([cells[m] for cells in table.values()], axis=0) for m in members}
    else:
        names = tuple(table)
        means = {m: np.array([cells[m].mean() for cells in table.values()]) for m in members}
    return replace(
        known_of,
        names=names,
        arm=means[criterion.arm],
        baseline=best(means),
        cells={w: (cells[criterion.arm], best(cells)) for w, cells in table.items()},
    )
