"""What a problem with several tasks is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gradworks.bench.multitask.networks import SharedTrunk

__all__ = ["SPLITS", "Measure", "MultiTaskProblem", "Split"]

Split = tuple[Tensor, Mapping[str, Tensor]]
Measure = Callable[[Tensor, Tensor], Tensor]
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True, eq=False)
class MultiTaskProblem:
    """Everything that a trial needs but the method.

    Args:
        name: Short name.
        tasks: Names of the tasks, in the order of the rows.
        model: Makes the network; its weights are drawn from the generator and nothing else.
        splits: ``"train"``, ``"valid"`` and ``"test"``: inputs, and targets by task.
        losses: ``loss(output, target)`` of each task, a scalar, the mean over examples.
        errors: ``error(output, target)`` of each task over a whole split; lower is better.
        batch_size: Examples a step.
        steps: Budget of a trial.
        data: Names of the data sets.
        corrupt: What training inputs go through, with fresh draws each step; held-out inputs went
            through it once. None: nothing.

    Raises:
        ValueError: If a split lacks a task or its rows differ in number.
    """

    name: str
    tasks: tuple[str, ...]
    model: Callable[[Generator], SharedTrunk]
    splits: Mapping[str, Split]
    losses: Mapping[str, Measure]
    errors: Mapping[str, Measure]
    batch_size: int
    steps: int
    data: tuple[str, ...]
    corrupt: Callable[[Tensor, Generator], Tensor] | None = None

    def __post_init__(self) -> None:
        for split in SPLITS:
            inputs, targets = self.splits[split]
            counts = {task: len(targets[task]) for task in self.tasks if task in targets}
            if set(counts) != set(self.tasks) or set(counts.values()) != {len(inputs)}:
                raise ValueError(
                    f"problem {self.name!r}: {split} must hold a target for each of its "
                    f"{len(inputs)} inputs and each of the tasks {self.tasks}, got {counts}"
                )

    def batch(self, rows: Tensor, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return training inputs and targets.

        Args:
            rows: Of the training split.
            generator: Draws what is corrupted.
        """
        inputs, targets = self.splits["train"]
        chosen = inputs[rows]
        if self.corrupt is not None:
            chosen = self.corrupt(chosen, generator)
        return chosen, {task: targets[task][rows] for task in self.tasks}

    def losses_of(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the loss of each task that has an output.

        Args:
            outputs: Of the network.
            targets: By task.
        """
        return {task: self.losses[task](outputs[task], targets[task]) for task in outputs}

    @torch.no_grad()
    def judge(self, model: SharedTrunk, split: str) -> dict[str, dict[str, float]]:
        """Return loss and error of each task that the network has.

        Args:
            model: The network; left in training mode as it was.
            split: One of the three.

        Returns:
            ``{task: {"loss": ..., "error": ...}}``.
        """
        training = model.training
        model.eval()
        inputs, targets = self.splits[split]
        outputs = model(inputs)
        model.train(training)
        return {
            task: {
                "loss": float(self.losses[task](output, targets[task])),
                "error": float(self.errors[task](output, targets[task])),
            }
            for task, output in outputs.items()
        }
