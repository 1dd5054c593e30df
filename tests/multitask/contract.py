"""What every aggregator must pass: one line a method in ``CONTRACT``.

``test_contract.py`` runs each line through all of it. A new aggregator adds a line here and says
which properties it claims; its own golden parity and closed forms stand in its own test file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from gradworks.multitask import SAMGS, Aggregator, GramianAggregator, from_torchjd
from gradworks.multitask.gcond import GCond

__all__ = ["CONTRACT", "Line", "jacobian"]


@dataclass(frozen=True)
class Line:
    """One aggregator and what holds for it.

    Attributes:
        name: Shown in the test's name.
        make: A fresh one for three tasks.
        degree: A fresh one maps c J to c^degree times the direction of J; None: neither.
        parallel: Equal rows give a positive multiple of the row.
        peaceful: J g >= 0.
        permutes: The order of the tasks does not matter.
        random: It draws at random.
        stateful: It has a state that shows in the next direction.
        ours: It refuses what is not finite by itself, and other sizes than its state's.
        survives: A zero row beside others leaves the direction finite.
        steps: Of the toy training that lowers all losses; fewer where a step calls a slow solver.
        packages: What must be installed.
    """

    name: str
    make: Callable[[], Aggregator]
    degree: float | None = 1.0
    parallel: bool = True
    peaceful: bool = False
    permutes: bool = True
    random: bool = False
    stateful: bool = False
    ours: bool = False
    survives: bool = True
    steps: int = 200
    packages: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package for package in self.packages if find_spec(package) is None]


def peer(name: str, *packages: str, settings: dict | None = None, **claims: object) -> Line:
    """One of torchjd."""
    return Line(
        f"torchjd.{name}",
        lambda: from_torchjd(name, **(settings or {})),
        packages=("torchjd", *packages),
        **claims,
    )


CONTRACT: tuple[Line, ...] = (
    Line("Aggregator", Aggregator),
    Line("GramianAggregator", GramianAggregator),
    # equal norms: each coordinate is weighted by its own momentum, and the result is quadratic;
    # the clip makes the degree 0
    Line("SAMGS", SAMGS, degree=None, parallel=False, stateful=True, ours=True),
    Line("SAMGS.equalise", lambda: SAMGS(gamma=1.0, max_norm=None), ours=True, parallel=False),
    Line("GCond", GCond, stateful=True, ours=True),
    peer("PCGrad", random=True),
    peer("MGDA", peaceful=True),
    peer("IMTLG"),
    peer("AlignedMTL"),
    peer("ConFIG"),
    peer("UPGrad", "quadprog", peaceful=True),
    peer("CAGrad", "cvxpy", settings={"c": 0.5}, steps=60),
    peer("NashMTL", "cvxpy", "ecos", settings={"n_tasks": 3}, degree=None, stateful=True,
         survives=False, steps=15),
    peer("GradVac", random=True, stateful=True),
    peer("GradDrop", random=True),
    peer("ExcessMTL", stateful=True, degree=None),
    peer("PCD", stateful=True, permutes=False, degree=None),
)  # fmt: skip


def jacobian(tasks: int = 3, params: int = 7, seed: int = 0, spread: float = 1.0) -> Tensor:
    """Random rows; row i is ``spread**i`` times as long."""
    g = torch.Generator().manual_seed(seed)
    scale = spread ** torch.arange(tasks, dtype=torch.float64)
    return torch.randn(tasks, params, generator=g, dtype=torch.float64) * scale[:, None]
