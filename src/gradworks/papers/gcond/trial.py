"""One trial: one method trained on one problem, judged at equal samples, passes and time.

The learning rate is constant after a warm-up, so that every point of a run is the end of a shorter
one: a method that takes two backward passes a step is judged at half the steps too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Generator, Tensor, nn

from gradworks.multitask import NonFiniteGradientError
from gradworks.papers.gcond.methods import CosineWatch, PassCounter, make_optimizer, make_step
from gradworks.papers.gcond.problems import Batch, Problem, pose

if TYPE_CHECKING:
    from gradworks.bench.trial import Trial

__all__ = ["Batches", "probe", "published", "trial"]

_WARM_UP = 0.05  # of the steps
_POINTS = 15  # of a curve
_PLAIN = {"method": "sum", "lr": 0.0}
_TIMED = 20  # micro-batches, after a step that is not counted
_RIDGE = 1e-3  # of the mean square of the codes


class Batches:
    """Micro-batches without end: every example once before any comes again.

    Args:
        problem: What the examples are of.
        size: Examples of a micro-batch.
        generator: Source of the order and of what is hidden.
    """

    def __init__(self, problem: Problem, size: int, generator: Generator) -> None:
        self._problem, self._size, self._generator = problem, size, generator
        self.waiting = torch.empty(0, dtype=torch.int64)

    def __call__(self) -> Batch:
        """Return the next one."""
        if len(self.waiting) < self._size:
            order = torch.randperm(self._problem.rows, generator=self._generator)
            self.waiting = torch.cat([self.waiting, order])
        rows, self.waiting = self.waiting[: self._size], self.waiting[self._size :]
        return self._problem.batch(rows, self._generator)


def trial(trial: Trial) -> None:
    """Train one method and report its losses on held-out examples.

    Args:
        trial: ``spec["problem"]`` says what is learnt, ``spec["accumulation"]`` how many
            micro-batches of ``spec["micro"]`` examples make a step; the settings are the method's.

    Raises:
        Diverged: If training leaves the finite numbers.
    """
    from gradworks.bench.trial import Diverged

    problem = pose(trial.spec["problem"])
    model = problem.model(trial.generator("init"))
    seconds = _plain_seconds(trial, problem, model) if trial.kind == "final" else 0.0
    run = _Run(trial, problem, model, seconds)
    run.resume(trial.resume())
    try:
        run.train()
    except NonFiniteGradientError as error:
        raise Diverged(str(error)) from error
    run.report()


def _plain_seconds(trial: Trial, problem: Problem, model: nn.Module) -> float:
    """Seconds that the plain sum takes for all steps, measured here and now on a copy."""
    copy = problem.model(Generator().manual_seed(0))
    copy.load_state_dict(model.state_dict())
    accumulation = int(trial.spec["accumulation"])
    step = make_step(_PLAIN, problem, copy, accumulation)
    optimizer = make_optimizer(_PLAIN, copy)
    batches = Batches(problem, int(trial.spec["micro"]), Generator().manual_seed(0))
    taken = []
    for _ in range(1 + max(2, _TIMED // accumulation)):
        start = time.perf_counter()
        optimizer.zero_grad()
        step.step(batches)
        optimizer.step()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:]) * trial.steps


class _Run:
    """A training run and the points at which it is judged."""

    def __init__(self, trial: Trial, problem: Problem, model: nn.Module, seconds: float) -> None:
        self.trial, self.problem, self.model = trial, problem, model
        self.accumulation = int(trial.spec["accumulation"])
        self.batches = Batches(problem, int(trial.spec["micro"]), trial.generator("batches"))
        self.passes = PassCounter(model)
        self.stepper = make_step(trial.settings, problem, model, self.accumulation)
        self.optimizer = make_optimizer(trial.settings, model)
        aggregator = getattr(self.stepper, "aggregator", None)
        self.cosines = None if aggregator is None else CosineWatch(aggregator)
        self.lr = float(trial.settings["lr"])
        self.done = 0
        # what is judged where the plain sum would have ended
        self.budgets = {"passes": float(trial.steps * self.accumulation), "wall_time": seconds}
        self.found: dict[str, dict[str, float]] = {}

    def resume(self, saved: Mapping[str, Any] | None) -> None:
        """Go on from a checkpoint."""
        if saved is None:
            return
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.stepper.load_state_dict(saved["stepper"])
        self.batches.waiting = saved["waiting"]
        self.passes.count, self.done = saved["passes"], saved["done"]
        self.budgets, self.found = saved["budgets"], saved["found"]

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stepper": self.stepper.state_dict(),
            "waiting": self.batches.waiting,
            "passes": self.passes.count,
            "done": self.done,
            "budgets": self.budgets,
            "found": self.found,
        }

    def train(self) -> None:
        """All steps."""
        steps, every = self.trial.steps, max(1, self.trial.steps // _POINTS)
        warm = max(1, round(_WARM_UP * steps))
        final = self.trial.kind == "final"
        while self.done < steps:
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * min(1.0, (self.done + 1) / warm)
            looks = self.done + 1 == steps or (final and (self.done + 1) % every == 0)
            if self.cosines is not None:
                self.cosines.looks = looks
            self.optimizer.zero_grad()
            stats = self.stepper.step(self.batches)
            self.optimizer.step()
            self.done += 1
            if looks:
                self.watch(stats)
            if final:
                self.judge()
            self.trial.tick(self.done, self.state)

    def watch(self, stats: Any) -> None:
        """A point of the curves."""
        from gradworks.bench.trial import Diverged

        with self.trial.untimed():
            found = self.problem.judge(self.model, "valid")
            if not all(abs(value) < float("inf") for value in found.values()):
                raise Diverged(f"the loss is not finite after step {self.done}")
            self.trial.log(self.done, split="valid", evals=float(self.passes.count), **found)
            if self.cosines is not None and self.cosines.smallest is not None:
                self.trial.log(self.done, split="train", min_cosine=self.cosines.smallest)
            rounds = getattr(getattr(stats, "aggregator", None), "rounds", None)
            if rounds is not None:
                self.trial.log(self.done, split="train", rounds=float(rounds))

    def judge(self) -> None:
        """Keep the test figures where a budget is used up."""
        used = {"passes": self.passes.count, "wall_time": self.trial.elapsed}
        for name, budget in self.budgets.items():
            if name not in self.found and (used[name] >= budget or self.done == self.trial.steps):
                with self.trial.untimed():
                    self.found[name] = self.problem.judge(self.model, "test")

    def report(self) -> None:
        """Final figures."""
        self.trial.result("valid", **self.problem.judge(self.model, "valid"))
        if self.trial.kind == "tune":
            return
        found = self.problem.judge(self.model, "test")
        for name, values in self.found.items():
            found |= {f"{key}_{name}": value for key, value in values.items()}
        found["passes"] = self.passes.count / self.trial.steps
        found["seconds_a_step"] = self.trial.elapsed / self.trial.steps
        if self.problem.probed is not None:
            encoder: Any = self.model.encoder
            found["probe"] = probe(encoder, self.problem.probed)
        self.trial.result("test", **found)


@torch.no_grad()
def probe(encoder: Callable[[Tensor], Tensor], sets: Mapping[str, tuple[Tensor, Tensor]]) -> float:
    """Return the accuracy of a linear classifier of codes, fitted by ridge regression.

    Args:
        encoder: Makes the codes.
        sets: ``"train"`` and ``"test"``, images and labels.
    """

    def codes(split: str) -> Tensor:
        found = encoder(sets[split][0]).flatten(1).double()
        return torch.cat([found, found.new_ones(len(found), 1)], 1)

    known, labels = codes("train"), sets["train"][1]
    wanted = torch.nn.functional.one_hot(labels).double()
    gram = known.T @ known
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    weights = torch.linalg.solve(gram, known.T @ wanted)
    right = (codes("test") @ weights).argmax(1) == sets["test"][1]
    return float(right.double().mean())


def published(trial: Trial) -> NoReturn:
    """The published scale: refuses.

    Args:
        trial: Names data, network and hardware.

    Raises:
        MissingData: Always, with what it would take.
    """
    from gradworks.bench.data import MissingData

    wanted: Any = trial.spec
    raise MissingData(
        f"the paper preset trains {wanted['network']} on {wanted['data']} by masked "
        f"reconstruction with {wanted['accumulation']} micro-batches a step: it needs "
        f"{wanted['hardware']}, and images that no package carries. Run --preset full for a "
        "verdict on this machine"
    )
