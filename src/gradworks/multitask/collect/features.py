"""The features that all heads share: their tensors of the present step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["Features"]


class Features:
    """Finds the features of the present step.

    Args:
        source: The module whose last output they are, or a function without arguments that returns
            them: a tensor or several.

    Raises:
        TypeError: If it is neither.
    """

    def __init__(self, source: Callable[..., Any]) -> None:
        if not callable(source):
            raise TypeError(
                f"features must be a module or a function, got {type(source).__name__}; give "
                "lambda: z for a tensor"
            )
        self._source = source
        self._last: Any = None
        if isinstance(source, nn.Module):
            source.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, args: Any, output: Any) -> None:
        """Remember the last output that has a graph."""
        if any(z.requires_grad for z in _listed(output)):
            self._last = output

    def current(self) -> list[Tensor]:
        """Return the features of the present step.

        Returns:
            Tensors with a graph.

        Raises:
            RuntimeError: If the module did not run since the last step.
            TypeError: If the function returned something else than tensors.
            ValueError: If a tensor has no graph.
        """
        module = isinstance(self._source, nn.Module)
        found = self._last if module else self._source()
        if found is None and module:
            raise RuntimeError("the module given as features did not run before this step")
        listed = _listed(found)
        if not listed:
            raise TypeError(f"features must be a tensor or several, got {type(found).__name__}")
        for z in listed:
            if not z.requires_grad:
                raise ValueError(f"features of shape {tuple(z.shape)} have no graph")
        return listed

    def forget(self) -> None:
        """Let go of the graph."""
        self._last = None


def _listed(output: Any) -> list[Tensor]:
    """Tensors of an output."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Sequence) and all(isinstance(z, Tensor) for z in output):
        return list(output)
    return []
