"""What a loss weighting is: a module from several losses to one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradworks.multitask.aggregator import NonFiniteGradientError

__all__ = ["Layer", "LossWeighting", "Losses"]

Losses = Sequence[Tensor] | Mapping[str, Tensor] | Tensor


class Layer(NamedTuple):
    """What a method differentiates by itself.

    Attributes:
        losses: Each loss, apart: the gradient of one must not run through the others.
        params: Parameters of the last shared layer.
    """

    losses: list[Tensor]
    params: list[Tensor]


class LossWeighting(nn.Module):
    """Turns the losses of several tasks into one; call ``backward`` on it as ever.

    Every call reads the losses on the host once, to refuse what is not finite. The number of tasks
    is learnt at the first call. In several processes each weighs by its own batches.

    Attributes:
        uses_shared: Whether a call needs ``shared``.
        uses_update: Whether :meth:`update` has to follow the step.
        weights: What the gradient of each loss was multiplied by in the last call, ``(tasks,)``.

    Example:
        >>> import torch
        >>> from gradworks.multitask.loss_weighting import LossWeighting
        >>> weighting = LossWeighting()  # equal weights
        >>> weighting({"left": torch.tensor(2.0), "right": torch.tensor(3.0)})
        tensor(5.)
    """

    uses_shared = False
    uses_update = False
    # Buffers that are None until the number of tasks is known.
    _late: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        for name in self._late:
            self.register_buffer(name, None)
        self.weights: Tensor | None = None

    def forward(self, losses: Losses, shared: Iterable[Tensor] | None = None) -> Tensor:
        """Return the weighted loss, a scalar.

        Args:
            losses: A scalar a task, in the same order at every call.
            shared: Parameters of the last shared layer, where :attr:`uses_shared`.

        Raises:
            NonFiniteGradientError: If a loss is not finite; the state stays as it was.
            TypeError: If a loss is no tensor.
            ValueError: If there is none, one is no scalar, their number changed, a loss is out of
                the method's range, or ``shared`` is missing.
        """  # noqa: DOC502
        apart, stacked, values = self._checked(losses)
        loss, weights = self._weigh(stacked, values, Layer(apart, list(shared or ())))
        self.weights = weights.detach()
        return loss

    def update(self, losses: Losses) -> None:
        """Learn from the step that was taken; nothing to do unless :attr:`uses_update`.

        Args:
            losses: Losses after the step, on the same batch.
        """

    def reset(self) -> None:
        """Forget everything but the settings."""
        for name in self._late:
            setattr(self, name, None)
        self.weights = None

    def _weigh(self, losses: Tensor, values: list[float], layer: Layer) -> tuple[Tensor, Tensor]:
        """The loss and the weights; ``values`` are the losses on the host."""
        return losses.sum(), torch.ones_like(losses)

    def _tasks(self) -> int | None:
        """Number of tasks, if known."""
        found = getattr(self, self._late[0]) if self._late else None
        return None if found is None else len(found)

    def _checked(self, losses: Losses) -> tuple[list[Tensor], Tensor, list[float]]:
        """Losses apart, as one vector, and on the host."""
        if isinstance(losses, Tensor):
            if losses.dim() != 1:
                raise ValueError(f"losses must be 1-D, got shape {tuple(losses.shape)}")
            losses = list(losses.unbind())
        named = (
            dict(losses)
            if isinstance(losses, Mapping)
            else {str(i): loss for i, loss in enumerate(losses)}
        )
        if not named:
            raise ValueError("losses is empty; give one scalar a task")
        for name, loss in named.items():
            if not isinstance(loss, Tensor):
                raise TypeError(f"loss {name!r} must be a tensor, got {type(loss).__name__}")
            if loss.numel() != 1:
                raise ValueError(f"loss {name!r} must be a scalar, got shape {tuple(loss.shape)}")
        tasks = self._tasks()
        if tasks is not None and tasks != len(named):
            raise ValueError(
                f"losses holds {len(named)} tasks, the state {tasks}: call reset() when tasks "
                "change"
            )
        stacked = torch.stack([loss.reshape(()) for loss in named.values()])
        values: list[float] = stacked.detach().tolist()  # the one synchronisation
        bad = [i for i, value in enumerate(values) if not math.isfinite(value)]
        if bad:
            names = [list(named)[i] for i in bad] if isinstance(losses, Mapping) else None
            raise NonFiniteGradientError(bad, names, what="loss")
        return list(named.values()), stacked, values

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take late buffers of any size: a fresh module does not know them yet."""
        for name in self._late:
            found = state_dict.get(prefix + name)
            setattr(self, name, None if found is None else torch.empty_like(found))
        super()._load_from_state_dict(state_dict, prefix, *args)
