"""Langevin dynamics on spheres and in space, averages of iterates, planted directions.

"Improved high-dimensional estimation with Langevin dynamics and stochastic weight averaging", 2026,
arXiv:2603.06028. No authors' code was found. The paper analyses continuous time; the step here, the
time scale ``lr = cs / (temperature * d)``, the second moment for even orders and the refinement are
ours. The high-temperature limits that the tests check (the average iterate is the partial-trace
estimator) are derived, not copied.
"""

from __future__ import annotations

from gradworks.optim.langevin.average import IterateAverage, direction
from gradworks.optim.langevin.dynamics import langevin_step, trajectory
from gradworks.optim.langevin.optimizer import Langevin
from gradworks.optim.langevin.recovery import Problem, Recovery, recover
from gradworks.optim.langevin.single_index import SingleIndex, hermite, single_index
from gradworks.optim.langevin.spiked import (
    TensorPCA,
    partial_trace,
    power_iteration,
    spiked_tensor,
    tensor_gradient,
    tensor_value,
)

__all__ = [
    "IterateAverage",
    "Langevin",
    "Problem",
    "Recovery",
    "SingleIndex",
    "TensorPCA",
    "direction",
    "hermite",
    "langevin_step",
    "partial_trace",
    "power_iteration",
    "recover",
    "single_index",
    "spiked_tensor",
    "tensor_gradient",
    "tensor_value",
    "trajectory",
]
