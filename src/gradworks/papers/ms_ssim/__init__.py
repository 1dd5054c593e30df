"""Learning to Generate Images with Perceptual Similarity Metrics (2015, arXiv:1511.06409).

Autoencoders, a variational one and super-resolution trained on MS-SSIM, SSIM, L1 and L2, each with
as many trials for its learning rate, judged on held-out photographs by measures that nobody trained
on; digits classified from their codes. The criteria were fixed before the first run that counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradworks.bench.experiment import Arm, Experiment, Knob, Workload
from gradworks.papers._deciding import decidable
from gradworks.papers.ms_ssim.claims import CARD, CLAIMS, LABELS
from gradworks.papers.ms_ssim.figures import figures
from gradworks.papers.ms_ssim.presets import PRESETS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

_TRIAL = "gradworks.papers.ms_ssim.trial"
# Over the learning rate of the workload.
_RATE = (Knob(name="rate", low=0.03, high=30.0, default=1.0),)
_METHODS = {
    "l1": "torch.nn.L1Loss",
    "l2": "torch.nn.MSELoss",
    "ssim": "gradworks.losses.ms_ssim.SSIMLoss",
    "ms-ssim": "gradworks.losses.ms_ssim.MSSSIMLoss",
}
ARMS = (
    *(
        Arm(
            name=name,
            label=LABELS[name],
            method=method,
            space=_RATE,
            fixed={"loss": name},
            is_baseline=name in ("l1", "l2"),
        )
        for name, method in _METHODS.items()
    ),
    Arm(
        name="bicubic",
        label=LABELS["bicubic"],
        method="bicubic interpolation",
        fixed={"loss": "none"},
        is_baseline=True,
    ),
)


def _workload(name: str, entry: Mapping[str, Any]) -> Workload:
    """One workload of a preset."""
    return Workload(
        name=name,
        label=entry["label"],
        trial=f"{_TRIAL}:{entry['trial']}",
        spec=entry["spec"],
        steps=entry["steps"],
        batch_size=entry["batch_size"],
        arms=entry["arms"],
        data=entry["data"],
        select_on="own",
        select_direction="lower",
    )


def build(preset: str) -> Experiment:
    """Return the experiment of a preset.

    Args:
        preset: ``"quick"``, ``"full"`` or ``"paper"``; the last is a configuration that only
            hardware of the size it names, and people, can run.

    Returns:
        Workloads, arms and the claims they decide.

    Raises:
        ValueError: If there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    chosen = PRESETS[preset]
    workloads = tuple(_workload(name, entry) for name, entry in chosen["workloads"].items())
    present = {arm for workload in workloads for arm in workload.arms}
    return Experiment(
        paper=CARD.slug,
        preset=preset,
        workloads=workloads,
        arms=tuple(arm for arm in ARMS if arm.name in present),
        claims=decidable(CLAIMS, workloads),
        tune_trials=chosen["tune_trials"],
        final_seeds=chosen["final_seeds"],
        trial_seconds=chosen["trial_seconds"],
        notes=tuple(chosen["notes"]),
    )
