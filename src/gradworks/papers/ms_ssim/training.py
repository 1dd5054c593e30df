"""One run: a network, a loss, a budget; checkpointed by its trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from gradworks.bench.schedules import Schedule, evaluation_grid
from gradworks.losses.ms_ssim import ms_ssim, ssim

if TYPE_CHECKING:
    from gradworks.bench.trial import Trial

__all__ = ["LOSSES", "Fit", "loss_of"]

Loss = Callable[[Tensor, Tensor], Tensor]

_WARM_UP = 0.05  # of the steps; then a cosine to a tenth (protocol, section 2)
_POINTS = 8  # of a curve


def _ms_ssim_loss(windows: Mapping[str, Any]) -> Loss:
    return lambda output, target: (
        1 - ms_ssim(output, target, kernel_size=windows["kernel"], scales=windows["scales"])
    )


def _ssim_loss(windows: Mapping[str, Any]) -> Loss:
    return lambda output, target: 1 - ssim(output, target, kernel_size=windows["kernel"])


LOSSES: Mapping[str, Callable[[Mapping[str, Any]], Loss]] = {
    "l1": lambda _: F.l1_loss,
    "l2": lambda _: F.mse_loss,
    "ssim": _ssim_loss,
    "ms-ssim": _ms_ssim_loss,
}


def loss_of(name: str, windows: Mapping[str, Any]) -> Loss:
    """Return a loss of images in [0, 1], the mean over a batch.

    Args:
        name: ``"l1"``, ``"l2"``, ``"ssim"`` or ``"ms-ssim"``.
        windows: ``kernel``, the side of the window, and ``scales``.
    """
    return LOSSES[name](windows)


class Fit:
    """Adam on batches of rows, every row once before any comes again.

    Args:
        trial: Gives steps, batch size, learning rate and randomness.
        model: What is trained.
        objective: ``objective(rows)`` is the loss of these training rows.
        count: Number of training rows.
        more: Further state of a checkpoint, changed in place.
    """

    def __init__(
        self,
        trial: Trial,
        model: nn.Module,
        objective: Callable[[Tensor], Tensor],
        count: int,
        more: dict[str, float] | None = None,
    ) -> None:
        self.trial, self.model, self.objective, self.count = trial, model, objective, count
        self.more: dict[str, float] = {} if more is None else more
        lr = float(trial.spec["lr"]) * float(trial.settings["rate"])
        self.optimizer = torch.optim.Adam(model.parameters(), lr)
        self.schedule = Schedule(self.optimizer, trial.steps, "cosine", _WARM_UP)
        self.draws: Generator = trial.generator("batches")
        self.waiting = torch.empty(0, dtype=torch.int64)
        self.done = 0

    def run(self, watch: Callable[[int], None]) -> None:
        """Train, from a checkpoint if there is one.

        Args:
            watch: Called with the step at evenly spaced points, the last included.

        Raises:
            Diverged: If the loss is not finite where it is watched.
        """
        from gradworks.bench.trial import Diverged

        self._resume(self.trial.resume())
        steps = self.trial.steps
        points = set(evaluation_grid(steps, _POINTS)) - {0}
        while self.done < steps:
            self.schedule.set(self.done)
            loss = self.objective(self._rows())
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            self.optimizer.step()
            self.done += 1
            if self.done in points:
                if not bool(loss.isfinite()):
                    raise Diverged(f"the loss is not finite after step {self.done}")
                with self.trial.untimed():
                    watch(self.done)
            self.trial.tick(self.done, self._state)

    def _rows(self) -> Tensor:
        size = self.trial.workload.batch_size
        while len(self.waiting) < size:
            order = torch.randperm(self.count, generator=self.draws)
            self.waiting = torch.cat([self.waiting, order])
        rows, self.waiting = self.waiting[:size], self.waiting[size:]
        return rows

    def _resume(self, saved: Mapping[str, Any] | None) -> None:
        if saved is None:
            return
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.waiting, self.done = saved["waiting"], saved["done"]
        self.more.clear()
        self.more.update(saved["more"])

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "waiting": self.waiting,
            "done": self.done,
            "more": dict(self.more),
        }
