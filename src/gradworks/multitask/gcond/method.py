"""GCond as an aggregator: conflicts resolved in rounds, a sum, and a momentum.

"GCond: Gradient Conflict Resolution via Accumulation-based Stabilization for Large-Scale
Multi-Task Learning", two authors, 2025, arXiv:2509.07252.

What differs from the authors' code: rounds run on inner products, not on vectors; state has the
gradients' dtype, not bfloat16; rounding alone is no conflict (``conflict_tol``); a gradient that is
not finite is an error that leaves the state alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from torch import Tensor

from gradworks.multitask.aggregator import Aggregator, NonFiniteGradientError
from gradworks.multitask.collect.processes import local_of
from gradworks.multitask.gcond.checks import checked_rules, checked_settings
from gradworks.multitask.gcond.resolve import Products, Resolution, resolve
from gradworks.multitask.gcond.vectors import combined, lion_steps, momentum_step, products_of

__all__ = ["GCond", "GCondStats"]


@dataclass(frozen=True)
class GCondStats:
    """What one call of :class:`GCond` saw.

    Attributes:
        raw_norms: Norms of the task gradients as they came.
        norm_ema: Their running averages after this call.
        min_cosine: The smallest cosine of a conflicting pair before the first round; 1 if none.
        rounds: How many pairs were resolved.
        winners: Numbers of the tasks that won a round, in order; weak conflicts have no winner
            without ``smooth``.
        final_norm: Norm of the result; stays on its device.
    """

    raw_norms: tuple[float, ...]
    norm_ema: tuple[float, ...]
    min_cosine: float
    rounds: int
    winners: tuple[int, ...]
    final_norm: Tensor


class GCond(Aggregator):
    r"""Resolves the worst conflict, again and again, then sums and averages over steps; stateful.

    For several losses of one model. The pair of gradients with the smallest cosine is taken, an
    arbitrator picks the winner, and both are projected off each other by shares that grow with the
    angle: a weak conflict costs both a little, a critical one costs the loser all of its part along
    the winner and the winner nothing. The momentum is the optimizer's first moment: use one with
    ``betas=(0, ...)`` or none behind it.

    .. math::
        \text{score}_k &= a \max(0, \cos(G_k, G_k^{\text{before}})) + b \, \frac{z_k}{z_i + z_j},
            \qquad z_k = \lVert G_k \rVert / e_k \\
        G_w &\leftarrow G_w - \sin \alpha \; \frac{G_w \cdot G_l}{\lVert G_l \rVert^2} G_l, \qquad
        G_l \leftarrow G_l - \sin(\min(\alpha, \tfrac{\pi}{2})) \;
            \frac{G_w \cdot G_l}{\lVert G_w \rVert^2} G_w \\
        m &\leftarrow \beta m + (1 - \beta) \sum_k G_k, \qquad g = m / (1 - \beta^t)

    with :math:`\alpha` of :func:`effective_angle`, both updates from the values before, running
    averages :math:`e_k` of the norms, and :math:`(a, b)` = ``tie_weights``.

    Args:
        thresholds: Cosines (critical, main, weak) in [-1, 1], in this order; (-0.8, -0.5, 0),
            authors' code (their README has -0.85).
        remap_power: Power between main and critical, above 0; 2.
        smooth: Shares that grow with the angle; False: four zones (nothing, both projected, the
            loser projected, the loser zero).
        max_iters: Most rounds a call; None: twice the number of tasks.
        norm_cap: Norm to which each gradient is cut first, above 0; None: no cut.
        momentum: :math:`\beta` in [0, 1); 0.85.
        lion: The sign of :math:`g`, in each parameter tensor p times ``trust_coef`` and
            :math:`\min(\lVert p \rVert / \lVert g \rVert, \text{trust\_clip})`. Needs
            :meth:`follow`, which :class:`Conductor` calls.
        trust_coef: Above 0; 1e-4.
        trust_clip: Above 0; 100.
        dominance_window: A task that won this many rounds running is dominant; 3. 0: never.
        dominance: ``"yield"``: the other one wins then (authors' code); ``"keep"``: the dominant
            one does (their README).
        tie_weights: Of stability and strength in the score, at least 0; (0.8, 0.2).
        norm_beta: Decay of the running averages of norms, in [0, 1); 0.95.
        remember: Which gradients the next call takes as those before: ``"projected"`` (authors'
            code) or ``"raw"`` (their README).
        return_raw: Return the sum; the momentum is kept up all the same.
        conflict_tol: A conflict has a cosine below the weak threshold by more than this; 1e-6
            (ours: a full projection leaves a cosine of rounding size, which is no conflict).
        state_dtype: Dtype of the state; None: the Jacobian's.
        eps: Added to denominators; gradients with a smaller squared norm are in no conflict; 1e-8.
        zero_tol: Ours. None: as said under ``eps``, so small losses have no conflicts. A number in
            [0, 1): a gradient counts as zero below this part of its norm before the rounds, and
            cosines and projections have no ``eps``.

    Raises:
        TypeError: If ``state_dtype`` is no dtype or a count no integer.
        ValueError: If a number is out of range or a word unknown.

    Attributes:
        stats: Of the last call; None before the first.

    Note:
        State: tasks + 1 tensors of the gradient's size (the authors: 2 x tasks + 2, in bfloat16).
        The gradients before are kept as the rows they were made of and a matrix (tasks, tasks);
        :meth:`remembered` puts them together. One host synchronisation a call on an accelerator, of
        a matrix (tasks, 2 tasks); one more, and another pass over the rows, where more than 99.9 %
        of a squared norm was projected away, since inner products have lost digits there.

        With a single task nothing is cut or resolved and the running average stays: momentum only.

    Example:
        >>> import torch
        >>> from gradworks.multitask.gcond import GCond
        >>> aggregator = GCond()
        >>> aggregator(torch.tensor([[1.0, 0.0], [-1.0, 1.0]]))  # cosine -0.71: the second wins
        tensor([0.2326, 1.5000])
        >>> aggregator.stats.rounds, aggregator.stats.winners, round(aggregator.stats.min_cosine, 2)
        (1, (1,), -0.71)

    References:
        arXiv:2509.07252 and its authors' code, ``GradientConductor``.
    """

    previous: Tensor | None
    momentum_buffer: Tensor | None

    def __init__(
        self,
        *,
        thresholds: tuple[float, float, float] = (-0.8, -0.5, 0.0),
        remap_power: float = 2.0,
        smooth: bool = True,
        max_iters: int | None = None,
        norm_cap: float | None = None,
        momentum: float = 0.85,
        lion: bool = False,
        trust_coef: float = 1e-4,
        trust_clip: float = 100.0,
        dominance_window: int = 3,
        dominance: Literal["yield", "keep"] = "yield",
        tie_weights: tuple[float, float] = (0.8, 0.2),
        norm_beta: float = 0.95,
        remember: Literal["projected", "raw"] = "projected",
        return_raw: bool = False,
        conflict_tol: float = 1e-6,
        state_dtype: torch.dtype | None = None,
        eps: float = 1e-8,
        zero_tol: float | None = None,
    ) -> None:
        super().__init__()
        self.rules = checked_rules(
            thresholds=thresholds,
            remap_power=remap_power,
            smooth=smooth,
            max_iters=max_iters,
            dominance_window=dominance_window,
            dominance=dominance,
            tie_weights=tie_weights,
            conflict_tol=conflict_tol,
            eps=eps,
            zero_tol=zero_tol,
        )
        checked_settings(
            momentum=momentum,
            norm_beta=norm_beta,
            norm_cap=norm_cap,
            trust_coef=trust_coef,
            trust_clip=trust_clip,
            remember=remember,
            state_dtype=state_dtype,
        )
        self.norm_cap = norm_cap
        self.momentum = momentum
        self.lion = lion
        self.trust_coef = trust_coef
        self.trust_clip = trust_clip
        self.norm_beta = norm_beta
        self.remember = remember
        self.return_raw = return_raw
        self.state_dtype = state_dtype
        self.register_buffer("previous", None)
        self.register_buffer("momentum_buffer", None)
        self._followed: tuple[Tensor, ...] | None = None
        self.reset()

    def extra_repr(self) -> str:
        """Return the settings, as ``print(module)`` shows them."""
        rules = self.rules
        return (
            f"thresholds={rules.thresholds}, smooth={rules.smooth}, momentum={self.momentum}, "
            f"lion={self.lion}, dominance_window={rules.dominance_window}, "
            f"dominance={rules.dominance!r}, remember={self.remember!r}"
        )

    def follow(self, parameters: Iterable[Tensor]) -> None:
        """Learn the parameters whose norms ``lion`` asks for; they are neither kept nor saved.

        Args:
            parameters: In the order of the Jacobian's columns.
        """
        self._followed = tuple(parameters)

    def reset(self) -> None:
        """Forget momentum, gradients of the step before, averages, history and step count."""
        self.previous = None
        self.momentum_buffer = None
        self.step = 0
        self.norm_ema: list[float] = []
        self.mix: list[list[float]] = []
        self.lengths: list[float] = []
        self.history: tuple[int, ...] = ()
        self.stats: GCondStats | None = None

    def forward(self, jacobian: Tensor) -> Tensor:
        """Return the direction, ``(params,)``, in the dtype of the Jacobian.

        Args:
            jacobian: Gradients of the tasks, ``(tasks, params)``.

        Raises:
            NonFiniteGradientError: If a row is not finite; the state stays as it was.
            RuntimeError: With ``lion``, if :meth:`follow` was not called.
            TypeError: If it is not of a floating dtype.
            ValueError: If it is not 2-D, or of another shape than the state or the parameters.
        """  # noqa: DOC502
        self.check(jacobian)
        self._fit(jacobian)
        products = self._products(jacobian)
        squares = products.among.diagonal()
        if not np.isfinite(products.among).all():
            self._refuse(jacobian, squares)
        norms = np.sqrt(squares)
        rows, averages = jacobian, self.norm_ema or [1.0] * len(norms)
        if len(norms) == 1:
            found = Resolution(np.eye(1), tuple(norms.tolist()), history=self.history)
        else:
            keep, eps = self.norm_beta, self.rules.eps
            pairs = zip(averages, norms.tolist(), strict=True)
            averages = [max(keep * e + (1 - keep) * r, eps) for e, r in pairs]
            rows, found = self._resolved(jacobian, products, norms, averages)
        direction, final = self._finish(jacobian, rows, found, norms)
        self.norm_ema, self.history = averages, found.history
        self.stats = GCondStats(
            raw_norms=tuple(norms.tolist()),
            norm_ema=tuple(averages),
            min_cosine=found.min_cosine,
            rounds=found.rounds,
            winners=found.winners,
            final_norm=final,
        )
        return direction

    def remembered(self) -> Tensor | None:
        """Return the gradients that the next call takes as those before, ``(tasks, params)``."""
        return None if self.previous is None else combined(self.previous, np.array(self.mix))

    def _products(self, rows: Tensor) -> Products:
        """Inner products of rows, with themselves and with the step before."""
        mix = np.array(self.mix) if self.mix else np.eye(len(rows))
        lengths = self.lengths or [0.0] * len(rows)
        return products_of(rows, self.previous, mix, lengths, self.reduce)

    def _resolved(
        self, jacobian: Tensor, products: Products, norms: np.ndarray, averages: list[float]
    ) -> tuple[Tensor, Resolution]:
        """The rounds; what they combine is the Jacobian unless cancellation made it anew."""
        rows = jacobian
        scales = np.ones_like(norms)
        if self.norm_cap is not None:
            over = norms > self.norm_cap
            scales[over] = self.norm_cap / (norms[over] + self.rules.eps)

        def renew(combination: np.ndarray) -> Products:
            nonlocal rows
            rows = combined(rows, combination)
            return self._products(rows)

        found = resolve(products, scales.tolist(), averages, self.history, self.rules, renew)
        return rows, found

    def _finish(
        self, jacobian: Tensor, rows: Tensor, found: Resolution, norms: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """Sum, momentum and what is remembered; the direction and its norm."""
        if self.previous is None or self.momentum_buffer is None:
            dtype = self.state_dtype or jacobian.dtype
            self.previous = torch.empty_like(jacobian, dtype=dtype)
            self.momentum_buffer = torch.zeros_like(jacobian[0], dtype=dtype)
        self.step += 1
        raw = self.remember == "raw"
        # the rows are kept as they are, and beside them how they were combined
        self.mix = (np.eye(len(norms)) if raw else found.combination).tolist()
        self.lengths = norms.tolist() if raw else list(found.lengths)
        direction, square = momentum_step(
            rows,
            found.combination.sum(0),
            previous=self.previous,
            remembered=jacobian if raw else rows,
            buffer=self.momentum_buffer,
            beta=self.momentum,
            correction=1 - self.momentum**self.step,
            return_raw=self.return_raw,
        )
        if self.lion and not self.return_raw:
            direction = lion_steps(
                direction,
                self._parts(jacobian),
                coefficient=self.trust_coef,
                clip=self.trust_clip,
                eps=self.rules.eps,
                reduce=self.reduce,
            )
            square = direction.square().sum()
        return direction.to(jacobian.dtype), self.reduce(square).sqrt()

    def _parts(self, jacobian: Tensor) -> list[Tensor]:
        """This process's parts of the parameters that are followed."""
        if self._followed is None:
            raise RuntimeError(
                "lion=True needs the norms of the parameters: call follow(parameters) first, or "
                "let Conductor do it"
            )
        parts = [local_of(p.detach(), p) for p in self._followed]
        count = sum(p.numel() for p in parts)
        if count != jacobian.shape[1]:
            raise ValueError(
                f"jacobian has {jacobian.shape[1]} columns, the followed parameters have {count} "
                "entries; follow() takes those of the Jacobian, in its order"
            )
        return parts

    def _fit(self, jacobian: Tensor) -> None:
        """Refuse a Jacobian that does not go with the state; bring the state to its device."""
        if self.lion and not self.return_raw:
            self._parts(jacobian)
        if self.previous is None or self.momentum_buffer is None:
            return
        if self.previous.shape != jacobian.shape:
            raise ValueError(
                f"jacobian has shape {tuple(jacobian.shape)}, the state "
                f"{tuple(self.previous.shape)}: call reset() when tasks or parameters change"
            )
        if self.previous.device != jacobian.device:
            self.previous = self.previous.to(jacobian.device)
            self.momentum_buffer = self.momentum_buffer.to(jacobian.device)

    def _refuse(self, jacobian: Tensor, squares: np.ndarray) -> NoReturn:
        """Name the tasks that are not finite, or whose squared norm is not."""
        wrong = (~torch.isfinite(jacobian)).sum(1).to(torch.float32)
        bad = [i for i, count in enumerate(self.reduce(wrong).tolist()) if count > 0]
        raise NonFiniteGradientError(bad or np.flatnonzero(~np.isfinite(squares)).tolist())

    def get_extra_state(self) -> dict[str, Any]:
        """Return the numbers that go beside the buffers: counts, averages, history."""
        return {
            "step": self.step,
            "norm_ema": list(self.norm_ema),
            "mix": [list(row) for row in self.mix],
            "lengths": list(self.lengths),
            "history": list(self.history),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take what :meth:`get_extra_state` gave."""
        self.step = int(state["step"])
        self.norm_ema = [float(e) for e in state["norm_ema"]]
        self.mix = [[float(c) for c in row] for row in state["mix"]]
        self.lengths = [float(n) for n in state["lengths"]]
        window = self.rules.dominance_window
        self.history = tuple(int(w) for w in state["history"])[-window:] if window else ()
        self.stats = None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take buffers of any shape: a fresh module does not know it yet."""
        for name in ("previous", "momentum_buffer"):
            found = state_dict.get(f"{prefix}{name}")
            setattr(self, name, None if found is None else torch.empty_like(found))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        # the parameters are the model's: a copy of this module is no copy of them
        return {**super().__getstate__(), "_followed": None}
