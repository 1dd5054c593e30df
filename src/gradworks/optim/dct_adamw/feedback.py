"""What a step left out, kept in 8 or 4 bits: one smallest and largest value a row.

The released code divides by 15 where 8 bits have 255 steps, and unpacks 4 bits in another order
than it packs them; here both are as they are meant.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BITS", "dequantize", "error_dtype", "packed_length", "quantize"]

BITS = {"int8": 8, "int4": 4}


def error_dtype(dtype: torch.dtype) -> torch.dtype:
    """Of an uncompressed error: the parameter's, but bfloat16 where float16 could overflow."""
    return torch.bfloat16 if dtype == torch.float16 else dtype


def packed_length(n: int, kind: str) -> int:
    """Bytes of a row of n numbers."""
    return n if kind == "int8" else (n + 1) // 2


def quantize(x: Tensor, kind: str, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bytes, smallest and largest value of each row; rows run along ``dim``, -1 or -2.

    4-bit neighbours share a byte, the first in its high half; an odd row ends in an empty half.
    """
    levels = 2 ** BITS[kind] - 1
    low, high = x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)
    unit = (high - low) / levels
    flat = unit == 0
    q = ((x - low) / unit.masked_fill(flat, 1.0) + 0.5).floor_().clamp_(0, levels)
    q = q.masked_fill_(flat, 0.0).to(torch.uint8)
    if kind == "int4":
        if q.shape[dim] % 2:
            padding = (0, 1) if dim == -1 else (0, 0, 0, 1)
            q = torch.nn.functional.pad(q, padding)
        pairs = q.unflatten(dim, (-1, 2))
        first, second = pairs.unbind(dim)
        q = first * 16 + second
    return q, low, high


def dequantize(q: Tensor, low: Tensor, high: Tensor, kind: str, n: int, dim: int) -> Tensor:
    """Values within half a step of those quantized; ``n`` is the length of a row."""
    levels = 2 ** BITS[kind] - 1
    if kind == "int4":
        pairs = torch.stack((q // 16, q % 16), dim)
        q = pairs.flatten(dim - 1, dim).narrow(dim, 0, n)
    unit = (high - low) / levels
    values: Tensor = q.to(low.dtype) * unit + low
    return values
