"""Classification metrics as differentiable functions of the four (soft) counts.

Formulas of arXiv:2405.14745, Table of metrics (accuracy, F-beta, G-mean, balanced accuracy), and
the usual ones beside them. Every term whose denominator is empty (a batch without positives has no
recall) is 0 with zero gradient: never NaN.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradworks.losses.anyloss.confusion import Confusion

__all__ = [
    "METRICS",
    "MetricFn",
    "cost_metric",
    "fbeta",
    "get_metric",
    "register_metric",
    "tversky",
]

MetricFn = Callable[[Confusion], Tensor]
"""What a metric is: counts to a tensor of their shape, larger is better."""

# sqrt has an infinite slope at 0; its argument lies in [0, 1], so this is a relative constant.
_SQRT_EPS = 1e-12


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient that is 0 with zero gradient where the denominator is empty."""
    empty = denominator <= 0.0
    quotient = numerator / torch.where(empty, 1.0, denominator)
    return torch.where(empty, 0.0, quotient)


def _root(x: Tensor) -> Tensor:
    """Square root on [0, 1] with a finite slope at 0, exact at 1."""
    return torch.sqrt(x * (1.0 - _SQRT_EPS) + _SQRT_EPS)


def _accuracy(c: Confusion) -> Tensor:
    return _ratio(c.tp + c.tn, c.total)


def _recall(c: Confusion) -> Tensor:
    return _ratio(c.tp, c.positives)


def _precision(c: Confusion) -> Tensor:
    return _ratio(c.tp, c.predicted_positives)


def _specificity(c: Confusion) -> Tensor:
    return _ratio(c.tn, c.negatives)


def _npv(c: Confusion) -> Tensor:
    return _ratio(c.tn, c.predicted_negatives)


def _jaccard(c: Confusion) -> Tensor:
    return _ratio(c.tp, c.tp + c.fn + c.fp)


def _gmean(c: Confusion) -> Tensor:
    return _root(_recall(c) * _specificity(c))


def _balanced_accuracy(c: Confusion) -> Tensor:
    return 0.5 * (_recall(c) + _specificity(c))


def _informedness(c: Confusion) -> Tensor:
    return _recall(c) + _specificity(c) - 1.0


def _markedness(c: Confusion) -> Tensor:
    return _precision(c) + _npv(c) - 1.0


def _fowlkes_mallows(c: Confusion) -> Tensor:
    return _root(_precision(c) * _recall(c))


def _mcc(c: Confusion) -> Tensor:
    # Shares instead of counts: the product of four margins overflows float32 at 1e10 samples.
    n = torch.where(c.total > 0.0, c.total, 1.0)
    tp, fn, fp, tn = c.tp / n, c.fn / n, c.fp / n, c.tn / n
    margins = (tp + fn) * (fp + tn) * (tp + fp) * (fn + tn)
    empty = margins <= 0.0
    spread = torch.sqrt(torch.where(empty, 1.0, margins))
    return torch.where(empty, 0.0, (tp * tn - fp * fn) / spread)


def _tiny(x: Tensor) -> float:
    """Smallest normal number of the dtype."""
    return torch.finfo(x.dtype).tiny


def _accuracy_partials(
    tp: Tensor, said: Tensor, positives: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    inverse = torch.reciprocal(total.clamp_min(_tiny(total))).expand_as(tp)
    return (total - positives - said + 2.0 * tp) * inverse, 2.0 * inverse, -inverse


def _rates(
    tp: Tensor, said: Tensor, positives: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Recall, specificity and the reciprocals of the class sizes, 0 for an empty class."""
    negatives = total - positives
    per_positive = _ratio(torch.ones_like(tp), positives)
    per_negative = _ratio(torch.ones_like(tp), negatives)
    return tp * per_positive, (negatives - said + tp) * per_negative, per_positive, per_negative


def _balanced_accuracy_partials(
    tp: Tensor, said: Tensor, positives: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    recall, specificity, per_pos, per_neg = _rates(tp, said, positives, total)
    return 0.5 * (recall + specificity), 0.5 * (per_pos + per_neg), -0.5 * per_neg


def _gmean_partials(
    tp: Tensor, said: Tensor, positives: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    recall, specificity, per_pos, per_neg = _rates(tp, said, positives, total)
    value = _root(recall * specificity)
    outer = 0.5 * (1.0 - _SQRT_EPS) / value
    by_said = -outer * recall * per_neg
    return value, outer * specificity * per_pos - by_said, by_said


def _kappa(c: Confusion) -> Tensor:
    chance = c.predicted_positives * c.negatives + c.positives * c.predicted_negatives
    return _ratio(2.0 * (c.tp * c.tn - c.fn * c.fp), chance)


Partials = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class _Named:
    """A metric, the margins that must not be empty for all of its terms to exist, and derivatives.

    ``partials(tp, said, positives, total)``, with ``said = tp + fp``, gives the metric and its
    derivatives by ``tp`` and ``said`` in closed form; batched training uses them where known.
    """

    fn: MetricFn
    needs: tuple[str, ...] = ()
    partials: Partials | None = None

    def __call__(self, confusion: Confusion) -> Tensor:
        return self.fn(confusion)

    def missing(self, confusion: Confusion) -> Tensor:
        """Number of terms that had no samples, int64 scalar."""
        count = torch.zeros((), dtype=torch.int64, device=confusion.tp.device)
        for margin in self.needs:
            count = count + (getattr(confusion, margin) <= 0.0).sum()
        return count


def fbeta(beta: float = 1.0) -> MetricFn:
    r"""F-beta as a metric function.

    .. math::
        F_\beta = \frac{(1+\beta^2)\,\mathrm{TP}}
                  {\beta^2 (\mathrm{TP}+\mathrm{FN}) + \mathrm{TP} + \mathrm{FP}}

    Args:
        beta: Positive; above 1 recall counts more, below 1 precision. 1.0; 0.5, 1 and 2 published.

    Returns:
        A function of :class:`~gradworks.losses.anyloss.Confusion`.

    Example:
        >>> fbeta(2.0)(Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0]))).item()
        0.714285...
    """
    square = beta * beta

    def metric(c: Confusion) -> Tensor:
        return _ratio((1.0 + square) * c.tp, square * c.positives + c.predicted_positives)

    def partials(
        tp: Tensor, said: Tensor, positives: Tensor, total: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        # The sum is 0 only where tp is: tiny keeps 0 / 0 out and changes nothing else.
        inverse = torch.reciprocal((said + square * positives).clamp_min(_tiny(said)))
        value = tp * inverse * (1.0 + square)
        return value, inverse * (1.0 + square), -value * inverse

    return _Named(metric, ("positives",), partials)


def tversky(alpha: float = 0.3, beta: float = 0.7) -> MetricFn:
    r"""Tversky index, the Jaccard index with unequal prices for the two errors.

    .. math:: T = \frac{\mathrm{TP}}{\mathrm{TP} + \alpha\,\mathrm{FP} + \beta\,\mathrm{FN}}

    Args:
        alpha: Price of a false positive, >= 0; 0.3 as in the Tversky loss (arXiv:1706.05721).
        beta: Price of a false negative, >= 0; 0.7 from the same source. (0.5, 0.5) is F1.

    Returns:
        A function of :class:`~gradworks.losses.anyloss.Confusion`.

    Raises:
        ValueError: If a price is negative or both are 0.

    Example:
        >>> tversky(0.5, 0.5)(Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0]))).item()
        0.666666...
    """
    if min(alpha, beta) < 0.0 or alpha + beta <= 0.0:
        raise ValueError(
            f"alpha and beta must not be negative nor both 0, got alpha={alpha}, beta={beta}"
        )

    def metric(c: Confusion) -> Tensor:
        return _ratio(c.tp, c.tp + alpha * c.fp + beta * c.fn)

    return _Named(metric, ("positives",))


def cost_metric(*, fn: float = 1.0, fp: float = 1.0, tp: float = 0.0, tn: float = 0.0) -> MetricFn:
    r"""Mean cost of a decision, as the metric ``1 - cost`` so that the loss is the mean cost.

    .. math:: \text{loss} = \frac{c_{tp} \mathrm{TP} + c_{fn} \mathrm{FN} + c_{fp} \mathrm{FP}
              + c_{tn} \mathrm{TN}}{N}

    Args:
        fn: Cost of a missed positive, any unit; 1.0.
        fp: Cost of a false alarm; 1.0. Equal costs of 1 are accuracy.
        tp: Cost of a true positive; 0.0, negative for a gain.
        tn: Cost of a true negative; 0.0.

    Returns:
        A function of :class:`~gradworks.losses.anyloss.Confusion`.

    Example:
        >>> metric = cost_metric(fn=5.0, fp=1.0)
        >>> round(1 - metric(Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0]))).item(), 6)
        0.7
    """

    def metric(c: Confusion) -> Tensor:
        return 1.0 - _ratio(tp * c.tp + fn * c.fn + fp * c.fp + tn * c.tn, c.total)

    return _Named(metric)


def _adapt(fn: Callable[..., Tensor]) -> _Named:
    """Accept a function of one ``Confusion`` or of the four tensors (tp, fn, fp, tn)."""
    if isinstance(fn, _Named):
        return fn
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # built-in callables carry no signature
        return _Named(fn)
    required = [
        p
        for p in parameters
        if p.default is p.empty and p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}
    ]
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(required) == 4 or (variadic and not required):
        return _Named(lambda confusion: fn(*confusion))
    if len(required) == 1:
        return _Named(fn)
    raise TypeError(
        f"metric must take one Confusion, or four tensors (tp, fn, fp, tn); "
        f"{getattr(fn, '__name__', fn)!r} takes {len(required)} arguments"
    )


_BOTH = ("positives", "negatives")
_REGISTRY: dict[str, _Named] = {
    "accuracy": _Named(_accuracy, (), _accuracy_partials),
    "f1": _adapt(fbeta(1.0)),
    "f0.5": _adapt(fbeta(0.5)),
    "f2": _adapt(fbeta(2.0)),
    "fbeta": _adapt(fbeta(1.0)),
    "gmean": _Named(_gmean, _BOTH, _gmean_partials),
    "balanced_accuracy": _Named(_balanced_accuracy, _BOTH, _balanced_accuracy_partials),
    "recall": _Named(_recall, ("positives",)),
    "precision": _Named(_precision, ("predicted_positives",)),
    "specificity": _Named(_specificity, ("negatives",)),
    "npv": _Named(_npv, ("predicted_negatives",)),
    "jaccard": _Named(_jaccard, ("positives",)),
    "tversky": _adapt(tversky()),
    "mcc": _Named(_mcc, _BOTH),
    "fowlkes_mallows": _Named(_fowlkes_mallows, ("positives",)),
    "kappa": _Named(_kappa, _BOTH),
    "informedness": _Named(_informedness, _BOTH),
    "youden_j": _Named(_informedness, _BOTH),
    "markedness": _Named(_markedness, ("predicted_positives", "predicted_negatives")),
    "cost": _adapt(cost_metric()),
}


class _View(Mapping[str, MetricFn]):
    """Read-only view of the registry."""

    def __getitem__(self, name: str) -> MetricFn:
        return _REGISTRY[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_REGISTRY)

    def __len__(self) -> int:
        return len(_REGISTRY)

    def __repr__(self) -> str:
        return f"METRICS({', '.join(_REGISTRY)})"


METRICS: Mapping[str, MetricFn] = _View()
"""Name to metric, a function of ``Confusion``; add to it with :func:`register_metric`."""


def register_metric(name: str, fn: Callable[..., Tensor]) -> None:
    """Make a metric of your own known by name, to every AnyLoss function and the estimator.

    Args:
        name: New name, a non-empty string that is not taken.
        fn: Function of one ``Confusion``, or of four tensors (tp, fn, fp, tn), that returns a
            tensor of their shape; larger is better. It must give a number for an empty class.

    Raises:
        ValueError: If the name is empty or taken.
        TypeError: If ``fn`` is not callable or takes another number of arguments.

    Example:
        >>> register_metric("hits_doctest", lambda c: c.tp / c.total)
        >>> METRICS["hits_doctest"](Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0]))).item()
        0.300000...
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a non-empty string, got {name!r}")
    if name in _REGISTRY:
        raise ValueError(f"name {name!r} is taken; choose another, or pass the function as metric=")
    if not callable(fn):
        raise TypeError(f"fn must be callable, got {type(fn).__name__}")
    _REGISTRY[name] = _adapt(fn)


def get_metric(metric: str | Callable[..., Tensor], beta: float = 1.0) -> MetricFn:
    """Look up a metric by name, or adapt a callable.

    Args:
        metric: Name in :data:`METRICS`, or a function of a ``Confusion`` or of four tensors.
        beta: Read by "f1" and "fbeta", which are one metric; 1.0.

    Returns:
        A function of ``Confusion``.

    Raises:
        ValueError: If the name is unknown or contradicts ``beta``.
        TypeError: If ``metric`` is neither text nor callable.

    Example:
        >>> get_metric("f1", 2.0)(Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0]))).item()
        0.714285...
    """
    if callable(metric):
        return _adapt(metric)
    if not isinstance(metric, str):
        raise TypeError(
            f"metric must be a name or a callable, got {type(metric).__name__}: {metric!r}"
        )
    if metric not in _REGISTRY:
        near = difflib.get_close_matches(metric, _REGISTRY, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"metric {metric!r} is unknown{hint}; known are {', '.join(sorted(_REGISTRY))}"
        )
    if metric in {"f1", "fbeta"}:
        return fbeta(beta)
    if metric in {"f0.5", "f2"} and beta not in {1.0, float(metric[1:])}:
        raise ValueError(f"metric {metric!r} contradicts beta={beta:g}; use metric='fbeta'")
    return _REGISTRY[metric]
