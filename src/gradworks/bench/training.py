"""The generic trial: train a named problem with an optimizer, for ``Workload.trial``.

``trial="gradworks.bench.training:train"`` and a ``spec`` of

- ``problem``: a name of :mod:`gradworks.bench.workloads` or a user's function;
- ``schedule``: ``"cosine"`` (down to a tenth) or ``"constant"``; ``warmup``: the part of the budget
  in which the rate rises linearly, 0.05;
- ``evals``: evaluations on a fixed grid of steps, 40;
- ``decay``: ``"weights"`` (the default: weight decay acts on parameters of two and more dimensions,
  for every arm) or ``"all"``;
- ``observer``: ``module:function``, called as ``observer(model, optimizer, step, trial)`` at each
  evaluation, step 0 included. What it returns is logged under ``"train"``; names that start with
  ``final_`` are final figures too, as they were last. A class is made once a trial, and kept in
  checkpoints if it has ``state_dict`` and ``load_state_dict``;
- ``code``: a hash of the user's code, which makes other code another experiment; None.

The arm's ``method`` names the optimizer, its settings are the optimizer's keyword arguments. One
that has ``estimate`` and ``needs_hessian``, as :class:`gradworks.optim.AdaHessian` has, is given
``estimate(loss)`` in place of ``loss.backward()``; one that takes a ``generator`` draws from one of
the trial's. Equal seeds give equal weights and equal batches whatever the arm.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from gradworks.bench import workloads
from gradworks.bench.optimizers import make_optimizer, optimizer_bytes, resolve_optimizer
from gradworks.bench.schedules import Schedule, evaluation_grid
from gradworks.bench.trial import Diverged, Trial
from gradworks.bench.workloads import Problem

__all__ = ["TRIAL", "spec", "train"]

TRIAL = "gradworks.bench.training:train"
EXPLODED = 10.0  # times the initial loss ...
EXPLODED_FOR = 0.01  # ... for this part of the budget (PROTOCOL 3)
_EVALUATION_ROWS = 2048
_SPEC: dict[str, Any] = {
    "schedule": "cosine",
    "warmup": 0.05,
    "evals": 40,
    "decay": "weights",
    "observer": None,
    "code": None,
}


def spec(problem: str, **changes: Any) -> dict[str, Any]:
    """Return a workload's ``spec`` for :func:`train`, checked.

    Args:
        problem: Name of a problem or a user's function.
        **changes: What differs from the defaults above.

    Raises:
        ValueError: If a key is unknown or a value is not allowed.

    Example:
        >>> spec("digits-cnn", schedule="constant")["evals"]
        40
    """
    unknown = sorted(set(changes) - set(_SPEC))
    if unknown:
        raise ValueError(f"spec has no {unknown[0]!r}; it has problem, {', '.join(_SPEC)}")
    made = {"problem": problem, **_SPEC, **changes}
    for key, allowed in (("schedule", ("cosine", "constant")), ("decay", ("weights", "all"))):
        if made[key] not in allowed:
            raise ValueError(f"{key} must be one of {allowed}, got {made[key]!r}")
    if not 0 <= made["warmup"] < 1:
        raise ValueError(f"warmup must be in [0, 1), got {made['warmup']}")
    if made["evals"] < 1:
        raise ValueError(f"evals must be at least 1, got {made['evals']}")
    return made


class _Batches:
    """Rows of each step: a fresh permutation an epoch, the rest of an epoch left out."""

    def __init__(self, n: int, size: int, generator: torch.Generator) -> None:
        self._n, self._size, self._generator = n, min(size, n), generator
        self.order = torch.empty(0, dtype=torch.long)
        self.position = 0

    def next(self) -> Tensor:
        """Return the rows of the next step."""
        if self.position + self._size > len(self.order):
            self.order = torch.randperm(self._n, generator=self._generator)
            self.position = 0
        rows = self.order[self.position : self.position + self._size]
        self.position += self._size
        return rows


def _norm(tensors: Iterable[Tensor]) -> float:
    found = [t.detach() for t in tensors]
    if not found:
        return 0.0
    return float(torch.stack(torch._foreach_norm(found)).double().norm())


class _Run:
    """One trial under way: what is saved, and one step."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        given = dict(trial.spec)
        if "problem" not in given:
            raise ValueError(f"workload {trial.workload.name!r}: spec must name a 'problem'")
        self.spec = spec(given.pop("problem"), **given)
        self.problem: Problem = workloads.problem(self.spec["problem"], trial.seed)
        self.steps = trial.steps or self.problem.steps
        self.model = self.problem.model(trial.generator("init"))
        settings = dict(trial.settings)
        if "generator" in inspect.signature(resolve_optimizer(trial.arm.method)).parameters:
            settings.setdefault("generator", trial.generator("optimizer"))
        self.optimizer = make_optimizer(
            trial.arm.method, self.model, settings, decay=self.spec["decay"]
        )
        self.estimates = all(hasattr(self.optimizer, n) for n in ("estimate", "needs_hessian"))
        self.takes_closure = bool(inspect.signature(self.optimizer.step).parameters)
        self.schedule = Schedule(
            self.optimizer, self.steps, self.spec["schedule"], self.spec["warmup"]
        )
        inputs, self.targets = self.problem.train
        self.inputs = inputs
        size = trial.workload.batch_size or self.problem.batch_size
        self.batches = _Batches(len(inputs), size, trial.generator("batches"))
        self.grid = evaluation_grid(self.steps, self.spec["evals"])
        self.observer = self._observer()
        self.step = 0
        self.evals = 0
        self.initial_loss = math.nan
        self.exploded = 0
        self.window = [0.0, 0.0]  # sum of losses and number of steps since the last evaluation
        self.metrics: list[float] = []  # validation metric on the grid
        self.observed: dict[str, float] = {}

    def _observer(self) -> Any:
        if self.spec["observer"] is None:
            return None
        found = workloads.resolve(self.spec["observer"])
        return found() if inspect.isclass(found) else found

    # -- checkpoints ---------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on from here."""
        observer = getattr(self.observer, "state_dict", None)
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.batches.order,
            "position": self.batches.position,
            "step": self.step,
            "evals": self.evals,
            "initial_loss": self.initial_loss,
            "exploded": self.exploded,
            "window": list(self.window),
            "metrics": list(self.metrics),
            "observed": dict(self.observed),
            "observer": observer() if observer is not None else None,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.batches.order, self.batches.position = saved["order"], saved["position"]
        for name in ("step", "evals", "initial_loss", "exploded", "observed"):
            setattr(self, name, saved[name])
        self.window, self.metrics = list(saved["window"]), list(saved["metrics"])
        if saved["observer"] is not None:
            self.observer.load_state_dict(saved["observer"])

    # -- training ------------------------------------------------------------------------------

    def take_step(self) -> dict[str, float]:
        """Take one step; return gradient and update norms on steps of the grid.

        Raises:
            Diverged: If the loss is not finite or stays above ten times the initial one.
        """  # noqa: DOC502
        rows = self.batches.next()
        inputs, targets = self.inputs[rows], self.targets[rows]
        losses: list[Tensor] = []

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = self.problem.loss_fn(self.model(inputs), targets)
            if self.estimates:
                self.optimizer.estimate(loss)  # type: ignore[attr-defined]
            else:
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            self.evals += 1
            return loss

        self.schedule.set(self.step)
        looked_at = self.step + 1 in self.grid
        before = self._weights() if looked_at else []
        if self.takes_closure:
            self.optimizer.step(closure)  # type: ignore[arg-type]
        else:
            closure()
            self.optimizer.step()
        self.step += 1
        self._check(float(losses[0]))
        if not looked_at:
            return {}
        with self.trial.untimed(), torch.no_grad():
            now = [p.detach() for p in self.model.parameters()]
            moved = _norm(torch._foreach_sub(now, before))
            grads = [p.grad for p in self.model.parameters() if p.grad is not None]
            weights = _norm(before)
            return {
                "grad_norm": _norm(grads),
                "update_norm": moved,
                "weight_norm": weights,
                "update_ratio": moved / weights if weights > 0 else math.inf,
            }

    def _weights(self) -> list[Tensor]:
        with self.trial.untimed():
            return [p.detach().clone() for p in self.model.parameters()]

    def _check(self, loss: float) -> None:
        """Apply the divergence rule to one step's loss.

        Raises:
            Diverged: If it is not finite or stays above ten times the initial one.
        """
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {self.step}")
        if math.isnan(self.initial_loss):
            self.initial_loss = loss
        above = loss > EXPLODED * self.initial_loss
        self.exploded = self.exploded + 1 if above else 0
        if self.exploded >= math.ceil(EXPLODED_FOR * self.steps):
            raise Diverged(
                f"the loss stayed above {EXPLODED:g} times its initial {self.initial_loss:.4g} for "
                f"{EXPLODED_FOR:.0%} of the budget, at step {self.step}"
            )
        self.window[0] += loss
        self.window[1] += 1

    # -- evaluation ----------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, split: tuple[Tensor, Tensor]) -> dict[str, float]:
        """Return loss and metric over a whole split, in evaluation mode.

        Raises:
            Diverged: If the loss is not finite.
        """
        training = self.model.training
        self.model.eval()
        try:
            inputs, targets = split
            pieces = [self.model(piece) for piece in torch.split(inputs, _EVALUATION_ROWS)]
            output = torch.cat(pieces)
            loss = float(self.problem.loss_fn(output, targets))
            metric = float(self.problem.metric(output, targets))
        finally:
            self.model.train(training)
        if not (math.isfinite(loss) and math.isfinite(metric)):
            raise Diverged(f"loss {loss} and metric {metric} in evaluation at step {self.step}")
        return {"loss": loss, self.problem.metric_name: metric}

    def _seen(self) -> tuple[Tensor, Tensor]:
        """Return the training rows that the evaluation at the end looks at."""
        (inputs, targets), rows = self.problem.train, self.problem.train_rows
        if rows is None or rows >= len(inputs):
            return inputs, targets
        spread = torch.linspace(0, len(inputs) - 1, rows, dtype=torch.float64).round().long()
        return inputs[spread], targets[spread]

    def look(self, norms: dict[str, float]) -> None:
        """Evaluate on the validation split, ask the observer, and log both."""
        trial, evals = self.trial, float(self.evals)
        with trial.untimed():
            found = self.evaluate(self.problem.valid)
            self.metrics.append(found[self.problem.metric_name])
            trial.log(self.step, split="valid", evals=evals, **found)
            shown = dict(norms)
            if self.window[1]:
                shown["loss"] = self.window[0] / self.window[1]
                self.window = [0.0, 0.0]
            if self.observer is not None:
                self.observed = {
                    name: float(value)
                    for name, value in self.observer(
                        self.model, self.optimizer, self.step, trial
                    ).items()
                }
                shown.update(self.observed)
            if shown:
                trial.log(self.step, split="train", evals=evals, **shown)

    def finish(self) -> None:
        """Give the final figures; the test split is opened by final runs only."""
        trial, name = self.trial, self.problem.metric_name
        trial.state_bytes = optimizer_bytes(self.optimizer)
        extra = {k: v for k, v in self.observed.items() if k.startswith("final_")}
        area = sum(self.metrics) / len(self.metrics)
        with trial.untimed():
            size = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
            counts = {"evals": float(self.evals), "parameters": float(size)}
            trial.result("train", **self.evaluate(self._seen()), **counts)
            valid = self.evaluate(self.problem.valid)
            trial.result("valid", **valid, **{f"area_{name}": area}, **extra)
            if trial.kind == "final":
                trial.result("test", **self.evaluate(self.problem.test), **extra)


def train(trial: Trial) -> None:
    """Run one trial: the function that workloads name.

    Args:
        trial: What to train, with which settings and seed.

    Raises:
        Diverged: If the loss is not finite, or above ten times the initial loss for one percent of
            the budget.
        ValueError: If the workload's spec is not valid.
    """  # noqa: DOC502
    run = _Run(trial)
    run.model.train()
    saved = trial.resume()
    if saved is not None:
        run.restore(saved)
    else:
        run.look({})
    while run.step < run.steps:
        norms = run.take_step()
        if run.step in run.grid:
            run.look(norms)
        trial.tick(run.step, run.state)
    run.finish()
