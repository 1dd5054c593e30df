"""GCond: task gradients summed after the worst conflicts are resolved, and the step around it.

"GCond: Gradient Conflict Resolution via Accumulation-based Stabilization for Large-Scale
Multi-Task Learning", two authors, 2025, arXiv:2509.07252. :class:`GCond` is an aggregator like any
other; :class:`Conductor` is the training step that accumulates each loss over micro-batches.
"""

from __future__ import annotations

from gradworks.multitask.gcond.conductor import Conductor, ConductorStats
from gradworks.multitask.gcond.method import GCond, GCondStats
from gradworks.multitask.gcond.rules import effective_angle

__all__ = ["Conductor", "ConductorStats", "GCond", "GCondStats", "effective_angle"]
