"""AnyLoss: the confusion-matrix metric of a batch as its loss.

"AnyLoss: Transforming Classification Metrics into Loss Functions", 2024, arXiv:2405.14745.

What differs from the authors' notebooks: gradients are the true ones (their hand-written G-mean
gradient is four times too large); a batch is divided by its own size, not by the training set's;
terms without samples are 0 instead of NaN. Ours beside the paper: several classes, weights, soft
labels, amplification schedules, running counts, counts summed over processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradworks.losses.anyloss.confusion import Confusion, Rule, batched_confusion
from gradworks.losses.anyloss.inputs import (
    amplification_bound,
    check_beta,
    check_rule,
    columns,
    prepare,
    warn_saturated,
)
from gradworks.losses.anyloss.metrics import MetricFn, get_metric
from gradworks.losses.anyloss.processes import synchronized

__all__ = ["AnyLoss", "anyloss"]

_AVERAGES = ("binary", "macro", "micro", "weighted")
_REDUCTIONS = ("metric", "none")
# What ``accumulate=True`` means.
_ACCUMULATED = 10


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """One of a few words."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _confusion(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    rule: Rule,
    *,
    average: str,
    soft_targets: bool,
    validate: bool | None,
) -> Confusion:
    """Validated counts: scalars for a binary problem, (C,) otherwise."""
    pooled = average == "binary"
    if pooled and isinstance(input, Tensor) and input.dim() == 2 and input.shape[1] > 1:
        raise ValueError(
            f"input of shape {tuple(input.shape)} has {input.shape[1]} classes, but "
            "average='binary'; pass average='macro', 'micro' or 'weighted', or flatten input"
        )
    score, label, w = prepare(
        *columns(input, target, weight, pooled=pooled),
        from_logits=rule.from_logits,
        soft_targets=soft_targets,
        validate=validate,
    )
    return batched_confusion(score, label, w, rule)


def _reduce(confusion: Confusion, metric: MetricFn, average: str, reduction: str) -> Tensor:
    """``1 - metric`` of the counts, over classes as ``average`` says."""
    if average == "micro" and confusion.tp.dim() > 0:
        confusion = Confusion(*(count.sum() for count in confusion))
    value = metric(confusion)
    if not isinstance(value, Tensor) or value.shape != confusion.tp.shape:
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"metric must return a tensor of the shape of its counts {tuple(confusion.tp.shape)}, "
            f"got {found}"
        )
    if reduction == "none" or value.dim() == 0:
        return 1.0 - value
    if average == "weighted":
        support = confusion.positives
        share = support / support.sum().clamp_min(torch.finfo(value.dtype).tiny)
        return 1.0 - (value * share).sum()
    return 1.0 - value.mean()


def anyloss(
    input: Tensor,
    target: Tensor,
    metric: str | Callable[..., Tensor] = "f1",
    *,
    beta: float = 1.0,
    amplification: float = 73.0,
    threshold: float = 0.5,
    from_logits: bool = True,
    weight: Tensor | None = None,
    reduction: str = "metric",
    average: str = "binary",
    surrogate: str = "anyloss",
    soft_targets: bool = False,
    sync: bool = False,
    validate: bool | None = None,
) -> Tensor:
    r"""One minus a classification metric of the batch, differentiable.

    Train a classifier on the number it is judged by (F1, balanced accuracy, G-mean, any function of
    the confusion matrix) instead of cross-entropy, with no threshold to search afterwards. Not for
    ranking metrics (AUC, average precision: they are no function of one confusion matrix), nor for
    calibrated probabilities. Start the last layer near zero: a confidently wrong sample has almost
    no gradient (see Note).

    .. math::
        A_i = \frac{1}{1 + e^{-L (\sigma(z_i) - t)}}, \qquad
        \text{loss} = 1 - \text{metric}(\mathrm{TP}, \mathrm{FN}, \mathrm{FP}, \mathrm{TN})

    with :math:`\mathrm{TP} = \sum y_i A_i` and the other counts alike (see
    :func:`~gradworks.losses.anyloss.soft_confusion`).

    Args:
        input: Logits :math:`z`, (N,) or (N, 1); (N, C, ...) unless ``average="binary"``. With
            ``"binary"`` a tensor of three or more dimensions (masks) is one pooled problem.
        target: Labels in {0, 1} of the same shape (bool, int or float); class indices (N, ...) also
            do for (N, C, ...).
        metric: A name in ``METRICS``, or a function of a ``Confusion`` or of (tp, fn, fp, tn).
        beta: F-beta's weight of recall, positive, 1.0; read by "f1" and "fbeta", which are one.
        amplification: :math:`L > 0`, 73.0 (the paper, Sec. 3). 33 to 73 behave alike; 10 is worse.
        threshold: :math:`t` in (0, 1), 0.5.
        from_logits: ``False`` when ``input`` holds probabilities.
        weight: Sample weights >= 0, (N,) or ``input``'s shape; 2 is a sample seen twice.
        reduction: "metric": the scalar loss; "none": one loss a class, (C,).
        average: "binary", or over one-vs-rest classes: "macro" (mean), "micro" (pooled counts),
            "weighted" (by the classes' shares). Ours; the paper is binary.
        surrogate: "anyloss", or in its place "sol" (raised cosine) or "linear" (the probability).
        soft_targets: Allow labels between 0 and 1.
        sync: Sum counts over the processes of the default group first, so that DDP optimises the
            metric of the joint batch; without a process group it changes nothing.
        validate: Check values of labels, weights, probabilities; ``None`` does so on CPU only,
            where it does not make an accelerator wait.

    Returns:
        Scalar loss in [0, 1] ([0, 2] for "mcc", "kappa", "informedness", "markedness"), or (C,).

    Raises:
        TypeError: If ``input`` is not floating point, or ``metric`` neither name nor callable.
        ValueError: If a value or shape is not allowed.

    Note:
        :math:`dA/dz = L\,A(1-A)\,p(1-p)` falls as :math:`e^{-L|p - t|}`: 6e-12 at |z| = 2 with
        L = 73. Both tails are evaluated directly, so the gradient is the same on both sides even
        in float32, where L above 33 warns (once a place, as Python's warnings do). Metrics do not
        add over batches: the batch size matters. Cost about that of BCE with logits, one saved
        tensor of the size of ``input``.

    Example:
        >>> z = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        >>> loss = anyloss(z, torch.tensor([1, 0, 0, 0]), "f1")
        >>> round(loss.item(), 4)
        0.6667
        >>> loss.backward()
        >>> z.grad.sign().tolist()
        [-1.0, 1.0, 1.0, 1.0]

    References:
        "AnyLoss: Transforming Classification Metrics into Loss Functions", 2024, arXiv:2405.14745,
        Sec. 3.
    """  # noqa: DOC502 (raised by the checks it calls)
    _check_choice("average", average, _AVERAGES)
    _check_choice("reduction", reduction, _REDUCTIONS)
    fn = get_metric(metric, check_beta(beta))
    rule = Rule(surrogate, check_rule(surrogate, amplification, threshold), threshold, from_logits)
    confusion = _confusion(
        input,
        target,
        weight,
        rule,
        average=average,
        soft_targets=soft_targets,
        validate=validate,
    )
    if surrogate == "anyloss" and not torch.compiler.is_compiling():
        warn_saturated(input.dtype, rule.amplification)
    if sync:
        confusion = synchronized(confusion, None)
    return _reduce(confusion, fn, average, reduction)


class AnyLoss(nn.Module):
    r"""Module over :func:`anyloss`, with schedules and running counts.

    .. math:: \text{loss} = 1 - \text{metric}(\mathrm{TP}, \mathrm{FN}, \mathrm{FP}, \mathrm{TN})

    Args:
        metric: A name in ``METRICS``, or a function of a ``Confusion`` or of four tensors. "f1".
        beta: F-beta's weight of recall, positive, 1.0.
        amplification: :math:`L > 0`, 73.0; or a schedule ``(step) -> L``, called with 0, 1, 2, ...
            in training mode (ours): a warm-up from 5 gives confidently wrong samples a gradient.
        threshold: Decision threshold in (0, 1), 0.5.
        from_logits: ``False`` when inputs are probabilities.
        accumulate: Number of earlier batches whose counts (without gradient) are added to this
            batch's, so that small batches see the ratio of the set; 0 is off, True is 10 (ours).
        average: "binary", "macro", "micro" or "weighted"; see :func:`anyloss`.
        reduction: "metric" or "none".
        surrogate: "anyloss", "sol" or "linear".
        soft_targets: Allow labels between 0 and 1.
        sync: Sum counts over processes before the metric.
        process_group: Group for ``sync``; ``None`` is the default group.
        validate: As in :func:`anyloss`.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If an argument is out of range.

    Note:
        Stateful with ``accumulate`` or a schedule: ``state_dict`` carries step, counts and
        ``skipped``, and :meth:`reset` clears them. Evaluation mode reads and writes no state. With
        accumulated counts the gradient is about ``1 / (accumulate + 1)`` of the plain one. Under
        ``torch.compile`` a schedule is a new constant each step, so compile the model alone then.

    Example:
        >>> criterion = AnyLoss("balanced_accuracy", amplification=33.0)
        >>> logits = torch.zeros(6, requires_grad=True)
        >>> loss = criterion(logits, torch.tensor([1, 0, 0, 0, 0, 0]))
        >>> loss.item()
        0.5
        >>> loss.backward()

    References:
        "AnyLoss: Transforming Classification Metrics into Loss Functions", 2024, arXiv:2405.14745.
    """

    def __init__(
        self,
        metric: str | Callable[..., Tensor] = "f1",
        *,
        beta: float = 1.0,
        amplification: float | Callable[[int], float] = 73.0,
        threshold: float = 0.5,
        from_logits: bool = True,
        accumulate: int = 0,
        average: str = "binary",
        reduction: str = "metric",
        surrogate: str = "anyloss",
        soft_targets: bool = False,
        sync: bool = False,
        process_group: Any = None,
        validate: bool | None = None,
    ) -> None:
        super().__init__()
        _check_choice("average", average, _AVERAGES)
        _check_choice("reduction", reduction, _REDUCTIONS)
        if isinstance(accumulate, bool):
            accumulate = _ACCUMULATED if accumulate else 0
        if not isinstance(accumulate, int):
            raise TypeError(f"accumulate must be an int or a bool, got {accumulate!r}")
        if accumulate < 0:
            raise ValueError(f"accumulate must be at least 0 (off), got {accumulate}")
        check_rule(surrogate, 73.0 if callable(amplification) else amplification, threshold)
        self._fn = get_metric(metric, check_beta(beta))
        self.metric = metric
        self.beta = beta
        self.amplification = amplification
        self.threshold = threshold
        self.from_logits = from_logits
        self.accumulate = accumulate
        self.average = average
        self.reduction = reduction
        self.surrogate = surrogate
        self.soft_targets = soft_targets
        self.sync = sync
        self.process_group = process_group
        self.validate = validate
        self._warned = False
        self.reset()

    def reset(self) -> None:
        """Forget the running counts, the step of the schedule and ``skipped``."""
        self._step = 0
        self._history: Tensor | None = None
        self._skipped = torch.zeros((), dtype=torch.int64)

    @property
    def skipped(self) -> Tensor:
        """Number of metric terms, over all training batches, that had no samples and counted as 0.

        Returns:
            An int64 scalar tensor on the device of the inputs (reading it there waits for them).
        """
        return self._skipped

    @property
    def current_amplification(self) -> float:
        """The amplification that the next batch will see.

        Returns:
            The constant, or the schedule's value at the present step.
        """
        if callable(self.amplification):
            return check_rule(self.surrogate, self.amplification(self._step), self.threshold)
        return float(self.amplification)

    def forward(self, input: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Loss of a batch.

        Args:
            input: Scores, (N,), (N, 1) or (N, C, ...).
            target: Labels.
            weight: Sample weights >= 0 or ``None``.

        Returns:
            The scalar loss, or (C,) with ``reduction="none"``.
        """
        strength = self.current_amplification
        rule = Rule(self.surrogate, strength, self.threshold, self.from_logits)
        confusion = _confusion(
            input,
            target,
            weight,
            rule,
            average=self.average,
            soft_targets=self.soft_targets,
            validate=self.validate,
        )
        compiling = torch.compiler.is_compiling()
        if self.surrogate == "anyloss" and not self._warned and not compiling:
            # A schedule may pass the bound later.
            self._warned = strength > amplification_bound(input.dtype)
            warn_saturated(input.dtype, strength)
        if self.sync:
            confusion = synchronized(confusion, self.process_group)
        if self.training:
            confusion = self._remember(confusion)
        return _reduce(confusion, self._fn, self.average, self.reduction)

    def _remember(self, confusion: Confusion) -> Confusion:
        """Count what is missing, advance the schedule, add and keep the running counts."""
        missing = getattr(self._fn, "missing", None)
        pooled = confusion
        if self.accumulate:
            counts = torch.stack(list(confusion))
            past = self._history
            if past is not None and past.shape[1:] != counts.shape:
                raise RuntimeError(
                    f"running counts hold {tuple(past.shape[2:])} classes, this batch has "
                    f"{tuple(counts.shape[1:])}; call reset() before another problem"
                )
            if past is not None:
                past = past.to(counts)
                pooled = Confusion(*(counts + past.sum(0)).unbind(0))
            latest = counts.detach().unsqueeze(0)
            self._history = (latest if past is None else torch.cat([latest, past]))[
                : self.accumulate
            ]
        if callable(self.amplification):
            self._step += 1
        if missing is not None:
            self._skipped = self._skipped + missing(pooled)
        return pooled

    def __getstate__(self) -> dict[str, Any]:
        # The metric is a closure; name and beta say the same and can be pickled.
        return {key: value for key, value in self.__dict__.items() if key != "_fn"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._fn = get_metric(self.metric, self.beta)

    def get_extra_state(self) -> dict[str, Any]:
        """State for ``state_dict``.

        Returns:
            Step, running counts and ``skipped``.
        """
        return {"step": self._step, "history": self._history, "skipped": self._skipped}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the state back from ``load_state_dict``.

        Args:
            state: What :meth:`get_extra_state` returned.
        """
        self._step = state["step"]
        self._history = state["history"]
        self._skipped = state["skipped"]

    def extra_repr(self) -> str:
        """Settings that differ from a bare loss.

        Returns:
            Text for ``repr``.
        """
        parts = [f"metric={self.metric!r}", f"amplification={self.amplification}"]
        if self.metric in {"f1", "fbeta"} and self.beta != 1.0:
            parts.append(f"beta={self.beta:g}")
        if self.average != "binary":
            parts.append(f"average={self.average!r}")
        if self.accumulate:
            parts.append(f"accumulate={self.accumulate}")
        if self.surrogate != "anyloss":
            parts.append(f"surrogate={self.surrogate!r}")
        return ", ".join(parts)
