"""Which parameters ARO rotates, and as what matrix (m, n) it sees them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["ORIENTATIONS", "Layout", "layout_of", "orient", "unorient"]

ORIENTATIONS = ("auto", "rows", "columns")


class Layout(NamedTuple):
    """Leading dimensions of a batch, the rotated dimension m, the other n; whether it is turned."""

    lead: tuple[int, ...]
    m: int
    n: int
    turned: bool


def layout_of(group: dict[str, Any], param: Tensor) -> Layout | None:
    """How a group's settings lay a parameter out; None: AdamW."""
    lead = group["batch_dims"]
    if group["algorithm"] == "adamw" or param.dim() < 2 + lead or param.numel() == 0:
        return None
    shape = tuple(param.shape)
    rows = shape[lead]
    columns = param.numel() // rows
    for size in shape[:lead]:
        columns //= size
    asked = group["orientation"]
    turned = rows > columns if asked == "auto" else asked == "columns"
    m, n = (columns, rows) if turned else (rows, columns)
    return Layout(shape[:lead], m, n, turned)


def orient(x: Tensor, layout: Layout) -> Tensor:
    """A tensor of the parameter's shape, as (..., m, n)."""
    lead, m, n, turned = layout
    return x.reshape(*lead, n, m).mT if turned else x.reshape(*lead, m, n)


def unorient(x: Tensor, layout: Layout, shape: torch.Size) -> Tensor:
    """The way back."""
    return (x.mT if layout.turned else x).reshape(shape)
