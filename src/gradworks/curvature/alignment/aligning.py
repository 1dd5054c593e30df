"""What both penalties share: settings, the way to a head, the distance from the mean."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from gradworks.curvature.alignment.autograd_head import AutogradHead, head_parameters
from gradworks.curvature.alignment.averages import MovingAverage
from gradworks.curvature.alignment.domains import (
    at_least_two,
    check_lists,
    gather,
    mean_cross_entropy,
)
from gradworks.curvature.alignment.head import LinearHead

__all__ = ["Alignment", "AlignmentPenalty", "Head"]

LossFunction = Callable[[Tensor, Tensor], Tensor]


class AlignmentPenalty(NamedTuple):
    """What a penalty is made of.

    Attributes:
        total: ``alpha * hessian + beta * gradient``; add it to the loss.
        hessian: How far the domains' curvature is from that of the mean loss, unweighted.
        gradient: The same of the gradients.
    """

    total: Tensor
    hessian: Tensor
    gradient: Tensor


class Head(Protocol):
    """What the penalties ask of a head: one vector a domain each."""

    size: int

    def gradients(self) -> Tensor:
        """``(domains, m)``."""
        ...

    def diagonals(self) -> Tensor:
        """``(domains, m)``."""
        ...

    def products(self, vectors: Tensor) -> Tensor:
        """``(domains, K, m)`` from vectors of that shape, or ``(1, K, m)``."""
        ...


class Alignment(nn.Module, ABC):
    """Settings and the distance; a subclass says what stands for the Hessian."""

    def __init__(
        self,
        alpha: float,
        beta: float,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        detach_mean: bool = True,
        bias: bool = True,
        domain_weights: Sequence[float] | None = None,
        ema: MovingAverage | None = None,
        process_group: ProcessGroup | None = None,
        validate: bool | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {value!r}")
        if reduction not in {"mean", "sum"}:
            raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
        for name, flag in (("detach_mean", detach_mean), ("bias", bias)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name} must be True or False, got {flag!r}")
        self.alpha = float(alpha)
        self.beta = float(beta)
        self.reduction = reduction
        self.detach_mean = detach_mean
        self.bias = bias
        self.domain_weights = _checked_weights(domain_weights)
        self.ema = ema
        self.process_group = process_group
        self.validate = validate
        # In a tuple, so that its parameters are not taken for this module's own.
        self._head: tuple[nn.Module, LossFunction | None] | None = None

    @classmethod
    def from_head(
        cls, head: nn.Module, *, loss_fn: LossFunction | None = None, **settings: Any
    ) -> Self:
        """A penalty that fits a head.

        Args:
            head: The classifier behind the features. ``nn.Linear`` takes the closed form; any other
                module, or any other loss, is differentiated.
            loss_fn: ``(logits, targets) -> scalar``, the mean over rows; ``None`` for
                cross-entropy.
            **settings: As for the class. ``bias`` follows a linear head.

        Returns:
            The penalty; it keeps a reference to the head, and its ``logits`` may be ``None``.

        Raises:
            TypeError: ``head`` is no module.
            ValueError: ``bias`` contradicts the head, the head has nothing to train, or processes
                are asked for with a head that is differentiated.

        Example:
            >>> import torch
            >>> from gradworks.curvature.alignment import HGPAlignment
            >>> head = torch.nn.Linear(3, 2, bias=False)
            >>> HGPAlignment.from_head(head).bias
            False
        """
        if not isinstance(head, nn.Module):
            raise TypeError(f"head must be a torch.nn.Module, got {type(head).__name__}")
        if isinstance(head, nn.Linear):
            has_bias = head.bias is not None
            if settings.setdefault("bias", has_bias) != has_bias:
                raise ValueError(
                    f"bias={settings['bias']} does not fit the head, which has "
                    f"{'one' if has_bias else 'none: pass bias=False'}"
                )
        elif "bias" in settings:
            raise ValueError("bias is for linear heads; of any other all parameters are aligned")
        trained = head_parameters(head)
        penalty = cls(**settings)
        whole = len(trained) == len(list(head.parameters()))
        if not (type(head) is nn.Linear and loss_fn is None and whole):
            if penalty.process_group is not None:
                raise ValueError("process_group needs a linear head under cross-entropy")
            loss_fn = mean_cross_entropy if loss_fn is None else loss_fn
        penalty._head = (head, loss_fn)
        return penalty

    def extra_repr(self) -> str:
        """The settings, as ``print(module)`` shows them."""
        return (
            f"alpha={self.alpha}, beta={self.beta}, reduction={self.reduction!r}, "
            f"detach_mean={self.detach_mean}, bias={self.bias}"
        )

    @abstractmethod
    def _curvature(self, head: Head, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """What stands for the Hessian: of each domain ``(domains, m)``, of the mean ``(m,)``."""

    def forward(
        self,
        features: Sequence[Tensor],
        logits: Sequence[Tensor] | None,
        targets: Sequence[Tensor],
    ) -> AlignmentPenalty:
        """The penalty of one batch from every domain.

        Args:
            features: What goes into the head, ``(n_e, d)`` for each domain; domains may differ in
                size. Do not detach them: the penalty is there to shape them.
            logits: What comes out, ``(n_e, C)``; ``(n_e, 1)`` or ``(n_e,)`` for one logit.
                ``None`` after :meth:`from_head`.
            targets: Labels, ``(n_e,)``.

        Returns:
            Scalars that gradients go through.

        Raises:
            TypeError: An argument is no list of tensors, or labels are not integers.
            ValueError: Fewer than two domains, an empty one, lists, widths or rows that differ,
                labels out of range, features or logits that are not finite, no logits and no head,
                or ``domain_weights`` of another length.
        """  # noqa: DOC502
        if logits is None and self._head is None:
            raise ValueError("logits may be None only after from_head(head)")
        differentiated = self._head is not None and self._head[1] is not None
        # A penalty that is only looked at still needs the graph of a head to differentiate.
        keep = torch.is_grad_enabled()
        leave = differentiated and torch.is_inference_mode_enabled()
        with (
            _full_precision(features),
            torch.inference_mode(False) if leave else nullcontext(),
            torch.set_grad_enabled(keep),
        ):
            if leave:  # tensors made in that mode cannot be in a graph
                features, targets = [z.clone() for z in features], [y.clone() for y in targets]
            with torch.set_grad_enabled(keep or differentiated):
                head = self._posed(features, logits, targets)
            penalty = self._penalty(head)
        if keep:
            return penalty
        return AlignmentPenalty(*(part.detach() for part in penalty))

    def _posed(
        self,
        features: Sequence[Tensor],
        logits: Sequence[Tensor] | None,
        targets: Sequence[Tensor],
    ) -> Head:
        """The domains as a head to ask."""
        if self._head is None:
            module, loss_fn = None, None
        else:
            module, loss_fn = self._head
        if logits is None or (loss_fn is not None and not _have_graphs(logits)):
            logits = [module(_raised(z, module)) for z in features] if module is not None else []
        if loss_fn is not None and module is not None:
            if not len(features) == len(logits) == len(targets):
                raise ValueError(
                    "features, logits and targets must have one entry for each domain, got "
                    f"{len(features)}, {len(logits)} and {len(targets)}"
                )
            at_least_two(len(features))
            if loss_fn is mean_cross_entropy:
                flat = [z.flatten(1) if z.dim() > 1 else z for z in features]
                check_lists(flat, logits, targets, validate=self.validate)
            return AutogradHead(module, loss_fn, logits, targets)
        z, a, y = check_lists(
            features,
            logits,
            targets,
            allow_empty=self.process_group is not None,
            validate=self.validate,
        )
        return LinearHead(gather(z, a, y), bias=self.bias, process_group=self.process_group)

    def _penalty(self, head: Head) -> AlignmentPenalty:
        """Distances from the mean, reduced and weighted."""
        gradients = head.gradients()
        curvature, mean_curvature = self._curvature(head, gradients)
        mean_gradient = self._mean(gradients)
        if self.ema is not None:
            own = torch.stack([curvature, gradients])
            means = torch.stack([mean_curvature, mean_gradient])[:, None]
            averaged = self.ema(torch.cat([own, means], 1))
            (curvature, gradients), (mean_curvature, mean_gradient) = (
                averaged[:, :-1],
                averaged[:, -1],
            )
        if self.detach_mean:
            mean_curvature, mean_gradient = mean_curvature.detach(), mean_gradient.detach()
        hessian = self._reduced(curvature - mean_curvature)
        gradient = self._reduced(gradients - mean_gradient)
        return AlignmentPenalty(self.alpha * hessian + self.beta * gradient, hessian, gradient)

    def _mean(self, x: Tensor) -> Tensor:
        """Mean over domains, the first dimension; not over examples."""
        if self.domain_weights is None:
            return x.mean(0)
        if len(self.domain_weights) != len(x):
            raise ValueError(
                f"domain_weights has {len(self.domain_weights)} entries for {len(x)} domains"
            )
        parts = [w * row for w, row in zip(self.domain_weights, x)]
        return torch.stack(parts).sum(0)

    def _reduced(self, deviations: Tensor) -> Tensor:
        """Squared lengths, averaged or summed over domains."""
        found = self._mean(deviations.square().sum(1))
        return found * len(deviations) if self.reduction == "sum" else found


def _checked_weights(weights: object) -> tuple[float, ...] | None:
    """Shares that sum to 1."""
    if weights is None:
        return None
    if not isinstance(weights, Sequence):
        raise TypeError(f"domain_weights must be a list of numbers, got {type(weights).__name__}")
    shares = tuple(float(w) for w in weights)
    total = sum(shares)
    if not shares or not all(w >= 0 for w in shares) or not 0 < total < math.inf:
        raise ValueError(f"domain_weights must be at least 0, and one above, got {weights!r}")
    return tuple(w / total for w in shares)


def _have_graphs(logits: Sequence[Tensor]) -> bool:
    """Whether there is something to differentiate."""
    return all(isinstance(a, Tensor) and a.requires_grad for a in logits)


def _raised(features: Tensor, head: nn.Module) -> Tensor:
    """Features that autocast, which is off here, left below the head's type."""
    if not isinstance(features, Tensor) or not features.is_floating_point():
        return features
    return features.to(torch.promote_types(features.dtype, next(head.parameters()).dtype))


def _full_precision(features: Sequence[Tensor]) -> torch.autocast:
    """Autocast switched off: squares of small differences are not for half precision."""
    device = features[0].device.type if len(features) and hasattr(features[0], "device") else "cpu"
    return torch.autocast(device, enabled=False)
