"""Multi-task problems on real data, and a trial that trains any method on them.

A workload names ``gradworks.bench.multitask.training:train`` as its trial and the problem in its
``spec``; an arm names its method: ``"sum"``, ``"weighted"``, ``"single"``, ``"torchjd:PCGrad"``,
``"gradworks.multitask:SAMGS"``, ``"weighting:GradNorm"``.
"""

from __future__ import annotations

from gradworks.bench.multitask.definition import MultiTaskProblem
from gradworks.bench.multitask.measures import delta_m, log_error, mean_rank
from gradworks.bench.multitask.networks import SharedTrunk
from gradworks.bench.multitask.problems import NAMES, problem

__all__ = [
    "NAMES",
    "MultiTaskProblem",
    "SharedTrunk",
    "delta_m",
    "log_error",
    "mean_rank",
    "problem",
]
