"""Problems, sizes and budgets, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ARMS_OF", "PRESETS"]

_EXAMPLES = 32  # of a step with four micro-batches
_WIDTH = 8
_DIGITS = {"kind": "digits", "patch": 2, "width": _WIDTH, "held": 200}
_PROBED = {**_DIGITS, "probe": 1500}  # images that fit a classifier of codes
_PHOTOGRAPHS = {
    "kind": "tasks",
    "name": "masked_patches",
    "weights": {"l1": 0.85, "dssim": 0.15},
}
_PAIR = {"kind": "pair", "patch": 2, "width": _WIDTH, "held": 200}
_GENES = {"kind": "tasks", "name": "yeast14"}

_MODES = ("gcond-stochastic", "gcond-sequential")
_CORE = ("sum", "sum-stochastic", *_MODES)
ARMS_OF = {
    "digits": (
        "sum", "pcgrad", "cagrad", "gradnorm", "imtlg", "sum-momentum", "sum-stochastic",
        *_MODES, "gcond-zones", "gcond-still", "gcond-lion",
    ),
    "photographs": ("pcgrad", "sum-momentum", *_CORE),
    "pair": ("pcgrad", *_CORE),
    "genes": _CORE[:3],
    "digits-8": _CORE[1:3],
    "digits-24": _CORE[1:3],
    "wide": _CORE[:3],
}  # fmt: skip
_LABELS = {
    "digits": "digits, half of the patches hidden, A = 4",
    "digits-8": "digits, A = 8 at equal samples",
    "digits-24": "digits, A = 24",
    "photographs": "crops of photographs, half of the patches hidden, A = 4",
    "pair": "label and image of half hidden digits, A = 4",
    "genes": "fourteen functions of yeast genes, A = 14",
    "wide": "digits, four times the channels, A = 4",
}


def _trained(
    name: str,
    problem: Mapping[str, Any],
    steps: int,
    accumulation: int = 4,
    *,
    data: tuple[str, ...] = ("mnist5k",),
    arms: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """A workload on which arms are trained."""
    return {
        "label": _LABELS[name],
        "trial": "trial:trial",
        "arms": ARMS_OF[name] if arms is None else arms,
        "steps": steps,
        "data": data,
        "spec": {
            "problem": dict(problem),
            "accumulation": accumulation,
            "micro": _EXAMPLES // 4,
        },
    }


def _timed(
    label: str, problem: Mapping[str, Any], accumulation: int, against: tuple[str, ...], blocks: int
) -> dict[str, Any]:
    """A workload on which steps are counted and timed."""
    return {
        "label": label,
        "trial": "cost:trial",
        "arms": ("cost",),
        "steps": 0,
        "data": ("yeast",) if problem["kind"] == "tasks" else ("mnist5k",),
        "spec": {
            "problem": dict(problem),
            "accumulation": accumulation,
            "micro": _EXAMPLES // 4,
            "against": list(against),
            "blocks": blocks,
        },
    }


_RIVALS = ("sequential", "released", "sum", "pcgrad")
_COST = "cost of a step, two losses, A = 4"
_NOTES = (
    "The learning rate is constant after a warm-up of 5 %, for every method, so that a run at "
    "equal backward passes or equal time is a point of the same run.",
    "At equal time: where the training clock passes what the plain sum takes for all its steps, "
    "measured in the same process before training.",
    "Methods with a momentum of their own have AdamW with beta1 = 0, the others with 0.9; beta2 "
    "0.95 and weight decay 0.05 as in the authors' example.",
    "Networks of four convolutions; crops of six photographs for training, of one to choose by "
    "and of two others to test on. Not ImageNet, not CT.",
    "Digits are their own boxes of 20 x 20 pixels: with the black margin every method draws black "
    "images for most of a short run. Size, network and steps were set on a pilot seed, the margins "
    "of equivalence on ten others; no run of an experiment has these seeds.",
)
_IMAGES = ("photographs", "sample_images")


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "workloads": {
            "digits": _trained(
                "digits",
                _PROBED,
                300,
                arms=("sum", "pcgrad", "sum-stochastic", *_MODES),
            ),
            "cost": _timed(_COST, _DIGITS, 4, _RIVALS, 6),
        },
        "tune_trials": 0,
        "final_seeds": 2,
        "trial_seconds": 3.0,
        "notes": ("Two seeds, nothing tuned: an indication.", *_NOTES),
    },
    "full": {
        "workloads": {
            "digits": _trained("digits", _PROBED, 100),
            "photographs": _trained("photographs", _PHOTOGRAPHS, 80, data=_IMAGES),
            "pair": _trained("pair", _PAIR, 80),
            "genes": _trained("genes", _GENES, 40, 14, data=("yeast",)),
            "digits-8": _trained("digits-8", _DIGITS, 50, 8),
            "digits-24": _trained("digits-24", _DIGITS, 30, 24),
            "wide": _trained("wide", {**_DIGITS, "width": 4 * _WIDTH}, 60),
            "cost": _timed(_COST, _DIGITS, 4, _RIVALS, 10),
            "cost-genes": _timed(
                "passes of a step, fourteen losses, A = 14", _GENES, 14, ("sequential",), 0
            ),
        },
        "tune_trials": 8,
        "final_seeds": 10,
        "trial_seconds": 1.1,
        "notes": (
            "Every method has eight trials for its learning rate (three decades), chosen by the "
            "weighted loss on held-out examples, never those of the test.",
            "CAGrad and GradNorm run on the digits alone, IMTL-G and the ablations too.",
            *_NOTES,
        ),
    },
    "paper": {
        "workloads": {
            "digits": {
                "label": "ImageNet-1K, MobileNetV3-Small",
                "trial": "trial:published",
                "arms": ("sum", "pcgrad", "sum-stochastic", *_MODES),
                "steps": 100_000,
                "data": (),
                "spec": {
                    "data": "ImageNet-1K (class/image folders, given by --data-dir)",
                    "network": "MobileNetV3-Small",
                    "accumulation": 24,
                    "micro": 64,
                    "hardware": "a GPU of 24 GB for several days",
                },
            },
        },
        "tune_trials": 0,
        "final_seeds": 3,
        "trial_seconds": 86_400.0,
        "notes": ("The published scale: configuration only, not run here.",),
    },
}
