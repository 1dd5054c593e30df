"""The checks at the door: types, shapes, devices, and on demand values."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_mask", "check_pair", "check_values"]


def check_pair(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Two floating-point image batches of one shape; half types come back as float32.

    Args:
        input: Images.
        target: Images.

    Returns:
        Both in their common dtype, float32 at least.

    Raises:
        TypeError: If one is no floating-point tensor, or devices differ.
        ValueError: If shapes differ, or the number of dimensions is not 3 to 5.
    """
    for name, image in (("input", input), ("target", target)):
        if not isinstance(image, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(image).__name__}")
        if not image.is_floating_point():
            raise TypeError(
                f"{name} must be floating point, got {image.dtype}; convert it with "
                "`.float()` and pass data_range=255 for bytes"
            )
    if input.shape != target.shape:
        raise ValueError(
            f"input and target must have one shape, got {tuple(input.shape)} and "
            f"{tuple(target.shape)}"
        )
    if input.device != target.device:
        raise TypeError(
            f"input and target must be on one device, got {input.device} and {target.device}"
        )
    if not 3 <= input.dim() <= 5:
        raise ValueError(
            f"input must be (N, C, *spatial) with 1 to 3 spatial sides, got {tuple(input.shape)}; "
            "a single image needs a batch and a channel dimension in front: image[None, None]"
        )
    if input.numel() == 0:
        raise ValueError(f"input must not be empty, got {tuple(input.shape)}")
    dtype = torch.promote_types(input.dtype, target.dtype)
    if dtype.itemsize < 4:
        dtype = torch.float32
    return input.to(dtype), target.to(dtype)


def check_mask(mask: Tensor | None, image: Tensor, *, validate: bool) -> Tensor | None:
    """A mask in the images' dtype, without gradient.

    Args:
        mask: Weights of pixels, broadcastable to the images in batch and channels.
        image: The images, (N, C, *spatial).
        validate: Check values too.

    Returns:
        The mask, or ``None``.

    Raises:
        TypeError: If it is no tensor, or on another device.
        ValueError: If its shape does not fit, or with ``validate`` a value is negative or not
            finite.
    """
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a tensor, got {type(mask).__name__}")
    fits = mask.dim() == image.dim() and mask.shape[2:] == image.shape[2:]
    if not fits or any(m not in {1, s} for m, s in zip(mask.shape[:2], image.shape[:2])):
        raise ValueError(
            f"mask must be (N or 1, C or 1, *spatial) of the images' {tuple(image.shape)}, got "
            f"{tuple(mask.shape)}"
        )
    if mask.device != image.device:
        raise TypeError(f"mask must be on the images' {image.device}, got {mask.device}")
    found = mask.detach().to(image.dtype)
    if validate and not bool(((found >= 0) & found.isfinite()).all()):
        raise ValueError("mask must hold finite weights >= 0, got others")
    return found


def check_values(image: Tensor, name: str, data_range: float) -> None:
    """Values inside [0, data_range].

    Args:
        image: Images.
        name: What they are called.
        data_range: Largest value.

    Raises:
        ValueError: If a value is not finite or outside.
    """
    low, high = (float(v) for v in torch.aminmax(image.detach()))
    if not (low >= 0.0 and high <= data_range):
        raise ValueError(
            f"{name} must be within [0, data_range] = [0, {data_range:g}], got values from "
            f"{low:.4g} to {high:.4g}; rescale it or pass the data_range it has"
        )
