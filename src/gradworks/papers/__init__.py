"""The catalogue: one module a paper, found by looking, never listed by hand.

A paper is a module (or a folder) of this package whose name does not begin with an underscore. It
holds ``CARD`` and ``CLAIMS``; once its method is built it also holds ``PRESETS``,
``build(preset) -> Experiment`` and ``figures(result) -> list[Figure]``. Importing this package, or
any paper of it, does not import torch.

- Look: :func:`papers`, :func:`find`, :func:`select`, :func:`summary`, :func:`status`.
- Rerun: :func:`execute`, :func:`attach_figures`.
- Publish: :func:`published`, :func:`compared`, :func:`require_publishable`, :func:`verify`.
- Add one: :func:`new_paper`, :func:`check_commands`.
"""

from __future__ import annotations

from gradworks.papers._catalogue import UnknownPaper, find, papers, select, summary
from gradworks.papers._model import AREAS, Area, Card, Paper, PlannedPaper, Preset
from gradworks.papers._published import (
    COMPARED,
    NotPublishable,
    compared,
    measurements_folder,
    published,
    require_publishable,
    results_folder,
    status,
)
from gradworks.papers._running import attach_figures, execute
from gradworks.papers._skeleton import check_commands, new_paper
from gradworks.papers._verify import NothingPublished, verify

__all__ = [
    "AREAS",
    "COMPARED",
    "Area",
    "Card",
    "NotPublishable",
    "NothingPublished",
    "Paper",
    "PlannedPaper",
    "Preset",
    "UnknownPaper",
    "attach_figures",
    "check_commands",
    "compared",
    "execute",
    "find",
    "measurements_folder",
    "new_paper",
    "papers",
    "published",
    "require_publishable",
    "results_folder",
    "select",
    "status",
    "summary",
    "verify",
]
