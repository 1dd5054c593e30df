"""A variational autoencoder whose codes cost the same number of nats, whatever its loss.

The paper weighs the loss against the cost of the code by hand. A weight that suits one loss means
nothing to another, so here each run finds the weight at which its codes cost what is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from gradworks.losses.ms_ssim import ExpectedLossVAE
from gradworks.papers.ms_ssim.networks import Autoencoder

__all__ = ["Variational"]

_GAIN = 0.05  # relative change of the weight a step, over the relative error of the cost


class Variational:
    """The expected loss of drawn codes, at a given cost.

    Args:
        network: Its encoder gives mean and log-variance.
        loss: Of images.
        nats: Mean divergence of a code from the standard normal that is asked for.
        noise: Source of the codes.

    Attributes:
        weight: ``{"value": ...}``, of the loss over the divergence; empty before the first batch.
    """

    def __init__(
        self,
        network: Autoencoder,
        loss: Callable[[Tensor, Tensor], Tensor],
        nats: float,
        noise: Generator,
    ) -> None:
        self._model = ExpectedLossVAE(network.encoder, network.decoder, loss=loss)
        self._nats, self._noise = nats, noise
        self.weight: dict[str, float] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return the objective of a batch.

        Args:
            images: (batch, 1, side, side).
        """
        output = self._model(images, generator=self._noise)
        if not self.weight:  # both parts count alike at the start
            self.weight["value"] = self._nats / max(
                float(output.reconstruction_loss.detach()), 1e-12
            )
        weight = self.weight["value"]
        missing = (self._nats - float(output.kl.detach())) / self._nats
        self.weight["value"] = weight * math.exp(_GAIN * max(-1.0, min(1.0, missing)))
        return torch.as_tensor(output.kl + weight * output.reconstruction_loss)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the images of one code drawn for each, the same draw every time.

        Args:
            images: (batch, 1, side, side).
        """
        output = self._model(images, generator=Generator().manual_seed(0))
        return torch.as_tensor(output.reconstruction)

    @torch.no_grad()
    def cost(self, images: Tensor) -> float:
        """Return the mean cost of a code in nats.

        Args:
            images: (batch, 1, side, side).
        """
        return float(self._model(images, generator=Generator().manual_seed(0)).kl)
