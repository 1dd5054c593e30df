"""The gradients of several losses in the parameters that they share, and one step from them."""

from __future__ import annotations

from gradworks.multitask.collect.driver import TaskGradients
from gradworks.multitask.collect.inputs import Losses
from gradworks.multitask.collect.stats import AggregationStats

__all__ = ["AggregationStats", "Losses", "TaskGradients"]
