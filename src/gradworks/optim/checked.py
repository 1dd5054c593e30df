"""An optimizer that checks every group, keeps what it was when one is refused, and takes old state.

Subclasses say which settings they check in :meth:`CheckedOptimizer._check_settings`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradworks.optim.arguments import at_least_zero, flags, learning_rate, path_flags
from gradworks.optim.steps import new_step, restored_step
from gradworks.optim.tensors import refuse_conjugate, refuse_flat, refuse_sparse

__all__ = ["CheckedOptimizer", "load_with_hooks"]


def load_with_hooks(
    optimizer: torch.optim.Optimizer,
    load: Callable[[dict[str, Any]], None],
    state_dict: dict[str, Any],
) -> dict[str, Any]:
    """Load a checkpoint; returns the one that hooks of the user may have put in its place."""
    loaded: list[dict[str, Any]] = []
    last = optimizer.register_load_state_dict_pre_hook(lambda _, given: loaded.append(given))
    try:
        load(state_dict)
    finally:
        last.remove()
    return loaded[0]


class CheckedOptimizer(torch.optim.Optimizer):
    """Checks of groups and parameters, early and without half-made changes."""

    # zeros like the parameter at its first gradient, in the order of the method's function
    _buffers: tuple[str, ...] = ()
    # whether each parameter counts its own steps
    _counts = True

    @staticmethod
    def _check_settings(group: dict[str, Any]) -> None:
        """Settings that the method alone has."""
        raise TypeError("use one of the optimizers of gradworks.optim")

    @staticmethod
    def _check_param(group: dict[str, Any], param: Tensor) -> None:
        """What a parameter must be beside what all optimizers ask."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, also late in training; settings not given are the defaults.

        Args:
            param_group: ``params`` and settings of their own.

        Raises:
            TypeError: If a setting is of the wrong type.
            ValueError: If a number is out of range, or does not suit a parameter.
            RuntimeError: If a parameter is flat (FSDP1) or conjugated lazily.
        """
        if isinstance(param_group, dict):
            settings = {**self.defaults, **param_group}
            learning_rate(settings["lr"])
            for name in ("eps", "weight_decay"):
                if name in settings:
                    at_least_zero(name, settings[name])
            for name in ("maximize", "differentiable", "capturable", "nesterov"):
                if name in self.defaults:
                    flags(settings, name)
            path_flags(settings)
            self._check_settings(settings)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for name, value in group.items():
            if isinstance(value, np.number):
                group[name] = value.item()
        try:
            for param in group["params"]:
                refuse_flat(param)
                refuse_conjugate(param)
                self._check_param(group, param)
        except (TypeError, ValueError, RuntimeError):
            self.param_groups.pop()
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take groups and step counts of older versions and of other implementations."""
        super().__setstate__(state)
        for group in self.param_groups:
            for name, default in self.defaults.items():
                group.setdefault(name, default)
            if not self._counts:
                continue
            shared = group.pop("step", None)
            for param in group["params"]:
                found = self.state.get(param)
                if found:
                    found["step"] = restored_step(found.get("step", shared), param, group)

    def _collect(self, group: dict[str, Any]) -> tuple[list[Tensor], ...]:
        """Parameters with a gradient, their gradients, their buffers and, if counted, their steps.

        State is created at the first gradient.
        """
        lists: tuple[list[Tensor], ...] = tuple([] for _ in range(2 + len(self._buffers)))
        steps: list[Tensor] = []
        for param in group["params"]:
            if param.grad is None:
                continue
            refuse_sparse(type(self).__name__, param)
            state = self.state[param]
            if not state:
                self._start(group, param, state)
            found = (param, param.grad, *(state[name] for name in self._buffers))
            for tensors, tensor in zip(lists, found):
                tensors.append(tensor)
            if self._counts:
                steps.append(state["step"])
        return (*lists, steps) if self._counts else lists

    def _start(self, group: dict[str, Any], param: Tensor, state: dict[str, Any]) -> None:
        """State of a parameter that is met for the first time."""
        if self._counts:
            state["step"] = new_step(param, group)
        for name in self._buffers:
            state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)
