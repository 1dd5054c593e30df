"""The Gaussian window, and filtering with it at valid positions only.

Two ways to filter. ``correlate`` is a depth-wise convolution a side: it differentiates, compiles,
and on accelerators runs in full float32 (a depth-wise kernel is no matrix product, so reduced
matrix precision does not touch it). ``Bands`` is the fast one on CPU: a side is cut into blocks of
outputs, and a block is the product of its inputs with a small banded matrix. A block of ``b``
outputs needs ``b + kernel - 1`` inputs, so the work a pixel does not grow with the image, and a
matrix product of that shape runs near the peak of the processor, which a convolution of one channel
does not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Bands", "correlate", "gaussian_window"]

# Outputs a block: few, to multiply few zeros, but enough to fill vector registers; measured in
# float32 on one core of an AMD EPYC (AVX-512) at sides of 32 to 256. Along the last side the block
# is the narrow dimension of the product, and wants to be wider unless the kernel is small.
_BLOCK = 16
_LAST_BLOCK = 32
_SMALL_KERNEL = 5


def _gaussian(kernel_size: int, sigma: float) -> list[float]:
    """Normalised in float64, whatever the images are."""
    half = kernel_size // 2
    raw = [math.exp(-(i * i) / (2.0 * sigma * sigma)) for i in range(-half, half + 1)]
    total = math.fsum(raw)
    return [value / total for value in raw]


def gaussian_window(
    kernel_size: int = 11,
    sigma: float = 1.5,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""One-dimensional Gaussian window of sum 1.

    .. math:: w_i \propto e^{-i^2 / (2 \sigma^2)}, \qquad |i| \le (\text{kernel\_size} - 1) / 2

    Args:
        kernel_size: Odd number of taps, 11.
        sigma: Standard deviation in pixels, 1.5.
        dtype: Of the result; ``None`` is the default dtype. The window is normalised in float64.
        device: Of the result.

    Returns:
        Window of shape (kernel_size,).

    Example:
        >>> gaussian_window(3, 1.0, dtype=torch.float64)
        tensor([0.2741, 0.4519, 0.2741], dtype=torch.float64)
    """
    taps = _gaussian(kernel_size, sigma)
    return torch.tensor(taps, dtype=dtype or torch.get_default_dtype(), device=device)


def correlate(maps: Tensor, windows: Sequence[Tensor]) -> Tensor:
    """Filter every side of (batch, maps, *spatial) with its window, valid positions only."""
    sides = len(windows)
    conv = (F.conv1d, F.conv2d, F.conv3d)[sides - 1]
    count = maps.shape[1]
    for side, window in enumerate(windows):
        shape = [1] * sides
        shape[side] = window.numel()
        weight = window.reshape(1, 1, *shape).expand(count, 1, *shape)
        maps = conv(maps, weight, groups=count)
    return maps


@functools.lru_cache(maxsize=64)
def _band(kernel_size: int, sigma: float, outputs: int, dtype: torch.dtype) -> Tensor:
    """(outputs + kernel - 1, outputs): column j holds the window from row j on."""
    taps = gaussian_window(kernel_size, sigma, dtype=dtype)
    band = torch.zeros(outputs + kernel_size - 1, outputs, dtype=dtype)
    for j in range(outputs):
        band[j : j + kernel_size, j] = taps
    return band


class Bands:
    """Filtering of stacked maps on CPU by products with banded matrices.

    The maps of a chunk of images stand side by side in one buffer (``buffer``), laid out so that
    every side but an inner one is a plain matrix product.

    Args:
        kernel: Taps a side.
        sigma: Standard deviation a side.
    """

    def __init__(self, kernel: tuple[int, ...], sigma: tuple[float, ...]) -> None:
        self.kernel = kernel
        self.sigma = sigma

    def buffer(self, count: int, images: int, spatial: Sequence[int], like: Tensor) -> Tensor:
        """Room for ``count`` maps of ``images`` images; ``unstack`` gives the maps."""
        return like.new_empty(*spatial[:-1], images, count, spatial[-1])

    def unstack(self, buffer: Tensor) -> tuple[Tensor, ...]:
        """The maps of a buffer as views (images, *spatial)."""
        return buffer.movedim(-3, 0).unbind(-2)

    def valid(self, buffer: Tensor) -> Tensor:
        """Filtered at valid positions: every side shrinks by its kernel less one."""
        return self._sides(buffer, transposed=False)

    def transposed(self, buffer: Tensor) -> Tensor:
        """The adjoint of ``valid``: every side grows by its kernel less one."""
        return self._sides(buffer, transposed=True)

    def _sides(self, buffer: Tensor, *, transposed: bool) -> Tensor:
        # The last side first: it makes the others smaller.
        last = len(self.kernel) - 1
        for side in (last, *range(last)):
            buffer = self._side(buffer, side, side == last, transposed)
        return buffer

    def _side(self, buffer: Tensor, side: int, rows: bool, transposed: bool) -> Tensor:
        kernel, sigma = self.kernel[side], self.sigma[side]
        dim = buffer.dim() - 1 if rows else side
        length = buffer.shape[dim]
        outputs = length + kernel - 1 if transposed else length - kernel + 1
        step = _LAST_BLOCK if rows and kernel > _SMALL_KERNEL else _BLOCK
        step = min(step, outputs)
        band = _band(kernel, sigma, step, buffer.dtype)
        shape = list(buffer.shape)
        shape[dim] = outputs
        result = buffer.new_empty(shape)
        before = math.prod(shape[:dim])
        if rows:
            source, sink, along = buffer.view(-1, length), result.view(-1, outputs), 1
        elif before == 1:
            source, sink, along = buffer.view(length, -1), result.view(outputs, -1), 0
        else:
            source, sink, along = (
                buffer.view(before, length, -1),
                result.view(before, outputs, -1),
                1,
            )
        across = band.t()
        for start in range(0, outputs, step):
            width = min(step, outputs - start)
            # The window is symmetric, so the adjoint is the same product on inputs further left.
            low = start - (kernel - 1 if transposed else 0)
            first, stop = max(low, 0), min(low + width + kernel - 1, length)
            part = band if rows else across
            if stop - first < band.shape[0]:
                part = band[first - low : stop - low, :width]
                part = part if rows else part.t()
            inputs = source.narrow(along, first, stop - first)
            outs = sink.narrow(along, start, width)
            if rows:
                torch.mm(inputs, part, out=outs)
            elif before == 1:
                torch.mm(part, inputs, out=outs)
            else:
                torch.bmm(part.expand(before, -1, -1), inputs, out=outs)
        return result


class Convolutions:
    """Filtering of stacked maps by depth-wise convolutions: accelerators, and any device.

    Args:
        kernel: Taps a side.
        sigma: Standard deviation a side.
    """

    def __init__(self, kernel: tuple[int, ...], sigma: tuple[float, ...]) -> None:
        self.kernel = kernel
        self.sigma = sigma

    def buffer(self, count: int, images: int, spatial: Sequence[int], like: Tensor) -> Tensor:
        """Room for ``count`` maps of ``images`` images; ``unstack`` gives the maps."""
        return like.new_empty(images, count, *spatial)

    def unstack(self, buffer: Tensor) -> tuple[Tensor, ...]:
        """The maps of a buffer as views (images, *spatial)."""
        return buffer.unbind(1)

    def valid(self, buffer: Tensor) -> Tensor:
        """Filtered at valid positions: every side shrinks by its kernel less one."""
        return correlate(buffer, windows(self.kernel, self.sigma, buffer))

    def transposed(self, buffer: Tensor) -> Tensor:
        """The adjoint of ``valid``: every side grows by its kernel less one."""
        pads = [pad for size in reversed(self.kernel) for pad in (size - 1, size - 1)]
        return self.valid(F.pad(buffer, pads))


def windows(kernel: tuple[int, ...], sigma: tuple[float, ...], like: Tensor) -> list[Tensor]:
    """The window of every side, with dtype and device of ``like``."""
    return [
        gaussian_window(size, width, dtype=like.dtype, device=like.device)
        for size, width in zip(kernel, sigma)
    ]
