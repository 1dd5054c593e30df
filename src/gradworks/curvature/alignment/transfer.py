r"""The transfer measure between two domains, and the bound that Hessian alignment lowers.

Near parameters :math:`\theta^*` that are optimal in both domains, the second-order term
:math:`\frac12 \delta^2 \lVert H_T - H_S \rVert_2` is the paper's bound. The first-order term, the
explicit remainder and the search for the supremum are ours, so that the bound also holds where the
optimum is not shared and the radius not small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gradworks.curvature.alignment.distances import difference, one_by_one
from gradworks.curvature.alignment.domains import Domains
from gradworks.curvature.alignment.head import LinearHead
from gradworks.curvature.lanczos import eigsh

__all__ = ["TransferMeasure", "transfer_measure"]

# Largest third derivative of a cross-entropy along a unit change of the logits: the third central
# moment of a variable of range R is at most R^3 / (6 sqrt 3); R is 1 for one logit, sqrt 2 else.
_THIRD_ONE_LOGIT = 1 / (6 * math.sqrt(3))
_THIRD_SOFTMAX = 2 * math.sqrt(2) / (6 * math.sqrt(3))


@dataclass(frozen=True)
class TransferMeasure:
    r"""How much worse the target can get while the source hardly notices, in a ball of the head.

    Attributes:
        value: The largest gap found, a lower bound of the supremum.
        bound: ``first_order + second_order + remainder``: the supremum is not above it.
        first_order: :math:`\delta \lVert g_T - g_S \rVert`; zero where both gradients agree.
        second_order: :math:`\frac12 \delta^2 \lVert H_T - H_S \rVert_2`, the paper's term.
        remainder: Of third order in :math:`\delta`.
        distance: :math:`\lVert H_T - H_S \rVert_2`.
        radius: :math:`\delta`.
    """

    value: float
    bound: float
    first_order: float
    second_order: float
    remainder: float
    distance: float
    radius: float


def transfer_measure(
    features: tuple[Tensor, Tensor],
    logits: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    *,
    radius: float,
    bias: bool = True,
    steps: int = 100,
    starts: int = 4,
    generator: torch.Generator | None = None,
) -> TransferMeasure:
    r"""Transfer measure from a source to a target domain around the present head.

    .. math::
        T(S \| T) = \sup_{\lVert \theta - \theta^* \rVert \le \delta}
        \big( L_T(\theta) - L_T(\theta^*) \big) - \big( L_S(\theta) - L_S(\theta^*) \big)
        \le \delta \lVert g_T - g_S \rVert + \tfrac12 \delta^2 \lVert H_T - H_S \rVert_2 + R

    A source transfers if every head that is good there is good in the target too. Which heads are
    good there is taken as a ball around the head in use.

    Args:
        features: Of source and target, ``(n, d)`` each.
        logits: Of source and target, ``(n, C)`` each; one column or none for one logit.
        targets: Of source and target, ``(n,)`` each.
        radius: :math:`\delta`, above 0, in the units of the head's parameters.
        bias: Whether the head has a bias. Default True.
        steps: Steps of projected gradient ascent from every start. Default 100.
        starts: Random starts beside the gradient's and the top eigenvectors' directions. Default 4.
        generator: Source of the starts; ``None`` for a fresh one with seed 0.

    Returns:
        The measure found and the bound with its parts.

    Raises:
        TypeError: As :class:`~gradworks.curvature.alignment.HGPAlignment`.
        ValueError: As :class:`~gradworks.curvature.alignment.HGPAlignment`, not exactly two
            domains, a radius that is not positive, or counts out of range.

    Note:
        The remainder is :math:`\frac16 \delta^3 c \sum_{S, T} \langle \lVert \tilde z \rVert^3
        \rangle` with c about 0.272 for a softmax and 0.096 for one logit.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import transfer_measure
        >>> z = (torch.tensor([[1.0], [1.0]]), torch.tensor([[2.0], [2.0]]))
        >>> y = (torch.tensor([0, 1]), torch.tensor([0, 1]))
        >>> found = transfer_measure(z, (torch.zeros(2),) * 2, y, radius=0.1, bias=False)
        >>> round(found.second_order, 5), found.value <= found.bound
        (0.00375, True)

    References:
        Zhang, Zhao, Yu, Poupart, "Quantifying and improving transferability in domain
        generalization", 2021, arXiv:2106.03632. Hemati et al., 2023, arXiv:2308.11778.
    """  # noqa: DOC502
    if not 0 < radius < math.inf:
        raise ValueError(f"radius must be above 0 and finite, got {radius!r}")
    for name, count, least in (("steps", steps, 1), ("starts", starts, 0)):
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {count!r}")
    if len(features) != 2:
        raise ValueError(f"features must hold source and target, got {len(features)} domains")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    source, target = one_by_one(list(features), list(logits), list(targets))
    with torch.no_grad():
        op = difference(target, source, bias=bias)
        pairs = eigsh(op, min(2, op.dimension), which="BE", tol=1e-9)
        distance = float(pairs.values.abs().max())
        slope = (
            LinearHead(target, bias=bias).gradients() - LinearHead(source, bias=bias).gradients()
        )[0]
        random = torch.randn(starts, op.dimension, generator=generator, dtype=torch.float64)
        top = pairs.vectors.mT
        first = torch.cat([slope[None], top, -top, random.to(slope)])
        begin = radius * F.normalize(first, dim=1)
        value = _ascend(source, target, begin, radius, steps, bias)
    third = _THIRD_ONE_LOGIT if source.binary else _THIRD_SOFTMAX
    lengths = sum(
        float((d.features.square().sum(1) + bias).pow(1.5).mean()) for d in (source, target)
    )
    terms = (
        radius * float(slope.norm()),
        0.5 * radius**2 * distance,
        radius**3 / 6 * third * lengths,
    )
    return TransferMeasure(value, sum(terms), *terms, distance, radius)


def _moved(domain: Domains, theta: Tensor, bias: bool) -> tuple[Tensor, Tensor]:
    """Rise of the loss and its gradient at K displaced heads: ``(K,)``, ``(K, m)``."""
    z, logits = domain.features, domain.logits
    n, classes = logits.shape
    weight = theta[:, : classes * z.shape[1]].reshape(-1, classes, z.shape[1])
    moved = logits[None] + z @ weight.mT
    if bias:
        moved = moved + theta[:, None, classes * z.shape[1] :]
    labels = domain.probabilities - domain.residual
    if domain.binary:
        rise = F.softplus(moved) - F.softplus(logits) - labels * (moved - logits)
        residual = torch.sigmoid(moved) - labels
    else:
        rise = (
            moved.logsumexp(2, keepdim=True)
            - logits.logsumexp(1, keepdim=True)
            - (labels * (moved - logits)).sum(2, keepdim=True)
        )
        residual = torch.softmax(moved, 2) - labels
    pieces = [(residual.mT @ z / n).flatten(1)]
    if bias:
        pieces.append(residual.mean(1))
    return rise.sum(2).mean(1), torch.cat(pieces, 1)


def _ascend(
    source: Domains,
    target: Domains,
    theta: Tensor,
    radius: float,
    steps: int,
    bias: bool,
) -> float:
    """Largest gap found in the ball by conditional-gradient steps from all starts at once."""
    best = theta.new_zeros(())  # the head itself
    for _ in range(steps):
        up, up_slope = _moved(target, theta, bias)
        down, down_slope = _moved(source, theta, bias)
        best = torch.maximum(best, (up - down).max())
        # The gap grows towards the sphere; where it does not, the average stays inside.
        corner = radius * F.normalize(up_slope - down_slope, dim=1)
        theta = (theta + corner) / 2
    up, _ = _moved(target, theta, bias)
    down, _ = _moved(source, theta, bias)
    return float(torch.maximum(best, (up - down).max()))
