"""The arithmetic of 16-bit parameters is done in float32, whatever the state is kept in."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["in_work_dtype", "work_dtype"]


def work_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of all arithmetic: a sum of squares does not fit into 16 bits."""
    return torch.float32 if dtype in {torch.float16, torch.bfloat16} else dtype


def in_work_dtype(tensors: list[Tensor]) -> list[Tensor]:
    """The list itself, or copies in float32 of 16-bit tensors."""
    if all(x.dtype == work_dtype(x.dtype) for x in tensors):
        return tensors
    return [x.to(work_dtype(x.dtype)) for x in tensors]
