"""What AdamP and SGDP share as optimizers: settings of the projection and the record of branches.

The record says which weights the last step took as scale invariant: kept on request, by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from gradworks.optim.adamp.projection import CHANNEL, EXEMPT, LAYER, UNTOUCHED
from gradworks.optim.arguments import at_least_zero, flags, in_interval
from gradworks.optim.checked import CheckedOptimizer

__all__ = ["LayerReport", "ProjectedOptimizer"]

_WORDS = {CHANNEL: "channels", LAYER: "layer", UNTOUCHED: "untouched", EXEMPT: "exempt"}


class LayerReport(NamedTuple):
    """One line of ``report()``.

    Attributes:
        name: The parameter's name where the optimizer was given ``named_parameters()``, else its
            place, "group.position".
        shape: Its shape.
        branch: 1 projected per channel, 2 as one layer, 0 not projected, -1 never (fewer than 2
            dimensions).
        taken_as: The same in a word: channels, layer, untouched, exempt.
    """

    name: str
    shape: tuple[int, ...]
    branch: int
    taken_as: str


class ProjectedOptimizer(CheckedOptimizer):
    """An optimizer with ``last_branch`` and ``report()``; groups ask with ``record_branches``."""

    @staticmethod
    def _check_settings(group: dict[str, Any]) -> None:
        """What AdamP and SGDP share."""
        at_least_zero("delta", group["delta"])
        in_interval("wd_ratio", group["wd_ratio"], closed=True)
        flags(group, "record_branches")

    @staticmethod
    def _check_param(group: dict[str, Any], param: Tensor) -> None:
        """An integer within the dimensions of every weight; biases have no channels."""
        channel_dim = group["channel_dim"]
        if isinstance(channel_dim, bool) or not isinstance(channel_dim, int):
            raise TypeError(f"channel_dim must be an integer, got {channel_dim!r}")
        if param.ndim > 1 and not -param.ndim <= channel_dim < param.ndim:
            raise ValueError(
                f"channel_dim must be in [{-param.ndim}, {param.ndim}) for a parameter of shape "
                f"{tuple(param.shape)}, got {channel_dim}; put it into a group of its own"
            )

    @property
    def last_branch(self) -> dict[str, Tensor | int]:
        """Branch of each parameter's last step by name, as :class:`LayerReport` counts them.

        Empty unless ``record_branches=True``. Values are 0-d tensors where reading them would have
        synchronized the device.
        """
        record: dict[str, Tensor | int] = self.__dict__.setdefault("_last_branch", {})
        return record

    def report(self) -> list[LayerReport]:
        """Which layers the last step took as scale invariant; synchronizes the device.

        Returns:
            One line a parameter that was stepped since the record was switched on, in group order.

        Raises:
            RuntimeError: If no group has ``record_branches=True``.
        """
        if not any(group["record_branches"] for group in self.param_groups):
            raise RuntimeError(
                "nothing was recorded; construct the optimizer with record_branches=True"
            )
        lines = []
        for number, group in enumerate(self.param_groups):
            for position, param in enumerate(group["params"]):
                name = _name(number, group, position)
                if name in self.last_branch:
                    branch = int(self.last_branch[name])
                    lines.append(LayerReport(name, tuple(param.shape), branch, _WORDS[branch]))
        return lines

    def _note_branches(
        self, group: dict[str, Any], params: Sequence[Tensor], branches: Sequence[Tensor | int]
    ) -> None:
        """Keep the branches of one group's step."""
        number = next(i for i, other in enumerate(self.param_groups) if other is group)
        found = {id(param): branch for param, branch in zip(params, branches)}
        for position, param in enumerate(group["params"]):
            if id(param) in found:
                self.last_branch[_name(number, group, position)] = found[id(param)]


def _name(number: int, group: dict[str, Any], position: int) -> str:
    """The given name, or "group.position"."""
    names = group.get("param_names")
    return str(names[position]) if names else f"{number}.{position}"
