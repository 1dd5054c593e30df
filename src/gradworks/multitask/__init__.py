"""Gradients that conflict: aggregators of per-task gradients, and the driver that collects them.

An aggregator maps the Jacobian ``(tasks, params)`` of several losses to one direction;
:class:`TaskGradients` collects that Jacobian from any model and writes ``.grad``. Aggregators of
torchjd come through :func:`from_torchjd`.
"""

from __future__ import annotations

from gradworks.multitask.adapter import from_torchjd
from gradworks.multitask.aggregator import (
    Aggregator,
    ColumnAggregator,
    GramianAggregator,
    NonFiniteGradientError,
)
from gradworks.multitask.collect import AggregationStats, TaskGradients
from gradworks.multitask.gcond import Conductor, GCond
from gradworks.multitask.sam_gs import SAMGS

__all__ = [
    "SAMGS",
    "AggregationStats",
    "Aggregator",
    "ColumnAggregator",
    "Conductor",
    "GCond",
    "GramianAggregator",
    "NonFiniteGradientError",
    "TaskGradients",
    "from_torchjd",
]
