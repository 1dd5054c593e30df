"""One loss on one data set: every fold and every learning rate in the same tensors.

A learning rate is chosen for each fold and each metric on 30 % of the fold's training rows, held
out; then the fold is trained on all its training rows and judged once on its test rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradworks.bench.trial import Trial
from gradworks.losses.anyloss import (
    METRICS,
    BatchedMetricLoss,
    BatchedNet,
    FoldStack,
    batched_bce,
    batched_squared_error,
    batched_weighted_bce,
    best_threshold,
    fit_batched,
    focal_loss,
    hard_confusion,
    stack_folds,
)
from gradworks.losses.anyloss.baselines import BatchedLoss
from gradworks.papers.anyloss.tables import Table, oversampled, read_table, undersampled

__all__ = ["trial"]

_POINTWISE: Mapping[str, BatchedLoss] = {
    "mse": batched_squared_error,
    "bce": batched_bce,
    "weighted_bce": batched_weighted_bce,
    "focal": focal_loss(),
}
# Twice as fast as float64; the derivative of AnyLoss is exact on both sides in either.
_DTYPE = torch.float32
_WIDENINGS = 2
_TICK_EPOCHS = 50
_BLOCKS, _BLOCK_STEPS = 30, 20  # of the comparison of times


@dataclass(frozen=True)
class _Job:
    """One loss in one study, and the metrics that it is judged by."""

    study: str
    metrics: tuple[str, ...]
    loss: BatchedLoss
    rates: tuple[float, ...]


def trial(trial: Trial) -> None:
    """Run one arm on one data set.

    Args:
        trial: The trial; its workload's spec names the set, the folds and the studies.
    """
    state = trial.resume() or {
        "seed": int(trial.rng("folds").integers(2**31)),
        "done": 0,
        "test": {},
        "valid": {},
    }
    table = read_table(trial.spec, state["seed"])
    if trial.settings.get("smote"):
        table = oversampled(table, state["seed"])
    if trial.settings.get("undersample"):
        table = undersampled(table, state["seed"])
    jobs = _jobs(trial)

    def tick() -> None:
        trial.tick(round(trial.steps * state["done"] / len(jobs)), lambda: state)

    for job in jobs[state["done"] :]:
        test, valid = _run(trial, table, job, state["seed"], tick)
        state = {
            "seed": state["seed"],
            "done": state["done"] + 1,
            "test": {**state["test"], **test},
            "valid": {**state["valid"], **valid},
        }
        tick()
    trial.result("valid", **state["valid"])
    trial.result("test", **state["test"])
    if trial.arm.name == "anyloss" and "slp_gd" in trial.spec["studies"]:
        trial.result("test", seconds_ratio=_seconds_ratio(table))


def _jobs(trial: Trial) -> list[_Job]:
    """The fits of an arm: a loss that aims at a metric is trained once for each."""
    arm, jobs = trial.settings, []
    for name, study in trial.spec["studies"].items():
        if name not in arm.get("studies", [name]):
            continue
        metrics = tuple(m for m in study["metrics"] if m in arm.get("metrics", [m]))
        if arm["loss"] != "metric":
            loss = _POINTWISE[arm["loss"]]
            jobs.append(_Job(name, metrics, loss, _rates(study, arm["rate"])))
            continue
        for metric in metrics:
            aimed = BatchedMetricLoss(
                metric,
                amplification=_amplification(arm, study["steps"]),
                surrogate=arm.get("surrogate", "anyloss"),
            )
            jobs.append(_Job(name, (metric,), aimed, _rates(study, arm["rate"][metric])))
    return jobs


def _rates(study: Mapping[str, Any], published: float) -> tuple[float, ...]:
    if "rates" in study:
        return tuple(study["rates"])
    return tuple(published * times for times in study["times"])


def _amplification(arm: Mapping[str, Any], steps: int) -> float | Callable[[int], float]:
    """The constant, or a straight line up to 73 over the first half of the steps."""
    strength = float(arm.get("amplification", 73.0))
    start = arm.get("warmup")
    if start is None:
        return strength
    # The schedule counts calls; the inner fit comes first, and each fit starts anew.
    return lambda call: start + (strength - start) * min(1.0, (call % steps) / (steps / 2))


def _run(
    trial: Trial, table: Table, job: _Job, seed: int, tick: Callable[[], None]
) -> tuple[dict[str, float], dict[str, float]]:
    """Choose rates on the inner split, train on the whole folds, judge on the test rows."""
    study = trial.spec["studies"][job.study]
    tuned = bool(trial.settings.get("threshold"))

    def fitted(rows: list[np.ndarray], rates: Tensor) -> tuple[Tensor, FoldStack]:
        def stop(epoch: int, _: BatchedNet) -> bool:
            if epoch % _TICK_EPOCHS == 0:
                tick()
            return False

        stack = stack_folds(table.X, table.y, rows, dtype=_DTYPE)
        fit = fit_batched(
            stack.X,
            stack.y,
            job.loss,
            weight=stack.weight,
            lr=rates,
            epochs=study["steps"],
            solver=study["solver"],
            hidden=study["hidden"],
            activation="sigmoid",
            generator=torch.Generator().manual_seed(seed),
            stop=stop,
            curve=False,
        )
        return fit.net.logits(stack.transform(table.X)), stack

    def judged(logits: Tensor, metric: str, seen: Sequence[np.ndarray], asked: Any) -> Tensor:
        """The metric on the rows ``asked``; a tuned threshold is chosen on the rows ``seen``."""
        cut: Tensor | float = 0.0
        if tuned:
            cut = best_threshold(logits, y, _mask(seen, len(table.y)), metric)
        return METRICS[metric](hard_confusion(logits, y, _mask(asked, len(table.y)), cut))

    y = torch.from_numpy(table.y).to(_DTYPE)

    def explored(rates: Sequence[float]) -> Tensor:
        """Scores on the held-out rows, (rates, folds, metrics)."""
        logits, _ = fitted(table.inner, torch.tensor(rates, dtype=_DTYPE))
        scores = [judged(logits, m, table.inner, table.held_out) for m in job.metrics]
        return torch.stack(scores, dim=2).movedim(1, 0)

    search = _Search(job.rates, explored)
    logits, _ = fitted(table.train, search.choices(len(table.train), len(job.metrics)))
    test, valid = {}, {}
    for i, metric in enumerate(job.metrics):
        value = judged(logits[:, i : i + 1], metric, table.train, table.test)
        name = f"{job.study}_{metric}"
        test[name] = valid[name] = float(value.mean())
        valid |= search.report(i, name)
    return test, valid


class _Search:
    """Learning rates tried on the inner split, and the widening of their range.

    Where the best mean score over folds lies on the border of the range, the range grows by a
    decade there, at most twice, alike for every loss.

    Args:
        rates: Candidates, rising.
        explored: Scores (rates, folds, metrics) of given rates.
    """

    def __init__(
        self, rates: Sequence[float], explored: Callable[[Sequence[float]], Tensor]
    ) -> None:
        self.rates = list(rates)
        self._scores: Tensor | None = None
        self._widened = 0
        if len(rates) == 1:
            return
        self._scores = explored(self.rates)
        dense = rates[1] / rates[0] < 5.0
        for _ in range(_WIDENINGS):
            below, above = self._on_border()
            low, high = self.rates[0], self.rates[-1]
            down = [low / 10, low / math.sqrt(10)] if dense else [low / 10]
            up = [high * math.sqrt(10), high * 10] if dense else [high * 10]
            new = (down if below.any() else []) + (up if above.any() else [])
            if not new:
                break
            self._widened += 1
            found = torch.cat([self._scores, explored(new)])
            every = [*self.rates, *new]
            order = sorted(range(len(every)), key=every.__getitem__)
            self.rates = [every[k] for k in order]
            self._scores = found[order]

    def _on_border(self) -> tuple[Tensor, Tensor]:
        """For each metric, whether the best mean is only reached at the lower or upper end."""
        mean = self._known.mean(1)
        best = mean.amax(0)
        return mean[1:].amax(0) < best, mean[:-1].amax(0) < best

    @property
    def _known(self) -> Tensor:
        if self._scores is None:
            raise RuntimeError("one rate alone is not searched")
        return self._scores

    def choices(self, folds: int, metrics: int) -> Tensor:
        """The rate of each fold and metric, (folds, metrics); of equal scores the lowest."""
        rates = torch.tensor(self.rates, dtype=_DTYPE)
        if self._scores is None:
            return rates.expand(folds, metrics)
        return rates[self._scores.argmax(0)]

    def report(self, metric: int, name: str) -> dict[str, float]:
        """What the validation split says: score, decades added, whether still on the border."""
        if self._scores is None:
            return {}
        below, above = self._on_border()
        return {
            name: float(self._known[..., metric].amax(0).mean()),
            f"{name}_widened": float(self._widened),
            f"{name}_on_edge": float(below[metric] | above[metric]),
        }


def _mask(rows: Sequence[np.ndarray], total: int) -> Tensor:
    """Weights (folds, 1, total) of 1 where a row belongs to the fold's part."""
    mask = torch.zeros(len(rows), 1, total, dtype=_DTYPE)
    for f, part in enumerate(rows):
        mask[f, 0, torch.from_numpy(part)] = 1.0
    return mask


# -- time ------------------------------------------------------------------------------------------


def _seconds_ratio(table: Table) -> float:
    """Time of AnyLoss steps over time of cross-entropy steps, interleaved in one process."""
    from gradworks.bench import timing

    stack = stack_folds(table.X, table.y, table.train, dtype=_DTYPE)

    def steps(loss: BatchedLoss) -> Callable[[], object]:
        return lambda: fit_batched(
            stack.X, stack.y, loss, weight=stack.weight, lr=0.01, epochs=_BLOCK_STEPS
        )

    return timing.compare(
        steps(BatchedMetricLoss("f1")),
        steps(batched_bce),
        name="AnyLoss F1",
        peer_name="cross-entropy",
        blocks=_BLOCKS,
        inner=1,
        control=False,
    ).ratio
