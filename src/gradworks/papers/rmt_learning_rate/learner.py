"""Training with a learner of rate and momentum, and with tuned schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from gradworks.papers.rmt_learning_rate.problems import Examples, network, split

if TYPE_CHECKING:
    from torch import Tensor

    from gradworks.bench.trial import Trial
    from gradworks.curvature.learning_rate.learner import Rule

__all__ = ["train"]

MOMENTUM = 0.9  # of every tuned schedule, and where a learner starts
LANCZOS_STEPS = 20
STATISTICS = 128
# Example gradients of one measurement: a Hessian product costs about three; all steps are taken
# twice, on the statistics batch and on its quarters, which give the noise.
_MEASUREMENT = 3 * 2 * LANCZOS_STEPS * STATISTICS


class _Schedule(Protocol):
    """What a torch scheduler and the learner have in common."""

    def step(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


def train(trial: Trial) -> None:
    """Train one network with the arm's schedule; its error on what was held out is the result.

    Args:
        trial: The arm's ``schedule`` is ``"constant"``, ``"cosine"``, ``"one_cycle"`` or the rule
            of a learner; ``lr`` is its rate or where it starts.
    """
    run = _Run(trial)
    run.resume()
    while run.step < trial.steps:
        run.train_step()
        trial.tick(run.step, run.state)
    run.finish()


class _Run:
    """One training under way: what is saved, and one step."""

    def __init__(self, trial: Trial) -> None:
        import torch

        self.trial, spec = trial, trial.spec
        self.train, self.valid, self.test = split(spec, trial.generator("examples"))
        self.size = trial.workload.batch_size
        self.epoch_steps = len(self.train[1]) // self.size
        self.model = network(spec, tuple(self.train[0].shape[1:]), trial.generator("init"))
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=float(trial.settings["lr"]), momentum=MOMENTUM
        )
        self.learns = trial.arm.fixed["schedule"] in ("heavy_ball", "rmt", "cauchy")
        self.schedule = self._schedule(str(trial.arm.fixed["schedule"]))
        self.step = 0
        self.order = torch.empty(0, dtype=torch.long)
        self.loss = torch.zeros(())

    def _schedule(self, kind: str) -> _Schedule:
        from torch.optim import lr_scheduler

        steps = self.trial.steps
        if kind == "constant":
            return lr_scheduler.LambdaLR(self.optimizer, _one)
        if kind == "cosine":
            return lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=steps)
        if kind == "one_cycle":
            # momentum stays as it is, as with the other schedules
            top = float(self.trial.settings["lr"])
            return lr_scheduler.OneCycleLR(
                self.optimizer, max_lr=top, total_steps=steps + 1, cycle_momentum=False
            )
        return self._learner(kind)

    def _learner(self, rule: str) -> _Schedule:
        import torch.nn.functional as F

        from gradworks.curvature.learning_rate import CurvatureSchedule

        made: _Schedule = CurvatureSchedule(
            self.optimizer,
            self.model,
            F.cross_entropy,
            self.train,
            rule=cast("Rule", rule),
            num_steps=LANCZOS_STEPS,
            statistics=STATISTICS,
            batch_size=self.size,
            dataset_size=len(self.train[1]),
            generator=self.trial.generator("learner"),
        )
        return made

    def resume(self) -> None:
        """Go on from a checkpoint, if there is one."""
        saved = self.trial.resume()
        if saved is None:
            return
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.step, self.order = int(saved["step"]), saved["order"]

    def state(self) -> dict[str, Any]:
        """All that is needed to go on from here."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "order": self.order,
        }

    def _rows(self) -> Tensor:
        """The examples of the next step: a fresh order an epoch, its last few left out."""
        import torch

        at = self.step % self.epoch_steps
        if at == 0:
            self.order = torch.randperm(len(self.train[1]), generator=self.trial.generator("order"))
        return self.order[at * self.size : (at + 1) * self.size]

    def train_step(self) -> None:
        """One step; a learner measures at the end of an epoch, other schedules move every step."""
        import torch.nn.functional as F

        rows = self._rows()
        self.model.train()
        loss = F.cross_entropy(self.model(self.train[0][rows]), self.train[1][rows])
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        epoch_ends = self.step % self.epoch_steps == 0
        if epoch_ends:
            self._look(float(loss.detach()))
        if epoch_ends or not self.learns:
            self.schedule.step()

    def _look(self, loss: float) -> None:
        """Log an epoch's end; stop where the loss is lost."""
        from gradworks.bench.trial import Diverged

        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} after {self.step} steps")
        group = self.optimizer.param_groups[0]
        self.trial.log(self.step, split="train", lr=group["lr"], momentum=group["momentum"])
        with self.trial.untimed():
            self.trial.log(self.step, split="valid", **self._figures(self.valid))

    def _figures(self, data: Examples) -> dict[str, float]:
        """Loss and share of wrong answers."""
        import torch
        import torch.nn.functional as F

        self.model.eval()
        with torch.no_grad():
            outputs = self.model(data[0])
        wrong = (outputs.argmax(1) != data[1]).double().mean()
        return {"loss": float(F.cross_entropy(outputs, data[1])), "error": float(wrong)}

    def finish(self) -> None:
        """Give the figures; the held-out examples are opened by final runs only."""
        from gradworks.bench.trial import Diverged

        found = self._figures(self.valid)
        if not math.isfinite(found["loss"]):
            raise Diverged(f"the loss is {found['loss']} after {self.step} steps")
        self.trial.result("valid", **found)
        if self.trial.kind == "tune":
            return
        tested = self._figures(self.test)
        allowed = tested["error"] + (0.0 if self.learns else float(self.trial.spec["allowance"]))
        self.trial.result("test", **tested, error_allowed=allowed, **self._cost())

    def _cost(self) -> Mapping[str, float]:
        """What the learner's products cost, in gradients of examples over those of training."""
        if not self.learns:
            return {}
        measurements = len(self.schedule.history)  # type: ignore[attr-defined]
        share = measurements * _MEASUREMENT / (self.trial.steps * self.size)
        return {"learner_share": share, "measurements": float(measurements)}


def _one(step: int) -> float:
    """A rate that stays."""
    return 1.0
