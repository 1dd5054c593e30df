"""Small stand-ins of the paper's networks.

Convolutional images end in a sigmoid; the others are trained as they are and judged clamped to
[0, 1].

An autoencoder of fully connected layers starts at the principal components of its images, the best
linear code for squared error: what a loss gains from there is not what the others lack in steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SRCNN", "Autoencoder"]

_LOG_VARIANCE = -3.0  # of a variational code at its start
_SPARE, _ROUNDS = 16, 4  # of the iteration that finds principal components


class _Bent(nn.Module):
    """A linear map and, beside it, one hidden layer that begins at zero.

    Args:
        inputs: Numbers in.
        hidden: Hidden units.
        outputs: Numbers out.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.straight = nn.Linear(inputs, outputs)
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, outputs)

    def forward(self, input: Tensor) -> Tensor:
        """Return the sum of both.

        Args:
            input: (batch, inputs).
        """
        return torch.as_tensor(self.straight(input) + self.second(torch.relu(self.first(input))))


class Autoencoder(nn.Module):
    """A code of an image and the image of a code.

    Args:
        kind: ``"mlp"`` or ``"conv"``.
        side: Pixels of a side; a multiple of 8 for ``"conv"``.
        width: Hidden units of ``"mlp"``; channels of the first convolution of ``"conv"``.
        code: Numbers of a code.
        variational: Whether the encoder gives a mean and a log-variance for each number.
    """

    def __init__(
        self, kind: str, side: int, width: int, code: int, *, variational: bool = False
    ) -> None:
        super().__init__()
        self.code, outputs = code, 2 * code if variational else code
        if kind == "mlp":
            self.encoder = nn.Sequential(nn.Flatten(), _Bent(side**2, width, outputs))
            self.decoder = nn.Sequential(
                _Bent(code, width, side**2), nn.Unflatten(1, (1, side, side))
            )
            return
        low = side // 8
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * width * low**2, outputs),
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, 4 * width * low**2),
            nn.ReLU(),
            nn.Unflatten(1, (4 * width, low, low)),
            nn.Conv2d(4 * width, 8 * width, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            nn.Conv2d(width, 4, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.Sigmoid(),
        )

    def forward(self, input: Tensor) -> Tensor:
        """Return the image of the code of an image; of its mean, of a variational encoder.

        Args:
            input: (batch, 1, side, side).
        """
        image: Tensor = self.decoder(self.encode(input))
        return image

    def encode(self, input: Tensor) -> Tensor:
        """Return the code.

        Args:
            input: (batch, 1, side, side).
        """
        found: Tensor = self.encoder(input)
        return found[:, : self.code]

    @torch.no_grad()
    def start(self, images: Tensor) -> None:
        """Start a fully connected autoencoder at the principal components of images.

        Codes have mean zero and deviation one; a variational encoder starts nearly certain of them.

        Args:
            images: (count, 1, side, side), more of them than numbers in a code.
        """
        into, out = self.encoder[1], self.decoder[0]
        if not (isinstance(into, _Bent) and isinstance(out, _Bent)):
            return
        rows = images.flatten(1)
        mean = rows.mean(0)
        axes, scale = _principal(rows - mean, self.code)
        for part in (into, out):
            part.second.weight.zero_()
            part.second.bias.zero_()
        into.straight.weight.zero_()
        into.straight.bias.fill_(_LOG_VARIANCE)
        into.straight.weight[: self.code] = (axes / scale).T
        into.straight.bias[: self.code] = -(mean @ axes) / scale
        out.straight.weight.copy_(axes * scale)
        out.straight.bias.copy_(mean)


def _principal(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Leading axes of centred rows, and the deviation along each, by subspace iteration."""
    spare = min(count + _SPARE, *rows.shape)
    drawn = torch.randn(rows.shape[1], spare, generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(drawn.to(rows)).Q
    for _ in range(_ROUNDS):
        basis = torch.linalg.qr(rows.T @ (rows @ basis)).Q
    _, sizes, turned = torch.linalg.svd(rows @ basis, full_matrices=False)
    return basis @ turned[:count].T, sizes[:count].clamp_min(1e-6) / len(rows) ** 0.5


class SRCNN(nn.Module):
    """Three convolutions that correct an enlarged image.

    Dong, Loy, He, Tang, "Learning a Deep Convolutional Network for Image Super-Resolution", 2014:
    filters of 9, 1 and 5. The shortcut is ours: it trains in a fraction of the steps.

    Args:
        width: Channels of the first layer; the second has half.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 9, 1, 4),
            nn.ReLU(),
            nn.Conv2d(width, width // 2, 1),
            nn.ReLU(),
            nn.Conv2d(width // 2, 1, 5, 1, 2),
        )

    def forward(self, input: Tensor) -> Tensor:
        """Return the sharpened image.

        Args:
            input: Enlarged images, (batch, 1, height, width).
        """
        return input + torch.as_tensor(self.layers(input))
