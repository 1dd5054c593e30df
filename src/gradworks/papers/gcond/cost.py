"""What a step costs: backward passes counted, times of two steps taken in turns in one process."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, nn

from gradworks.multitask.gcond import GCond
from gradworks.papers.gcond.methods import PassCounter, make_optimizer, make_step
from gradworks.papers.gcond.problems import Batch, Problem, pose
from gradworks.papers.gcond.trial import Batches

if TYPE_CHECKING:
    from gradworks.bench.trial import Trial

__all__ = ["Repeated", "trial"]

_GCOND: dict[str, Any] = {"method": "gcond", "beta1": 0.0, "lr": 1e-9}
_STOCHASTIC = {**_GCOND, "mode": "stochastic"}
_SUM: dict[str, Any] = {"method": "sum", "lr": 1e-9}
# numerator: what is measured against the stochastic mode
_RIVALS: dict[str, dict[str, Any]] = {
    "sequential": {**_GCOND, "mode": "sequential"},
    "released": {**_GCOND, "mode": "sequential"},
    "sum": _SUM,
    "pcgrad": {**_SUM, "method": "torchjd:PCGrad"},
}


def trial(trial: Trial) -> None:
    """Steps of other methods over steps of GCond's stochastic mode.

    Args:
        trial: ``spec["problem"]`` says what is learnt, ``spec["accumulation"]`` and
            ``spec["micro"]`` the size of a step, ``spec["blocks"]`` how often each pair is timed.
    """
    from gradworks.bench.timing import compare

    spec: Any = trial.spec
    problem = pose(spec["problem"])
    generator = trial.generator("batches")
    ours, passes = _stepper(_STOCHASTIC, problem, spec, generator)
    ours()
    base = passes.count
    found: dict[str, float] = {"passes_stochastic": base}
    for name in spec["against"]:
        made = _stepper(_RIVALS[name], problem, spec, generator, repeat=name == "released")
        rival, counted = made
        rival()
        found[f"passes_{name}"] = counted.count / base
        if spec["blocks"]:
            timed = compare(
                rival,
                ours,
                name=f"gcond-{name}",
                peer_name="stochastic",
                blocks=spec["blocks"],
                warm_up=1,
                threads=1,
                control=False,
            )
            found[f"wall_time_{name}"] = timed.ratio
    trial.result("test", **found)


class Repeated:
    """The sequential mode as released: a forward pass for each loss of each micro-batch.

    Args:
        problem: Its losses.
        model: The network.
        accumulation: Micro-batches a step.
    """

    def __init__(self, problem: Problem, model: nn.Module, accumulation: int) -> None:
        self.problem, self.model, self.accumulation = problem, model, accumulation
        self.params = list(model.parameters())
        self.aggregator = GCond()

    def step(self, next_batch: Callable[[], Batch]) -> None:
        """Write ``.grad``.

        Args:
            next_batch: Gives the next micro-batch.
        """
        sizes = [p.numel() for p in self.params]
        rows = self.params[0].new_zeros(len(self.problem.losses), sum(sizes))
        for _ in range(self.accumulation):
            inputs, target = next_batch()
            for row, (name, weight) in zip(rows, self.problem.weights.items(), strict=True):
                loss = weight * self.problem.losses[name](self.model(inputs), target)
                grads = torch.autograd.grad(loss / self.accumulation, self.params)
                row += torch.cat([grad.flatten() for grad in grads])
        parts = torch.split(self.aggregator(rows), sizes)
        for param, part in zip(self.params, parts, strict=True):
            param.grad = part.view_as(param)


def _stepper(
    settings: Mapping[str, Any],
    problem: Problem,
    spec: Mapping[str, Any],
    generator: Generator,
    *,
    repeat: bool = False,
) -> tuple[Callable[[], None], PassCounter]:
    """One whole training step of a method, with a network of its own."""
    model = problem.model(generator)
    count = int(spec["accumulation"])
    make: Any = Repeated if repeat else functools.partial(make_step, settings)
    made = make(problem, model, count)
    optimizer = make_optimizer(settings, model)
    batches = Batches(problem, int(spec["micro"]), generator)

    def step() -> None:
        optimizer.zero_grad()
        made.step(batches)
        optimizer.step()

    return step, PassCounter(model)
