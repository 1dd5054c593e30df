"""The measurements inside one trial: kept over a kill, each from a generator of its own name."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from gradworks.bench.trial import Trial

__all__ = ["Cells"]


class Cells:
    """Runs the measurements of a trial; what a checkpoint holds is not measured again.

    Args:
        trial: The trial; its checkpoint is read here.

    Attributes:
        trial: As given.
    """

    def __init__(self, trial: Trial) -> None:
        import torch

        self.trial = trial
        saved = trial.resume() or {}
        self._found: dict[str, dict[str, float]] = dict(saved.get("found", {}))
        root = saved.get("root")
        if root is None:
            root = int(torch.randint(2**62, (), generator=trial.generator("root")))
        self._root = int(root)

    @property
    def spec(self) -> Mapping[str, Any]:
        """What the workload says."""
        return self.trial.spec

    def generator(self, name: str) -> torch.Generator:
        """Return a new generator, the same before and after a kill and for every arm.

        Args:
            name: What it draws.
        """
        import torch

        return torch.Generator().manual_seed((self._root + zlib.crc32(name.encode())) % 2**62)

    def run(self, name: str, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Return the figures of a measurement, taken now or before a kill.

        Args:
            name: Unique in the trial.
            measure: Takes it.
        """
        if name not in self._found:
            self._found[name] = measure()
            self.trial.tick(
                len(self._found), lambda: {"root": self._root, "found": dict(self._found)}
            )
        return self._found[name]
