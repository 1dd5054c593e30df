"""A learning-rate schedule that asks the curvature of the loss."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gradworks.curvature.learning_rate.laws import check_number
from gradworks.curvature.learning_rate.learner import Learner, NonPositiveCurvatureError, Rule
from gradworks.curvature.learning_rate.noise import NoiseModel
from gradworks.curvature.learning_rate.rates import StepSizes
from gradworks.curvature.operators.model import LossFn, Method
from gradworks.curvature.probes import check_count

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["CurvatureSchedule"]

_STATE = ("calls", "skipped", "seconds", "elapsed", "history", "generator", "last_lr")


class CurvatureSchedule(LRScheduler):
    r"""Set learning rate and momentum from the curvature, once an epoch.

    A scheduler like those of ``torch.optim.lr_scheduler``: call :meth:`step` after each epoch. On
    a statistics batch of 128 examples it runs 20 Lanczos steps and proposes by ``rule``:

    .. math::
        \text{heavy\_ball:}\quad & \mathrm{lr} = \frac{4}{(\sqrt a + \sqrt c)^2},\;
            \mu = \Bigl(\frac{\sqrt a - \sqrt c}{\sqrt a + \sqrt c}\Bigr)^2 \\
        \text{rmt:}\quad & \mathrm{lr} = \mathrm{safety} \cdot 2 / a \\
        \text{cauchy:}\quad & \mathrm{lr} = g^\top g / g^\top H g

    a is the largest curvature that a training batch meets (Law 1 of
    :func:`batch_extreme_eigenvalue`), c the smallest that matters; weight decay is added to both.
    The proposal is cut to the bounds, averaged with the present value in the logarithm (momentum:
    of :math:`1 - \mu`) and kept within a factor ``max_change`` of it. Where there is no positive
    curvature the values stay and the event is counted in :attr:`skipped`.

    Args:
        optimizer: The optimizer. Groups keep the ratio of their rates, also those added later; the
            largest gets the value.
        model: The model that it trains; each measurement leaves it as it was.
        loss_fn: ``(output, target) -> scalar``; the mean over the batch.
        data: Training data without augmentation, as for :func:`measure_noise`.
        rule: ``"heavy_ball"`` (default, needs an optimizer with ``momentum``), ``"rmt"`` or
            ``"cauchy"``, which keep the momentum.
        every: Calls of :meth:`step` from one measurement to the next. Default 1.
        warm_start: The call that measures first; 0 and 1 both mean the first one. Default 1.
        num_steps: Lanczos steps. Default 20.
        batch_size: The training batch (times accumulation, times processes); the measured extreme
            is carried over to it. Default: taken as measured.
        dataset_size: N of the law. Default: the examples of ``data``.
        lr_bounds: Smallest and largest rate.
        momentum_bounds: Smallest and largest momentum, in [0, 1).
        smoothing: Weight of the present value in the average, in [0, 1). Default 0.5.
        max_change: Largest factor of one update, at least 1; infinity for none. Default 2.
        generator: On the CPU, for batches and probes; ``None`` for a fresh one with seed 0.
        statistics: Examples of a measurement. Default 128, and all under ``"cauchy"``.
        noise: Of :func:`measure_noise`; default: estimated where ``batch_size`` needs it, from
            quarters of the statistics batch (twice the cost).
        safety: Factor on the rate. Default 0.5 of the stability bound under ``"rmt"``, and 1 under
            the others, whose formulas are then as written.
        account_momentum: ``"rmt"`` takes the wider bound :math:`2(1+\mu)/a`.
        bulk_quantile: As for :func:`learn_step_sizes`.
        products: The operator's ``method``; ``"finite_difference"`` where an operation has no
            second derivative.
        process_group: Each process gives its own data; all make the same calls.

    Attributes:
        history: One dictionary for each measurement: the call, what was measured, what was
            proposed, what was set.
        skipped: Measurements that found no positive curvature.

    Raises:
        TypeError: An optimizer, model, loss or data of a wrong type; one-shot data.
        ValueError: An option out of range, an unknown rule, or ``"heavy_ball"`` with an optimizer
            without momentum.

    Note:
        The defaults cost 20 products on 128 examples, about 7,700 example gradients: 15 % of an
        epoch of 50,000, 3 % with ``every=5``; :attr:`share` says what it was. For Adam the
        curvature that bounds a step is the preconditioned one, which none of the rules looks at:
        scale its rate with the batch by :func:`scale_learning_rate` instead. The author's script
        (``lr_sgd.py``) is ``"cauchy"`` with ``smoothing=0``, ``max_change=math.inf``; it leaves
        weight decay out of the curvature, and begins one epoch later.

    Example:
        >>> import torch
        >>> from gradworks.curvature.learning_rate import CurvatureSchedule
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> x = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)  # curvatures 9 and 1
        >>> loss_fn, data = torch.nn.functional.mse_loss, (x, x[:, :1])
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.2)
        >>> schedule = CurvatureSchedule(optimizer, model, loss_fn, data, smoothing=0.0)
        >>> found = schedule.step()
        >>> round(found.lr, 6), round(optimizer.param_groups[0]["momentum"], 6)
        (0.25, 0.25)

    References:
        Granziol, Zohren, Roberts, 2022, arXiv:2006.09092; Polyak, 1964.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        loss_fn: LossFn,
        data: Any,
        *,
        rule: Rule = "heavy_ball",
        every: int = 1,
        warm_start: int = 1,
        num_steps: int = 20,
        batch_size: int | None = None,
        dataset_size: int | None = None,
        lr_bounds: tuple[float, float] = (1e-6, 10.0),
        momentum_bounds: tuple[float, float] = (0.0, 0.99),
        smoothing: float = 0.5,
        max_change: float = 2.0,
        generator: torch.Generator | None = None,
        statistics: int | None = None,
        noise: float | NoiseModel | None = None,
        safety: float | None = None,
        account_momentum: bool = False,
        bulk_quantile: float | None = None,
        products: Method = "double_backward",
        process_group: ProcessGroup | None = None,
    ) -> None:
        # LRScheduler's own constructor would take a step; this one only looks like it.
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
            )
        self._learner = Learner(
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
        if rule == "heavy_ball" and any("momentum" not in g for g in optimizer.param_groups):
            raise ValueError(
                f"rule='heavy_ball' needs an optimizer with momentum, {type(optimizer).__name__} "
                "has none; use rule='rmt' or rule='cauchy'"
            )
        self._lr_bounds = _interval("lr_bounds", lr_bounds, least=0.0, open_at_zero=True)
        self._momentum_bounds = _interval("momentum_bounds", momentum_bounds, least=0.0, most=1.0)
        self._every = check_count("every", every)
        if isinstance(warm_start, bool) or not isinstance(warm_start, int) or warm_start < 0:
            raise ValueError(f"warm_start must be an integer of at least 0, got {warm_start!r}")
        self._first = max(warm_start, 1)
        if not 0 <= check_number("smoothing", smoothing) < 1:
            raise ValueError(f"smoothing must be in [0, 1), got {smoothing}")
        if math.isnan(max_change) or max_change < 1:
            raise ValueError(f"max_change must be at least 1, got {max_change}")
        self._smoothing, self._max_change = float(smoothing), float(max_change)
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", _number(group["lr"]))
        base = [_number(g["initial_lr"]) for g in optimizer.param_groups]
        self.base_lrs = list(base)
        self._keep_ratios(base)
        self._last_lr = [_number(g["lr"]) for g in optimizer.param_groups]
        self.last_epoch = 0
        self._step_count = 1
        self._calls = 0
        self.history: list[dict[str, Any]] = []
        self.skipped = 0
        self._seconds = 0.0
        self._began = time.perf_counter()

    def _initial_step(self) -> None:
        """Nothing: containers such as ``SequentialLR`` call this, and there is nothing to undo."""

    def _update_lr(self, epoch: int | None = None) -> None:
        """What ``SequentialLR`` calls in place of a step when this scheduler's turn comes."""
        self.step(epoch)

    @property
    def share(self) -> float:
        """Time spent on measuring, over all time since the schedule was made."""
        return self._seconds / max(time.perf_counter() - self._began, 1e-12)

    def _keep_ratios(self, rates: list[float]) -> None:
        """The groups go on in the ratios of these rates; the largest leads."""
        self._ratios = [lr / max(rates) if max(rates) > 0 else 1.0 for lr in rates]
        self._lead = self._ratios.index(max(self._ratios))

    def get_lr(self) -> list[float | Tensor]:
        """The present rates.

        Returns:
            One for each group.
        """
        return list(self._last_lr)

    def step(self, epoch: int | None = None) -> StepSizes | None:  # type: ignore[override]
        """Measure, if this call is due, and set rate and momentum.

        Args:
            epoch: Ignored; containers of schedulers give it.

        Returns:
            What the optimizer now has, or ``None`` where nothing was changed.

        Raises:
            FloatingPointError: A product is not finite: training has diverged.
        """  # noqa: DOC502
        self._calls += 1
        self.last_epoch = self._calls
        if self._calls < self._first or (self._calls - self._first) % self._every:
            return None
        start = time.perf_counter()
        try:
            return self._update()
        finally:
            self._seconds += time.perf_counter() - start

    def _update(self) -> StepSizes | None:
        """One measurement."""
        if len(self.optimizer.param_groups) != len(self._ratios):  # some joined since
            self._keep_ratios([_number(g["lr"]) for g in self.optimizer.param_groups])
        lead = self.optimizer.param_groups[self._lead]
        lr, momentum = _number(lead["lr"]), _momentum(lead)
        decay = 0.0
        if "momentum" in lead:  # of Adam's kin the decay is decoupled, or preconditioned away
            decay = max(float(g.get("weight_decay", 0.0)) for g in self.optimizer.param_groups)
        try:
            found = self._learner.measure(momentum=momentum, weight_decay=decay)
        except NonPositiveCurvatureError:
            self.skipped += 1
            self.history.append(self._row(None, None, lr, momentum))
            return None
        proposed = found.steps
        if self._learner.rule == "heavy_ball" and proposed.momentum is not None:
            low, high = self._momentum_bounds
            target = min(max(proposed.momentum, low), high)
            # In the logarithm of 1 - momentum, whose inverse is the memory of the average.
            rest = self._moderate(1 - momentum, 1 - target, 1 - high, 1 - low)
            momentum = 1 - rest
        lr = self._settle(lr, momentum, proposed)
        for group, ratio in zip(self.optimizer.param_groups, self._ratios):
            _set_lr(group, lr * ratio)
            if self._learner.rule == "heavy_ball":
                group["momentum"] = momentum
        self._last_lr = [_number(g["lr"]) for g in self.optimizer.param_groups]
        self.history.append(self._row(proposed, found.noise, lr, momentum))
        return StepSizes(lr, momentum, proposed.lambda_max, proposed.lambda_min, proposed.rule)

    def _settle(self, lr: float, momentum: float, proposed: StepSizes) -> float:
        """The rate after bounds, average, limit, and the stability of the pair that is set."""
        low, high = self._lr_bounds
        set_to = self._moderate(lr, min(max(proposed.lr, low), high), low, high)
        if proposed.lambda_max is None:
            return set_to
        # The average of a stable pair with a stale one need not be stable.
        if proposed.rule == "heavy_ball":
            stable = 2 * (1 + momentum) / (proposed.lambda_max + (proposed.lambda_min or 0.0))
        else:
            stable = max(2 / proposed.lambda_max, proposed.lr)
        if set_to <= stable:
            return set_to
        return min(max(stable, lr / self._max_change, low), set_to)

    def _moderate(self, now: float, target: float, low: float, high: float) -> float:
        """Average with the present value in the logarithm, within ``max_change`` and bounds."""
        if not now > 0:
            return target
        mixed = math.exp(self._smoothing * math.log(now) + (1 - self._smoothing) * math.log(target))
        if self._smoothing == 0:
            mixed = target
        mixed = min(max(mixed, now / self._max_change), now * self._max_change)
        return min(max(mixed, low), high)

    def _row(
        self, proposed: StepSizes | None, noise: float | None, lr: float, momentum: float
    ) -> dict[str, Any]:
        """A line of the history."""
        return {
            "call": self._calls,
            "skipped": proposed is None,
            "lambda_max": None if proposed is None else proposed.lambda_max,
            "lambda_min": None if proposed is None else proposed.lambda_min,
            "noise": noise,
            "proposed_lr": None if proposed is None else proposed.lr,
            "proposed_momentum": None if proposed is None else proposed.momentum,
            "lr": lr,
            "momentum": momentum,
        }

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on as if nothing had happened, beside the optimizer's state.

        Returns:
            Numbers, lists and one tensor.
        """
        return {
            "calls": self._calls,
            "skipped": self.skipped,
            "seconds": self._seconds,
            "elapsed": time.perf_counter() - self._began,
            "history": [dict(row) for row in self.history],
            "generator": self._learner.generator.get_state(),
            "last_lr": list(self._last_lr),
            "ratios": list(self._ratios),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`; load the optimizer's state beside it.

        Args:
            state_dict: What it gave.

        Raises:
            ValueError: A field is missing.
        """
        missing = [name for name in _STATE if name not in state_dict]
        if missing:
            raise ValueError(f"state_dict has no {missing[:3]}; pass state_dict()'s")
        self._calls = self.last_epoch = int(state_dict["calls"])
        self.skipped = int(state_dict["skipped"])
        self._seconds = float(state_dict["seconds"])
        self._began = time.perf_counter() - float(state_dict["elapsed"])
        self.history = [dict(row) for row in state_dict["history"]]
        self._learner.generator.set_state(state_dict["generator"])
        self._last_lr = list(state_dict["last_lr"])
        self._keep_ratios(state_dict.get("ratios", self._ratios))  # absent from older states


def _interval(
    name: str,
    value: object,
    *,
    least: float,
    most: float = math.inf,
    open_at_zero: bool = False,
) -> tuple[float, float]:
    """Two ascending numbers in [least, most), or (0, most)."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name} must be two numbers, got {value!r}")
    low, high = float(value[0]), float(value[1])
    fine = least <= low <= high < most and not (open_at_zero and low == 0)
    if not fine:
        left = "(0" if open_at_zero else f"[{least:g}"
        raise ValueError(f"{name} must be ascending within {left}, {most:g}), got {value}")
    return low, high


def _number(value: float | Tensor) -> float:
    """A rate; optimizers may hold it in a tensor."""
    return float(value)


def _momentum(group: dict[str, Any]) -> float:
    """Of SGD's kin or of Adam's; 0 where there is none."""
    if "momentum" in group:
        return float(group["momentum"])
    betas = group.get("betas")
    return float(betas[0]) if betas else 0.0


def _set_lr(group: dict[str, Any], lr: float) -> None:
    """Without replacing a tensor that a compiled step may hold."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr
