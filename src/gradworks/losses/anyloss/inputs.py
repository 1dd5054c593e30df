"""What the AnyLoss functions accept, and the errors for everything else."""

from __future__ import annotations

import math
import warnings
from numbers import Real

import torch
from torch import Tensor

__all__ = [
    "SURROGATES",
    "amplification_bound",
    "check_beta",
    "check_rule",
    "columns",
    "prepare",
    "warn_saturated",
]

SURROGATES = ("anyloss", "sol", "linear")
# Labels looked at in one go; the buffer of the check stays in the cache.
_BLOCK = 2**17


def amplification_bound(dtype: torch.dtype) -> float:
    """Largest amplification for which A(1), at threshold 0.5, stays below 1 rounded to ``dtype``.

    The paper's 73 is this bound for float64. Half precision is computed in float32.

    Args:
        dtype: Floating-point type of the logits.

    Returns:
        The bound: 73.47 in float64, 33.27 in float32.

    Example:
        >>> int(amplification_bound(torch.float64)), int(amplification_bound(torch.float32))
        (73, 33)
    """
    eps = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    return 2.0 * math.log(2.0 / eps)


def _number(name: str, value: object) -> float:
    """A real number as float; bool and text are type errors."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__} {value!r}")
    return float(value)


def check_beta(beta: object) -> float:
    """Return ``beta`` as a positive finite float.

    Args:
        beta: Weight of recall against precision in F-beta.

    Returns:
        The value.

    Raises:
        ValueError: If it is not positive and finite.
    """
    value = _number("beta", beta)
    if not 0.0 < value < math.inf:
        raise ValueError(f"beta must be positive and finite, got {value}; F1 has beta=1")
    return value


def check_rule(surrogate: object, amplification: object, threshold: object) -> float:
    """Refuse constants outside their ranges.

    Args:
        surrogate: One of "anyloss", "sol", "linear".
        amplification: Positive and finite.
        threshold: Inside (0, 1).

    Returns:
        The amplification as a float.

    Raises:
        ValueError: If a value is out of range.
    """
    if surrogate not in SURROGATES:
        raise ValueError(f"surrogate must be one of {', '.join(SURROGATES)}, got {surrogate!r}")
    value = _number("amplification", amplification)
    if not 0.0 < value < math.inf:
        raise ValueError(
            f"amplification must be positive and finite, got {value}; the paper uses 73"
        )
    t = _number("threshold", threshold)
    if not 0.0 < t < 1.0:
        raise ValueError(f"threshold must be a probability inside (0, 1), got {t}")
    return value


def warn_saturated(dtype: torch.dtype, amplification: float) -> None:
    """Warn when A(1) rounds to 1 in this precision.

    Args:
        dtype: Floating-point type of the logits.
        amplification: The L in use.
    """
    bound = amplification_bound(dtype)
    if amplification > bound:
        warnings.warn(
            f"amplification {amplification:g} is above {bound:.2f}, the bound of {dtype}: A(p) "
            "rounds to exactly 1 for confident samples there. The gradient stays exact on both "
            f"sides; amplification={math.floor(bound)} or float64 logits avoid the rounding",
            RuntimeWarning,
            stacklevel=3,
        )


def _check_tensors(input: Tensor, target: Tensor, weight: Tensor | None) -> None:
    """Types, devices and gradient flags of the three arguments."""
    others = {"target": target} if weight is None else {"target": target, "weight": weight}
    for name, value in {"input": input, **others}.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if not input.is_floating_point():
        raise TypeError(
            f"input must be floating-point scores, got {input.dtype}; "
            "labels go second: anyloss(input, target)"
        )
    for name, value in others.items():
        if value.is_complex():
            raise TypeError(f"{name} must be real, got {value.dtype}")
        if value.device != input.device:
            raise ValueError(
                f"{name} is on {value.device} and input on {input.device}; "
                f"move it with {name}.to(input.device)"
            )
        if value.requires_grad:
            raise ValueError(f"{name} requires grad, but only input gets one; pass {name}.detach()")


def columns(
    input: Tensor, target: Tensor, weight: Tensor | None, *, pooled: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Bring every accepted shape to (N,), or to (C, N) with one row a class.

    Args:
        input: Scores (N,), (N, 1), or (N, C, ...) with classes second.
        target: Labels of the same shape, or class indices (N, ...).
        weight: Weights (N,) or of the shape of ``input``, or ``None``.
        pooled: Read every element as one sample of a single binary problem.

    Returns:
        Scores, labels and weights of one shape (weights ``None`` if they were).

    Raises:
        ValueError: If shapes do not agree or nothing is in them.
    """
    _check_tensors(input, target, weight)
    shapes = f"input {tuple(input.shape)}, target {tuple(target.shape)}"
    if input.dim() == 0 or input.numel() == 0:
        raise ValueError(f"input holds no samples: {shapes}; an empty batch has no metric")
    if input.dim() == 2 and input.shape[1] == 1:
        input = input.squeeze(1)
    if input.dim() == 1 and target.dim() == 2 and target.shape[1] == 1:
        target = target.squeeze(1)
    per_class = input.dim() >= 2 and not pooled
    if per_class and target.shape == input.shape[:1] + input.shape[2:]:
        target = _one_hot(target, input.shape[1])
    if target.shape != input.shape:
        raise ValueError(
            f"input and target must have one shape, got {shapes}; (N,) and (N, 1) also agree, and "
            "for several classes (N, C) scores take (N, C) labels or (N,) class indices"
        )
    if weight is not None:
        if weight.dim() == 2 and weight.shape[1] == 1 and input.dim() == 1:
            weight = weight.squeeze(1)
        if weight.shape == input.shape[:1]:
            weight = weight.view(-1, *[1] * (input.dim() - 1)).expand_as(input)
        if weight.shape != input.shape:
            raise ValueError(
                f"weight must have shape {tuple(input.shape[:1])} or {tuple(input.shape)}, "
                f"got {tuple(weight.shape)}"
            )
    if per_class:
        return (
            input.movedim(1, 0).flatten(1),
            target.movedim(1, 0).flatten(1),
            None if weight is None else weight.movedim(1, 0).flatten(1),
        )
    return input.flatten(), target.flatten(), None if weight is None else weight.flatten()


def _one_hot(target: Tensor, num_classes: int) -> Tensor:
    """Class indices (N, ...) to booleans (N, C, ...); an index out of range is no class at all."""
    if target.is_floating_point() or target.dtype == torch.bool:
        raise ValueError(
            f"target of shape {tuple(target.shape)} for {num_classes} classes must hold integer "
            f"class indices, got {target.dtype}; labels in {{0, 1}} need one column a class"
        )
    if target.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = (int(bound) for bound in torch.aminmax(target))
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"target holds class indices from {low} to {high}, allowed are 0 to "
                f"{num_classes - 1} (input has {num_classes} columns)"
            )
    index = torch.arange(num_classes, device=target.device)
    return target.unsqueeze(1) == index.view(-1, *[1] * (target.dim() - 1))


def prepare(
    score: Tensor,
    label: Tensor,
    weight: Tensor | None,
    *,
    from_logits: bool,
    soft_targets: bool,
    validate: bool | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Bring dtypes together (float32 at least) and check values where that costs no wait.

    Args:
        score: Logits or probabilities.
        label: Labels of the same shape, any dtype.
        weight: Weights or ``None``.
        from_logits: ``False`` if ``score`` must lie in [0, 1].
        soft_targets: Whether labels between 0 and 1 pass.
        validate: ``True`` checks, ``False`` does not, ``None`` does on CPU.

    Returns:
        The three tensors in the dtype the counts are computed in.
    """
    dtype = score.dtype if score.dtype in {torch.float32, torch.float64} else torch.float32
    hard = label.dtype == torch.bool
    score, label = score.to(dtype), label.to(dtype)
    weight = None if weight is None else weight.to(dtype)
    check = score.device.type == "cpu" if validate is None else validate
    if check and not torch.compiler.is_compiling():
        _check_values(score, None if hard else label, weight, from_logits, soft_targets)
    return score, label, weight


def _check_values(
    score: Tensor, label: Tensor | None, weight: Tensor | None, from_logits: bool, soft: bool
) -> None:
    """Ranges of labels, weights and probabilities."""
    if not from_logits:
        low, high = _range(score)
        if not (low >= 0.0 and high <= 1.0):
            raise ValueError(
                f"input must hold probabilities in [0, 1] when from_logits=False, found {low:g} to "
                f"{high:g}; pass logits with from_logits=True"
            )
    if label is not None and not (_inside(label) if soft else _is_binary(label)):
        low, high = _range(label)
        allowed = "in [0, 1]" if soft else "0 or 1"
        raise ValueError(
            f"target must hold labels {allowed}, found values from {low:g} to {high:g}; "
            "map labels to 0/1, or pass soft_targets=True for probabilities"
        )
    if weight is not None:
        low, high = _range(weight)
        if not (low >= 0.0 and high < math.inf):
            raise ValueError(f"weight must be finite and not negative, found {low:g} to {high:g}")


def _range(values: Tensor) -> tuple[float, float]:
    """Smallest and largest value; NaN if there is one."""
    low, high = torch.aminmax(values.detach())
    return float(low), float(high)


def _inside(label: Tensor) -> bool:
    """Whether all labels lie in [0, 1]."""
    low, high = _range(label)
    return low >= 0.0 and high <= 1.0


def _is_binary(label: Tensor) -> bool:
    """Whether all labels are 0 or 1: y (1 - y) vanishes there and nowhere else (nor for NaN)."""
    flat = label.flatten()
    one = torch.ones((), dtype=flat.dtype, device=flat.device)
    buffer = torch.empty(min(flat.shape[0], _BLOCK), dtype=flat.dtype, device=flat.device)
    for start in range(0, flat.shape[0], _BLOCK):
        part = flat[start : start + _BLOCK]
        rest = torch.sub(one, part, out=buffer[: part.shape[0]]).mul_(part)
        if float(torch.dot(rest, rest)) != 0.0:
            return False
    return True
