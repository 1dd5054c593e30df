"""What goes around a penalty in a training loop: when it weighs how much, and Fish's outer step."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

__all__ = ["FishOuter", "PenaltySchedule"]


class PenaltySchedule:
    r"""The weight of a penalty over a run: light at first, then heavy.

    .. math:: \text{loss} = (\text{nll} + w \, \text{penalty}) / \max(1, w)

    Args:
        weight: w from step ``anneal_steps`` on, at least 0.
        anneal_steps: Steps with ``before`` instead, at least 0 (190 in the authors' Colored MNIST
            scripts).
        before: The weight until then, at least 0. Default 1; 0 in DomainBed's Fishr.
        rescale: Divide the whole loss by the weight where it is above 1, as the scripts do.
            Default True. Under weight decay of the optimizer this also changes what decay is worth;
            a regulariser that is part of ``nll`` is divided with it.

    Attributes:
        reset_optimizer_at: The step before which DomainBed starts Adam anew, because the gradient
            jumps; ``None`` without annealing.
        step: Calls so far.

    Raises:
        TypeError: ``anneal_steps`` is no integer.
        ValueError: A number is out of range.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import PenaltySchedule
        >>> schedule = PenaltySchedule(100.0, anneal_steps=1)
        >>> nll, penalty = torch.tensor(2.0), torch.tensor(3.0)
        >>> schedule(nll, penalty), schedule(nll, penalty)
        (tensor(5.), tensor(3.0200))
    """

    def __init__(
        self, weight: float, anneal_steps: int, *, before: float = 1.0, rescale: bool = True
    ) -> None:
        for name, value in (("weight", weight), ("before", before)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {value!r}")
        if isinstance(anneal_steps, bool) or not isinstance(anneal_steps, int):
            raise TypeError(f"anneal_steps must be an integer, got {anneal_steps!r}")
        if anneal_steps < 0:
            raise ValueError(f"anneal_steps must be at least 0, got {anneal_steps}")
        self.weight = float(weight)
        self.anneal_steps = anneal_steps
        self.before = float(before)
        self.rescale = rescale
        self.step = 0

    @property
    def reset_optimizer_at(self) -> int | None:
        """The step before which to start the optimizer anew."""
        return self.anneal_steps or None

    @property
    def current(self) -> float:
        """The weight that the next call uses."""
        return self.before if self.step < self.anneal_steps else self.weight

    def __call__(self, nll: Tensor, penalty: Tensor) -> Tensor:
        """The loss of this step; the next call belongs to the next step.

        Args:
            nll: Mean loss of the domains.
            penalty: Unweighted, or weighted among its own parts.

        Returns:
            What to differentiate.
        """
        weight = self.current
        self.step += 1
        loss = nll + weight * penalty
        return loss / weight if self.rescale and weight > 1 else loss

    def state_dict(self) -> dict[str, int]:
        """The step.

        Returns:
            ``{"step": ...}``.
        """
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another schedule stopped.

        Args:
            state: What :meth:`state_dict` gave.
        """
        self.step = int(state["step"])


class FishOuter:
    r"""Fish: go through the domains one after the other, then only part of the way.

    .. math:: \theta \leftarrow \theta + \epsilon \, (\tilde\theta - \theta)

    with :math:`\tilde\theta` the parameters after one ordinary step on each domain. To first order
    this aligns the domains' gradients, without second derivatives.

    Use it as a context manager around the inner steps; they are yours, with your optimizer, whose
    state carries over from round to round as in DomainBed. After an exception the model is as it
    was before the round.

    Args:
        model: Any module. Floating-point buffers go part of the way too; others keep what the inner
            steps left.
        meta_lr: :math:`\epsilon` in (0, 1]; 0.5 (DomainBed).

    Raises:
        TypeError: ``model`` is no module.
        ValueError: ``meta_lr`` is out of range.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import FishOuter
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> fish = FishOuter(model)
        >>> with fish:
        ...     for slope in (1.0, 3.0):  # two domains
        ...         optimizer.zero_grad()
        ...         model(torch.tensor([[-slope]])).sum().backward()
        ...         optimizer.step()
        >>> model.weight.item()  # half of 1 + 3
        2.0

    References:
        Shi et al., "Gradient matching for domain generalization", 2021, arXiv:2104.09937.
    """

    def __init__(self, model: nn.Module, meta_lr: float = 0.5) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if not 0 < meta_lr <= 1:
            raise ValueError(f"meta_lr must be in (0, 1], got {meta_lr}")
        self.model = model
        self.meta_lr = float(meta_lr)
        self._start: list[Tensor] | None = None

    def _state(self) -> list[Tensor]:
        """Parameters and buffers, each once."""
        return [*self.model.parameters(), *self.model.buffers()]

    @torch.no_grad()
    def __enter__(self) -> Self:
        """Remember where the round starts.

        Returns:
            Itself.

        Raises:
            RuntimeError: A round is under way.
        """
        if self._start is not None:
            raise RuntimeError("a round of FishOuter is under way; do not nest them")
        self._start = [t.detach().clone() for t in self._state()]
        return self

    @torch.no_grad()
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Go part of the way, or back after an exception."""
        start, self._start = self._start, None
        for now, before in zip(self._state(), start or []):
            if kind is not None:
                now.copy_(before)
            elif now.is_floating_point() or now.is_complex():
                now.copy_(torch.lerp(before, now, self.meta_lr))
