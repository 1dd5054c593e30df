"""A small transformer for text, of pieces that every tool here can take apart.

Query, key, value and output are four linear layers, so that a matrix optimizer sees each as the
matrix it is; attention is written out, because PyTorch's fused kernel has no second derivative on
the CPU and curvature needs one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Transformer", "TransformerBlock"]


class TransformerBlock(nn.Module):
    """Causal attention and a two-layer network, each behind a layer normalization.

    Args:
        width: Numbers a position.
        heads: Of the attention; divides the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, input: Tensor) -> Tensor:
        """Return the block's output.

        Args:
            input: (batch, context, width).
        """
        hidden = self.norm1(input)
        query, key, value = (
            layer(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        n = scores.shape[-1]
        later = torch.ones(n, n, dtype=torch.bool, device=scores.device).triu(1)
        shares = scores.masked_fill(later, -math.inf).softmax(dim=-1)
        mixed = (shares @ value).transpose(1, 2).flatten(-2)
        input = input + self.output(mixed)
        inner: Tensor = self.down(nn.functional.gelu(self.up(self.norm2(input))))
        return input + inner


class Transformer(nn.Module):
    """Next-character model: embeddings, blocks, a layer normalization and a linear layer.

    Args:
        characters: Size of the alphabet.
        context: Longest input.
        width: Numbers a position.
        layers: Blocks.
        heads: Of the attention; divides the width.

    Raises:
        ValueError: If the heads do not divide the width.
    """

    def __init__(self, characters: int, context: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide the width {width}, got {heads}")
        self.embedding = nn.Embedding(characters, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, characters)

    def forward(self, input: Tensor) -> Tensor:
        """Return logits (batch, context, characters).

        Args:
            input: Numbers of characters (batch, context), int64.
        """
        places = torch.arange(input.shape[-1], device=input.device)
        hidden = self.embedding(input) + self.positions(places)
        logits: Tensor = self.head(self.norm(self.blocks(hidden)))
        return logits
