"""The two penalties of the paper: Hessian-gradient products, and diagonals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from gradworks.curvature.alignment.aligning import Alignment, Head
from gradworks.curvature.alignment.averages import MovingAverage
from gradworks.curvature.hutchinson import rademacher_like

__all__ = ["HGPAlignment", "HutchinsonAlignment"]

Probes = Literal["exact"] | int | Sequence[Tensor]


class HGPAlignment(Alignment):
    r"""Align gradients and Hessian-gradient products of a classifier head across domains.

    For training on several domains so that the model survives one it has not seen. Add ``total``
    to the mean loss.

    .. math::
        \frac1n \sum_e \alpha \, \lVert H_e g_e - \bar H \bar g \rVert^2
        + \beta \, \lVert g_e - \bar g \rVert^2, \qquad
        \bar g = \frac1n \sum_e g_e, \; \bar H = \frac1n \sum_e H_e

    with gradient and Hessian of each domain's mean cross-entropy in the head's parameters only.
    Domains weigh equally whatever their size.

    Args:
        alpha: Weight of the Hessian part, at least 0; 1e-4 (authors' DomainBed code, which draws it
            from 1e-5 to 1e-3).
        beta: Weight of the gradient part, at least 0; 5e-3 (the same code; 1e-3 to 0.1).
        reduction: ``"mean"`` over domains (default), or ``"sum"`` (authors' Colored MNIST scripts).
        detach_mean: No gradient through the mean's side. Default True; False in those scripts.
        bias: Whether the head has a bias. Default True.
        domain_weights: Shares of the domains in means and reduction; ``None``: equal.
        ema: A :class:`MovingAverage` over steps, for batches too small to estimate a Hessian.
        process_group: Each process holds its share of every domain, perhaps none of some; sums go
            over the group, gradients too. Under ``DistributedDataParallel`` the result is that of
            one process.
        validate: Look at values (labels in range, nothing infinite): always, never, or by default
            on a CPU, where looking does not wait.

    Raises:
        TypeError: A flag is no bool.
        ValueError: A weight is negative or not finite, or the reduction unknown.

    Note:
        Closed form: one ordinary backward pass, O(n C d) a domain, nothing is divided by a
        gradient's norm. Half precision is computed in float32, also under autocast.

        :math:`\bar H \bar g` is not the mean of the :math:`H_e g_e`.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import HGPAlignment, domain_losses
        >>> g = torch.Generator().manual_seed(0)
        >>> body, head = torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)
        >>> x = [torch.randn(6, 5, generator=g), torch.randn(9, 5, generator=g)]
        >>> y = [torch.randint(3, (6,), generator=g), torch.randint(3, (9,), generator=g)]
        >>> z = [body(v) for v in x]
        >>> logits = [head(v) for v in z]
        >>> penalty = HGPAlignment(alpha=1.0, beta=1.0)(z, logits, y)
        >>> (domain_losses(logits, y).mean() + penalty.total).backward()

    References:
        Hemati, Zhang, Estiri, Chen, "Understanding Hessian alignment for domain generalization",
        2023, arXiv:2308.11778. Closed forms of head derivatives are also used by "Moment
        Alignment", 2025, arXiv:2506.07378.
    """

    def __init__(
        self,
        alpha: float = 1e-4,
        beta: float = 5e-3,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        detach_mean: bool = True,
        bias: bool = True,
        domain_weights: Sequence[float] | None = None,
        ema: MovingAverage | None = None,
        process_group: ProcessGroup | None = None,
        validate: bool | None = None,
    ) -> None:
        super().__init__(
            alpha,
            beta,
            reduction=reduction,
            detach_mean=detach_mean,
            bias=bias,
            domain_weights=domain_weights,
            ema=ema,
            process_group=process_group,
            validate=validate,
        )

    def _curvature(self, head: Head, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """H_e g_e and the mean Hessian times the mean gradient."""
        own = head.products(gradients[:, None])[:, 0]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_mean):
            mean = self._mean(head.products(self._mean(gradients)[None, None])[:, 0])
        return own, mean


class HutchinsonAlignment(Alignment):
    r"""Align gradients and Hessian diagonals of a classifier head across domains.

    .. math::
        \frac1n \sum_e \alpha \, \lVert \operatorname{diag} H_e - \operatorname{diag} \bar H
        \rVert^2 + \beta \, \lVert g_e - \bar g \rVert^2

    The authors estimate the diagonals from 300 random products; for a linear head they have a
    closed form, which is the default and cheaper than a single product.

    Args:
        alpha: Weight of the Hessian part, at least 0; 1e-3 (authors' DomainBed code, which draws it
            from 10 to 1e4).
        beta: Weight of the gradient part, at least 0; 5e-3 (the same code; 100 to 1e6).
        probes: ``"exact"`` (default), a number of random sign vectors drawn afresh for the mean and
            for each domain (300 in DomainBed, 150 in the scripts), or those vectors: a list of
            ``(K, m)`` tensors, the first for the mean and one for each domain.
        generator: Source of the signs, on the features' device; ``None`` for torch's global one,
            which advances.
        reduction: As :class:`HGPAlignment`.
        detach_mean: As :class:`HGPAlignment`.
        bias: As :class:`HGPAlignment`.
        domain_weights: As :class:`HGPAlignment`.
        ema: As :class:`HGPAlignment`.
        process_group: As :class:`HGPAlignment`; signs must then be drawn alike everywhere.
        validate: As :class:`HGPAlignment`.

    Raises:
        TypeError: A flag is no bool, or ``probes`` of an unknown kind.
        ValueError: A weight is negative or not finite, the reduction unknown, or ``probes`` below
            1.

    Note:
        An estimate from K products is off by a part that falls as :math:`1/\sqrt K`, and the
        penalty, being a square, is too large on average.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import HutchinsonAlignment
        >>> z = [torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0]])]
        >>> logits, y = [torch.zeros(2), torch.zeros(1)], [torch.tensor([0, 1]), torch.tensor([1])]
        >>> HutchinsonAlignment(alpha=1.0, beta=0.0)(z, logits, y).total
        tensor(0.0352)

    References:
        Hemati, Zhang, Estiri, Chen, "Understanding Hessian alignment for domain generalization",
        2023, arXiv:2308.11778. Bekas, Kokiopoulou, Saad, "An estimator for the diagonal of a
        matrix", 2007.
    """

    def __init__(
        self,
        alpha: float = 1e-3,
        beta: float = 5e-3,
        *,
        probes: Probes = "exact",
        generator: torch.Generator | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        detach_mean: bool = True,
        bias: bool = True,
        domain_weights: Sequence[float] | None = None,
        ema: MovingAverage | None = None,
        process_group: ProcessGroup | None = None,
        validate: bool | None = None,
    ) -> None:
        super().__init__(
            alpha,
            beta,
            reduction=reduction,
            detach_mean=detach_mean,
            bias=bias,
            domain_weights=domain_weights,
            ema=ema,
            process_group=process_group,
            validate=validate,
        )
        self.probes = _checked_probes(probes)
        self.generator = generator

    def extra_repr(self) -> str:
        """The settings, as ``print(module)`` shows them."""
        kept = self.probes if isinstance(self.probes, str | int) else "given"
        return f"{super().extra_repr()}, probes={kept!r}"

    def _curvature(self, head: Head, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Diagonals of the Hessians and of their mean."""
        if self.probes == "exact":
            own = head.diagonals()
            return own, self._mean(own)
        first, each = self._drawn(head, gradients)
        own = (each * head.products(each)).mean(1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_mean):
            mean = self._mean((first * head.products(first)).mean(1))
        return own, mean

    def _drawn(self, head: Head, like: Tensor) -> tuple[Tensor, Tensor]:
        """Probes of the mean ``(1, K, m)`` and of the domains ``(domains, K, m)``."""
        domains = len(like)
        if isinstance(self.probes, int):
            shape = (domains + 1, self.probes, head.size)
            (signs,) = rademacher_like(like.new_empty(shape), generator=self.generator)
            return signs[:1], signs[1:]
        given = [p for p in self.probes if isinstance(p, Tensor)]
        fits = all(p.shape[1] == head.size for p in given)
        if len(given) != domains + 1 or not fits:
            shapes = [tuple(p.shape) for p in given[:3]]
            raise ValueError(
                f"probes must hold {domains + 1} tensors (K, {head.size}), the first for the mean "
                f"and one for each domain; got {len(given)} of shapes {shapes}"
            )
        stacked = torch.stack([p.to(like) for p in given])
        return stacked[:1], stacked[1:]


def _checked_probes(probes: object) -> Probes:
    """``"exact"``, a count, or a list of matrices with one number of rows."""
    if isinstance(probes, str):
        if probes != "exact":
            raise ValueError(f"probes must be 'exact', a number or a list, got {probes!r}")
        return "exact"
    if isinstance(probes, int) and not isinstance(probes, bool):
        if probes < 1:
            raise ValueError(f"probes must be at least 1, got {probes}")
        return probes
    if not isinstance(probes, list | tuple) or not all(isinstance(p, Tensor) for p in probes):
        raise TypeError(
            f"probes must be 'exact', an integer or a list of tensors, got {type(probes).__name__}"
        )
    if any(p.dim() != 2 or p.shape != probes[0].shape for p in probes):
        shapes = [tuple(p.shape) for p in probes[:3]]
        raise ValueError(f"probes must all have one shape (K, m), got {shapes}")
    return list(probes)
