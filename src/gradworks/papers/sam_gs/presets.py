"""Arms, problems and budgets, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CONTROLS", "LABELS", "METHODS", "PEERS", "PRESETS", "SWEPT", "TOYS"]

_TRIAL = "gradworks.papers.sam_gs.trial"
_TRAIN = "gradworks.bench.multitask.training:train"
_OURS = "gradworks.multitask:SAMGS"

# What each real arm is: method, settings, and which knobs it has beside the learning rate. The
# trunk's gradient is clipped to norm 1 for every method, as the authors' class does to SAM-GS's.
METHODS: Mapping[str, tuple[str, Mapping[str, Any], tuple[str, ...]]] = {
    "single": ("single", {"clip": 1.0}, ()),
    "sum": ("sum", {"clip": 1.0}, ()),
    "weighted": ("weighted", {"clip": 1.0}, ("weight",)),
    "uw": ("weighting:UncertaintyWeighting", {"clip": 1.0}, ()),
    "pcgrad": ("torchjd:PCGrad", {"clip": 1.0}, ()),
    "cagrad": ("torchjd:CAGrad", {"clip": 1.0}, ("c",)),
    "mgda": ("torchjd:MGDA", {"clip": 1.0}, ()),
    "imtlg": ("torchjd:IMTLG", {"clip": 1.0}, ()),
    "nashmtl": ("torchjd:NashMTL", {"clip": 1.0, "update_weights_every": 10}, ()),
    "alignedmtl": ("torchjd:AlignedMTL", {"clip": 1.0}, ()),
    "equalise": (_OURS, {"gamma": 1.0}, ()),
    "samgs": (_OURS, {}, ("gamma",)),
    "samgs-norm": (_OURS, {"scale": "norm", "max_norm": None}, ("gamma",)),
}
PEERS = ("sum", "uw", "pcgrad", "cagrad", "mgda", "imtlg", "nashmtl", "alignedmtl")
CONTROLS = ("weighted", "equalise")
SWEPT = ("sum", "pcgrad", "equalise", "samgs")

# Arms of the synthetic problems. The clip is what the authors' loop adds to every method.
TOYS: Mapping[str, Mapping[str, Any]] = {
    "toy-sum": {"toy": "sum", "clip": None},
    "toy-sum-clip": {"toy": "sum", "clip": 1.0},
    "toy-pcgrad": {"toy": "pcgrad", "clip": None},
    "toy-pcgrad-clip": {"toy": "pcgrad", "clip": 1.0},
    "toy-equalise": {"toy": "equalise", "clip": None},
    "toy-equalise-clip": {"toy": "equalise", "clip": 1.0},
    "toy-samgs": {"toy": "samgs", "clip": 1.0},
    "toy-samgs-free": {"toy": "samgs", "clip": None},
    "toy-samgs-norm": {"toy": "samgs", "clip": None, "scale": "norm"},
}

LABELS = {
    "single": "a network a task",
    "sum": "plain sum",
    "weighted": "sum, tuned weight",
    "uw": "uncertainty weighting",
    "pcgrad": "PCGrad",
    "cagrad": "CAGrad",
    "mgda": "MGDA",
    "imtlg": "IMTL-G",
    "nashmtl": "Nash-MTL",
    "alignedmtl": "Aligned-MTL",
    "equalise": "equalisation alone",
    "samgs": "SAM-GS",
    "samgs-norm": "SAM-GS, scale='norm'",
    "toy-sum": "plain sum",
    "toy-sum-clip": "plain sum, clipped",
    "toy-pcgrad": "PCGrad",
    "toy-pcgrad-clip": "PCGrad, clipped",
    "toy-equalise": "equalisation alone",
    "toy-equalise-clip": "equalisation alone, clipped",
    "toy-samgs": "SAM-GS",
    "toy-samgs-free": "SAM-GS without its clip",
    "toy-samgs-norm": "SAM-GS, scale='norm'",
    "cost": "SAM-GS over a peer",
}

# Which losses the tuned weight of the control multiplies: the image, and the rare functions (less
# than a fifth of the genes).
_WEIGHTED = {
    "multi_digits_3": ["image"],
    "yeast14": [f"function{i}" for i in (7, 8, 9, 10, 11, 14)],
}
_SCALES = [1.0, 0.1]


def _toys(steps: int, lr: float) -> dict[str, Any]:
    """The synthetic problems."""
    return {
        "label": "two synthetic problems, seven starts",
        "trial": f"{_TRIAL}:toys",
        "arms": tuple(TOYS),
        "steps": 0,
        "data": (),
        "spec": {"steps": steps, "lr": lr, "scales": _SCALES},
    }


def _trained(problem: str, label: str, arms: tuple[str, ...], steps: int) -> dict[str, Any]:
    """A real problem."""
    return {
        "label": label,
        "trial": _TRAIN,
        "arms": arms,
        "steps": steps,
        "data": ("yeast",) if problem == "yeast14" else ("mnist5k",),
        "spec": {"problem": problem, "weighted": _WEIGHTED[problem]},
    }


def _cost(blocks: int) -> dict[str, Any]:
    """Calls and steps timed."""
    return {
        "label": "cost of a call and of a step",
        "trial": f"{_TRIAL}:cost",
        "arms": ("cost",),
        "steps": 0,
        "data": ("mnist5k",),
        "spec": {
            "sizes": [[2, 1_000_000], [10, 200_000]],
            "blocks": blocks,
            "problem": "multi_digits",
        },
    }


_DIGITS = "two digits overlaid: left, right and the image itself"
_YEAST = "14 functions of yeast genes"
_ALL = tuple(METHODS)

_SETTING = (
    "Adam at a constant rate; gradients of the trunk are clipped to norm 1 for every method: the "
    "authors' code clips those that combine gradients. SAM-GS clips by itself; with scale='norm' "
    "it has no clip.",
    "Digits: 6,000 pairs from 3,000 images of a sample of 5,000, at half resolution, a small CNN. "
    "Yeast: a network of two layers. Batches of 64.",
    "The error of a gene's function is 1 - AUC: the share of wrong answers would reward never "
    "naming a rare one.",
)
_TOY_NOTE = (
    "Seed 0 has the published starts, later ones the same moved by up to 0.5 in each coordinate.",
    "An end is off the ridge, where both losses are 0, at two thirds of the way to the lowest sum "
    "of the losses as stated; that takes in the Pareto set. It is an optimum within 2 % of it.",
    "The gradients of the synthetic problems are written out in numpy; tests hold the directions "
    "against SAMGS and torchjd's PCGrad.",
)


def _benchmark(
    name: str, network: str, epochs: int, batch: int, lr: float, hardware: str
) -> dict[str, Any]:
    """A published benchmark: configuration only."""
    return {
        "label": f"{name}, {network}",
        "trial": f"{_TRIAL}:published",
        "arms": ("single", *PEERS, *CONTROLS, "samgs"),
        "steps": 0,
        "data": (),
        "spec": {
            "benchmark": name,
            "network": network,
            "epochs": epochs,
            "batch": batch,
            "lr": lr,
            "hardware": hardware,
        },
    }


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "workloads": {
            "toys": _toys(5000, 4e-3),
            "yeast": _trained(
                "yeast14", _YEAST, ("single", "sum", "pcgrad", "equalise", "samgs"), 100
            ),
            "cost": _cost(6),
        },
        "tune_trials": 0,
        "final_seeds": 3,
        "trial_seconds": 0.8,
        "notes": (
            "Three seeds, nothing tuned: an indication. The synthetic problems take 5,000 steps "
            "at four times the published rate.",
            *_SETTING,
            *_TOY_NOTE,
        ),
    },
    "full": {
        "workloads": {
            "toys": _toys(20_000, 1e-3),
            "digits": _trained("multi_digits_3", _DIGITS, _ALL, 120),
            "yeast": _trained("yeast14", _YEAST, _ALL, 80),
            "scales": {
                "label": "digits, the left one's loss at five scales",
                "trial": f"{_TRIAL}:scales",
                "arms": SWEPT,
                "steps": 100,
                "data": ("mnist5k",),
                "spec": {
                    "train": {"problem": "multi_digits_3"},
                    "swept": "left",
                    "scales": [0.01, 0.1, 1.0, 10.0, 100.0],
                    "tuned_at": 1.0,
                },
            },
            "cost": _cost(10),
        },
        "tune_trials": 8,
        "final_seeds": 10,
        "trial_seconds": 1.2,
        "notes": (
            "Every method has eight trials for its learning rate (three decades) and, where it has "
            "one, a setting of its own: gamma of SAM-GS, c of CAGrad, the weight of the image or "
            "of the rare functions in the sum. Chosen by the mean logarithm of the errors on "
            "held-out examples, never those of the test.",
            "Nash-MTL solves for its weights every ten steps, an option of its authors: each solve "
            "takes longer than the step.",
            "At other scales of one loss the settings chosen at scale 1 are kept.",
            *_SETTING,
            *_TOY_NOTE,
        ),
    },
    "paper": {
        "workloads": {
            "toys": _toys(20_000, 1e-3),
            "cityscapes": _benchmark(
                "Cityscapes", "MTAN", 200, 8, 1e-4, "a GPU of 16 GB for a day a method and seed"
            ),
            "nyuv2": _benchmark(
                "NYUv2", "MTAN", 200, 2, 1e-4, "a GPU of 16 GB for a day a method and seed"
            ),
            "celeba": _benchmark(
                "CelebA", "a CNN, 40 tasks", 15, 256, 3e-4, "a GPU of 16 GB for hours a run"
            ),
        },
        "tune_trials": 0,
        "final_seeds": 3,
        "trial_seconds": 86400.0,
        "notes": (
            "The published benchmarks: configuration, not run here. The synthetic problems are "
            "those of the paper at any preset but quick.",
            *_TOY_NOTE,
        ),
    },
}
