"""From the name of a method to what writes ``.grad`` for several losses.

=============================  ==================================================================
name                           what it is
=============================  ==================================================================
``sum``                        the plain sum of the losses
``weighted``                   a sum with fixed weights: ``weights`` by task, and ``weight`` for the
                               tasks that the workload lists as ``weighted``
``torchjd:NAME``               an aggregator of torchjd, as it is
``gradworks.multitask:NAME``   an aggregator of ours, or ``module:class`` of anybody's
``weighting:NAME``             a loss weighting of ``gradworks.multitask.loss_weighting``
=============================  ==================================================================

Settings that are not the trial's own (``lr``, ``clip``, ``weight``, ``weights``) go to the class.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradworks.bench.multitask.networks import SharedTrunk
from gradworks.bench.targets import resolve
from gradworks.multitask import AggregationStats, TaskGradients, from_torchjd, loss_weighting

__all__ = ["Method", "make_method"]

OWN = frozenset({"lr", "clip", "weight", "weights"})


class Method:
    """Writes the gradients of one step.

    Args:
        model: The network.
        tasks: Names of the tasks.
        scales: What each loss is multiplied by before the method sees it.
        clip: Largest norm of the trunk's gradient; None: no clip.
    """

    def __init__(
        self,
        model: SharedTrunk,
        tasks: Sequence[str],
        scales: Mapping[str, float],
        clip: float | None,
    ) -> None:
        self.shared = list(model.trunk.parameters())
        heads = {name: list(model.heads[name].parameters()) for name in model.heads}
        self.driver = TaskGradients(self.shared, heads)
        self.scales = {task: float(scales.get(task, 1.0)) for task in tasks}
        self.clip = clip

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What the method itself learns beside the network."""
        return []

    def backward(self, losses: Mapping[str, Tensor], *, watch: bool) -> AggregationStats | None:
        """Write ``.grad`` of trunk and heads.

        Args:
            losses: By task, as the problem states them.
            watch: Keep what conflicts and which weights the direction implies.
        """
        scaled = {task: loss * self.scales[task] for task, loss in losses.items()}
        found = self.write(scaled, watch)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.shared, self.clip)
        return found

    def write(self, losses: Mapping[str, Tensor], watch: bool) -> AggregationStats | None:
        """Write ``.grad``; what each method does its own way."""
        raise TypeError(f"{type(self).__name__} must say how it writes gradients")

    def after(self, losses: Callable[[], Mapping[str, Tensor]]) -> None:
        """Learn from the step that was taken.

        Args:
            losses: Gives the losses after the step, on the same batch.
        """


class _Weighted(Method):
    """A sum with fixed weights, in one backward pass."""

    def __init__(self, *args: Any, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(*args)
        for task, weight in (weights or {}).items():
            self.scales[task] *= weight

    def write(self, losses: Mapping[str, Tensor], watch: bool) -> AggregationStats | None:
        if watch:  # the same sum, a row a task
            return self.driver.backward(losses, _summed, statistics=True)
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        return None


def _summed(jacobian: Tensor) -> Tensor:
    return jacobian.sum(0)


class _Aggregated(Method):
    """An aggregator over the rows of the Jacobian."""

    def __init__(self, *args: Any, aggregator: nn.Module) -> None:
        super().__init__(*args)
        self.aggregator = aggregator

    def write(self, losses: Mapping[str, Tensor], watch: bool) -> AggregationStats | None:
        return self.driver.backward(losses, self.aggregator, statistics=watch)


class _Weighting(Method):
    """Losses weighted by a method that learns the weights."""

    def __init__(self, *args: Any, weighting: loss_weighting.LossWeighting) -> None:
        super().__init__(*args)
        self.weighting = weighting
        matrices = [i for i, p in enumerate(self.shared) if p.dim() > 1]
        self.last = self.shared[matrices[-1] :] if weighting.uses_shared else None

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.weighting.parameters())

    def write(self, losses: Mapping[str, Tensor], watch: bool) -> AggregationStats | None:
        stats = None
        if watch:
            gramian = self.driver.gramian(losses, retain_graph=True)
            values = torch.stack([loss.detach() for loss in losses.values()])
            norms = gramian.diagonal().clamp_min(0).sqrt()
            stats = AggregationStats(tuple(losses), norms, (), values, gramian=gramian)
        torch.autograd.backward(self.weighting(losses, self.last))
        return stats and dataclasses.replace(stats, weights=self.weighting.weights)

    def after(self, losses: Callable[[], Mapping[str, Tensor]]) -> None:
        if self.weighting.uses_update:
            with torch.no_grad():
                found = losses()
                self.weighting.update({t: found[t] * self.scales[t] for t in found})


def make_method(
    name: str,
    settings: Mapping[str, Any],
    model: SharedTrunk,
    *,
    scales: Mapping[str, float] | None = None,
    weighted: Sequence[str] = (),
) -> Method:
    """Return a method by name.

    Args:
        name: As in the table of this module.
        settings: Of the arm, chosen knobs among them.
        model: The network.
        scales: What each loss is multiplied by before the method sees it.
        weighted: Tasks that ``settings["weight"]`` is for.

    Raises:
        ValueError: If there is no such method, or a setting it does not take.
        ImportError: If torchjd is not installed.
    """  # noqa: DOC502
    clip = settings.get("clip")
    given = (model, model.tasks, scales or {}, None if clip is None else float(clip))
    options = {key: value for key, value in settings.items() if key not in OWN}
    if name in ("sum", "weighted"):
        _refuse(name, options)
        weights = {task: float(settings.get("weight", 1.0)) for task in weighted}
        weights |= settings.get("weights") or {}
        return _Weighted(*given, weights=weights if name == "weighted" else None)
    kind, _, what = name.partition(":")
    if kind == "torchjd":
        if what == "NashMTL":
            options.setdefault("n_tasks", len(model.tasks))
        return _Aggregated(*given, aggregator=from_torchjd(what, **options))
    if kind == "weighting":
        made = getattr(loss_weighting, what, None)
        if what not in loss_weighting.__all__ or made is None:
            raise ValueError(f"weighting must be one of {loss_weighting.__all__}, got {what!r}")
        _refuse(name, _unknown(made, options))
        if "num_tasks" in inspect.signature(made).parameters:
            options["num_tasks"] = len(model.tasks)
        return _Weighting(*given, weighting=made(**options))
    if not what:
        raise ValueError(
            f"method must be 'sum', 'weighted', 'single', 'torchjd:NAME', 'weighting:NAME' or "
            f"'module:class' of an aggregator, got {name!r}"
        )
    made = resolve(name)
    _refuse(name, _unknown(made, options))
    return _Aggregated(*given, aggregator=made(**options))


def _unknown(made: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    taken = inspect.signature(made).parameters
    return {key: value for key, value in options.items() if key not in taken}


def _refuse(name: str, options: Mapping[str, Any]) -> None:
    if options:
        raise ValueError(f"{name!r} takes no setting {sorted(options)}")
