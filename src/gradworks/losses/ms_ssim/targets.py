"""Which targets' moments are kept between steps (``cache_target``)."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from gradworks.losses.ms_ssim.fused import piece_pixels
from gradworks.losses.ms_ssim.plan import Plan
from gradworks.losses.ms_ssim.tile import TargetMoments

__all__ = ["TargetCache"]


class TargetCache:
    """The moments of the most recent targets, by the identity of the tensor.

    A target changed in place (its version counter tells), freed, or used with other settings is
    filtered anew. What the counter does not see (writes through ``.data``, or through a NumPy array
    of the same memory) goes unnoticed. Nothing is kept for a target that needs a gradient.

    Args:
        size: How many targets; ``True`` is 1, 0 or ``False`` none.
    """

    def __init__(self, size: bool | int) -> None:
        if not isinstance(size, int):
            raise TypeError(f"cache_target must be a bool or an int, got {size!r}")
        if size < 0:
            raise ValueError(f"cache_target must be at least 0 (off), got {size}")
        self.size = int(size)
        self._found: OrderedDict[int, tuple[Any, tuple[Any, ...], TargetMoments]] = OrderedDict()

    def get(self, target: Tensor, image: Tensor, plan: Plan) -> TargetMoments | None:
        """The memory for a target, empty where it is new.

        Args:
            target: The tensor the caller passed.
            image: The same in the dtype of the computation.
            plan: Settings.

        Returns:
            Moments, or ``None`` where nothing is to be kept.
        """
        if self.size == 0 or target.requires_grad or target.is_inference():
            return None
        if torch.compiler.is_compiling():
            return None
        try:
            address = target.data_ptr()
        except RuntimeError:  # inside torch.func transforms every call sees a new object
            return None
        state = (target._version, image.dtype, image.shape, image.device, plan, address)
        found = self._found.pop(id(target), None)
        if found is None or found[0]() is not target or found[1] != state:
            found = (weakref.ref(target), state, TargetMoments(piece_pixels(image)))
        self._found[id(target)] = found
        while len(self._found) > self.size:
            self._found.popitem(last=False)
        return found[2]

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles of a module start empty."""
        return {"size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.size = state["size"]
        self._found = OrderedDict()
