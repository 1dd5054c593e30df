"""Fair comparison: data and workloads, the protocol, statistics, run store, resume and timing.

Names load on first use; importing this package imports neither torch nor scipy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradworks.bench.claims import Claim, Criterion, Outcome, Verdict
from gradworks.bench.experiment import Arm, Experiment, Knob, Workload
from gradworks.bench.figures import Figure, Series

if TYPE_CHECKING:
    from gradworks.bench.result import Result
    from gradworks.bench.runner import RunFailed, RunInterrupted, StoreError, plan, run
    from gradworks.bench.trial import Diverged, Trial, TrialInterrupted
    from gradworks.bench.workloads import Problem

__all__ = [
    "Arm",
    "Claim",
    "Criterion",
    "Diverged",
    "Experiment",
    "Figure",
    "Knob",
    "Outcome",
    "Problem",
    "Result",
    "RunFailed",
    "RunInterrupted",
    "Series",
    "StoreError",
    "Trial",
    "TrialInterrupted",
    "Verdict",
    "Workload",
    "plan",
    "run",
]

_LAZY = {
    "Diverged": "trial",
    "Problem": "workloads",
    "Result": "result",
    "RunFailed": "runner",
    "RunInterrupted": "runner",
    "StoreError": "runner",
    "Trial": "trial",
    "TrialInterrupted": "trial",
    "plan": "runner",
    "run": "runner",
}


def __getattr__(name: str) -> Any:
    """Import the part that holds ``name`` when it is first asked for (PEP 562)."""
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
