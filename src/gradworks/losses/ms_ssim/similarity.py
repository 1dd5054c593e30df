"""SSIM and MS-SSIM as functions of two image batches.

"Learning to Generate Images with Perceptual Similarity Metrics", 6 authors, 2015, arXiv:1511.06409,
trains on them. Definitions: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error
Visibility to Structural Similarity", 2004 (SSIM); Wang, Simoncelli, Bovik, "Multi-scale Structural
Similarity for Image Quality Assessment", 2003 (MS-SSIM). No authors' code was found; values equal
those of piq and, up to its float32 window, of pytorch-msssim.

Ours beside the papers: the modes ``nonneg="shift"`` and ``"leaky"``, fewer scales for small images,
``odd="crop"``, weights of positions (``mask``), one kernel a side, volumes and signals.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from gradworks.losses.ms_ssim.function import similarity
from gradworks.losses.ms_ssim.inputs import check_mask, check_pair, check_values
from gradworks.losses.ms_ssim.plain import contrast_and_similarity
from gradworks.losses.ms_ssim.plan import (
    MS_SSIM_WEIGHTS,
    REDUCTIONS,
    Plan,
    check_choice,
    plan_ms_ssim,
    plan_ssim,
)

__all__ = ["ms_ssim", "reduce_images", "ssim", "ssim_map"]


def reduce_images(per_channel: Tensor, reduction: str) -> Tensor:
    """Mean over channels, then over the batch as ``reduction`` says.

    Args:
        per_channel: (N, C).
        reduction: "mean", "none" or "sum".

    Returns:
        Scalar, or (N,) with "none".
    """
    per_image = per_channel.mean(1)
    if reduction == "none":
        return per_image
    return per_image.sum() if reduction == "sum" else per_image.mean()


def _prepared(
    input: Tensor, target: Tensor, mask: Tensor | None, data_range: float, validate: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Checked images in one dtype, and the mask."""
    x, y = check_pair(input, target)
    found = check_mask(mask, x, validate=validate)
    if validate:
        check_values(x, "input", data_range)
        check_values(y, "target", data_range)
    return x, y, found


@overload
def ssim(
    input: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    kernel_size: int | Sequence[int] = 11,
    sigma: float | Sequence[float] = 1.5,
    k: Sequence[float] = (0.01, 0.03),
    reduction: str = "mean",
    return_cs: Literal[False] = False,
    nonneg: str | None = None,
    mask: Tensor | None = None,
    validate: bool = False,
) -> Tensor: ...


@overload
def ssim(
    input: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    kernel_size: int | Sequence[int] = 11,
    sigma: float | Sequence[float] = 1.5,
    k: Sequence[float] = (0.01, 0.03),
    reduction: str = "mean",
    return_cs: Literal[True],
    nonneg: str | None = None,
    mask: Tensor | None = None,
    validate: bool = False,
) -> tuple[Tensor, Tensor]: ...


def ssim(
    input: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    kernel_size: int | Sequence[int] = 11,
    sigma: float | Sequence[float] = 1.5,
    k: Sequence[float] = (0.01, 0.03),
    reduction: str = "mean",
    return_cs: bool = False,
    nonneg: str | None = None,
    mask: Tensor | None = None,
    validate: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Structural similarity of image pairs: 1 when equal.

    Compares local luminance, contrast and structure in Gaussian windows instead of pixel by pixel.
    ``1 - ssim`` is the loss (:class:`~gradworks.losses.SSIMLoss`). It sees one size of detail;
    :func:`ms_ssim` sees several. Not for pictures compared up to a shift or a change of hue.

    .. math::
        \text{cs} = \frac{2 \sigma_{xy} + C_2}{\sigma_x^2 + \sigma_y^2 + C_2}, \qquad
        \text{SSIM} = \operatorname{mean}
        \frac{2 \mu_x \mu_y + C_1}{\mu_x^2 + \mu_y^2 + C_1} \, \text{cs}

    with local means and (co)variances in the window, at positions where the whole window is inside
    the image, and :math:`C_i = (k_i \cdot \text{data\_range})^2`.

    Args:
        input: Images (N, C, \*spatial), one to three spatial sides: signals, images, volumes.
            Floating point; half types are computed in float32.
        target: Images of the same shape; either may need a gradient.
        data_range: Span R of the values, 1.0; 255 for bytes.
        kernel_size: Odd window size in pixels, or one a side; 11 (2004, Sec. III-B).
        sigma: The window's standard deviation in pixels, or one a side; 1.5 (2004).
        k: The two constants, (0.01, 0.03) (2004).
        reduction: Over images, after the mean over positions and channels: "mean", "sum", or
            "none" for (N,).
        return_cs: Also return the mean of ``cs``.
        nonneg: Per image and channel: ``None`` leaves values below 0, "relu" clamps them (no
            gradient there), "shift" gives (1 + s) / 2, "leaky" clamps at 1e-4 and keeps the slope.
            ``cs`` is never changed.
        mask: Weights of positions, (N or 1, C or 1, \*spatial), not negative: a position of the map
            weighs what the mask says at its window's centre. An image without weight counts as
            equal (1). Ours.
        validate: Check that values are within [0, data_range]; an accelerator has to wait for it.

    Returns:
        Similarity in [-1, 1], scalar or (N,); with ``return_cs`` a pair.

    Raises:
        TypeError: If an image is not floating point, or devices differ.
        ValueError: If shapes or settings do not fit.

    Note:
        Values and gradients are computed in one pass over pieces that fit the cache, by products
        with small banded matrices on CPU; what is kept for the backward pass is one map of the size
        of ``input``. Second derivatives, ``torch.func`` transforms and ``torch.compile`` work.
        Under DDP, averages over equal batches are the average over the joint batch.

    Example:
        >>> x = torch.rand(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
        >>> value = ssim(x, x.detach().flip(-1), reduction="none")
        >>> value.shape
        torch.Size([2])
        >>> (1 - value).sum().backward()
        >>> print(f"{ssim(x, x).item():.4f}")
        1.0000

    References:
        "Image Quality Assessment: From Error Visibility to Structural Similarity", 4 authors, 2004,
        Eqs. 6, 12 and 13.
    """  # noqa: DOC502 (raised by the checks it calls)
    check_choice("reduction", reduction, REDUCTIONS)
    x, y, mask = _prepared(input, target, mask, data_range, validate)
    plan = plan_ssim(tuple(x.shape[2:]), data_range, kernel_size, sigma, k, nonneg)
    value = reduce_images(similarity(x, y, mask, plan), reduction)
    if not return_cs:
        return value
    return value, reduce_images(similarity(x, y, mask, plan.contrast()), reduction)


def ms_ssim(
    input: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    kernel_size: int | Sequence[int] = 11,
    sigma: float | Sequence[float] = 1.5,
    weights: Sequence[float] = MS_SSIM_WEIGHTS,
    scales: int | str | None = None,
    k: Sequence[float] = (0.01, 0.03),
    nonneg: str = "relu",
    odd: str = "pad",
    reduction: str = "mean",
    mask: Tensor | None = None,
    validate: bool = False,
) -> Tensor:
    r"""Structural similarity over several scales: 1 when equal.

    The image is halved M - 1 times. Contrast and structure are compared at every scale, luminance
    at the coarsest one, and the powers of the means are multiplied.

    .. math::
        \text{MS-SSIM} = \operatorname{mean}(\text{SSIM}_M)^{b_M}
        \prod_{j < M} \operatorname{mean}(\text{cs}_j)^{b_j}

    Args:
        input: Images (N, C, \*spatial), one to three spatial sides, floating point; half types are
            computed in float32.
        target: Images of the same shape; either may need a gradient.
        data_range: Span of the values, 1.0; 255 for bytes.
        kernel_size: Odd window size in pixels, or one a side; 11. For sides of 28 to 64 pixels take
            5 or 7 with 2 or 3 scales.
        sigma: The window's standard deviation in pixels, or one a side; 1.5.
        weights: Exponents :math:`b_j`, positive, of sum about 1; the five of the 2003 paper.
        scales: How many weights are used: ``None`` for all, an int for the first so many,
            renormalised to sum 1 (ours), "auto" for as many as fit, said once in a warning.
        k: The two constants, (0.01, 0.03).
        nonneg: A mean of ``cs`` can be negative, where its power is undefined. "relu" takes 0: the
            image's value is 0 and so is its *whole gradient*. "shift" takes (1 + cs) / 2, always
            alive (ours); "leaky" takes max(cs, 1e-4) and keeps the slope below (ours).
        odd: An odd side between scales: "pad" puts a line of zeros in front and counts it, as
            pytorch-msssim does; "crop" drops the last line (ours); "replicate" doubles the first
            line of every side as soon as one is odd, as piq does.
        reduction: Over images, after the mean over channels: "mean", "sum", or "none" for (N,).
        mask: Weights of positions as in :func:`ssim`, halved with the images.
        validate: Check that values are within [0, data_range], and warn where a whole batch is
            clamped; an accelerator has to wait for it.

    Returns:
        Similarity in [0, 1], scalar or (N,).

    Raises:
        TypeError: If an image is not floating point, or devices differ.
        ValueError: If shapes or settings do not fit, or a side is too small for the scales: it must
            be at least ``(kernel_size - 1) * 2 ** (M - 1) + 1``, 161 for the defaults.

    Note:
        Cost about 4/3 of :func:`ssim` a pixel, and the same memory.

    Example:
        >>> x = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> print(f"{ms_ssim(x, x, kernel_size=7, scales=3).item():.4f}")
        1.0000
        >>> 0 < ms_ssim(x, 0.5 * x, kernel_size=7, scales=3) < 1
        tensor(True)

    References:
        "Multi-scale Structural Similarity for Image Quality Assessment", 3 authors, 2003, Eq. 7;
        "Learning to Generate Images with Perceptual Similarity Metrics", 6 authors, 2015,
        arXiv:1511.06409.
    """  # noqa: DOC502 (raised by the checks it calls)
    check_choice("reduction", reduction, REDUCTIONS)
    x, y, mask = _prepared(input, target, mask, data_range, validate)
    plan = plan_ms_ssim(
        tuple(x.shape[2:]), data_range, kernel_size, sigma, k, nonneg, weights, scales, odd
    )
    per_channel = similarity(x, y, mask, plan)
    if validate:
        warn_dead(per_channel, plan)
    return reduce_images(per_channel, reduction)


def ssim_map(
    input: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    kernel_size: int | Sequence[int] = 11,
    sigma: float | Sequence[float] = 1.5,
    k: Sequence[float] = (0.01, 0.03),
    validate: bool = False,
) -> Tensor:
    r"""The similarity of every position, to look at: where two pictures differ.

    Args:
        input: Images (N, C, \*spatial), floating point.
        target: Images of the same shape.
        data_range: Span of the values, 1.0.
        kernel_size: Odd window size, or one a side; 11.
        sigma: The window's standard deviation, or one a side; 1.5.
        k: The two constants, (0.01, 0.03).
        validate: Check that values are within [0, data_range].

    Returns:
        Map (N, C, \*valid), each side shorter by ``kernel_size - 1``; its mean is :func:`ssim`.

    Raises:
        TypeError: If an image is not floating point, or devices differ.
        ValueError: If shapes or settings do not fit.

    Example:
        >>> x = torch.rand(1, 1, 20, 24)
        >>> ssim_map(x, x).shape
        torch.Size([1, 1, 10, 14])

    References:
        "Image Quality Assessment: From Error Visibility to Structural Similarity", 4 authors, 2004,
        Eq. 13.
    """  # noqa: DOC502 (raised by the checks it calls)
    x, y, _ = _prepared(input, target, None, data_range, validate)
    plan = plan_ssim(tuple(x.shape[2:]), data_range, kernel_size, sigma, k, None)
    with torch.autocast(x.device.type, enabled=False):
        field = contrast_and_similarity(x.flatten(0, 1), y.flatten(0, 1), plan)[1]
    return field.view(*x.shape[:2], *field.shape[1:])


def warn_dead(per_channel: Tensor, plan: Plan) -> None:
    """Say so where every value of a batch is clamped: its gradient is zero.

    Args:
        per_channel: Values (N, C).
        plan: Settings.
    """
    if plan.nonneg == "relu" and not bool((per_channel > 0).any()):
        warnings.warn(
            "every image of the batch is clamped at 0 (a scale is anti-correlated), so the whole "
            "gradient is 0 and training cannot start; use nonneg='shift' (or 'leaky'), or mix in "
            "L1 with alpha",
            UserWarning,
            stacklevel=3,
        )
