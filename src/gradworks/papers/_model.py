"""The card of a paper and what the catalogue knows about it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gradworks.bench.claims import Claim
from gradworks.bench.experiment import Experiment
from gradworks.bench.figures import Figure
from gradworks.bench.result import Result

__all__ = ["AREAS", "Area", "Card", "Paper", "Preset"]

Area = Literal[
    "losses",
    "optim",
    "multitask",
    "curvature",
    "layers",
    "solvers",
    "ensemble",
    "distributed",
    "generative",
    "physical",
    "incontext",
]

AREAS: Mapping[str, str] = {
    "losses": "what is minimised",
    "optim": "how a step is taken",
    "multitask": "gradients that conflict",
    "curvature": "the shape of a surface",
    "layers": "structure in a model",
    "solvers": "whole problems solved",
    "ensemble": "models combined",
    "distributed": "many machines",
    "generative": "one-step generation",
    "physical": "robustness in the world",
    "incontext": "models that learn",
}

Preset = Literal["quick", "full", "paper"]


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a reader sees first.

    Args:
        slug: Name in the catalogue and on the command line.
        title: The paper's title.
        date: Day of publication, ``YYYY-MM-DD``.
        authors: Number of authors.
        summary: Two to four sentences in our own words.
        area: Package that holds the method.
        package: Dotted path of the method's public module.
        usage: The few lines that use it.
        arxiv: arXiv identifier, or None where it is not known.
        venue: Where it appeared, if it did.
        code: The authors' repository, or None.
        licence: Licence of the authors' code as stated there.
        tags: Words to find it by.
    """

    slug: str
    title: str
    date: str
    authors: int
    summary: str
    area: Area
    package: str
    usage: str
    arxiv: str | None = None
    venue: str | None = None
    code: str | None = None
    licence: str | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.area not in AREAS:
            raise ValueError(f"area must be one of {sorted(AREAS)}, got {self.area!r}")
        if self.authors < 1:
            raise ValueError(f"authors must be at least 1, got {self.authors}")
        datetime.date.fromisoformat(self.date)

    @property
    def url(self) -> str | None:
        """Address of the abstract on arXiv, or None."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else None


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One entry of the catalogue: a card, its claims and, once it runs, its experiment."""

    card: Card
    claims: tuple[Claim, ...]
    module: str
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    builder: Callable[[str], Experiment] | None = None
    drawer: Callable[[Result], Sequence[Figure]] | None = None

    @property
    def slug(self) -> str:
        """Name in the catalogue."""
        return self.card.slug

    @property
    def planned(self) -> bool:
        """True while the card exists but nothing runs."""
        return self.builder is None

    @property
    def primary(self) -> Claim:
        """The claim that gives the paper its badge."""
        return next((c for c in self.claims if c.primary), self.claims[0])

    def build(self, preset: str) -> Experiment:
        """Return the experiment of ``preset``.

        Raises:
            PlannedPaper: If the paper does not run yet.
            ValueError: If there is no such preset.
        """
        if self.builder is None:
            raise PlannedPaper(self.slug)
        if preset not in self.presets:
            raise ValueError(
                f"preset must be one of {sorted(self.presets)} for {self.slug!r}, got {preset!r}"
            )
        return self.builder(preset)

    def figures(self, result: Result) -> list[Figure]:
        """Return the plots of ``result``."""
        return list(self.drawer(result)) if self.drawer is not None else []


class PlannedPaper(LookupError):
    """The paper has a card but its experiment is not built yet."""

    def __init__(self, slug: str) -> None:
        super().__init__(
            f"{slug} is planned: its card and claims are in the catalogue, its experiment is not "
            f"built yet, so there is nothing to run. `gradworks list --runnable` shows what runs."
        )
        self.slug = slug
