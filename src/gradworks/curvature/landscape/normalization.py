"""Directions scaled against the weights, so that a unit step means the same in every layer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from gradworks.curvature.landscape.directions import Direction
from gradworks.curvature.operators.model import check_choice
from gradworks.curvature.operators.twice import unwrapped

__all__ = ["NormalizedDirection", "Rule", "normalize_direction"]

Rule = Literal["filter", "layer", "model", "weight"]
RULES = ("filter", "layer", "model", "weight")
_LOG = logging.getLogger("gradworks.curvature")
# Norms in float32 that are outside have squares that under- or overflow.
_SAFE = (1e-15, 1e15)


class NormalizedDirection(dict[str, Tensor]):
    """A direction with the number of its blocks that came out as zero.

    Attributes:
        zero_blocks: By parameter name: blocks that do not move, because the direction or the
            weights are zero there. Fresh biases are such blocks.
    """

    zero_blocks: Mapping[str, int]

    def __init__(self, tensors: Mapping[str, Tensor], zero_blocks: Mapping[str, int]) -> None:
        super().__init__(tensors)
        self.zero_blocks = zero_blocks


def _wide(t: Tensor) -> Tensor:
    """Half precision as float32: it overflows at 65,504."""
    return t if t.dtype == torch.float64 else t.float()


def _size(rows: Tensor, order: int) -> Tensor:
    """Norm of each row, accumulated wide; in float64 where squares leave float32."""
    wide = _wide(rows)
    norms: Tensor = torch.linalg.vector_norm(wide, order, dim=-1)
    safe = (norms > _SAFE[0]) & (norms < _SAFE[1])
    if wide.dtype == torch.float64 or bool(safe.all()):
        return norms
    return norms.double().where(safe, torch.linalg.vector_norm(wide.double(), order, dim=-1))


def _scaled(rows: Tensor, factor: Tensor) -> Tensor:
    """Rows times factors, multiplied wide: a factor may be too large for the rows' type."""
    wide = _wide(rows)
    return (wide * factor.to(wide)).to(rows.dtype)


def _factor(weights: Tensor, direction: Tensor) -> Tensor:
    """``|w| / |d|``, zero where the direction has no length."""
    return torch.where(direction > 0, weights / direction.where(direction > 0, 1.0), 0.0)


def check_same(direction: Direction, reference: Direction) -> None:
    """The same names with the same shapes."""
    if set(direction) != set(reference):
        missing = [n for n in reference if n not in direction]
        extra = [n for n in direction if n not in reference]
        raise ValueError(
            "direction must have the reference's names"
            + (f"; missing {missing[:3]}" if missing else "")
            + (f"; unknown {extra[:3]}" if extra else "")
        )
    for name, d in direction.items():
        if d.shape != reference[name].shape:
            raise ValueError(
                f"direction[{name!r}] must have shape {tuple(reference[name].shape)}, "
                f"got {tuple(d.shape)}"
            )


def normalize_direction(
    direction: Direction,
    reference: Direction | nn.Module,
    rule: Rule | None = "filter",
    *,
    order: Literal[1, 2] = 2,
    one_dimensional: Literal["tensor", "zero", "weight"] = "tensor",
) -> NormalizedDirection:
    r"""Scale a direction against the weights.

    .. math:: d_b \leftarrow d_b \, \frac{\|w_b\|_p}{\|d_b\|_p}

    for every block b: a filter (first index of a tensor of two or more dimensions), a layer
    (tensor), or the whole model. The rule ``"weight"`` multiplies entry by entry.

    Args:
        direction: By parameter name.
        reference: The weights by the same names, or the model itself.
        rule: ``"filter"``, ``"layer"``, ``"model"``, ``"weight"``, or ``None`` for none.
        order: p, 1 or 2.
        one_dimensional: What becomes of biases and normalisation layers: ``"tensor"`` makes each
            one block (the authors' code), ``"zero"`` leaves them out (Li et al. 2018),
            ``"weight"`` multiplies them by the weights.

    Returns:
        New tensors by name; ``zero_blocks`` says which blocks do not move.

    Raises:
        ValueError: An unknown rule or choice, ``order`` not 1 or 2, or names or shapes that differ
            from the reference.

    Note:
        A block with a zero direction stays zero, one with zero weights becomes zero. The norms of
        order 1 are sums of magnitudes; the authors' code sums the signed entries. Under
        ``"model"`` one factor holds for all tensors; there it changes from tensor to tensor.

    Example:
        >>> import torch
        >>> from gradworks.curvature.landscape import normalize_direction
        >>> direction = {"w": torch.tensor([[3.0, 4.0], [0.0, 0.0]])}
        >>> weights = {"w": torch.tensor([[6.0, 8.0], [1.0, 1.0]])}
        >>> scaled = normalize_direction(direction, weights, "filter")
        >>> scaled["w"].tolist(), dict(scaled.zero_blocks)
        ([[6.0, 8.0], [0.0, 0.0]], {'w': 1})

    References:
        Li, Xu, Taylor, Studer, Goldstein, "Visualizing the Loss Landscape of Neural Nets", 2018,
        arXiv:1712.09913 (filters).
    """
    if isinstance(reference, nn.Module):
        own = unwrapped(reference).named_parameters()
        reference = {n: p for n, p in own if n in direction}
    if rule is not None:
        check_choice("rule", rule, RULES)
    if isinstance(order, bool) or order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order!r}")
    check_choice("one_dimensional", one_dimensional, ("tensor", "zero", "weight"))
    check_same(direction, reference)
    made: dict[str, Tensor] = {}
    with torch.no_grad():
        apart = {n for n, d in direction.items() if d.dim() < 2 and one_dimensional != "tensor"}
        blocks = {n: d for n, d in direction.items() if n not in apart}
        whole = _whole_factor(blocks, reference, order) if rule == "model" and blocks else None
        for name, d in direction.items():
            w = reference[name].detach().to(d)
            if name in apart:
                made[name] = torch.zeros_like(d) if one_dimensional == "zero" else d * w
            elif rule is None:
                made[name] = d.clone()
            elif rule == "weight":
                made[name] = d * w
            elif whole is not None:
                made[name] = _scaled(d, whole)
            else:
                split = rule == "filter" and d.dim() >= 2
                rows = d.flatten(1) if split else d.reshape(1, -1)
                factor = _factor(_size(w.reshape(rows.shape), order), _size(rows, order))
                made[name] = _scaled(rows, factor[:, None]).reshape(d.shape)
        zeros = _zero_blocks(made, rule)
    if zeros:
        _LOG.debug("zero blocks of a normalised direction: %s", zeros)
    return NormalizedDirection(made, zeros)


def _whole_factor(direction: Direction, reference: Direction, order: int) -> Tensor:
    """One factor for the whole model."""

    def size(tensors: Direction) -> Tensor:
        each = [_size(tensors[n].detach().reshape(1, -1), order).double() for n in direction]
        joined = torch.cat([t.to(each[0].device) for t in each])
        return _size(joined[None], order)[0]

    return _factor(size(reference), size(direction))


def _zero_blocks(tensors: Mapping[str, Tensor], rule: str | None) -> dict[str, int]:
    """How many blocks of each tensor do not move; tensors where all move are left out."""
    counts = {
        name: ((t.flatten(1) if rule == "filter" and t.dim() >= 2 else t.reshape(1, -1)) == 0)
        .all(-1)
        .sum()
        for name, t in tensors.items()
    }
    return {name: int(count) for name, count in counts.items() if int(count)}
