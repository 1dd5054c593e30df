"""The cosine transform by one real FFT of the same length (Makhoul, 1980).

Of the FFT's n/2 + 1 numbers, turned by a quarter of their angle, the real parts are the first half
of the transform and the imaginary parts the second. No complex FFT, no mirrored copy.
"""

from __future__ import annotations

import math
from weakref import WeakValueDictionary

import torch
from torch import Tensor

__all__ = ["fft_dct2", "fft_dct3", "turns"]

_TURNS: WeakValueDictionary[str, Tensor] = WeakValueDictionary()


def turns(n: int, basis: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Factors of the frequencies up to n/2: a quarter turn and the scale of an orthogonal basis.

    Shared by all who ask while one of them keeps the result.
    """
    key = f"{basis}/{n}/{dtype}/{device}"
    found = _TURNS.get(key)
    if found is None:
        kind = torch.complex128 if dtype == torch.float64 else torch.complex64
        with torch.inference_mode(False):  # autograd may need them later
            k = torch.arange(n // 2 + 1, dtype=torch.float64, device="cpu")
            scale = torch.full_like(k, math.sqrt(2 / n))
            scale[0] = math.sqrt(1 / n)
            angle = k * (math.pi / (2 * n))
            wide = torch.polar(scale, -angle) if basis == "dct2" else torch.polar(1 / scale, angle)
            found = wide.to(device=device, dtype=kind)
        _TURNS[key] = found
    return found


def fft_dct2(x: Tensor, turn: Tensor) -> Tensor:
    """DCT-II along the last dimension: ``x @ D.T``, D the matrix of basis "dct3"."""
    n = x.shape[-1]
    folded = torch.cat((x[..., ::2], x[..., 1::2].flip(-1)), dim=-1)  # x0 x2 x4 ... x5 x3 x1
    spun = torch.fft.rfft(folded) * turn
    second = spun.imag[..., 1 : n - n // 2].flip(-1)
    return torch.cat((spun.real, second.neg()), dim=-1)


def fft_dct3(x: Tensor, turn: Tensor) -> Tensor:
    """DCT-III, the inverse: ``x @ D``."""
    n = x.shape[-1]
    # to each frequency k the one at n - k, to 0 none
    mirrored = torch.cat((torch.zeros_like(x[..., :1]), x[..., n - n // 2 :].flip(-1)), dim=-1)
    spectrum = torch.complex(x[..., : n // 2 + 1], mirrored.neg()) * turn
    folded = torch.fft.irfft(spectrum, n=n)
    out = torch.empty_like(folded)
    out[..., ::2] = folded[..., : (n + 1) // 2]
    out[..., 1::2] = folded[..., (n + 1) // 2 :].flip(-1)
    return out
