"""Gradients that conflict: aggregators of per-task gradients, and the driver that collects them.

An aggregator maps the Jacobian ``(tasks, params)`` of several losses to one direction;
:class:`TaskGradients` collects that Jacobian from any model and writes ``.grad``.
"""

from __future__ import annotations

from gradworks.multitask.aggregator import Aggregator, NonFiniteGradientError
from gradworks.multitask.collect import AggregationStats, TaskGradients
from gradworks.multitask.sam_gs import SAMGS

__all__ = ["SAMGS", "AggregationStats", "Aggregator", "NonFiniteGradientError", "TaskGradients"]
