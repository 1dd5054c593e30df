"""SAM-GS: task gradients brought together by their magnitudes.

"Gradient Similarity Surgery in Multi-Task Deep Learning" (4 authors), 2025, arXiv:2506.06130.

What differs from the authors' code: a task whose gradient is zero takes no part (theirs divides by
zero), a single task passes through (theirs is NaN), a gradient that is not finite is an error that
leaves the state alone, and nothing is allocated on another device or in another dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradworks.multitask.aggregator import ColumnAggregator, NonFiniteGradientError, row_norms
from gradworks.multitask.conflict import (
    ConflictStatistics,
    conflict_statistics,
    magnitude_similarity,
    similarities_of,
)

__all__ = ["SAMGS", "ConflictStatistics", "conflict_statistics", "magnitude_similarity"]

# Added to the running dissimilarity at every step by the authors' code; it accumulates to
# FLOOR / (1 - beta2) and is what keeps the momentum branch finite.
FLOOR = 1e-8
# Of torch.nn.utils.clip_grad_norm_, which the authors' training loop calls.
CLIP_EPS = 1e-6
# Numbers of the Jacobian treated at once: on a CPU they stay in the cache with their moments; an
# accelerator wants few large kernels.
TILE, DEVICE_TILE = 1 << 19, 1 << 25


@dataclass
class _Past:
    """What the host remembers: numbers it decides with, in full precision."""

    step: int = 0
    dissim: list[float] = field(default_factory=list)  # v of each block
    similarities: tuple[float, ...] = ()
    branches: tuple[str, ...] = ()


class _Plan(NamedTuple):
    """What the norms decide between ``begin`` and ``finish``."""

    equalise: list[bool]  # of each block
    weights: Tensor  # (blocks, tasks); of J in one branch, of J |M| in the other
    totals: Tensor  # (blocks,); the sum of the norms
    unit: float  # a power of two: what g is a multiple of until ``finish``


class SAMGS(ColumnAggregator):
    r"""Magnitude-similarity gradient surgery; stateful.

    Looks at norms, not at angles. Where the task gradients are too unlike in length they are all
    brought to the mean length; elsewhere each coordinate is weighted by the task's own momentum.
    For one trunk trained on losses of very different scale. The clip is part of the method: without
    it the two branches have different units.

    .. math::
        S_{ij} &= \frac{2 n_i n_j}{n_i^2 + n_j^2}, \quad s = \text{mean}_{i<j} S_{ij}, \qquad
        n_i = \lVert J_i \rVert \\
        M &\leftarrow \beta_1 M + (1 - \beta_1) J, \qquad
        v \leftarrow \beta_2 v + (1 - \beta_2) (1 - s)^2 + 10^{-8} \\
        g &= \sum_i J_i \, \bar n / n_i \;\text{ if } s < \gamma, \quad\text{else}\quad
        \sum_i J_i \odot |\hat M_i| / \sqrt{\hat v}

    with :math:`\hat M = M / (1 - \beta_1^t)` and :math:`\hat v = v / (1 - \beta_2^t)`. The result
    is :math:`T g` for T tasks, clipped to ``max_norm``.

    Args:
        momentum: :math:`\beta_1` in [0, 1); 0.9.
        beta2: Decay of the dissimilarity, in [0, 1); 0.99.
        gamma: Similarity :math:`\gamma` in [0, 1] under which gradients are equalised; 0.7 (image
            experiments; the toy problems use 0.1).
        scale: ``"published"``, or ``"norm"`` (ours): g is rescaled to the sum of the task norms, so
            that both branches have one unit.
        reduction: ``"mean"`` over pairs, or ``"min"`` (ours, stricter; the authors' reinforcement
            learning code takes this branch by the least pair and v by the mean).
        max_norm: Norm to which the result is clipped, above 0; 1.0 (released loop). None: no clip.
        state_dtype: Dtype of the first moment; None: the Jacobian's, at least float32.
        granularity: ``"whole"``, or ``"layer"`` (ours): similarity, dissimilarity and branch for
            each parameter tensor; needs :meth:`bind`, which the driver calls. The clip stays one.

    Attributes:
        exp_avg: M, ``(tasks, params)``, or None before the first call.

    Raises:
        TypeError: If ``state_dtype`` is no dtype.
        ValueError: If a number is out of range or a word unknown.

    Note:
        State: one tensor of the Jacobian's shape and one number a block. Reads the Jacobian twice
        (norms first) and needs no temporary of its size. One host synchronisation, of as many
        numbers as there are tasks. Where parameters are sharded each process holds the moments of
        its own columns, and two small sums cross processes: squared norms, and the clip's.

        A task without gradient counts neither in the similarity nor in the mean norm (our choice).
        A Jacobian of one row is returned as it is, unclipped.

    Example:
        >>> import torch
        >>> from gradworks.multitask import SAMGS
        >>> aggregator = SAMGS(max_norm=None)
        >>> jacobian = torch.tensor([[3.0, 0.0], [0.0, 0.01]])
        >>> aggregator(jacobian)  # unlike in length: both are brought to the mean, times 2 tasks
        tensor([3.0100, 3.0100])
        >>> aggregator.branch
        'equalise'

    References:
        "Gradient Similarity Surgery in Multi-Task Deep Learning", 2025, arXiv:2506.06130.
    """

    exp_avg: Tensor | None

    def __init__(
        self,
        momentum: float = 0.9,
        beta2: float = 0.99,
        gamma: float = 0.7,
        *,
        scale: Literal["published", "norm"] = "published",
        reduction: Literal["mean", "min"] = "mean",
        max_norm: float | None = 1.0,
        state_dtype: torch.dtype | None = None,
        granularity: Literal["whole", "layer"] = "whole",
    ) -> None:
        super().__init__()
        for name, value in (("momentum", momentum), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be in [0, 1], got {gamma}")
        for name, word, allowed in (
            ("scale", scale, ("published", "norm")),
            ("reduction", reduction, ("mean", "min")),
            ("granularity", granularity, ("whole", "layer")),
        ):
            if word not in allowed:
                raise ValueError(f"{name} must be '{allowed[0]}' or '{allowed[1]}', got {word!r}")
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm must be above 0 (None: no clip), got {max_norm}")
        if state_dtype is not None:
            if not isinstance(state_dtype, torch.dtype):
                raise TypeError(f"state_dtype must be a torch.dtype or None, got {state_dtype!r}")
            if not state_dtype.is_floating_point:
                raise ValueError(f"state_dtype must be floating, got {state_dtype}")
        self.momentum = momentum
        self.beta2 = beta2
        self.gamma = gamma
        self.scale = scale
        self.reduction = reduction
        self.max_norm = max_norm
        self.state_dtype = state_dtype
        self.granularity = granularity
        if granularity == "layer":
            self.needs = "jacobian"  # norms of each tensor, which the driver's chunks do not give
        self.register_buffer("exp_avg", None)
        self._past = _Past()
        self._plan: _Plan | None = None

    def extra_repr(self) -> str:
        """Return the settings, as ``print(module)`` shows them."""
        return (
            f"momentum={self.momentum}, beta2={self.beta2}, gamma={self.gamma}, "
            f"scale={self.scale!r}, reduction={self.reduction!r}, max_norm={self.max_norm}, "
            f"granularity={self.granularity!r}"
        )

    @property
    def step(self) -> int:
        """Number of calls since the last reset."""
        return self._past.step

    @property
    def similarities(self) -> tuple[float, ...]:
        """Similarity s of each block in the last call."""
        return self._past.similarities

    @property
    def similarity(self) -> float:
        """Similarity s of the last call; with ``granularity="layer"`` the mean over tensors."""
        found = self._past.similarities
        return math.fsum(found) / len(found) if found else math.nan

    @property
    def branches(self) -> tuple[str, ...]:
        """Branch of each block in the last call."""
        return self._past.branches

    @property
    def branch(self) -> str | None:
        """``"equalise"`` or ``"momentum"`` in the last call; ``"mixed"`` where tensors differ."""
        found = set(self._past.branches)
        return next(iter(found), None) if len(found) < 2 else "mixed"

    @property
    def exp_dissim(self) -> float:
        """Running dissimilarity v; with ``granularity="layer"`` the mean over tensors."""
        found = self._past.dissim
        return math.fsum(found) / len(found) if found else 0.0

    def reset(self) -> None:
        """Forget momentum, dissimilarity and step count."""
        self.exp_avg = None
        self._past = _Past()
        self._plan = None

    def get_extra_state(self) -> dict[str, Any]:
        """Return step count and dissimilarities, which ``state_dict`` holds beside the moment."""
        return {"step": self._past.step, "exp_dissim": list(self._past.dissim)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take what :meth:`get_extra_state` gave."""
        self._past = _Past(int(state["step"]), [float(v) for v in state["exp_dissim"]])

    def forward(self, jacobian: Tensor) -> Tensor:
        """Return the direction, ``(params,)``, in the dtype of the Jacobian.

        Args:
            jacobian: Gradients of the tasks, ``(tasks, params)``.

        Raises:
            NonFiniteGradientError: If a row is not finite; the state stays as it was.
            RuntimeError: If ``granularity="layer"`` and nothing was bound.
            TypeError: If it is not of a floating dtype.
            ValueError: If it is not 2-D, or of another shape than the state or the bound sizes.
        """  # noqa: DOC502
        self.check(jacobian)
        jacobian = jacobian.detach()
        if self.granularity == "whole":
            norms = row_norms(jacobian)[None]
        else:
            blocks = torch.split(jacobian, self._sizes(jacobian.shape[1]), 1)
            norms = torch.stack([row_norms(block) for block in blocks])
        if self.sharded:
            norms = self.reduce(norms.square()).sqrt()
        self._decide(norms, jacobian.shape[1], jacobian)
        return self.finish(self.columns(jacobian, 0)).to(jacobian.dtype)

    def begin(self, norms: Tensor, params: int, like: Tensor) -> None:
        """Decide by the norms of whole rows what :meth:`columns` does.

        Args:
            norms: Over all shards, ``(tasks,)``.
            params: Number of columns on this process.
            like: Has the dtype and device of the blocks.

        Raises:
            NonFiniteGradientError: If a norm is not finite; the state stays as it was.
            RuntimeError: If ``granularity="layer"``: it needs the whole Jacobian.
            ValueError: If there are other tasks or columns than the state has.
        """  # noqa: DOC502
        if self.granularity == "layer":
            raise RuntimeError("granularity='layer' needs the whole Jacobian; leave out chunks")
        self._decide(norms[None], params, like)

    def columns(self, jacobian: Tensor, start: int) -> Tensor:
        """Update the moments of some columns and return g there, at least in float32.

        With a norm to come g is in a unit near the gradients' length, which :meth:`finish` takes
        out: the branch of the momentum is quadratic, and its squares would overflow or vanish.

        Args:
            jacobian: The columns, ``(tasks, columns)``.
            start: Number of the first.

        Raises:
            RuntimeError: If :meth:`begin` did not come before.
        """
        if self._plan is None or self.exp_avg is None:
            raise RuntimeError("columns() needs the norms first: call begin()")
        columns = jacobian.shape[1]
        g = torch.empty(columns, dtype=self._plan.weights.dtype, device=jacobian.device)
        moments = self.exp_avg[:, start : start + columns]
        at = 0
        sizes = [columns] if self.granularity == "whole" else self._sizes(columns)
        for block, size in enumerate(sizes):
            here = slice(at, at + size)
            self._combine(jacobian[:, here], moments[:, here], g[here], block)
            at += size
        return g

    def finish(self, direction: Tensor) -> Tensor:
        """Scale and clip g.

        Args:
            direction: g, ``(params,)``; overwritten.
        """
        plan, self._plan = self._plan, None
        if plan is None or plan.weights.shape[1] == 1:
            return direction
        tasks = plan.weights.shape[1]
        if self.scale == "published" and self.max_norm is None:
            return direction.mul_(tasks)
        sizes = self._sizes(len(direction))
        parts = [direction] if len(sizes) == 1 else torch.split(direction, sizes)
        norms = torch.stack([_norm(part, plan.totals.dtype) for part in parts])
        if self.sharded:
            norms = self.reduce(norms.square()).sqrt()
        if self.scale == "norm":
            factors = torch.where(norms > 0, tasks * plan.totals / norms, torch.zeros_like(norms))
        else:
            factors = torch.full_like(norms, tasks)
        if self.max_norm is not None:
            unit = 1.0 if self.scale == "norm" else plan.unit
            length = _norm(factors * norms, norms.dtype)
            factors *= (self.max_norm / (length + CLIP_EPS / unit)).clamp_(max=unit)
        for block, part in enumerate(parts):
            part *= factors[block]
        return direction

    def _sizes(self, params: int) -> list[int]:
        """Columns of each block that is looked at by itself."""
        if self.granularity == "whole":
            return [params]
        if self.block_sizes is None:
            raise RuntimeError(
                "granularity='layer' does not know the parameter tensors; call bind([p.numel() "
                "for p in shared]) first"
            )
        if sum(self.block_sizes) != params:
            raise ValueError(
                f"jacobian has {params} columns, the bound tensors {sum(self.block_sizes)}: call "
                "bind() with the sizes of these parameters"
            )
        return list(self.block_sizes)

    def _decide(self, norms: Tensor, params: int, like: Tensor) -> None:
        """From norms ``(blocks, tasks)`` to the branch and the weights; the state moves on."""
        blocks, tasks = norms.shape
        past = self._past
        if self.exp_avg is not None and self.exp_avg.shape != (tasks, params):
            raise ValueError(
                f"jacobian has shape {(tasks, params)}, the state {tuple(self.exp_avg.shape)}: "
                "call reset() when tasks or parameters change"
            )
        if past.dissim and len(past.dissim) != blocks:
            raise ValueError(
                f"there are {blocks} blocks of parameters, the state has {len(past.dissim)}: call "
                "reset() when they or granularity change"
            )
        found = np.array(norms.tolist())  # the one synchronisation
        finite = np.isfinite(found).all(0)
        if not finite.all():
            raise NonFiniteGradientError(np.flatnonzero(~finite).tolist())
        wide = _wide(like)
        if self.exp_avg is None:
            dtype = self.state_dtype or wide
            self.exp_avg = torch.zeros(tasks, params, dtype=dtype, device=like.device)
        elif self.exp_avg.device != like.device:
            self.exp_avg = self.exp_avg.to(like.device)

        past.step += 1
        similarities = similarities_of(found, self.reduction)
        past.dissim = [
            self.beta2 * v + (1 - self.beta2) * (1 - s) ** 2 + FLOOR
            for v, s in zip(past.dissim or [0.0] * blocks, similarities)
        ]
        active = found > 0
        count = active.sum(1)
        equalise = [s < self.gamma or n < 2 for s, n in zip(similarities, count.tolist())]
        mean = found.sum(1) / np.maximum(count, 1)
        weights = np.divide(mean[:, None], found, out=np.zeros_like(found), where=active)
        for block, (equal, v) in enumerate(zip(equalise, past.dissim)):
            if not equal:
                v_hat = v / (1 - self.beta2**past.step)
                weights[block] = 1 / ((1 - self.momentum**past.step) * math.sqrt(v_hat))
        past.similarities = tuple(similarities)
        past.branches = tuple("equalise" if equal else "momentum" for equal in equalise)
        wide = torch.promote_types(wide, self.exp_avg.dtype)
        unit = 1.0
        if tasks > 1 and (self.scale == "norm" or self.max_norm is not None):
            unit = 2.0 ** math.frexp(float(mean.max()))[1]  # rounds nothing
        numbers = torch.from_numpy(weights / unit).to(like.device, wide)
        self._plan = _Plan(equalise, numbers, norms.sum(1).to(wide), unit)

    def _combine(self, jacobian: Tensor, moments: Tensor, g: Tensor, block: int) -> None:
        """Update the moments and write the weighted sum of the rows, tile by tile."""
        plan: Any = self._plan
        weights, equalise = plan.weights[block], plan.equalise[block]
        tasks, columns = jacobian.shape
        # Of another dtype: a tile is widened, updated and rounded once.
        exact = moments.dtype == g.dtype
        width = max(1, columns)
        if not (equalise and exact and jacobian.dtype == g.dtype):  # else there is no temporary
            width = min(width, max(1, (TILE if g.device.type == "cpu" else DEVICE_TILE) // tasks))
        spare = None if equalise else g.new_empty(tasks, width)
        for start in range(0, columns, width):
            here = slice(start, start + width)
            J, M, out = jacobian[:, here].to(g.dtype), moments[:, here], g[here]
            new = M if exact else M.to(g.dtype)
            new.lerp_(J, 1 - self.momentum)
            if not exact:
                M.copy_(new)
            if spare is not None:
                J = torch.abs(new, out=spare[:, : out.numel()]).mul_(J)
            torch.mv(J.t(), weights, out=out)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take a moment of any shape: a fresh module does not know it yet."""
        found = state_dict.get(f"{prefix}exp_avg")
        self.exp_avg = None if found is None else torch.empty_like(found)
        self._past, self._plan = _Past(), None
        super()._load_from_state_dict(state_dict, prefix, *args)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _norm(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(tensor, dtype=dtype)
    return found
