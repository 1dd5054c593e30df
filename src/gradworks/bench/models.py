"""Small networks for the named workloads, initialised from a given generator.

Modules are built without memory (device ``meta``) and filled afterwards, so that no global random
state is read or moved: equal generators give equal weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from gradworks.bench.transformer import Transformer

__all__ = ["ResidualBlock", "cnn", "initialised", "linear", "mlp", "resnet", "transformer"]

# PyTorch's own rule for embeddings, deviation 1, drowns the blocks of a small transformer.
_EMBEDDING_DEVIATION = 0.02


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalization around a shortcut.

    Args:
        channels: Channels in.
        out: Channels out; another number, or a stride, gives the shortcut a 1x1 convolution.
        stride: Of the first convolution.
    """

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.shortcut: nn.Module = (
            nn.Conv2d(channels, out, 1, stride, bias=False)
            if stride != 1 or channels != out
            else nn.Identity()
        )

    def forward(self, input: Tensor) -> Tensor:
        """Return the block's output.

        Args:
            input: (batch, channels, height, width).
        """
        inner = torch.relu(self.norm1(self.conv1(input)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(input))


def initialised(build: Callable[[], nn.Module], generator: Generator) -> nn.Module:
    """Return a module with weights drawn from ``generator``, by PyTorch's default rules.

    Embeddings alone have a rule of their own: normal, of deviation 0.02.

    Args:
        build: Makes the module; linear, convolution, normalization and embedding layers only.
        generator: Source of the weights, on the CPU.

    Raises:
        TypeError: If a layer with parameters or buffers is of another type.
    """
    with torch.device("meta"):
        model = build()
    model.to_empty(device="cpu")
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=_EMBEDDING_DEVIATION, generator=generator)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.reset_parameters()
        elif (
            next(module.parameters(recurse=False), None) is not None
            or next(module.buffers(recurse=False), None) is not None
        ):
            raise TypeError(
                f"layer {name!r} is a {type(module).__name__}, which has no rule here; "
                "linear, convolution, embedding, batch and layer normalization have"
            )
    return model


def linear(features: int, outputs: int) -> Callable[[Generator], nn.Module]:
    """Return a builder of one linear layer.

    Args:
        features: Columns of the inputs.
        outputs: Columns of the outputs.
    """
    return lambda generator: initialised(lambda: nn.Linear(features, outputs), generator)


def mlp(
    features: int, widths: tuple[int, ...], outputs: int, *, layer_norm: bool = False
) -> Callable[[Generator], nn.Module]:
    """Return a builder of a fully connected network with ReLU.

    Args:
        features: Columns of the inputs; images are flattened.
        widths: Of the hidden layers.
        outputs: Columns of the outputs.
        layer_norm: Normalise before each ReLU.
    """

    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        before = features
        for width in widths:
            layers.append(nn.Linear(before, width, bias=not layer_norm))
            if layer_norm:
                layers.append(nn.LayerNorm(width))
            layers.append(nn.ReLU())
            before = width
        return nn.Sequential(*layers, nn.Linear(before, outputs))

    return lambda generator: initialised(build, generator)


def cnn(
    channels: tuple[int, ...], strides: tuple[int, ...], outputs: int
) -> Callable[[Generator], nn.Module]:
    """Return a builder of a convolutional network with batch normalization.

    Args:
        channels: Of each 3x3 convolution, each followed by batch normalization and ReLU.
        strides: Of each convolution.
        outputs: Classes, of the linear layer after mean pooling.
    """

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        before = 1
        for width, stride in zip(channels, strides, strict=True):
            conv = nn.Conv2d(before, width, 3, stride, 1, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, outputs)]
        return nn.Sequential(*layers, *head)

    return lambda generator: initialised(build, generator)


def resnet(width: int, outputs: int) -> Callable[[Generator], nn.Module]:
    """Return a builder of a residual network with eight convolutions, shortcuts aside.

    Args:
        width: Channels of the first stage; the second has twice as many.
        outputs: Classes.
    """

    def build() -> nn.Module:
        stem: list[nn.Module] = [
            nn.Conv2d(1, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        blocks = [
            ResidualBlock(width, width),
            ResidualBlock(width, 2 * width, stride=2),
            ResidualBlock(2 * width, 2 * width),
        ]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, outputs)]
        return nn.Sequential(*stem, *blocks, *head)

    return lambda generator: initialised(build, generator)


def transformer(
    characters: int, context: int, *, width: int, layers: int, heads: int
) -> Callable[[Generator], nn.Module]:
    """Return a builder of a character transformer, layer normalization before each part.

    Args:
        characters: Size of the alphabet.
        context: Characters an example.
        width: Numbers a position.
        layers: Blocks.
        heads: Of the attention; divides the width.
    """
    return lambda generator: initialised(
        lambda: Transformer(characters, context, width, layers, heads), generator
    )
