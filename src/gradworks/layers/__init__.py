"""Structure in a model: layers to put into your own network."""

from __future__ import annotations

from gradworks.layers.loldu import LoLDULinear, apply_loldu

__all__ = ["LoLDULinear", "apply_loldu"]
