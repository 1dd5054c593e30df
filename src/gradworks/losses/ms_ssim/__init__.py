"""SSIM and MS-SSIM as training losses (arXiv:1511.06409), and a VAE over any of them."""

from __future__ import annotations

from gradworks.losses.ms_ssim.loss import MSSSIMLoss, SSIMLoss
from gradworks.losses.ms_ssim.plan import MS_SSIM_WEIGHTS
from gradworks.losses.ms_ssim.similarity import ms_ssim, ssim, ssim_map
from gradworks.losses.ms_ssim.vae import ExpectedLossVAE, VAEOutput
from gradworks.losses.ms_ssim.window import gaussian_window

__all__ = [
    "MS_SSIM_WEIGHTS",
    "ExpectedLossVAE",
    "MSSSIMLoss",
    "SSIMLoss",
    "VAEOutput",
    "gaussian_window",
    "ms_ssim",
    "ssim",
    "ssim_map",
]
