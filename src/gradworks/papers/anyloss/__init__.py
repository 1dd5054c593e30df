"""AnyLoss: Transforming Classification Metrics into Loss Functions (2024, arXiv:2405.14745).

Single-layer perceptrons and small networks on imbalanced tables: the metric as a loss against the
losses of the paper and against the controls that it lacks (a tuned threshold, class weights). The
unit is the data set. ``trial.py`` trains all folds and learning rates of one loss on one set in the
same tensors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradworks.bench.claims import Claim
from gradworks.bench.experiment import Arm, Experiment, Workload
from gradworks.papers._model import Card
from gradworks.papers.anyloss.claims import CLAIMS
from gradworks.papers.anyloss.figures import figures
from gradworks.papers.anyloss.presets import ARMS, PRESETS, SETS_FOLDER, STUDIES, TABLES

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

CARD = Card(
    slug="anyloss",
    title="AnyLoss: Transforming Classification Metrics into Loss Functions",
    date="2024-05-23",
    authors=3,
    arxiv="2405.14745",
    code="https://github.com/doheonhan/anyloss",
    licence="no licence stated",
    summary=(
        "Trains a binary classifier on the metric that it is judged by: a steep second sigmoid "
        "pushes probabilities almost to 0 or 1, so that the four counts of the confusion matrix "
        "become sums with a gradient, and any metric of them a loss. Classes out of balance need "
        "no threshold search, no resampling and no class weights."
    ),
    area="losses",
    package="gradworks.losses.anyloss",
    usage=(
        "from gradworks.losses import AnyLoss\n"
        "\n"
        'criterion = AnyLoss("f1", amplification=33.0)\n'
        "loss = criterion(model(X), y)  # logits, labels in {0, 1}\n"
        "loss.backward()\n"
    ),
    tags=("imbalanced", "classification", "f1", "balanced accuracy", "confusion matrix", "loss"),
)

_TRIAL = "gradworks.papers.anyloss.trial:trial"


def _arm(name: str) -> Arm:
    entry = ARMS[name]
    return Arm(
        name=name,
        label=entry["label"],
        method=entry.get("method", name),
        fixed=entry["fixed"],
        is_baseline=not name.startswith("anyloss"),
    )


def _workload(name: str, source: Mapping[str, Any], chosen: Mapping[str, Any]) -> Workload:
    """One data set with its folds and the studies made on it."""
    studies = {
        study: {
            **STUDIES[study],
            "metrics": [m for m in STUDIES[study]["metrics"] if m in chosen["metrics"]],
        }
        for study in chosen["studies"]
    }
    needed = (f"keel:{source['keel']}",) if "keel" in source else ()
    if source.get("table") in {"breast_cancer", "shuttle"}:
        needed = (source["table"],)
    return Workload(
        name=name,
        label=name,
        trial=_TRIAL,
        spec={
            "source": dict(source),
            "folds": chosen["folds"],
            "repeats": chosen["repeats"],
            "studies": studies,
        },
        steps=1000,
        arms=tuple(chosen["arms"]),
        data=needed,
        select_on="f1",
        select_direction="higher",
    )


def _supplied(names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The user's copies of the authors' files, by name, with their hashes."""
    folder = os.environ.get(SETS_FOLDER, "")
    if not folder:
        raise ValueError(
            f"preset 'paper' needs the authors' data files ds1.csv to ds105.csv: set the "
            f"environment variable {SETS_FOLDER} to the folder that holds them"
        )
    absent = [name for name in names if not (Path(folder) / f"{name}.csv").is_file()]
    if absent:
        raise FileNotFoundError(
            f"{SETS_FOLDER}={folder} lacks {len(absent)} of {len(names)} files: "
            f"{', '.join(f'{name}.csv' for name in absent[:3])}{', …' if len(absent) > 3 else ''}"
        )
    return {
        name: {
            "file": f"{name}.csv",
            "sha256": hashlib.sha256((Path(folder) / f"{name}.csv").read_bytes()).hexdigest(),
        }
        for name in names
    }


def _claims(metrics: set[str], arms: set[str]) -> tuple[Claim, ...]:
    """The claims with the criteria that a preset can decide."""
    kept = []
    for claim in CLAIMS:
        criteria = tuple(
            c
            for c in claim.criteria
            if c.metric in metrics and {c.arm, *(c.baseline or c.arm).split("|")} <= arms
        )
        if criteria:
            kept.append(dataclasses.replace(claim, criteria=criteria))
    return tuple(kept)


def build(preset: str) -> Experiment:
    """Return the experiment of a preset.

    Args:
        preset: ``"quick"``, ``"full"`` or ``"paper"``; the last reads the authors' files from the
            folder that the environment variable ``GRADWORKS_ANYLOSS_SETS`` names.

    Returns:
        Workloads, arms and the claims they decide.

    Raises:
        ValueError: If there is no such preset, or no folder is named for ``"paper"``.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    chosen: Mapping[str, Any] = PRESETS[preset]
    if preset == "paper":
        sources = _supplied(chosen["sets"])
    else:
        sources = {name: dict(TABLES.get(name, {"keel": name})) for name in chosen["sets"]}
    own = {
        **chosen,
        "folds": 10,
        "repeats": 1,
        "studies": ["synthetic"],
        "metrics": STUDIES["synthetic"]["metrics"],
        "arms": chosen["synthetic"],
    }
    workloads = (
        *(_workload(name, source, chosen) for name, source in sources.items()),
        _workload("synthetic", {"table": "anyloss_synthetic"}, own),
    )
    metrics = {
        f"{study}_{metric}"
        for workload in workloads
        for study, entry in workload.spec["studies"].items()
        for metric in entry["metrics"]
    }
    return Experiment(
        paper=CARD.slug,
        preset=preset,
        workloads=workloads,
        arms=tuple(_arm(name) for name in chosen["arms"]),
        claims=_claims(metrics | {"seconds_ratio"}, set(chosen["arms"])),
        final_seeds=1,
        trial_seconds=chosen["trial_seconds"],
        notes=tuple(chosen["notes"]),
    )
