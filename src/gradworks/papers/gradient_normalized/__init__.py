"""Gradient-Normalized Smoothness for Optimization with Approximate Hessians (2025, arXiv:2506.13710).

Each problem of the authors' notebook, and two regressions on real data, solved with the exact
Hessian, with the paper's approximation and with none. The criteria were fixed before the first run.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradworks.bench.experiment import Arm, Experiment, Workload
from gradworks.papers._deciding import decidable
from gradworks.papers.gradient_normalized.claims import ARM, CARD, CLAIMS
from gradworks.papers.gradient_normalized.figures import figures
from gradworks.papers.gradient_normalized.presets import PRESETS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

_HERE = "gradworks.papers.gradient_normalized.trial"
_METHOD = "gradworks.optim.gradient_normalized.minimize"
ARMS = (
    Arm(name=ARM, label="gradient-normalised Newton", method=_METHOD),
    Arm(name="solves", label="rank-one solve", method=_METHOD),
)
_DATA = {"breast-cancer": "breast_cancer", "digits": "digits"}


def _label(name: str, spec: Mapping[str, Any]) -> str:
    """What tables and plots print."""
    kind = spec["kind"]
    if kind == "logsumexp":
        return f"log-sum-exp {spec['m']} x {spec['n']}, mu = {spec['mu']:g}"
    if kind == "linear":
        return f"linear residual {spec['m']} x {spec['n']}, p = {spec['p']:g}"
    if kind == "rosenbrock":
        return "Rosenbrock" if spec["p"] is None else f"Rosenbrock, p = {spec['p']:g}"
    if kind == "chebyshev":
        return f"Chebyshev n = {spec['n']}, p = {spec['p']:g}"
    return {"breast-cancer": "logistic regression, breast cancer"}.get(
        name, "softmax regression, digits"
    )


def _workloads(chosen: Mapping[str, Any]) -> tuple[Workload, ...]:
    """The problems of a preset."""
    made = [
        Workload(
            name=name,
            label=_label(name, spec),
            trial=f"{_HERE}:solve",
            spec=dict(spec),
            steps=spec["limit"],
            arms=(ARM,),
            data=(_DATA[name],) if name in _DATA else (),
            select_on="iterations_approximate",
        )
        for name, spec in chosen["problems"].items()
    ]
    made.append(
        Workload(
            name="solves",
            label="one solve, rank one against dense",
            trial=f"{_HERE}:solves",
            spec=dict(chosen["solves"]),
            arms=("solves",),
            select_on="dense_over_rank_one",
        )
    )
    return tuple(made)


def build(preset: str) -> Experiment:
    """Return the experiment of a preset.

    Args:
        preset: ``"quick"``, ``"full"`` or ``"paper"``, whose sizes take hours.

    Returns:
        Workloads, arms and the claims they decide.

    Raises:
        ValueError: If there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    chosen = PRESETS[preset]
    workloads = _workloads(chosen)
    return Experiment(
        paper=CARD.slug,
        preset=preset,
        workloads=workloads,
        arms=ARMS,
        claims=decidable(CLAIMS, workloads),
        final_seeds=chosen["final_seeds"],
        trial_seconds=chosen["trial_seconds"],
        notes=tuple(chosen["notes"]),
    )
