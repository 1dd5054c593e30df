"""The losses AnyLoss is compared with, for many models at once.

Each is a function ``(logits, target, weight) -> loss`` over the last dimension: (..., N) to (...),
the form that :func:`~gradworks.losses.anyloss.fit_batched` trains with. ``weight`` is 0 for rows
that are not a model's own (padding, other folds).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gradworks.losses.anyloss.confusion import (
    Confusion,
    Rule,
    batched_confusion,
    surrogate_scale,
)
from gradworks.losses.anyloss.inputs import check_beta, check_rule
from gradworks.losses.anyloss.metrics import Partials, get_metric

__all__ = [
    "BatchedLoss",
    "BatchedMetricLoss",
    "BoundLoss",
    "batched_bce",
    "batched_focal",
    "batched_squared_error",
    "batched_weighted_bce",
    "best_threshold",
    "hard_confusion",
]

BatchedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Function of (logits, target, weight), (..., N) each, to one loss a model, (...)."""

BoundLoss = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Function of logits to losses (...) and their derivatives by the logits (..., N)."""


class BatchedMetricLoss:
    r"""One minus a soft metric, for many models at once.

    The loss of :func:`~gradworks.losses.anyloss.anyloss` without its checks; AnyLoss, SOL or the
    linear surrogate by ``surrogate``.

    Args:
        metric: Name in ``METRICS`` or a function of the counts; "f1".
        beta: F-beta's weight of recall; 1.0.
        amplification: :math:`L`, 73.0; or a schedule ``(call number) -> L``.
        threshold: Decision threshold in (0, 1); 0.5.
        surrogate: "anyloss", "sol" or "linear".

    Example:
        >>> loss = BatchedMetricLoss("accuracy")
        >>> z, y = torch.zeros(2, 3, 4), torch.ones(4)
        >>> loss(z, y, torch.ones(4)).tolist()
        [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    """

    def __init__(
        self,
        metric: str | Callable[..., Tensor] = "f1",
        *,
        beta: float = 1.0,
        amplification: float | Callable[[int], float] = 73.0,
        threshold: float = 0.5,
        surrogate: str = "anyloss",
    ) -> None:
        check_rule(surrogate, 73.0 if callable(amplification) else amplification, threshold)
        self._metric = get_metric(metric, check_beta(beta))
        self._amplification = amplification
        self._threshold = threshold
        self._surrogate = surrogate
        self._calls = 0

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Loss of every model.

        Args:
            logits: Scores (..., N).
            target: Labels in {0, 1}, broadcastable to ``logits``.
            weight: Weights >= 0, broadcastable to ``logits``.

        Returns:
            One loss a model, (...).
        """
        return 1.0 - self._metric(batched_confusion(logits, target, weight, self._rule()))

    def bind(self, target: Tensor, weight: Tensor, *, values: bool = True) -> BoundLoss | None:
        """Fix labels and weights, for full-batch training in closed form.

        Args:
            target: Labels (folds, 1, N).
            weight: Weights (folds, 1, N).
            values: Whether the losses are wanted; here they come with the derivatives.

        Returns:
            A function of logits (folds, variants, N) to losses (folds, variants) and their
            derivatives by the logits; ``None`` where no closed form is known (the linear
            surrogate, metrics beyond the paper's).
        """
        partials = getattr(self._metric, "partials", None)
        if partials is None or self._surrogate == "linear":
            return None
        return _bind(partials, target, weight, self._rule)

    def _rule(self) -> Rule:
        """Surrogate and constants of the next call."""
        strength = self._amplification
        if callable(strength):
            strength = check_rule(self._surrogate, strength(self._calls), self._threshold)
            self._calls += 1
        return Rule(self._surrogate, float(strength), self._threshold)


def _bind(
    partials: Partials, target: Tensor, weight: Tensor, rule_of: Callable[[], Rule]
) -> BoundLoss:
    """The loss and its derivative by the logits in about twenty tensor operations."""
    # Two rows a fold, w y and w: products with them give TP and TP + FP, and spread derivatives.
    rows = torch.cat([weight * target, weight], dim=1)
    # A = 1/2 + c, so half the weights come first.
    half = 0.5 * rows.sum(-1).unsqueeze(1)
    positives, total = 2.0 * half[..., 0], 2.0 * half[..., 1]

    def gradient(logits: Tensor) -> tuple[Tensor, Tensor]:
        rule = rule_of()
        centred = _centred_sol if rule.surrogate == "sol" else _centred_anyloss
        scale = surrogate_scale(rule)
        small = logits.abs().neg_().sigmoid_()
        c, density = centred(logits, small, rule, scale)
        counts = half + torch.bmm(c, rows.mT)
        value, by_tp, by_said = partials(counts[..., 0], counts[..., 1], positives, total)
        small.addcmul_(small, small, value=-1.0)
        pull = torch.stack([by_tp, by_said], dim=-1).mul_(-scale)
        return 1.0 - value, density.mul_(small).mul_(torch.bmm(pull, rows))

    return gradient


def _centred_anyloss(
    logits: Tensor, small: Tensor, rule: Rule, scale: float
) -> tuple[Tensor, Tensor]:
    """A - 1/2 = sign(u) (1/2 - sigmoid(-|u|)) and A (1 - A), with u = L (p - t)."""
    shift = torch.full((), -0.5 * scale, dtype=small.dtype, device=small.device)
    sign, tail = logits, torch.add(shift, small, alpha=scale)
    if rule.threshold != 0.5:
        sign = tail.neg_().copysign_(logits).add_(scale * (0.5 - rule.threshold))
        tail = sign.abs().neg_()
    tail.sigmoid_()
    return (0.5 - tail).copysign_(sign), tail.addcmul_(tail, tail, value=-1.0)


def _centred_sol(logits: Tensor, small: Tensor, rule: Rule, scale: float) -> tuple[Tensor, Tensor]:
    """A - 1/2 = (u + sin(pi u) / pi) / 2 and (1 + cos(pi u)) / 2, with u clipped to [-1, 1]."""
    half = torch.full((), 0.5 * scale, dtype=small.dtype, device=small.device)
    u = torch.add(half, small, alpha=-scale).copysign_(logits)
    u = u.add_(scale * (0.5 - rule.threshold)).clamp_(-1.0, 1.0)
    angle = u * math.pi
    density = torch.cos(angle).add_(1.0).mul_(0.5)
    return u.add_(angle.sin_(), alpha=1.0 / math.pi).mul_(0.5), density


class _Pointwise:
    """A loss that is a weighted mean over samples, with its derivative in closed form."""

    def __init__(
        self,
        name: str,
        value: Callable[[Tensor, Tensor], Tensor],
        slope: Callable[[Tensor, Tensor], Tensor],
        *,
        balanced: bool = False,
    ) -> None:
        self._name, self._value, self._slope, self._balanced = name, value, slope, balanced

    def _shares(self, target: Tensor, weight: Tensor) -> Tensor:
        """Weights that sum to 1 over the last dimension; 0 where no row has weight."""
        tiny = torch.finfo(weight.dtype).tiny
        if self._balanced:
            positive = (weight * target).sum(-1, keepdim=True).clamp_min(tiny)
            negative = (weight * (1.0 - target)).sum(-1, keepdim=True).clamp_min(tiny)
            weight = weight * (target / positive + (1.0 - target) / negative)
        return weight / weight.sum(-1, keepdim=True).clamp_min(tiny)

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Loss of every model: (..., N) to (...)."""
        return (self._value(logits, target) * self._shares(target, weight)).sum(-1)

    def bind(self, target: Tensor, weight: Tensor, *, values: bool = True) -> BoundLoss:
        """Derivative, and the loss if ``values`` are wanted, for fixed labels and weights."""
        shares = self._shares(target, weight)

        def gradient(logits: Tensor) -> tuple[Tensor, Tensor]:
            slope = self._slope(logits, target).mul_(shares)
            if not values:
                return logits.new_zeros(logits.shape[:-1]), slope
            return (self._value(logits, target) * shares).sum(-1), slope

        return gradient

    def __repr__(self) -> str:
        return self._name


def _bce(logits: Tensor, target: Tensor) -> Tensor:
    return F.softplus(logits) - target * logits


def _bce_slope(logits: Tensor, target: Tensor) -> Tensor:
    return torch.sigmoid(logits) - target


batched_bce: BatchedLoss = _Pointwise("batched_bce", _bce, _bce_slope)
"""Binary cross-entropy with logits, a weighted mean."""

batched_weighted_bce: BatchedLoss = _Pointwise(
    "batched_weighted_bce", _bce, _bce_slope, balanced=True
)
"""Cross-entropy with both classes of equal total weight ("balanced" in scikit-learn)."""

batched_squared_error: BatchedLoss = _Pointwise(
    "batched_squared_error",
    lambda output, target: (output - (2.0 * target - 1.0)) ** 2,
    lambda output, target: 2.0 * (output - (2.0 * target - 1.0)),
)
"""Squared error of a linear output against -1 and +1 (Adaline, the paper's "MSE")."""


def batched_focal(
    logits: Tensor, target: Tensor, weight: Tensor, *, gamma: float = 2.0, alpha: float = 0.25
) -> Tensor:
    r"""Focal loss, ``-alpha_t (1 - p_t)^gamma log p_t``, a weighted mean.

    Args:
        logits: Scores (..., N).
        target: Labels in {0, 1}, broadcastable.
        weight: Weights >= 0, broadcastable.
        gamma: Focus on hard samples, >= 0; 2.0 (arXiv:1708.02002).
        alpha: Weight of the positives in [0, 1]; 0.25 (same source).

    Returns:
        One loss a model, (...).

    Example:
        >>> batched_focal(torch.zeros(4), torch.ones(4), torch.ones(4))
        tensor(0.0433)
    """
    return focal_loss(gamma, alpha)(logits, target, weight)


def focal_loss(gamma: float = 2.0, alpha: float = 0.25) -> BatchedLoss:
    """:func:`batched_focal` with its constants fixed and its derivative in closed form.

    Args:
        gamma: Focus on hard samples, >= 0; 2.0.
        alpha: Weight of the positives in [0, 1]; 0.25.

    Returns:
        The loss, for :func:`~gradworks.losses.anyloss.fit_batched`.
    """

    def parts(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sign = 2.0 * target - 1.0
        return sign, sign * logits, (1.0 - alpha) + (2.0 * alpha - 1.0) * target

    def value(logits: Tensor, target: Tensor) -> Tensor:
        _, signed, share = parts(logits, target)
        return share * torch.sigmoid(-signed) ** gamma * F.softplus(-signed)

    def slope(logits: Tensor, target: Tensor) -> Tensor:
        sign, signed, share = parts(logits, target)
        miss = torch.sigmoid(-signed)
        inner = torch.sigmoid(signed).mul_(F.softplus(-signed)).mul_(gamma).add_(miss)
        return inner.mul_(miss**gamma).mul_(-sign * share)

    return _Pointwise("batched_focal", value, slope)


def hard_confusion(
    logits: Tensor, target: Tensor, weight: Tensor, threshold: Tensor | float = 0.0
) -> Confusion:
    """Ordinary counts of the decisions ``logits > threshold``, for many models at once.

    Args:
        logits: Scores (..., N).
        target: Labels in {0, 1}, broadcastable.
        weight: Weights >= 0, broadcastable.
        threshold: Logit above which a sample is positive, a number or one a model (...); 0.0.

    Returns:
        Four tensors of shape (...).

    Example:
        >>> z, y = torch.tensor([1.0, -1.0, 2.0]), torch.tensor([1.0, 1.0, 0.0])
        >>> [int(c) for c in hard_confusion(z, y, torch.ones(3))]
        [1, 1, 1, 0]
    """
    if isinstance(threshold, Tensor):
        threshold = threshold.unsqueeze(-1)
    said = (logits > threshold).to(logits.dtype)
    hit, rest = weight * target, weight * (1.0 - target)
    return Confusion(
        (hit * said).sum(-1),
        (hit * (1.0 - said)).sum(-1),
        (rest * said).sum(-1),
        (rest * (1.0 - said)).sum(-1),
    )


def best_threshold(
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    metric: str | Callable[..., Tensor] = "f1",
    *,
    beta: float = 1.0,
) -> Tensor:
    """Logit threshold with the best metric on the given rows: the control a metric loss must beat.

    All cuts between neighbouring scores are tried at once (one sort and two cumulative sums).

    Args:
        logits: Scores (..., N).
        target: Labels in {0, 1}, broadcastable.
        weight: Weights >= 0, broadcastable; rows of weight 0 do not vote.
        metric: Name in ``METRICS`` or a function of the counts.
        beta: F-beta's weight of recall; 1.0.

    Returns:
        One threshold a model, (...): the middle of the best gap, the gap nearest to logit 0 among
        equals.

    Example:
        >>> z, y = torch.tensor([-3.0, -2.0, -1.0]), torch.tensor([0.0, 1.0, 1.0])
        >>> best_threshold(z, y, torch.ones(3)).item()
        -2.5
    """
    target, weight = target.expand_as(logits), weight.expand_as(logits)
    # Rows without weight go to the far end, where they open no gap between real scores.
    score = torch.where(weight > 0.0, logits, torch.inf)
    score, order = score.sort(dim=-1)
    w, y = weight.gather(-1, order), target.gather(-1, order)
    below_pos, below_neg = (F.pad((w * v).cumsum(-1), (1, 0)) for v in (y, 1.0 - y))
    counts = Confusion(
        below_pos[..., -1:] - below_pos, below_pos, below_neg[..., -1:] - below_neg, below_neg
    )
    value = get_metric(metric, check_beta(beta))(counts)
    real = torch.isfinite(score)
    last = torch.where(real, score, -torch.inf).amax(-1, keepdim=True)
    padded = torch.where(real, score, last + 2.0)
    low = torch.cat([padded[..., :1] - 2.0, padded], dim=-1)
    high = torch.cat([padded, padded[..., -1:] + 2.0], dim=-1)
    cut = 0.5 * (low + high)
    # A cut inside a tie separates nothing; of equal values the one nearest 0 moves least.
    value = torch.where(high > low, value, -torch.inf)
    best = value.amax(-1, keepdim=True)
    distance = torch.where(value >= best - 1e-12, cut.abs(), torch.inf)
    return cut.gather(-1, distance.argmin(-1, keepdim=True)).squeeze(-1)
