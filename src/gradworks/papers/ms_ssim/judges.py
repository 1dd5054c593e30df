"""Judges that nobody trained on, for grey images in [0, 1].

People cannot be asked here. In their place stand four measures of other families than the windows
of SSIM: gradients (GMSD), Haar wavelets (HaarPSI), information (VIF in the pixel domain) and phase
(FSIM, in :mod:`.phase`). Each was published with how well it agrees with people. Signal-to-noise
and the energy of edges stand beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from gradworks.papers.ms_ssim.phase import fsim

__all__ = ["JUDGES", "edge_energy", "gmsd", "haarpsi", "psnr", "vif"]

_TINY = 1e-8  # variances of VIF below this count as none


def _dice(a: Tensor, b: Tensor, constant: float) -> Tensor:
    """Similarity of two magnitudes: 1 where they are equal."""
    return (2 * a * b + constant) / (a.square() + b.square() + constant)


def _halved(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; an odd side is filled up with zeros."""
    height, width = x.shape[-2:]
    return F.avg_pool2d(F.pad(x, (0, width % 2, 0, height % 2)), 2)


def psnr(input: Tensor, target: Tensor) -> Tensor:
    """Return the signal-to-noise ratio of each image in decibels; higher is better.

    Args:
        input: (batch, 1, height, width), values in [0, 1].
        target: As ``input``.
    """
    error = (input - target).square().mean((1, 2, 3)).clamp_min(1e-12)
    return -10 * error.log10()


def edge_energy(input: Tensor, target: Tensor) -> Tensor:
    """Return the energy of the differences of neighbours over that of the target.

    1 is as sharp as the target; a blurred image has less, noise more.

    Args:
        input: (batch, 1, height, width), values in [0, 1].
        target: As ``input``.
    """

    def energy(x: Tensor) -> Tensor:
        across, down = x.diff(dim=3), x.diff(dim=2)
        return across.square().sum((1, 2, 3)) + down.square().sum((1, 2, 3))

    return energy(input) / energy(target).clamp_min(1e-12)


def gmsd(input: Tensor, target: Tensor) -> Tensor:
    """Return the deviation of gradient magnitude similarity of each image; lower is better.

    Xue, Zhang, Mou, Bovik, "Gradient Magnitude Similarity Deviation", 2014, arXiv:1308.3052:
    Prewitt gradients after means of 2 x 2, constant 170 on a scale of 255; the spread of the
    similarity over the image.

    Args:
        input: (batch, 1, height, width), values in [0, 1].
        target: As ``input``.

    Example:
        >>> x = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
        >>> float(gmsd(x, x))
        0.0
    """

    def magnitude(x: Tensor) -> Tensor:
        rows = x.new_tensor([1.0, 1.0, 1.0]).outer(x.new_tensor([1.0, 0.0, -1.0])) / 3
        kernels = torch.stack([rows, rows.T])[:, None]
        return F.conv2d(_halved(x), kernels, padding=1).square().sum(1).sqrt()

    alike = _dice(magnitude(input), magnitude(target), 170 / 255**2)
    return alike.flatten(1).std(1, correction=0)


def _haar(x: Tensor, size: int) -> Tensor:
    """Haar responses down and across at one size, as large as the image."""
    step = x.new_ones(size, size) / size
    step[size // 2 :] *= -1
    kernels = torch.stack([step, step.T])[:, None]
    before, behind = size // 2 - 1, size // 2
    return F.conv2d(F.pad(x, (before, behind, before, behind)), kernels).abs()


def haarpsi(input: Tensor, target: Tensor) -> Tensor:
    """Return the Haar wavelet-based perceptual similarity of each image; 1 for equal ones.

    Reisenhofer, Bosse, Kutyniok, Wiegand, "A Haar Wavelet-Based Perceptual Similarity Index for
    Image Quality Assessment", 2018, arXiv:1607.06140: responses at sizes 2 and 4 are
    compared, those at size 8 weigh the places; C = 30, alpha = 4.2.

    Args:
        input: (batch, 1, height, width), values in [0, 1].
        target: As ``input``.
    """
    constant, alpha = 30.0, 4.2
    a, b = _halved(255 * input), _halved(255 * target)
    weights = torch.maximum(_haar(a, 8), _haar(b, 8))
    alike = sum(_dice(_haar(a, size), _haar(b, size), constant) / 2 for size in (2, 4))
    squashed = torch.sigmoid(alpha * torch.as_tensor(alike))
    total = weights.sum((1, 2, 3))
    mean = (squashed * weights).sum((1, 2, 3)) / total.clamp_min(1e-12)
    # images without any response are equal as far as this can see
    mean = torch.where(total > 0, mean, torch.sigmoid(mean.new_tensor(alpha)))
    return (torch.logit(mean) / alpha).square()


def vif(input: Tensor, target: Tensor) -> Tensor:
    """Return the visual information fidelity of each image, in the pixel domain; higher is better.

    Sheikh, Bovik, "Image Information and Visual Quality", 2006: what the image tells about the
    scene over what the target tells, through a channel of noise of variance 2; Gaussian windows of
    17, 9, 5 and 3 at four scales.

    Args:
        input: (batch, 1, height, width), values in [0, 1], sides of 41 or more.
        target: As ``input``.

    Raises:
        ValueError: If a side is too small for four scales.
    """
    if min(input.shape[-2:]) < 41:
        raise ValueError(f"input must have sides of at least 41, got {tuple(input.shape)}")
    noise = 2.0
    x, y = 255 * input.double(), 255 * target.double()
    told = known = torch.zeros((), dtype=torch.float64, device=x.device)
    for scale in range(4):
        size = 2 ** (4 - scale) + 1
        if scale:
            x, y = _smoothed(x, size)[..., ::2, ::2], _smoothed(y, size)[..., ::2, ::2]
        means = [_smoothed(z, size) for z in (x, y, x * x, y * y, x * y)]
        var_x = (means[2] - means[0].square()).clamp_min(0)
        var_y = (means[3] - means[1].square()).clamp_min(0)
        both = means[4] - means[0] * means[1]
        seen = (var_x >= _TINY) & (var_y >= _TINY)
        gain = torch.where(seen, both / var_y.clamp_min(_TINY), 0.0)
        rest = torch.where(seen & (gain >= 0), var_x - gain * both, var_x).clamp_min(_TINY)
        kept = torch.where(var_y >= _TINY, var_y, 0.0)
        told = told + torch.log1p(gain.clamp_min(0).square() * kept / (rest + noise)).sum((1, 2, 3))
        known = known + torch.log1p(kept / noise).sum((1, 2, 3))
    flat = math.log(10) * _TINY  # a target that tells nothing is told wholly
    return ((told + flat) / (known + flat)).to(input.dtype)


def _smoothed(x: Tensor, size: int) -> Tensor:
    """Means in a Gaussian window whose deviation is a fifth of its side; whole windows only."""
    place = torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2
    line = torch.exp(-place.square() / (2 * (size / 5) ** 2))
    line = line / line.sum()
    return F.conv2d(F.conv2d(x, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))


# Those that count, and which way is better; chosen before the first run that counts.
JUDGES: Mapping[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "gmsd": (gmsd, "lower"),
    "haarpsi": (haarpsi, "higher"),
    "vif": (vif, "higher"),
    "fsim": (fsim, "higher"),
}
