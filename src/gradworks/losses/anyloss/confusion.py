"""The confusion matrix as four differentiable sums.

"AnyLoss: Transforming Classification Metrics into Loss Functions", 2024, arXiv:2405.14745, Sec. 3:
a steep second sigmoid pushes each probability almost to 0 or 1, so that true positives, false
negatives, false positives and true negatives become sums with a gradient.

What differs from the authors' code: the derivative of the amplified probability is written with
both of its tails evaluated directly (never as one minus the other), so it is the same on both sides
of the threshold in every precision; two rival surrogates ("sol", "linear") share the code.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradworks.losses.anyloss.inputs import check_rule, columns, prepare

__all__ = ["Confusion", "Rule", "batched_confusion", "soft_confusion", "surrogate_scale"]

# Half-width of the raised-cosine distribution that SOL, the surrogate baseline, puts around the
# threshold (authors' notebook 4-22).
_SOL_WIDTH = 0.1
# Rows handled at a time on CPU, so that intermediate results stay in the cache and need no fresh
# pages. Measured best of 2**14 .. 2**20.
_BLOCK = 2**18


class Confusion(NamedTuple):
    """Soft confusion matrix: four tensors of one shape, () or (classes,), that sum to the weights.

    Args:
        tp: True positives, ``sum w y A``.
        fn: False negatives, ``sum w y (1 - A)``.
        fp: False positives, ``sum w (1 - y) A``.
        tn: True negatives, ``sum w (1 - y) (1 - A)``.

    Example:
        >>> c = Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0]))
        >>> c.positives.item(), c.negatives.item(), c.total.item()
        (4.0, 6.0, 10.0)
    """

    tp: Tensor
    fn: Tensor
    fp: Tensor
    tn: Tensor

    @property
    def positives(self) -> Tensor:
        """Weight of the samples labelled 1."""
        return self.tp + self.fn

    @property
    def negatives(self) -> Tensor:
        """Weight of the samples labelled 0."""
        return self.fp + self.tn

    @property
    def predicted_positives(self) -> Tensor:
        """Soft weight of the samples predicted 1."""
        return self.tp + self.fp

    @property
    def predicted_negatives(self) -> Tensor:
        """Soft weight of the samples predicted 0."""
        return self.fn + self.tn

    @property
    def total(self) -> Tensor:
        """Weight of all samples."""
        return self.tp + self.fn + self.fp + self.tn


class Rule(NamedTuple):
    """How a score becomes an almost hard decision.

    Args:
        surrogate: ``"anyloss"`` (the paper), ``"sol"`` (raised cosine, exactly zero gradient
            further than 0.1 from the threshold) or ``"linear"`` (the probability itself).
        amplification: ``L > 0``, read by ``"anyloss"`` only; 73 in the paper.
        threshold: Probability in (0, 1) above which a sample counts as positive; 0.5.
        from_logits: Whether scores are logits; if not, probabilities in [0, 1].
    """

    surrogate: str = "anyloss"
    amplification: float = 73.0
    threshold: float = 0.5
    from_logits: bool = True


class _Work(NamedTuple):
    """Buffers of one block: at a million samples fresh pages cost as much as the arithmetic."""

    slope: Tensor | None = None
    margin: Tensor | None = None
    upper: Tensor | None = None
    spare: Tensor | None = None


def surrogate_scale(rule: Rule) -> float:
    """What ``p - threshold`` is multiplied by inside the surrogate.

    Args:
        rule: Surrogate and its constants.

    Returns:
        The amplification, the reciprocal of SOL's half-width, or 1.
    """
    if rule.surrogate == "anyloss":
        return rule.amplification
    return 1.0 / _SOL_WIDTH if rule.surrogate == "sol" else 1.0


def _tails(margin: Tensor, rule: Rule, work: _Work) -> tuple[Tensor, Tensor, Tensor | None]:
    """A, 1 - A and its density from the scaled margin (overwritten); None stands for A (1 - A)."""
    if rule.surrogate == "anyloss":
        upper = torch.sigmoid(margin, out=work.upper)
        return upper, margin.neg_().sigmoid_(), None
    if rule.surrogate == "sol":
        u = margin.clamp_(-1.0, 1.0)
        angle = u * math.pi
        density = torch.cos(angle).add_(1.0).mul_(0.5)
        ramp = u.add_(angle.sin_(), alpha=1.0 / math.pi).mul_(0.5)
        return 0.5 + ramp, 0.5 - ramp, density
    upper = margin.add_(rule.threshold)
    return upper, 1.0 - upper, torch.ones_like(upper)


def _decide(score: Tensor, rule: Rule, work: _Work) -> tuple[Tensor, Tensor, Tensor]:
    """A(score), 1 - A(score) and dA over ``surrogate_scale``, accurate in both tails."""
    scale = surrogate_scale(rule)
    if not rule.from_logits:
        margin = torch.sub(score, rule.threshold, out=work.margin).mul_(scale)
        upper, lower, density = _tails(margin, rule, work)
        return upper, lower, torch.mul(upper, lower, out=work.slope) if density is None else density
    # q = sigmoid(-|z|) is the smaller of p and 1 - p: q (1 - q) keeps full relative precision on
    # both sides, and sign(z) (1/2 - q) is p - 1/2 without cancellation.
    small = torch.abs(score, out=work.slope).neg_().sigmoid_()
    if rule.surrogate == "linear":
        return torch.sigmoid(score), torch.sigmoid(-score), small.addcmul_(small, small, value=-1.0)
    half = torch.full((), 0.5 * scale, dtype=score.dtype, device=score.device)
    margin = torch.add(half, small, alpha=-scale, out=work.margin).copysign_(score)
    if rule.threshold != 0.5:
        margin.add_(scale * (0.5 - rule.threshold))
    upper, lower, density = _tails(margin, rule, work)
    small.addcmul_(small, small, value=-1.0)
    slope = small.mul_(upper).mul_(lower) if density is None else small.mul_(density)
    return upper, lower, slope


def _slope(score: Tensor, rule: Rule) -> Tensor:
    """The derivative of A over ``surrogate_scale`` in plain operations, for higher derivatives."""
    p = torch.sigmoid(score) if rule.from_logits else score
    u = surrogate_scale(rule) * (p - rule.threshold)
    if rule.surrogate == "anyloss":
        density = torch.sigmoid(u) * torch.sigmoid(-u)
    elif rule.surrogate == "sol":
        density = 0.5 * (1.0 + torch.cos(math.pi * torch.clamp(u, -1.0, 1.0)))
    else:
        density = torch.ones_like(u)
    return density * p * torch.sigmoid(-score) if rule.from_logits else density


def _piece(
    score: Tensor, target: Tensor, weight: Tensor | None, rule: Rule, work: _Work
) -> tuple[Tensor, Tensor]:
    """Counts (4, ...) over the last dimension, and the weighted slope, for a piece of the batch."""
    upper, lower, slope = _decide(score, rule, work)
    if weight is not None:
        upper, lower, slope = upper.mul_(weight), lower.mul_(weight), slope.mul_(weight)
    one = torch.ones((), dtype=score.dtype, device=score.device)
    rest = torch.sub(one, target, out=work.spare)
    sums = [torch.linalg.vecdot(y, a) for y in (target, rest) for a in (upper, lower)]
    return torch.stack(sums), slope


class _Counts(torch.autograd.Function):
    """(score, target, weight) of shape (..., N) to counts (4, ...) and the weighted slope.

    The forward pass leaves ``weight * dA/dscore`` behind, so that the backward pass is two
    multiplications. A backward pass that is itself recorded recomputes the slope in plain
    operations, which gives derivatives of every order.
    """

    @staticmethod
    def forward(
        score: Tensor, target: Tensor, weight: Tensor | None, rule: Rule
    ) -> tuple[Tensor, Tensor]:
        return _piece(score, target, weight, rule, _Work())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        score, target, weight, ctx.rule = inputs
        slope = output[1]
        ctx.mark_non_differentiable(slope)
        ctx.set_materialize_grads(False)  # or backward fills a gradient of slope with zeros
        ctx.save_for_backward(score, target, weight, slope)
        ctx.save_for_forward(score, target, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, None, None, None]:
        grad: Tensor | None = grads[0]
        score, target, weight, slope = ctx.saved_tensors
        if grad is None:
            return None, None, None, None
        if torch.is_grad_enabled():
            slope = _slope(score, ctx.rule)
            slope = slope if weight is None else slope * weight
        tp, fn, fp, tn = (grad * surrogate_scale(ctx.rule)).unsqueeze(-1).unbind(0)
        negative = fp - tn
        return (target * (tp - fn - negative) + negative) * slope, None, None, None


def _batch_first(argument: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """Move vmap's dimension to the front, or make one."""
    if argument is None:
        return None
    return argument.expand(size, *argument.shape) if dim is None else argument.movedim(dim, 0)


class _EagerCounts(_Counts):
    """The same outside ``torch.compile``: in blocks on CPU, with forward mode and vmap."""

    @staticmethod
    def forward(
        score: Tensor, target: Tensor, weight: Tensor | None, rule: Rule
    ) -> tuple[Tensor, Tensor]:
        if score.dim() != 1 or score.shape[0] <= _BLOCK or score.device.type != "cpu":
            return _piece(score, target, weight, rule, _Work())
        slope = torch.empty_like(score)
        buffers = torch.empty(3, _BLOCK, dtype=score.dtype)
        pieces = []
        for start in range(0, score.shape[0], _BLOCK):
            part = slice(start, start + _BLOCK)
            own = slope[part]
            work = _Work(own, *buffers[:, : own.shape[0]].unbind(0))
            w = None if weight is None else weight[part]
            counts, found = _piece(score[part], target[part], w, rule, work)
            if found.data_ptr() != own.data_ptr():
                own.copy_(found)
            pieces.append(counts)
        return torch.stack(pieces).sum(0), slope

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, None, None, None]:
        if torch.is_grad_enabled() or grads[0] is None:
            return _Counts.backward(ctx, *grads)
        _, target, _, slope = ctx.saved_tensors
        tp, fn, fp, tn = (grads[0] * surrogate_scale(ctx.rule)).unsqueeze(-1).unbind(0)
        negative = fp - tn
        # In place for the same reason as _Work.
        return (target * (tp - fn - negative)).add_(negative).mul_(slope), None, None, None

    @staticmethod
    def jvp(ctx: Any, score_t: Tensor, *_: Any) -> tuple[Tensor, None]:
        score, target, weight = ctx.saved_tensors
        change = _slope(score, ctx.rule) * (score_t * surrogate_scale(ctx.rule))
        change = change if weight is None else change * weight
        positive = (target * change).sum(-1)
        negative = change.sum(-1) - positive
        return torch.stack([positive, -positive, negative, -negative]), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        score, target, weight = (
            _batch_first(argument, dim, info.batch_size)
            for argument, dim in zip(args[:3], in_dims[:3])
        )
        counts, slope = _EagerCounts.apply(score, target, weight, args[3])  # type: ignore[no-untyped-call]
        return (counts, slope), (1, 0)


def batched_confusion(
    score: Tensor, target: Tensor, weight: Tensor | None = None, rule: Rule | None = None
) -> Confusion:
    r"""Confusion matrices of many models at once: sums over the last dimension, nothing checked.

    For programs that train all folds and settings together. With labels from outside, use
    :func:`soft_confusion`, which validates them.

    Args:
        score: Logits (or probabilities) of shape (..., N), float32 or float64.
        target: Labels in [0, 1], broadcastable to ``score``, same dtype.
        weight: Non-negative sample weights, broadcastable to ``score``; ``None`` counts each once.
        rule: Surrogate and its constants; ``None`` is the paper's, ``Rule()``.

    Returns:
        Four tensors of shape (...).

    Example:
        >>> z = torch.tensor([[2.0, -2.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
        >>> y = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
        >>> batched_confusion(z, y).tp
        tensor([1.5000, 1.0000], dtype=torch.float64)
    """
    target = target.expand_as(score)
    weight = None if weight is None else weight.expand_as(score)
    function = _Counts if torch.compiler.is_compiling() else _EagerCounts
    if torch.is_autocast_enabled(score.device.type):
        # Autocast would take the sums in half precision: 1 + 256 ones is 256 in bfloat16.
        with torch.autocast(score.device.type, enabled=False):
            counts, _ = function.apply(score, target, weight, rule or Rule())  # type: ignore[no-untyped-call]
    else:
        counts, _ = function.apply(score, target, weight, rule or Rule())  # type: ignore[no-untyped-call]
    return Confusion(*counts.unbind(0))


def soft_confusion(
    input: Tensor,
    target: Tensor,
    *,
    amplification: float = 73.0,
    threshold: float = 0.5,
    from_logits: bool = True,
    weight: Tensor | None = None,
    surrogate: str = "anyloss",
    soft_targets: bool = False,
    validate: bool | None = None,
) -> Confusion:
    r"""Confusion matrix of a batch with a gradient.

    The building block of :func:`~gradworks.losses.anyloss.anyloss`: take it to write a loss on
    counts that no named metric covers, or to watch the soft counts beside the hard ones.

    .. math::
        p_i = \sigma(z_i), \quad A_i = \sigma(L (p_i - t)), \quad
        \mathrm{TP} = \sum_i w_i y_i A_i, \quad \mathrm{FN} = \sum_i w_i y_i (1 - A_i), \quad
        \mathrm{FP} = \sum_i w_i (1 - y_i) A_i, \quad \mathrm{TN} = \sum_i w_i (1-y_i)(1 - A_i)

    Args:
        input: Logits :math:`z` of shape (N,) or (N, 1), or (N, C, ...) for one confusion matrix a
            class; floating point (half precision is computed in float32).
        target: Labels :math:`y` in {0, 1} of the same shape, any dtype; for (N, C, ...) also class
            indices (N, ...).
        amplification: :math:`L > 0`, 73.0: the largest integer for which the paper's formula keeps
            A(1) below 1 in float64.
        threshold: :math:`t` in (0, 1), 0.5: the probability above which a sample is positive.
        from_logits: ``False`` when ``input`` holds probabilities in [0, 1].
        weight: Sample weights :math:`w \ge 0` of shape (N,) or ``input``'s; ``None`` is 1.
        surrogate: ``"anyloss"``, ``"sol"`` or ``"linear"``: the function in the place of A.
        soft_targets: Allow labels between 0 and 1.
        validate: Check values of labels, weights and probabilities. ``None`` checks tensors on CPU
            only, because a check makes an accelerator wait; pass ``False`` inside ``torch.vmap``.

    Returns:
        ``Confusion(tp, fn, fp, tn)``, scalars, or (C,) for several classes.

    Raises:
        TypeError: If ``input`` is not floating point or an argument is not a tensor.
        ValueError: If shapes differ, the batch is empty, or a value is out of its range.

    Note:
        Three sigmoids and a dozen cheap passes; keeps one tensor of the size of ``input``.

    Example:
        >>> z = torch.tensor([4.0, -4.0, 4.0, -4.0], dtype=torch.float64)
        >>> c = soft_confusion(z, torch.tensor([1, 1, 0, 0]))
        >>> [round(count.item(), 6) for count in c]
        [1.0, 1.0, 1.0, 1.0]

    References:
        "AnyLoss: Transforming Classification Metrics into Loss Functions", 2024, arXiv:2405.14745,
        Sec. 3. SOL: Marchetti et al., "Score-Oriented Loss (SOL) functions", Pattern Recognition,
        2022, arXiv:2103.15522.
    """  # noqa: DOC502 (raised by the checks it calls)
    rule = Rule(surrogate, check_rule(surrogate, amplification, threshold), threshold, from_logits)
    score, label, w = prepare(
        *columns(input, target, weight),
        from_logits=from_logits,
        soft_targets=soft_targets,
        validate=validate,
    )
    return batched_confusion(score, label, w, rule)
