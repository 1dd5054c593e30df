"""One network of a seed: trained, then measured cell by cell, and kept over a kill."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gradworks.papers.loss_landscape.examples import draw, with_wrong_labels
from gradworks.papers.loss_landscape.networks import network, params_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gradworks.bench.trial import Trial

__all__ = ["Session"]

# Steps between two looks at the loss.
_LOOK_EVERY = 50


class Session:
    """A network, its examples and what has been measured of it.

    Args:
        trial: The trial; its checkpoint is read here.

    Attributes:
        trial: As given.
        spec: What the workload says.
        model: The network.
        optimizer: What trains it; its moments are axes.
        train: Images and labels to train on; some labels are wrong where the spec says so.
        test: Images and labels held out.
        snapshots: Weights on the way, oldest first.
    """

    def __init__(self, trial: Trial) -> None:
        import torch

        self.trial = trial
        self.spec: Mapping[str, Any] = trial.spec
        saved = trial.resume() or {}
        root = saved.get("root")
        if root is None:
            root = int(torch.randint(2**62, (), generator=trial.generator("root")))
        self._root = int(root)
        self._step = int(saved.get("step", 0))
        self._cells: dict[str, dict[str, float]] = dict(saved.get("cells", {}))
        self.snapshots: list[dict[str, Tensor]] = list(saved.get("snapshots", []))
        (images, labels), self.test = draw(self.seed("split"))
        labels = with_wrong_labels(
            labels, float(self.spec["wrong_labels"]), self.generator("labels")
        )
        self.train = (images, labels)
        self.model = network(self.spec["network"], seed=self.seed("weights"))
        self.optimizer = self._optimizer()
        if saved:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])

    def _optimizer(self) -> torch.optim.Optimizer:
        import torch

        lr = float(self.spec["lr"])
        if self.spec["optimizer"] == "adam":
            return torch.optim.Adam(self.model.parameters(), lr=lr)
        return torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.9)

    def seed(self, name: str) -> int:
        """A seed by name, the same before and after a kill.

        Args:
            name: What it is for.

        Returns:
            An integer.
        """
        return (self._root + zlib.crc32(name.encode())) % 2**62

    def generator(self, name: str) -> torch.Generator:
        """A new generator by name, the same before and after a kill.

        Args:
            name: What it is for.
        """
        import torch

        return torch.Generator().manual_seed(self.seed(name))

    def learn(self) -> None:
        """Minimise cross-entropy over mini-batches; the network ends trained, in eval mode.

        Raises:
            Diverged: If the loss leaves the finite numbers.
        """
        import torch
        import torch.nn.functional as F

        from gradworks.bench.trial import Diverged

        steps, batch_size = int(self.spec["train_steps"]), int(self.spec["batch_size"])
        every = max(1, steps // int(self.spec["snapshots"]))
        images, labels = self.train
        order = self.trial.generator("order")
        self.model.train()
        if not self._step and not self.snapshots:
            self.snapshots.append(params_of(self.model))
        for step in range(self._step, steps):
            rows = torch.randperm(len(labels), generator=order)[:batch_size]
            loss = F.cross_entropy(self.model(images[rows]), labels[rows])
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            if (step + 1) % _LOOK_EVERY == 0 and not math.isfinite(value := float(loss.detach())):
                raise Diverged(f"loss is {value} after {step + 1} steps")
            if (step + 1) % every == 0 or step + 1 == steps:
                self.snapshots.append(params_of(self.model))
            self._step = step + 1
            self.trial.tick(self._step, self._state)
        self.optimizer.zero_grad()
        self.model.eval()

    def cell(self, name: str, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Measure something once, and give its figures under names with its own.

        Args:
            name: Its name.
            measure: Returns figures; not called where a checkpoint holds them.

        Returns:
            The figures.
        """
        if name not in self._cells:
            with self.trial.untimed():
                self._cells[name] = measure()
            self.trial.tick(self._step + len(self._cells), self._state)
        found = self._cells[name]
        self.trial.result("test", **{f"{key}_{name}": value for key, value in found.items()})
        return found

    def _state(self) -> dict[str, Any]:
        """All that is needed to go on from here."""
        return {
            "root": self._root,
            "step": self._step,
            "cells": self._cells,
            "snapshots": self.snapshots,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
