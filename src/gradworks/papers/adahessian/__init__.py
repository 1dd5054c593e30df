"""ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning (2020, arXiv:2006.00719).

Networks with learning rates tuned alike and at the published settings, ablations at the published
rate, two functions of the plane, and the price of a step. The criteria were fixed before the first
run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradworks.bench.experiment import Arm, Experiment, Knob, Workload
from gradworks.papers._deciding import decidable
from gradworks.papers.adahessian.claims import CARD, CLAIMS
from gradworks.papers.adahessian.figures import figures
from gradworks.papers.adahessian.presets import PRESETS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

_HERE = "gradworks.papers.adahessian.trial"
_ADAHESSIAN, _ADAM = "gradworks.optim.AdaHessian", "torch.optim.Adam"
_ADAMW, _SGD = "torch.optim.AdamW", "torch.optim.SGD"


def _rate(default: float, low: float, high: float) -> tuple[Knob, ...]:
    """Three decades of learning rates."""
    return (Knob(name="lr", low=low, high=high, default=default),)


_AS_ADAM = _rate(1e-3, 1e-4, 1e-1)
TUNED = (
    Arm(
        name="adahessian",
        label="AdaHessian",
        method=_ADAHESSIAN,
        space=_rate(0.15, 5e-3, 5.0),
    ),
    Arm(name="adam", label="Adam", method=_ADAM, space=_AS_ADAM, is_baseline=True),
    Arm(name="adamw", label="AdamW", method=_ADAMW, space=_AS_ADAM, is_baseline=True),
    Arm(
        name="sgd",
        label="SGD",
        method=_SGD,
        space=_rate(0.1, 3e-3, 3.0),
        fixed={"momentum": 0.9, "nesterov": True},
        is_baseline=True,
    ),
)
_DECAY = 5e-4
PUBLISHED = (
    Arm(
        name="published-adahessian",
        label="AdaHessian, published settings",
        method=_ADAHESSIAN,
        fixed={"lr": 0.15, "weight_decay": _DECAY / 0.15},
    ),
    Arm(
        name="published-adam",
        label="Adam, published settings",
        method=_ADAM,
        fixed={"lr": 1e-3, "weight_decay": _DECAY},
        is_baseline=True,
    ),
)
_ABLATED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "paper": ("as published", {}),
    "none": ("no spatial averaging", {"averaging": "none"}),
    "power": ("Hessian power 1/2", {"hessian_power": 0.5}),
    "each2": ("estimate every 2 steps", {"update_each": 2}),
    "each5": ("estimate every 5 steps", {"update_each": 5}),
    "each10": ("estimate every 10 steps", {"update_each": 10}),
}
ABLATIONS = tuple(
    Arm(name=f"ablate-{name}", label=label, method=_ADAHESSIAN, fixed={"lr": 0.15, **changed})
    for name, (label, changed) in _ABLATED.items()
)
# Rates of the gallery by function: they only shape the pictures, and decide nothing.
GALLERY = (
    Arm(
        name="path-adahessian",
        label="AdaHessian",
        method=_ADAHESSIAN,
        fixed={"lr": {"rosenbrock": 0.15, "rastrigin": 0.15}},
    ),
    Arm(
        name="path-adam",
        label="Adam",
        method=_ADAM,
        fixed={"lr": {"rosenbrock": 0.1, "rastrigin": 0.1}},
        is_baseline=True,
    ),
    Arm(
        name="path-sgd",
        label="SGD",
        method=_SGD,
        fixed={"lr": {"rosenbrock": 5e-4, "rastrigin": 1e-3}, "momentum": 0.9},
        is_baseline=True,
    ),
)
COST = (Arm(name="cost-adahessian", label="AdaHessian", method=_ADAHESSIAN),)

_CHOSEN = {
    "images": (*(arm.name for arm in TUNED), *(arm.name for arm in PUBLISHED)),
    "language": ("adahessian", "adamw"),
}
_LABELS = {
    "digits": "CNN with batch normalization on digits",
    "resnet": "residual network on digits",
    "text": "transformer on Python's manual",
}


def _network(name: str, label: str, size: Mapping[str, Any], arms: tuple[str, ...]) -> Workload:
    """A network that every optimizer trains."""
    text = size["problem"] == "text-transformer"
    return Workload(
        name=name,
        label=label,
        trial="gradworks.bench.training:train",
        spec={"problem": size["problem"]},
        steps=size["steps"],
        batch_size=16 if text else 64,
        arms=arms,
        data=("topics_text" if text else "digits",),
        select_on="nats" if text else "error",
    )


def _workloads(chosen: Mapping[str, Any]) -> tuple[Workload, ...]:
    """The workloads of a preset."""
    made = [
        _network(name, _LABELS[name], size, _CHOSEN[size["arms"]])
        for name, size in chosen.get("tuned", {}).items()
    ]
    if "ablations" in chosen:
        label = "CNN on digits at the published rate"
        names = tuple(arm.name for arm in ABLATIONS)
        made.append(_network("ablations", label, chosen["ablations"], names))
    made += [
        Workload(
            name=function,
            label=f"{function.capitalize()}'s function",
            trial=f"{_HERE}:gallery",
            spec={"function": function, "every": chosen["gallery"]["every"]},
            steps=chosen["gallery"]["steps"],
            arms=tuple(arm.name for arm in GALLERY),
            select_on="height",
        )
        for function in (("rosenbrock", "rastrigin") if "gallery" in chosen else ())
    ]
    made += [
        Workload(
            name=name,
            label=f"{size['model']} on CIFAR-10",
            trial=f"{_HERE}:cifar",
            spec={**size, "epochs": chosen["epochs"], "drop": chosen["drop"]},
            steps=chosen["epochs"] * 196,
            batch_size=chosen["batch_size"],
            arms=tuple(arm.name for arm in PUBLISHED),
            select_on="error",
        )
        for name, size in chosen.get("cifar", {}).items()
    ]
    made.append(
        Workload(
            name="cost",
            label="time of a training step",
            trial=f"{_HERE}:cost",
            spec={"problem": "digits-cnn", "blocks": chosen["cost"]["blocks"]},
            batch_size=64,
            arms=("cost-adahessian",),
            data=("digits",),
            select_on="step_ratio",
        )
    )
    return tuple(made)


def build(preset: str) -> Experiment:
    """Return the experiment of a preset.

    Args:
        preset: ``"quick"``, ``"full"`` or ``"paper"``; the last is a configuration that only
            hardware and data of the published size can run.

    Returns:
        Workloads, arms and the claims they decide.

    Raises:
        ValueError: If there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    chosen = PRESETS[preset]
    workloads = _workloads(chosen)
    cifar = [w.name for w in workloads if w.trial.endswith(":cifar")]
    used = {name for workload in workloads for name in workload.arms}
    every = (*TUNED, *PUBLISHED, *ABLATIONS, *GALLERY, *COST)
    return Experiment(
        paper=CARD.slug,
        preset=preset,
        workloads=workloads,
        arms=tuple(arm for arm in every if arm.name in used),
        claims=decidable(CLAIMS, workloads, instead={"error": cifar} if cifar else None),
        tune_trials=chosen["tune_trials"],
        final_seeds=chosen["final_seeds"],
        trial_seconds=chosen["trial_seconds"],
        notes=tuple(chosen["notes"]),
    )
