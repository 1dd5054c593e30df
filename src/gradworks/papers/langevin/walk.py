"""A trial that goes through cells, one size after the other, and through the chains in each.

After a kill it goes on inside the chain, bit for bit.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gradworks.bench.trial import Trial

__all__ = ["Chain", "Walk"]

BLOCK = 64  # steps between two looks


class Chain:
    """What is kept of a chain: sums over its iterates, never the iterates.

    Attributes:
        theta: Where it is, ``(problems, d)``.
        done: Steps taken, burn-in included.
    """

    def __init__(self, theta: Tensor, *, square: bool) -> None:
        import torch

        problems, d = theta.shape
        self.theta = theta
        self.done = 0
        self._count = 0
        self._sum = torch.zeros(problems, d, dtype=torch.float64)
        self._last = torch.zeros(problems, dtype=torch.float64)
        self._square = torch.zeros(problems, d, d, dtype=torch.float64) if square else None

    def add(self, block: Tensor, star: Tensor, *, counts: bool) -> None:
        """Take a block of iterates ``(steps, problems, d)``."""
        import torch

        self.theta = block[-1].clone()
        self.done += len(block)
        if not counts:
            return
        self._count += len(block)
        self._sum += block.sum(0, dtype=torch.float64)
        self._last += (block * star).sum(-1).abs().sum(0, dtype=torch.float64)
        if self._square is not None:
            rows = block.transpose(0, 1).double()
            self._square += rows.transpose(1, 2) @ rows

    @property
    def mean(self) -> Tensor:
        """Average of the iterates."""
        return self._sum / self._count

    @property
    def second_moment(self) -> Tensor | None:
        """Average of their outer products, where asked for."""
        return None if self._square is None else self._square / self._count

    @property
    def last(self) -> Tensor:
        """Average over time of the iterate's absolute overlap with the hidden direction."""
        return self._last / self._count

    def state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {
            "theta": self.theta,
            "done": self.done,
            "count": self._count,
            "sum": self._sum,
            "last": self._last,
            "square": self._square,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from a state."""
        self.theta, self.done, self._count = saved["theta"], saved["done"], saved["count"]
        self._sum, self._last, self._square = saved["sum"], saved["last"], saved["square"]


class Walk:
    """Goes through the cells of a trial; its checkpoint is read here.

    Args:
        trial: The trial.
    """

    def __init__(self, trial: Trial) -> None:
        import torch

        self.trial = trial
        saved = trial.resume() or {}
        self._step = int(saved.get("step", 0))
        self.cells: dict[str, dict[str, float]] = dict(saved.get("cells", {}))
        self._current: dict[str, Any] = dict(saved.get("current", {}))
        root = saved.get("root")
        if root is None:
            root = int(torch.randint(2**62, (), generator=trial.generator("root")))
        self._root = int(root)

    def generator(self, name: str) -> torch.Generator:
        """A generator by name: the same before and after a kill, and for every arm."""
        import torch

        return torch.Generator().manual_seed((self._root + zlib.crc32(name.encode())) % 2**62)

    def chain(
        self,
        cell: str,
        star: Tensor,
        gradient: Callable[[Tensor], Tensor],
        *,
        lr: Tensor | float,
        temperature: float,
        steps: int,
        burn_in: int,
        square: bool,
        source: torch.Generator | None = None,
    ) -> Chain:
        """Run chains on the sphere, one a problem, from uniform starts.

        Args:
            cell: Its name; start and noise follow from it.
            star: Hidden directions.
            gradient: Of all rows at once.
            lr: Step.
            temperature: Temperature.
            steps: Steps that count.
            burn_in: Steps before them.
            square: Keep second moments.
            source: A generator that ``gradient`` draws from, saved with the rest.

        Returns:
            The chain at its end.

        Raises:
            Diverged: If it leaves the finite numbers.
        """
        import torch.nn.functional as F
        from torch import randn

        from gradworks.bench.trial import Diverged
        from gradworks.optim.langevin import trajectory

        start = F.normalize(randn(*star.shape, generator=self.generator(f"start {cell}")), dim=-1)
        noise = self.generator(f"noise {cell}")
        chain = Chain(start, square=square)
        if self._current.get("cell") == cell:
            chain.load(self._current["chain"])
            noise.set_state(self._current["noise"])
            if source is not None:
                source.set_state(self._current["source"])
        for stop, counts in ((burn_in, False), (burn_in + steps, True)):
            walk = trajectory(
                gradient,
                chain.theta,
                float(lr),
                temperature,
                max(0, stop - chain.done),
                generator=noise,
                block=BLOCK,
            )
            try:
                for block in walk:
                    chain.add(block, star, counts=counts)
                    self._step += len(block)
                    self.trial.tick(self._step, partial(self._state, cell, chain, noise, source))
            except RuntimeError as error:
                raise Diverged(str(error)) from error
        return chain

    def finish(self, cell: str, figures: dict[str, float]) -> None:
        """Keep a cell's figures, and give them out."""
        self.cells[cell] = figures
        self._current = {}
        self.give(cell)
        self.trial.tick(self._step, self._between)

    def give(self, cell: str) -> None:
        """The figures of a cell, under names that end with the cell's."""
        tagged = {f"{name}_{cell}": value for name, value in self.cells[cell].items()}
        self.trial.result("valid" if self.trial.kind == "tune" else "test", **tagged)

    def _between(self) -> dict[str, Any]:
        """All that is needed to go on with the next cell."""
        return {"root": self._root, "step": self._step, "cells": self.cells, "current": {}}

    def _state(
        self, cell: str, chain: Chain, noise: torch.Generator, source: torch.Generator | None
    ) -> dict[str, Any]:
        """All that is needed to go on from here."""
        current = {"cell": cell, "chain": chain.state(), "noise": noise.get_state()}
        if source is not None:
            current["source"] = source.get_state()
        return {**self._between(), "current": current}
