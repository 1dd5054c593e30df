"""Loss landscapes and Hessian criteria (2024, arXiv:2412.10146): claims and runs.

Each workload is a network, each trial one seed of it: train, measure the spectrum's criteria under
every shift of the test images, and evaluate planes through the weights in several modes of batch
normalisation. The criteria were fixed before the first run that counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradworks.bench.experiment import Arm, Experiment, Workload
from gradworks.papers._deciding import decidable
from gradworks.papers.loss_landscape.claims import ARM, CARD, CLAIMS
from gradworks.papers.loss_landscape.figures import figures
from gradworks.papers.loss_landscape.presets import PRESETS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

_TRIAL = "gradworks.papers.loss_landscape.trial"
_NETWORK = Arm(name=ARM, label="trained network", method=CARD.package)


def _workload(name: str, entry: Mapping[str, Any]) -> Workload:
    """One network of a preset."""
    spec = entry["spec"]
    return Workload(
        name=name,
        label=entry["label"],
        trial=f"{_TRIAL}:{'published' if 'torchvision' in spec else 'trial'}",
        spec=spec,
        steps=entry["steps"],
        batch_size=spec.get("batch_size", 0),
        arms=(ARM,),
        data=tuple(entry["data"]),
    )


def _normed(spec: Mapping[str, Any]) -> bool:
    """Whether the network has batch normalisation."""
    return bool(spec.get("network", spec)["norm"])


def build(preset: str) -> Experiment:
    """Return the experiment of a preset.

    Args:
        preset: ``"quick"``, ``"full"`` or ``"paper"``; the last is a configuration that only
            hardware of the size it names can run.

    Returns:
        Workloads and the claims they decide.

    Raises:
        ValueError: If there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    chosen = PRESETS[preset]
    workloads = tuple(_workload(name, entry) for name, entry in chosen["workloads"].items())
    normed = tuple(w.name for w in workloads if _normed(w.spec))
    return Experiment(
        paper=CARD.slug,
        preset=preset,
        workloads=workloads,
        arms=(_NETWORK,),
        claims=decidable(CLAIMS, workloads, instead={"bn_ratio": normed, "bn_ratio_long": normed}),
        final_seeds=chosen["seeds"],
        trial_seconds=chosen["trial_seconds"],
        notes=tuple(chosen["notes"]),
    )
