"""One measurement of the curvature a training step meets, and the step sizes it supports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from gradworks.curvature.learning_rate.examples import Examples
from gradworks.curvature.learning_rate.fit import two_scale_noise
from gradworks.curvature.learning_rate.laws import (
    batch_extreme_eigenvalue,
    check_batch,
    check_number,
    check_positive,
    full_eigenvalue,
)
from gradworks.curvature.learning_rate.measuring import device_of, ritz_values
from gradworks.curvature.learning_rate.noise import NoiseModel
from gradworks.curvature.learning_rate.rates import StepSizes, cauchy, heavy_ball
from gradworks.curvature.operators.hessian import HessianOperator
from gradworks.curvature.operators.model import LossFn, Method
from gradworks.curvature.probes import check_count

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["RULES", "Learner", "NonPositiveCurvatureError", "Rule", "learn_step_sizes"]

Rule = Literal["heavy_ball", "rmt", "cauchy"]
RULES = ("heavy_ball", "rmt", "cauchy")

# Examples of a statistics batch, as in the author's script.
STATISTICS = 128
# The smallest curvature that matters: nodes of less weight are left out, and it ends here over the
# largest (both our choice).
_LEAST_WEIGHT = 0.01
_FLOOR = 1e-4
# Pieces of the statistics batch whose extremes give the noise.
_PIECES = 4
# Share of the stability bound under "rmt" (our choice).
_SAFETY = 0.5


class NonPositiveCurvatureError(ValueError):
    """No curvature that bounds a step: the largest eigenvalue, or that along the gradient."""


@dataclass(frozen=True)
class Curvature:
    """What one measurement found, weight decay included."""

    steps: StepSizes
    noise: float | None


class Learner:
    """Draws statistics batches and turns their curvature into step sizes; checked options."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        data: Any,
        *,
        rule: Rule,
        num_steps: int,
        batch_size: int | None,
        dataset_size: int | None,
        statistics: int | None,
        noise: float | NoiseModel | None,
        safety: float | None,
        account_momentum: bool,
        bulk_quantile: float | None,
        products: Method,
        process_group: ProcessGroup | None,
        generator: torch.Generator | None,
    ) -> None:
        if rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
        self._device = device_of(model)
        self._examples = Examples(data, device=self._device)
        self._group = process_group
        self._world = 1
        if process_group is not None:
            self._world = torch.distributed.get_world_size(process_group)
        have = int(self._sum(len(self._examples)))
        self.dataset_size = (
            have if dataset_size is None else check_count("dataset_size", dataset_size)
        )
        if batch_size is not None:
            check_batch(check_count("batch_size", batch_size), self.dataset_size)
        if bulk_quantile is not None and not 0 <= check_number("bulk_quantile", bulk_quantile) <= 1:
            raise ValueError(f"bulk_quantile must be in [0, 1] or None, got {bulk_quantile}")
        if statistics is not None:
            check_count("statistics", statistics)
        if isinstance(noise, NoiseModel):
            noise = noise.noise
        if noise is not None and check_number("noise", noise) < 0:
            raise ValueError(f"noise must be at least 0, got {noise}")
        if generator is not None and generator.device.type != "cpu":
            raise ValueError(f"generator must be on the CPU, got {generator.device}")
        self._model, self._loss_fn = model, loss_fn
        self.rule = rule
        self._num_steps = check_count("num_steps", num_steps)
        self._batch_size = batch_size
        self._statistics = statistics
        self._noise = noise
        usual = _SAFETY if rule == "rmt" else 1.0
        self._safety = usual if safety is None else check_positive("safety", safety)
        self._account_momentum = bool(account_momentum)
        self._quantile = bulk_quantile
        self._products: Method = products
        self.generator = torch.Generator().manual_seed(0) if generator is None else generator

    def _sum(self, value: float) -> float:
        """Over all processes."""
        if self._group is None:
            return value
        total = torch.tensor(float(value), dtype=torch.float64, device=self._device)
        torch.distributed.all_reduce(total, group=self._group)
        return float(total)

    def _operator(self, data: Any, *, alone: bool = False) -> HessianOperator:
        group = None if alone else self._group
        return HessianOperator(
            self._model, self._loss_fn, data, method=self._products, process_group=group
        )

    def _batch(self, default: int | None) -> tuple[Any, Tensor | None, int]:
        """Data of a measurement, which examples (``None``: all in order), and how many here."""
        have = len(self._examples)
        size = min(self._statistics or default or have, have)
        if size == have:
            return self._examples.in_order(), None, size
        index = torch.randperm(have, generator=self.generator)[:size]
        return self._examples.take(index), index, size

    def measure(self, *, momentum: float, weight_decay: float) -> Curvature:
        """Measure once.

        Args:
            momentum: What the optimizer has now.
            weight_decay: Coupled (L2) weight decay, added to every curvature.

        Returns:
            What the rule proposes.

        Raises:
            NonPositiveCurvatureError: There is no curvature that bounds a step.
        """
        if self.rule == "cauchy":
            data, _, _ = self._batch(None)
            return Curvature(self._cauchy(data, momentum, weight_decay), None)
        data, index, here = self._batch(STATISTICS)
        with self._operator(data) as op:
            nodes, weights = ritz_values(op, self._num_steps, self.generator)
        top = float(nodes[-1])
        noise, a = self._noise, top
        size = int(self._sum(here))
        if top > 0 and self._batch_size is not None and self._batch_size != size:
            if noise is None:
                noise = self._two_scales(data, index, size, top)
            a = self._carried(top, noise, size)
        if not a + weight_decay > 0:
            raise NonPositiveCurvatureError(
                f"the largest eigenvalue must be above 0 to bound a step, got {top:.3g}"
            )
        if self.rule == "rmt":
            bound = 2 * (1 + momentum if self._account_momentum else 1) / (a + weight_decay)
            steps = StepSizes(self._safety * bound, momentum, a + weight_decay, None, "rmt")
        else:
            c = min(max(self._lower_edge(nodes, weights), a * _FLOOR), a) if a > 0 else a
            best = heavy_ball(a + weight_decay, max(c + weight_decay, 0.0))
            steps = replace(best, lr=self._safety * best.lr)
        return Curvature(steps, noise)

    def _cauchy(self, data: Any, momentum: float, weight_decay: float) -> StepSizes:
        """Exact line search along the gradient."""
        with self._operator(data) as op:
            gradient = op.gradient()
            try:
                lr = cauchy(op.shift(weight_decay) if weight_decay else op, gradient)
            except ValueError as error:
                raise NonPositiveCurvatureError(str(error)) from error
        return StepSizes(self._safety * lr, momentum, None, None, "cauchy")

    def _lower_edge(self, nodes: Tensor, weights: Tensor) -> float:
        """The smallest curvature that matters."""
        positive = nodes > 0
        nodes, weights = nodes[positive], weights[positive]
        if self._quantile is None:
            heavy = nodes[weights >= _LEAST_WEIGHT]
            return float(heavy[0]) if len(heavy) else 0.0
        if not len(nodes):
            return 0.0
        share = weights.cumsum(0) / weights.sum()
        at = int(torch.searchsorted(share, torch.tensor(self._quantile, dtype=share.dtype)))
        return float(nodes[min(at, len(nodes) - 1)])

    def _carried(self, top: float, noise: float, size: int) -> float:
        """The extreme at the training batch, from that of the statistics batch."""
        whole = max(self.dataset_size, size)
        lam = full_eigenvalue(top, noise, size, whole)
        if self._batch_size is None:
            return top
        return batch_extreme_eigenvalue(lam, noise, self._batch_size, whole)

    def _two_scales(self, data: Any, index: Tensor | None, size: int, top: float) -> float:
        """The noise from extremes of pieces: the processes' own batches, else quarters.

        Pieces of the batch itself: their mean extreme is never below its own.
        """
        if self._world > 1:
            small = self._sum(self._top(data, alone=True)) / self._world
            piece = size / self._world
        else:
            if index is None:
                index = torch.randperm(size, generator=self.generator)
            piece = size // _PIECES
            if piece < 1:
                return 0.0
            parts = torch.split(index[: piece * _PIECES], piece)
            small = sum(self._top(self._examples.take(part)) for part in parts) / _PIECES
        if not 0 < top < small or piece < 1:
            return 0.0
        return two_scale_noise(piece, small, size, top, max(self.dataset_size, size))[1]

    def _top(self, data: Any, *, alone: bool = False) -> float:
        """Largest Ritz value."""
        with self._operator(data, alone=alone) as op:
            return float(ritz_values(op, self._num_steps, self.generator)[0][-1])


def learn_step_sizes(
    model: nn.Module,
    loss_fn: LossFn,
    data: Any,
    *,
    rule: Rule = "heavy_ball",
    num_steps: int = 20,
    batch_size: int | None = None,
    dataset_size: int | None = None,
    statistics: int | None = None,
    noise: float | NoiseModel | None = None,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    safety: float | None = None,
    account_momentum: bool = False,
    bulk_quantile: float | None = None,
    products: Method = "double_backward",
    process_group: ProcessGroup | None = None,
    generator: torch.Generator | None = None,
) -> StepSizes:
    r"""Learning rate and momentum from the curvature at hand: one call, before training or in it.

    What :class:`CurvatureSchedule` does at each update, without its averaging and limits.

    Args:
        model: The model; left as it was.
        loss_fn: ``(output, target) -> scalar``; the mean over the batch.
        data: As for :func:`measure_noise`.
        rule: ``"heavy_ball"`` (default): rate and momentum of :func:`heavy_ball`. ``"rmt"``: a
            share of the stability bound. ``"cauchy"``: exact line search along the gradient.
        num_steps: Lanczos steps. Default 20.
        batch_size: The training batch; the measured extreme is carried over to it by Law 1.
            Default: take it as measured.
        dataset_size: N of the law. Default: the examples of ``data``.
        statistics: Examples to measure on. Default 128, and all of them under ``"cauchy"``.
        noise: Of :func:`measure_noise`; default: estimated from quarters of the statistics batch
            where it is needed (twice the cost).
        momentum: Of the optimizer, in [0, 1); what ``"rmt"`` and ``"cauchy"`` keep.
        weight_decay: Coupled weight decay, at least 0, added to every curvature.
        safety: Factor on the rate, above 0. Default 0.5 of the stability bound under ``"rmt"``, and
            1 under the others, whose formulas are then as written.
        account_momentum: ``"rmt"`` with momentum takes the wider bound :math:`2(1+\mu)/\lambda`.
        bulk_quantile: Which positive curvature counts as the smallest one, in [0, 1] of their
            weight. Default: the lowest Ritz value of at least 1 % weight.
        products: The operator's ``method``.
        process_group: Each process gives its own data.
        generator: On the CPU; ``None`` for a fresh one with seed 0.

    Returns:
        What the rule proposes.

    Raises:
        FloatingPointError: A product is not finite.
        NonPositiveCurvatureError: No curvature that bounds a step (a ``ValueError``).
        TypeError: A model, loss or data of a wrong type.
        ValueError: An argument out of range.

    Example:
        >>> import torch
        >>> from gradworks.curvature.learning_rate import learn_step_sizes
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> x = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)  # curvatures 9 and 1
        >>> found = learn_step_sizes(model, torch.nn.functional.mse_loss, (x, x[:, :1]))
        >>> round(found.lr, 6), round(found.momentum, 6)
        (0.25, 0.25)
    """  # noqa: DOC502
    learner = Learner(
        model,
        loss_fn,
        data,
        rule=rule,
        num_steps=num_steps,
        batch_size=batch_size,
        dataset_size=dataset_size,
        statistics=statistics,
        noise=noise,
        safety=safety,
        account_momentum=account_momentum,
        bulk_quantile=bulk_quantile,
        products=products,
        process_group=process_group,
        generator=generator,
    )
    if not 0 <= check_number("momentum", momentum) < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    if check_number("weight_decay", weight_decay) < 0:
        raise ValueError(f"weight_decay must be at least 0, got {weight_decay}")
    return learner.measure(momentum=momentum, weight_decay=weight_decay).steps
