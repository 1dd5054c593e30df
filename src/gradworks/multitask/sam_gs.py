"""SAM-GS: task gradients brought together by their magnitudes.

"Gradient Similarity Surgery in Multi-Task Deep Learning", 2025, arXiv:2506.06130.

What differs from the authors' code: a task whose gradient is zero takes no part (theirs divides by
zero), a single task passes through (theirs is NaN), a gradient that is not finite is an error that
leaves the state alone, and nothing is allocated on another device or in another dtype.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from gradworks.multitask.aggregator import Aggregator, NonFiniteGradientError, row_norms

__all__ = ["SAMGS", "ConflictStatistics", "conflict_statistics", "magnitude_similarity"]

# Added to the running dissimilarity at every step by the authors' code; it accumulates to
# FLOOR / (1 - beta2) and is what keeps the momentum branch finite.
FLOOR = 1e-8
# Of torch.nn.utils.clip_grad_norm_, which the authors' training loop calls.
CLIP_EPS = 1e-6
# Columns treated at once: tasks x this many numbers stay in the cache.
COLUMNS = 1 << 15


class SAMGS(Aggregator):
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

    The result is :math:`T g`, clipped to ``max_norm``.

    Args:
        momentum: :math:`\beta_1` in [0, 1); 0.9.
        beta2: Decay of the dissimilarity, in [0, 1); 0.99.
        gamma: Similarity :math:`\gamma` in [0, 1] under which gradients are equalised; 0.7 (image
            experiments; the toy problems use 0.1).
        scale: ``"published"``, or ``"norm"`` (ours): g is rescaled to the sum of the task norms, so
            that both branches have one unit.
        reduction: ``"mean"`` over pairs, or ``"min"`` (ours, stricter).
        max_norm: Norm to which the result is clipped, above 0; 1.0 (released loop). None: no clip.
        state_dtype: Dtype of the first moment; None: the Jacobian's.

    Raises:
        ValueError: If a number is out of range or a word unknown.

    Note:
        State: one tensor of the Jacobian's shape and two numbers. Three passes over the Jacobian a
        call and one host synchronisation, of as many numbers as there are tasks.

        A task without gradient counts neither in the similarity nor in the mean norm (our choice).
        With a single task left its gradient is returned as it is.

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
    ) -> None:
        super().__init__()
        for name, value in (("momentum", momentum), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be in [0, 1], got {gamma}")
        if scale not in ("published", "norm"):
            raise ValueError(f"scale must be 'published' or 'norm', got {scale!r}")
        if reduction not in ("mean", "min"):
            raise ValueError(f"reduction must be 'mean' or 'min', got {reduction!r}")
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm must be above 0 (None: no clip), got {max_norm}")
        if state_dtype is not None and not state_dtype.is_floating_point:
            raise ValueError(f"state_dtype must be floating, got {state_dtype}")
        self.momentum = momentum
        self.beta2 = beta2
        self.gamma = gamma
        self.scale = scale
        self.reduction = reduction
        self.max_norm = max_norm
        self.state_dtype = state_dtype
        self.register_buffer("exp_avg", None)
        # Numbers that the host decides with stay there, in full precision (extra state).
        self.step = 0
        self.exp_dissim = 0.0
        self.similarity = math.nan
        self.branch: Literal["equalise", "momentum"] | None = None

    def extra_repr(self) -> str:
        """Return the settings, as ``print(module)`` shows them."""
        return (
            f"momentum={self.momentum}, beta2={self.beta2}, gamma={self.gamma}, "
            f"scale={self.scale!r}, reduction={self.reduction!r}, max_norm={self.max_norm}"
        )

    def reset(self) -> None:
        """Forget momentum, dissimilarity and step count."""
        self.exp_avg = None
        self.step = 0
        self.exp_dissim = 0.0
        self.similarity = math.nan
        self.branch = None

    def get_extra_state(self) -> dict[str, float]:
        """Return step count and dissimilarity, which ``state_dict`` holds beside the moment."""
        return {"step": self.step, "exp_dissim": self.exp_dissim}

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Take what :meth:`get_extra_state` gave."""
        self.step = int(state["step"])
        self.exp_dissim = float(state["exp_dissim"])

    @torch.no_grad()
    def forward(self, jacobian: Tensor) -> Tensor:
        """Return the direction, ``(params,)``, in the dtype of the Jacobian.

        Args:
            jacobian: Gradients of the tasks, ``(tasks, params)``.

        Raises:
            NonFiniteGradientError: If a row is not finite; the state stays as it was.
            TypeError: If it is not of a floating dtype.
            ValueError: If it is not 2-D, or of another shape than the state.
        """  # noqa: DOC502
        self.check(jacobian)
        tasks, params = jacobian.shape
        if self.exp_avg is not None and self.exp_avg.shape != jacobian.shape:
            raise ValueError(
                f"jacobian has shape {(tasks, params)}, the state {tuple(self.exp_avg.shape)}: "
                "call reset() when tasks or parameters change"
            )
        norms = row_norms(jacobian).tolist()  # the one synchronisation
        bad = [i for i, n in enumerate(norms) if not math.isfinite(n)]
        if bad:
            bad = [i for i in bad if not bool(torch.isfinite(jacobian[i]).all())] or bad
            raise NonFiniteGradientError(bad)
        if self.exp_avg is None:
            dtype = self.state_dtype or jacobian.dtype
            self.exp_avg = torch.zeros_like(jacobian, dtype=dtype)

        self.step += 1
        t = self.step
        s = _similarity(norms, self.reduction)
        v = self.beta2 * self.exp_dissim + (1 - self.beta2) * (1 - s) ** 2 + FLOOR
        self.exp_dissim = v
        active = [n for n in norms if n > 0]
        equalise = s < self.gamma or len(active) < 2
        self.similarity, self.branch = s, "equalise" if equalise else "momentum"

        mean = sum(active) / len(active) if active else 0.0
        weights = [mean / n if n > 0 else 0.0 for n in norms]
        factor = 1 / ((1 - self.momentum**t) * math.sqrt(v / (1 - self.beta2**t)))
        g = self._combine(jacobian, self.exp_avg, weights if equalise else None, factor)
        if tasks == 1:
            return g
        if self.scale == "norm":
            length = float(torch.linalg.vector_norm(g))
            g *= sum(norms) / length if length > 0 else 0.0
        g *= tasks
        if self.max_norm is not None:
            length = torch.linalg.vector_norm(g)
            g *= (self.max_norm / (length + CLIP_EPS)).clamp(max=1.0)
        return g

    def _combine(
        self, jacobian: Tensor, exp_avg: Tensor, weights: list[float] | None, factor: float
    ) -> Tensor:
        """Update the moment and sum the weighted rows, a block of columns at a time.

        ``weights`` are those of the equalising branch; None takes the moments times ``factor``.
        """
        g = torch.empty_like(jacobian[0])
        scales = None if weights is None else jacobian.new_tensor(weights)
        for start in range(0, jacobian.shape[1], COLUMNS):
            J = jacobian[:, start : start + COLUMNS]
            M = exp_avg[:, start : start + COLUMNS]
            M.lerp_(J.to(M.dtype), 1 - self.momentum)
            if scales is not None:
                g[start : start + COLUMNS] = scales @ J
            else:
                g[start : start + COLUMNS] = (M.abs().to(J.dtype) * J).sum(0) * factor
        return g

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take a moment of any shape: a fresh module does not know it yet."""
        found = state_dict.get(f"{prefix}exp_avg")
        self.exp_avg = None if found is None else torch.empty_like(found)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _similarity(norms: list[float], reduction: str) -> float:
    """Mean (or least) pairwise similarity of the norms that are not zero; 1 without a pair."""
    active = [n for n in norms if n > 0]
    pairs = [_pair(a, b) for i, a in enumerate(active) for b in active[i + 1 :]]
    if not pairs:
        return 1.0
    return min(pairs) if reduction == "min" else math.fsum(pairs) / len(pairs)


def _pair(a: float, b: float) -> float:
    """2ab / (a^2 + b^2) without overflow."""
    ratio = min(a, b) / max(a, b)
    return 2 * ratio / (1 + ratio * ratio)


def magnitude_similarity(norms: Tensor) -> Tensor:
    r"""Pairwise similarity of gradient norms, :math:`2 n_i n_j / (n_i^2 + n_j^2)`.

    Args:
        norms: At least 0, ``(tasks,)``.

    Returns:
        Symmetric ``(tasks, tasks)`` in [0, 1] with diagonal 1; two zero norms are alike.

    Raises:
        TypeError: If ``norms`` is not a floating tensor.
        ValueError: If it is not 1-D or holds a negative number.

    Example:
        >>> import torch
        >>> from gradworks.multitask.sam_gs import magnitude_similarity
        >>> magnitude_similarity(torch.tensor([1.0, 2.0]))
        tensor([[1.0000, 0.8000],
                [0.8000, 1.0000]])
    """
    if not isinstance(norms, Tensor) or not norms.is_floating_point():
        raise TypeError("norms must be a floating tensor")
    if norms.dim() != 1:
        raise ValueError(f"norms must be 1-D, got shape {tuple(norms.shape)}")
    if bool((norms < 0).any()):
        raise ValueError("norms must be at least 0")
    low = torch.minimum(norms[:, None], norms[None, :])
    high = torch.maximum(norms[:, None], norms[None, :])
    ratio = torch.where(high > 0, low / high, torch.ones_like(high))
    return 2 * ratio / (1 + ratio.square())


class ConflictStatistics(NamedTuple):
    """The three pairwise quantities that the field plots, each ``(tasks, tasks)``."""

    cosine: Tensor
    magnitude: Tensor
    curvature_bound: Tensor


def conflict_statistics(jacobian: Tensor) -> ConflictStatistics:
    r"""How task gradients conflict: angles, lengths, and the bound on curvature.

    .. math:: \xi_{ij} = (1 - \cos^2_{ij}) \, \frac{\lVert g_i - g_j \rVert^2}
        {\lVert g_i + g_j \rVert^2}

    Args:
        jacobian: Gradients of the tasks, ``(tasks, params)``.

    Returns:
        Cosines, magnitude similarities and :math:`\xi`; a pair with a zero gradient has cosine 0,
        opposite gradients have :math:`\xi = 0`.

    Raises:
        TypeError: If it is not of a floating dtype.
        ValueError: If it is not 2-D.

    Example:
        >>> import torch
        >>> from gradworks.multitask.sam_gs import conflict_statistics
        >>> conflict_statistics(torch.eye(2)).curvature_bound
        tensor([[0., 1.],
                [1., 0.]])
    """  # noqa: DOC502
    Aggregator.check(jacobian)
    J = jacobian.detach().to(torch.promote_types(jacobian.dtype, torch.float32))
    gramian = J @ J.T
    norms = row_norms(J)
    product = norms[:, None] * norms[None, :]
    cosine = torch.where(product > 0, gramian / product, torch.zeros_like(gramian)).clamp(-1, 1)
    squares = norms.square()[:, None] + norms.square()[None, :]
    apart, together = squares - 2 * gramian, squares + 2 * gramian
    sine = 1 - cosine.square()
    bound = torch.where(together > 0, sine * apart / together, torch.zeros_like(sine))
    return ConflictStatistics(cosine, magnitude_similarity(norms), bound.clamp_min(0))
