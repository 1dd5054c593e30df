"""Each method as one step that writes ``.grad``, and the optimizer behind it.

All steps take the same micro-batches. The plain sum takes one backward pass for each of them, a
method that wants the gradient of every loss takes as many as there are losses, and stochastic
accumulation takes one again, of a single loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradworks.multitask import Aggregator, from_torchjd
from gradworks.multitask.gcond import Conductor, GCond
from gradworks.multitask.loss_weighting import GradNorm

if TYPE_CHECKING:
    from gradworks.papers.gcond.problems import Batch, Problem

__all__ = ["CosineWatch", "GradNormStep", "PassCounter", "Smoothed", "make_optimizer", "make_step"]

NextBatch = Callable[[], "Batch"]

_BETA2, _WEIGHT_DECAY = 0.95, 0.05  # of AdamW in the authors' example, here for every method


class Smoothed(Aggregator):
    """Another aggregator and, after it, GCond's momentum: what GCond is without its projections.

    Args:
        inner: What comes first; None is the plain sum.
        beta: Of the moving average, which is corrected for its start.
    """

    def __init__(self, inner: Aggregator | None = None, beta: float = 0.85) -> None:
        super().__init__()
        self.inner = Aggregator() if inner is None else inner
        self.beta = beta
        self.reset()

    def reset(self) -> None:
        """Forget the average."""
        self.average: Tensor | None = None
        self.calls = 0
        self.inner.reset()

    def forward(self, jacobian: Tensor) -> Tensor:
        """Return the average of the directions so far.

        Args:
            jacobian: ``(tasks, params)``.
        """
        direction = self.inner(jacobian)
        if self.average is None:
            self.average = torch.zeros_like(direction)
        self.calls += 1
        self.average.lerp_(direction, 1 - self.beta)
        return self.average / (1 - self.beta**self.calls)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the average and how many directions it holds."""
        return {"average": self.average, "calls": self.calls}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up a saved average.

        Args:
            state: Of :meth:`get_extra_state`.
        """
        self.average, self.calls = state["average"], state["calls"]


class PassCounter:
    """Counts backward passes that reach a network, whoever makes them.

    Args:
        model: The network; its first parameter, which every loss reaches, is watched.
    """

    def __init__(self, model: nn.Module) -> None:
        self.count = 0
        next(iter(model.parameters())).register_hook(self._seen)  # type: ignore[no-untyped-call]

    def _seen(self, grad: Tensor) -> None:
        self.count += 1


class CosineWatch:
    """The smallest cosine between the gradients of two losses, before anything is done to them.

    Args:
        aggregator: What gets the gradients.
    """

    def __init__(self, aggregator: nn.Module) -> None:
        self.looks = False
        self.smallest: float | None = None
        aggregator.register_forward_pre_hook(self._seen)

    def _seen(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        rows = given[0]
        if not self.looks or len(rows) < 2:
            return
        unit = torch.nn.functional.normalize(rows, dim=1)
        cosines = (unit @ unit.T).fill_diagonal_(1.0)
        self.smallest = float(cosines.min())


def _aggregator(settings: Mapping[str, Any]) -> Aggregator:
    """The aggregator of a method, with GCond's momentum behind it where asked for."""
    name = str(settings["method"])
    if name == "gcond":
        return GCond(**settings.get("options", {}))
    inner: Aggregator | None = None
    if name.startswith("torchjd:"):
        inner = from_torchjd(name.removeprefix("torchjd:"), **settings.get("options", {}))
    elif name != "sum":
        raise ValueError(f"method must be 'sum', 'gcond', 'gradnorm' or 'torchjd:…', got {name!r}")
    beta = settings.get("smoothing")
    return (inner or Aggregator()) if beta is None else Smoothed(inner, beta)


class GradNormStep:
    """Plain accumulation with loss weights that GradNorm trains at every micro-batch.

    Its own passes, one a loss, end at the last layer and are not counted.

    Args:
        problem: Its losses, weighted as for the others at the start.
        model: The network; its last layer is the one whose gradients are compared.
        accumulation: Micro-batches a step.
    """

    def __init__(self, problem: Problem, model: nn.Module, accumulation: int) -> None:
        self.problem, self.model, self.accumulation = problem, model, accumulation
        self.weighting = GradNorm()
        self.last = [p for p in model.parameters() if p.dim() > 1][-1:]

    def step(self, next_batch: NextBatch) -> None:
        """Write ``.grad``.

        Args:
            next_batch: Gives the next micro-batch.

        Raises:
            NonFiniteGradientError: If a loss is not finite.
        """  # noqa: DOC502
        for _ in range(self.accumulation):
            inputs, target = next_batch()
            output = self.model(inputs)
            losses = [
                weight * self.problem.losses[name](output, target)
                for name, weight in self.problem.weights.items()
            ]
            weighted = self.weighting(losses, shared=self.last)
            torch.autograd.backward(weighted / self.accumulation)

    def state_dict(self) -> dict[str, Any]:
        """Return the weights and what trains them."""
        found: dict[str, Any] = self.weighting.state_dict()
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Args:
            state: Of :meth:`state_dict`.
        """
        self.weighting.load_state_dict(state)


def make_step(
    settings: Mapping[str, Any], problem: Problem, model: nn.Module, accumulation: int
) -> Conductor | GradNormStep:
    """Return what makes a step: ``step(next_batch)``, ``state_dict`` and ``load_state_dict``.

    Args:
        settings: ``method``; ``mode`` of accumulation; ``smoothing``, the momentum of a sum;
            ``options`` of GCond.
        problem: Its losses.
        model: The network.
        accumulation: Micro-batches a step.

    Raises:
        ValueError: If the method is unknown.
    """  # noqa: DOC502
    if settings["method"] == "gradnorm":
        return GradNormStep(problem, model, accumulation)
    mode = settings.get("mode", "sequential")
    losses, weights = dict(problem.losses), dict(problem.weights)
    if settings["method"] == "sum" and mode == "sequential":
        losses, weights = {"sum": problem.loss}, {"sum": 1.0}  # one pass has them all
    return Conductor(
        model, losses, weights, accumulation, mode=mode, aggregator=_aggregator(settings)
    )


def make_optimizer(settings: Mapping[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW, or plain descent behind a method that scales its own steps.

    Args:
        settings: ``lr``; ``beta1`` of AdamW, zero where the method has a momentum of its own;
            ``optimizer``, ``"sgd"`` for plain descent.
        model: The network.
    """
    if settings.get("optimizer") == "sgd":
        return torch.optim.SGD(model.parameters(), lr=settings["lr"])
    betas = (float(settings.get("beta1", 0.9)), _BETA2)
    return torch.optim.AdamW(
        model.parameters(), lr=settings["lr"], betas=betas, weight_decay=_WEIGHT_DECAY
    )
