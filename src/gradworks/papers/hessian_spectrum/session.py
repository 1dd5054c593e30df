"""Several trainings inside one trial, each resumable at any step."""

from __future__ import annotations

import math
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

from gradworks.papers.hessian_spectrum.networks import state_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradworks.bench.trial import Trial

__all__ = ["Session"]

# Steps between two looks at the loss: a look waits for nothing on CPU but costs a little.
_LOOK_EVERY = 50


class Session:
    """Trains networks by name, remembers where they ended, and goes on after a kill.

    Args:
        trial: The trial; its checkpoint is read here.
    """

    def __init__(self, trial: Trial) -> None:
        import torch

        self.trial = trial
        saved = trial.resume() or {}
        self.step = int(saved.get("step", 0))
        self._ends: dict[str, dict[str, Tensor]] = dict(saved.get("ends", {}))
        self._losses: dict[str, float] = dict(saved.get("losses", {}))
        self._current: dict[str, Any] = dict(saved.get("current", {}))
        root = saved.get("root")
        if root is None:
            draw = torch.randint(2**62, (), generator=trial.generator("root"))
            root = int(draw)
        self._root = int(root)

    def seed(self, name: str) -> int:
        """A seed by name, the same before and after a kill and for every arm.

        Args:
            name: What it is for.

        Returns:
            An integer.
        """
        return (self._root + zlib.crc32(name.encode())) % 2**62

    def end(self, name: str) -> dict[str, Tensor]:
        """Where a training ended.

        Args:
            name: The training's.

        Returns:
            The state dict.
        """
        return self._ends[name]

    def loss(self, name: str) -> float:
        """Loss over all examples at the end of a training.

        Args:
            name: The training's.

        Returns:
            The loss.
        """
        return self._losses[name]

    def train(
        self,
        name: str,
        model: nn.Module,
        examples: tuple[Tensor, Tensor],
        *,
        steps: int,
        batch_size: int,
        lr: float,
    ) -> None:
        """Minimise cross-entropy by plain (stochastic) gradient descent; the model ends trained.

        Args:
            name: Unique in the trial.
            model: With its initial weights.
            examples: Inputs and labels.
            steps: Steps.
            batch_size: Examples a step, drawn without replacement; all of them is full batch.
            lr: Constant rate.

        Raises:
            Diverged: If the loss leaves the finite numbers.
        """  # noqa: DOC502
        import torch
        import torch.nn.functional as F

        if name in self._ends:
            model.load_state_dict(self._ends[name])
            return
        first = 0
        if self._current.get("name") == name:
            model.load_state_dict(self._current["model"])
            first = int(self._current["step"])
        inputs, labels = examples
        n = len(labels)
        order = self.trial.generator(f"order {name}")
        params: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        model.train()
        for step in range(first, steps):
            x, y = inputs, labels
            if batch_size < n:
                rows = torch.randperm(n, generator=order)[:batch_size]
                x, y = inputs[rows], labels[rows]
            loss = F.cross_entropy(model(x), y)
            grads = torch.autograd.grad(loss, params)
            with torch.no_grad():
                torch._foreach_add_(params, grads, alpha=-lr)
            if (step + 1) % _LOOK_EVERY == 0:
                self._look(name, step + 1, float(loss.detach()))
            self.step += 1
            self.trial.tick(self.step, partial(self._state, name, step + 1, model))
        with self.trial.untimed(), torch.no_grad():
            model.eval()
            self._losses[name] = float(F.cross_entropy(model(inputs), labels))
        self._look(name, steps, self._losses[name])
        self._ends[name] = state_of(model)
        self._current = {}

    @staticmethod
    def _look(name: str, step: int, loss: float) -> None:
        """Stop where the loss is lost."""
        from gradworks.bench.trial import Diverged

        if not math.isfinite(loss):
            raise Diverged(f"loss of {name!r} is {loss} after {step} steps")

    def _state(self, name: str, step: int, model: nn.Module) -> dict[str, Any]:
        """All that is needed to go on from here."""
        return {
            "root": self._root,
            "step": self.step,
            "ends": self._ends,
            "losses": self._losses,
            "current": {"name": name, "step": step, "model": state_of(model)},
        }
