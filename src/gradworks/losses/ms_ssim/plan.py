"""What is computed: the checked settings of one call, and the scales that an image allows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

__all__ = [
    "MS_SSIM_WEIGHTS",
    "NONNEG",
    "ODD",
    "REDUCTIONS",
    "Plan",
    "check_choice",
    "check_scales",
    "check_settings",
    "check_weights",
    "plan_ms_ssim",
    "plan_ssim",
]

# Wang, Simoncelli, Bovik, "Multi-scale structural similarity", 2003, Sec. 3.2.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
NONNEG = ("relu", "shift", "leaky")
ODD = ("pad", "crop", "replicate")
REDUCTIONS = ("mean", "none", "sum")
# The published weights sum to 1.0001.
_SUM_TOLERANCE = 0.01
# What "auto" has said already.
_SAID: set[tuple[Any, ...]] = set()

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings of one computation, checked against one image size.

    Args:
        kernel: Taps a side.
        sigma: Standard deviation a side.
        c1: Luminance constant.
        c2: Contrast constant.
        weights: Exponent a scale; one scale of exponent 1 is SSIM.
        nonneg: What happens to a factor at or below 0; ``None`` leaves it.
        odd: What happens to an odd side between scales.
        luminance: Whether the last scale compares luminance too.
    """

    kernel: tuple[int, ...]
    sigma: tuple[float, ...]
    c1: float
    c2: float
    weights: tuple[float, ...] = (1.0,)
    nonneg: str | None = None
    odd: str = "pad"
    luminance: bool = True

    def contrast(self) -> Plan:
        """The same without luminance and clamp: the mean of ``cs``."""
        return replace(self, luminance=False, nonneg=None)


def _positive(value: object) -> bool:
    """A number above 0 and finite."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 < float(value) < math.inf  # type: ignore[arg-type]


def _sides(name: str, value: Number | Sequence[Number], count: int) -> tuple[Number, ...]:
    """One number for all sides, or one a side."""
    if isinstance(value, (int, float)):
        return (value,) * count
    found = tuple(value)
    if len(found) != count:
        raise ValueError(
            f"{name} must be a number or one number for each of the {count} spatial sides, "
            f"got {found}"
        )
    return found


def check_choice(name: str, value: object, allowed: Sequence[str | None]) -> None:
    """One of a few words."""
    if value not in allowed:
        words = ", ".join(repr(word) for word in allowed)
        raise ValueError(f"{name} must be one of {words}, got {value!r}")


def check_settings(
    data_range: float, kernel_size: object, sigma: object, k: object
) -> tuple[float, float]:
    """Check what does not depend on the image; return the two constants."""
    if not _positive(data_range):
        raise ValueError(
            f"data_range must be a positive number, got {data_range!r}; it is the span of the "
            "values, 1.0 for images in [0, 1] and 255 for bytes"
        )
    for size in kernel_size if isinstance(kernel_size, Sequence) else (kernel_size,):
        if not isinstance(size, int) or isinstance(size, bool) or size < 1 or size % 2 == 0:
            raise ValueError(f"kernel_size must be a positive odd int (or several), got {size!r}")
    for width in sigma if isinstance(sigma, Sequence) else (sigma,):
        if not _positive(width):
            raise ValueError(f"sigma must be a positive number of pixels, got {width!r}")
    if not isinstance(k, Sequence) or len(k) != 2 or not all(_positive(v) for v in k):
        raise ValueError(f"k must be two positive numbers such as (0.01, 0.03), got {k!r}")
    return (float(k[0]) * data_range) ** 2, (float(k[1]) * data_range) ** 2


def check_weights(weights: Sequence[float]) -> tuple[float, ...]:
    """Positive exponents that sum to about 1."""
    found = tuple(weights)
    if not found or not all(_positive(w) for w in found):
        raise ValueError(f"weights must be positive numbers, one a scale, got {found}")
    total = math.fsum(found)
    if abs(total - 1.0) > _SUM_TOLERANCE:
        raise ValueError(f"weights must sum to about 1, got {found} with sum {total:.4g}")
    return tuple(float(w) for w in found)


def check_scales(scales: object, weights: Sequence[float]) -> None:
    """``None``, "auto", or how many of the weights are used."""
    if scales is None or scales == "auto":
        return
    if isinstance(scales, bool) or not isinstance(scales, int) or not 1 <= scales <= len(weights):
        raise ValueError(
            f"scales must be None, 'auto' or an int from 1 to the {len(weights)} weights, "
            f"got {scales!r}"
        )


def _needed(kernel: int, scales: int, odd: str) -> int:
    """The smallest side: an odd side is rounded up between scales, or down with ``"crop"``."""
    halvings = 1 << (scales - 1)
    return kernel * halvings if odd == "crop" else (kernel - 1) * halvings + 1


def _fit(spatial: tuple[int, ...], kernel: tuple[int, ...], odd: str) -> int:
    """How many scales every side allows."""
    count = 0
    while all(s >= _needed(size, count + 1, odd) for s, size in zip(spatial, kernel)):
        count += 1
        if all(size == 1 for size in kernel) and count > 62:
            break
    return count


def _warn_cut(fit: int, wanted: int, spatial: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    """Once for each combination."""
    if torch.compiler.is_compiling() or (fit, wanted, spatial, kernel) in _SAID:
        return
    _SAID.add((fit, wanted, spatial, kernel))
    warnings.warn(
        f"images of {spatial} hold {fit} of {wanted} scales with kernel_size={kernel}: the first "
        f"{fit} weights are used, renormalised to sum 1. Pass scales={fit} to say so yourself",
        UserWarning,
        stacklevel=4,
    )


def plan_ssim(
    spatial: tuple[int, ...],
    data_range: float,
    kernel_size: int | Sequence[int],
    sigma: float | Sequence[float],
    k: Sequence[float],
    nonneg: str | None,
) -> Plan:
    """The plan of one scale."""
    c1, c2 = check_settings(data_range, kernel_size, sigma, k)
    check_choice("nonneg", nonneg, (None, *NONNEG))
    kernel = _sides("kernel_size", kernel_size, len(spatial))
    if any(size > s for size, s in zip(kernel, spatial)):
        largest = min(spatial) - (min(spatial) + 1) % 2
        raise ValueError(
            f"kernel_size {kernel} is larger than the images of {spatial}: no window fits; "
            f"kernel_size={largest} is the largest that does"
        )
    return Plan(kernel, _sides("sigma", sigma, len(spatial)), c1, c2, nonneg=nonneg)


def plan_ms_ssim(
    spatial: tuple[int, ...],
    data_range: float,
    kernel_size: int | Sequence[int],
    sigma: float | Sequence[float],
    k: Sequence[float],
    nonneg: str,
    weights: Sequence[float],
    scales: int | str | None,
    odd: str,
) -> Plan:
    """The plan of several scales: as many as asked for, or as many as fit."""
    first = plan_ssim(spatial, data_range, kernel_size, sigma, k, None)
    check_choice("nonneg", nonneg, NONNEG)
    check_choice("odd", odd, ODD)
    exponents = check_weights(weights)
    check_scales(scales, exponents)
    fit = _fit(spatial, first.kernel, odd)
    wanted = scales if isinstance(scales, int) else len(exponents)
    if fit < wanted:
        if scales != "auto":
            raise ValueError(_too_small(spatial, first.kernel, wanted, fit, odd))
        if fit < 1:  # "crop" with a side just as long as the kernel still holds one scale
            raise ValueError(_too_small(spatial, first.kernel, 1, fit, odd))
        _warn_cut(fit, wanted, spatial, first.kernel)
        wanted = fit
    if wanted < len(exponents):
        total = math.fsum(exponents[:wanted])
        exponents = tuple(w / total for w in exponents[:wanted])
    return Plan(first.kernel, first.sigma, first.c1, first.c2, exponents, nonneg, odd)


def _too_small(
    spatial: tuple[int, ...], kernel: tuple[int, ...], wanted: int, fit: int, odd: str
) -> str:
    """What does not fit, and the three ways out."""
    needed = tuple(_needed(size, wanted, odd) for size in kernel)
    largest = max(
        (size for size in range(1, min(spatial) + 1, 2) if _fit(spatial, (size,), odd) >= wanted),
        default=1,
    )
    advice = f"; {wanted} scales need kernel_size <= {largest}" if largest > 1 else ""
    return (
        f"images of {spatial} are too small for {wanted} scales with kernel_size={kernel}: sides "
        f"of at least {needed} are needed. Pass scales={fit}, the most that fit{advice}, or "
        "scales='auto'"
    )
