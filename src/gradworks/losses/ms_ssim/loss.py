"""SSIM and MS-SSIM as loss modules: one minus the value, with an L1 mix and a cached target.

"Learning to Generate Images with Perceptual Similarity Metrics", 6 authors, 2015, arXiv:1511.06409.
The mix with L1 is common practice, not this paper's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradworks.losses.ms_ssim.function import similarity
from gradworks.losses.ms_ssim.inputs import check_mask, check_pair, check_values
from gradworks.losses.ms_ssim.plan import (
    MS_SSIM_WEIGHTS,
    NONNEG,
    ODD,
    REDUCTIONS,
    Plan,
    check_choice,
    check_scales,
    check_settings,
    check_weights,
    plan_ms_ssim,
    plan_ssim,
)
from gradworks.losses.ms_ssim.similarity import reduce_images, warn_dead
from gradworks.losses.ms_ssim.targets import TargetCache

__all__ = ["MSSSIMLoss", "SSIMLoss"]


class _SimilarityLoss(nn.Module, ABC):
    """What both losses do with a plan."""

    def __init__(
        self,
        data_range: float,
        kernel_size: int | Sequence[int],
        sigma: float | Sequence[float],
        k: Sequence[float],
        reduction: str,
        alpha: float,
        cache_target: bool | int,
        validate: bool,
    ) -> None:
        super().__init__()
        check_settings(data_range, kernel_size, sigma, k)
        check_choice("reduction", reduction, REDUCTIONS)
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], the weight of L1, got {alpha!r}")
        self.data_range = data_range
        self.kernel_size = kernel_size
        self.sigma = sigma
        self.k = k
        self.reduction = reduction
        self.alpha = alpha
        self.cache_target = cache_target
        self.validate = validate
        self._targets = TargetCache(cache_target)

    @abstractmethod
    def plan(self, spatial: tuple[int, ...]) -> Plan:
        """Checked settings for images of this size."""

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            input: Images (N, C, *spatial), floating point.
            target: Images of the same shape.
            mask: Weights of positions, (N or 1, C or 1, *spatial).

        Returns:
            Scalar, or (N,) with ``reduction="none"``.

        Raises:
            TypeError: If an image is not floating point, or devices differ.
            ValueError: If shapes, or with ``validate`` values, do not fit.
        """  # noqa: DOC502 (raised by the checks it calls)
        x, y = check_pair(input, target)
        weights = check_mask(mask, x, validate=self.validate)
        plan = self.plan(tuple(x.shape[2:]))
        if self.validate:
            check_values(x, "input", self.data_range)
            check_values(y, "target", self.data_range)
        remembered = self._targets.get(target, y, plan)
        per_channel = similarity(x, y, weights, plan, remembered)
        if self.validate and self.alpha == 0:
            warn_dead(per_channel, plan)
        loss = 1.0 - per_channel
        if self.alpha > 0:
            loss = (1.0 - self.alpha) * loss + self.alpha * self._l1(x, y, weights)
        return reduce_images(loss, self.reduction)

    def _l1(self, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
        """Mean absolute error an image and channel, in units of the data range."""
        with torch.autocast(x.device.type, enabled=False):
            error = (x - y).abs() / self.data_range
            sides = tuple(range(2, x.dim()))
            if mask is None:
                return error.mean(sides)
            total = mask.sum(sides)
            return (error * mask).sum(sides) / torch.where(total > 0, total, 1.0)

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        shown = ("data_range", "kernel_size", "sigma", "reduction", "alpha")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)


class SSIMLoss(_SimilarityLoss):
    r"""One minus :func:`~gradworks.losses.ms_ssim.ssim`, to train on.

    .. math:: (1 - \alpha) (1 - \text{SSIM}) + \alpha \, \frac{|x - y|}{\text{data\_range}}

    Args:
        data_range: Span of the values, 1.0; 255 for bytes.
        kernel_size: Odd window size in pixels, or one a side; 11.
        sigma: The window's standard deviation in pixels, or one a side; 1.5.
        k: The two constants, (0.01, 0.03).
        reduction: "mean", "sum", or "none" for one loss an image.
        nonneg: ``None``, "relu", "shift" or "leaky"; see :func:`~gradworks.losses.ms_ssim.ssim`.
        alpha: Weight of L1 in [0, 1], 0.0 (off).
        cache_target: Keep the filtered moments of the last so many targets (``True`` is 1), for
            training that sees the *same tensor object* in every step. Ours; costs up to four maps.
            Not for targets written through ``.data`` or a NumPy array that shares their memory.
        validate: Check that values are within [0, data_range]; an accelerator has to wait for it.

    Raises:
        ValueError: If a setting is not allowed.

    Example:
        >>> criterion = SSIMLoss(kernel_size=5)
        >>> target = torch.rand(2, 1, 16, 16)
        >>> output = torch.zeros(2, 1, 16, 16, requires_grad=True)
        >>> criterion(output, target).backward()
        >>> output.grad.shape
        torch.Size([2, 1, 16, 16])

    References:
        "Learning to Generate Images with Perceptual Similarity Metrics", 6 authors, 2015,
        arXiv:1511.06409.
    """

    def __init__(
        self,
        *,
        data_range: float = 1.0,
        kernel_size: int | Sequence[int] = 11,
        sigma: float | Sequence[float] = 1.5,
        k: Sequence[float] = (0.01, 0.03),
        reduction: str = "mean",
        nonneg: str | None = None,
        alpha: float = 0.0,
        cache_target: bool | int = False,
        validate: bool = False,
    ) -> None:
        super().__init__(
            data_range, kernel_size, sigma, k, reduction, alpha, cache_target, validate
        )
        check_choice("nonneg", nonneg, (None, *NONNEG))
        self.nonneg = nonneg

    def plan(self, spatial: tuple[int, ...]) -> Plan:
        """Checked settings for images of this size.

        Args:
            spatial: Sides of the images.

        Returns:
            Settings.
        """
        return plan_ssim(
            spatial, self.data_range, self.kernel_size, self.sigma, self.k, self.nonneg
        )


class MSSSIMLoss(_SimilarityLoss):
    r"""One minus :func:`~gradworks.losses.ms_ssim.ms_ssim`, to train on.

    .. math:: (1 - \alpha) (1 - \text{MS-SSIM}) + \alpha \, \frac{|x - y|}{\text{data\_range}}

    With ``nonneg="relu"`` (the published value) an image whose mean ``cs`` is negative at any scale
    has no gradient at all: a badly started network can stand still. Start with ``nonneg="shift"``
    or mix in L1; ``validate=True`` warns when a whole batch is dead.

    Args:
        data_range: Span of the values, 1.0; 255 for bytes.
        kernel_size: Odd window size in pixels, or one a side; 11.
        sigma: The window's standard deviation in pixels, or one a side; 1.5.
        weights: Exponents of the scales, of sum about 1; the five of the 2003 paper.
        scales: ``None`` for all weights, an int, or "auto" for as many as fit.
        k: The two constants, (0.01, 0.03).
        nonneg: "relu", "shift" or "leaky"; see :func:`~gradworks.losses.ms_ssim.ms_ssim`.
        odd: "pad", "crop" or "replicate".
        reduction: "mean", "sum", or "none" for one loss an image.
        alpha: Weight of L1 in [0, 1], 0.0 (off); 0.16 is common.
        cache_target: Keep the filtered moments of the last so many targets (``True`` is 1), for
            training that sees the *same tensor object* in every step. Ours; costs up to four maps.
            Not for targets written through ``.data`` or a NumPy array that shares their memory.
        validate: Check values, and without L1 warn when a whole batch is clamped.

    Raises:
        ValueError: If a setting is not allowed.

    Example:
        >>> criterion = MSSSIMLoss(kernel_size=5, scales=3, alpha=0.16)
        >>> target = torch.rand(2, 1, 32, 32)
        >>> output = (0.5 * target).requires_grad_()
        >>> criterion(output, target).backward()
        >>> output.grad.shape
        torch.Size([2, 1, 32, 32])

    References:
        "Learning to Generate Images with Perceptual Similarity Metrics", 6 authors, 2015,
        arXiv:1511.06409; the mix: "Loss Functions for Image Restoration with Neural Networks",
        4 authors, 2015, arXiv:1511.08861 (with a Gaussian-weighted L1).
    """

    def __init__(
        self,
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
        alpha: float = 0.0,
        cache_target: bool | int = False,
        validate: bool = False,
    ) -> None:
        super().__init__(
            data_range, kernel_size, sigma, k, reduction, alpha, cache_target, validate
        )
        check_choice("nonneg", nonneg, NONNEG)
        check_choice("odd", odd, ODD)
        check_scales(scales, check_weights(weights))
        self.weights = tuple(weights)
        self.scales = scales
        self.nonneg = nonneg
        self.odd = odd

    def plan(self, spatial: tuple[int, ...]) -> Plan:
        """Checked settings for images of this size.

        Args:
            spatial: Sides of the images.

        Returns:
            Settings.
        """
        return plan_ms_ssim(
            spatial,
            self.data_range,
            self.kernel_size,
            self.sigma,
            self.k,
            self.nonneg,
            self.weights,
            self.scales,
            self.odd,
        )

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        return f"{super().extra_repr()}, scales={self.scales!r}, nonneg={self.nonneg!r}"
