"""FSIM: images are alike where their phases agree and their gradients are as steep.

Zhang, Zhang, Mou, Zhang, "FSIM: A Feature Similarity Index for Image Quality Assessment", 2011, for
grey images; phase congruency after Kovesi, "Image Features from Phase Congruency", 1999, with
log-Gabor filters of four wavelengths (6, 12, 24, 48) in four directions.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["fsim"]

_WAVELENGTHS = (6.0, 12.0, 24.0, 48.0)
_DIRECTIONS = 4
_BANDWIDTH = 0.55  # deviation of a filter over its centre frequency
_SPREAD = math.pi / (_DIRECTIONS * 1.2)
_CUTOFF, _ORDER = 0.45, 15  # of the low-pass filter that keeps corners of the spectrum out
_NOISE_LEVELS = 2.0  # deviations above the mean energy of noise
_OVERESTIMATED = 1.7  # by which that level is too high for this measure (Kovesi)
_T1, _T2 = 0.85, 160.0


@functools.lru_cache(maxsize=8)
def _filters(height: int, width: int) -> Tensor:
    """Transfer functions, (directions, wavelengths, height, width), zero frequency first."""
    v, u = (
        torch.fft.ifftshift((torch.arange(n, dtype=torch.float64) - n // 2) / (n - n % 2))
        for n in (height, width)
    )
    # the published code turns the plane: rows are its first axis
    first, second = torch.meshgrid(v, u, indexing="ij")
    radius = torch.hypot(first, second)
    low_pass = 1 / (1 + (radius / _CUTOFF) ** (2 * _ORDER))
    radius[0, 0] = 1
    angle = torch.atan2(-second, first)
    waves = []
    for length in _WAVELENGTHS:
        band = torch.exp(-((radius * length).log() ** 2) / (2 * math.log(_BANDWIDTH) ** 2))
        band = band * low_pass
        band[0, 0] = 0
        waves.append(band)
    sides = []
    for k in range(_DIRECTIONS):
        apart = angle - k * math.pi / _DIRECTIONS
        apart = torch.atan2(apart.sin(), apart.cos())
        sides.append(torch.exp(-(apart**2) / (2 * _SPREAD**2)))
    return torch.stack(sides)[:, None] * torch.stack(waves)[None]


def _congruency(x: Tensor) -> Tensor:
    """Phase congruency, (batch, height, width)."""
    height, width = x.shape[-2:]
    filters = _filters(height, width).to(x)
    answer = torch.fft.ifft2(torch.fft.fft2(x)[:, :, None] * filters)
    size = answer.abs()
    whole = answer.sum(2, keepdim=True)
    mean = whole / whole.abs().clamp_min(torch.finfo(x.dtype).tiny)
    turned = answer * mean.conj()  # real part along the mean phase, imaginary part across
    energy = (turned.real - turned.imag.abs()).sum(2)
    # noise: from the median energy of the shortest waves, were all of it noise
    shortest = size[:, :, 0].square().flatten(2).median(2).values
    power = shortest / math.log(2) / filters[:, 0].square().sum((1, 2))
    shapes = torch.fft.ifft2(filters).real * math.sqrt(height * width)
    # 2 sum a_i^2 + 4 sum_{i<j} a_i a_j = 2 (sum a_i)^2
    tau = (power * shapes.sum(1).square().sum((1, 2))).sqrt()
    level = tau * (math.sqrt(math.pi / 2) + _NOISE_LEVELS * math.sqrt(2 - math.pi / 2))
    kept = (energy - level[..., None, None] / _OVERESTIMATED).clamp_min(0)
    found: Tensor = kept.sum(1) / size.sum((1, 2)).clamp_min(torch.finfo(x.dtype).tiny)
    return found


def _steepness(x: Tensor) -> Tensor:
    """Magnitude of Scharr gradients, (batch, height, width)."""
    rows = x.new_tensor([3.0, 10.0, 3.0]).outer(x.new_tensor([1.0, 0.0, -1.0])) / 16
    return F.conv2d(x, torch.stack([rows, rows.T])[:, None], padding=1).square().sum(1).sqrt()


def fsim(input: Tensor, target: Tensor) -> Tensor:
    """Return the feature similarity of each image; 1 for equal ones.

    Args:
        input: (batch, 1, height, width), values in [0, 1].
        target: As ``input``.

    Example:
        >>> x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> float(fsim(x, x))
        1.0
    """
    factor = max(1, round(min(input.shape[-2:]) / 256))
    x, y = (F.avg_pool2d(255 * z, factor) for z in (input, target))
    pc_x, pc_y = _congruency(x), _congruency(y)
    g_x, g_y = _steepness(x), _steepness(y)
    alike = (2 * pc_x * pc_y + _T1) / (pc_x.square() + pc_y.square() + _T1)
    alike = alike * (2 * g_x * g_y + _T2) / (g_x.square() + g_y.square() + _T2)
    weight = torch.maximum(pc_x, pc_y)
    total = weight.sum((1, 2))
    found = (alike * weight).sum((1, 2)) / total.clamp_min(1e-12)
    # where nothing has phase, steepness alone decides
    return torch.as_tensor(torch.where(total > 0, found, alike.mean((1, 2))))
