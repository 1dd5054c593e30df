"""A variational autoencoder whose likelihood is any reconstruction loss.

"Learning to Generate Images with Perceptual Similarity Metrics", 6 authors, 2015, arXiv:1511.06409:
in the bound of a VAE the Gaussian log-likelihood, a squared error, gives way to the expected loss
of the decoded image under the encoder's distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradworks.losses.ms_ssim.loss import MSSSIMLoss

__all__ = ["ExpectedLossVAE", "VAEOutput"]


class VAEOutput(NamedTuple):
    """What one pass gives.

    Attributes:
        loss: ``kl + loss_weight * reconstruction_loss``, to call ``backward`` on.
        reconstruction_loss: Mean loss over samples and images.
        kl: Mean divergence of the code from the standard normal, in nats an image.
        reconstruction: Decoded samples, (samples * N, C, *spatial), sample after sample.
        mean: Means of the codes, (N, ...).
        log_variance: Their log variances, (N, ...).
    """

    loss: Tensor
    reconstruction_loss: Tensor
    kl: Tensor
    reconstruction: Tensor
    mean: Tensor
    log_variance: Tensor


class ExpectedLossVAE(nn.Module):
    r"""Variational autoencoder over any reconstruction loss.

    .. math::
        \text{KL}\big(q(z \mid x) \,\|\, \mathcal N(0, I)\big)
        + \lambda \, \mathbb E_{q(z \mid x)} \, \Delta(\text{decoder}(z), x)

    with :math:`q` a diagonal Gaussian, :math:`\Delta` the ``loss`` and :math:`\lambda` its weight.
    No likelihood stands behind a loss such as 1 - MS-SSIM, so the value is a training objective and
    no bound on the evidence; the squared error with its weight gives the usual VAE back.

    Args:
        encoder: Module from images to the code's mean and log variance: a pair of tensors, or one
            of twice the features, halved along dimension 1.
        decoder: Module from codes to images.
        loss: ``(reconstruction, target) -> scalar``, a mean over images;
            ``MSSSIMLoss(scales="auto")`` if ``None``.
        loss_weight: :math:`\lambda > 0`, 100.0 (ours; tune it: it trades sharpness for a code that
            follows the prior).
        samples: Codes drawn an image, 1.

    Raises:
        TypeError: If encoder or decoder is no module, or the loss not callable.
        ValueError: If a number is out of range.

    Example:
        >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 2 * 3))
        >>> decoder = nn.Sequential(nn.Linear(3, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
        >>> model = ExpectedLossVAE(encoder, decoder, MSSSIMLoss(kernel_size=3, scales=2))
        >>> output = model(torch.rand(5, 1, 8, 8))
        >>> output.loss.backward()
        >>> model.sample((2, 3)).shape
        torch.Size([2, 1, 8, 8])

    References:
        "Learning to Generate Images with Perceptual Similarity Metrics", 6 authors, 2015,
        arXiv:1511.06409.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        loss_weight: float = 100.0,
        samples: int = 1,
    ) -> None:
        super().__init__()
        for name, module in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(module, nn.Module):
                raise TypeError(f"{name} must be a torch.nn.Module, got {type(module).__name__}")
        if loss is not None and not callable(loss):
            raise TypeError(f"loss must be callable, got {type(loss).__name__}")
        if not 0 < loss_weight < math.inf:
            raise ValueError(f"loss_weight must be positive and finite, got {loss_weight}")
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise ValueError(f"samples must be an int of at least 1, got {samples!r}")
        self.encoder = encoder
        self.decoder = decoder
        self.loss = MSSSIMLoss(scales="auto") if loss is None else loss
        self.loss_weight = float(loss_weight)
        self.samples = samples

    def encode(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the codes.

        Args:
            input: Images (N, C, *spatial).

        Returns:
            Two tensors of one shape (N, ...).

        Raises:
            ValueError: If the encoder's output is neither a pair nor of even width.
        """
        found: Any = self.encoder(input)
        if isinstance(found, Tensor):
            if found.dim() < 2 or found.shape[1] % 2:
                raise ValueError(
                    "encoder must give (mean, log_variance), or one tensor with both along "
                    f"dimension 1, got shape {tuple(found.shape)}"
                )
            mean, log_variance = found.chunk(2, 1)
            return mean, log_variance
        if len(found) != 2 or found[0].shape != found[1].shape:
            shapes = [tuple(part.shape) for part in found]
            raise ValueError(f"encoder must give mean and log_variance of one shape, got {shapes}")
        return found[0], found[1]

    def decode(self, code: Tensor) -> Tensor:
        """Images of codes.

        Args:
            code: Codes (N, ...).

        Returns:
            Images.
        """
        decoded: Tensor = self.decoder(code)
        return decoded

    def sample(self, size: tuple[int, ...], *, generator: torch.Generator | None = None) -> Tensor:
        """Images of codes drawn from the standard normal.

        Args:
            size: Shape of the codes, (N, ...).
            generator: Source of randomness.

        Returns:
            Images.
        """
        like = next(self.decoder.parameters(), torch.empty(0))
        code = torch.randn(size, generator=generator, dtype=like.dtype, device=like.device)
        return self.decode(code)

    def forward(
        self,
        input: Tensor,
        target: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> VAEOutput:
        """One pass: encode, draw, decode, and the objective.

        Args:
            input: Images (N, C, *spatial).
            target: What is to be reconstructed; ``None`` is ``input``.
            generator: Source of randomness.

        Returns:
            The objective and its parts.

        Raises:
            ValueError: If encoder, decoder and target do not fit together.
        """  # noqa: DOC502 (raised by encode and the loss)
        target = input if target is None else target
        mean, log_variance = self.encode(input)
        # (1/2) sum (mean^2 + variance - 1 - log variance); expm1 keeps the digits near the prior.
        per_code = 0.5 * (mean.square() + torch.expm1(log_variance) - log_variance)
        kl = per_code.flatten(1).sum(1).mean()
        shape = (self.samples, *mean.shape)
        noise = torch.randn(shape, generator=generator, dtype=mean.dtype, device=mean.device)
        code = (mean + torch.exp(0.5 * log_variance) * noise).flatten(0, 1)
        reconstruction = self.decode(code)
        repeated = target.repeat(self.samples, *(1,) * (target.dim() - 1))
        loss = self.loss(reconstruction, target if self.samples == 1 else repeated)
        return VAEOutput(kl + self.loss_weight * loss, loss, kl, reconstruction, mean, log_variance)

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        return f"loss_weight={self.loss_weight:g}, samples={self.samples}"
