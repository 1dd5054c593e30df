"""The penalties that the paper compares with, from the same ingredients.

Formulas as in DomainBed, whose code the authors extend. Plain training (ERM) has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from gradworks.curvature.alignment.averages import MovingAverage
from gradworks.curvature.alignment.domains import (
    at_least_two,
    check_lists,
    check_outputs,
    full_precision,
    gather,
)
from gradworks.curvature.alignment.head import LinearHead

__all__ = ["coral_penalty", "fishr_penalty", "iga_penalty", "irm_penalty", "vrex_penalty"]


def _scale_derivative(logits: Tensor, targets: Tensor) -> Tensor:
    """Derivative of the mean loss in a factor on the logits, at 1: the mean of residual . logit."""
    rows = gather([logits], [logits], [targets])
    return (rows.residual * rows.features).sum(1).mean()


def irm_penalty(
    logits: Sequence[Tensor], targets: Sequence[Tensor], *, halves: bool = False
) -> Tensor:
    r"""IRMv1: is a head scaled by 1 optimal in every domain?

    .. math:: \frac1n \sum_e \Big( \frac{\partial L_e(s \cdot \text{logits})}{\partial s}
        \Big|_{s=1} \Big)^2

    For a linear head the derivative is :math:`\theta^\top g_e`: one projection of the gradient that
    HGP and Hutchinson align.

    Args:
        logits: ``(n_e, C)`` for each domain; one column or none for one logit.
        targets: ``(n_e,)`` for each domain.
        halves: Multiply the derivatives of even and odd rows, which is unbiased (DomainBed), rather
            than square (default, Colored MNIST scripts). Domains then need two rows.

    Returns:
        A scalar.

    Raises:
        TypeError: As :class:`~gradworks.curvature.alignment.HGPAlignment`.
        ValueError: As :class:`~gradworks.curvature.alignment.HGPAlignment`, or a domain of one row
            with ``halves``.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import irm_penalty
        >>> irm_penalty([torch.tensor([[2.0, 0.0]])] * 2, [torch.tensor([0])] * 2)
        tensor(0.0568)

    References:
        Arjovsky, Bottou, Gulrajani, Lopez-Paz, "Invariant risk minimization", 2019,
        arXiv:1907.02893.
    """  # noqa: DOC502
    a, y = check_outputs(logits, targets)
    if not halves:
        parts = [_scale_derivative(u, v).square() for u, v in zip(a, y)]
    else:
        if any(len(u) < 2 for u in a):
            raise ValueError("halves=True needs at least two rows in every domain")
        parts = [
            _scale_derivative(u[::2], v[::2]) * _scale_derivative(u[1::2], v[1::2])
            for u, v in zip(a, y)
        ]
    return torch.stack(parts).mean()


def vrex_penalty(losses: Sequence[Tensor] | Tensor) -> Tensor:
    r"""V-REx: variance of the domains' losses.

    .. math:: \frac1n \sum_e (L_e - \bar L)^2

    Args:
        losses: One scalar a domain, or ``(domains,)``; see
            :func:`~gradworks.curvature.alignment.domain_losses`.

    Returns:
        A scalar.

    Raises:
        ValueError: Fewer than two domains, or a loss that is no scalar.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import vrex_penalty
        >>> vrex_penalty(torch.tensor([1.0, 3.0]))
        tensor(1.)

    References:
        Krueger et al., "Out-of-distribution generalization via risk extrapolation", 2020,
        arXiv:2003.00688.
    """  # noqa: DOC502
    values = torch.stack(_scalars(losses))
    return (values - values.mean()).square().mean()


def coral_penalty(features: Sequence[Tensor]) -> Tensor:
    r"""CORAL: do features have the same mean and covariance in all domains?

    .. math:: \operatorname{mean}_{i<j} \; \frac1d \lVert \mu_i - \mu_j \rVert^2
        + \frac1{d^2} \lVert \Sigma_i - \Sigma_j \rVert_F^2

    with unbiased covariances.

    Args:
        features: ``(n_e, d)`` for each domain, two rows at least.

    Returns:
        A scalar.

    Raises:
        TypeError: As :class:`~gradworks.curvature.alignment.HGPAlignment`.
        ValueError: As :class:`~gradworks.curvature.alignment.HGPAlignment`, or a domain of one row.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import coral_penalty
        >>> coral_penalty([torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]])])
        tensor(1.)

    References:
        Sun, Saenko, "Deep CORAL: correlation alignment for deep domain adaptation", 2016,
        arXiv:1607.01719; the means are DomainBed's.
    """  # noqa: DOC502
    rows = [z[:, :1] if isinstance(z, Tensor) and z.dim() == 2 else z for z in features]
    labels = [
        z.new_zeros(z.shape[:1], dtype=torch.long) if isinstance(z, Tensor) else z for z in features
    ]
    z, _, _ = check_lists(features, rows, labels)
    if any(len(v) < 2 for v in z):
        raise ValueError("features needs at least two rows in every domain for a covariance")
    z = [v.to(full_precision(v)) for v in z]
    means = [v.mean(0) for v in z]
    covariances = [(v - m).mT @ (v - m) / (len(v) - 1) for v, m in zip(z, means)]
    parts = [
        (means[i] - means[j]).square().mean() + (covariances[i] - covariances[j]).square().mean()
        for i in range(len(z))
        for j in range(i + 1, len(z))
    ]
    return torch.stack(parts).mean()


def fishr_penalty(
    features: Sequence[Tensor],
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    bias: bool = True,
    ema: MovingAverage | None = None,
) -> Tensor:
    r"""Fishr: do single examples' head gradients vary alike in all domains?

    .. math:: \frac1n \sum_e \lVert v_e - \bar v \rVert^2, \qquad
        v_e = \langle r^2 \otimes \tilde z^2 \rangle - \langle r \otimes \tilde z \rangle^2

    the variance of each element, in closed form: no gradient of a single example is formed.

    Args:
        features: ``(n_e, d)`` for each domain.
        logits: ``(n_e, C)`` for each domain.
        targets: ``(n_e,)`` for each domain.
        bias: Whether the head has a bias. Default True.
        ema: Moving average over steps; DomainBed uses ``MovingAverage(0.95)``.

    Returns:
        A scalar.

    Raises:
        TypeError: As :class:`~gradworks.curvature.alignment.HGPAlignment`.
        ValueError: As :class:`~gradworks.curvature.alignment.HGPAlignment`.

    Note:
        DomainBed weighs it by 1000 from step 1500, where it also starts Adam anew. It takes the
        mean over the head's elements where the sum is taken here: divide by their number to use
        its weight.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import fishr_penalty
        >>> z = [torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]])]
        >>> fishr_penalty(z, [torch.zeros(2)] * 2, [torch.tensor([1, 1])] * 2)
        tensor(0.0156)

    References:
        Rame, Dancette, Cord, "Fishr: invariant gradient variances for out-of-distribution
        generalization", 2022, arXiv:2109.02934.
    """  # noqa: DOC502
    z, a, y = check_lists(features, logits, targets)
    head = LinearHead(gather(z, a, y), bias=bias)
    variances = head.gradient_variances()
    if ema is not None:
        variances = ema(variances)
    return (variances - variances.mean(0)).square().sum(1).mean()


def iga_penalty(losses: Sequence[Tensor] | Tensor, params: Iterable[Tensor]) -> Tensor:
    r"""IGA: variance of the domains' gradients in all parameters.

    .. math:: \sum_e \lVert \nabla L_e - \nabla \bar L \rVert^2

    Args:
        losses: One scalar a domain, with its graph.
        params: The parameters, of the whole network.

    Returns:
        A scalar with a graph of second order; the mean's side is detached, as in DomainBed, which
        does not change the gradient.

    Raises:
        ValueError: Fewer than two domains, a loss that is no scalar or has no graph, or no
            parameter.

    Note:
        A backward pass through a backward pass. DomainBed weighs it by 1000.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import iga_penalty
        >>> w = torch.tensor(1.0, requires_grad=True)
        >>> iga_penalty([w**2, 2 * w**2], [w])
        tensor(2., grad_fn=<...>)

    References:
        Koyama, Yamaguchi, "When is invariance useful in an out-of-distribution generalization
        problem?", 2020, arXiv:2008.01883.
    """
    values = _scalars(losses)
    trained = [p for p in params if p.requires_grad]
    if not trained:
        raise ValueError("params has no tensor that requires a gradient")
    if not all(v.requires_grad for v in values):
        raise ValueError("losses need a graph: compute them from the parameters, with gradients on")
    found = [torch.autograd.grad(v, trained, create_graph=True, allow_unused=True) for v in values]
    total = values[0].new_zeros(())
    for column in zip(*found):
        present = [g for g in column if g is not None]
        if present:
            stacked = torch.stack([g if g is not None else 0 * present[0] for g in column])
            total = total + (stacked - stacked.mean(0).detach()).square().sum()
    return total


def _scalars(losses: Sequence[Tensor] | Tensor) -> list[Tensor]:
    """One number a domain."""
    values = list(losses.unbind()) if isinstance(losses, Tensor) and losses.dim() else losses
    if isinstance(values, Tensor) or not all(isinstance(v, Tensor) for v in values):
        raise ValueError("losses must be a list of scalars, or a tensor (domains,)")
    at_least_two(len(values))
    for i, v in enumerate(values):
        if v.numel() != 1:
            raise ValueError(f"losses[{i}] must be a scalar, got shape {tuple(v.shape)}")
    return [v.reshape(()) for v in values]
